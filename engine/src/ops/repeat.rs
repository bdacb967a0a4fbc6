//! A block of elements over and over: large inputs for benchmarks without large uploads.

use crate::{
    Tensor, launch,
    reference::Array,
    tensor::Shape,
    testing::{Case, Cost, Dim, Input},
};

/// `y[i] = block[i mod len]` over the elements in order, outside of the graph. `block`: any type, whole words of four bytes.
///
/// # Panics
/// Where `block` is empty or ends inside a word.
#[track_caller]
pub fn repeat(block: &Tensor, shape: impl Into<Shape>) -> Tensor {
    let y = block.empty_on(shape, block.dtype());
    let (period, words) = ((block.bytes() / 4) as usize, (y.bytes() as usize).div_ceil(4));
    assert!(period > 0 && block.bytes().is_multiple_of(4), "repeat: {block:?}, expected whole words of four bytes");
    let mut first = 0;
    for (part, n) in y.operand().pages(4, words) {
        launch!(repeat { words: n, first: first % period, period }, [block] -> [part], n.div_ceil(1024));
        first += n;
    }
    y
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![Dim::range("pairs", 1, 600), Dim::range("count", 1, 40000)],
        inputs: |s, draw| vec![Input::new("block", draw.normal(&[2 * s["pairs"]]))],
        run: |s, i| vec![repeat(&i[0], [s["count"]])],
        reference: |s, i| vec![Array::from_fn(&[s["count"]], |at| i[0].data[at[0] % i[0].len()])],
        error: |_| 0.0,
        cost: |s| Cost { bytes: 4 * s["count"], flops: 0 },
        ..Case::new("repeat")
    };
    vec![plain.in_half("repeat.f16", &["block"], 0.0), plain]
}
