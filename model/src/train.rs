//! Training: a plan, and the trainer that follows it step by step.
//!
//! A step uploads its batch, runs forward and backward (in parts where memory is short), and updates the parameters;
//! nothing is read back unless [`Losses::read`] is called. All that a later run needs to continue bit for bit is in
//! [`Trainer::checkpoint`]: parameters, moments, the optimizer's account and the number of the next step, from which
//! the data and the learning rate follow.
//!
//! Over ranks each takes its share of every batch; gradients are summed in the order of the batch's parts, so the number
//! of ranks changes no more than the number of parts does.

use std::sync::Arc;

use rambutan_engine::{
    DType, Gpu, Tensor, no_grad, ops,
    optim::{AdamW, AdamWOptions, Decay, LossScale, OptimizerState, Schedule, StepReport},
    tensor::Parameters,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Checkpoint, Error, Ramba,
    checkpoint::{Header, HostTensor},
    ramba::{Evidence, Options, Sharing},
    ranks::{Alone, OrderedSum, Ranks},
    tasks::Batch,
};

/// Steps with sequences of one length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// How many steps.
    pub steps: u64,
    /// Tokens a sequence.
    pub length: usize,
    /// Sequences a step.
    pub sequences: usize,
    /// Sequences that share their memory; 1 for none.
    #[serde(default = "one")]
    pub group: usize,
    /// Added in training to the scores by which a token chooses among other sequences' chunks, and to the logits of their
    /// weights: the token's own chunk has to win by so much. The few thousand chunks of a group then stand for the millions
    /// of a long text, of which the best has a higher score ([`ops::Group::margin`]). 0 or more; 0 where nothing is shared.
    #[serde(default)]
    pub margin: f32,
    /// Weight of the evidence's loss beside the others: where an answer is given, the retrieval layers should select the chunk
    /// that states it, and no other ([`ops::contrast`]). Gradients of the selected chunks' weights teach the same of the few
    /// that are selected, and nothing of the others. 0 for none.
    #[serde(default)]
    pub evidence: f32,
    /// Added to other sequences' chunks in it, for rows that come near it ([`ops::contrast_margin`]): ln n stands for n times
    /// as many chunks as a group has. 0 or more.
    #[serde(default)]
    pub evidence_margin: f32,
    /// Sequences that go through the model at once, whole groups of them; 0 for all. Fewer need less memory, and sum
    /// their gradients in another order.
    #[serde(default)]
    pub at_once: usize,
}

fn one() -> usize {
    1
}

/// The optimizer's settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerPlan {
    /// Highest learning rate.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// Last learning rate as a share of the highest.
    pub floor: f64,
    /// How the rate falls.
    pub decay: DecayPlan,
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of squares.
    pub beta2: f32,
    /// Added to the root of the mean of squares.
    pub eps: f32,
    /// Share of a matrix that decays a step, times the learning rate.
    pub weight_decay: f32,
    /// Gradients of a larger global norm are scaled down to it; 0 for no limit.
    pub max_norm: f32,
}

/// How the learning rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecayPlan {
    /// Half a cosine.
    Cosine,
    /// A straight line.
    Linear,
    /// Not at all.
    Constant,
}

impl Default for OptimizerPlan {
    fn default() -> Self {
        Self {
            lr: 2e-3,
            warmup: 200,
            floor: 0.05,
            decay: DecayPlan::Cosine,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            max_norm: 1.0,
        }
    }
}

/// What a run does, from its first step to its last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Decides initial parameters and data.
    #[serde(default)]
    pub seed: u64,
    /// Computes in 16 bits over masters in 32, with a dynamic loss scale.
    #[serde(default)]
    pub half: bool,
    /// Phases, one after another.
    pub phases: Vec<Phase>,
    /// The optimizer.
    #[serde(default)]
    pub optimizer: OptimizerPlan,
}

fn setting(field: &str, value: impl ToString, expected: impl Into<String>) -> Error {
    Error::Setting { field: field.into(), value: value.to_string(), expected: expected.into() }
}

impl Plan {
    /// Refuses values that make no sense.
    ///
    /// # Errors
    /// The first such value.
    pub fn check(&self) -> Result<(), Error> {
        if self.phases.is_empty() {
            return Err(setting("plan.phases", "none", "at least one phase"));
        }
        for (i, p) in self.phases.iter().enumerate() {
            let field = |name: &str| format!("plan.phases[{i}].{name}");
            for (name, value) in [
                ("steps", p.steps as usize),
                ("length", p.length),
                ("sequences", p.sequences),
                ("group", p.group),
            ] {
                if value == 0 {
                    return Err(setting(&field(name), 0, "at least 1"));
                }
            }
            if p.sequences.checked_mul(p.length).is_none_or(|n| n > 1 << 30) {
                return Err(setting(&field("sequences"), p.sequences, "at most 2³⁰ tokens a step"));
            }
            if !p.sequences.is_multiple_of(p.group) {
                return Err(setting(
                    &field("group"),
                    p.group,
                    format!("a divisor of the {} sequences", p.sequences),
                ));
            }
            if !(p.margin.is_finite() && p.margin >= 0.0) {
                return Err(setting(&field("margin"), p.margin, "a finite number, 0 or more"));
            }
            if p.margin > 0.0 && p.group == 1 {
                let expected = "0, or a group of several sequences, whose chunks it is for";
                return Err(setting(&field("margin"), p.margin, expected));
            }
            for (name, value) in [("evidence", p.evidence), ("evidence_margin", p.evidence_margin)] {
                if !(value.is_finite() && value >= 0.0) {
                    return Err(setting(&field(name), value, "a finite number, 0 or more"));
                }
            }
            if !p.at_once.is_multiple_of(p.group) {
                return Err(setting(&field("at_once"), p.at_once, format!("whole groups of {}", p.group)));
            }
        }
        let o = &self.optimizer;
        if !(o.lr.is_finite() && o.lr > 0.0) {
            return Err(setting("plan.optimizer.lr", o.lr, "a number above 0"));
        }
        if !(0.0..=1.0).contains(&o.floor) {
            return Err(setting("plan.optimizer.floor", o.floor, "a share from 0 to 1"));
        }
        for (name, value) in [("beta1", o.beta1), ("beta2", o.beta2)] {
            if !(0.0..1.0).contains(&value) {
                return Err(setting(&format!("plan.optimizer.{name}"), value, "from 0 to below 1"));
            }
        }
        for (name, value) in [("eps", o.eps), ("weight_decay", o.weight_decay), ("max_norm", o.max_norm)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(setting(&format!("plan.optimizer.{name}"), value, "a finite number, 0 or more"));
            }
        }
        Ok(())
    }

    /// Refuses phases whose groups of sequences so many ranks cannot share evenly.
    ///
    /// # Errors
    /// The first such phase.
    pub fn check_shared(&self, ranks: usize) -> Result<(), Error> {
        for (i, p) in self.phases.iter().enumerate() {
            let whole = p.group * ranks;
            if !p.sequences.is_multiple_of(whole) {
                let groups = match p.group {
                    1 => String::new(),
                    group => format!(" and no group of {group} is cut"),
                };
                let expected =
                    format!("a multiple of {whole}, so that {ranks} ranks take as many each{groups}");
                return Err(setting(&format!("plan.phases[{i}].sequences"), p.sequences, expected));
            }
        }
        Ok(())
    }

    /// Steps in all.
    pub fn steps(&self) -> u64 {
        self.phases.iter().map(|p| p.steps).sum()
    }

    /// Tokens in all.
    pub fn tokens(&self) -> u64 {
        self.phases.iter().map(|p| p.steps * (p.sequences * p.length) as u64).sum()
    }

    /// The phase of a step; None after the last.
    pub fn phase(&self, step: u64) -> Option<&Phase> {
        let mut end = 0;
        self.phases.iter().find(|p| {
            end += p.steps;
            step < end
        })
    }

    /// The learning rates.
    pub fn schedule(&self) -> Schedule {
        let o = &self.optimizer;
        let decay = match o.decay {
            DecayPlan::Cosine => Decay::Cosine,
            DecayPlan::Linear => Decay::Linear,
            DecayPlan::Constant => Decay::Constant,
        };
        Schedule { peak: o.lr, warmup: o.warmup, total: self.steps(), floor: o.floor, decay }
    }
}

/// Where a run stands: stored in its checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The next step.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// The plan that was followed.
    pub plan: Plan,
    /// The optimizer's account, as bits.
    account: Vec<u32>,
}

/// A model in training.
pub struct Trainer {
    model: Ramba,
    optimizer: AdamW,
    plan: Plan,
    step: u64,
    tokens: u64,
    ranks: Arc<dyn Ranks>,
}

/// The losses of a step, still on their way.
pub struct Losses(Parts);

enum Parts {
    /// (3), still on the device.
    Coming(Tensor),
    /// Summed over ranks.
    Summed([f32; 3]),
}

/// The losses of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepLosses {
    /// Of the predicted tokens: the text's mean cross entropy, and the answers' times its weight.
    pub loss: f32,
    /// The answers' mean cross entropy in nats.
    pub answers: f32,
    /// The evidence's, before its weight: [`ops::contrast`]; 0 without any.
    pub evidence: f32,
}

impl Losses {
    /// Waits for the step.
    ///
    /// # Errors
    /// Whatever went wrong on the device since the last read.
    pub async fn read(&self) -> Result<StepLosses, Error> {
        let [loss, answers, evidence] = match &self.0 {
            Parts::Coming(parts) => parts.read::<f32>().await?.try_into().expect("three losses"),
            Parts::Summed(parts) => *parts,
        };
        Ok(StepLosses { loss, answers, evidence })
    }
}

impl Trainer {
    /// Starts a run from a checkpoint's parameters, or continues the one it is of: then its training state counts.
    ///
    /// # Errors
    /// A plan that makes no sense, a training state that is not complete, or a device without enough memory.
    pub fn new(gpu: &Gpu, checkpoint: &Checkpoint, plan: Plan) -> Result<Trainer, Error> {
        Trainer::over(Arc::new(Alone), gpu, checkpoint, plan)
    }

    /// [`Trainer::new`] as one of `ranks`, which all give the same checkpoint and plan. From then on [`Trainer::step`] is
    /// collective, and all ranks give it the same batch, of which each trains on its share. Ranks hold the same parameters
    /// bit for bit as long as their devices compute alike: [`Trainer::in_step`] tells.
    ///
    /// # Errors
    /// As [`Trainer::new`], or a phase whose groups of sequences the ranks cannot share evenly.
    pub fn over(
        ranks: Arc<dyn Ranks>,
        gpu: &Gpu,
        checkpoint: &Checkpoint,
        plan: Plan,
    ) -> Result<Trainer, Error> {
        plan.check()?;
        plan.check_shared(ranks.size())?;
        let chunk = checkpoint.config.chunk_size;
        for (i, p) in plan.phases.iter().enumerate() {
            if p.group > 1 && !p.length.is_multiple_of(chunk) {
                let expected = format!("a multiple of the chunk size {chunk} where sequences share memory");
                return Err(setting(&format!("plan.phases[{i}].length"), p.length, expected));
            }
            if p.evidence > 0.0 && !checkpoint.config.enable_hsa {
                let expected = "0: this model selects no chunks (enable_hsa is false)";
                return Err(setting(&format!("plan.phases[{i}].evidence"), p.evidence, expected));
            }
        }
        let model = Ramba::with(gpu, checkpoint, Options { trained: true, half: plan.half })?;
        let o = &plan.optimizer;
        let optimizer = AdamW::new(
            model.parameters(),
            AdamWOptions {
                beta1: o.beta1,
                beta2: o.beta2,
                eps: o.eps,
                weight_decay: o.weight_decay,
                max_norm: (o.max_norm > 0.0).then_some(o.max_norm),
                loss_scale: if plan.half {
                    LossScale::Dynamic { first: 65536.0, grow_after: 1000 }
                } else {
                    LossScale::None
                },
            },
        );
        let mut trainer = Trainer { model, optimizer, plan, step: 0, tokens: 0, ranks };
        if let Some(progress) = progress(checkpoint)? {
            trainer.resume(checkpoint, &progress)?;
        }
        Ok(trainer)
    }

    fn resume(&mut self, checkpoint: &Checkpoint, progress: &Progress) -> Result<(), Error> {
        let moment = |kind: &str, name: &str| -> Result<Vec<f32>, Error> {
            let key = format!("optimizer.{kind}.{name}");
            checkpoint.extras.get(&key).map(|t| t.data.clone()).ok_or(Error::NotResumable)
        };
        let moments = self
            .model
            .parameters()
            .places()
            .map(|(name, ..)| Ok((name.to_owned(), moment("m", name)?, moment("v", name)?)))
            .collect::<Result<_, Error>>()?;
        let state = OptimizerState { moments, account: progress.account.clone() };
        self.optimizer.restore(self.model.parameters(), &state)?;
        (self.step, self.tokens) = (progress.step, progress.tokens);
        Ok(())
    }

    /// The model as it stands.
    pub fn model(&self) -> &Ramba {
        &self.model
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The number of the next step.
    pub fn next_step(&self) -> u64 {
        self.step
    }

    /// Tokens trained on so far.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Trains on the next step's batch. Nothing is read back, but for the gradients that go to other ranks.
    ///
    /// # Errors
    /// The device failed, as far as it is known by now.
    ///
    /// # Panics
    /// Where the batch is not the next step's.
    #[track_caller]
    pub fn step(&mut self, batch: &Batch) -> Result<Losses, Error> {
        let phase = *self.plan.phase(self.step).expect("a step within the plan");
        assert_eq!(
            (batch.step, batch.sequences, batch.length),
            (self.step, phase.sequences, phase.length),
            "the batch of another step"
        );
        let losses = match self.ranks.size() {
            1 => Parts::Coming(self.gradients(batch, &phase)?),
            _ => Parts::Summed(self.gradients_over_ranks(batch, &phase)?),
        };
        self.optimizer.step(self.model.parameters(), self.plan.schedule().at(self.step) as f32);
        self.step += 1;
        self.tokens += (phase.sequences * phase.length) as u64;
        self.model.gpu().submit();
        self.model.gpu().check()?;
        Ok(Losses(losses))
    }

    /// Sums the batch's gradients in the arenas → (3), the losses.
    fn gradients(&self, batch: &Batch, phase: &Phase) -> Result<Tensor, Error> {
        let at_once = if phase.at_once == 0 { phase.sequences } else { phase.at_once };
        let scale = self.optimizer.loss_scale();
        let mut losses: Option<Tensor> = None;
        for first in (0..phase.sequences).step_by(at_once) {
            let part = self.part(batch, phase, first, at_once.min(phase.sequences - first), &scale)?;
            losses = Some(match losses {
                Some(sum) => no_grad(|| ops::add(&sum, &part)),
                None => part,
            });
        }
        Ok(losses.expect("at least one sequence"))
    }

    /// The same where parts are dealt to ranks, one to each in a round: the sums are those of [`Trainer::gradients`] over
    /// the same parts in the same order.
    fn gradients_over_ranks(&self, batch: &Batch, phase: &Phase) -> Result<[f32; 3], Error> {
        let (rank, size) = (self.ranks.rank(), self.ranks.size());
        let share = phase.sequences / size;
        let at_once = if phase.at_once == 0 { share } else { phase.at_once.min(share) };
        let scale = self.optimizer.loss_scale();
        let parameters = self.model.parameters();
        let arenas: Vec<usize> = parameters.arenas().iter().map(|a| a.values.len()).collect();
        // The losses stand behind the gradients.
        let mut sum = OrderedSum::new(&*self.ranks, arenas.iter().sum::<usize>() + 3);
        for done in (0..share).step_by(at_once) {
            let n = at_once.min(share - done);
            parameters.zero_gradients();
            let losses = self.part(batch, phase, done * size + rank * n, n, &scale)?;
            let mut term = Vec::new();
            for gradients in trained(parameters) {
                term.extend(pollster::block_on(gradients.read::<f32>())?);
            }
            term.extend(pollster::block_on(losses.read::<f32>())?);
            sum.add(&term);
        }
        let sum = sum.finish();
        let (mut rest, losses) = sum.split_at(sum.len() - 3);
        for (gradients, len) in trained(parameters).into_iter().zip(arenas) {
            let (here, behind) = rest.split_at(len);
            gradients.write(here)?;
            rest = behind;
        }
        Ok([losses[0], losses[1], losses[2]])
    }

    /// Adds the gradients of sequences `first .. first + n` to the arenas → (3), their part of the losses.
    fn part(
        &self,
        batch: &Batch,
        phase: &Phase,
        first: usize,
        n: usize,
        scale: &Tensor,
    ) -> Result<Tensor, Error> {
        let gpu = self.model.gpu();
        let size = self.model.config.chunk_size;
        if (phase.group > 1 || phase.evidence > 0.0)
            && batch.clean.len() != batch.sequences * (phase.length / size)
        {
            let theirs = batch.sequences * phase.length / batch.clean.len().max(1);
            return Err(setting("tasks.chunk", theirs, format!("{size}, the model's chunk_size")));
        }
        let shape = [n, phase.length];
        let range = first * phase.length..(first + n) * phase.length;
        let words = |all: &[u32]| Tensor::from_slice(gpu, &all[range.clone()], shape);
        let numbers = |all: &[f32]| Tensor::from_slice(gpu, &all[range.clone()], shape);
        let (ids, targets, segment) = (words(&batch.ids)?, words(&batch.targets)?, words(&batch.segment)?);
        let (weights, answer_weights) = (numbers(&batch.weights)?, numbers(&batch.answer_weights)?);
        let sharing = if phase.group > 1 {
            let chunks = batch.clean.len() / batch.sequences;
            let clean = &batch.clean[first * chunks..(first + n) * chunks];
            let clean = Tensor::from_slice(gpu, clean, [n, chunks])?;
            Sharing { group: phase.group, clean: Some(clean), margin: phase.margin }
        } else {
            Sharing::default()
        };
        let evidence = (phase.evidence > 0.0).then(|| self.evidence(batch, phase, first, n)).transpose()?;
        let losses = self.model.loss(&ids, Some(&segment), &sharing, &targets, &weights, evidence.as_ref());
        losses.total.backward_from(scale);
        Ok(no_grad(|| {
            let answers = ops::sum(&ops::mul(&losses.ce, &answer_weights.reshape([losses.ce.len()])));
            let none = || Tensor::full(gpu, [1], DType::F32, 0.0);
            ops::concat_columns(&[&losses.text, &answers, &losses.evidence.unwrap_or_else(none)])
        }))
    }

    /// What the answers of sequences `first .. first + n` should select.
    fn evidence(&self, batch: &Batch, phase: &Phase, first: usize, n: usize) -> Result<Evidence, Error> {
        let gpu = self.model.gpu();
        let chunks = batch.clean.len() / batch.sequences;
        let rows = first * Batch::EVIDENCE..(first + n) * Batch::EVIDENCE;
        let (tokens, columns) = ((first * phase.length) as u32, (first * chunks) as u32);
        // Counted through the part; behind the last of a sequence none.
        let tokens: Vec<u32> = batch.evidence_tokens[rows.clone()]
            .iter()
            .map(|&token| if token == u32::MAX { token } else { token - tokens })
            .collect();
        let told: Vec<u32> = batch.evidence_chunks[rows.clone()]
            .iter()
            .flat_map(|told| told.map(|chunk| chunk.saturating_sub(columns)))
            .collect();
        let both = batch.clean.iter().zip(&batch.unasked).skip(first * chunks).take(n * chunks);
        let rivals: Vec<u32> = both.map(|(clean, unasked)| clean | unasked << 1).collect();
        Ok(Evidence {
            tokens: Tensor::from_slice(gpu, &tokens, [rows.len()])?,
            told: ops::Told {
                chunks: Tensor::from_slice(gpu, &told, [rows.len(), 3])?,
                rivals: Tensor::from_slice(gpu, &rivals, [n, chunks])?,
                weights: Tensor::from_slice(gpu, &batch.evidence_weights[rows.clone()], [rows.len()])?,
                group: phase.group,
            },
            margin: phase.evidence_margin,
            weight: phase.evidence,
        })
    }

    /// What the optimizer's device state says. Waits for the work recorded.
    ///
    /// # Errors
    /// Whatever went wrong on the device.
    pub async fn report(&self) -> Result<StepReport, Error> {
        Ok(self.optimizer.report().await?)
    }

    /// Whether all ranks hold the parameters that `checkpoint`, this rank's [`Trainer::checkpoint`], has: collective.
    ///
    /// # Errors
    /// The rank that does not.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn in_step(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        let all = self.ranks.gather(checkpoint.fingerprint().as_bytes());
        let apart = all.iter().position(|theirs| *theirs != all[0]);
        apart.map_or(Ok(()), |rank| Err(Error::OutOfStep { rank, step: self.step }))
    }

    /// Everything that continues this run bit for bit, read from the device.
    ///
    /// # Errors
    /// Whatever went wrong on the device.
    pub async fn checkpoint(&self) -> Result<Checkpoint, Error> {
        let mut checkpoint = Checkpoint {
            config: self.model.config.clone(),
            tensors: Default::default(),
            extras: Default::default(),
            metadata: Default::default(),
        };
        for (name, tensor) in self.model.parameters().iter() {
            let data = tensor.read::<f32>().await?;
            checkpoint.tensors.insert(name.to_owned(), HostTensor::new(tensor.shape(), data));
        }
        let state = self.optimizer.state(self.model.parameters()).await?;
        for (name, m, v) in state.moments {
            let shape = checkpoint.tensors[&name].shape.clone();
            checkpoint.extras.insert(format!("optimizer.m.{name}"), HostTensor::new(shape.clone(), m));
            checkpoint.extras.insert(format!("optimizer.v.{name}"), HostTensor::new(shape, v));
        }
        let progress = Progress {
            step: self.step,
            tokens: self.tokens,
            plan: self.plan.clone(),
            account: state.account,
        };
        checkpoint.metadata.training = Some(json!(progress));
        Ok(checkpoint)
    }
}

/// The gradients' arenas.
fn trained(parameters: &Parameters) -> Vec<&Tensor> {
    parameters.gradients().expect("a trained model has gradients")
}

/// Where the run that a checkpoint is of stands; None where it is of none.
///
/// # Errors
/// A training state that is not complete.
pub fn progress(checkpoint: &Checkpoint) -> Result<Option<Progress>, Error> {
    let Some(training) = &checkpoint.metadata.training else {
        return if checkpoint.has_moments() { Err(Error::NotResumable) } else { Ok(None) };
    };
    let progress = Progress::deserialize(training).map_err(|_| Error::NotResumable)?;
    if !checkpoint.has_moments() {
        return Err(Error::NotResumable);
    }
    Ok(Some(progress))
}

/// The next step of the run that a checkpoint is of, by its file's header alone.
pub fn next_step(header: &Header) -> Option<u64> {
    let training = header.metadata.get("rambutan.training")?;
    serde_json::from_str::<serde_json::Value>(training).ok()?["step"].as_u64()
}
