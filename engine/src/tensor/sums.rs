//! The ordered sums that many backward passes end with.

use super::{DType, Shape, Tensor, by_four, rows_a_page};
use crate::{Gpu, gpu::Operand, launch};

/// Partial sums of a weight's gradient, one row a block of tokens, to be added in the blocks' order.
pub(crate) struct PartialSums {
    partial: Tensor,
}

impl PartialSums {
    /// Room for `blocks` sums of `columns` values on `near`'s device.
    pub fn new(near: &Tensor, blocks: usize, columns: usize) -> PartialSums {
        PartialSums { partial: near.empty_on([blocks, columns], DType::F32) }
    }

    /// These sums: x (blocks, columns), floats of either width.
    pub fn of(x: &Tensor) -> PartialSums {
        PartialSums { partial: x.clone() }
    }

    /// Whether `blocks` sums of `columns` values, and the aligned groups that are added up, fit a binding each.
    pub fn fits(gpu: &Gpu, blocks: usize, columns: usize) -> bool {
        (blocks.max(GROUPS[0]) * columns * 4) as u64 <= gpu.capabilities().max_binding
    }

    /// Values a sum, those that are not asked for with them.
    pub fn columns(&self) -> usize {
        let [_, columns] = self.partial.axes();
        columns
    }

    /// Room for a sum.
    pub fn room(&self, shape: impl Into<Shape>) -> Tensor {
        self.partial.empty_on(shape, DType::F32)
    }

    /// All sums, for kernels that are told where theirs begin: offsets of single sums need not align.
    pub fn all(&self) -> Operand {
        self.partial.operand()
    }

    /// (columns), in f32: the sum over blocks, in a fixed tree: groups of 64 rows (16 where bindings are small), then
    /// groups of groups, until one launch takes what is left.
    pub fn in_order(self) -> Tensor {
        let [rows, columns] = self.partial.axes();
        match rows {
            0 => Tensor::zeros(self.partial.gpu(), [columns], DType::F32),
            1 if self.partial.dtype() == DType::F32 => self.partial.reshape([columns]),
            _ => {
                let sum = self.partial.empty_on([columns], DType::F32);
                self.in_order_into(std::slice::from_ref(&sum));
                sum
            }
        }
    }

    /// The same into tensors in f32 of any shapes, one to three, whose elements lie side by side in the columns; what
    /// columns are left is not summed.
    pub fn in_order_into(self, sums: &[Tensor]) {
        let [rows, _] = self.partial.axes();
        if rows == 0 {
            return sums.iter().for_each(|sum| sum.fill(0.0));
        }
        let places: Vec<_> = sums.iter().map(|sum| (sum.operand(), sum.len())).collect();
        self.in_order_at(&places);
    }

    /// The same of one row at least to where f32 lie, with how many these are.
    pub fn in_order_at(self, sums: &[(Operand, usize)]) {
        let mut x = self.partial;
        let widths: Vec<usize> = sums.iter().map(|sum| sum.1).collect();
        let [_, stride] = x.axes();
        assert!((1..=RESULTS).contains(&sums.len()), "sums over rows have one to {RESULTS} results");
        assert!(widths.iter().sum::<usize>() <= stride, "sums over rows of {x:?} into {widths:?}");
        let four = by_four(&[&widths[..], &[stride]].concat());
        let real = DType::F32.wgsl_by(four);
        loop {
            let [rows, _] = x.axes();
            let (bytes, most) = (stride * x.dtype().bytes(), x.gpu().capabilities().max_binding);
            let elem = x.dtype().wgsl_by(four);
            if rows <= MOST_LAST && (rows * bytes) as u64 <= most {
                let lanes = if rows > GROUPS[0] { LANES } else { 1 };
                let end = |n: usize| widths.iter().take(n).sum::<usize>() / four;
                // What there is no result for is bound, and not written.
                let none = || x.empty_on([4], DType::F32).operand();
                let [a, b, c] = std::array::from_fn(|i| sums.get(i).map_or_else(none, |sum| sum.0.clone()));
                launch!(sum_rows_last [elem = elem, real = real, LANES = lanes]
                        { rows, stride: stride / four, columns: end(RESULTS), second: end(1), third: end(2) },
                        [x] -> [a, b, c], end(RESULTS).div_ceil(LANES_LAST / lanes));
                return;
            }
            let [wide, narrow] = GROUPS;
            let group = if (bytes * wide) as u64 <= most { wide } else { narrow };
            let groups = rows.div_ceil(group);
            let out = x.empty_on([groups, stride], DType::F32);
            let step = rows_a_page(x.gpu(), &[bytes * group]);
            let (columns, blocks) = (stride / four, (stride / four).div_ceil(64));
            for first in (0..groups).step_by(step) {
                let n = (step * group).min(rows - first * group);
                let (part, sums) = (x.page(first * group, n, bytes), out.operand());
                launch!(sum_rows [elem = elem, real = real, GROUP = group] { rows: n, columns, blocks, first_group: first },
                        [part] -> [sums], n.div_ceil(group) * blocks);
            }
            x = out;
        }
    }
}

/// Rows a group of `sum_rows`, `GROUP` in the kernel: so many where a binding holds them, else fewer.
const GROUPS: [usize; 2] = [64, 16];

/// Results of `sum_rows_last`, its lanes a column where there are more rows than a group's, those of its workgroups, and
/// the rows that it takes.
const RESULTS: usize = 3;
const LANES: usize = 64;
const LANES_LAST: usize = 256;
const MOST_LAST: usize = 64 * LANES;
