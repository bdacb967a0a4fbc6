//! Hierarchical sparse attention of tokens that come alone, as decoding has them: a workgroup a query head, so that what
//! a token selects is asked for at once and not chunk by chunk.

use crate::{
    DType, Tensor, launch,
    ops::{self, batches_a_binding, in_batches},
    testing::{Case, Cost, Dim, Input},
};

/// Keys of all slots whose probabilities a workgroup holds.
const MOST_KEYS: usize = 1024;
/// Rows a launch: a dispatch has at most 65535 along one dimension.
const MOST_TOKENS: usize = 32768;

/// What [`hsa`](ops::hsa) gives but for rounding, outside of the graph: nothing on the way is rounded to 16 bits. Shapes and
/// types as there.
///
/// It is an op of its own, and not what `hsa` does for few tokens, since a token's result must not depend on how many there
/// are: use it where a token comes alone, however many sequences get one.
///
/// # Panics
/// As [`hsa`](ops::hsa).
#[track_caller]
pub fn hsa_step(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    weights: &Tensor,
    indices: &Tensor,
    chunk: usize,
    off_by_one: bool,
) -> Tensor {
    let [query_heads, heads, d] = super::hsa::expect(q, k, v, weights, indices, chunk);
    let [batches, tokens, ..]: [usize; 4] = q.axes();
    let [.., selection_heads, slots]: [usize; 4] = weights.axes();
    let keys: usize = k.shape()[1];
    let half = q.dtype() == DType::F16;
    let unit = if half { 8 } else { 4 };
    if !d.is_multiple_of(unit) || slots * chunk > MOST_KEYS || tokens > MOST_TOKENS {
        return crate::no_grad(|| ops::hsa(q, k, v, weights, indices, chunk, off_by_one));
    }
    let bytes = (keys * heads).max(tokens * query_heads) * d * q.dtype().bytes();
    let most = batches_a_binding(q.gpu(), batches, bytes).min(MOST_TOKENS / tokens.max(1));
    if most < batches {
        let part = |i: &[Tensor]| vec![hsa_step(&i[0], &i[1], &i[2], &i[3], &i[4], chunk, off_by_one)];
        return crate::no_grad(|| in_batches(&[q, k, v, weights, indices], most, part).remove(0));
    }
    let o = q.like();
    let scale = 1.0 / (d as f32).sqrt();
    launch!(hsa_step [elem = q.dtype().wgsl(), HALF = u32::from(half), D = d, S = chunk, K = slots] {
        keys, query_heads, heads, tokens, joint: selection_heads == 1, off_by_one, scale,
    }, [q, k, v, weights, indices] -> [o], (query_heads, batches * tokens, 1));
    o
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![
            Dim::range("batches", 1, 2),
            Dim::range("tokens", 1, 2),
            Dim::one_of("share", &[1, 4, 16]),
            Dim::one_of("heads", &[1, 2]),
            // Every shape is compiled by itself.
            Dim::one_of("d", &[16, 64, 12]),
            Dim::range("chunks", 1, 3),
            Dim::one_of("chunk", &[64, 20]),
            Dim::one_of("slots", &[3, 8, 17]),
            Dim::one_of("shared", &[0, 1]),
            Dim::one_of("off_by_one", &[0, 1]),
        ],
        inputs: |s, draw| {
            let inputs = super::hsa::drawn(s, draw);
            inputs.into_iter().map(|i| Input { differentiable: false, ..i }).collect()
        },
        run: |s, i| vec![hsa_step(&i[0], &i[1], &i[2], &i[3], &i[4], s["chunk"], s["off_by_one"] == 1)],
        reference: super::hsa::reference,
        error: |_| 64.0,
        cost: |s| {
            let [batches, tokens, share, heads, d, _, chunk, slots, ..]: [usize; 10] = s.get();
            let rows = batches * tokens * heads;
            Cost { bytes: 8 * rows * d * (share + slots * chunk), flops: 4 * rows * share * d * slots * chunk }
        },
        bench: &[],
        ..Case::new("hsa_step")
    };
    let half = Case {
        bench: &[&[1, 1, 16, 1, 64, 1024, 64, 8, 1, 1]],
        ..plain.in_half("hsa_step.f16", &["q", "k", "v"], 1.0)
    };
    vec![half, plain]
}
