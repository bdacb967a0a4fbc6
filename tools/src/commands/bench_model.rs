//! Whole-model rows of `rambutan bench`: a training step with its optimizer, reading a text into memory, and, for the
//! model of 370 M parameters, reading a prompt and writing one token after it.

use std::time::Instant;

use rambutan_engine::{
    Gpu, Tensor,
    gpu::{KernelTime, Profile},
    no_grad,
    optim::{AdamW, AdamWOptions, LossScale},
};
use rambutan_model::{
    Checkpoint, Config, Error, Ramba,
    checkpoint::HostTensor,
    generate::{Generator, Sampling},
    ramba::{Options, Sharing},
    rng::Rng,
};
use serde_json::{Value, json};

use super::bench::{is_about_memory, median, now};

/// What of a model is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Forward, backward and AdamW.
    Train,
    /// The lower decoder and the chunks' encoder: a text into memory.
    Read,
    /// All layers over a prompt, logits of its last token.
    Prefill,
    /// One token after a prompt.
    Decode,
}

/// One whole-model measurement: sequences × length tokens a step.
pub struct ModelBench {
    pub name: &'static str,
    part: Part,
    config: fn() -> Config,
    sequences: usize,
    length: usize,
    group: usize,
    half: bool,
    /// Milliseconds on an H200, of half precision as its peers are.
    goal: Option<f64>,
    /// As a peer's file names it.
    torch: &'static str,
}

const SMALL: ModelBench = ModelBench {
    name: "",
    part: Part::Train,
    config: Config::small,
    sequences: 32,
    length: 4096,
    group: 1,
    half: false,
    goal: None,
    torch: "",
};

const LARGE: ModelBench =
    ModelBench { config: Config::ramba_370m, sequences: 1, length: 65536, half: true, ..SMALL };

/// The sizes of the recipe's two phases, of a reading batch, and of the published model.
pub const MODEL_BENCHES: [ModelBench; 9] = [
    ModelBench { name: "model.train", ..SMALL },
    ModelBench { name: "model.train_groups", group: 16, ..SMALL },
    ModelBench { name: "model.read", part: Part::Read, sequences: 256, length: 512, ..SMALL },
    ModelBench { name: "model.train_half", half: true, goal: Some(65.5), ..SMALL },
    ModelBench { name: "model.train_groups_half", group: 16, half: true, goal: Some(109.2), ..SMALL },
    ModelBench {
        name: "model.read_half",
        part: Part::Read,
        sequences: 256,
        length: 512,
        half: true,
        goal: Some(6.55),
        ..SMALL
    },
    ModelBench {
        name: "model.370m.train",
        sequences: 8,
        length: 4096,
        goal: Some(451.0),
        torch: "ramba-370M train-noassert (our conv)|B8 L4096 fwd+bwd+AdamW|bf16",
        ..LARGE
    },
    ModelBench {
        name: "model.370m.prefill",
        part: Part::Prefill,
        goal: Some(220.0),
        torch: "ramba-370M prefill (our conv)|B1 L65536 segments of 16384|bf16",
        ..LARGE
    },
    ModelBench {
        name: "model.370m.decode",
        part: Part::Decode,
        goal: Some(1.5),
        torch: "ramba-370M decode (our conv)|B1 after 65536, 64 tokens|bf16",
        ..LARGE
    },
];

/// Seconds after which a model stops with the steps it has.
const SECONDS: f64 = 5.0;
/// Tokens of a prompt that go through all layers at once.
const PIECE: usize = 16384;
/// Tokens that are written before any is timed, and those that are compared.
const WARM: usize = 4;
const COMPARED: usize = 8;
/// Values of a large parameter that are drawn; they repeat.
const DRAWN: usize = 131_071;

impl ModelBench {
    /// What is known of the row before it runs.
    pub fn line(&self, gpu: &Gpu) -> Value {
        let c = gpu.capabilities();
        json!({
            "op": self.name, "row": self.name, "device": c.name, "backend": c.backend, "driver": c.driver,
            "time": now(), "clock": "host clock", "goal_ms": self.goal,
            "peers": { "torch": self.torch, "burn": "" },
        })
    }

    /// Medians over `runs` steps after a warm-up; on a CPU adapter a sixty-fourth of the tokens, of the small model.
    ///
    /// # Errors
    /// The device failed, or its memory does not do.
    pub fn run(&self, gpu: &Gpu, runs: u32) -> Result<Value, Error> {
        let cpu = gpu.capabilities().cpu;
        let config = (self.config)();
        let mut line = self.line(gpu);
        if cpu && config.parameter_count() > 100_000_000 {
            line["skipped"] = json!("370 M parameters are not for a CPU");
            return Ok(line);
        }
        if self.half && !gpu.capabilities().f16 {
            line["skipped"] = json!("the adapter has no f16");
            return Ok(line);
        }
        let sequences = if cpu { (self.sequences / 64).max(self.group).max(1) } else { self.sequences };
        let length = if cpu { self.length.min(1024) } else { self.length };
        if cpu {
            // Other sizes than the row's: neither its goal nor its peers are for them.
            line["goal_ms"] = Value::Null;
            line["peers"] = Value::Null;
        }
        line["sizes"] = json!(format!("sequences={sequences} length={length} group={}", self.group));
        gpu.profile(Profile::Off);
        gpu.trim();
        gpu.reset_peaks();
        let trained = self.part == Part::Train;
        let model = Ramba::with(gpu, &drawn(config)?, Options { trained, half: self.half })?;
        let timer = Timer { gpu, runs };
        let steps = match self.part {
            Part::Train => self.train(&timer, &model, sequences, length, &mut line)?,
            Part::Read => {
                let ids = upload(gpu, &model, sequences, length)?;
                timer.steps(|| {
                    no_grad(|| model.remember_segments(&ids, 0));
                    Ok(())
                })?
            }
            Part::Prefill => {
                let ids = pieces(gpu, &model, length)?;
                timer.steps(|| no_grad(|| prompt(&model, &ids)))?
            }
            Part::Decode => {
                let prompt = words(&model, length);
                line["checked"] = json!(agreed(&model, &prompt)?);
                let tokens = Timer { gpu, runs: runs.max(64) };
                tokens.tokens(&mut said_after(&model, &prompt, Sampling::default())?)?
            }
        };
        if self.part == Part::Prefill {
            line["checked"] = json!("logits are finite");
        }
        let count = if self.part == Part::Decode { 1 } else { sequences * length };
        let time = median(&steps.seconds);
        line["runs"] = json!(steps.seconds.len());
        line["ms"] = json!(time * 1e3);
        line["met"] = json!(line["goal_ms"].as_f64().map(|goal| time * 1e3 <= goal));
        line["host_ms"] = json!((!steps.host.is_empty()).then(|| median(&steps.host) * 1e3));
        line["first_ms"] = json!(steps.first * 1e3);
        line["tokens_per_s"] = json!(count as f64 / time);
        line["peak_device_bytes"] = json!(gpu.memory().peak);
        line["gpu_ms"] = json!(steps.kernels.iter().map(|k| k.nanoseconds).sum::<f64>() * 1e-6);
        line["kernels"] =
            steps.kernels.iter().map(|k| json!([k.stem, k.dispatches, k.nanoseconds * 1e-6])).collect();
        Ok(line)
    }

    /// Steps over all sequences; where memory does not hold them at once, in parts whose gradients add up.
    fn train(
        &self,
        timer: &Timer<'_>,
        model: &Ramba,
        sequences: usize,
        length: usize,
        line: &mut Value,
    ) -> Result<Steps, Error> {
        let loss_scale =
            if self.half { LossScale::Dynamic { first: 65536.0, grow_after: 1000 } } else { LossScale::None };
        let options = AdamWOptions { loss_scale, ..AdamWOptions::default() };
        let mut optimizer = AdamW::new(model.parameters(), options);
        let mut at_once = sequences;
        loop {
            // What an attempt that failed had in use is not what a step takes.
            timer.gpu.reset_peaks();
            match self.train_in_parts(timer, model, &mut optimizer, sequences, at_once, length) {
                Ok((steps, loss)) => {
                    line["at_once"] = json!(at_once);
                    line["checked"] = json!(format!("the loss, {loss:.3}, is finite"));
                    return Ok(steps);
                }
                Err(Error::Engine(e)) if is_about_memory(&e) && at_once >= 2 * self.group => {
                    super::bench::forget_errors(timer.gpu);
                    at_once /= 2;
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn train_in_parts(
        &self,
        timer: &Timer<'_>,
        model: &Ramba,
        optimizer: &mut AdamW,
        sequences: usize,
        at_once: usize,
        length: usize,
    ) -> Result<(Steps, f32), Error> {
        let gpu = timer.gpu;
        let shape = [at_once, length];
        let count = at_once * length;
        let ids = upload(gpu, model, at_once, length)?;
        let weights = Tensor::from_slice(gpu, &vec![1.0f32 / (sequences * length) as f32; count], shape)?;
        let segments: Vec<u32> = (0..count).map(|t| (t % length / 500) as u32).collect();
        let segment = Tensor::from_slice(gpu, &segments, shape)?;
        // Facts restart states in the recipe; the published model trains on whole texts.
        let segment = (model.config.segment_size.is_some_and(|s| s < length)).then_some(segment);
        let chunks = length / model.config.chunk_size;
        let clean = Tensor::from_slice(gpu, &vec![1u32; at_once * chunks], [at_once, chunks])?;
        let sharing = Sharing { group: self.group, clean: (self.group > 1).then_some(clean), margin: 0.0 };
        let mut last = None;
        let steps = timer.steps(|| {
            for _ in 0..sequences / at_once {
                let loss = model.loss(&ids, segment.as_ref(), &sharing, &ids, &weights, None).total;
                loss.backward_from(&optimizer.loss_scale());
                last = Some(loss.detach());
            }
            optimizer.step(model.parameters(), 1e-5);
            Ok(())
        })?;
        let loss = last.expect("at least one step").to_vec::<f32>()?[0] * (sequences / at_once) as f32;
        if !loss.is_finite() {
            return Err(broken(format!("the loss is {loss}")));
        }
        Ok((steps, loss))
    }
}

/// Runs steps and times them.
struct Timer<'a> {
    gpu: &'a Gpu,
    runs: u32,
}

/// What steps took, in seconds: to their end, to record where that is told apart, the first with all that it compiles; and
/// by kernel.
struct Steps {
    seconds: Vec<f64>,
    host: Vec<f64>,
    first: f64,
    kernels: Vec<KernelTime>,
}

impl Timer<'_> {
    fn steps(&self, mut step: impl FnMut() -> Result<(), Error>) -> Result<Steps, Error> {
        let mut once = || -> Result<[f64; 2], Error> {
            let begin = Instant::now();
            step()?;
            let host = begin.elapsed().as_secs_f64();
            self.gpu.wait()?;
            Ok([begin.elapsed().as_secs_f64(), host])
        };
        let [first, _] = once()?;
        let (mut seconds, mut host) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            let [all, recorded] = once()?;
            seconds.push(all);
            host.push(recorded);
            if seconds.iter().sum::<f64>() > SECONDS {
                break;
            }
        }
        let kernels = self.kernels(step)?;
        Ok(Steps { seconds, host, first, kernels })
    }

    /// Tokens as they come, one after the other: the host records the next one while the device is at this one.
    fn tokens(&self, generator: &mut Generator<'_>) -> Result<Steps, Error> {
        let mut once = || {
            let begin = Instant::now();
            pollster::block_on(generator.next())?;
            Ok::<_, Error>(begin.elapsed().as_secs_f64())
        };
        let first = once()?;
        // The first two of them set out with a device that waits.
        for _ in 0..WARM {
            once()?;
        }
        let seconds = (0..self.runs).map(|_| once()).collect::<Result<_, _>>()?;
        let kernels = self.kernels(|| once().map(|_| ()))?;
        Ok(Steps { seconds, host: Vec::new(), first, kernels })
    }

    fn kernels(&self, step: impl FnOnce() -> Result<(), Error>) -> Result<Vec<KernelTime>, Error> {
        self.gpu.wait()?;
        self.gpu.profile(Profile::Kernels);
        step()?;
        let kernels = self.gpu.kernel_times()?;
        self.gpu.profile(Profile::Off);
        Ok(kernels)
    }
}

fn said_after<'m>(model: &'m Ramba, prompt: &[u32], sampling: Sampling) -> Result<Generator<'m>, Error> {
    Generator::new(model, prompt, model.config.vocab_size, sampling)
}

/// Holds tokens that the device draws against those that the host draws from logits → what was held against what.
fn agreed(model: &Ramba, prompt: &[u32]) -> Result<String, Error> {
    // So few probabilities leave the most probable token alone.
    let by_host = Sampling { temperature: 1.0, top_p: 1e-6, seed: 0 };
    let [ours, expected] = [Sampling::default(), by_host].map(|sampling| {
        let mut generator = said_after(model, prompt, sampling)?;
        (0..COMPARED).map(|_| pollster::block_on(generator.next())).collect::<Result<Vec<u32>, _>>()
    });
    let (ours, expected) = (ours?, expected?);
    if ours != expected {
        return Err(broken(format!("the device drew tokens {ours:?}, the host {expected:?}")));
    }
    Ok(format!("{COMPARED} tokens as the host draws them"))
}

/// Random weights; of a large parameter some are drawn and repeat, since nobody reads what the model says.
fn drawn(config: Config) -> Result<Checkpoint, Error> {
    let mut checkpoint = Checkpoint::initial(Config::small(), 1)?;
    checkpoint.tensors = config
        .parameters()
        .into_iter()
        .map(|spec| {
            let values = spec.init.values(spec.elements().min(DRAWN), 1);
            let data = values.iter().copied().cycle().take(spec.elements()).collect();
            (spec.name.clone(), HostTensor::new(spec.shape, data))
        })
        .collect();
    checkpoint.config = config;
    Ok(checkpoint)
}

/// Random tokens.
fn words(model: &Ramba, count: usize) -> Vec<u32> {
    let mut rng = Rng::new(3);
    let most = model.config.vocab_size.min(50_000) - 32;
    (0..count).map(|_| 32 + rng.below(most) as u32).collect()
}

/// Random tokens (sequences, length).
fn upload(gpu: &Gpu, model: &Ramba, sequences: usize, length: usize) -> Result<Tensor, Error> {
    Ok(Tensor::from_slice(gpu, &words(model, sequences * length), [sequences, length])?)
}

/// A prompt in pieces that go through the layers at once.
fn pieces(gpu: &Gpu, model: &Ramba, length: usize) -> Result<Vec<Tensor>, Error> {
    (0..length).step_by(PIECE).map(|first| upload(gpu, model, 1, PIECE.min(length - first))).collect()
}

/// Reads a prompt, and its last token's logits.
fn prompt(model: &Ramba, pieces: &[Tensor]) -> Result<(), Error> {
    let mut cache = model.cache();
    let mut logits = None;
    for ids in pieces {
        logits = Some(model.extend_to_last(&mut cache, ids, None));
    }
    match logits.expect("a prompt has tokens").to_vec::<f32>()?.iter().all(|v| v.is_finite()) {
        true => Ok(()),
        false => Err(broken("logits are not finite".into())),
    }
}

fn broken(what: String) -> Error {
    Error::Engine(rambutan_engine::Error::Device(what))
}
