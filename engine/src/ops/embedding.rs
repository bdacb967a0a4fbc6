//! Rows of a table by index; the gradient sums the rows of each index in a fixed order.

use crate::{
    DType, Tensor, launch,
    ops::inverse_list,
    reference::Array,
    tensor::{by_four, rows_a_page},
    testing::{Case, Cost, Dim, Input, Part, Share, some},
};

/// Sorted rows that share a partial sum; `PIECE` in the kernels.
const PIECE: usize = 128;

/// `y[…, :] = weight[ids[…], :]`.
///
/// `weight`: (vocabulary, columns) in f32; `ids`: u32, any shape. An id beyond the vocabulary gives a row of zeros and
/// gets no gradient.
///
/// # Panics
/// Where `ids` are not u32.
#[track_caller]
pub fn embedding(weight: &Tensor, ids: &Tensor) -> Tensor {
    let [vocabulary, columns] = weight.axes();
    assert_eq!(ids.dtype(), DType::U32, "embedding: ids");
    let rows = ids.len();
    let mut shape = ids.shape().to_vec();
    shape.push(columns);
    let y = weight.empty_on(shape, DType::F32);
    let bytes = columns * 4;
    let four = by_four(&[columns]);
    let (elem, quads) = (DType::F32.wgsl_by(four), columns / four);
    // A lane has up to four elements under way.
    let wg = quads.div_ceil(4).next_power_of_two().clamp(32, 256);
    let (table, step) = (rows_a_page(weight.gpu(), &[bytes]), rows_a_page(weight.gpu(), &[bytes, 4]));
    for start in (0..vocabulary).step_by(table) {
        let count = table.min(vocabulary - start);
        let weight = weight.page(start, count, bytes);
        for first in (0..rows).step_by(step) {
            let n = step.min(rows - first);
            let (ids, y) = (ids.page(first, n, 4), y.page(first, n, bytes));
            launch!(embedding [elem = elem, WG = wg] { rows: n, columns: quads, vocabulary, first: start, count },
                    [ids, weight] -> [y], n);
        }
    }
    let ids = ids.detach().reshape([rows]);
    y.with_grad(&[weight], move |dy| {
        let dweight = dy.empty_on([vocabulary, columns], DType::F32);
        if rows == 0 {
            dweight.fill(0.0);
        }
        // Rows that share an id are visited through its list: linear in the rows, whatever the vocabulary.
        let (dy_bytes, blocks) = (columns * dy.dtype().bytes(), columns.div_ceil(64));
        let step = rows_a_page(dy.gpu(), &[dy_bytes, 4]);
        for at in (0..rows).step_by(step) {
            let n = step.min(rows - at);
            let ids = ids.view_rows(at..at + n).expect("pages start where the adapter can bind");
            let list = inverse_list(&ids, vocabulary);
            let pieces = n.div_ceil(PIECE);
            let sums = || dy.empty_on([pieces, columns], DType::F32);
            let (head, tail, dy_) = (sums(), sums(), dy.page(at, n, dy_bytes));
            let part = if at == 0 { dweight.clone() } else { dweight.like() };
            for first in (0..vocabulary).step_by(table) {
                let count = table.min(vocabulary - first);
                let d = part.page(first, count, bytes);
                launch!(embedding_backward [elem = dy.dtype().wgsl()] { rows: n, columns, blocks, first, count },
                        [list.sorted, list.order, dy_] -> [head, tail, d], pieces * blocks);
                launch!(embedding_backward_join { columns, blocks, first, count },
                        [list.starts, head, tail] -> [d], count * blocks);
                if at > 0 {
                    let (count, total) = (count * columns, dweight.page(first, count, bytes));
                    launch!(accumulate { count }, [d] -> [total], count.div_ceil(1024));
                }
            }
        }
        [dweight]
    })
}

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        dims: vec![Dim::range("rows", 1, 1100), Dim::range("vocabulary", 1, 300), Dim::range("columns", 1, 200)],
        inputs: |s, draw| {
            let [rows, vocabulary, columns] = s.get();
            vec![
                Input::new("weight", draw.normal(&[vocabulary, columns])).grad(),
                Input::new("ids", draw.integers(&[rows], 0, vocabulary as i64)).of(DType::U32),
            ]
        },
        run: |_, i| vec![embedding(&i[0], &i[1])],
        reference: |s, i| {
            let [rows, _, columns] = s.get();
            vec![Array::from_fn(&[rows, columns], |at| i[0].at(&[i[1].data[at[0]] as usize, at[1]]))]
        },
        error: |_| 0.0,
        error_grad: Some(|s| 8.0 + (s["rows"] as f64).sqrt()),
        cost: |s| Cost { bytes: 8 * s["rows"] * s["columns"], flops: 0 },
        part: Some(|s, draw| {
            let [rows, vocabulary, columns] = s.get();
            let (r, c) = (some(draw, rows, 16), some(draw, columns, 4));
            Part {
                sizes: vec![r.len(), vocabulary, c.len()],
                inputs: vec![vec![0..vocabulary, c.clone()], vec![r.clone()]],
                outputs: vec![Share::Cut(vec![r, c])],
            }
        }),
        bench: &[&[16384, 65536, 1024], &[131072, 256, 256]],
        ..Case::new("embedding")
    }]
}
