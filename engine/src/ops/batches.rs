//! Batches that exceed a binding together, a few at a time: for ops whose kernels walk along whole sequences, which
//! rows alone cannot cut.

use super::{concat_columns, mul, silu, split_columns};
use crate::{
    Gpu, Tensor,
    reference::Array,
    testing::{Case, Cost, Dim, Input},
};

/// How many batches of `bytes` bytes each, in the largest operand, one binding holds. Where not even one fits, all:
/// the launch then says what is too large.
pub(crate) fn batches_a_binding(gpu: &Gpu, batches: usize, bytes: usize) -> usize {
    match gpu.capabilities().max_binding as usize / bytes.max(1) {
        0 => batches,
        most => most.min(batches),
    }
}

/// `f` of the inputs' parts of at most `most` batches (the first axis), its results joined in order. In the graph: a
/// batch's results are those it has alone.
pub(crate) fn in_batches(inputs: &[&Tensor], most: usize, f: impl Fn(&[Tensor]) -> Vec<Tensor>) -> Vec<Tensor> {
    let batches = inputs[0].shape()[0];
    let counts: Vec<usize> = (0..batches).step_by(most).map(|first| most.min(batches - first)).collect();
    let resized = |x: &Tensor, batches: usize| {
        let mut shape = x.shape().to_vec();
        shape[0] = batches;
        shape
    };
    let flat = |x: &Tensor| x.reshape([1, x.len()]);
    let cut = |x: &&Tensor| -> Vec<Tensor> {
        let widths: Vec<usize> = counts.iter().map(|n| n * (x.len() / batches)).collect();
        let parts = split_columns(&flat(x), &widths).into_iter().zip(&counts);
        parts.map(|(part, n)| part.reshape(resized(x, *n))).collect()
    };
    let cut: Vec<Vec<Tensor>> = inputs.iter().map(cut).collect();
    let results: Vec<Vec<Tensor>> =
        (0..counts.len()).map(|i| f(&cut.iter().map(|parts| parts[i].clone()).collect::<Vec<_>>())).collect();
    let join = |j: usize| {
        let parts: Vec<Tensor> = results.iter().map(|r| flat(&r[j])).collect();
        concat_columns(&parts.iter().collect::<Vec<_>>()).reshape(resized(&results[0][j], batches))
    };
    (0..results[0].len()).map(join).collect()
}

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        dims: vec![
            Dim::range("batches", 1, 9),
            Dim::range("tokens", 1, 20),
            Dim::range("columns", 1, 40),
            Dim::range("most", 1, 4),
        ],
        inputs: |s, draw| {
            let [batches, tokens, columns, _] = s.get();
            vec![
                Input::new("x", draw.normal(&[batches, tokens, columns])).grad(),
                Input::new("z", draw.normal(&[batches, tokens, columns])).grad(),
                Input::new("weight", draw.normal(&[columns])).grad(),
            ]
        },
        run: |s, i| {
            let most = s["most"].min(s["batches"]);
            in_batches(&[&i[0], &i[1]], most, |part| {
                vec![mul(&part[0], &silu(&part[1])), mul(&part[1], &i[2])]
            })
        },
        reference: |_, i| {
            let gated = i[0].zip(&i[1], |x, z| x * z / (1.0 + (-z).exp()));
            let mut at = 0..;
            let weighed = i[1].map(|z| z * i[2].data[at.next().unwrap_or(0) % i[2].len()]);
            vec![gated, weighed] as Vec<Array>
        },
        error: |_| 16.0,
        error_grad: Some(|s| 72.0 + 4.0 * (s["batches"] * s["tokens"]) as f64),
        cost: |s| Cost { bytes: 16 * s["batches"] * s["tokens"] * s["columns"], flops: 0 },
        ..Case::new("in_batches")
    }]
}
