//! Copies between element types, and the ordered sums that many backward passes end with.

use crate::{
    DType, Gpu, Tensor,
    gpu::Operand,
    launch,
    reference::Array,
    tensor::{by_four, rows_a_page},
    testing::{Case, Cost, Dim, Input, Part, Share, some},
};

/// The same elements in a buffer of their own, rounded to `dtype`.
///
/// `x`: any shape, floats of either width, or integers copied as they are.
///
/// # Panics
/// Where a float would become an integer or the reverse.
#[track_caller]
pub fn copy(x: &Tensor, dtype: DType) -> Tensor {
    let from = x.dtype();
    x.copied_to(dtype).with_grad(&[x], move |dy| [copy(dy, from)])
}

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

    /// All sums, for kernels that are told where theirs begin: offsets of single sums need not align.
    pub fn all(&self) -> Operand {
        self.partial.operand()
    }

    /// (columns), in f32: the sum over blocks, in a fixed tree: groups of 64 rows (16 where bindings are small), then
    /// groups of groups.
    pub fn in_order(self) -> Tensor {
        let mut x = self.partial;
        loop {
            let [rows, columns] = x.axes();
            if rows <= 1 {
                let sum = if rows == 0 { Tensor::zeros(x.gpu(), [columns], DType::F32) } else { x.reshape([columns]) };
                return if sum.dtype() == DType::F32 { sum } else { sum.copied_to(DType::F32) };
            }
            let (bytes, most) = (columns * x.dtype().bytes(), x.gpu().capabilities().max_binding);
            let [wide, narrow] = GROUPS;
            let group = if (bytes * wide) as u64 <= most { wide } else { narrow };
            let groups = rows.div_ceil(group);
            let out = x.empty_on([groups, columns], DType::F32);
            let step = rows_a_page(x.gpu(), &[bytes * group]);
            let four = by_four(&[columns]);
            let (elem, real) = (x.dtype().wgsl_by(four), DType::F32.wgsl_by(four));
            let (columns, blocks) = (columns / four, (columns / four).div_ceil(64));
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

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![Dim::range("count", 1, 20000)],
        inputs: |s, draw| vec![Input::new("x", draw.normal(&[s["count"]])).grad()],
        run: |_, i| vec![copy(&i[0], DType::F32)],
        reference: |_, i| -> Vec<Array> { vec![i[0].clone()] },
        error: |_| 0.0,
        cost: |s| Cost { bytes: 8 * s["count"], flops: 0 },
        part: Some(|s, draw| {
            let some = some(draw, s["count"], 1 << 12);
            let (sizes, cut) = (vec![some.len()], vec![some]);
            Part { sizes, inputs: vec![cut.clone()], outputs: vec![Share::Cut(cut)] }
        }),
        bench: &[&[1 << 26]],
        ..Case::new("copy")
    };
    let narrow = Case { run: |_, i| vec![copy(&i[0], DType::F16)], ..plain.in_half("copy.to_f16", &[], 1.0) };
    vec![plain.in_half("copy.from_f16", &["x"], 1.0), narrow, plain]
}
