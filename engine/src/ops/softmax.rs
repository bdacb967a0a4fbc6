//! Softmax over the last axis, shifted by the row's maximum; with a mask, over the kept columns alone.

use crate::{
    DType, Tensor, launch,
    reference::Array,
    tensor::{quad_lanes, register_lanes, rows_a_page},
    testing::{Case, Cost, Dim, Input, Part, Share, some},
};

/// `y = exp(x) / Σ exp(x)` over the last axis.
///
/// `x`: (…, columns) in f32 or f16; y has `x`'s shape and type.
#[track_caller]
pub fn softmax(x: &Tensor) -> Tensor {
    run(x, None, register_lanes(x.gpu(), x.rows_by_last().1))
}

/// [`softmax`] over the columns where `mask` is not 0; 0 elsewhere, and in rows that the mask leaves empty.
///
/// `mask`: u32, the last axes of `x`, repeated over the axes before them.
///
/// # Panics
/// Where the mask's shape is no suffix of `x`'s, or it is not u32.
#[track_caller]
pub fn masked_softmax(x: &Tensor, mask: &Tensor) -> Tensor {
    assert!(
        !mask.shape().is_empty() && x.shape().ends_with(mask.shape()),
        "masked_softmax: mask: expected the last axes of x {:?}, got {:?}",
        x.shape(),
        mask.shape()
    );
    assert!(mask.dtype() == DType::U32, "masked_softmax: mask: expected u32, got {}", mask.dtype());
    run(x, Some(mask), None)
}

/// `lanes` hold a row in registers where they are given (and no mask is), else it is walked over.
#[track_caller]
fn run(x: &Tensor, mask: Option<&Tensor>, lanes: Option<usize>) -> Tensor {
    let ((rows, columns), dtype) = (x.rows_by_last(), x.dtype());
    let (y, bytes) = (x.like(), columns * dtype.bytes());
    let mask_rows = mask.map_or(0, |m| m.rows_by_last().0);
    // Short rows need few lanes: the idle ones of a wide workgroup would cost as much as the busy ones.
    let wg = x.gpu().capabilities().row_lanes().min(if columns <= 64 { 64 } else { 256 });
    let step = rows_a_page(x.gpu(), &[bytes]);
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let (x_, y_) = (x.page(first, n, bytes), y.page(first, n, bytes));
        if let Some(wg) = lanes {
            launch!(softmax_quads [elem = dtype.wgsl(), WG = wg] { rows: n, quads: columns / 4 }, [x_] -> [y_], n);
            continue;
        }
        let mask_ = mask.map_or(x_.clone(), Tensor::operand);
        let start = first % mask_rows.max(1);
        launch!(softmax [elem = dtype.wgsl(), WG = wg] { rows: n, columns, start, mask_rows },
                [x_, mask_] -> [y_], n);
    }
    let y_ = y.detach();
    y.with_grad(&[x], move |dy| {
        let (y, dx) = (y_, dy.like());
        for first in (0..rows).step_by(step) {
            let n = step.min(rows - first);
            let (dy_, y_, dx_) = (dy.page(first, n, bytes), y.page(first, n, bytes), dx.page(first, n, bytes));
            match lanes {
                Some(wg) => launch!(softmax_quads_backward [elem = dtype.wgsl(), WG = wg] { rows: n, quads: columns / 4 },
                                    [dy_, y_] -> [dx_], n),
                None => launch!(softmax_backward [elem = dtype.wgsl(), WG = wg] { rows: n, columns },
                                [dy_, y_] -> [dx_], n),
            }
        }
        [dx]
    })
}

/// The definition, one row at a time.
fn reference(x: &Array, kept: impl Fn(usize) -> bool) -> Array {
    let mut at = 0;
    x.map_rows(|row| {
        let kept: Vec<bool> = (at..at + row.len()).map(&kept).collect();
        at += row.len();
        let largest = row.iter().copied().fold(f64::MIN, f64::max);
        let e: Vec<f64> =
            row.iter().zip(kept).map(|(v, k)| if k { (v - largest).exp() } else { 0.0 }).collect();
        let sum = e.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        e.iter().map(|v| v / sum).collect()
    })
}

/// Exponents of size m lose m roundings; inputs reach about 100.
fn error(columns: usize) -> f64 {
    128.0 + (columns as f64).sqrt()
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![Dim::range("rows", 1, 200), Dim::range("columns", 1, 600)],
        inputs: |s, draw| vec![Input::new("x", draw.normal(&[s["rows"], s["columns"]])).grad()],
        run: |_, i| vec![softmax(&i[0])],
        reference: |_, i| vec![reference(&i[0], |_| true)],
        error: |s| error(s["columns"]),
        cost: |s| Cost { bytes: 8 * s["rows"] * s["columns"], flops: 5 * s["rows"] * s["columns"] },
        part: Some(|s, draw| {
            let [rows, columns] = s.get();
            let some = some(draw, rows, 4);
            let cut = vec![some.clone(), 0..columns];
            Part { sizes: vec![some.len(), columns], inputs: vec![cut.clone()], outputs: vec![Share::Cut(cut)] }
        }),
        bench: &[&[65536, 256], &[8192, 4096]],
        ..Case::new("softmax")
    };
    // Rows in registers, whatever the adapter would be given.
    let quads = Case {
        stem: "softmax.quads",
        dims: vec![Dim::range("rows", 1, 70), Dim::range("quads", 1, 500)],
        inputs: |s, draw| vec![Input::new("x", draw.normal(&[s["rows"], 4 * s["quads"]])).grad()],
        run: |s, i| vec![run(&i[0], None, Some(quad_lanes(4 * s["quads"], 4)))],
        error: |s| error(4 * s["quads"]),
        cost: |_| Cost::default(),
        cost_backward: None,
        part: None,
        bench: &[],
        ..plain.clone()
    };
    vec![
        quads.in_half("softmax.quads.f16", &["x"], 2.0),
        quads,
        plain.in_half("softmax.f16", &["x"], 2.0),
        plain,
        Case {
            dims: vec![Dim::range("n", 1, 40), Dim::range("T", 1, 9), Dim::range("columns", 1, 100)],
            inputs: |s, draw| {
                let [n, t, columns] = s.get();
                vec![
                    Input::new("x", draw.normal(&[n, t, columns])).grad(),
                    Input::new("mask", draw.integers(&[t, columns], 0, 3)).of(DType::U32),
                ]
            },
            run: |_, i| vec![masked_softmax(&i[0], &i[1])],
            reference: |_, i| vec![reference(&i[0], |at| i[1].data[at % i[1].len()] != 0.0)],
            error: |s| error(s["columns"]),
            cost: |s| {
                let count = s["n"] * s["T"] * s["columns"];
                Cost { bytes: 8 * count, flops: 5 * count }
            },
            bench: &[&[4096, 64, 64]],
            ..Case::new("masked_softmax")
        },
    ]
}
