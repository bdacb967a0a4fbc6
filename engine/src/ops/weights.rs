//! Stick-breaking and softmax weights of selected chunks (arXiv 2504.16795): what each selected chunk counts for.
//! Slots are ordered from the most recent chunk on; a score of −3e38 marks padding, whose weight is 0.

use crate::{
    DType, Tensor, launch,
    ops::PartialSums,
    reference::Array,
    testing::{Case, Cost, Dim, Draw, Input},
};

/// Rows a workgroup; `WG` in the kernels.
const ROWS: usize = 64;

/// `w[i] = σ(s[i]) · Π_{j<i} (1 − σ(s[j]))` over the last axis.
///
/// `scores`: (…, K) in f32, newest first; the result has its shape.
///
/// # Panics
/// Where the scores are not f32.
#[track_caller]
pub fn stick_breaking(scores: &Tensor) -> Tensor {
    assert_eq!(scores.dtype(), DType::F32, "stick_breaking: scores {:?}", scores.shape());
    let (rows, slots) = scores.rows_by_last();
    let weights = scores.like();
    let step = page(scores, slots);
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let (s, w) = (scores.page(first, n, slots * 4), weights.page(first, n, slots * 4));
        launch!(stick_breaking { rows: n, slots }, [s] -> [w], n.div_ceil(ROWS));
    }
    let (scores_, weights_) = (scores.detach(), weights.detach());
    weights.with_grad(&[scores], move |dweights| {
        let dscores = scores_.like();
        for first in (0..rows).step_by(step) {
            let n = step.min(rows - first);
            let part = |x: &Tensor| x.page(first, n, slots * 4);
            launch!(stick_breaking_backward { rows: n, slots },
                    [part(&scores_), part(&weights_), part(dweights)] -> [part(&dscores)], n.div_ceil(ROWS));
        }
        [dscores]
    })
}

/// `w = softmax_i(s[i] + i · pos_decay)` over the valid slots of the last axis, all 0 where none is valid.
///
/// `scores`: (…, K) in f32, newest first; `pos_decay`: one f32, 0 where absent.
///
/// # Panics
/// Where the scores are not f32 or the decay is not one number.
#[track_caller]
pub fn softmax_weights(scores: &Tensor, pos_decay: Option<&Tensor>) -> Tensor {
    assert_eq!(scores.dtype(), DType::F32, "softmax_weights: scores {:?}", scores.shape());
    if let Some(decay) = pos_decay {
        assert_eq!(decay.len(), 1, "softmax_weights: pos_decay {:?}, expected one number", decay.shape());
    }
    let (rows, slots) = scores.rows_by_last();
    let weights = scores.like();
    let has_decay = pos_decay.is_some();
    let step = page(scores, slots);
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let (s, w) = (scores.page(first, n, slots * 4), weights.page(first, n, slots * 4));
        let decay = pos_decay.map_or_else(|| s.clone(), Tensor::operand);
        launch!(softmax_weights { rows: n, slots, has_decay: u32::from(has_decay) }, [s, decay] -> [w], n.div_ceil(ROWS));
    }
    let mut inputs = vec![scores];
    inputs.extend(pos_decay);
    let (weights_, decay_shape) = (weights.detach(), pos_decay.map(|d| d.shape().to_vec()));
    weights.with_grad(&inputs, move |dweights| {
        let dscores = weights_.like();
        let mut slopes = Vec::new();
        for first in (0..rows).step_by(step) {
            let n = step.min(rows - first);
            let part = |x: &Tensor| x.page(first, n, slots * 4);
            let sums = PartialSums::new(&weights_, n.div_ceil(ROWS), 1);
            launch!(softmax_weights_backward { rows: n, slots },
                    [part(&weights_), part(dweights)] -> [part(&dscores), sums.all()], n.div_ceil(ROWS));
            slopes.push(sums.in_order());
        }
        let mut grads = vec![Some(dscores)];
        if let Some(shape) = decay_shape {
            let mut slopes = slopes.into_iter();
            let total = slopes.next().unwrap_or_else(|| Tensor::zeros(weights_.gpu(), [1], DType::F32));
            for slope in slopes {
                launch!(accumulate { count: 1usize }, [slope] -> [total], 1);
            }
            grads.push(Some(total.reshape(shape.as_slice())));
        }
        grads
    })
}

/// Rows of `slots` numbers that four operands bind at once, whole workgroups of them.
fn page(scores: &Tensor, slots: usize) -> usize {
    (crate::tensor::rows_a_page(scores.gpu(), &[slots * 4]) / ROWS * ROWS).max(ROWS)
}

/// Scores with padding at the tail of some rows.
fn draw_scores(rows: usize, slots: usize, draw: &mut Draw) -> Array {
    let mut scores = draw.normal(&[rows, slots]);
    for row in scores.data.chunks_mut(slots) {
        let valid = if draw.below(3) == 0 { draw.below(slots + 1) } else { slots };
        row.iter_mut().skip(valid).for_each(|s| *s = -3e38);
    }
    scores
}

fn sigmoid(s: f64) -> f64 {
    1.0 / (1.0 + (-s).exp())
}

pub(super) fn cases() -> Vec<Case> {
    let dims = || vec![Dim::range("rows", 1, 300), Dim::one_of("slots", &[1, 2, 8, 13, 64])];
    vec![
        Case {
            dims: dims(),
            inputs: |s, draw| vec![Input::new("scores", draw_scores(s["rows"], s["slots"], draw)).grad()],
            run: |_, i| vec![stick_breaking(&i[0])],
            reference: |_, i| {
                vec![i[0].map_rows(|row| {
                    let mut left = 1.0;
                    let weight = |s: &f64| {
                        let w = sigmoid(*s) * left;
                        left *= sigmoid(-*s);
                        w
                    };
                    row.iter().map(weight).collect()
                })]
            },
            error: |s| 40.0 + s["slots"] as f64,
            cost: |s| Cost { bytes: 8 * s["rows"] * s["slots"], flops: 8 * s["rows"] * s["slots"] },
            bench: &[&[524_288, 8]],
            ..Case::new("stick_breaking")
        },
        Case {
            dims: dims(),
            inputs: |s, draw| {
                vec![
                    Input::new("scores", draw_scores(s["rows"], s["slots"], draw)).grad(),
                    Input::new("pos_decay", draw.uniform(&[1], -0.5, 0.1)).grad(),
                ]
            },
            run: |_, i| vec![softmax_weights(&i[0], Some(&i[1]))],
            reference: |_, i| {
                vec![i[0].map_rows(|row| {
                    let v: Vec<f64> =
                        row.iter().enumerate().map(|(j, s)| s + j as f64 * i[1].data[0]).collect();
                    let m = v.iter().fold(-3e38f64, |m, v| m.max(*v));
                    let e: Vec<f64> =
                        v.iter().map(|v| if *v < -1e38 { 0.0 } else { (v - m).exp() }).collect();
                    let sum = e.iter().sum::<f64>().max(1e-300);
                    e.iter().map(|e| e / sum).collect()
                })]
            },
            error: |s| 60.0 + s["slots"] as f64,
            cost: |s| Cost { bytes: 8 * s["rows"] * s["slots"], flops: 8 * s["rows"] * s["slots"] },
            bench: &[&[524_288, 8]],
            ..Case::new("softmax_weights")
        },
    ]
}
