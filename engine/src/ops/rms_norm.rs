//! Root-mean-square normalisation of the last axis (Zhang & Sennrich 2019, arXiv 1910.07467, eq. 4).

use crate::{
    DType, Tensor,
    autograd::Gradients,
    gpu::GRID_WIDTH,
    launch,
    ops::PartialSums,
    reference::Array,
    tensor::{quad_lanes, register_lanes, rows_a_page},
    testing::{Case, Cost, Dim, Input, Part, Share, some},
};

/// Rows that share one partial sum of dweight; `ROWS` in the backward kernel.
const ROWS: usize = 16;
/// Rows of at most 512 elements that a workgroup takes one after another.
const SHORT: usize = 8;

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
    run(x, weight, eps, dtype, register_lanes(x.gpu(), x.rows_by_last().1))
}

/// `lanes` hold a row in registers where they are given, else it is walked over.
#[track_caller]
fn run(x: &Tensor, weight: &Tensor, eps: f32, dtype: DType, lanes: Option<usize>) -> Tensor {
    let (rows, columns) = x.rows_by_last();
    assert_eq!(weight.shape(), [columns], "rms_norm: weight for x {:?}", x.shape());
    let (y, rstd) = (x.empty_on(x.shape(), dtype), x.empty_on([rows], DType::F32));
    let (bytes, wg) = ((columns * x.dtype().bytes(), columns * dtype.bytes()), x.gpu().capabilities().row_lanes());
    let step = rows_a_page(x.gpu(), &[bytes.0, bytes.1, 4]);
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let (x_, y_, rstd_) = (x.page(first, n, bytes.0), y.page(first, n, bytes.1), rstd.page(first, n, 4));
        match lanes {
            Some(wg) => {
                let together = if wg == 32 { SHORT } else { 1 };
                let (constant, exact) = constants(columns / 4, n, together);
                launch!(rms_norm_quads [elem = x.dtype().wgsl(), elem_out = dtype.wgsl(), WG = wg, ROWS = together,
                                        QUADS = constant, EXACT = exact]
                        { rows: n, quads: columns / 4, eps }, [x_, weight] -> [y_, rstd_], n.div_ceil(together));
            }
            None => launch!(rms_norm [elem = x.dtype().wgsl(), elem_out = dtype.wgsl(), WG = wg]
                            { rows: n, columns, eps }, [x_, weight] -> [y_, rstd_], n),
        }
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
            let (first_block, blocks) = (first / ROWS, n.div_ceil(ROWS));
            match lanes {
                Some(wg) => {
                    launch!(rms_norm_quads_backward [elem = x.dtype().wgsl(), elem_out = dtype.wgsl(), WG = wg]
                            { rows: n, quads: columns / 4, first_block }, [dy_, x_, weight, rstd_] -> [dx_, sums], blocks);
                }
                None => launch!(rms_norm_backward [elem = x.dtype().wgsl(), elem_out = dtype.wgsl(), WG = wg]
                                { rows: n, columns, first_block }, [dy_, x_, weight, rstd_] -> [dx_, sums], blocks),
            }
        }
        Gradients::from([Some(dx), None]).and_sums(dweight, [(1, [columns].into())])
    })
}

/// A row's quads where they are a constant of its kernel, else 0, and whether as many workgroups run as `each` rows each
/// take. No load then waits for parameters. Widths of whole 64 columns, of which there are few, have pipelines of their
/// own; nothing hangs on how many rows there are but the second.
pub(super) fn constants(quads: usize, rows: usize, each: usize) -> (usize, u32) {
    let exact = rows.is_multiple_of(each) && rows / each <= GRID_WIDTH;
    if quads.is_multiple_of(16) { (quads, u32::from(exact)) } else { (0, 0) }
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
    // Rows in registers, whatever the adapter would be given.
    let quads = Case {
        stem: "rms_norm.quads",
        dims: vec![Dim::range("rows", 1, 70), Dim::range("quads", 1, 250)],
        inputs: |s, draw| {
            let (rows, columns) = (s["rows"], 4 * s["quads"]);
            vec![
                Input::new("x", draw.normal(&[rows, columns])).grad(),
                Input::new("weight", draw.normal(&[columns])).grad(),
            ]
        },
        run: |s, i| {
            let dtype = i[0].dtype();
            vec![run(&i[0], &i[1], 1e-5, dtype, Some(quad_lanes(4 * s["quads"], 4)))]
        },
        error: |s| 4.0 + (4.0 * s["quads"] as f64).sqrt(),
        cost: |_| Cost::default(),
        cost_backward: None,
        part: None,
        bench: &[],
        ..plain.clone()
    };
    vec![
        Case { bench: &[&[32768, 1024]], ..plain.in_half("rms_norm.f16", &["x"], 1.0) },
        quads.in_half("rms_norm.quads.f16", &["x"], 1.0),
        Case {
            run: |s, i| vec![run(&i[0], &i[1], 1e-5, DType::F16, Some(quad_lanes(4 * s["quads"], 4)))],
            ..quads.in_half("rms_norm.quads.residual", &[], 1.0)
        },
        quads,
        Case { run: |_, i| vec![rms_norm_to(&i[0], &i[1], 1e-5, DType::F16)], ..plain.in_half("rms_norm.residual", &[], 1.0) },
        plain,
    ]
}
