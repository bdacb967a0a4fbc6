//! Copies between element types, and the cases of the ordered sums that many backward passes end with.

pub(crate) use crate::tensor::PartialSums;
use crate::{
    DType, Tensor,
    reference::Array,
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
    // Three results, in fours where all are; columns that are not asked for behind them.
    let sums = Case {
        dims: vec![
            Dim::one_of("rows", &[70, 1, 9, 64, 300, 4500]),
            Dim::one_of("a", &[8, 20, 3]),
            Dim::one_of("b", &[4, 5]),
            Dim::one_of("c", &[12, 1]),
            Dim::one_of("after", &[0, 4, 2]),
        ],
        inputs: |s, draw| {
            let [rows, a, b, c, after] = s.get();
            vec![Input::new("x", draw.normal(&[rows, a + b + c + after]))]
        },
        run: |s, i| {
            let sums = ["a", "b", "c"].map(|name| i[0].empty_on([s[name]], DType::F32));
            PartialSums::of(&i[0]).in_order_into(&sums);
            sums.into()
        },
        reference: |s, i| {
            let [rows, a, b, c, _] = s.get();
            let sum = |first: usize, width: usize| {
                Array::from_fn(&[width], |at| (0..rows).map(|r| i[0].at(&[r, first + at[0]])).sum())
            };
            vec![sum(0, a), sum(a, b), sum(a + b, c)]
        },
        error: |s| 8.0 + (s["rows"] as f64).sqrt(),
        ..Case::new("sum_rows")
    };
    vec![
        plain.in_half("copy.from_f16", &["x"], 1.0),
        narrow,
        plain,
        sums.in_half("sum_rows.f16", &["x"], 0.0),
        sums,
    ]
}
