//! States that go on, or restart from zeros, where a text's next part begins.

use crate::{
    DType, Tensor, launch,
    reference::Array,
    tensor::by_four,
    testing::{Case, Cost, Dim, Input},
};

/// `y[b] = x[b]` where the last id of `before[b]` equals the first of `segment[b]`, else 0.
///
/// `x`: (batch, …), f32; `before`, `segment`: (batch, tokens), u32, any numbers of tokens from 1.
///
/// # Panics
/// Where the batches differ or there are no tokens.
#[track_caller]
pub fn restart(x: &Tensor, before: &Tensor, segment: &Tensor) -> Tensor {
    let ([batches, before_tokens], [_, tokens]) = (before.axes(), segment.axes());
    assert!(
        x.shape().first() == Some(&batches) && segment.shape()[0] == batches && before_tokens > 0 && tokens > 0,
        "restart: x {:?}, before {:?}, segment {:?}: one row of ids a batch, ids from 1",
        x.shape(),
        before.shape(),
        segment.shape()
    );
    let (before_, segment_) = (before.detach(), segment.detach());
    let kept = move |x: &Tensor| {
        let (y, size) = (x.like(), x.len() / batches.max(1));
        let four = by_four(&[size]);
        let (size, count) = (size / four, x.len() / four);
        launch!(restart [elem = DType::F32.wgsl_by(four)] { size, before_tokens, tokens, count },
                [x, before_, segment_] -> [y], count.div_ceil(512));
        y
    };
    kept(x).with_grad(&[x], move |dy| [kept(dy)])
}

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        dims: vec![
            Dim::range("batches", 1, 5),
            Dim::one_of("size", &[300, 1, 7, 64, 1025, 3000]),
            Dim::range("before", 1, 3),
            Dim::range("tokens", 1, 3),
        ],
        inputs: |s, draw| {
            let [batches, size, before, tokens] = s.get();
            vec![
                Input::new("x", draw.normal(&[batches, size])).grad(),
                Input::new("before", draw.integers(&[batches, before], 0, 2)).of(DType::U32),
                Input::new("segment", draw.integers(&[batches, tokens], 0, 2)).of(DType::U32),
            ]
        },
        run: |_, i| vec![restart(&i[0], &i[1], &i[2])],
        reference: |s, i| {
            let last = s["before"] - 1;
            let same = |b: usize| i[1].at(&[b, last]) == i[2].at(&[b, 0]);
            vec![Array::from_fn(&i[0].shape, |at| if same(at[0]) { i[0].at(at) } else { 0.0 })]
        },
        cost: |s| Cost { bytes: 8 * s["batches"] * s["size"], flops: 0 },
        bench: &[&[64, 1 << 16, 1, 1]],
        ..Case::new("restart")
    }]
}
