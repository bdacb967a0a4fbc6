//! Mamba-2's recurrence (Dao & Gu 2024, arXiv 2405.21060) for the one token that decoding adds. Per head, h of shape
//! (P, N):
//!
//! ```text
//! dt = clamp(softplus(raw + dt_bias)),  A = −exp(a_log)
//! h' = exp(dt·A) · h + dt · x ⊗ B,   y = h' · C + D · x
//! ```
//!
//! It moves each number of the state once, and takes x, B and C side by side, as the convolution leaves them.

use super::{batches_a_binding, in_batches};
use crate::{
    Tensor, launch,
    reference::Array,
    testing::{Case, Cost, Dim, Input, Sizes},
};

/// Rows of a state that a workgroup holds; `ROWS` in the kernel.
const ROWS: usize = 4;

/// One token: y (batch, heads, P) in xbc's type and the state after it, (batch, heads, P, N) in f32. Outside of the
/// graph: what trains uses [`ssd_scan`](super::ssd_scan), which gives the same numbers but for rounding.
///
/// `xbc`: (batch, heads·P + 2·groups·N), f32 or f16, columns x, B, C; `dt`: (batch, heads), f32 or f16, before bias and
/// softplus; `dt_bias`, `a_log`, `d`: (heads), f32; `state`: (batch, heads, P, N), f32. Head h uses group
/// `h / (heads / groups)`.
///
/// # Panics
/// Where the shapes disagree.
#[track_caller]
pub fn ssd_step(
    xbc: &Tensor,
    dt: &Tensor,
    dt_bias: &Tensor,
    a_log: &Tensor,
    d: Option<&Tensor>,
    state: &Tensor,
    dt_limit: (f32, f32),
) -> (Tensor, Tensor) {
    let [batches, heads, p, n] = state.axes();
    let [rows, columns] = xbc.axes();
    let groups = columns.saturating_sub(heads * p) / (2 * n).max(1);
    assert!(
        rows == batches && groups > 0 && columns == heads * p + 2 * groups * n && heads.is_multiple_of(groups),
        "ssd_step: xbc {:?} for state {:?}: expected ({batches}, heads·P + 2·groups·N), groups dividing heads",
        xbc.shape(),
        state.shape()
    );
    assert_eq!(dt.shape(), [batches, heads], "ssd_step: dt for state {:?}", state.shape());
    for (name, x) in [("dt_bias", Some(dt_bias)), ("a_log", Some(a_log)), ("d", d)] {
        if let Some(x) = x {
            assert_eq!(x.shape(), [heads], "ssd_step: {name} for state {:?}", state.shape());
        }
    }
    let most = batches_a_binding(xbc.gpu(), batches, (heads * p * n * 4).max(columns * xbc.dtype().bytes()));
    if most < batches {
        let mut parts = crate::no_grad(|| {
            in_batches(&[xbc, dt, state], most, |i| {
                let (y, next) = ssd_step(&i[0], &i[1], dt_bias, a_log, d, &i[2], dt_limit);
                vec![y, next]
            })
        });
        return (parts.remove(0), parts.remove(0));
    }
    let (y, next) = (xbc.empty_on([batches, heads, p], xbc.dtype()), state.like());
    let (row_tiles, share, (low, high)) = (p.div_ceil(ROWS), heads / groups, dt_limit);
    let (has_d, d) = (d.is_some(), d.unwrap_or(a_log));
    let groups = batches * heads * row_tiles;
    launch!(ssd_step [elem = xbc.dtype().wgsl(), elem_dt = dt.dtype().wgsl()] {
        heads, p, n, share, columns, row_tiles, has_d, low, high, groups,
    }, [xbc, dt, dt_bias, a_log, d, state] -> [y, next], groups);
    (y, next)
}

/// The definition, one head at a time.
fn reference(s: &Sizes, i: &[Array]) -> Vec<Array> {
    let [batches, heads, p, n]: [usize; 4] = i[5].axes();
    let (groups, mut y) = (s["groups"], Array::zeros(&[batches, heads, p]));
    let mut state = i[5].clone();
    for b in 0..batches {
        for h in 0..heads {
            let raw = i[1].at(&[b, h]) + i[2].data[h];
            let dt = (raw.max(0.0) + (-raw.abs()).exp().ln_1p()).clamp(LIMIT.0.into(), LIMIT.1.into());
            let decay = (-dt * i[3].data[h].exp()).exp();
            let first = heads * p + h / (heads / groups) * n;
            for row in 0..p {
                let x = i[0].at(&[b, h * p + row]);
                let mut sum = if s["d"] == 1 { i[4].data[h] * x } else { 0.0 };
                for j in 0..n {
                    let cell = state.at_mut(&[b, h, row, j]);
                    *cell = decay * *cell + dt * x * i[0].at(&[b, first + j]);
                    sum += *cell * i[0].at(&[b, first + groups * n + j]);
                }
                *y.at_mut(&[b, h, row]) = sum;
            }
        }
    }
    vec![y, state]
}

/// Narrow, so that the steps drawn meet both ends.
const LIMIT: (f32, f32) = (0.05, 1.5);

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![
            Dim::range("batches", 1, 2),
            Dim::one_of("share", &[1, 2, 3]),
            Dim::one_of("groups", &[1, 2]),
            Dim::range("p", 1, 20),
            Dim::range("n", 1, 65),
            Dim::one_of("d", &[0, 1]),
        ],
        inputs: |s, draw| {
            let [batches, share, groups, p, n, _] = s.get();
            let heads = share * groups;
            let mut uniform = |name, shape: &[usize], low, high| Input::new(name, draw.uniform(shape, low, high));
            vec![
                uniform("xbc", &[batches, heads * p + 2 * groups * n], -1.5, 1.5),
                uniform("dt", &[batches, heads], -2.0, 2.0),
                uniform("dt_bias", &[heads], -2.0, 0.5),
                uniform("a_log", &[heads], -1.5, 1.0),
                uniform("d", &[heads], -1.0, 1.0),
                uniform("state", &[batches, heads, p, n], -1.0, 1.0),
            ]
        },
        run: |s, i| {
            let d = (s["d"] == 1).then_some(&i[4]);
            let (y, state) = ssd_step(&i[0], &i[1], &i[2], &i[3], d, &i[5], LIMIT);
            vec![y, state]
        },
        reference,
        error: |s| 32.0 + (s["n"] as f64).sqrt(),
        cost: |s| {
            let [batches, share, groups, p, n, _] = s.get();
            let cells = batches * share * groups * p * n;
            Cost { bytes: 8 * cells, flops: 5 * cells }
        },
        bench: &[&[64, 32, 1, 64, 128, 1]],
        ..Case::new("ssd_step")
    };
    vec![
        plain.in_half("ssd_step.f16", &["xbc", "dt"], 1.0),
        plain.in_half("ssd_step.f16_f32", &["xbc"], 1.0),
        plain,
    ]
}
