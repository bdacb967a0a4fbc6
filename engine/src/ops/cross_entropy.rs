//! Cross entropy that never stores probabilities: the forward pass keeps one number a row.

use crate::{
    DType, Tensor, autograd,
    gpu::Operand,
    launch,
    ops::{
        matmul::{linear_rows, linear_rows_back, linear_weight, linear_weight_back},
        mul, sum,
    },
    reference::Array,
    tensor::{quad_lanes, rows_a_page},
    testing::{Case, Cost, Dim, Draw, Input, Part, Share, Sizes, some},
};

/// `loss = Σ_r weight[r] · ce[r]` with `ce[r] = ln Σ_c exp(logits[r, c]) − logits[r, target[r]]`.
///
/// `logits`: (rows, columns), in f32 or f16; `targets`: (rows), u32; `weights`: (rows), f32, 0 masks a row whatever its target.
/// Returns the loss (1), differentiable to the logits, and ce (rows), for reports only.
///
/// # Panics
/// Where the shapes disagree.
#[track_caller]
pub fn cross_entropy(logits: &Tensor, targets: &Tensor, weights: &Tensor) -> (Tensor, Tensor) {
    let by_quads = logits.rows_by_last().1.is_multiple_of(4) && !logits.gpu().capabilities().cpu_vectors();
    run(logits, targets, weights, by_quads)
}

/// The rows of one launch.
struct Rows {
    n: usize,
    columns: usize,
    /// Four columns at a time.
    by_quads: bool,
}

impl Rows {
    /// logits, targets and weights → lse and ce.
    fn forward(&self, dtype: DType, [x, t, w]: [&Operand; 3], [lse, ce]: [&Operand; 2]) {
        let (&Rows { n, columns, by_quads }, elem) = (self, dtype.wgsl());
        if by_quads {
            launch!(cross_entropy_quads [elem = elem, WG = quad_lanes(columns, 16)] { rows: n, quads: columns / 4 },
                    [x, t, w] -> [lse, ce], n);
        } else {
            let wg = x.gpu.capabilities().row_lanes();
            launch!(cross_entropy [elem = elem, WG = wg] { rows: n, columns }, [x, t, w] -> [lse, ce], n);
        }
    }

    /// logits, targets, weights, lse and the loss's gradient → that of the logits. Types are those of logits and result.
    fn backward(&self, types: [DType; 2], [x, t, w, lse]: [&Operand; 4], dloss: &Tensor, d: &Operand) {
        let &Rows { n, columns, by_quads } = self;
        let [elem, elem_out] = types.map(DType::wgsl);
        if by_quads {
            launch!(cross_entropy_quads_backward [elem = elem, elem_out = elem_out, WG = quad_lanes(columns, 16)]
                    { rows: n, quads: columns / 4 }, [x, t, w, lse, dloss] -> [d], n);
        } else {
            launch!(cross_entropy_backward [elem = elem, elem_out = elem_out] { rows: n, columns },
                    [x, t, w, lse, dloss] -> [d], n);
        }
    }
}

/// Four columns at a time where `by_quads`.
#[track_caller]
fn run(logits: &Tensor, targets: &Tensor, weights: &Tensor, by_quads: bool) -> (Tensor, Tensor) {
    let [rows, columns] = logits.axes();
    assert_eq!(targets.shape(), [rows], "cross_entropy: targets for logits {:?}", logits.shape());
    assert_eq!(weights.shape(), [rows], "cross_entropy: weights for logits {:?}", logits.shape());
    let (lse, ce) = (weights.like(), weights.like());
    let (bytes, dtype) = (columns * logits.dtype().bytes(), logits.dtype());
    let step = rows_a_page(logits.gpu(), &[bytes, 4]);
    let row = move |t: &Tensor, first: usize| t.page(first, step.min(rows - first), 4);
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let operands = [&logits.page(first, n, bytes), &row(targets, first), &row(weights, first)];
        Rows { n, columns, by_quads }.forward(dtype, operands, [&row(&lse, first), &row(&ce, first)]);
    }
    let loss = crate::no_grad(|| sum(&mul(&ce, weights)));
    let (x_, t_, w_) = (logits.detach(), targets.detach(), weights.detach());
    let loss = loss.with_grad(&[logits], move |dloss| {
        let dlogits = x_.like();
        for first in (0..rows).step_by(step) {
            let n = step.min(rows - first);
            let operands = [&x_.page(first, n, bytes), &row(&t_, first), &row(&w_, first), &row(&lse, first)];
            Rows { n, columns, by_quads }.backward([dtype; 2], operands, dloss, &dlogits.page(first, n, bytes));
        }
        [dlogits]
    });
    (loss, ce)
}

/// [`cross_entropy`] of `x · weightᵀ` in f32, some rows at a time: logits, which may be wider than anything else, need not
/// fit a buffer together, and their gradient is there for some rows at a time, in `x`'s type.
///
/// `x`: (rows, in), `weight`: (columns, in), `targets` and `weights`: (rows), as there. The loss is differentiable to `x`
/// and `weight`.
///
/// # Panics
/// Where the shapes disagree.
#[track_caller]
pub fn linear_cross_entropy(x: &Tensor, weight: &Tensor, targets: &Tensor, weights: &Tensor) -> (Tensor, Tensor) {
    let ([rows, k], [columns, width]) = (x.axes(), weight.axes());
    assert_eq!(width, k, "linear_cross_entropy: weight {:?} for x {:?}", weight.shape(), x.shape());
    assert_eq!(targets.shape(), [rows], "linear_cross_entropy: targets for x {:?}", x.shape());
    assert_eq!(weights.shape(), [rows], "linear_cross_entropy: weights for x {:?}", x.shape());
    let by_quads = columns.is_multiple_of(4) && !x.gpu().capabilities().cpu_vectors();
    let (dtype, used) = (x.dtype(), linear_weight(x, weight));
    // A power of two: whole pieces of what adds up rows.
    let step = 1 << rows_a_page(x.gpu(), &[columns * 4, columns * dtype.bytes(), k * dtype.bytes(), 4]).ilog2();
    let cut = move |t: &Tensor, first: usize| {
        t.view_rows(first..rows.min(first + step)).expect("pages begin where the adapter can bind")
    };
    let (lse, ce) = (weights.like(), weights.like());
    let (need_x, need_weight) = (x.needs_grad(), weight.needs_grad());
    let mut kept = Vec::new();
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let logits = x.empty_on([n, columns], DType::F32);
        linear_rows(&cut(x, first), &used, &logits);
        let [t, w, lse, ce] = [targets, weights, &lse, &ce].map(|t| cut(t, first).operand());
        Rows { n, columns, by_quads }.forward(DType::F32, [&logits.operand(), &t, &w], [&lse, &ce]);
        if need_x || need_weight {
            kept.push((first, logits));
        }
    }
    let loss = crate::no_grad(|| sum(&mul(&ce, weights)));
    let (x_, t_, w_) = (x.detach(), targets.detach(), weights.detach());
    let loss = loss.with_grad(&[x, weight], move |dloss| {
        let dx = need_x.then(|| x_.like());
        let mut dweight: Option<Tensor> = None;
        for (first, logits) in kept {
            let n = step.min(rows - first);
            let d = x_.empty_on([n, columns], dtype);
            let [t, w, lse] = [&t_, &w_, &lse].map(|t| cut(t, first).operand());
            let operands = [&logits.operand(), &t, &w, &lse];
            Rows { n, columns, by_quads }.backward([DType::F32, dtype], operands, dloss, &d.operand());
            if let Some(dx) = &dx {
                linear_rows_back(&d, &used, &cut(dx, first));
            }
            if need_weight {
                let part = linear_weight_back(&d, &cut(&x_, first));
                match &dweight {
                    None => dweight = Some(part),
                    Some(sum) => autograd::accumulate(sum, &part),
                }
            }
        }
        [dx, dweight]
    });
    (loss, ce)
}

fn reference(logits: &Array, targets: &Array, weights: &Array) -> Vec<Array> {
    let rows = targets.len();
    let ce = Array::from_fn(&[rows], |r| {
        let row = &logits.data[r[0] * logits.shape[1]..][..logits.shape[1]];
        let top = row.iter().copied().fold(f64::MIN, f64::max);
        let lse = top + row.iter().map(|v| (v - top).exp()).sum::<f64>().ln();
        if weights.data[r[0]] == 0.0 { 0.0 } else { lse - row[targets.data[r[0]] as usize] }
    });
    let loss = ce.data.iter().zip(&weights.data).map(|(c, w)| c * w).sum();
    vec![Array::new(&[1], vec![loss]), ce]
}

/// Of [`linear_cross_entropy`].
fn linear_inputs(s: &Sizes, draw: &mut Draw) -> Vec<Input> {
    let [rows, columns, k] = s.get();
    let weights = draw.uniform(&[rows], 0.0, 1.0).map(|w| if *w < 0.2 { 0.0 } else { *w });
    vec![
        Input::new("x", draw.uniform(&[rows, k], -1.0, 1.0)).grad(),
        Input::new("weight", draw.uniform(&[columns, k], -1.0, 1.0)).grad(),
        Input::new("targets", draw.integers(&[rows], 0, columns as i64)).of(DType::U32),
        Input::new("weights", weights),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![Dim::range("rows", 1, 200), Dim::range("columns", 1, 600)],
        inputs: |s, draw| {
            let [rows, columns] = s.get();
            let weights = draw.uniform(&[rows], 0.0, 1.0).map(|w| if *w < 0.2 { 0.0 } else { *w });
            vec![
                Input::new("logits", draw.uniform(&[rows, columns], -20.0, 20.0)).grad(),
                Input::new("targets", draw.integers(&[rows], 0, columns as i64)).of(DType::U32),
                Input::new("weights", weights),
            ]
        },
        run: |_, i| {
            let (loss, ce) = cross_entropy(&i[0], &i[1], &i[2]);
            vec![loss, ce]
        },
        reference: |_, i| reference(&i[0], &i[1], &i[2]),
        error: |s| 32.0 + (s["columns"].max(s["rows"]) as f64).sqrt(),
        error_grad: Some(|_| 400.0),
        cost: |s| Cost { bytes: 4 * s["rows"] * s["columns"], flops: 3 * s["rows"] * s["columns"] },
        cost_backward: Some(|s| Cost { bytes: 8 * s["rows"] * s["columns"], flops: 4 * s["rows"] * s["columns"] }),
        part: Some(|s, draw| {
            let [rows, columns] = s.get();
            let some = some(draw, rows, 4);
            Part {
                sizes: vec![some.len(), columns],
                inputs: vec![vec![some.clone(), 0..columns], vec![some.clone()], vec![some.clone()]],
                outputs: vec![Share::Summand, Share::Cut(vec![some])],
            }
        }),
        bench: &[&[131072, 256], &[4096, 50280]],
        ..Case::new("cross_entropy")
    };
    // Four columns at a time, whatever the adapter would be given.
    let quads = Case {
        stem: "cross_entropy.quads",
        dims: vec![Dim::range("rows", 1, 70), Dim::range("quads", 1, 500)],
        inputs: |s, draw| {
            let (rows, columns) = (s["rows"], 4 * s["quads"]);
            let weights = draw.uniform(&[rows], 0.0, 1.0).map(|w| if *w < 0.2 { 0.0 } else { *w });
            vec![
                Input::new("logits", draw.uniform(&[rows, columns], -20.0, 20.0)).grad(),
                Input::new("targets", draw.integers(&[rows], 0, columns as i64)).of(DType::U32),
                Input::new("weights", weights),
            ]
        },
        run: |_, i| {
            let (loss, ce) = run(&i[0], &i[1], &i[2], true);
            vec![loss, ce]
        },
        error: |s| 32.0 + ((4 * s["quads"]).max(s["rows"]) as f64).sqrt(),
        cost: |_| Cost::default(),
        cost_backward: None,
        part: None,
        bench: &[],
        ..plain.clone()
    };
    let linear = Case {
        stem: "cross_entropy.linear",
        dims: vec![Dim::range("rows", 1, 90), Dim::one_of("columns", &[40, 7, 96]), Dim::one_of("k", &[24, 5, 64])],
        inputs: linear_inputs,
        run: |_, i| {
            let (loss, ce) = linear_cross_entropy(&i[0], &i[1], &i[2], &i[3]);
            vec![loss, ce]
        },
        reference: |s, i| {
            let [rows, columns, k] = s.get();
            let logits = Array::from_fn(&[rows, columns], |at| {
                (0..k).map(|j| i[0].data[at[0] * k + j] * i[1].data[at[1] * k + j]).sum()
            });
            reference(&logits, &i[2], &i[3])
        },
        error: |s| 64.0 + (s["columns"].max(s["rows"]) as f64).sqrt(),
        error_grad: Some(|s| 400.0 + s["rows"] as f64),
        cost: |_| Cost::default(),
        cost_backward: None,
        part: None,
        bench: &[],
        ..plain.clone()
    };
    vec![
        // The logits' gradient is rounded to f16 on its way to the weight's, which is f32: 2¹³ of its roundings.
        Case {
            error_grad: Some(|s| 8192.0 + 400.0 + s["rows"] as f64),
            // Weights in f32 that f16 holds: some kernels round them.
            inputs: |s, draw| {
                let mut inputs = linear_inputs(s, draw);
                inputs[1] = inputs[1].clone().of(DType::F16).of(DType::F32);
                inputs
            },
            ..linear.in_half("cross_entropy.linear.f16", &["x"], 2.0)
        },
        linear,
        Case {
            bench: &[&[16384, 50280]],
            ..plain.in_half("cross_entropy.f16", &["logits"], 1.0)
        },
        quads.in_half("cross_entropy.quads.f16", &["logits"], 1.0),
        quads,
        plain,
    ]
}
