//! The HSA layer: x + W_o · HSA(W_q · RMSNorm(x), memory, selection).

use rambutan_engine::{Tensor, ops};

use crate::{
    Config,
    config::ATTENTION_NORM_EPSILON as EPS,
    retrieval::Selection,
    weights::{Norm, Scope, add_linear, is_step},
};

/// The layer's parameters.
pub struct Hsa {
    norm: Norm,
    query: Tensor,
    query_norm: Option<Norm>,
    out: Tensor,
    heads: usize,
    head_dim: usize,
    chunk: usize,
    off_by_one: bool,
}

impl Hsa {
    /// The layer whose parameters lie in `scope`.
    pub fn new(config: &Config, scope: &Scope<'_>) -> Hsa {
        Hsa {
            norm: scope.norm("pre_norm.weight", EPS),
            query: scope.get("q_proj.weight"),
            query_norm: scope.find_norm("q_norm.weight", EPS),
            out: scope.get("o_proj.weight"),
            heads: config.num_attention_heads,
            head_dim: config.attention_head_dim,
            chunk: config.chunk_size,
            off_by_one: config.sm_n() != 0.0,
        }
    }

    /// x: (batch, tokens, width), f32. Keys and values may span a group of sequences: then their batch divides that of `x`,
    /// and indices count chunks over the group.
    pub fn forward(&self, x: &Tensor, [k, v]: [&Tensor; 2], selection: &Selection) -> Tensor {
        let [batch, tokens, _] = x.axes();
        let [groups, ..]: [usize; 4] = k.axes();
        let (joined, slots) =
            (batch / groups * tokens, *selection.indices.shape().last().expect("four axes"));
        let q = self.norm.project(x, &self.query);
        let mut q = q.reshape([groups, joined, self.heads, self.head_dim]);
        if let Some(norm) = &self.query_norm {
            q = norm.forward(&q);
        }
        let heads = selection.weights.shape()[2];
        let weights = selection.weights.reshape([groups, joined, heads, slots]);
        let indices = selection.indices.reshape([groups, joined, heads, slots]);
        let attend = if is_step(x, &self.query) { ops::hsa_step } else { ops::hsa };
        let o = attend(&q, k, v, &weights, &indices, self.chunk, self.off_by_one);
        let o = o.reshape([batch, tokens, self.heads * self.head_dim]);
        add_linear(x, &o, &self.out)
    }
}
