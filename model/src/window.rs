//! The other token mixer: causal attention over a sliding window, x + W_o · attention(RoPE(q), RoPE(k), v), with
//! q | k | v = W_in · RMSNorm(x). With a window of all tokens it is full attention.
//!
//! Where states restart, a token sees those of its own segment alone: queries and keys carry a code of their segment
//! ([`ops::segment_code`]).

use rambutan_engine::{Tensor, ops};

use crate::{
    Config,
    ramba::join,
    weights::{Norm, Scope, add_linear},
};

/// What a score loses at least where query and key are of two segments: e⁻⁴⁰ of a weight is nothing in f32.
const APART: f32 = 40.0;

/// One block's parameters.
pub struct Window {
    norm: Norm,
    in_proj: Tensor,
    out_proj: Tensor,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: usize,
    theta: f32,
}

/// What a block carries from one token to the next: the last tokens that later ones may see.
#[derive(Clone)]
pub struct WindowState {
    /// (batch, tokens, heads, head dim): keys, rotated by their places since the state began.
    pub k: Tensor,
    /// (batch, tokens, heads, head dim).
    pub v: Tensor,
    /// (batch, tokens), u32: the tokens' segments, where there are any.
    pub segment: Option<Tensor>,
    /// Tokens since the state began, those no longer seen among them.
    pub position: usize,
}

impl Window {
    /// The block whose parameters lie in `scope`.
    pub fn new(config: &Config, scope: &Scope<'_>) -> Window {
        Window {
            norm: scope.norm("norm.weight", config.layer_norm_epsilon),
            in_proj: scope.get("mixer.in_proj.weight"),
            out_proj: scope.get("mixer.out_proj.weight"),
            heads: config.num_attention_heads,
            kv_heads: config.window_kv_heads,
            head_dim: config.attention_head_dim,
            window: config.window_size,
            theta: config.rope_theta as f32,
        }
    }

    /// x: (batch, tokens, width), f32 → the same, with the state after the last token. `segment`: (batch, tokens), u32; a
    /// token sees none from before a change; after 256 changes within a window numbers would come again.
    pub fn forward(
        &self,
        x: &Tensor,
        segment: Option<&Tensor>,
        state: Option<&WindowState>,
    ) -> (Tensor, WindowState) {
        let [batch, tokens, _] = x.axes();
        let d = self.head_dim;
        let projected = self.norm.project(x, &self.in_proj);
        let widths = [self.heads, self.kv_heads, self.kv_heads].map(|heads| heads * d);
        let parts = ops::split_columns(&projected, &widths);
        let heads = |x: &Tensor, heads: usize| x.reshape([batch, tokens, heads, d]);
        let position = state.map_or(0, |s| s.position);
        // Angles are computed in f64, so that scores depend on distances alone at any position.
        let [q, mut k] = [(0, self.heads), (1, self.kv_heads)]
            .map(|(i, n)| ops::rope(&heads(&parts[i], n), self.theta, position));
        let mut v = heads(&parts[2], self.kv_heads);
        let before = state.map_or(0, |s| s.k.shape()[1]);
        let all = before + tokens;
        let segment = segments(state.and_then(|s| s.segment.as_ref()), before, segment, tokens);
        if let Some(state) = state.filter(|_| before > 0) {
            (k, v) = (join(&[&state.k, &k]), join(&[&state.v, &v]));
        }
        let kept = all.min(self.window - 1);
        let next = WindowState {
            k: last_tokens(&k.detach(), kept),
            v: last_tokens(&v.detach(), kept),
            segment: segment.as_ref().map(|s| last_tokens(s, kept)),
            position: position + tokens,
        };
        let o = match &segment {
            None => ops::window_attention(&q, &k, &v, self.window),
            Some(segment) => {
                let segment = &ops::segment_runs(segment);
                // Scores are divided by the root of all columns, the code's too.
                let root = ((d + ops::SEGMENT_COLUMNS) as f32).sqrt();
                let own = &last_tokens(segment, tokens);
                let q = ops::segment_code(&q, own, root / (d as f32).sqrt(), APART * root);
                let k = ops::segment_code(&k, segment, 1.0, 1.0);
                let v = ops::segment_code(&v, segment, 1.0, 0.0);
                let o = ops::window_attention(&q, &k, &v, self.window);
                ops::split_columns(&o, &[d, ops::SEGMENT_COLUMNS]).swap_remove(0)
            }
        };
        let o = o.reshape([batch, tokens, self.heads * d]);
        (add_linear(x, &o, &self.out_proj), next)
    }
}

/// The last `n` tokens of x (batch, tokens, …).
pub(crate) fn last_tokens(x: &Tensor, n: usize) -> Tensor {
    let (batch, tokens) = (x.shape()[0], x.shape()[1]);
    if n == tokens {
        return x.clone();
    }
    let width = x.len() / (batch * tokens);
    let flat = x.reshape([batch, tokens * width]);
    let mut shape = x.shape().to_vec();
    shape[1] = n;
    ops::split_columns(&flat, &[(tokens - n) * width, n * width]).swap_remove(1).reshape(shape)
}

/// The segments of `before` tokens and of `tokens` more. Where only one side has numbers, its nearest goes on.
fn segments(old: Option<&Tensor>, before: usize, new: Option<&Tensor>, tokens: usize) -> Option<Tensor> {
    let edge = |x: &Tensor, last: bool| {
        let n = x.shape()[1];
        let widths = if last { [n - 1, 1] } else { [1, n - 1] };
        ops::split_columns(x, &widths).swap_remove(usize::from(last))
    };
    match (old.filter(|_| before > 0), new) {
        (None, None) => None,
        (None, Some(new)) if before == 0 => Some(new.clone()),
        (Some(old), Some(new)) => Some(join(&[old, new])),
        (None, Some(new)) => Some(join(&[&repeated(edge(new, false), before), new])),
        (Some(old), None) => Some(join(&[old, &repeated(edge(old, true), tokens)])),
    }
}

/// One column (batch, 1) as `n` of them.
fn repeated(column: Tensor, n: usize) -> Tensor {
    let mut wide = column;
    while wide.shape()[1] < n {
        wide = join(&[&wide, &wide]);
    }
    last_tokens(&wide, n)
}
