//! AdamW over parameter arenas, with clipping, dynamic loss scaling and schedules: a handful of dispatches a step, and
//! nothing read back.

use crate::{
    DType, Error, Gpu, Result, Tensor,
    gpu::{Purpose, with_purpose},
    ops::{self, AdamWRule, CONTROL},
    tensor::Parameters,
};

/// What AdamW does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWOptions {
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of squares.
    pub beta2: f32,
    /// Added to the root of the mean of squares.
    pub eps: f32,
    /// Share of a parameter that decays a step, times the learning rate, where it decays at all.
    pub weight_decay: f32,
    /// Gradients of a larger global norm are scaled down to it.
    pub max_norm: Option<f32>,
    /// How the loss is scaled.
    pub loss_scale: LossScale,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        AdamWOptions {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            max_norm: Some(1.0),
            loss_scale: LossScale::None,
        }
    }
}

/// Keeps small gradients representable in 16 bits (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LossScale {
    /// For gradients in f32.
    None,
    /// Starts at `first`, doubles after `grow_after` good steps, halves where a gradient is not finite; that step is
    /// skipped.
    Dynamic {
        /// The first scale.
        first: f32,
        /// Good steps after which the scale doubles.
        grow_after: u32,
    },
}

/// The largest loss scale: beyond it nothing is gained.
const MOST_SCALE: f32 = 16_777_216.0;

/// The state of AdamW: moments laid out like the parameters' arenas, and what the device decides between steps.
pub struct AdamW {
    options: AdamWOptions,
    /// (mean of gradients, mean of squares), an arena each.
    moments: Vec<[Tensor; 2]>,
    control: Tensor,
}

/// The device's account of the steps so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The loss scale for the next step.
    pub loss_scale: f32,
    /// The last step's gradient norm before clipping.
    pub norm: f32,
    /// Steps taken.
    pub steps: u32,
    /// Steps skipped for gradients that were not finite.
    pub skipped: u32,
}

impl AdamW {
    /// Moments of zero for `parameters`.
    ///
    /// # Panics
    /// Where the parameters have no gradients.
    #[track_caller]
    pub fn new(parameters: &Parameters, options: AdamWOptions) -> AdamW {
        let arenas = parameters.arenas();
        assert!(parameters.gradients().is_some(), "AdamW: parameters were uploaded without gradients");
        let gpu = arenas.first().expect("AdamW: at least one parameter").values.gpu().clone();
        let moments = with_purpose(Purpose::Moments, || {
            arenas
                .iter()
                .map(|a| [(); 2].map(|()| Tensor::zeros(&gpu, [a.values.len()], DType::F32)))
                .collect()
        });
        let scale = match options.loss_scale {
            LossScale::None => 1.0,
            LossScale::Dynamic { first, .. } => first,
        };
        AdamW { options, moments, control: control(&gpu, [scale, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]) }
    }

    /// The loss scale, (1): the seed of the backward pass, `loss.backward_from(&optimizer.loss_scale())`.
    pub fn loss_scale(&self) -> Tensor {
        self.control.window(0, &[1])
    }

    /// Updates all parameters by the gradients in their arenas, and sets those to zero.
    pub fn step(&mut self, parameters: &Parameters, lr: f32) {
        let AdamWOptions { beta1, beta2, eps, weight_decay, max_norm, loss_scale } = self.options;
        let grow_after = match loss_scale {
            LossScale::None => 0.0,
            LossScale::Dynamic { grow_after, .. } => grow_after as f32,
        };
        let max_norm = max_norm.unwrap_or(0.0);
        let rule = AdamWRule { beta1, beta2, eps, max_norm, grow_after, most_scale: MOST_SCALE };
        let gradients = parameters.gradients().expect("AdamW::new saw that they have gradients");
        ops::adamw_control(&ops::square_sum(&gradients), &self.control, &rule);
        for ((arena, [m, v]), g) in parameters.arenas().iter().zip(&self.moments).zip(gradients) {
            let decay = if arena.decay { weight_decay } else { 0.0 };
            ops::adamw([&arena.values, m, v, g], &self.control, &rule, lr, decay);
        }
        parameters.zero_gradients();
    }

    /// What the device decided so far. Waits for the work recorded.
    ///
    /// # Errors
    /// Whatever went wrong on the device.
    pub async fn report(&self) -> Result<StepReport> {
        let c = self.control.read::<f32>().await?;
        Ok(StepReport { loss_scale: c[0], norm: c[5], steps: c[6] as u32, skipped: c[7] as u32 })
    }

    /// The moments of each parameter and the device's account, to be stored: ((name, mean, mean of squares), account).
    ///
    /// # Errors
    /// Whatever went wrong on the device.
    pub async fn state(&self, parameters: &Parameters) -> Result<OptimizerState> {
        let mut arenas = Vec::new();
        for [m, v] in &self.moments {
            arenas.push([m.read::<f32>().await?, v.read::<f32>().await?]);
        }
        let moments = parameters
            .places()
            .map(|(name, arena, range)| {
                let [m, v] = &arenas[arena];
                (name.to_owned(), m[range.clone()].to_vec(), v[range].to_vec())
            })
            .collect();
        let account = self.control.read::<f32>().await?.into_iter().map(f32::to_bits).collect();
        Ok(OptimizerState { moments, account })
    }

    /// Continues from a stored state, bit for bit.
    ///
    /// # Errors
    /// The state is not of these parameters.
    pub fn restore(&mut self, parameters: &Parameters, state: &OptimizerState) -> Result<()> {
        let fits = |what: &str, expected: String, got: String| Error::Data {
            what: format!("optimizer state: {what}"),
            expected,
            got,
        };
        let mut flat: Vec<[Vec<f32>; 2]> = parameters
            .arenas()
            .iter()
            .map(|a| [vec![0.0; a.values.len()], vec![0.0; a.values.len()]])
            .collect();
        let by_name: std::collections::HashMap<_, _> =
            state.moments.iter().map(|(name, m, v)| (name.as_str(), (m, v))).collect();
        for (name, arena, range) in parameters.places() {
            let (m, v) = by_name.get(name).ok_or_else(|| fits(name, "its moments".into(), "none".into()))?;
            for (values, into) in [m, v].into_iter().zip(&mut flat[arena]) {
                if values.len() != range.len() {
                    return Err(fits(name, format!("{} values", range.len()), values.len().to_string()));
                }
                into[range.clone()].copy_from_slice(values);
            }
        }
        let account: [f32; CONTROL] = state
            .account
            .iter()
            .map(|bits| f32::from_bits(*bits))
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|v: Vec<f32>| fits("account", format!("{CONTROL} numbers"), v.len().to_string()))?;
        if account.iter().any(|v| !v.is_finite()) || account[0] < 1.0 {
            return Err(fits(
                "account",
                "finite numbers and a loss scale from 1".into(),
                format!("{account:?}"),
            ));
        }
        for (tensors, values) in self.moments.iter().zip(&flat) {
            for (tensor, values) in tensors.iter().zip(values) {
                tensor.write(values)?;
            }
        }
        self.control = control(self.control.gpu(), account);
        Ok(())
    }
}

/// What a resumed run needs of the optimizer.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState {
    /// (parameter, mean of gradients, mean of squares).
    pub moments: Vec<(String, Vec<f32>, Vec<f32>)>,
    /// The device's account, as bits.
    pub account: Vec<u32>,
}

fn control(gpu: &Gpu, values: [f32; CONTROL]) -> Tensor {
    with_purpose(Purpose::Moments, || {
        Tensor::from_slice(gpu, &values, [CONTROL]).expect("as many numbers as the control has")
    })
}

/// The learning rate over a run: linear warm-up to `peak`, then down to `floor · peak` at `total` steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Steps in all; beyond them the rate stays at its floor.
    pub total: u64,
    /// The last rate as a share of the peak.
    pub floor: f64,
    /// The way down.
    pub decay: Decay,
}

/// How a rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// Half a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983).
    Cosine,
    /// A straight line.
    Linear,
    /// Not at all.
    Constant,
}

impl Schedule {
    /// The rate of step `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        let rise = if self.warmup > 0 { ((step + 1) as f64 / self.warmup as f64).min(1.0) } else { 1.0 };
        let span = self.total.saturating_sub(self.warmup).max(1) as f64;
        let done = (step.saturating_sub(self.warmup) as f64 / span).min(1.0);
        let left = match self.decay {
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            Decay::Linear => 1.0 - done,
            Decay::Constant => 1.0,
        };
        self.peak * rise * (self.floor + (1.0 - self.floor) * left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_to_the_peak_and_fall_to_the_floor() {
        for decay in [Decay::Cosine, Decay::Linear] {
            let s = Schedule { peak: 2.0, warmup: 10, total: 110, floor: 0.1, decay };
            assert!((s.at(0) - 0.2).abs() < 1e-12 && (s.at(9) - 2.0).abs() < 1e-12);
            assert!((s.at(60) - 1.1).abs() < 1e-12, "half way down");
            assert!((s.at(110) - 0.2).abs() < 1e-12 && s.at(1 << 40) == s.at(110));
        }
        let s = Schedule { peak: 1.0, warmup: 0, total: 0, floor: 0.0, decay: Decay::Constant };
        assert_eq!([s.at(0), s.at(7)], [1.0, 1.0]);
    }
}
