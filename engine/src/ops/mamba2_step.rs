//! What a Mamba-2 mixer (Dao & Gu 2024, arXiv 2405.21060) does with the one token that decoding adds, between its two
//! projections: convolution, recurrence and gate in one launch. Per head, h of shape (P, N):
//!
//! ```text
//! x, B, C ← silu(conv(x, B, C)),  dt = clamp(softplus(raw + dt_bias)),  A = −exp(a_log)
//! h' = exp(dt·A) · h + dt · x ⊗ B,   y = (h' · C + D · x) · silu(z)
//! ```
//!
//! It moves each number of the states once, and reads the projection's row where it lies.

use super::{batches_a_binding, in_batches};
use crate::{
    DType, Tensor, launch,
    reference::Array,
    testing::{Case, Cost, Dim, Input, Sizes},
};

/// Rows of a state that a workgroup holds; `ROWS` in the kernel.
const ROWS: usize = 8;

/// Batches a launch: a dispatch has at most 65535 along one dimension.
const MOST_BATCHES: usize = 32768;

/// What a block carries from one token to the next.
#[derive(Clone)]
pub struct StepState {
    /// (batch, channels, W − 1), f32: the convolution's last inputs, oldest first.
    pub conv: Tensor,
    /// (batch, heads, P, N), f32.
    pub ssm: Tensor,
}

/// A mixer's own parameters, side by side as [`mamba2_step`] reads them: a kernel binds few buffers.
#[derive(Clone)]
pub struct StepParameters {
    /// (channels, W + 1): taps, and the bias.
    conv: Tensor,
    /// (heads, 3): dt_bias, a_log, D.
    heads: Tensor,
}

impl StepParameters {
    /// Copies `conv_weight` (channels, W), `conv_bias` (channels) and `dt_bias`, `a_log`, `d` (heads), all f32.
    ///
    /// # Panics
    /// Where the shapes disagree.
    #[track_caller]
    pub fn new(
        conv_weight: &Tensor,
        conv_bias: Option<&Tensor>,
        dt_bias: &Tensor,
        a_log: &Tensor,
        d: &Tensor,
    ) -> StepParameters {
        let [channels, _] = conv_weight.axes();
        let zeros;
        let bias = match conv_bias {
            Some(bias) => bias,
            None => {
                zeros = Tensor::zeros(conv_weight.gpu(), [channels], DType::F32);
                &zeros
            }
        };
        let column = |t: &Tensor| t.reshape([t.len(), 1]);
        crate::no_grad(|| StepParameters {
            conv: super::concat_columns(&[conv_weight, &column(bias)]),
            heads: super::concat_columns(&[&column(dt_bias), &column(a_log), &column(d)]),
        })
    }
}

/// One token: y (batch, heads·P) in f32 and the state after it. Outside of the graph.
///
/// `projected`: (batch, 2·heads·P + 2·groups·N + heads), f32, columns z, x, B, C, dt, the last before bias and softplus.
/// Head h uses group `h / (heads / groups)`.
///
/// # Panics
/// Where the shapes disagree.
#[track_caller]
pub fn mamba2_step(
    projected: &Tensor,
    parameters: &StepParameters,
    state: &StepState,
    dt_limit: (f32, f32),
) -> (Tensor, StepState) {
    let [batches, heads, p, n] = state.ssm.axes();
    let [rows, columns] = projected.axes();
    let [channels, taps] = parameters.conv.axes();
    let (width, d_inner) = (taps - 1, heads * p);
    let groups = channels.saturating_sub(d_inner) / (2 * n).max(1);
    assert!(
        rows == batches && groups > 0 && channels == d_inner + 2 * groups * n && heads.is_multiple_of(groups),
        "mamba2_step: projected {:?} and {channels} channels for a state {:?}: expected heads·P + 2·groups·N channels, groups \
         dividing heads",
        projected.shape(),
        state.ssm.shape()
    );
    assert_eq!(columns, d_inner + channels + heads, "mamba2_step: columns of projected {:?}", projected.shape());
    assert_eq!(projected.dtype(), DType::F32, "mamba2_step: projected");
    assert_eq!(parameters.heads.shape(), [heads, 3], "mamba2_step: parameters of heads");
    assert!((2..=8).contains(&width), "mamba2_step: width {width}, supported are 2 to 8");
    assert_eq!(state.conv.shape(), [batches, channels, width - 1], "mamba2_step: the convolution's state");
    let bytes = 4 * (d_inner * n).max(columns).max(channels * (width - 1));
    let most = batches_a_binding(projected.gpu(), batches, bytes).min(MOST_BATCHES);
    if most < batches {
        let mut parts = crate::no_grad(|| {
            in_batches(&[projected, &state.conv, &state.ssm], most, |i| {
                let state = StepState { conv: i[1].clone(), ssm: i[2].clone() };
                let (y, next) = mamba2_step(&i[0], parameters, &state, dt_limit);
                vec![y, next.conv, next.ssm]
            })
        });
        let (y, conv) = (parts.remove(0), parts.remove(0));
        return (y, StepState { conv, ssm: parts.remove(0) });
    }
    let (y, conv, ssm) = (projected.empty_on([batches, d_inner], DType::F32), state.conv.like(), state.ssm.like());
    let (share, (low, high)) = (heads / groups, dt_limit);
    launch!(mamba2_step [HEADS = heads, P = p, N = n, SHARE = share, WIDTH = width] { low, high },
            [projected, parameters.conv, parameters.heads, state.conv, state.ssm] -> [y, conv, ssm],
            (p.div_ceil(ROWS), heads, batches));
    (y, StepState { conv, ssm })
}

fn sigmoid(v: f64) -> f64 {
    1.0 / (1.0 + (-v).exp())
}

/// The definition, one head at a time.
fn reference(s: &Sizes, i: &[Array]) -> Vec<Array> {
    let [batches, heads, p, n]: [usize; 4] = i[7].axes();
    let [_, channels, kept]: [usize; 3] = i[6].axes();
    let (groups, d_inner) = (s["groups"], heads * p);
    let (mut y, mut conv, mut state) = (Array::zeros(&[batches, d_inner]), i[6].clone(), i[7].clone());
    for b in 0..batches {
        let mut xbc = Vec::new();
        for c in 0..channels {
            let all: Vec<f64> =
                (0..kept).map(|j| i[6].at(&[b, c, j])).chain([i[0].at(&[b, d_inner + c])]).collect();
            let bias = if s["bias"] == 1 { i[2].data[c] } else { 0.0 };
            let u = bias + all.iter().enumerate().map(|(j, v)| i[1].at(&[c, j]) * v).sum::<f64>();
            xbc.push(u * sigmoid(u));
            for j in 0..kept {
                *conv.at_mut(&[b, c, j]) = all[j + 1];
            }
        }
        for h in 0..heads {
            let raw = i[0].at(&[b, d_inner + channels + h]) + i[3].data[h];
            let dt = (raw.max(0.0) + (-raw.abs()).exp().ln_1p()).clamp(LIMIT.0.into(), LIMIT.1.into());
            let decay = (-dt * i[4].data[h].exp()).exp();
            let first = d_inner + h / (heads / groups) * n;
            for row in 0..p {
                let at = h * p + row;
                let mut sum = i[5].data[h] * xbc[at];
                for j in 0..n {
                    let cell = state.at_mut(&[b, h, row, j]);
                    *cell = decay * *cell + dt * xbc[at] * xbc[first + j];
                    sum += *cell * xbc[first + groups * n + j];
                }
                let z = i[0].at(&[b, at]);
                *y.at_mut(&[b, at]) = sum * z * sigmoid(z);
            }
        }
    }
    vec![y, conv, state]
}

/// Narrow, so that the steps drawn meet both ends.
const LIMIT: (f32, f32) = (0.05, 1.5);

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        dims: vec![
            Dim::range("batches", 1, 2),
            Dim::one_of("share", &[1, 3]),
            Dim::one_of("groups", &[1, 2]),
            Dim::one_of("p", &[5, 20]),
            // Within a round, and two of them. Every shape is compiled by itself.
            Dim::one_of("n", &[19, 150]),
            Dim::one_of("width", &[4, 2]),
            Dim::one_of("bias", &[0, 1]),
        ],
        inputs: |s, draw| {
            let [batches, share, groups, p, n, width, _] = s.get();
            let heads = share * groups;
            let channels = heads * p + 2 * groups * n;
            let mut uniform = |name, shape: &[usize], low, high| Input::new(name, draw.uniform(shape, low, high));
            vec![
                uniform("projected", &[batches, heads * p + channels + heads], -2.0, 2.0),
                uniform("conv_weight", &[channels, width], -1.0, 1.0),
                uniform("conv_bias", &[channels], -1.0, 1.0),
                uniform("dt_bias", &[heads], -2.0, 0.5),
                uniform("a_log", &[heads], -1.5, 1.0),
                uniform("d", &[heads], -1.0, 1.0),
                uniform("inputs", &[batches, channels, width - 1], -2.0, 2.0),
                uniform("state", &[batches, heads, p, n], -1.0, 1.0),
            ]
        },
        run: |s, i| {
            let bias = (s["bias"] == 1).then_some(&i[2]);
            let parameters = StepParameters::new(&i[1], bias, &i[3], &i[4], &i[5]);
            let state = StepState { conv: i[6].clone(), ssm: i[7].clone() };
            let (y, next) = mamba2_step(&i[0], &parameters, &state, LIMIT);
            vec![y, next.conv, next.ssm]
        },
        reference,
        error: |s| 32.0 + (s["n"] as f64).sqrt(),
        cost: |s| {
            let [batches, share, groups, p, n, ..]: [usize; 7] = s.get();
            let cells = batches * share * groups * p * n;
            Cost { bytes: 8 * cells, flops: 5 * cells }
        },
        bench: &[&[1, 32, 1, 64, 128, 4, 1], &[64, 32, 1, 64, 128, 4, 1]],
        large: true,
        ..Case::new("mamba2_step")
    }]
}
