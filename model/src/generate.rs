//! Text after a prompt, a token at a time, drawn from what the model thinks of each.

use std::{cmp::Ordering, collections::VecDeque};

use rambutan_engine::{Tensor, gpu::Download, no_grad, ops};

use crate::{Error, Ramba, ramba::Cache, rng::Rng};

/// Tokens of a prompt that go through the layers at once.
const PIECE: usize = 2048;
/// Of tokens that the device draws by itself, those it is given to work at: the last one that was asked for, and the next.
const AHEAD: usize = 2;
/// Tokens of a vocabulary that are put in order at first, where only the most probable are drawn from.
const FIRST: usize = 256;

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// What logits are divided by; 0 takes the most probable token.
    pub temperature: f32,
    /// Only the most probable tokens are drawn from whose probabilities together reach this; 1 for all.
    pub top_p: f32,
    /// Equal seeds draw equal tokens.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Sampling {
        Sampling { temperature: 0.0, top_p: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// # Errors
    /// A setting is out of its range.
    pub fn checked(self) -> Result<Sampling, Error> {
        let refuse = |field: &str, value: f32, expected: &str| {
            Err(Error::Setting { field: field.into(), value: value.to_string(), expected: expected.into() })
        };
        if !(0.0..=100.0).contains(&self.temperature) {
            return refuse("temperature", self.temperature, "from 0 (the most probable token) to 100");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", self.top_p, "more than 0 and at most 1 (all tokens)");
        }
        Ok(self)
    }

    /// A token by its logit. Of equal logits the lower token comes first.
    pub fn draw(&self, logits: &[f32], rng: &mut Rng) -> usize {
        let before = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
        let Some(best) = (0..logits.len()).min_by(before) else { return 0 };
        if self.temperature == 0.0 {
            return best;
        }
        let weight = |&l: &f32| f64::from((l - logits[best]) / self.temperature).exp();
        let weights: Vec<f64> = logits.iter().map(weight).collect();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        if self.top_p < 1.0 {
            let kept = self.most_probable(&mut order, &weights, before);
            order.truncate(kept);
        }
        let mut left = rng.float() * order.iter().map(|&i| weights[i]).sum::<f64>();
        let drawn = order.iter().find(|&&i| {
            left -= weights[i];
            left < 0.0
        });
        drawn.or(order.last()).copied().unwrap_or(best)
    }

    /// Puts the most probable tokens in front, in their order, and counts those that reach `top_p`. Mostly these are far
    /// fewer than a vocabulary has, so no more than it takes are put in order.
    fn most_probable(
        &self,
        order: &mut [usize],
        weights: &[f64],
        before: impl Fn(&usize, &usize) -> Ordering,
    ) -> usize {
        let reached = weights.iter().sum::<f64>() * f64::from(self.top_p);
        let mut sorted = FIRST.min(order.len());
        loop {
            if sorted < order.len() {
                order.select_nth_unstable_by(sorted, &before);
            }
            order[..sorted].sort_unstable_by(&before);
            let mut sum = 0.0;
            let last = order[..sorted].iter().position(|&i| {
                sum += weights[i];
                sum >= reached
            });
            match last {
                Some(last) => return last + 1,
                None if sorted == order.len() => return sorted,
                None => sorted = (4 * sorted).min(order.len()),
            }
        }
    }
}

/// A prompt and what was said after it.
pub struct Generator<'m> {
    model: &'m Ramba,
    cache: Cache,
    sampling: Sampling,
    rng: Rng,
    /// Of the next token.
    logits: Tensor,
    /// The most probable token, (1, 1), where the device drew it from these; and those so drawn on their way to the host.
    ids: Option<Tensor>,
    drawn: VecDeque<Download<u32>>,
    /// The first `limit` tokens of the vocabulary are drawn from: some are padding.
    limit: usize,
}

impl<'m> Generator<'m> {
    /// Reads `prompt`. Tokens from `limit` on are never drawn.
    ///
    /// Where the model's states restart by segments, the prompt is read by segments, as in
    /// [`Reader::read`](crate::reader::Reader::read), up to the one that its last token lies in; what is said continues that.
    ///
    /// # Errors
    /// The prompt is empty or holds a token that the model has not, or the sampling makes no sense.
    pub fn new(
        model: &'m Ramba,
        prompt: &[u32],
        limit: usize,
        sampling: Sampling,
    ) -> Result<Generator<'m>, Error> {
        let (sampling, vocabulary) = (sampling.checked()?, model.config.vocab_size);
        if let Some(token) = prompt.iter().find(|&&t| t as usize >= vocabulary) {
            return Err(Error::Setting {
                field: "a token of the prompt".into(),
                value: token.to_string(),
                expected: format!(
                    "less than {vocabulary}, the model's vocabulary: is it the right tokenizer?"
                ),
            });
        }
        let last = prompt.len().checked_sub(1).ok_or(Error::Empty)?;
        let config = &model.config;
        let segment = config.segment_size.filter(|_| config.segment_at_inference && config.enable_hsa);
        let size = segment.unwrap_or(prompt.len());
        let upload = |x: &[u32]| Tensor::from_slice(model.gpu(), x, [1, x.len()]);
        let (mut cache, mut logits) = (model.cache(), None);
        for (number, text) in prompt.chunks(size).enumerate() {
            let (start, overlap) = (number * size, config.segment_overlap);
            cache.states.fill(None);
            if start > 0 && overlap > 0 {
                let before = upload(&prompt[start - overlap..start])?;
                no_grad(|| model.lead_in(&mut cache, &before));
            }
            for piece in text.chunks(PIECE) {
                let ids = upload(piece)?;
                if number == last / size {
                    logits = Some(no_grad(|| model.extend_to_last(&mut cache, &ids, None)));
                } else {
                    no_grad(|| model.remember_further(&mut cache, &ids));
                }
            }
        }
        let logits = logits.ok_or(Error::Empty)?;
        let (rng, limit) = (Rng::new(sampling.seed), limit.clamp(1, vocabulary));
        Ok(Generator { model, cache, sampling, rng, logits, ids: None, drawn: VecDeque::new(), limit })
    }

    /// Draws the next token, and reads it.
    ///
    /// The most probable one is drawn on the device, which does not wait for the host: it is at the token after this one
    /// when this returns, and the host never sees logits.
    ///
    /// # Errors
    /// The device failed.
    pub async fn next(&mut self) -> Result<u32, Error> {
        if self.sampling.temperature == 0.0 {
            while self.drawn.len() < AHEAD {
                if let Some(ids) = self.ids.take() {
                    self.read(&ids);
                }
                let ids = self.most_probable();
                self.drawn.push_back(ids.download()?);
                self.ids = Some(ids);
                self.model.gpu().submit();
            }
            let Some(first) = self.drawn.front_mut() else { return Err(Error::Empty) };
            let token = first.await;
            self.drawn.pop_front();
            return Ok(token?[0]);
        }
        let logits = self.logits.read::<f32>().await?;
        let token = self.sampling.draw(&logits[..self.limit], &mut self.rng) as u32;
        self.read(&Tensor::from_slice(self.model.gpu(), &[token], [1, 1])?);
        Ok(token)
    }

    fn read(&mut self, ids: &Tensor) {
        self.logits = no_grad(|| self.model.extend_to_last(&mut self.cache, ids, None));
    }

    /// The token of the largest logit, (1, 1), drawn by the device.
    fn most_probable(&self) -> Tensor {
        let logits = self.logits.reshape([self.logits.len()]);
        let limited = logits.view_rows(0..self.limit).expect("a buffer's beginning can be bound");
        ops::top_k(&limited.reshape([1, self.limit]), 1).1
    }
}

/// Where the first of the stop strings begins in `text`.
pub fn stopped(text: &[u8], stops: &[impl AsRef<[u8]>]) -> Option<usize> {
    let find = |stop: &[u8]| (!stop.is_empty()).then(|| text.windows(stop.len()).position(|w| w == stop))?;
    stops.iter().filter_map(|s| find(s.as_ref())).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut rng = Rng::new(sampling.seed);
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..20_000 {
            counts[sampling.draw(logits, &mut rng)] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn tokens_are_drawn_by_their_probabilities() {
        let logits = [1.0f32.ln(), 4.0f32.ln(), 3.0f32.ln(), 2.0f32.ln()];
        for (temperature, top_p, expected) in [
            (1.0, 1.0, [0.1, 0.4, 0.3, 0.2]),
            (0.0, 1.0, [0.0, 1.0, 0.0, 0.0]),
            // Squares of the probabilities.
            (0.5, 1.0, [1.0 / 30.0, 16.0 / 30.0, 9.0 / 30.0, 4.0 / 30.0]),
            // The fewest whose probabilities reach it.
            (1.0, 0.35, [0.0, 1.0, 0.0, 0.0]),
            (1.0, 0.5, [0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]),
            (1.0, 0.95, [0.1, 0.4, 0.3, 0.2]),
            (1.0, 1e-9, [0.0, 1.0, 0.0, 0.0]),
        ] {
            let got = shares(Sampling { temperature, top_p, seed: 3 }, &logits);
            for (got, expected) in got.iter().zip(expected) {
                assert!((got - expected).abs() < 0.02, "{temperature} {top_p}: {got} {expected}");
            }
        }
    }

    /// However many it takes, the same as of all in order.
    #[test]
    fn the_most_probable_come_first() {
        let mut rng = Rng::new(5);
        for (count, temperature, top_p) in
            [(3000, 1.0, 0.5), (3000, 3.0, 0.9), (3000, 30.0, 0.999), (256, 1.0, 0.9), (257, 9.0, 0.99)]
        {
            let logits: Vec<f32> = (0..count).map(|_| (rng.float() * 40.0).round() as f32 / 4.0).collect();
            let sampling = Sampling { temperature, top_p, seed: 0 };
            let before = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
            let weights: Vec<f64> = logits.iter().map(|l| f64::from(l / temperature).exp()).collect();
            let mut all: Vec<usize> = (0..count).collect();
            all.sort_by(before);
            let reached = weights.iter().sum::<f64>() * f64::from(top_p);
            let mut sum = 0.0;
            let enough = all.iter().take_while(|&&i| {
                let more = sum < reached;
                sum += weights[i];
                more
            });
            let expected = enough.count();
            let mut order: Vec<usize> = (0..count).collect();
            let kept = sampling.most_probable(&mut order, &weights, before);
            assert_eq!(order[..kept], all[..expected], "{count} {temperature} {top_p}");
        }
    }

    #[test]
    fn ties_seeds_and_extremes_are_settled() {
        let greedy = Sampling::default();
        assert_eq!(greedy.draw(&[1.0, 2.0, 2.0], &mut Rng::new(1)), 1, "the lower of equal ones");
        let hot = Sampling { temperature: 1.0, ..greedy };
        let drawn = |seed| -> Vec<usize> {
            let mut rng = Rng::new(seed);
            (0..50).map(|_| hot.draw(&[0.0; 9], &mut rng)).collect()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        // What is far below the best has no probability, and no number is lost to overflow.
        let cold = Sampling { temperature: 1e-3, ..greedy };
        assert_eq!(cold.draw(&[-1e30, 1e30, 0.0], &mut Rng::new(1)), 1);
        for (temperature, top_p) in [(-1.0, 1.0), (f32::NAN, 1.0), (1.0, 0.0), (1.0, 1.5), (1.0, f32::NAN)] {
            assert!(Sampling { temperature, top_p, seed: 0 }.checked().is_err(), "{temperature} {top_p}");
        }
    }

    #[test]
    fn the_first_stop_ends_a_text() {
        assert_eq!(stopped(b"one|two. three", &[". ", "|"]), Some(3));
        assert_eq!(stopped(b"one", &["|", ""]), None);
        assert_eq!(stopped(b"one", &[""; 0]), None);
    }
}
