//! Sums and means, always in the same order.

use crate::{
    DType, Tensor, launch,
    reference::Array,
    tensor::{by_four, quad_lanes, rows_a_page},
    testing::{Case, Cost, Dim, Input, Part, Share, some},
};

/// Elements that one workgroup adds up on the way to a total: two launches reach 268 million.
const BLOCK: usize = 16384;
/// Rows that leave most of a large device idle.
const FEW: usize = 132;

/// factor · Σ over each row of `columns` elements of x, the last of which may be short: (rows) in f32.
fn rows_summed(x: &Tensor, columns: usize, factor: f32) -> Tensor {
    let (rows, dtype, capabilities) = (x.len().div_ceil(columns.max(1)), x.dtype(), x.gpu().capabilities());
    let y = x.empty_on([rows], DType::F32);
    let step = rows_a_page(x.gpu(), &[columns * dtype.bytes(), 4]);
    let four = by_four(&[x.len(), columns]);
    // Where there are few rows, each has more lanes: nothing else hides what its loads wait for.
    let each = if rows < FEW { 4 } else { 16 };
    let wg = if four == 4 { quad_lanes(columns, each).min(capabilities.row_lanes()) } else { capabilities.row_lanes() };
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let count = (n * columns).min(x.len() - first * columns);
        let (x_, y_) = (x.operand().elements(dtype, first * columns, count), y.page(first, n, 4));
        if four == 4 {
            launch!(reduce_quads [elem = dtype.wgsl(), WG = wg] { count: count / 4, columns: columns / 4, factor },
                    [x_] -> [y_], n);
        } else {
            launch!(reduce [elem = dtype.wgsl(), WG = wg] { count, columns, factor }, [x_] -> [y_], n);
        }
    }
    y
}

/// The sum of all elements, (1), in f32: blocks of a fixed size, then blocks of blocks.
pub fn sum(x: &Tensor) -> Tensor {
    // Pages begin where both blocks and their sums align.
    let block = BLOCK.min(x.gpu().capabilities().max_binding as usize / 64);
    let mut total = x.detach();
    while total.len() > 1 || total.dtype() != DType::F32 {
        total = rows_summed(&total, block.min(total.len()), 1.0);
    }
    let (shape, dtype) = (x.shape().to_vec(), x.dtype());
    total.reshape([1]).with_grad(&[x], move |dy| {
        let count = shape.iter().product();
        [super::broadcast_rows(&super::copy(&dy.reshape([1]), dtype), count).reshape(shape)]
    })
}

/// The sum over the last axis, in f32.
pub fn sum_last(x: &Tensor) -> Tensor {
    scaled_last(x, 1.0)
}

/// The mean over the last axis, in f32.
pub fn mean_last(x: &Tensor) -> Tensor {
    scaled_last(x, 1.0 / x.rows_by_last().1 as f32)
}

fn scaled_last(x: &Tensor, factor: f32) -> Tensor {
    let (rows, columns) = x.rows_by_last();
    let mut shape = x.shape().to_vec();
    shape.pop();
    let dtype = x.dtype();
    rows_summed(x, columns, factor).reshape(shape).with_grad(&[x], move |dy| {
        // (rows, 1) repeated over the columns is the backward form of a mean over a middle axis.
        [spread(&super::copy(dy, dtype), rows, columns, 1, factor)]
    })
}

/// (n, S, columns) → (n, columns): the mean over the middle axis.
///
/// # Panics
/// Where `x` has another number of axes.
#[track_caller]
pub fn mean_middle(x: &Tensor) -> Tensor {
    let [rows, middle, columns] = x.axes();
    let (y, size) = (x.empty_on([rows, columns], x.dtype()), x.dtype().bytes());
    let factor = 1.0 / middle as f32;
    let step = rows_a_page(x.gpu(), &[middle * columns * size, columns * size]);
    let four = by_four(&[columns]);
    let (elem, real) = (x.dtype().wgsl_by(four), DType::F32.wgsl_by(four));
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let (x_, y_) = (x.page(first, n, middle * columns * size), y.page(first, n, columns * size));
        let columns = columns / four;
        launch!(mean_middle [elem = elem, real = real] { rows: n, middle, columns, factor }, [x_] -> [y_],
                (n * columns).div_ceil(256));
    }
    y.with_grad(&[x], move |dy| [spread(dy, rows, middle, columns, factor)])
}

/// factor · x (rows, columns) repeated as (rows, middle, columns).
fn spread(x: &Tensor, rows: usize, middle: usize, columns: usize, factor: f32) -> Tensor {
    let (y, size) = (x.empty_on([rows, middle, columns], x.dtype()), x.dtype().bytes());
    let step = rows_a_page(x.gpu(), &[middle * columns * size, columns * size]);
    let four = by_four(&[columns]);
    let (elem, real) = (x.dtype().wgsl_by(four), DType::F32.wgsl_by(four));
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let (x_, y_) = (x.page(first, n, columns * size), y.page(first, n, middle * columns * size));
        let columns = columns / four;
        launch!(mean_middle [elem = elem, real = real, BACKWARD = 1] { rows: n, middle, columns, factor }, [x_] -> [y_],
                (n * middle * columns).div_ceil(256));
    }
    y
}

fn reference(x: &Array, factor: f64) -> Vec<Array> {
    let mut y = x.map_rows(|row| vec![row.iter().sum::<f64>() * factor]);
    y.shape.pop();
    vec![y]
}

pub(super) fn cases() -> Vec<Case> {
    let one = |stem| Case {
        dims: vec![Dim::range("rows", 1, 60), Dim::range("columns", 1, 300)],
        inputs: |s, draw| {
            let [rows, columns] = s.get();
            vec![Input::new("x", draw.uniform(&[rows, columns], -1.0, 2.0)).grad()]
        },
        error: |s| 8.0 + 2.0 * ((s["columns"] * s["rows"]) as f64).sqrt(),
        error_grad: Some(|_| 8.0),
        cost: |s| Cost { bytes: 4 * s["rows"] * s["columns"], flops: s["rows"] * s["columns"] },
        bench: &[&[8192, 8192]],
        ..Case::new(stem)
    };
    let last = |stem| Case {
        part: Some(|s, draw| {
            let [rows, columns] = s.get();
            let some = some(draw, rows, 4);
            Part {
                sizes: vec![some.len(), columns],
                inputs: vec![vec![some.clone(), 0..columns]],
                outputs: vec![Share::Cut(vec![some])],
            }
        }),
        ..one(stem)
    };
    let mean_middle = Case {
            dims: vec![Dim::range("rows", 1, 20), Dim::range("middle", 1, 33), Dim::range("columns", 1, 60)],
            inputs: |s, draw| {
                let [rows, middle, columns] = s.get();
                vec![Input::new("x", draw.normal(&[rows, middle, columns])).grad()]
            },
            run: |_, i| vec![mean_middle(&i[0])],
            reference: |s, i| {
                let [rows, middle, columns] = s.get();
                let mean = |at: &[usize]| (0..middle).map(|t| i[0].at(&[at[0], t, at[1]])).sum::<f64>() / middle as f64;
                vec![Array::from_fn(&[rows, columns], mean)]
            },
            error: |s| 8.0 + s["middle"] as f64,
            cost: |s| Cost { bytes: 4 * s["rows"] * s["middle"] * s["columns"], flops: 0 },
            bench: &[&[2048, 64, 256]],
            ..Case::new("mean_middle")
        };
    vec![
        Case {
            run: |_, i| vec![sum(&i[0])],
            reference: |_, i| vec![Array::new(&[1], vec![i[0].data.iter().sum()])],
            ..one("sum")
        },
        Case { run: |_, i| vec![sum_last(&i[0])], reference: |_, i| reference(&i[0], 1.0), ..last("sum_last") },
        Case {
            run: |_, i| vec![mean_last(&i[0])],
            reference: |s, i| reference(&i[0], 1.0 / s["columns"] as f64),
            ..last("mean_last")
        },
        mean_middle.in_half("mean_middle.f16", &["x"], 1.0),
        mean_middle,
    ]
}
