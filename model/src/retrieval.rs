//! The retrieval layer: which chunks each token looks into, and how much each counts. The stream passes unchanged.
//!
//! q = W_q · RMSNorm(x); the K best visible landmarks; stick-breaking or softmax weights over their scores.

use rambutan_engine::{
    DType, Tensor,
    ops::{self, Begun, Landmarks, Visibility},
};

use crate::{
    Config,
    config::ATTENTION_NORM_EPSILON as EPS,
    weights::{Norm, Scope},
};

/// The layer's parameters.
pub struct Retrieval {
    norm: Norm,
    query: Tensor,
    query_norm: Option<Norm>,
    landmark_norm: Option<Norm>,
    pos_decay: Option<Tensor>,
    softmax: bool,
    heads: usize,
    top_k: usize,
}

/// The chunks that tokens look into.
#[derive(Clone)]
pub struct Selection {
    /// (batch, tokens, retrieval heads, K), 0 on padding.
    pub weights: Tensor,
    /// (batch, tokens, retrieval heads, K), u32, newest first, padded with 0.
    pub indices: Tensor,
}

/// What a retrieval layer compares.
pub struct Compared {
    /// (batch, tokens, heads, dim).
    q: Tensor,
    /// (batch, chunks, heads, dim).
    keys: Tensor,
}

impl Compared {
    /// The scores of `rows`, u32, tokens counted through the batch, against all chunks of all its sequences, mean over heads:
    /// (rows, batch · chunks), f32, differentiable. Rows beyond the batch get zeros.
    pub fn scores_of(&self, rows: &Tensor) -> Tensor {
        let [batch, tokens, heads, dim] = self.q.axes();
        let chunks = self.keys.shape()[1];
        // Few rows: in f32 throughout.
        let [q, keys] = [(&self.q, tokens), (&self.keys, chunks)]
            .map(|(t, n)| ops::copy(&t.reshape([batch * n, heads * dim]), DType::F32));
        let scores = ops::linear(&ops::embedding(&q, rows), &keys, None);
        ops::scale(&scores, 1.0 / (heads as f32 * (dim as f32).sqrt()))
    }
}

impl Retrieval {
    /// The layer whose parameters lie in `scope`.
    pub fn new(config: &Config, scope: &Scope<'_>) -> Retrieval {
        Retrieval {
            norm: scope.norm("pre_norm.weight", EPS),
            query: scope.get("ln.weight"),
            query_norm: scope.find_norm("lmk_q_norm.weight", EPS),
            landmark_norm: scope.find_norm("lmk_k_norm.weight", EPS),
            pos_decay: scope.find("pos_decay"),
            softmax: config.enable_softmax,
            heads: config.retrieval_heads(),
            top_k: config.chunk_topk,
        }
    }

    /// x: (batch, tokens, width) against landmarks (batch, chunks, heads, dim).
    pub fn forward(&self, x: &Tensor, landmarks: &Tensor, visibility: &Visibility) -> Selection {
        self.select(&self.compared(x, landmarks), visibility)
    }

    /// The selected chunks' scores before they become weights, and their indices, as [`ops::select`] gives them.
    pub fn scores(&self, x: &Tensor, landmarks: &Tensor, visibility: &Visibility) -> (Tensor, Tensor) {
        self.best_of(&self.compared(x, landmarks), visibility)
    }

    /// What tokens look for and what chunks are known by.
    pub fn compared(&self, x: &Tensor, landmarks: &Tensor) -> Compared {
        Compared { q: self.queries(x), keys: self.keys(landmarks) }
    }

    /// The best of what was compared, and their weights.
    pub fn select(&self, compared: &Compared, visibility: &Visibility) -> Selection {
        let (scores, indices) = self.best_of(compared, visibility);
        self.selection(scores, indices)
    }

    fn best_of(&self, Compared { q, keys }: &Compared, visibility: &Visibility) -> (Tensor, Tensor) {
        ops::select(q, keys, self.top_k, visibility)
    }

    /// The same against pages of landmarks, outside of the graph, in the text's order.
    pub fn forward_pages(&self, x: &Tensor, pages: &[Landmarks], visibility: &Visibility) -> Selection {
        let q = self.queries(x);
        let (scores, indices) = self.best(&q, pages, visibility);
        self.selection(scores, indices)
    }

    /// The best of pages of landmarks for q of [`Retrieval::sought`], as [`ops::select_pages`] gives them.
    pub fn best(&self, q: &Tensor, pages: &[Landmarks], visibility: &Visibility) -> (Tensor, Tensor) {
        ops::select_pages(q, &self.keys_of_pages(q, pages), self.top_k, visibility)
    }

    /// What the tokens of x, (1, tokens, width), look for: (1, tokens, heads, dim).
    pub fn sought(&self, x: &Tensor) -> Tensor {
        self.queries(x)
    }

    /// [`Retrieval::forward_pages`] for several at once, as far as pages that all of their tokens see: q of
    /// [`Retrieval::sought`] each; [`Retrieval::forward_further`] goes on with each. None where there are fewer than K chunks.
    pub fn begin_together(&self, q: &[&Tensor], pages: &[Landmarks]) -> Option<Vec<Begun>> {
        if pages.iter().map(Landmarks::chunks).sum::<usize>() < self.top_k {
            return None;
        }
        let rows: Vec<Tensor> = q.iter().map(|q| q.reshape([1, q.len()])).collect();
        let all = ops::concat_columns(&rows.iter().collect::<Vec<_>>());
        let [_, _, heads, dim]: [usize; 4] = q.first()?.axes();
        let all = all.reshape([1, all.len() / (heads * dim), heads, dim]);
        let begun = ops::select_begun(&all, &self.keys_of_pages(&all, pages), self.top_k);
        let mut first = 0;
        let part = |q: &&Tensor| {
            let tokens = q.shape()[1];
            first += tokens;
            begun.tokens(first - tokens, tokens)
        };
        Some(q.iter().map(part).collect())
    }

    /// The rest of [`Retrieval::begin_together`] for one, with pages behind those.
    pub fn forward_further(
        &self,
        q: &Tensor,
        begun: Begun,
        pages: &[Landmarks],
        visibility: &Visibility,
    ) -> Selection {
        let (scores, indices) = ops::select_further(q, begun, &self.keys_of_pages(q, pages), visibility);
        self.selection(scores, indices)
    }

    /// x: (1, 1, width) against all chunks of pages of landmarks, as [`Retrieval::forward_pages`] takes them → (chunks), f32:
    /// the scores that it selects by, mean over heads.
    pub fn every_score(&self, x: &Tensor, pages: &[Landmarks]) -> Tensor {
        let q = self.queries(x);
        ops::chunk_scores(&q, &self.keys_of_pages(&q, pages))
    }

    /// Norms are of floats: what is in eight bits is floats before them.
    fn keys_of_pages(&self, q: &Tensor, pages: &[Landmarks]) -> Vec<Landmarks> {
        let [.., dim]: [usize; 4] = q.axes();
        let Some(norm) = &self.landmark_norm else { return pages.to_vec() };
        pages.iter().map(|page| norm.forward(&page.floats(dim, q.dtype())).into()).collect()
    }

    fn keys(&self, landmarks: &Tensor) -> Tensor {
        self.landmark_norm.as_ref().map_or_else(|| landmarks.clone(), |norm| norm.forward(landmarks))
    }

    fn queries(&self, x: &Tensor) -> Tensor {
        let [batch, tokens, _] = x.axes();
        let q = self.norm.project(x, &self.query);
        let dim = q.len() / (batch * tokens * self.heads).max(1);
        let q = q.reshape([batch, tokens, self.heads, dim]);
        self.query_norm.as_ref().map_or_else(|| q.clone(), |norm| norm.forward(&q))
    }

    /// Scores of selected chunks and their indices, as [`Retrieval::scores`] gives them, with their weights.
    pub fn selection(&self, scores: Tensor, indices: Tensor) -> Selection {
        let weights = if self.softmax {
            ops::softmax_weights(&scores, self.pos_decay.as_ref())
        } else {
            ops::stick_breaking(&scores)
        };
        Selection { weights, indices }
    }
}
