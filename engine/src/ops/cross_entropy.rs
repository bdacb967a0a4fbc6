//! Cross entropy that never stores probabilities: the forward pass keeps one number a row.

use crate::{
    DType, Tensor, launch,
    ops::{mul, sum},
    reference::Array,
    tensor::{quad_lanes, rows_a_page},
    testing::{Case, Cost, Dim, Input, Part, Share, some},
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

/// Four columns at a time where `by_quads`.
#[track_caller]
fn run(logits: &Tensor, targets: &Tensor, weights: &Tensor, by_quads: bool) -> (Tensor, Tensor) {
    let [rows, columns] = logits.axes();
    assert_eq!(targets.shape(), [rows], "cross_entropy: targets for logits {:?}", logits.shape());
    assert_eq!(weights.shape(), [rows], "cross_entropy: weights for logits {:?}", logits.shape());
    let (lse, ce) = (weights.like(), weights.like());
    let (bytes, elem) = (columns * logits.dtype().bytes(), logits.dtype().wgsl());
    let (step, wg) = (rows_a_page(logits.gpu(), &[bytes, 4]), logits.gpu().capabilities().row_lanes());
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let row = |t: &Tensor| t.page(first, n, 4);
        let (x, t, w, lse, ce) = (logits.page(first, n, bytes), row(targets), row(weights), row(&lse), row(&ce));
        if by_quads {
            launch!(cross_entropy_quads [elem = elem, WG = quad_lanes(columns, 16)] { rows: n, quads: columns / 4 },
                    [x, t, w] -> [lse, ce], n);
        } else {
            launch!(cross_entropy [elem = elem, WG = wg] { rows: n, columns }, [x, t, w] -> [lse, ce], n);
        }
    }
    let loss = crate::no_grad(|| sum(&mul(&ce, weights)));
    let (x_, t_, w_) = (logits.detach(), targets.detach(), weights.detach());
    let loss = loss.with_grad(&[logits], move |dloss| {
        let dlogits = x_.like();
        for first in (0..rows).step_by(step) {
            let n = step.min(rows - first);
            let row = |t: &Tensor| t.page(first, n, 4);
            let (x, t, w, lse) = (x_.page(first, n, bytes), row(&t_), row(&w_), row(&lse));
            let d = dlogits.page(first, n, bytes);
            if by_quads {
                launch!(cross_entropy_quads_backward [elem = elem, WG = quad_lanes(columns, 16)]
                        { rows: n, quads: columns / 4 }, [x, t, w, lse, dloss] -> [d], n);
            } else {
                launch!(cross_entropy_backward [elem = elem] { rows: n, columns }, [x, t, w, lse, dloss] -> [d], n);
            }
        }
        [dlogits]
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
    vec![
        Case {
            bench: &[&[16384, 50280]],
            ..plain.in_half("cross_entropy.f16", &["logits"], 1.0)
        },
        quads.in_half("cross_entropy.quads.f16", &["logits"], 1.0),
        quads,
        plain,
    ]
}
