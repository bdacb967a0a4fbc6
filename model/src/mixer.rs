//! The token mixer of a block: Mamba-2, or attention over a sliding window.

use rambutan_engine::Tensor;

use crate::{
    Config,
    config::TokenMixer,
    mamba2::{Mamba2, Mamba2State},
    weights::{Scope, Stream},
    window::{Window, WindowState},
};

/// One block.
pub enum Mixer {
    /// Mamba-2.
    Mamba2(Box<Mamba2>),
    /// Attention over a window.
    Window(Box<Window>),
}

/// What a block carries from one token to the next.
#[derive(Clone)]
pub enum MixerState {
    /// Mamba-2's.
    Mamba2(Mamba2State),
    /// A window's.
    Window(WindowState),
}

impl Mixer {
    /// The block whose parameters lie in `scope`.
    pub fn new(config: &Config, scope: &Scope<'_>) -> Mixer {
        match config.token_mixer {
            TokenMixer::Mamba2 => Mixer::Mamba2(Box::new(Mamba2::new(config, scope))),
            TokenMixer::Window => Mixer::Window(Box::new(Window::new(config, scope))),
        }
    }

    /// stream: (batch, tokens, width), f32 → the same, with the state after the last token.
    ///
    /// `segment`: (batch, tokens), u32, the state restarts wherever it changes; `state`: what came before.
    ///
    /// # Panics
    /// Where `state` is another mixer's.
    #[track_caller]
    pub fn forward(
        &self,
        mut stream: Stream,
        segment: Option<&Tensor>,
        state: Option<&MixerState>,
    ) -> (Stream, MixerState) {
        match (self, state) {
            (Mixer::Mamba2(mamba), None | Some(MixerState::Mamba2(_))) => {
                let (y, state) = mamba.forward(stream, segment, state.and_then(MixerState::mamba2));
                (y, MixerState::Mamba2(state))
            }
            (Mixer::Window(window), None) => {
                let (y, state) = window.forward(stream.settled(), segment, None);
                (y.into(), MixerState::Window(state))
            }
            (Mixer::Window(window), Some(MixerState::Window(state))) => {
                let (y, state) = window.forward(stream.settled(), segment, Some(state));
                (y.into(), MixerState::Window(state))
            }
            _ => panic!("a state of another token mixer"),
        }
    }
}

impl MixerState {
    /// Mamba-2's state, where it is one.
    pub fn mamba2(&self) -> Option<&Mamba2State> {
        match self {
            MixerState::Mamba2(state) => Some(state),
            MixerState::Window(_) => None,
        }
    }

    /// Its numbers: scan and convolution, or keys and values.
    pub fn tensors(&self) -> [&Tensor; 2] {
        match self {
            MixerState::Mamba2(Mamba2State { ssm, conv }) => [ssm, conv],
            MixerState::Window(WindowState { k, v, .. }) => [k, v],
        }
    }

    /// The state that the tokens with ids `segment` start from, after those with ids `before`: (batch, tokens), u32.
    #[must_use]
    pub fn restarted(&self, before: &Tensor, segment: &Tensor) -> MixerState {
        match self {
            MixerState::Mamba2(state) => MixerState::Mamba2(state.restarted(before, segment)),
            // Keys carry their segments: those of another one are not seen.
            MixerState::Window(state) => MixerState::Window(state.clone()),
        }
    }
}
