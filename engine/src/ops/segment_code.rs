//! Vectors that know their segment: behind each, a code of four digits, base 4, as unit vectors.
//!
//! The dot product of a query with `value` and a key with 1 is that of the vectors alone, plus `value` for each digit that
//! their segments share: four times where they are one, at most three times where they are not. In a softmax a large value
//! keeps segments apart, whatever kernel computes it.

use crate::{
    DType, Tensor, launch,
    reference::Array,
    tensor::rows_a_page,
    testing::{Case, Cost, Dim, Input},
};

/// Columns of the code. It tells 256 segments apart; those with a multiple of as many restarts between them look the same.
pub const SEGMENT_COLUMNS: usize = 16;

/// How often `segment` has changed up to each token, from 0 in each row: numbers that tell segments apart even where ids come
/// again.
///
/// `segment`: (batch, tokens), u32; the result too, outside of the graph.
#[track_caller]
pub fn segment_runs(segment: &Tensor) -> Tensor {
    let [rows, tokens] = segment.axes();
    let y = segment.empty_on([rows, tokens], DType::U32);
    let step = rows_a_page(segment.gpu(), &[tokens * 4]);
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let (x_, y_) = (segment.page(first, n, tokens * 4), y.page(first, n, tokens * 4));
        launch!(segment_runs { rows: n, tokens, stretch: tokens.div_ceil(256) }, [x_] -> [y_], n);
    }
    y
}

/// `y[b, t, h] = [scale · x[b, t, h], value · (e(s₀), e(s₁), e(s₂), e(s₃))]`, sᵢ the digits of `segment[b, t]` modulo 256 in
/// base 4, the lowest first, and e(i) the i-th of four unit vectors.
///
/// `x`: (batch, tokens, heads, d), f32 or f16; `segment`: (batch, tokens), u32, as [`segment_runs`] counts them; the result has 16 more
/// columns. The gradient
/// passes to `x`.
///
/// # Panics
/// Where `x` has another number of axes or the shapes disagree.
#[track_caller]
pub fn segment_code(x: &Tensor, segment: &Tensor, scale: f32, value: f32) -> Tensor {
    assert!(x.shape().len() == 4, "segment_code: x: expected (batch, tokens, heads, d), got {:?}", x.shape());
    let [batches, tokens, heads, d] = x.axes();
    assert_eq!(segment.shape(), [batches, tokens], "segment_code: segment for x {:?}", x.shape());
    let (segment, wide) = (segment.detach(), d + SEGMENT_COLUMNS);
    let widths = move |x: &Tensor, from: usize, to: usize, value: f32| {
        let y = x.empty_on([batches, tokens, heads, to], x.dtype());
        let bytes = heads * wide * x.dtype().bytes();
        let step = rows_a_page(x.gpu(), &[bytes]);
        for first in (0..batches * tokens).step_by(step) {
            let n = step.min(batches * tokens - first);
            let size = heads * x.dtype().bytes();
            let (x_, y_) = (x.page(first, n, from * size), y.page(first, n, to * size));
            launch!(segment_code [elem = x.dtype().wgsl()] {
                rows: n * heads, first, heads, d, x_width: from, y_width: to, scale, value,
            }, [x_, segment] -> [y_], (n * heads * to).div_ceil(256));
        }
        y
    };
    widths(x, d, wide, value).with_grad(&[x], move |dy| [widths(dy, wide, d, 0.0)])
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![
            Dim::range("batches", 1, 3),
            Dim::range("tokens", 1, 70),
            Dim::range("heads", 1, 3),
            Dim::one_of("d", &[32, 1, 5, 64]),
        ],
        inputs: |s, draw| {
            let [batches, tokens, heads, d] = s.get();
            vec![
                Input::new("x", draw.normal(&[batches, tokens, heads, d])).grad(),
                Input::new("segment", draw.integers(&[batches, tokens], 0, 600)).of(DType::U32),
            ]
        },
        run: |_, i| vec![segment_code(&i[0], &i[1], 0.5, 3.0)],
        reference: |s, i| {
            let [batches, tokens, heads, d] = s.get();
            let digit = |at: &[usize], n: u32| i[1].at(&at[..2]) as usize / 4usize.pow(n) % 4;
            vec![Array::from_fn(&[batches, tokens, heads, d + SEGMENT_COLUMNS], |at| match at[3].checked_sub(d) {
                None => 0.5 * i[0].at(at),
                Some(c) => if digit(at, c as u32 / 4) == c % 4 { 3.0 } else { 0.0 },
            })]
        },
        cost: |s| {
            let rows = s["batches"] * s["tokens"] * s["heads"];
            Cost { bytes: 4 * rows * (2 * s["d"] + SEGMENT_COLUMNS), flops: rows * s["d"] }
        },
        bench: &[&[32, 4096, 16, 32]],
        ..Case::new("segment_code")
    };
    let runs = Case {
        dims: vec![Dim::range("batches", 1, 4), Dim::range("tokens", 1, 700)],
        inputs: |s, draw| {
            vec![Input::new("segment", draw.integers(&[s["batches"], s["tokens"]], 0, 2)).of(DType::U32)]
        },
        run: |_, i| vec![segment_runs(&i[0])],
        reference: |s, i| {
            let changed = |b: usize, t: usize| i[0].at(&[b, t]) != i[0].at(&[b, t - 1]);
            let runs = |at: &[usize]| (1..=at[1]).filter(|&t| changed(at[0], t)).count() as f64;
            vec![Array::from_fn(&[s["batches"], s["tokens"]], runs)]
        },
        cost: |s| Cost { bytes: 8 * s["batches"] * s["tokens"], flops: 0 },
        bench: &[&[32, 4096]],
        ..Case::new("segment_runs")
    };
    vec![plain.in_half("segment_code.f16", &["x"], 1.0), plain, runs]
}
