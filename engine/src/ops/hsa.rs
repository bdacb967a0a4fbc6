//! Hierarchical sparse attention (arXiv 2504.16795, section 3): each token attends inside a few chunks, each chunk with
//! a softmax of its own, and weighs what they say.
//!
//! The backward pass is linear in the tokens: lists of the slots that selected each chunk are built once, and a chunk's
//! keys and values visit those alone.

use crate::{
    DType, Tensor, launch,
    ops::{inverse_list, split_columns},
    reference::Array,
    testing::{Case, Cost, Dim, Input, Sizes},
};

/// `o[t, hq] = Σ_i weight[t, h, i] · softmax_j(q[t, hq] · k[j, h] / √d) · v[j, h]` over the tokens j of chunk
/// `indices[t, h, i]`, h = hq · heads / query heads.
///
/// `q`: (batch, tokens, query heads, d); `k`, `v`: (batch, keys, heads, d), keys a multiple of `chunk`; `weights` (f32)
/// and `indices` (u32): (batch, tokens, heads, K), or one head for all. With `off_by_one` each denominator has one more term,
/// exp(0). Slots of weight exactly 0 add nothing; their weight's gradient is ⟨do, what they would say⟩ all the same.
///
/// # Panics
/// Where shapes disagree, or d or `chunk` exceeds 256.
#[track_caller]
pub fn hsa(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    weights: &Tensor,
    indices: &Tensor,
    chunk: usize,
    off_by_one: bool,
) -> Tensor {
    let [batches, tokens, query_heads, d] = q.axes();
    let [kb, keys, heads, kd] = k.axes();
    let [.., selection_heads, slots]: [usize; 4] = weights.axes();
    assert_eq!((kb, kd), (batches, d), "hsa: k {:?} for q {:?}", k.shape(), q.shape());
    assert_eq!(k.shape(), v.shape(), "hsa: k and v");
    assert_eq!(weights.shape(), indices.shape(), "hsa: weights and indices");
    assert_eq!(weights.shape()[..2], [batches, tokens], "hsa: weights for q {:?}", q.shape());
    assert!(selection_heads == heads || selection_heads == 1, "hsa: {selection_heads} selections for {heads} heads");
    assert!(query_heads.is_multiple_of(heads), "hsa: {query_heads} query heads for {heads} heads");
    assert!(keys.is_multiple_of(chunk) && (1..=256).contains(&chunk) && d <= 256, "hsa: chunk {chunk}, d {d}, {keys} keys");
    assert_eq!(indices.dtype(), DType::U32, "hsa: indices");
    let (elem, scale, joint) = (q.dtype().wgsl(), 1.0 / (d as f32).sqrt(), selection_heads == 1);
    let (o, lse) = (q.like(), q.empty_on([batches, tokens, query_heads, slots], DType::F32));
    let groups = batches * tokens * query_heads;
    let wide = d.next_multiple_of(16);
    launch!(hsa [elem = elem, D = wide, S = chunk] {
        batches, tokens, keys, query_heads, heads, d, slots, joint, chunk, off_by_one, scale, groups,
    }, [q, k, v, weights, indices] -> [o, lse], groups);
    let [q_, k_, v_, weights_, indices_] = [q, k, v, weights, indices].map(Tensor::detach);
    o.with_grad(&[q, k, v, weights], move |dout| {
        let flat = |a: &Tensor, b: &Tensor| {
            super::concat_columns(&[&a.reshape([1, a.len()]), &b.reshape([1, b.len()])])
        };
        let kv = flat(&k_, &v_);
        let (dq, dots) = (q_.like(), lse.like());
        launch!(hsa_backward_query [elem = elem, D = wide, S = chunk] {
            batches, tokens, keys, query_heads, heads, d, slots, joint, chunk, scale, groups,
        }, [q_, kv, weights_, indices_, lse, dout] -> [dq, dots], groups);
        let dweights = weights_.like();
        let count = weights_.len();
        launch!(hsa_weights_backward { count, slots, share: query_heads / selection_heads }, [dots] -> [dweights],
                count.div_ceil(256));
        let chunks = keys / chunk;
        let list_keys = indices_.like();
        launch!(hsa_keys { count, tokens, slots, heads: selection_heads, chunks }, [indices_, weights_] -> [list_keys],
                count.div_ceil(256));
        let lists = inverse_list(&list_keys, batches * selection_heads * chunks);
        let (qdo, stats) = (flat(&q_, dout), flat(&lse, &dots));
        let dkv = kv.like();
        let blocks = chunk.div_ceil(64);
        let groups = batches * heads * chunks * blocks;
        launch!(hsa_backward_memory [elem = elem, D = wide] {
            batches, tokens, keys, query_heads, heads, d, slots, joint, chunk, scale, groups, blocks, chunks,
        }, [qdo, kv, weights_, stats, lists.order, lists.starts] -> [dkv], groups);
        let mut parts = split_columns(&dkv, &[k_.len(), k_.len()]);
        let dv = parts.swap_remove(1).reshape(v_.shape());
        [dq, parts.swap_remove(0).reshape(k_.shape()), dv, dweights]
    })
}

/// The dense loop of the definition.
fn reference(s: &Sizes, i: &[Array]) -> Vec<Array> {
    let [_, _, query_heads, d]: [usize; 4] = i[0].axes();
    let [.., heads, _]: [usize; 4] = i[1].axes();
    let [.., selection_heads, slots]: [usize; 4] = i[3].axes();
    let (chunk, off) = (s["chunk"], f64::from(u8::from(s["off_by_one"] == 1)));
    let mut o = Array::zeros(&i[0].shape);
    for b in 0..i[0].shape[0] {
        for t in 0..i[0].shape[1] {
            for hq in 0..query_heads {
                let h = hq / (query_heads / heads);
                for slot in 0..slots {
                    let at = [b, t, h.min(selection_heads - 1), slot];
                    let first = i[4].at(&at) as usize * chunk;
                    let scores: Vec<f64> = (first..first + chunk)
                        .map(|j| {
                            let dot: f64 = (0..d).map(|c| i[0].at(&[b, t, hq, c]) * i[1].at(&[b, j, h, c])).sum();
                            (dot / (d as f64).sqrt()).exp()
                        })
                        .collect();
                    let total = scores.iter().sum::<f64>() + off;
                    for (j, e) in scores.iter().enumerate() {
                        for c in 0..d {
                            *o.at_mut(&[b, t, hq, c]) += i[3].at(&at) * e / total * i[2].at(&[b, first + j, h, c]);
                        }
                    }
                }
            }
        }
    }
    vec![o]
}

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        dims: vec![
            Dim::range("batches", 1, 2),
            Dim::range("tokens", 1, 12),
            Dim::one_of("share", &[1, 4, 16]),
            Dim::one_of("heads", &[1, 2]),
            Dim::one_of("d", &[16, 4, 8]),
            Dim::range("chunks", 1, 3),
            Dim::one_of("chunk", &[16, 64]),
            Dim::range("slots", 1, 4),
            Dim::one_of("shared", &[0, 1]),
            Dim::one_of("off_by_one", &[0, 1]),
        ],
        inputs: |s, draw| {
            let [batches, tokens, share, heads, d, chunks, chunk, slots, shared, _] = s.get();
            let selection = [batches, tokens, if shared == 1 { 1 } else { heads }, slots];
            let weights = draw.uniform(&selection, -0.3, 1.0).map(|w| w.max(0.0));
            vec![
                Input::new("q", draw.uniform(&[batches, tokens, share * heads, d], -2.0, 2.0)).grad(),
                Input::new("k", draw.uniform(&[batches, chunks * chunk, heads, d], -2.0, 2.0)).grad(),
                Input::new("v", draw.uniform(&[batches, chunks * chunk, heads, d], -2.0, 2.0)).grad(),
                Input::new("weights", weights).grad(),
                Input::new("indices", draw.integers(&selection, 0, chunks as i64)).of(DType::U32),
            ]
        },
        run: |s, i| vec![hsa(&i[0], &i[1], &i[2], &i[3], &i[4], s["chunk"], s["off_by_one"] == 1)],
        reference,
        error: |_| 64.0,
        error_grad: Some(|s| 400.0 + 8.0 * s["tokens"] as f64),
        cost: |s| {
            let [batches, tokens, share, heads, d, chunks, chunk, slots, ..]: [usize; 10] = s.get();
            let q = batches * tokens * share * heads * d;
            Cost { bytes: 8 * (q + batches * chunks * chunk * heads * d), flops: 4 * q * slots * chunk }
        },
        bench: &[&[8, 4096, 16, 1, 64, 64, 64, 8, 0, 0]],
        ..Case::new("hsa")
    }]
}
