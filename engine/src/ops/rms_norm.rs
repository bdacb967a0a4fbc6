//! Root-mean-square normalisation of the last axis (Zhang & Sennrich 2019, arXiv 1910.07467, eq. 4).

use crate::{
    DType, Tensor, launch,
    ops::PartialSums,
    reference::Array,
    tensor::rows_a_page,
    testing::{Case, Cost, Dim, Input, Part, Share, some},
};

/// Rows that share one partial sum of dweight; `ROWS` in the kernel.
const ROWS: usize = 16;

/// `y = x · weight / √(mean(x²) + eps)` over the last axis.
///
/// `x`: (…, columns) in f32 or f16, `weight`: (columns) in f32; y has `x`'s shape and type.
///
/// # Panics
/// Where the shapes disagree.
#[track_caller]
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Tensor {
    rms_norm_to(x, weight, eps, x.dtype())
}

/// [`rms_norm`] with another type of y: a residual stream in f32 feeds matrix products in f16.
#[track_caller]
pub fn rms_norm_to(x: &Tensor, weight: &Tensor, eps: f32, dtype: DType) -> Tensor {
    let (rows, columns) = x.rows_by_last();
    assert_eq!(weight.shape(), [columns], "rms_norm: weight for x {:?}", x.shape());
    let (y, rstd) = (x.empty_on(x.shape(), dtype), x.empty_on([rows], DType::F32));
    let (bytes, wg) = ((columns * x.dtype().bytes(), columns * dtype.bytes()), x.gpu().capabilities().row_lanes());
    let step = rows_a_page(x.gpu(), &[bytes.0, bytes.1, 4]);
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let (x_, y_, rstd_) = (x.page(first, n, bytes.0), y.page(first, n, bytes.1), rstd.page(first, n, 4));
        launch!(rms_norm [elem = x.dtype().wgsl(), elem_out = dtype.wgsl(), WG = wg] { rows: n, columns, eps },
                [x_, weight] -> [y_, rstd_], n);
    }
    // Backward needs x and rstd: y is not kept, so its buffer is free as soon as its users are done.
    let (x_, weight_) = (x.detach(), weight.detach());
    y.with_grad(&[x, weight], move |dy| {
        let (x, weight) = (x_, weight_);
        let (dx, dweight) = (x.like(), PartialSums::new(&x, rows.div_ceil(ROWS), columns));
        let step = rows_a_page(x.gpu(), &[bytes.0, bytes.1, 4].map(|b| b * ROWS)) * ROWS;
        for first in (0..rows).step_by(step) {
            let n = step.min(rows - first);
            let (dy_, x_, rstd_) = (dy.page(first, n, bytes.1), x.page(first, n, bytes.0), rstd.page(first, n, 4));
            let (dx_, sums) = (dx.page(first, n, bytes.0), dweight.all());
            launch!(rms_norm_backward [elem = x.dtype().wgsl(), elem_out = dtype.wgsl(), WG = wg]
                    { rows: n, columns, first_block: first / ROWS },
                    [dy_, x_, weight, rstd_] -> [dx_, sums], n.div_ceil(ROWS));
        }
        [dx, dweight.in_order()]
    })
}

/// The definition, one row at a time.
fn reference(x: &Array, weight: &Array, eps: f64) -> Array {
    x.map_rows(|row| {
        let mean = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
        row.iter().zip(&weight.data).map(|(v, w)| v * w / (mean + eps).sqrt()).collect()
    })
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![Dim::range("rows", 1, 300), Dim::range("columns", 1, 600)],
        inputs: |s, draw| {
            let [rows, columns] = s.get();
            vec![
                Input::new("x", draw.normal(&[rows, columns])).grad(),
                Input::new("weight", draw.normal(&[columns])).grad(),
            ]
        },
        run: |_, i| vec![rms_norm(&i[0], &i[1], 1e-5)],
        reference: |_, i| vec![reference(&i[0], &i[1], 1e-5)],
        error: |s| 4.0 + (s["columns"] as f64).sqrt(),
        cost: |s| Cost { bytes: 8 * s["rows"] * s["columns"], flops: 4 * s["rows"] * s["columns"] },
        part: Some(|s, draw| {
            let [rows, columns] = s.get();
            let some = some(draw, rows, 4);
            Part {
                sizes: vec![some.len(), columns],
                inputs: vec![vec![some.clone(), 0..columns], vec![0..columns]],
                outputs: vec![Share::Cut(vec![some, 0..columns])],
            }
        }),
        bench: &[&[16384, 1024], &[32768, 1024]],
        ..Case::new("rms_norm")
    };
    vec![
        plain.in_half("rms_norm.f16", &["x"], 1.0),
        Case { run: |_, i| vec![rms_norm_to(&i[0], &i[1], 1e-5, DType::F16)], ..plain.in_half("rms_norm.residual", &[], 1.0) },
        plain,
    ]
}
