//! What a token should select, held against all that it might select instead.

use crate::{
    DType, Tensor, launch,
    ops::{mul, sum},
    reference::Array,
    tensor::rows_a_page,
    testing::{Case, Cost, Dim, Draw, Input, Part, Share, Sizes, some},
};

/// The chunks that [`contrast`] tells a row to select, and which others are its rivals.
#[derive(Clone)]
pub struct Told {
    /// (rows, 3), u32: the chunk, counted through the batch, and the first and the last chunk of the statement that it is
    /// part of; none of these is a rival.
    pub chunks: Tensor,
    /// (batch, chunks), u32, of each chunk: 1 where it is a rival for rows of its group's other sequences, 2 where it is one
    /// for its own sequence's, 3 where both.
    pub rivals: Tensor,
    /// (rows), f32: 0 masks a row, whatever it is told.
    pub weights: Tensor,
    /// Sequences a group, one after another in the batch.
    pub group: usize,
}

/// The margin that a row can be held to: `clamp(margin + scores[r, told[r]] − 4, 0, margin)`, all of it where the chunk told
/// stands above 4, and none where no score does: there a margin would only press every score further down, as rows that find
/// nothing cannot tell one fact's chunk from another's.
///
/// `scores`: (rows, columns), f32; `chunks` as in [`Told`]; `margin`: 0 or more. Returns (rows), f32, which takes no part in
/// gradients.
///
/// # Panics
/// Where the shapes disagree.
#[track_caller]
pub fn contrast_margin(scores: &Tensor, chunks: &Tensor, margin: f32) -> Tensor {
    let [rows, columns] = scores.axes();
    assert_eq!(chunks.shape(), [rows, 3], "contrast_margin: chunks told for scores {:?}", scores.shape());
    assert_eq!(scores.dtype(), DType::F32, "contrast_margin: scores");
    let margins = Tensor::empty(scores.gpu(), [rows], DType::F32);
    let step = rows_a_page(scores.gpu(), &[columns * 4, 12, 4]);
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let [x, t] = [scores.page(first, n, columns * 4), chunks.page(first, n, 12)];
        launch!(contrast_margin { rows: n, columns, margin }, [x, t] -> [margins.page(first, n, 4)], n.div_ceil(64));
    }
    margins
}

/// `loss = Σ_r weight[r] · each[r]` with `each[r] = ρ + ln(1 + exp(ρ + 4 − scores[r, told[r]]))` and
/// `ρ = ln(1 + Σ_c exp(scores[r, c] + margin_rc))` over the rivals c of r.
///
/// The second term is InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) with the score 0 among the rivals; the first takes
/// all rivals below 0 together. Where weights are broken off a stick ([`stick_breaking`](crate::ops::stick_breaking)), a
/// chunk with a score of 0 takes half of what is left, with 4 nearly all of it: so the chunk told is to stand above 4, and what
/// is newer leaves it the stick.
///
/// `scores`: (rows, batch · chunks), f32. `margins`: (rows), f32, added to the scores of other sequences' chunks: ln n stands for
/// n times as many as there are; [`contrast_margin`] has less for rows that are far from it. Returns the loss (1),
/// differentiable to the scores, and each (rows), for reports only.
///
/// # Panics
/// Where the shapes disagree.
#[track_caller]
pub fn contrast(scores: &Tensor, told: &Told, margins: &Tensor) -> (Tensor, Tensor) {
    let ([rows, columns], [batch, chunks]) = (scores.axes(), told.rivals.axes());
    assert_eq!(batch * chunks, columns, "contrast: rivals {:?} for scores {:?}", told.rivals.shape(), scores.shape());
    assert_eq!(told.chunks.shape(), [rows, 3], "contrast: chunks told for scores {:?}", scores.shape());
    for (name, t) in [("weights", &told.weights), ("margins", margins)] {
        assert_eq!(t.shape(), [rows], "contrast: {name} for scores {:?}", scores.shape());
    }
    assert_eq!(scores.dtype(), DType::F32, "contrast: scores");
    let (lse, each) = (told.weights.like(), told.weights.like());
    let group = told.group.max(1);
    let step = rows_a_page(scores.gpu(), &[columns * 4, 12, 4]);
    let pages = move || (0..rows).step_by(step).map(move |first| (first, step.min(rows - first)));
    let row = |t: &Tensor, (first, n): (usize, usize)| t.page(first, n, 4);
    for at @ (first, n) in pages() {
        let (x, t) = (scores.page(first, n, columns * 4), told.chunks.page(first, n, 12));
        launch!(contrast { rows: n, columns, chunks, group },
                [x, t, told.rivals, row(&told.weights, at), row(margins, at)] -> [row(&lse, at), row(&each, at)], n);
    }
    let loss = crate::no_grad(|| sum(&mul(&each, &told.weights)));
    let (x_, t_, r_) = (scores.detach(), told.chunks.detach(), told.rivals.detach());
    let (w_, m_) = (told.weights.detach(), margins.detach());
    let loss = loss.with_grad(&[scores], move |dloss| {
        let dscores = x_.like();
        for at @ (first, n) in pages() {
            let [x, d] = [&x_, &dscores].map(|t| t.page(first, n, columns * 4));
            launch!(contrast_backward { rows: n, columns, chunks, group },
                    [x, t_.page(first, n, 12), r_, row(&w_, at), row(&m_, at), row(&lse, at), dloss] -> [d], n);
        }
        [dscores]
    });
    (loss, each)
}

fn inputs(s: &Sizes, draw: &mut Draw) -> Vec<Input> {
    let [rows, groups, group, chunks, margin] = s.get();
    let columns = groups * group * chunks;
    let own = draw.integers(&[rows], 0, columns as i64).data;
    let told = own.iter().flat_map(|&c| {
        // A statement of up to three chunks, within the sequence.
        let start = c - c % chunks as f64;
        let reach = |by: f64| (c + by).clamp(start, start + chunks as f64 - 1.0);
        [c, reach(-f64::from(draw.below(2) as u32)), reach(f64::from(draw.below(2) as u32))]
    });
    let told = Array::new(&[rows, 3], told.collect());
    let weights = draw.uniform(&[rows], 0.0, 1.0).map(|w| if *w < 0.2 { 0.0 } else { *w });
    vec![
        Input::new("scores", draw.uniform(&[rows, columns], -12.0, 12.0)).grad(),
        Input::new("told", told).of(DType::U32),
        Input::new("rivals", draw.integers(&[groups * group, chunks], 0, 4)).of(DType::U32),
        Input::new("weights", weights),
        Input::new("margins", draw.uniform(&[rows], 0.0, margin as f64)),
    ]
}

fn reference(s: &Sizes, i: &[Array]) -> Vec<Array> {
    let [rows, _, group, chunks, _] = s.get();
    let each = Array::from_fn(&[rows], |r| {
        let [told, first, last] = std::array::from_fn(|n| i[1].at(&[r[0], n]) as usize);
        let ours = told / chunks;
        let rivals = i[0].data[r[0] * i[0].shape[1]..][..i[0].shape[1]].iter().enumerate().filter_map(|(c, score)| {
            let (theirs, flags) = (c / chunks, i[2].data[c] as u32);
            let near = theirs / group == ours / group && !(first..=last).contains(&c);
            let gain = if theirs == ours { 0.0 } else { i[4].data[r[0]] };
            (near && flags & if theirs == ours { 2 } else { 1 } != 0).then_some(score + gain)
        });
        let rivals: Vec<f64> = rivals.chain([0.0]).collect();
        let top = rivals.iter().copied().fold(f64::MIN, f64::max);
        let rho = top + rivals.iter().map(|v| (v - top).exp()).sum::<f64>().ln();
        let behind = rho + 4.0 - i[0].at(&[r[0], told]);
        if i[3].data[r[0]] == 0.0 { 0.0 } else { rho + behind.max(0.0) + (-behind.abs()).exp().ln_1p() }
    });
    let loss = each.data.iter().zip(&i[3].data).map(|(c, w)| c * w).sum();
    vec![Array::new(&[1], vec![loss]), each]
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case {
            dims: vec![
                Dim::range("rows", 1, 90),
                Dim::one_of("groups", &[1, 2]),
                Dim::one_of("group", &[1, 3, 4]),
                Dim::range("chunks", 1, 150),
                Dim::one_of("margin", &[0, 3]),
            ],
            inputs,
            run: |s, i| {
                let [chunks, rivals, weights] = [&i[1], &i[2], &i[3]].map(Tensor::clone);
                let told = Told { chunks, rivals, weights, group: s["group"] };
                let (loss, each) = contrast(&i[0], &told, &i[4]);
                vec![loss, each]
            },
            reference,
            error: |s| 32.0 + ((s["groups"] * s["group"] * s["chunks"]).max(s["rows"]) as f64).sqrt(),
            error_grad: Some(|_| 400.0),
            cost: |s| {
                let elements = s["rows"] * s["groups"] * s["group"] * s["chunks"];
                Cost { bytes: 4 * elements, flops: 3 * elements }
            },
            cost_backward: Some(|s| {
                let elements = s["rows"] * s["groups"] * s["group"] * s["chunks"];
                Cost { bytes: 8 * elements, flops: 4 * elements }
            }),
            part: Some(|s, draw| {
                let [rows, groups, group, chunks, margin] = s.get();
                let some = some(draw, rows, 4);
                let batch = groups * group;
                Part {
                    sizes: vec![some.len(), groups, group, chunks, margin],
                    inputs: vec![
                        vec![some.clone(), 0..batch * chunks],
                        vec![some.clone(), 0..3],
                        vec![0..batch, 0..chunks],
                        vec![some.clone()],
                        vec![some.clone()],
                    ],
                    outputs: vec![Share::Summand, Share::Cut(vec![some])],
                }
            }),
            bench: &[&[2048, 1, 64, 64, 3]],
            ..Case::new("contrast")
        },
        Case {
            dims: vec![Dim::range("rows", 1, 300), Dim::range("columns", 1, 40)],
            inputs: |s, draw| {
                let [rows, columns] = s.get();
                // In steps that leave nothing to round.
                let scores = draw.uniform(&[rows, columns], -12.0, 12.0).map(|v| (v * 64.0).round() / 64.0);
                vec![
                    Input::new("scores", scores),
                    Input::new("told", draw.integers(&[rows, 3], 0, columns as i64)).of(DType::U32),
                ]
            },
            run: |_, i| vec![contrast_margin(&i[0], &i[1], 8.5)],
            reference: |s, i| {
                let own = |r: usize| i[0].at(&[r, i[1].at(&[r, 0]) as usize]);
                vec![Array::from_fn(&[s["rows"]], |r| (own(r[0]) + 4.5).clamp(0.0, 8.5))]
            },
            cost: |s| Cost { bytes: 12 * s["rows"], flops: 2 * s["rows"] },
            part: Some(|s, draw| {
                let some = some(draw, s["rows"], 4);
                Part {
                    sizes: vec![some.len(), s["columns"]],
                    inputs: vec![vec![some.clone(), 0..s["columns"]], vec![some.clone(), 0..3]],
                    outputs: vec![Share::Cut(vec![some])],
                }
            }),
            bench: &[&[2048, 4096]],
            ..Case::new("contrast_margin")
        },
    ]
}
