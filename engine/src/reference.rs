//! Row-major arrays in f64 and the small vocabulary that references are written in: obvious, not fast.

use std::ops::Range;

/// A row-major array in f64. Integers are held exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// The lengths of the axes.
    pub shape: Vec<usize>,
    /// The elements; where they are fewer than `shape` has, they repeat (see [`Array::repeating`]).
    pub data: Vec<f64>,
}

impl Array {
    /// An array of these elements.
    ///
    /// # Panics
    /// Where their number does not fill `shape`.
    #[track_caller]
    pub fn new(shape: &[usize], data: Vec<f64>) -> Array {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "shape {shape:?}");
        Array { shape: shape.into(), data }
    }

    /// An array that repeats these elements until `shape` is full: large, and cheap to draw.
    ///
    /// # Panics
    /// Where there are none, or more than `shape` has.
    #[track_caller]
    pub fn repeating(shape: &[usize], data: Vec<f64>) -> Array {
        let len = shape.iter().product::<usize>();
        assert!(data.len() <= len && (len == 0 || !data.is_empty()), "{} elements for {shape:?}", data.len());
        Array { shape: shape.into(), data }
    }

    /// Whether elements repeat.
    pub fn repeats(&self) -> bool {
        self.data.len() < self.len()
    }

    /// The elements in a range of each axis, all of them held.
    pub fn cut(&self, ranges: &[Range<usize>]) -> Array {
        let shape: Vec<usize> = ranges.iter().map(ExactSizeIterator::len).collect();
        let mut from = vec![0; shape.len()];
        Array::from_fn(&shape, |at| {
            for (axis, place) in from.iter_mut().enumerate() {
                *place = ranges[axis].start + at[axis];
            }
            self.at(&from)
        })
    }

    /// Zeros.
    pub fn zeros(shape: &[usize]) -> Array {
        Array { shape: shape.into(), data: vec![0.0; shape.iter().product()] }
    }

    /// Each element from its index.
    pub fn from_fn(shape: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Array {
        let mut out = Array::zeros(shape);
        let mut index = vec![0; shape.len()];
        for i in 0..out.data.len() {
            out.data[i] = f(&index);
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                if index[axis] < shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        out
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The axes as an array, for patterns.
    ///
    /// # Panics
    /// Where there is another number of axes.
    #[track_caller]
    pub fn axes<const N: usize>(&self) -> [usize; N] {
        self.shape.as_slice().try_into().unwrap_or_else(|_| panic!("expected {N} axes, got {:?}", self.shape))
    }

    fn place(&self, index: &[usize]) -> usize {
        debug_assert_eq!(index.len(), self.shape.len());
        index.iter().zip(&self.shape).fold(0, |at, (i, n)| {
            debug_assert!(i < n, "{index:?} in {:?}", self.shape);
            at * n + i
        })
    }

    /// The element at `index`.
    pub fn at(&self, index: &[usize]) -> f64 {
        let place = self.place(index);
        self.data[if place < self.data.len() { place } else { place % self.data.len() }]
    }

    /// The element at `index`, to change.
    pub fn at_mut(&mut self, index: &[usize]) -> &mut f64 {
        let place = self.place(index);
        &mut self.data[place]
    }

    /// Every element through `f`.
    pub fn map(&self, f: impl FnMut(&f64) -> f64) -> Array {
        Array { shape: self.shape.clone(), data: self.data.iter().map(f).collect() }
    }

    /// Pairs of elements through `f`.
    #[track_caller]
    pub fn zip(&self, other: &Array, f: impl Fn(f64, f64) -> f64) -> Array {
        assert!(
            self.shape == other.shape && self.data.len() == other.data.len(),
            "zip of arrays that differ"
        );
        Array {
            shape: self.shape.clone(),
            data: self.data.iter().zip(&other.data).map(|(a, b)| f(*a, *b)).collect(),
        }
    }

    /// Rows of the last axis through `f`, which may change their length.
    #[track_caller]
    pub fn map_rows(&self, f: impl FnMut(&[f64]) -> Vec<f64>) -> Array {
        assert!(!self.repeats(), "map_rows: rows are not whole where elements repeat");
        let columns = *self.shape.last().expect("an axis");
        let data: Vec<f64> = self.data.chunks(columns.max(1)).flat_map(f).collect();
        let rows: usize = self.shape[..self.shape.len() - 1].iter().product();
        let mut shape = self.shape.clone();
        *shape.last_mut().expect("an axis") = data.len().checked_div(rows).unwrap_or(columns);
        Array { shape, data }
    }

    /// The same elements under another shape.
    #[track_caller]
    pub fn reshape(&self, shape: &[usize]) -> Array {
        assert_eq!(shape.iter().product::<usize>(), self.len(), "shape {shape:?}");
        Array { shape: shape.into(), data: self.data.clone() }
    }
}
