//! Training: batches drawn by step number, a schedule, an optimizer on the device, checkpoints that resume bit for bit.

use std::sync::Arc;

use rambutan_engine::{
    Gpu, Tensor,
    optim::{self, AdamW, AdamWOptions},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Checkpoint, Config, Error, Ramba,
    checkpoint::HostTensor,
    ramba::Sharing,
    tasks::{Batch, Sampler, TaskMix},
};

/// What to train and how: the TOML file of `rambutan train`. The defaults are the recipe that works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// The model.
    pub model: Config,
    /// Seeds parameters and data.
    pub seed: u64,
    /// Steps in all.
    pub steps: u64,
    /// Tokens a step.
    pub tokens: usize,
    /// Tokens a sequence in the first phase.
    pub short_length: usize,
    /// The first phase's share of the steps.
    pub short_share: f64,
    /// Tokens a sequence afterwards.
    pub length: usize,
    /// Sequences that share memory in the second phase; 1 for none.
    pub group: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// The learning rate at the end, as a share of its peak.
    pub floor: f64,
    /// Weight decay on matrices.
    pub weight_decay: f64,
    /// Largest global norm of the gradient.
    pub clip: f64,
    /// Decay of the first and second moments.
    pub betas: (f64, f64),
    /// The data.
    pub tasks: TaskMix,
}

impl Default for TrainConfig {
    fn default() -> TrainConfig {
        TrainConfig {
            model: Config::small(),
            seed: 0,
            steps: 3000,
            tokens: 131_072,
            short_length: 1024,
            short_share: 0.2,
            length: 4096,
            group: 16,
            lr: 2e-3,
            warmup: 200,
            floor: 0.05,
            weight_decay: 0.1,
            clip: 1.0,
            betas: (0.9, 0.95),
            tasks: TaskMix::default(),
        }
    }
}

impl TrainConfig {
    /// Refuses values that make no sense.
    ///
    /// # Errors
    /// The field, its value and what is expected.
    pub fn check(&self) -> Result<(), Error> {
        self.model.validate()?;
        self.tasks.check()?;
        let refuse = |field: &str, value: String, expected: &str| {
            Err(Error::Setting { field: field.into(), value, expected: expected.into() })
        };
        let chunk = self.model.chunk_size;
        for (field, length) in [("short_length", self.short_length), ("length", self.length)] {
            if length < 2 * chunk || !length.is_multiple_of(chunk) {
                return refuse(field, length.to_string(), &format!("a multiple of chunk_size {chunk}, at least two"));
            }
            if !self.tokens.is_multiple_of(length) || self.tokens == 0 {
                return refuse("tokens", self.tokens.to_string(), &format!("a multiple of {field} {length}"));
            }
        }
        if self.group == 0 || !(self.tokens / self.length).is_multiple_of(self.group) {
            return refuse("group", self.group.to_string(), "a divisor of tokens / length");
        }
        if self.steps == 0 {
            return refuse("steps", "0".into(), "at least 1");
        }
        if self.tasks.chunk != chunk {
            return refuse("tasks.chunk", self.tasks.chunk.to_string(), &format!("the model's chunk_size {chunk}"));
        }
        for (field, value, most) in [
            ("short_share", self.short_share, 1.0),
            ("floor", self.floor, 1.0),
            ("lr", self.lr, 1.0),
            ("weight_decay", self.weight_decay, 10.0),
            ("clip", self.clip, 1e6),
        ] {
            if !(0.0..=most).contains(&value) {
                return refuse(field, value.to_string(), &format!("a number from 0 to {most}"));
            }
        }
        Ok(())
    }

    /// (sequences, length) of a step.
    pub fn shape(&self, step: u64) -> (usize, usize) {
        let length = if self.is_short(step) { self.short_length } else { self.length };
        (self.tokens / length, length)
    }

    fn is_short(&self, step: u64) -> bool {
        (step as f64) < self.short_share * self.steps as f64
    }

    /// The learning rate of a step.
    pub fn rate(&self, step: u64) -> f64 {
        optim::cosine(step, self.warmup, self.steps, self.lr, self.floor)
    }
}

/// What one step showed, where it was asked for.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StepReport {
    /// The loss that was minimised.
    pub loss: f64,
    /// Mean cross entropy of the answers, in nats.
    pub answer: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
}

/// A training run on a device.
pub struct Trainer {
    /// What is trained and how.
    pub config: TrainConfig,
    /// The model.
    pub model: Ramba,
    optimizer: AdamW,
    /// Steps done.
    pub step: u64,
}

impl Trainer {
    /// Starts from `checkpoint`'s parameters, or from random ones; with moments in the checkpoint it resumes there.
    ///
    /// # Errors
    /// The configuration, the checkpoint or the device.
    pub fn new(gpu: &Gpu, config: TrainConfig, checkpoint: Option<Checkpoint>) -> Result<Trainer, Error> {
        config.check()?;
        let checkpoint = match checkpoint {
            Some(checkpoint) => checkpoint,
            None => Checkpoint::initial(config.model.clone(), config.seed)?,
        };
        let model = Ramba::new(gpu, &checkpoint, true)?;
        let options = AdamWOptions {
            betas: (config.betas.0 as f32, config.betas.1 as f32),
            weight_decay: config.weight_decay as f32,
            clip: (config.clip > 0.0).then_some(config.clip as f32),
            ..AdamWOptions::default()
        };
        let mut optimizer = AdamW::new(model.parameters(), options);
        let mut step = 0;
        if checkpoint.has_moments() {
            let state = checkpoint.metadata.training.as_ref();
            step = state.and_then(|s| s.get("step")?.as_u64()).ok_or(Error::NotResumable)?;
            let m = |name: &str| checkpoint.extras.get(&format!("optimizer.m.{name}")).map(|t| t.data.clone());
            let v = |name: &str| checkpoint.extras.get(&format!("optimizer.v.{name}")).map(|t| t.data.clone());
            let moments = model
                .parameters()
                .iter()
                .map(|(name, _)| Some((name.to_owned(), m(name)?, v(name)?)))
                .collect::<Option<Vec<_>>>()
                .ok_or(Error::NotResumable)?;
            optimizer.restore(model.parameters(), &moments, step)?;
        }
        Ok(Trainer { config, model, optimizer, step })
    }

    /// One step on a batch. Reads back only where `report` asks for it.
    ///
    /// # Errors
    /// The device failed; seen at the latest when a report is read.
    pub fn step(&mut self, batch: &Batch, report: bool) -> Result<Option<StepReport>, Error> {
        let gpu = self.model.gpu().clone();
        let shape = [batch.sequences, batch.length];
        let ids = Tensor::from_slice(&gpu, &batch.ids, shape)?;
        let targets = Tensor::from_slice(&gpu, &batch.targets, shape)?;
        let weights = Tensor::from_slice(&gpu, &batch.weights, shape)?;
        let segment = Tensor::from_slice(&gpu, &batch.segment, shape)?;
        let chunks = batch.length / self.config.model.chunk_size;
        let group = if self.config.is_short(self.step) { 1 } else { self.config.group };
        let clean = match group {
            1 => None,
            _ => Some(Tensor::from_slice(&gpu, &batch.clean, [batch.sequences, chunks])?),
        };
        let logits = self.model.forward(&ids, Some(&segment), &Sharing { group, clean });
        let (loss, tokens) = self.model.loss(&logits, &targets, &weights);
        drop(logits);
        self.model.parameters().zero_gradients();
        loss.backward();
        self.optimizer.step(self.model.parameters(), self.config.rate(self.step) as f32);
        self.step += 1;
        if !report {
            gpu.check()?;
            return Ok(None);
        }
        let losses = tokens.to_vec::<f32>()?;
        let answer = losses.iter().zip(&batch.answer_weights).map(|(l, w)| f64::from(*l) * f64::from(*w)).sum();
        Ok(Some(StepReport {
            loss: f64::from(loss.to_vec::<f32>()?[0]),
            answer,
            grad_norm: f64::from(self.optimizer.grad_norm().to_vec::<f32>()?[0]),
        }))
    }

    /// Everything that a resumed run needs.
    ///
    /// # Errors
    /// The device failed.
    pub fn checkpoint(&self) -> Result<Checkpoint, Error> {
        let mut checkpoint = self.weights()?;
        for (name, m, v) in self.optimizer.moments(self.model.parameters())? {
            let shape = checkpoint.tensors[&name].shape.clone();
            checkpoint.extras.insert(format!("optimizer.m.{name}"), HostTensor::new(shape.clone(), m));
            checkpoint.extras.insert(format!("optimizer.v.{name}"), HostTensor::new(shape, v));
        }
        Ok(checkpoint)
    }

    /// The parameters alone.
    ///
    /// # Errors
    /// The device failed.
    pub fn weights(&self) -> Result<Checkpoint, Error> {
        let mut checkpoint = Checkpoint::initial(self.config.model.clone(), 0)?;
        for (name, tensor) in self.model.parameters().iter() {
            let data = tensor.to_vec::<f32>()?;
            checkpoint.tensors.insert(name.to_owned(), HostTensor::new(tensor.shape(), data));
        }
        checkpoint.metadata.training = Some(json!({ "step": self.step, "seed": self.config.seed }));
        Ok(checkpoint)
    }

    /// The sampler of this run's data.
    ///
    /// # Errors
    /// The mixture makes no sense or has no text.
    pub fn sampler(&self, corpus: Option<Arc<crate::data::Corpus>>) -> Result<Sampler, Error> {
        Ok(Sampler::new(self.config.tasks.clone(), corpus, self.config.seed)?)
    }
}
