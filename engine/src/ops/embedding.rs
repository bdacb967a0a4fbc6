//! Rows of a table by index; the gradient is summed in the rows' order.

use crate::{
    DType, Tensor, launch,
    ops::PartialSums,
    reference::Array,
    tensor::rows_a_page,
    testing::{Case, Cost, Dim, Input},
};

/// Tables of gradients that are summed side by side, at most; the number of rows alone decides how many.
const PIECES: usize = 64;
/// Elements of all those tables together.
const MOST: usize = 1 << 26;
/// Rows a piece, at least.
const PIECE: usize = 512;

/// `y[…, :] = weight[ids[…], :]`.
///
/// `weight`: (vocabulary, columns) in f32; `ids`: u32, any shape, each below the vocabulary (others leave their rows
/// undefined and get no gradient).
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
    let (table, step) = (rows_a_page(weight.gpu(), &[bytes]), rows_a_page(weight.gpu(), &[bytes, 4]));
    for start in (0..vocabulary).step_by(table) {
        let count = table.min(vocabulary - start);
        let weight = weight.page(start, count, bytes);
        for first in (0..rows).step_by(step) {
            let n = step.min(rows - first);
            let (ids, y) = (ids.page(first, n, 4), y.page(first, n, bytes));
            launch!(embedding { rows: n, columns, first: start, count }, [ids, weight] -> [y], n);
        }
    }
    let ids = ids.detach();
    y.with_grad(&[weight], move |dy| {
        let table = vocabulary * columns;
        // Large tables are not held many times over.
        let most = (MOST / table.max(1)).clamp(1, PIECES);
        let piece = rows.div_ceil(most).max(PIECE).next_multiple_of(64);
        let pieces = rows.div_ceil(piece);
        let sums = PartialSums::zeros(dy, pieces, table);
        let blocks = columns.div_ceil(64);
        let step = rows_a_page(dy.gpu(), &[dy.dtype().bytes() * columns, 4]);
        for p in 0..pieces {
            let (mut at, end) = (p * piece, ((p + 1) * piece).min(rows));
            // Pages of one piece follow one another, so the order of sums is that of the rows. Where bindings hold all,
            // one launch takes all pieces.
            let all = step >= rows;
            if all && p > 0 {
                break;
            }
            let end = if all { rows } else { end };
            while at < end {
                let n = step.min(end - at);
                let (ids, dy_) = (ids.page(at, n, 4), dy.page(at, n, dy.dtype().bytes() * columns));
                let (count, piece) = if all { (pieces, piece) } else { (1, n) };
                let sums = sums.all();
                launch!(embedding_backward [elem = dy.dtype().wgsl()] { rows: n, columns, vocabulary, piece, blocks, first_piece: p },
                        [ids, dy_] -> [sums], count * blocks);
                at += n;
            }
        }
        [sums.in_order().reshape([vocabulary, columns])]
    })
}

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        dims: vec![Dim::range("rows", 1, 1100), Dim::range("vocabulary", 1, 40), Dim::range("columns", 1, 65)],
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
        bench: &[&[16384, 65536, 1024], &[131072, 256, 256]],
        ..Case::new("embedding")
    }]
}
