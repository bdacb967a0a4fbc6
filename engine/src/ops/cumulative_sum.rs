//! Running sums along the last axis: a row by one workgroup, or in blocks that are summed first (Blelloch 1990).

use crate::{
    DType, Tensor, launch,
    ops::rms_norm::constants,
    tensor::{by_four, quad_lanes, rows_a_page},
    testing::{Case, Cost, Dim, Input, Part, Share, Sizes, some},
};

/// Who sums how much of a row.
#[derive(Clone, Copy)]
struct Cut {
    /// Columns of the longest row that one workgroup holds in quads.
    most: usize,
    /// Columns a block of longer rows: 4 a lane, or 4 quads a lane of a fourth as many lanes.
    block: usize,
}

/// Short rows that a workgroup sums side by side.
const TEAMS: usize = 2;

const CUT: Cut = Cut { most: 4096, block: 1024 };

/// `y[…, c] = Σ x[…, j]` over j ≤ c, added up in f32.
///
/// `x`: (…, columns) in f32 or f16; y has `x`'s shape and type.
#[track_caller]
pub fn cumulative_sum(x: &Tensor) -> Tensor {
    run(x, CUT, false)
}

/// The sums from the row's beginning, or from its end.
#[track_caller]
fn run(x: &Tensor, cut: Cut, reverse: bool) -> Tensor {
    summed(x, x.dtype(), cut, reverse).with_grad(&[x], move |dy| [run(dy, cut, !reverse)])
}

fn summed(x: &Tensor, dtype: DType, cut: Cut, reverse: bool) -> Tensor {
    let ((rows, columns), y) = (x.rows_by_last(), x.empty_on(x.shape(), dtype));
    let quads = by_four(&[columns]) == 4 && x.dtype() == dtype;
    let one = columns <= if quads { cut.most } else { cut.most.min(cut.block) };
    let blocks = if one { 1 } else { columns.div_ceil(cut.block) };
    let reversed = u32::from(reverse);
    // Sums up to each block's end, counted from where the row's sums begin.
    let before = (blocks > 1).then(|| summed(&block_sums(x, blocks, cut.block, reverse), DType::F32, cut, false));
    let bytes = (columns * x.dtype().bytes(), columns * dtype.bytes(), blocks * 4);
    let step = rows_a_page(x.gpu(), &[bytes.0, bytes.1, bytes.2]);
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let (x_, y_) = (x.page(first, n, bytes.0), y.page(first, n, bytes.1));
        let before_ = before.as_ref().map_or(x_.clone(), |b| b.page(first, n, bytes.2));
        if quads {
            let wg = if blocks == 1 { quad_lanes(columns, 4) } else { cut.block / 16 };
            // Rows a workgroup, side by side: so many must be whole.
            let teams = if blocks == 1 && n.is_multiple_of(TEAMS) && wg * TEAMS <= 256 { TEAMS } else { 1 };
            let (constant, exact) = if blocks == 1 { constants(columns / 4, n, teams) } else { (0, 0) };
            let teams = if exact == 1 { teams } else { 1 };
            launch!(cumulative_sum_quads [elem = dtype.wgsl(), REVERSE = reversed, WG = wg * teams, TEAM = wg,
                                          QUADS = constant, EXACT = exact]
                    { rows: n, quads: columns / 4, blocks }, [x_, before_] -> [y_], n * blocks / teams);
        } else {
            let wg = if blocks == 1 { quad_lanes(4 * columns, 4) } else { cut.block / 4 };
            launch!(cumulative_sum [elem = x.dtype().wgsl(), elem_out = dtype.wgsl(), REVERSE = reversed, WG = wg]
                    { rows: n, columns, blocks }, [x_, before_] -> [y_], n * blocks);
        }
    }
    y
}

/// (rows, blocks) in f32: the sum of each block of a row.
fn block_sums(x: &Tensor, blocks: usize, block: usize, reverse: bool) -> Tensor {
    let ((rows, columns), bytes) = (x.rows_by_last(), x.rows_by_last().1 * x.dtype().bytes());
    let sums = x.empty_on([rows, blocks], DType::F32);
    let step = rows_a_page(x.gpu(), &[bytes, blocks * 4]);
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let (x_, sums_) = (x.page(first, n, bytes), sums.page(first, n, blocks * 4));
        launch!(cumulative_sum [elem = x.dtype().wgsl(), SUMS = 1, REVERSE = u32::from(reverse), WG = block / 4]
                { rows: n, columns, blocks }, [x_, x_] -> [sums_], n * blocks);
    }
    sums
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![Dim::range("rows", 1, 60), Dim::range("columns", 1, 600)],
        inputs: |s, draw| vec![Input::new("x", draw.normal(&[s["rows"], s["columns"]])).grad()],
        run: |_, i| vec![cumulative_sum(&i[0])],
        reference: |_, i| {
            vec![i[0].map_rows(|row| {
                row.iter().scan(0.0, |sum, v| { *sum += v; Some(*sum) }).collect()
            })]
        },
        error: |s| 16.0 + (s["columns"] as f64).sqrt(),
        cost: |s| Cost { bytes: 8 * s["rows"] * s["columns"], flops: s["rows"] * s["columns"] },
        cost_backward: Some(|s| Cost { bytes: 8 * s["rows"] * s["columns"], flops: s["rows"] * s["columns"] }),
        part: Some(|s, draw| {
            let [rows, columns] = s.get();
            let some = some(draw, rows, 4);
            let cut = vec![some.clone(), 0..columns];
            Part { sizes: vec![some.len(), columns], inputs: vec![cut.clone()], outputs: vec![Share::Cut(cut)] }
        }),
        bench: &[&[4096, 1024], &[16, 1 << 20]],
        ..Case::new("cumulative_sum")
    };
    // Rows in small blocks, which are counted from the end in the backward pass.
    let blocks = Case {
        dims: vec![Dim::range("rows", 1, 4), Dim::range("quads", 1, 500), Dim::one_of("rest", &[0, 1, 3])],
        inputs: |s, draw| vec![Input::new("x", draw.normal(&[s["rows"], 4 * s["quads"] + s["rest"]])).grad()],
        run: |_, i| vec![run(&i[0], Cut { most: 256, block: 128 }, false)],
        error: |s: &Sizes| 16.0 + (4.0 * s["quads"] as f64).sqrt(),
        cost: |_| Cost::default(),
        cost_backward: None,
        part: None,
        bench: &[],
        ..plain.clone()
    };
    vec![
        blocks.in_half("cumulative_sum.blocks.f16", &["x"], 1.0),
        Case { stem: "cumulative_sum.blocks", ..blocks },
        plain.in_half("cumulative_sum.f16", &["x"], 1.0),
        plain,
    ]
}
