//! Sums of squares over blocks of a buffer: the way to a norm.

use crate::{
    DType, Tensor, launch,
    reference::Array,
    tensor::rows_a_page,
    testing::{Case, Cost, Dim, Input},
};

/// Elements a block; `BLOCK` in the kernel.
const BLOCK: usize = 16384;

/// Σ x² over each block of 16384 elements of each tensor, one after another: (blocks) in f32. A block with anything
/// infinite or not a number, or whose sum overflows, gives 3e38. Outside of the graph.
///
/// `x`: f32, any shape, lengths in multiples of 4.
///
/// # Panics
/// Where a tensor is not f32 or its length no multiple of 4.
#[track_caller]
pub fn square_sum(xs: &[&Tensor]) -> Tensor {
    let near = xs.first().expect("square_sum: at least one tensor");
    let sums = near.empty_on([xs.iter().map(|x| x.len().div_ceil(BLOCK)).sum::<usize>()], DType::F32);
    let mut first_block = 0;
    for x in xs {
        assert!(
            x.dtype() == DType::F32 && x.len().is_multiple_of(4),
            "square_sum: {x:?}, expected f32 in multiples of 4 elements"
        );
        let step = rows_a_page(x.gpu(), &[4 * BLOCK]) * BLOCK;
        for start in (0..x.len()).step_by(step) {
            let count = step.min(x.len() - start);
            let part = x.operand().elements(DType::F32, start, count);
            launch!(square_sum { count, first_block }, [part] -> [sums], count.div_ceil(BLOCK));
            first_block += count.div_ceil(BLOCK);
        }
    }
    sums
}

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        dims: vec![Dim::range("quads", 1, 20000), Dim::one_of("hole", &[0, 1])],
        inputs: |s, draw| {
            let mut x = draw.normal(&[4 * s["quads"]]);
            if s["hole"] == 1 {
                let at = draw.below(x.len());
                x.data[at] = if draw.below(2) == 0 { f64::NAN } else { f64::INFINITY };
            }
            vec![Input::new("x", x), Input::new("more", draw.normal(&[8]))]
        },
        run: |_, i| vec![square_sum(&[&i[0], &i[1]])],
        reference: |_, i| {
            let blocks = i[0].data.chunks(BLOCK).chain(i[1].data.chunks(BLOCK));
            let sum = |block: &[f64]| block.iter().map(|v| v * v).sum::<f64>();
            let sums: Vec<f64> = blocks.map(sum).map(|s| if s.is_finite() { s } else { 3e38 }).collect();
            vec![Array::new(&[sums.len()], sums)]
        },
        error: |_| 64.0,
        cost: |s| Cost { bytes: 16 * s["quads"], flops: 8 * s["quads"] },
        bench: &[&[1 << 24, 0]],
        ..Case::new("square_sum")
    }]
}
