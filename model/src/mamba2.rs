//! The Mamba-2 block (Dao & Gu 2024, arXiv 2405.21060): x + mixer(RMSNorm(x)).
//!
//! Mixer: in_proj splits into z | xBC | dt; xBC ← SiLU(conv(xBC)); y = SSD(x, dt, A, B, C) + D·x;
//! out_proj(RMSNorm(y · SiLU(z))).

use rambutan_engine::{
    DType, Tensor,
    ops::{self, SsdInputs},
};

use crate::{
    Config,
    weights::{Norm, Scope},
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
        Mamba2 {
            norm: scope.norm("norm.weight", config.layer_norm_epsilon),
            in_proj: mixer.get("in_proj.weight"),
            conv_weight: mixer.get("conv1d.weight").reshape([channels, config.conv_kernel]),
            conv_bias: mixer.find("conv1d.bias"),
            dt_bias: mixer.get("dt_bias"),
            a_log: mixer.get("A_log"),
            d: mixer.get("D"),
            gated_norm: mixer.get("norm.weight"),
            out_proj: mixer.get("out_proj.weight"),
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
        }
    }

    /// x: (batch, tokens, width), f32 → the same, with the state after the last token.
    ///
    /// `segment`: (batch, tokens), the state restarts wherever it changes; `state`: what came before.
    pub fn forward(
        &self,
        x: &Tensor,
        segment: Option<&Tensor>,
        state: Option<&Mamba2State>,
    ) -> (Tensor, Mamba2State) {
        let s = self.sizes;
        let [batch, tokens, _] = x.axes();
        let projected = ops::linear(&self.norm.forward(x), &self.in_proj, None);
        let bc = s.groups * s.state;
        let [z, xbc, dt] = split(&projected, [s.d_inner, s.d_inner + 2 * bc, s.heads]);
        let conv_state = state.map(|s| &s.conv);
        let (xbc, conv) =
            ops::causal_conv1d(&xbc, &self.conv_weight, self.conv_bias.as_ref(), conv_state, segment);
        let (y, ssm) = self.recur(&xbc, &dt, segment, state.map(|s| &s.ssm));
        let y = ops::gated_rms_norm(
            &y.reshape([batch, tokens, s.d_inner]),
            &z,
            &self.gated_norm,
            s.norm_groups,
            s.eps,
        );
        (ops::add(x, &ops::linear(&y, &self.out_proj, None)), Mamba2State { ssm, conv })
    }

    /// The recurrence over xbc, the convolution's output: y (batch, tokens, heads, head dim) and the last state.
    fn recur(
        &self,
        xbc: &Tensor,
        dt: &Tensor,
        segment: Option<&Tensor>,
        state: Option<&Tensor>,
    ) -> (Tensor, Tensor) {
        let s = self.sizes;
        let [batch, tokens, channels] = xbc.axes();
        let trains = xbc.needs_grad() || state.is_some_and(Tensor::needs_grad);
        if tokens == 1 && !trains {
            let zeros;
            let state = match state {
                Some(state) => state,
                None => {
                    zeros = Tensor::zeros(xbc.gpu(), [batch, s.heads, s.head_dim, s.state], DType::F32);
                    &zeros
                }
            };
            let (xbc, dt) = (xbc.reshape([batch, channels]), dt.reshape([batch, s.heads]));
            return ops::ssd_step(&xbc, &dt, &self.dt_bias, &self.a_log, Some(&self.d), state, s.dt_limit);
        }
        let bc = s.groups * s.state;
        let [u, b, c] = split(xbc, [s.d_inner, bc, bc]);
        ops::ssd_scan(SsdInputs {
            x: &u.reshape([batch, tokens, s.heads, s.head_dim]),
            dt,
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

/// [`ops::split_columns`] into a known number of parts.
fn split<const N: usize>(x: &Tensor, columns: [usize; N]) -> [Tensor; N] {
    ops::split_columns(x, &columns).try_into().unwrap_or_else(|_| unreachable!("one part a width"))
}
