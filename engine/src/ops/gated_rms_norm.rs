//! RMSNorm of x · SiLU(z), the gate before the norm (Mamba-2: Dao & Gu 2024, arXiv 2405.21060, section 7).

use crate::{
    DType, Tensor,
    autograd::Gradients,
    launch,
    ops::{Columns, PartialSums},
    reference::Array,
    tensor::{by_four, quad_lanes, register_lanes, rows_a_page},
    testing::{Case, Cost, Dim, Input, Part, Share, some},
};

/// Rows that share one partial sum of dweight; `ROWS` in the kernel.
const ROWS: usize = 16;

/// `y = g · weight / √(mean(g²) + eps)` with `g = x · silu(z)`, the mean over each of `groups` equal parts of the last
/// axis by itself.
///
/// `x`, `z`: (…, columns), both f32 or both f16, `weight`: (columns) in f32. `z` is read where it lies.
///
/// # Panics
/// Where shapes or types disagree or `groups` does not divide the columns.
#[track_caller]
pub fn gated_rms_norm(x: &Tensor, z: impl Into<Columns>, weight: &Tensor, groups: usize, eps: f32) -> Tensor {
    let (z, lanes) = (z.into(), register_lanes(x.gpu(), x.rows_by_last().1 / groups.max(1)));
    let whole = by_four(&[z.stride(), z.start()]) == 4;
    run(x, &z, weight, groups, eps, lanes.filter(|_| whole))
}

/// `lanes` hold a group in registers where they are given, else it is walked over.
#[track_caller]
fn run(x: &Tensor, z: &Columns, weight: &Tensor, groups: usize, eps: f32, lanes: Option<usize>) -> Tensor {
    let (rows, columns) = x.rows_by_last();
    assert_eq!(x.shape(), z.shape(), "gated_rms_norm: x and z");
    assert_eq!(x.dtype(), z.dtype(), "gated_rms_norm: types of x and z");
    let z_bytes = z.stride() * z.dtype().bytes();
    assert_eq!(weight.shape(), [columns], "gated_rms_norm: weight for x {:?}", x.shape());
    assert!(groups > 0 && columns.is_multiple_of(groups), "gated_rms_norm: {groups} groups of {columns} columns");
    let (y, rstd) = (x.like(), x.empty_on([rows, groups], DType::F32));
    let (bytes, elem) = (columns * x.dtype().bytes(), x.dtype().wgsl());
    let (half, words) = x.dtype().quad();
    let wg = x.gpu().capabilities().row_lanes();
    let step = rows_a_page(x.gpu(), &[bytes, z_bytes, 4 * groups]);
    let (z_stride, z_start) = (z.stride(), z.start());
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let (x, z, y) = (x.page(first, n, bytes), z.page(first, n), y.page(first, n, bytes));
        let rstd = rstd.page(first, n, 4 * groups);
        match lanes {
            Some(wg) => launch!(gated_rms_norm_quads [HALF = half, words = words, WG = wg]
                                { rows: n, quads: columns / groups / 4, groups, z_stride: z_stride / 4, z_start: z_start / 4, eps },
                                [x, z, weight] -> [y, rstd], n * groups),
            None => launch!(gated_rms_norm [elem = elem, WG = wg]
                            { rows: n, columns, groups, z_stride, z_start, eps }, [x, z, weight] -> [y, rstd], n * groups),
        }
    }
    let (x_, z_, weight_) = (x.detach(), z.detach(), weight.detach());
    y.with_grad(&[x, z.input(), weight], move |dy| {
        let (dx, dz) = (x_.like(), z_.gradient());
        // Groups of sixteen bytes a lane.
        let unit = if half == 1 { 8 } else { 4 };
        let units = columns / groups / unit;
        let whole = units.is_multiple_of(32)
            && units <= 256
            && [columns / groups, z_stride, z_start].iter().all(|n| n.is_multiple_of(unit));
        let eights = lanes.is_some() && whole && x_.gpu().capabilities().counts_subgroups();
        let dweight = PartialSums::new(&x_, rows.div_ceil(ROWS), columns);
        let step = rows_a_page(x_.gpu(), &[bytes, z_bytes, 4 * groups].map(|b| b * ROWS)) * ROWS;
        for first in (0..rows).step_by(step) {
            let n = step.min(rows - first);
            let page = |t: &Tensor| t.page(first, n, bytes);
            let (dy_, x, z, dx, dz) = (page(dy), page(&x_), z_.page(first, n), page(&dx), dz.page(first, n, z_bytes));
            let (rstd, sums) = (rstd.page(first, n, 4 * groups), dweight.all());
            let (first_block, blocks) = (first / ROWS, n.div_ceil(ROWS));
            match lanes {
                Some(_) if eights => launch!(gated_rms_norm_eights_backward [HALF = half, WG = units]
                                             { rows: n, groups, z_stride: z_stride / unit, z_start: z_start / unit, first_block },
                                             [dy_, x, z, weight_, rstd] -> [dx, dz, sums], blocks * groups),
                Some(wg) => launch!(gated_rms_norm_quads_backward [HALF = half, words = words, WG = wg]
                                    { rows: n, quads: columns / groups / 4, groups, z_stride: z_stride / 4, z_start: z_start / 4,
                                      first_block },
                                    [dy_, x, z, weight_, rstd] -> [dx, dz, sums], blocks * groups),
                None => launch!(gated_rms_norm_backward [elem = elem, WG = wg]
                                { rows: n, columns, groups, z_stride, z_start, first_block },
                                [dy_, x, z, weight_, rstd] -> [dx, dz, sums], blocks),
            }
        }
        Gradients::from([Some(dx), Some(dz), None]).and_sums(dweight, [(2, [columns].into())])
    })
}

fn reference(x: &Array, z: &Array, weight: &Array, groups: usize, eps: f64) -> Array {
    let gated = x.zip(z, |x, z| x * z / (1.0 + (-z).exp()));
    gated.map_rows(|row| {
        let width = row.len() / groups;
        let rstd = |part: &[f64]| 1.0 / (part.iter().map(|v| v * v).sum::<f64>() / width as f64 + eps).sqrt();
        let rstds: Vec<f64> = row.chunks(width).map(rstd).collect();
        row.iter().enumerate().map(|(c, v)| v * rstds[c / width] * weight.data[c]).collect()
    })
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![Dim::range("rows", 1, 100), Dim::range("width", 2, 160), Dim::one_of("groups", &[1, 2, 3])],
        inputs: |s, draw| {
            let [rows, width, groups] = s.get();
            let columns = width * groups;
            vec![
                Input::new("x", draw.normal(&[rows, columns])).grad(),
                Input::new("z", draw.normal(&[rows, columns])).grad(),
                Input::new("weight", draw.normal(&[columns])).grad(),
            ]
        },
        run: |s, i| vec![gated_rms_norm(&i[0], &i[1], &i[2], s["groups"], 1e-5)],
        reference: |s, i| vec![reference(&i[0], &i[1], &i[2], s["groups"], 1e-5)],
        error: |s| 16.0 + (s["width"] as f64).sqrt(),
        cost: |s| {
            let n = s["rows"] * s["width"] * s["groups"];
            Cost { bytes: 12 * n, flops: 10 * n }
        },
        cost_backward: Some(|s| {
            let n = s["rows"] * s["width"] * s["groups"];
            Cost { bytes: 20 * n, flops: 25 * n }
        }),
        part: Some(|s, draw| {
            let [rows, width, groups] = s.get();
            let (some, columns) = (some(draw, rows, 4), width * groups);
            let cut = vec![some.clone(), 0..columns];
            Part {
                sizes: vec![some.len(), width, groups],
                inputs: vec![cut.clone(), cut.clone(), vec![0..columns]],
                outputs: vec![Share::Cut(cut)],
            }
        }),
        bench: &[&[32768, 2048, 1]],
        ..Case::new("gated_rms_norm")
    };
    // Groups in registers, whatever the adapter would be given.
    let quads = Case {
        stem: "gated_rms_norm.quads",
        dims: vec![Dim::range("rows", 1, 70), Dim::range("quads", 1, 80), Dim::one_of("groups", &[1, 2, 3])],
        inputs: |s, draw| {
            let (rows, columns) = (s["rows"], 4 * s["quads"] * s["groups"]);
            vec![
                Input::new("x", draw.normal(&[rows, columns])).grad(),
                Input::new("z", draw.normal(&[rows, columns])).grad(),
                Input::new("weight", draw.normal(&[columns])).grad(),
            ]
        },
        run: |s, i| vec![run(&i[0], &(&i[1]).into(), &i[2], s["groups"], 1e-5, Some(quad_lanes(4 * s["quads"], 4)))],
        error: |s| 16.0 + (4.0 * s["quads"] as f64).sqrt(),
        cost: |_| Cost::default(),
        cost_backward: None,
        part: None,
        bench: &[],
        ..plain.clone()
    };
    // A gate among other columns, whether or not it begins at a quad.
    let columns = Case {
        stem: "gated_rms_norm.columns",
        dims: vec![
            Dim::range("rows", 1, 40),
            Dim::range("quads", 1, 40),
            Dim::one_of("groups", &[1, 2, 3]),
            Dim::one_of("before", &[4, 0, 3, 40]),
            Dim::one_of("after", &[8, 0, 1]),
        ],
        inputs: |s, draw| {
            let [rows, quads, groups, before, after] = s.get();
            let width = 4 * quads * groups;
            vec![
                Input::new("x", draw.normal(&[rows, width])).grad(),
                Input::new("z", draw.normal(&[rows, before + width + after])).grad(),
                Input::new("weight", draw.normal(&[width])).grad(),
            ]
        },
        run: |s, i| {
            let [_, quads, groups, before, after] = s.get();
            let z = crate::ops::columns(&i[1], &[before, 4 * quads * groups, after]).swap_remove(1);
            vec![gated_rms_norm(&i[0], z, &i[2], groups, 1e-5)]
        },
        reference: |s, i| {
            let [rows, quads, groups, before] = ["rows", "quads", "groups", "before"].map(|n| s[n]);
            let z = Array::from_fn(&[rows, 4 * quads * groups], |at| i[1].at(&[at[0], before + at[1]]));
            vec![reference(&i[0], &z, &i[2], groups, 1e-5)]
        },
        ..quads.clone()
    };
    // Groups of a whole unit a lane, where z begins at one, and where it does not.
    let exact = Case {
        stem: "gated_rms_norm.exact",
        dims: vec![
            Dim::range("rows", 1, 70),
            Dim::one_of("quads", &[64, 128, 512]),
            Dim::one_of("groups", &[1, 2]),
            Dim::one_of("before", &[8, 0, 4]),
        ],
        inputs: |s, draw| {
            let [rows, quads, groups, before] = s.get();
            let width = 4 * quads * groups;
            vec![
                Input::new("x", draw.normal(&[rows, width])).grad(),
                Input::new("z", draw.normal(&[rows, before + width + 8])).grad(),
                Input::new("weight", draw.normal(&[width])).grad(),
            ]
        },
        run: |s, i| {
            let [_, quads, groups, before] = s.get();
            let z = crate::ops::columns(&i[1], &[before, 4 * quads * groups, 8]).swap_remove(1);
            vec![run(&i[0], &z, &i[2], groups, 1e-5, Some(quad_lanes(4 * quads, 4)))]
        },
        runs_on: |gpu| gpu.capabilities().counts_subgroups(),
        large: true,
        ..columns.clone()
    };
    vec![
        exact.in_half("gated_rms_norm.exact.f16", &["x", "z"], 1.0),
        exact,
        columns.in_half("gated_rms_norm.columns.f16", &["x", "z"], 1.0),
        columns,
        Case {
            bench: &[&[32768, 2048, 1]],
            ..plain.in_half("gated_rms_norm.f16", &["x", "z"], 1.0)
        },
        quads.in_half("gated_rms_norm.quads.f16", &["x", "z"], 1.0),
        quads,
        plain,
    ]
}
