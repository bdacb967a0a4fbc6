//! Splitting and joining along the last axis, columns read in place, and rows that repeat.

use std::sync::{Arc, Mutex};

use crate::{
    DType, Gpu, Tensor,
    autograd,
    gpu::{Operand, lock},
    launch,
    ops::PartialSums,
    reference::Array,
    tensor::{by_four, rows_a_page},
    testing::{Case, Cost, Dim, Input},
};

/// Copies `width` columns of x (rows, `from.1`) from column `from.0` on into y (rows, `to.1`) from column `to.0` on.
fn move_columns(x: &Tensor, y: &Tensor, rows: usize, width: usize, from: (usize, usize), to: (usize, usize)) {
    if rows * width == 0 {
        return;
    }
    let size = x.dtype().bytes();
    let borders = [width, from.0, from.1, to.0, to.1];
    // Four elements at a time where all borders allow it, or eight of 16 bits: their bits are moved as they are.
    let (elem, four) = match by_four(&borders) {
        4 if size == 2 && by_four(&borders.map(|b| b / 2)) == 4 => ("vec4<u32>", 8),
        four => (x.dtype().wgsl_by(four), four),
    };
    // One long row (a text's memory, say) is cut along its columns instead.
    if rows == 1 {
        let step = rows_a_page(x.gpu(), &[size]);
        let mut at = 0;
        while at < width {
            let alignment = (x.gpu().capabilities().storage_alignment as usize / size).max(four);
            let (skip_x, skip_y) = ((from.0 + at) % alignment, (to.0 + at) % alignment);
            let n = ((step - alignment) / four * four).min(width - at);
            let x_ = x.operand().elements(x.dtype(), from.0 + at - skip_x, skip_x + n);
            let y_ = y.operand().elements(y.dtype(), to.0 + at - skip_y, skip_y + n);
            launch!(columns [elem = elem] { rows: 1u32, width: n / four, x_stride: 0u32, start: skip_x / four,
                    y_stride: 0u32, to: skip_y / four }, [x_] -> [y_], (n / four).div_ceil(1024));
            at += n;
        }
        return;
    }
    let (x_bytes, y_bytes) = (from.1 * size, to.1 * size);
    let step = rows_a_page(x.gpu(), &[x_bytes, y_bytes]);
    for first in (0..rows).step_by(step) {
        let n = step.min(rows - first);
        let x_ = if from.1 == 0 { x.operand() } else { x.page(first, n, x_bytes) };
        let y_ = y.page(first, n, y_bytes);
        launch!(columns [elem = elem] { rows: n, width: width / four, x_stride: from.1 / four, start: from.0 / four,
                y_stride: to.1 / four, to: to.0 / four }, [x_] -> [y_], (n * width / four).div_ceil(1024));
    }
}

/// Cuts the last axis into parts of these widths.
///
/// # Panics
/// Where the widths do not add up to it.
#[track_caller]
pub fn split_columns(x: &Tensor, widths: &[usize]) -> Vec<Tensor> {
    let (rows, columns) = x.rows_by_last();
    assert_eq!(widths.iter().sum::<usize>(), columns, "split_columns: widths {widths:?} of x {:?}", x.shape());
    let mut start = 0;
    let mut parts = Vec::new();
    for &width in widths {
        let mut shape = x.shape().to_vec();
        *shape.last_mut().expect("x has a last axis") = width;
        let y = x.empty_on(shape, x.dtype());
        move_columns(x, &y, rows, width, (start, columns), (0, width));
        parts.push(y);
        start += width;
    }
    let widths = widths.to_vec();
    // x itself is not needed: what it was, is.
    let (gpu, shape, dtype) = (x.gpu().clone(), x.shape().to_vec(), x.dtype());
    autograd::record_all(&[x], parts, move |grads| {
        let dx = Tensor::empty(&gpu, shape, dtype);
        let mut start = 0;
        for (dy, &width) in grads.iter().zip(&widths) {
            match dy {
                Some(dy) => move_columns(dy, &dx, rows, width, (0, width), (start, columns)),
                None => clear_columns(&dx, rows, width, start),
            }
            start += width;
        }
        [dx]
    })
}

/// Writes zeros over `width` columns of x (rows, columns) from column `start` on.
fn clear_columns(x: &Tensor, rows: usize, width: usize, start: usize) {
    let zeros = Tensor::zeros(x.gpu(), [rows, width], x.dtype());
    move_columns(&zeros, x, rows, width, (0, width), (start, x.rows_by_last().1));
}

/// Some columns of a wider tensor, for ops that read them where they lie. They are used once: an op's backward pass writes
/// their gradient into its place in that of the whole, which all columns of one [`columns`] share. A tensor is columns of
/// itself.
pub struct Columns {
    /// (…, stride), in the graph as these columns alone.
    whole: Tensor,
    start: usize,
    width: usize,
    gradient: Arc<Mutex<Option<Tensor>>>,
}

impl From<&Tensor> for Columns {
    fn from(x: &Tensor) -> Columns {
        Columns { whole: x.clone(), start: 0, width: x.rows_by_last().1, gradient: Arc::default() }
    }
}

impl Columns {
    /// (…, width).
    pub fn shape(&self) -> Vec<usize> {
        let mut shape = self.whole.shape().to_vec();
        *shape.last_mut().expect("columns have a last axis") = self.width;
        shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.whole.dtype()
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        self.whole.gpu()
    }

    /// Elements from one row to the next.
    pub(crate) fn stride(&self) -> usize {
        self.whole.rows_by_last().1
    }

    /// Where in a row they begin.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Rows of the whole from row `first` on; see [`Tensor::page`].
    #[track_caller]
    pub(crate) fn page(&self, first: usize, rows: usize) -> Operand {
        self.whole.page(first, rows, self.stride() * self.dtype().bytes())
    }

    /// What stands for them among an op's inputs.
    pub(crate) fn input(&self) -> &Tensor {
        &self.whole
    }

    /// The same columns outside of the graph, for a backward pass.
    pub(crate) fn detach(&self) -> Columns {
        Columns { whole: self.whole.detach(), gradient: self.gradient.clone(), ..*self }
    }

    /// Another handle to them, for an op that goes on by itself or hands them to one that does.
    pub(crate) fn again(&self) -> Columns {
        Columns { whole: self.whole.clone(), gradient: self.gradient.clone(), ..*self }
    }

    /// The whole's gradient: a backward pass fills these columns of it and returns it.
    pub(crate) fn gradient(&self) -> Tensor {
        lock(&self.gradient).get_or_insert_with(|| self.whole.like()).clone()
    }

    /// A tensor of them: a copy, but for a whole tensor.
    pub fn contiguous(self) -> Tensor {
        let (rows, stride) = self.whole.rows_by_last();
        let (start, width) = (self.start, self.width);
        if width == stride {
            return self.whole;
        }
        let y = self.whole.empty_on(self.shape(), self.dtype());
        move_columns(&self.whole, &y, rows, width, (start, stride), (0, width));
        let near = self.detach();
        y.with_grad(&[&self.whole], move |dy| {
            let dx = near.gradient();
            move_columns(dy, &dx, rows, width, (0, width), (start, stride));
            [dx]
        })
    }
}

/// [`split_columns`] without the copies.
///
/// # Panics
/// Where the widths do not add up to the last axis.
#[track_caller]
pub fn columns(x: &Tensor, widths: &[usize]) -> Vec<Columns> {
    let (rows, all) = x.rows_by_last();
    assert_eq!(widths.iter().sum::<usize>(), all, "columns: widths {widths:?} of x {:?}", x.shape());
    let gradient = Arc::<Mutex<Option<Tensor>>>::default();
    let mut start = 0;
    let places: Vec<(usize, usize)> = widths
        .iter()
        .map(|&width| {
            start += width;
            (start - width, width)
        })
        .collect();
    let (kept, sum) = (places.clone(), gradient.clone());
    let wholes = autograd::record_all(&[x], vec![x.detach(); widths.len()], move |grads| {
        // Columns that are all of x may be used as a tensor like any other, whose gradient comes by itself.
        let Some(dx) = lock(&sum).take() else { return vec![grads.into_iter().flatten().next()] };
        for (_, (start, width)) in grads.iter().zip(kept).filter(|(grad, _)| grad.is_none()) {
            clear_columns(&dx, rows, width, start);
        }
        vec![Some(dx)]
    });
    let of = |(whole, (start, width))| Columns { whole, start, width, gradient: gradient.clone() };
    wholes.into_iter().zip(places).map(of).collect()
}

/// Joins tensors along the last axis.
///
/// # Panics
/// Where other axes or types differ.
#[track_caller]
pub fn concat_columns(parts: &[&Tensor]) -> Tensor {
    let first = parts.first().expect("concat_columns: at least one part");
    let lead = first.shape().len() - 1;
    let widths: Vec<usize> = parts.iter().map(|p| p.shape()[lead]).collect();
    for p in parts {
        assert_eq!(p.shape()[..lead], first.shape()[..lead], "concat_columns: leading axes differ");
        assert_eq!(p.dtype(), first.dtype(), "concat_columns: types differ");
    }
    let (rows, columns): (usize, usize) = (first.shape()[..lead].iter().product(), widths.iter().sum());
    let mut shape = first.shape().to_vec();
    shape[lead] = columns;
    let y = first.empty_on(shape, first.dtype());
    let mut start = 0;
    for (p, &width) in parts.iter().zip(&widths) {
        move_columns(p, &y, rows, width, (0, width), (start, columns));
        start += width;
    }
    y.with_grad(parts, move |dy| split_columns(dy, &widths).into_iter().map(Some).collect::<Vec<_>>())
}

/// `count` elements of x from element `start` on, as (count): a copy, outside of the graph.
///
/// # Panics
/// Where x ends before.
#[track_caller]
pub fn slice(x: &Tensor, start: usize, count: usize) -> Tensor {
    assert!(start + count <= x.len(), "slice: {count} elements from {start} on of x {:?}", x.shape());
    let y = x.empty_on([count], x.dtype());
    move_columns(x, &y, 1, count, (start, x.len()), (0, count));
    y
}

/// Overwrites the elements of y from `start` on by those of x, outside of the graph: for buffers that live on while
/// parts of them change, such as a text's memory.
///
/// # Panics
/// Where y ends before, or types differ.
#[track_caller]
pub fn write_slice(y: &Tensor, start: usize, x: &Tensor) {
    let end = start + x.len();
    assert!(end <= y.len(), "write_slice: x {:?} from {start} on of y {:?}", x.shape(), y.shape());
    assert_eq!(x.dtype(), y.dtype(), "write_slice: types differ");
    move_columns(x, y, 1, x.len(), (0, x.len()), (start, y.len()));
}

/// (columns) repeated as (n, columns).
///
/// # Panics
/// Where `x` has more than one axis.
#[track_caller]
pub fn broadcast_rows(x: &Tensor, n: usize) -> Tensor {
    let [columns] = x.axes();
    let y = x.empty_on([n, columns], x.dtype());
    move_columns(x, &y, n, columns, (0, if n == 1 { columns } else { 0 }), (0, columns));
    let dtype = x.dtype();
    y.with_grad(&[x], move |dy| {
        let sum = PartialSums::of(dy).in_order();
        [crate::ops::copy(&sum, dtype)]
    })
}

pub(super) fn cases() -> Vec<Case> {
    let split = Case {
            dims: vec![Dim::range("rows", 1, 90), Dim::range("a", 1, 70), Dim::range("b", 1, 9), Dim::range("c", 1, 70)],
            inputs: |s, draw| {
                let [rows, a, b, c] = s.get();
                vec![Input::new("x", draw.normal(&[rows, a + b + c])).grad()]
            },
            run: |s, i| split_columns(&i[0], &[s["a"], s["b"], s["c"]]),
            reference: |s, i| {
                let [rows, a, b, c] = s.get();
                let part = |start: usize, width| Array::from_fn(&[rows, width], |at| i[0].at(&[at[0], start + at[1]]));
                vec![part(0, a), part(a, b), part(a + b, c)]
            },
            error: |_| 0.0,
            cost: |s| Cost { bytes: 8 * s["rows"] * (s["a"] + s["b"] + s["c"]), flops: 0 },
            bench: &[&[131072, 512, 640, 8]],
            ..Case::new("split_columns")
        };
    // Each part on its way as something else: a copy, two factors, nothing.
    let in_place = Case {
        stem: "columns.in_place",
        run: |s, i| {
            let parts = columns(&i[0], &[s["a"], s["b"], s["c"]]);
            let [a, b, _]: [Columns; 3] = parts.try_into().unwrap_or_else(|_| unreachable!("three widths"));
            vec![a.contiguous(), crate::ops::silu(&b.contiguous())]
        },
        reference: |s, i| {
            let [rows, a, b, _] = s.get();
            let part = |start: usize, width| Array::from_fn(&[rows, width], |at| i[0].at(&[at[0], start + at[1]]));
            vec![part(0, a), part(a, b).map(|v| v / (1.0 + (-v).exp()))]
        },
        error: |_| 16.0,
        bench: &[],
        ..split.clone()
    };
    let concat = Case {
            dims: vec![Dim::range("rows", 1, 90), Dim::range("a", 1, 70), Dim::range("b", 1, 40)],
            inputs: |s, draw| {
                let [rows, a, b] = s.get();
                vec![
                    Input::new("a", draw.normal(&[rows, a])).grad(),
                    Input::new("b", draw.normal(&[rows, b])).grad(),
                    Input::new("row", draw.normal(&[b])).grad(),
                ]
            },
            run: |s, i| vec![concat_columns(&[&i[0], &i[1], &broadcast_rows(&i[2], s["rows"])])],
            reference: |s, i| {
                let [rows, a, b] = s.get();
                vec![Array::from_fn(&[rows, a + 2 * b], |at| match at[1] {
                    c if c < a => i[0].at(&[at[0], c]),
                    c if c < a + b => i[1].at(&[at[0], c - a]),
                    c => i[2].data[c - a - b],
                })]
            },
            error: |_| 0.0,
            error_grad: Some(|s| 8.0 + s["rows"] as f64),
            ..Case::new("concat_columns")
        };
    let slices = Case {
        dims: vec![Dim::range("start", 0, 3000), Dim::range("count", 1, 3000), Dim::range("after", 0, 70)],
        inputs: |s, draw| {
            let [start, count, after] = s.get();
            vec![Input::new("y", draw.normal(&[start + count + after])), Input::new("x", draw.normal(&[count]))]
        },
        run: |s, i| {
            let [start, count, _] = s.get();
            let y = crate::ops::copy(&i[0], i[0].dtype());
            let before = slice(&y, start, count);
            write_slice(&y, start, &i[1]);
            vec![before, y]
        },
        reference: |s, i| {
            let [start, count, _] = s.get();
            let mut y = i[0].clone();
            let before = Array::new(&[count], y.data[start..start + count].to_vec());
            y.data[start..start + count].copy_from_slice(&i[1].data);
            vec![before, y]
        },
        error: |_| 0.0,
        ..Case::new("columns")
    };
    vec![
        split.in_half("split_columns.f16", &["x"], 0.0),
        concat.in_half("concat_columns.f16", &["a", "b", "row"], 1.0),
        split,
        in_place,
        concat,
        slices,
    ]
}
