//! The Mamba-2 block (Dao & Gu 2024, arXiv 2405.21060): x + mixer(RMSNorm(x)).
//!
//! Mixer: in_proj splits into z | xBC | dt; xBC ← SiLU(conv(xBC)); y = SSD(x, dt, A, B, C) + D·x;
//! out_proj(RMSNorm(y · SiLU(z))).

use rambutan_engine::{
    DType, Tensor,
    ops::{self, Around, SsdInputs, StepParameters, StepState},
};

use crate::{
    Config,
    weights::{Norm, Scope, Stream, add_linear_later, is_step},
};

/// One block's parameters.
pub struct Mamba2 {
    norm: Norm,
    in_proj: Tensor,
    conv_weight: Tensor,
    conv_bias: Option<Tensor>,
    dt_bias: Tensor,
    a_log: Tensor,
    d: Tensor,
    gated_norm: Tensor,
    out_proj: Tensor,
    /// Where parameters are fixed; else they are put side by side for each token.
    step: Option<StepParameters>,
    sizes: Sizes,
}

#[derive(Clone, Copy)]
struct Sizes {
    d_inner: usize,
    heads: usize,
    head_dim: usize,
    groups: usize,
    state: usize,
    norm_groups: usize,
    eps: f32,
    dt_limit: (f32, f32),
}

/// What a block carries from one token to the next.
#[derive(Clone)]
pub struct Mamba2State {
    /// (batch, heads, head dim, state), f32.
    pub ssm: Tensor,
    /// (batch, conv channels, conv width − 1), f32: the last inputs, oldest first.
    pub conv: Tensor,
}

impl Mamba2 {
    /// The block whose parameters lie in `scope`.
    pub fn new(config: &Config, scope: &Scope<'_>) -> Mamba2 {
        let mixer = scope.within("mixer.");
        let channels = config.conv_channels();
        let mut block = Mamba2 {
            norm: scope.norm("norm.weight", config.layer_norm_epsilon),
            in_proj: mixer.get("in_proj.weight"),
            conv_weight: mixer.get("conv1d.weight").reshape([channels, config.conv_kernel]),
            conv_bias: mixer.find("conv1d.bias"),
            dt_bias: mixer.get("dt_bias"),
            a_log: mixer.get("A_log"),
            d: mixer.get("D"),
            gated_norm: mixer.get("norm.weight"),
            out_proj: mixer.get("out_proj.weight"),
            step: None,
            sizes: Sizes {
                d_inner: config.d_inner(),
                heads: config.num_heads,
                head_dim: config.head_dim,
                groups: config.n_groups,
                state: config.state_size,
                norm_groups: config.gated_norm_groups,
                eps: config.layer_norm_epsilon as f32,
                dt_limit: (config.time_step_limit.0 as f32, config.time_step_limit.1.min(3.0e38) as f32),
            },
        };
        block.step = scope.is_fixed().then(|| block.step_parameters());
        block
    }

    /// stream: (batch, tokens, width), f32 → the same, with the state after the last token.
    ///
    /// `segment`: (batch, tokens), the state restarts wherever it changes; `state`: what came before.
    pub fn forward(
        &self,
        mut stream: Stream,
        segment: Option<&Tensor>,
        state: Option<&Mamba2State>,
    ) -> (Stream, Mamba2State) {
        let s = self.sizes;
        let [batch, tokens, _] = stream.axes();
        if tokens == 1 && self.steps(stream.settled(), state) {
            let (y, state) = self.step(stream.settled(), state);
            return (y.into(), state);
        }
        let (x, projected) = self.norm.project_stream(stream, &self.in_proj);
        let bc = s.groups * s.state;
        let widths = [s.d_inner, s.d_inner + 2 * bc, s.heads];
        let [z, xbc, dt]: [ops::Columns; 3] =
            ops::columns(&projected, &widths).try_into().unwrap_or_else(|_| unreachable!("three widths"));
        drop(projected);
        let conv_state = state.map(|s| &s.conv);
        let (ubc, conv) = ops::causal_conv1d_parts(
            xbc,
            &self.conv_weight,
            self.conv_bias.as_ref(),
            conv_state,
            segment,
            &[s.d_inner, bc, bc],
        );
        let [u, b, c] = ubc.try_into().unwrap_or_else(|_| unreachable!("three parts"));
        let (y, ssm) = self.recur([&u, &b, &c], dt, segment, state.map(|s| &s.ssm));
        let y = ops::gated_rms_norm(
            &y.reshape([batch, tokens, s.d_inner]),
            z,
            &self.gated_norm,
            s.norm_groups,
            s.eps,
        );
        (add_linear_later(x, &y, &self.out_proj), Mamba2State { ssm, conv })
    }

    /// Whether `x` is a token of each sequence, alone and outside of the graph. It depends on no batch.
    fn steps(&self, x: &Tensor, state: Option<&Mamba2State>) -> bool {
        let parameters =
            [&self.in_proj, &self.conv_weight, &self.dt_bias, &self.a_log, &self.d, &self.out_proj];
        self.sizes.norm_groups == 1
            && parameters.iter().all(|p| is_step(x, p))
            && !state.is_some_and(|s| s.ssm.needs_grad() || s.conv.needs_grad())
    }

    /// [`Mamba2::forward`] of one token: three launches, in f32 all along, since what a token moves are weights and
    /// states.
    fn step(&self, x: &Tensor, state: Option<&Mamba2State>) -> (Tensor, Mamba2State) {
        let s = self.sizes;
        let [batch, ..]: [usize; 3] = x.axes();
        let projected = self.norm.project_to(x, &self.in_proj, DType::F32);
        let state = match state {
            Some(Mamba2State { ssm, conv }) => StepState { conv: conv.clone(), ssm: ssm.clone() },
            None => {
                let [channels, width] = self.conv_weight.axes();
                let zeros = |shape: &[usize]| Tensor::zeros(x.gpu(), shape.to_vec(), DType::F32);
                StepState {
                    conv: zeros(&[batch, channels, width - 1]),
                    ssm: zeros(&[batch, s.heads, s.head_dim, s.state]),
                }
            }
        };
        let projected = projected.reshape([batch, projected.len() / batch]);
        let parameters = self.step.clone().unwrap_or_else(|| self.step_parameters());
        let (y, StepState { conv, ssm }) = ops::mamba2_step(&projected, &parameters, &state, s.dt_limit);
        let around = Around { norm: Some((&self.gated_norm, s.eps)), residual: Some(x), bias: None };
        let y = y.reshape([batch, 1, s.d_inner]);
        (ops::linear_step(&y, &self.out_proj, around, DType::F32), Mamba2State { ssm, conv })
    }

    fn step_parameters(&self) -> StepParameters {
        StepParameters::new(&self.conv_weight, self.conv_bias.as_ref(), &self.dt_bias, &self.a_log, &self.d)
    }

    /// The recurrence over what the convolution leaves: y (batch, tokens, heads, head dim) and the last state.
    fn recur(
        &self,
        [u, b, c]: [&Tensor; 3],
        dt: ops::Columns,
        segment: Option<&Tensor>,
        state: Option<&Tensor>,
    ) -> (Tensor, Tensor) {
        let s = self.sizes;
        let [batch, tokens, _] = u.axes();
        let trains = u.needs_grad() || state.is_some_and(Tensor::needs_grad);
        if tokens == 1 && !trains {
            let zeros;
            let state = match state {
                Some(state) => state,
                None => {
                    zeros = Tensor::zeros(u.gpu(), [batch, s.heads, s.head_dim, s.state], DType::F32);
                    &zeros
                }
            };
            let xbc = ops::concat_columns(&[u, b, c]);
            let (xbc, dt) =
                (xbc.reshape([batch, xbc.len() / batch]), dt.contiguous().reshape([batch, s.heads]));
            return ops::ssd_step(&xbc, &dt, &self.dt_bias, &self.a_log, Some(&self.d), state, s.dt_limit);
        }
        ops::ssd_scan(SsdInputs {
            x: &u.reshape([batch, tokens, s.heads, s.head_dim]),
            dt: &dt,
            dt_bias: &self.dt_bias,
            a_log: &self.a_log,
            b: &b.reshape([batch, tokens, s.groups, s.state]),
            c: &c.reshape([batch, tokens, s.groups, s.state]),
            d: Some(&self.d),
            initial_state: state,
            segment,
            dt_limit: s.dt_limit,
        })
    }
}

impl Mamba2State {
    /// The state that the tokens with ids `segment` start from, after those with ids `before`: (batch, tokens), u32.
    #[must_use]
    pub fn restarted(&self, before: &Tensor, segment: &Tensor) -> Mamba2State {
        let restart = |x: &Tensor| ops::restart(x, before, segment);
        Mamba2State { ssm: restart(&self.ssm), conv: restart(&self.conv) }
    }
}
