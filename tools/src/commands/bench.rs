//! `rambutan bench`: GPU time of every op at the sizes that matter, with what it moves and computes.

use std::time::{Duration, Instant};

use rambutan_engine::{
    Gpu, Tensor, autograd, no_grad, ops,
    testing::{Case, Cost, Draw, Sizes},
};
use serde_json::json;

use super::bench_model::MODEL_BENCHES;
use crate::problem::{Problem, print, print_json};

/// Times every op: GPU timestamps, bandwidth, arithmetic
#[derive(Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan bench\n  rambutan bench matmul\n  rambutan bench rms_norm --json\n\nTimes are medians of 20 runs after a warm-up; slow devices stop earlier, see the column `runs`. share: of the time, what a copy or a large\nproduct of this adapter would take for the same bytes or operations."
)]
pub struct Bench {
    /// Only ops whose name contains this
    filter: Option<String>,
    /// Runs to take the median of
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Seconds after which an op stops with the runs it has
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Sizes that move more MiB than this are left out
    #[arg(long, default_value_t = 512, value_name = "MIB")]
    max_mib: usize,
    /// Prints a line of JSON for every op and size
    #[arg(long)]
    json: bool,
}

/// Work that raises a GPU's clocks before it is timed.
const WARM_UP: Duration = Duration::from_millis(500);

/// What this adapter reaches with our own kernels, a second: the floor under every op's time.
struct Ceilings {
    /// Bytes read and written by a large copy.
    bytes: f64,
    /// Operations of a large product in f32, and in f16 where the adapter has it.
    flops: f64,
    flops_half: f64,
}

struct Times {
    forward: Vec<f64>,
    backward: Vec<f64>,
    kernels: Vec<(&'static str, f64)>,
}

impl Ceilings {
    /// The least time in seconds that an op's forward pass can take at these rates.
    fn floor(&self, case: &Case, cost: Cost) -> f64 {
        let flops = if case.half.is_some() { self.flops_half } else { self.flops };
        (cost.bytes as f64 / self.bytes).max(cost.flops as f64 / flops)
    }
}

impl Bench {
    pub fn run(&self, gpu: &Gpu) -> Result<(), Problem> {
        let wanted = self.filter.as_deref().unwrap_or_default();
        let cases: Vec<Case> =
            ops::cases().into_iter().filter(|c| c.stem.contains(wanted) && !c.bench.is_empty()).collect();
        let models: Vec<_> =
            MODEL_BENCHES.iter().filter(|m| wanted.contains("model") && m.name.contains(wanted)).collect();
        if cases.is_empty() && models.is_empty() {
            let stems: Vec<_> = ops::cases().iter().filter(|c| !c.bench.is_empty()).map(|c| c.stem).collect();
            let message = format!("no op with sizes to time contains `{wanted}`");
            let models: Vec<_> = MODEL_BENCHES.iter().map(|m| m.name).collect();
            return Err(Problem::input(message, format!("ops: {} {}", stems.join(" "), models.join(" "))));
        }
        // The host's clock serves where the adapter has no timestamps.
        let stamps = gpu.profile(true);
        let clock = if stamps { "GPU timestamps" } else { "host clock" };
        let c = gpu.capabilities();
        let ceilings = if cases.is_empty() { None } else { Some(self.ceilings(gpu, stamps)?) };
        if !self.json {
            print(&format!("{} · {} · {clock}\n", c.name, c.backend))?;
            if let Some(Ceilings { bytes, flops, flops_half }) = &ceilings {
                print(&format!(
                    "ceilings: copy {:.1} GB/s, products {:.3} TFLOP/s in f32, {:.3} in f16\n\n",
                    bytes * 1e-9,
                    flops * 1e-12,
                    flops_half * 1e-12
                ))?;
            }
            let heads = ["op", "sizes", "runs", "forward ms", "backward ms", "GB/s", "TFLOP/s", "share"];
            let [op, sizes, runs, forward, backward, gb, tflop, share] = heads;
            print(&format!(
                "{op:24} {sizes:40} {runs:>5} {forward:>11} {backward:>11} {gb:>9} {tflop:>9} {share:>6}\n"
            ))?;
        }
        for case in cases.iter().filter(|c| (c.runs_on)(gpu)) {
            for values in case.bench {
                let sizes = case.exactly(values.to_vec());
                let cost = (case.cost)(&sizes);
                let mut line = json!({
                    "op": case.stem, "sizes": sizes.to_string(), "bytes": cost.bytes, "flops": cost.flops,
                    "device": c.name, "backend": c.backend, "driver": c.driver, "clock": clock,
                });
                let row = if cost.bytes >> 20 > self.max_mib {
                    line["skipped"] = json!(format!("moves {} MiB: raise --max-mib", cost.bytes >> 20));
                    format!("skipped: moves {} MiB, more than --max-mib\n", cost.bytes >> 20)
                } else {
                    let times = self.time(gpu, case, &sizes, stamps)?;
                    let forward = median(&times.forward);
                    let backward = (!times.backward.is_empty()).then(|| median(&times.backward));
                    let rate = |amount: usize, unit: f64| amount as f64 / forward.max(1e-9) / unit;
                    let (gb, tflop) = (rate(cost.bytes, 1e9), rate(cost.flops, 1e12));
                    let floor = ceilings.as_ref().map_or(0.0, |c| c.floor(case, cost));
                    let share = floor / forward.max(1e-9);
                    line["floor_ms"] = json!(floor * 1e3);
                    line["share"] = json!(share);
                    line["runs"] = json!(times.forward.len());
                    line["forward_ms"] = json!(forward * 1e3);
                    line["backward_ms"] = json!(backward.map(|b| b * 1e3));
                    line["gb_per_s"] = json!(gb);
                    line["tflop_per_s"] = json!(tflop);
                    line["kernels_ms"] =
                        times.kernels.iter().map(|(k, s)| ((*k).to_owned(), json!(s * 1e3))).collect();
                    let backward = backward.map_or("-".into(), |b| format!("{:.3}", b * 1e3));
                    format!(
                        "{:>5} {:>11.3} {backward:>11} {gb:>9.1} {tflop:>9.3} {:>5.0}%\n",
                        times.forward.len(),
                        forward * 1e3,
                        share * 100.0
                    )
                };
                if self.json {
                    print_json(&line)?;
                } else {
                    print(&format!("{:24} {:40} {row}", case.stem, sizes.to_string()))?;
                }
                gpu.trim();
            }
        }
        for model in models {
            let line = model.run(gpu, self.runs)?;
            if self.json {
                print_json(&line)?;
            } else {
                print(&format!(
                    "{:24} {:40} {:>5} {:>11.3} ms {:>12.0} tokens/s\n",
                    model.name,
                    line["sizes"].as_str().unwrap_or_default(),
                    line["runs"],
                    line["ms"].as_f64().unwrap_or(0.0),
                    line["tokens_per_s"].as_f64().unwrap_or(0.0),
                ))?;
                for kernel in line["kernels"].as_array().into_iter().flatten() {
                    print(&format!(
                        "    {:36} {:>6} × {:>11.3} ms\n",
                        kernel[0].as_str().unwrap_or_default(),
                        kernel[1],
                        kernel[2].as_f64().unwrap_or(0.0)
                    ))?;
                }
            }
            gpu.trim();
        }
        Ok(())
    }

    fn ceilings(&self, gpu: &Gpu, stamps: bool) -> Result<Ceilings, Problem> {
        let all = ops::cases();
        let (count, n) = if gpu.capabilities().cpu { (1 << 22, 512) } else { (1 << 24, 4096) };
        let best = |stem: &str, values: &[usize]| -> Result<(f64, Cost), Problem> {
            let Some(case) = all.iter().find(|c| c.stem == stem && (c.runs_on)(gpu)) else {
                return Ok((f64::INFINITY, Cost::default()));
            };
            let sizes = case.exactly(values.to_vec());
            let few = Bench { runs: 5, seconds: 2, ..self.clone() };
            let times = few.time(gpu, case, &sizes, stamps)?;
            Ok((times.forward.iter().copied().fold(f64::INFINITY, f64::min), (case.cost)(&sizes)))
        };
        let (copy, moved) = best("copy", &[count])?;
        let (single, done) = best("matmul", &[1, n, n, n, 0, 0])?;
        let (half, done_half) = best("matmul.f16", &[1, n, n, n, 0, 0])?;
        gpu.trim();
        let flops = done.flops as f64 / single;
        Ok(Ceilings {
            bytes: moved.bytes as f64 / copy,
            flops,
            flops_half: (done_half.flops as f64 / half).max(flops),
        })
    }

    fn time(&self, gpu: &Gpu, case: &Case, sizes: &Sizes, stamps: bool) -> Result<Times, Problem> {
        let inputs = case.draw_inputs(sizes, &mut Draw::new(1));
        let tensors: Vec<Tensor> = inputs.iter().map(|i| i.tensor(gpu)).collect();
        let differentiable = inputs.iter().any(|i| i.differentiable);
        drop(inputs);
        let mut kernels: Vec<(&'static str, f64)> = Vec::new();
        let mut measure = |work: &mut dyn FnMut(), keep: bool| -> Result<f64, Problem> {
            gpu.kernel_times()?;
            let begin = Instant::now();
            work();
            let times = gpu.kernel_times()?;
            let host = begin.elapsed().as_secs_f64();
            if keep {
                kernels.extend(times.iter().map(|k| (k.stem, k.nanoseconds * 1e-9)));
            }
            Ok(if stamps { times.iter().map(|k| k.nanoseconds).sum::<f64>() * 1e-9 } else { host })
        };
        let (mut forward, mut backward) = (Vec::new(), Vec::new());
        // While the host drew the inputs a GPU has gone to sleep: its clocks rise only under work.
        let begin = Instant::now();
        while !gpu.capabilities().cpu && begin.elapsed() < WARM_UP {
            measure(&mut || drop(no_grad(|| (case.run)(sizes, &tensors))), false)?;
        }
        let begin = Instant::now();
        // The first round compiles kernels and fills the pool.
        for round in 0..=self.runs {
            let seconds = measure(&mut || drop(no_grad(|| (case.run)(sizes, &tensors))), round == 1)?;
            if round > 0 {
                forward.push(seconds);
            }
            if differentiable {
                let leaves: Vec<Tensor> = tensors
                    .iter()
                    .map(|t| if t.needs_grad() { t.detach().requires_grad() } else { t.clone() })
                    .collect();
                let outputs = (case.run)(sizes, &leaves);
                let used: Vec<&Tensor> =
                    outputs.iter().filter(|y| y.dtype().is_float() && y.needs_grad()).collect();
                let seeds: Vec<Tensor> =
                    used.iter().map(|y| Tensor::full(gpu, y.shape(), y.dtype(), 0.5)).collect();
                let pairs: Vec<_> = used.into_iter().zip(&seeds).collect();
                let seconds = measure(&mut || autograd::backward(&pairs), round == 1)?;
                if round > 0 {
                    backward.push(seconds);
                }
            }
            if !forward.is_empty() && begin.elapsed() > Duration::from_secs(self.seconds) {
                break;
            }
        }
        Ok(Times { forward, backward, kernels })
    }
}

pub(super) fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { (sorted[middle - 1] + sorted[middle]) / 2.0 } else { sorted[middle] }
}
