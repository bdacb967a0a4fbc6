//! A residual stream takes what a layer computed, and the next layer's RMSNorm reads it: in one walk, and one back.

use crate::{
    DType, Tensor,
    autograd::{self, Gradients},
    launch,
    ops::{PartialSums, add, rms_norm::constants, rms_norm_to},
    tensor::{quad_lanes, register_lanes, rows_a_page},
    testing::{Case, Cost, Dim, Input},
};

/// Rows that share one partial sum of dweight; `ROWS` in the backward kernel.
const ROWS: usize = 16;
/// Rows of at most 512 elements that a workgroup takes one after another.
const SHORT: usize = 8;

/// `s = x + y` and `h = s · weight / √(mean(s²) + eps)` over the last axis: [`add`] and [`rms_norm_to`] of the sum.
///
/// `x`: (…, columns) in f32, `y`: the same shape in f32 or f16, `weight`: (columns) in f32. Returns s in f32 and h in
/// `dtype`.
///
/// # Panics
/// Where shapes disagree.
#[track_caller]
pub fn add_rms_norm(x: &Tensor, y: &Tensor, weight: &Tensor, eps: f32, dtype: DType) -> (Tensor, Tensor) {
    match register_lanes(x.gpu(), x.rows_by_last().1) {
        Some(lanes) if x.dtype() == DType::F32 && y.dtype() == dtype => run(x, y, weight, eps, dtype, lanes),
        _ => {
            let s = add(x, y);
            let h = rms_norm_to(&s, weight, eps, dtype);
            (s, h)
        }
    }
}

/// `lanes` hold a row in registers; y and h are of one type.
#[track_caller]
fn run(x: &Tensor, y: &Tensor, weight: &Tensor, eps: f32, dtype: DType, wg: usize) -> (Tensor, Tensor) {
    let (rows, columns) = x.rows_by_last();
    assert_eq!(y.shape(), x.shape(), "add_rms_norm: y for x {:?}", x.shape());
    assert_eq!(weight.shape(), [columns], "add_rms_norm: weight for x {:?}", x.shape());
    let (s, h, rstd) = (x.like(), x.empty_on(x.shape(), dtype), x.empty_on([rows], DType::F32));
    let [wide, bytes_y, bytes_h] = [DType::F32, y.dtype(), dtype].map(|t| columns * t.bytes());
    let (half, words) = dtype.quad();
    let step = rows_a_page(x.gpu(), &[wide, bytes_y, bytes_h, 4]);
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let (x_, y_, s_) = (x.page(first, n, wide), y.page(first, n, bytes_y), s.page(first, n, wide));
        let (h_, rstd_) = (h.page(first, n, bytes_h), rstd.page(first, n, 4));
        let together = if wg == 32 { SHORT } else { 1 };
        let (constant, exact) = constants(columns / 4, n, together);
        launch!(add_rms_norm [HALF = half, words = words, WG = wg, ROWS = together, QUADS = constant, EXACT = exact]
                { rows: n, quads: columns / 4, eps }, [x_, y_, weight] -> [s_, h_, rstd_], n.div_ceil(together));
    }
    let (s_, weight_, y_type) = (s.detach(), weight.detach(), y.dtype());
    let [s, h] = autograd::record(&[x, y, weight], [s, h], move |[ds, dh]| {
        let (s, weight) = (s_, weight_);
        let zeros = |dtype| Tensor::zeros(s.gpu(), s.shape(), dtype);
        let (ds, dh) = (ds.unwrap_or_else(|| zeros(DType::F32)), dh.unwrap_or_else(|| zeros(dtype)));
        let (dx, dy) = (s.like(), s.empty_on(s.shape(), y_type));
        let dweight = PartialSums::new(&s, rows.div_ceil(ROWS), columns);
        let step = rows_a_page(s.gpu(), &[wide, bytes_y, bytes_h, 4].map(|b| b * ROWS)) * ROWS;
        for first in (0..rows).step_by(step) {
            let n = step.min(rows - first);
            let (dh_, ds_, s_) = (dh.page(first, n, bytes_h), ds.page(first, n, wide), s.page(first, n, wide));
            let (rstd_, dx_, dy_) = (rstd.page(first, n, 4), dx.page(first, n, wide), dy.page(first, n, bytes_y));
            let (sums, first_block) = (dweight.all(), first / ROWS);
            launch!(add_rms_norm_backward [HALF = half, words = words, WG = wg]
                    { rows: n, quads: columns / 4, first_block },
                    [dh_, ds_, s_, weight, rstd_] -> [dx_, dy_, sums], n.div_ceil(ROWS));
        }
        Gradients::from([Some(dx), Some(dy), None]).and_sums(dweight, [(2, [columns].into())])
    });
    (s, h)
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![Dim::range("rows", 1, 70), Dim::range("quads", 1, 250)],
        inputs: |s, draw| {
            let (rows, columns) = (s["rows"], 4 * s["quads"]);
            vec![
                Input::new("x", draw.normal(&[rows, columns])).grad(),
                Input::new("y", draw.normal(&[rows, columns])).grad(),
                Input::new("weight", draw.normal(&[columns])).grad(),
            ]
        },
        // By the kernel, whatever the adapter would be given.
        run: |s, i| {
            let (sum, h) = run(&i[0], &i[1], &i[2], 1e-5, i[1].dtype(), quad_lanes(4 * s["quads"], 4));
            vec![sum, h]
        },
        reference: |_, i| {
            let sum = i[0].zip(&i[1], |x, y| x + y);
            let h = sum.map_rows(|row| {
                let mean = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
                row.iter().zip(&i[2].data).map(|(v, w)| v * w / (mean + 1e-5).sqrt()).collect()
            });
            vec![sum, h]
        },
        error: |s| 4.0 + (4.0 * s["quads"] as f64).sqrt(),
        cost: |s| Cost { bytes: 64 * s["rows"] * s["quads"], flops: 20 * s["rows"] * s["quads"] },
        cost_backward: Some(|s| Cost { bytes: 80 * s["rows"] * s["quads"], flops: 40 * s["rows"] * s["quads"] }),
        bench: &[&[4096, 256]],
        ..Case::new("add_rms_norm")
    };
    vec![Case { bench: &[&[4096, 256]], ..plain.in_half("add_rms_norm.f16", &["y"], 1.0) }, plain]
}
