//! Whole-model rows of `rambutan bench`: a training step, forward and backward, and reading a text into memory.

use std::time::Instant;

use rambutan_engine::{Gpu, Tensor, no_grad};
use rambutan_model::{
    Checkpoint, Config, Ramba,
    ramba::{Options, Sharing},
    rng::Rng,
};
use serde_json::{Value, json};

use crate::problem::Problem;

/// One whole-model measurement: sequences × length tokens a step.
pub struct ModelBench {
    pub name: &'static str,
    pub sequences: usize,
    pub length: usize,
    pub group: usize,
    pub train: bool,
    pub half: bool,
}

/// The sizes of the recipe's two phases, and of a reading batch.
pub const MODEL_BENCHES: [ModelBench; 6] = [
    ModelBench { name: "model.train", sequences: 32, length: 4096, group: 1, train: true, half: false },
    ModelBench {
        name: "model.train_groups",
        sequences: 32,
        length: 4096,
        group: 16,
        train: true,
        half: false,
    },
    ModelBench { name: "model.read", sequences: 256, length: 512, group: 1, train: false, half: false },
    ModelBench { name: "model.train_half", sequences: 32, length: 4096, group: 1, train: true, half: true },
    ModelBench {
        name: "model.train_groups_half",
        sequences: 32,
        length: 4096,
        group: 16,
        train: true,
        half: true,
    },
    ModelBench { name: "model.read_half", sequences: 256, length: 512, group: 1, train: false, half: true },
];

impl ModelBench {
    /// Medians over `runs` steps after a warm-up; on a CPU adapter a sixty-fourth of the tokens.
    pub fn run(&self, gpu: &Gpu, runs: u32) -> Result<Value, Problem> {
        let sequences = if gpu.capabilities().cpu {
            (self.sequences / 64).max(self.group).max(1)
        } else {
            self.sequences
        };
        let length = if gpu.capabilities().cpu { self.length.min(1024) } else { self.length };
        let config = Config::small();
        let checkpoint = Checkpoint::initial(config.clone(), 1)?;
        let model = Ramba::with(gpu, &checkpoint, Options { trained: self.train, half: self.half })?;
        let mut rng = Rng::new(3);
        let count = sequences * length;
        let shape = [sequences, length];
        let bytes: Vec<u32> = (0..count).map(|_| 32 + rng.below(96) as u32).collect();
        let ids = Tensor::from_slice(gpu, &bytes, shape)?;
        let targets = Tensor::from_slice(gpu, &bytes, shape)?;
        let weights = Tensor::from_slice(gpu, &vec![1.0f32 / count as f32; count], shape)?;
        let segments: Vec<u32> = (0..count).map(|t| (t % length / 500) as u32).collect();
        let segment = Tensor::from_slice(gpu, &segments, shape)?;
        let chunks = length / config.chunk_size;
        let clean = Tensor::from_slice(gpu, &vec![1u32; sequences * chunks], [sequences, chunks])?;
        let sharing = Sharing { group: self.group, clean: (self.group > 1).then_some(clean) };
        let step = || {
            if !self.train {
                drop(no_grad(|| model.remember_segments(&ids)));
                return;
            }
            let logits = model.forward(&ids, Some(&segment), &sharing);
            let (loss, _) = model.loss(&logits, &targets, &weights);
            drop(logits);
            model.parameters().zero_gradients();
            loss.backward();
        };
        gpu.profile(false);
        step();
        gpu.wait()?;
        let mut seconds = Vec::new();
        for _ in 0..runs {
            let begin = Instant::now();
            step();
            gpu.wait()?;
            seconds.push(begin.elapsed().as_secs_f64());
            if seconds.iter().sum::<f64>() > 20.0 {
                break;
            }
        }
        gpu.profile(true);
        step();
        let kernels = gpu.kernel_times()?;
        let memory = gpu.memory();
        let c = gpu.capabilities();
        let time = super::bench::median(&seconds);
        Ok(json!({
            "op": self.name, "sizes": format!("sequences={sequences} length={length} group={}", self.group),
            "device": c.name, "backend": c.backend, "driver": c.driver, "runs": seconds.len(),
            "ms": time * 1e3, "tokens_per_s": count as f64 / time,
            "gpu_ms": kernels.iter().map(|k| k.nanoseconds).sum::<f64>() * 1e-6,
            "peak_device_bytes": memory.peak,
            "kernels": kernels.iter().map(|k| json!([k.stem, k.dispatches, k.nanoseconds * 1e-6])).collect::<Vec<_>>(),
        }))
    }
}
