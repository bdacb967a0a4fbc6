//! The largest values of each row with their places, in order; equal values by ascending place.

use crate::{
    DType, Tensor,
    gpu::GRID_WIDTH,
    launch,
    reference::Array,
    tensor::rows_a_page,
    testing::{Case, Cost, Dim, Draw, Input, Part, Share, Sizes, some},
};

/// The most values a row; `MOST` in the kernel of short rows and in the backward one.
const MOST: usize = 64;
/// Columns of the longest row that the kernel of short rows takes: 16 for each of 64 lanes, of k of which it lists all.
const SHORT: usize = 1024;
/// The most values that the kernel of quads finds: what eight rows of SHORT columns list fits 16 KiB.
const MOST_QUADS: usize = 12;

/// The `k` largest of the last axis in descending order, and their places in it: `values[…, j] = x[…, indices[…, j]]`. Of
/// equal values the one at the lower place comes first.
///
/// `x`: (…, columns) in f32 or f16; returns values (…, k) of its type, differentiable to `x`, and indices (…, k) in u32.
///
/// # Panics
/// Where `k` is not from 1 to 64, or exceeds the columns.
#[track_caller]
pub fn top_k(x: &Tensor, k: usize) -> (Tensor, Tensor) {
    run(x, k, SHORT)
}

/// Rows of up to `short` columns go through the kernel of short ones.
#[track_caller]
fn run(x: &Tensor, k: usize, short: usize) -> (Tensor, Tensor) {
    let (rows, columns) = x.rows_by_last();
    assert!((1..=MOST.min(columns)).contains(&k), "top_k: k = {k} of {columns} columns, expected 1 to {MOST} of them");
    assert!(x.dtype().is_float(), "top_k: x: expected f32 or f16, got {}", x.dtype());
    let mut shape = x.shape().to_vec();
    *shape.last_mut().expect("x has a last axis") = k;
    let (values, indices) = (x.empty_on(shape.as_slice(), x.dtype()), x.empty_on(shape.as_slice(), DType::U32));
    let (elem, bytes) = (x.dtype().wgsl(), [columns, k].map(|n| n * x.dtype().bytes()));
    let step = rows_a_page(x.gpu(), &[bytes[0], bytes[1], 4 * k]);
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let (x_, values_) = (x.page(first, n, bytes[0]), values.page(first, n, bytes[1]));
        let indices_ = indices.page(first, n, 4 * k);
        if columns <= short && columns.is_multiple_of(4) && k <= MOST_QUADS {
            let together = 8;
            let groups = n.div_ceil(together);
            let exact = u32::from(groups * together == n && groups <= GRID_WIDTH);
            launch!(top_k_quads [elem = elem, QUADS = columns / 4, K = k, ROWS = together, EXACT = exact] { rows: n },
                    [x_] -> [values_, indices_], groups);
        } else if columns <= short {
            let kept = 16 * k.next_power_of_two();
            launch!(top_k_short [elem = elem, KEPT = kept] { rows: n, columns, k }, [x_] -> [values_, indices_], n);
        } else {
            launch!(top_k [elem = elem] { rows: n, columns, k }, [x_] -> [values_, indices_], n);
        }
    }
    let (near, indices_) = (x.detach(), indices.clone());
    let values = values.with_grad(&[x], move |dvalues| {
        let (dx, indices) = (near.like(), indices_);
        for first in (0..rows).step_by(step) {
            let n = step.min(rows - first);
            let (d, dx_) = (dvalues.page(first, n, bytes[1]), dx.page(first, n, bytes[0]));
            let indices = indices.page(first, n, 4 * k);
            launch!(top_k_backward [elem = elem] { rows: n, columns, k }, [d, indices] -> [dx_], n);
        }
        [dx]
    });
    (values, indices)
}

/// The definition: sort each row, the sort being stable.
fn reference(x: &Array, k: usize) -> Vec<Array> {
    let columns = x.shape[1];
    let (mut values, mut indices) = (Vec::new(), Vec::new());
    for row in x.data.chunks(columns) {
        let mut order: Vec<usize> = (0..columns).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
        values.extend(order[..k].iter().map(|c| row[*c]));
        indices.extend(order[..k].iter().map(|c| *c as f64));
    }
    let shape = [x.shape[0], k];
    vec![Array::new(&shape, values), Array::new(&shape, indices)]
}

/// Different numbers in any order, a half apart: neither type nor a small step changes their order.
fn shuffled(draw: &mut Draw, [rows, columns]: [usize; 2]) -> Array {
    let mut data: Vec<f64> = (0..rows * columns).map(|i| (i % columns) as f64 / 2.0 - columns as f64 / 5.0).collect();
    for row in data.chunks_mut(columns) {
        for c in (1..columns).rev() {
            row.swap(c, draw.below(c + 1));
        }
    }
    Array::new(&[rows, columns], data)
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![
            Dim::range("rows", 1, 50),
            Dim::range("columns", 64, 600),
            Dim::one_of("k", &[8, 1, 3, 12, 64]),
        ],
        inputs: |s, draw| vec![Input::new("x", shuffled(draw, [s["rows"], s["columns"]])).grad()],
        run: |s, i| {
            let (values, indices) = top_k(&i[0], s["k"]);
            vec![values, indices]
        },
        reference: |s, i| reference(&i[0], s["k"]),
        error: |_| 0.0,
        error_grad: Some(|_| 1.0),
        cost: |s: &Sizes| Cost { bytes: 4 * s["rows"] * s["columns"], flops: 0 },
        cost_backward: Some(|s| Cost { bytes: 4 * s["rows"] * s["columns"], flops: 0 }),
        part: Some(|s, draw| {
            let [rows, columns, k] = s.get();
            let some = some(draw, rows, 4);
            let cut = vec![some.clone(), 0..k];
            Part {
                sizes: vec![some.len(), columns, k],
                inputs: vec![vec![some, 0..columns]],
                outputs: vec![Share::Cut(cut.clone()), Share::Cut(cut)],
            }
        }),
        bench: &[&[4096, 1024, 8]],
        ..Case::new("top_k")
    };
    // Few different values, so many equal ones, both zeros among them.
    let ties = Case {
        stem: "top_k.ties",
        dims: vec![Dim::range("rows", 1, 50), Dim::range("columns", 3, 1300), Dim::one_of("k", &[1, 2, 3])],
        inputs: |s, draw| {
            let mut x = draw.integers(&[s["rows"], s["columns"]], -3, 3);
            x.data.iter_mut().step_by(2).for_each(|v| *v = -*v);
            vec![Input::new("x", x)]
        },
        reference: |s, i| reference(&i[0].map(|v| v + 0.0), s["k"]),
        error_grad: None,
        bench: &[],
        ..plain.clone()
    };
    // Whole quads, more rows than two workgroups take.
    let quads = Case {
        stem: "top_k.quads",
        dims: vec![Dim::range("rows", 1, 90), Dim::range("quads", 3, 256), Dim::one_of("k", &[8, 1, 3, 12])],
        inputs: |s, draw| vec![Input::new("x", shuffled(draw, [s["rows"], 4 * s["quads"]])).grad()],
        cost: |_| Cost::default(),
        cost_backward: None,
        part: None,
        bench: &[],
        ..plain.clone()
    };
    // Through the kernel of long rows, however short.
    let long = Case {
        stem: "top_k.long",
        run: |s, i| {
            let (values, indices) = run(&i[0], s["k"], 0);
            vec![values, indices]
        },
        bench: &[],
        ..plain.clone()
    };
    vec![
        plain.in_half("top_k.f16", &["x"], 1.0),
        quads.in_half("top_k.quads.f16", &["x"], 1.0),
        quads,
        long.in_half("top_k.long.f16", &["x"], 1.0),
        // Lanes go several rounds along a row.
        Case {
            stem: "top_k.long.ties",
            dims: vec![Dim::range("rows", 1, 9), Dim::range("columns", 3, 9000), Dim::one_of("k", &[1, 2, 3])],
            run: long.run,
            large: true,
            ..ties.clone()
        },
        ties,
        long,
        plain,
    ]
}
