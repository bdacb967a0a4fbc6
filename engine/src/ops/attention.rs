//! Bidirectional softmax attention inside a chunk (Vaswani et al. 2017, arXiv 1706.03762, eq. 1), with shared key-value
//! heads (Ainslie et al. 2023, arXiv 2305.13245); the backward pass recomputes probabilities from lse (Dao 2023, arXiv
//! 2307.08691, alg. 2).

use crate::{
    DType, Gpu, Tensor, launch,
    reference::Array,
    tensor::rows_a_page,
    testing::{Case, Cost, Dim, Input, Sizes},
};

/// `o[t, h] = Σ_j softmax_j(q[t, h]·k[j, g] / √d) · v[j, g]` with `g = h / (H / Hkv)`, over all T tokens of each chunk.
///
/// `q`: (n, T, H, d), `k` and `v`: (n, T, Hkv, d) of one float type, d a multiple of 4 up to 256; the result has `q`'s
/// shape and type.
///
/// # Panics
/// Where shapes or types disagree.
#[track_caller]
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    attend(q, k, v, Kernel::best(q))
}

/// Who computes it. The choice depends on T, d and the type alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// A query a lane, keys through workgroup memory, in f32: runs everywhere.
    Lane,
    /// Forward straight from storage, for CPUs; backward as `Lane`.
    Direct,
    /// Cooperative matrices, a workgroup a chunk and head, for 16-bit operands and chunks that fit it.
    Coop,
}

impl Kernel {
    fn best(q: &Tensor) -> Kernel {
        let [_, tokens, _, d] = q.axes();
        if q.gpu().capabilities().cpu_vectors() && d.is_multiple_of(16) && d <= 64 {
            Kernel::Direct
        } else if Kernel::Coop.runs_on(q.gpu()) && q.dtype() == DType::F16 && Kernel::whole(tokens, d) {
            Kernel::Coop
        } else {
            Kernel::Lane
        }
    }

    /// Whether a chunk's queries are a workgroup's, and its keys fit the memory of one beside scores and probabilities.
    fn whole(tokens: usize, d: usize) -> bool {
        let rows = tokens.next_multiple_of(16);
        d.is_multiple_of(16) && (1..=128).contains(&rows) && rows * (d * 2 + 16 + 80 + 48 + 8) <= 48 << 10
    }

    fn runs_on(self, gpu: &Gpu) -> bool {
        let c = gpu.capabilities();
        match self {
            Kernel::Lane => true,
            Kernel::Direct => c.subgroups.is_some_and(|(least, _)| least >= 8),
            Kernel::Coop => c.coop && c.subgroups == Some((32, 32)) && c.workgroup_memory >= 48 << 10,
        }
    }
}

#[track_caller]
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, kernel: Kernel) -> Tensor {
    assert!(q.shape().len() == 4, "attention: q: expected (n, T, H, d), got {:?}", q.shape());
    assert!(k.shape().len() == 4, "attention: k: expected (n, T, Hkv, d), got {:?}", k.shape());
    let ([n, tokens, heads, d], [_, _, kv_heads, _]) = (q.axes(), k.axes());
    assert_eq!(k.shape(), [n, tokens, kv_heads, d], "attention: k for q {:?}", q.shape());
    assert_eq!(v.shape(), k.shape(), "attention: v for k {:?}", k.shape());
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "attention: {heads} heads share {kv_heads} of k");
    assert!(d.is_multiple_of(4) && (4..=256).contains(&d), "attention: d: expected 4, 8 … 256, got {d}");
    let dtype = q.dtype();
    assert!(k.dtype() == dtype && v.dtype() == dtype, "attention: q, k and v: {dtype}, {}, {}", k.dtype(), v.dtype());
    // An invocation a query: the workgroup is as wide as the chunk. Two tiles of keys fill 16 KiB.
    let wg = tokens.next_multiple_of(32).clamp(32, 256);
    let (d4, keys, tiles) = (d / 4, (512 / (d / 4)).min(32), tokens.div_ceil(wg));
    let (elem, scale) = (dtype.wgsl(), 1.0 / (d as f32).sqrt());
    // Statistics of a chunk start where an adapter can bind.
    let stride = (heads * tokens).next_multiple_of(64);
    let rows = [tokens * heads * d * dtype.bytes(), tokens * kv_heads * d * dtype.bytes(), stride * 4];
    let step = rows_a_page(q.gpu(), &rows);
    let page = move |x: &Tensor, which: usize, first: usize| x.page(first, step.min(n - first), rows[which]);
    let (o, lse) = (q.like(), q.empty_on([n, stride], DType::F32));
    for first in (0..n).step_by(step) {
        let chunks = step.min(n - first);
        let (q, k, v) = (page(q, 0, first), page(k, 1, first), page(v, 1, first));
        let (o, lse) = (page(&o, 0, first), page(&lse, 2, first));
        match kernel {
            Kernel::Coop => launch!(attention_coop [D = d, TT = tokens.div_ceil(16)]
                                    { chunks, tokens, heads, kv_heads, stride, scale },
                                    [q, k, v] -> [o, lse], chunks * heads),
            Kernel::Direct => {
                let tiles = tokens.div_ceil(8);
                launch!(attention_direct [elem = elem, D16 = d / 16]
                        { chunks, tokens, heads, kv_heads, tiles, stride, scale },
                        [q, k, v] -> [o, lse], chunks * heads * tiles);
            }
            Kernel::Lane => launch!(attention [elem = elem, WG = wg, D4 = d4, KEYS = keys]
                                    { chunks, tokens, heads, kv_heads, tiles, stride, scale },
                                    [q, k, v] -> [o, lse], chunks * heads * tiles),
        }
    }
    let (q_, k_, v_) = (q.detach(), k.detach(), v.detach());
    // The kernels on matrices make what they need of it from what they have.
    let o_ = if kernel == Kernel::Coop { q.detach() } else { o.detach() };
    o.with_grad(&[q, k, v], move |dy| {
        let (q, k, v, o) = (q_, k_, v_, o_);
        let (dq, dk, dv, delta) = (q.like(), k.like(), v.like(), lse.like());
        for first in (0..n).step_by(step) {
            let chunks = step.min(n - first);
            let (q, k, v) = (page(&q, 0, first), page(&k, 1, first), page(&v, 1, first));
            let (o, dy, lse) = (page(&o, 0, first), page(dy, 0, first), page(&lse, 2, first));
            let (dq, dk, dv) = (page(&dq, 0, first), page(&dk, 1, first), page(&dv, 1, first));
            let delta = page(&delta, 2, first);
            if kernel == Kernel::Coop {
                let tiles = tokens.div_ceil(16);
                launch!(attention_coop_backward_query [D = d, TT = tiles]
                        { chunks, tokens, heads, kv_heads, stride, scale },
                        [q, k, v, dy, lse] -> [dq, delta], chunks * heads);
                launch!(attention_coop_backward_key [D = d, TT = tiles]
                        { chunks, tokens, heads, kv_heads, stride, scale },
                        [q, k, v, dy, lse, delta] -> [dk, dv], chunks * kv_heads);
                continue;
            }
            launch!(attention_backward_query [elem = elem, WG = wg, D4 = d4, KEYS = keys]
                    { chunks, tokens, heads, kv_heads, tiles, stride, scale },
                    [q, k, v, o, dy, lse] -> [dq, delta], chunks * heads * tiles);
            launch!(attention_backward_key [elem = elem, WG = wg, D4 = d4, KEYS = keys]
                    { chunks, tokens, heads, kv_heads, tiles, stride, scale },
                    [q, k, v, dy, lse, delta] -> [dk], chunks * kv_heads * tiles);
            launch!(attention_backward_value [elem = elem, WG = wg, D4 = d4, KEYS = keys]
                    { chunks, tokens, heads, kv_heads, tiles, stride, scale },
                    [q, k, dy, lse] -> [dv], chunks * kv_heads * tiles);
        }
        [dq, dk, dv]
    })
}

/// The definition, one query at a time.
fn reference(q: &Array, k: &Array, v: &Array) -> Array {
    let ([_, tokens, heads, d], [_, _, kv_heads, _]) = (q.axes(), k.axes());
    let mut row = 0;
    q.reshape(&[q.len() / d, d]).map_rows(|q| {
        let (chunk, head) = (row / heads / tokens, row % heads);
        row += 1;
        let of = |x: &'_ Array, j: usize, i: usize| {
            x.data[((chunk * tokens + j) * kv_heads + head / (heads / kv_heads)) * d + i]
        };
        let dot = |j: usize| (0..d).map(|i| q[i] * of(k, j, i)).sum::<f64>() / (d as f64).sqrt();
        let scores: Vec<f64> = (0..tokens).map(dot).collect();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let p: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let sum: f64 = p.iter().sum();
        (0..d).map(|i| (0..tokens).map(|j| p[j] * of(v, j, i)).sum::<f64>() / sum).collect()
    })
    .reshape(&q.shape)
}

fn inputs(s: &Sizes, mut draw: impl FnMut(&[usize]) -> Array) -> Vec<Input> {
    let [n, tokens, kv, group, d] = s.get();
    vec![
        Input::new("q", draw(&[n, tokens, kv * group, d])).grad(),
        Input::new("k", draw(&[n, tokens, kv, d])).grad(),
        Input::new("v", draw(&[n, tokens, kv, d])).grad(),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![
            Dim::range("n", 1, 3),
            Dim::range("T", 1, 66),
            Dim::one_of("Hkv", &[1, 2]),
            Dim::one_of("group", &[1, 2]),
            Dim::one_of("d", &[16, 4, 32]),
        ],
        // Scores reach about 10: a probability loses as many roundings.
        inputs: |s, draw| inputs(s, |shape| draw.uniform(shape, -2.0, 2.0)),
        run: |_, i| vec![attention(&i[0], &i[1], &i[2])],
        reference: |_, i| vec![reference(&i[0], &i[1], &i[2])],
        error: |s| 32.0 + 2.0 * ((s["T"] + s["d"]) as f64).sqrt(),
        cost: |s| {
            let [n, tokens, kv, group, d] = s.get();
            Cost {
                bytes: 8 * n * tokens * kv * (group + 1) * d,
                flops: 4 * n * tokens * tokens * kv * group * d,
            }
        },
        bench: &[&[2048, 65, 4, 1, 64], &[1024, 65, 1, 16, 64]],
        ..Case::new("attention")
    };
    // Whole matrices of dims, and chunks of up to eight of tokens. Beside a result's own rounding, probabilities and their
    // slopes are rounded to f16 on the way.
    let whole = Case {
        dims: vec![
            Dim::range("n", 1, 3),
            Dim::one_of("T", &[65, 1, 16, 17, 64, 100]),
            Dim::one_of("Hkv", &[1, 2]),
            Dim::one_of("group", &[1, 2]),
            Dim::one_of("d", &[64, 16, 32, 128]),
        ],
        run: |_, i| vec![attend(&i[0], &i[1], &i[2], Kernel::Coop)],
        runs_on: |gpu| Kernel::Coop.runs_on(gpu),
        ..plain.clone()
    };
    vec![
        Case {
            dims: vec![
                Dim::range("n", 1, 1),
                Dim::range("T", 63, 98),
                Dim::one_of("Hkv", &[1]),
                Dim::one_of("group", &[1]),
                Dim::one_of("d", &[64, 128]),
            ],
            // Large, tiny and zero values.
            inputs: |s, draw| inputs(s, |shape| draw.normal(shape)),
            error: |s| 512.0 + 2.0 * ((s["T"] + s["d"]) as f64).sqrt(),
            stem: "attention.wide",
            bench: &[],
            ..plain.clone()
        },
        Case {
            bench: &[&[2048, 65, 4, 1, 64], &[512, 65, 16, 1, 64]],
            ..whole.in_half("attention.coop", &["q", "k", "v"], 3.0)
        },
        // By the kernels that run everywhere, here too.
        Case {
            run: |_, i| vec![attend(&i[0], &i[1], &i[2], Kernel::Lane)],
            bench: &[],
            ..plain.in_half("attention.f16", &["q", "k", "v"], 2.0)
        },
        Case {
            stem: "attention.direct",
            dims: plain.dims.iter().map(|d| if d.name == "d" { Dim::one_of("d", &[16, 32, 48, 64]) } else { *d }).collect(),
            run: |_, i| vec![attend(&i[0], &i[1], &i[2], Kernel::Direct)],
            runs_on: |gpu| Kernel::Direct.runs_on(gpu),
            bench: &[],
            ..plain.clone()
        },
        plain,
    ]
}
