//! `rambutan bench`: GPU time of every op at the sizes that matter, with what it moves and computes, checked in the same
//! run.

use std::{
    collections::HashSet,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rambutan_engine::{
    DType, Error, Gpu, Tensor, autograd,
    gpu::Profile,
    no_grad, ops,
    testing::{self, Case, Cost, Draw, Input, Sizes},
};
use serde_json::{Value, json};

use super::{
    bench_compare::{Comparison, earlier},
    bench_crossover,
    bench_model::{MODEL_BENCHES, ModelBench},
    bench_rows::{Pass, ROWS, Row},
    guarded,
};
use crate::problem::{Problem, print, print_json};

/// Times every op: GPU timestamps, bandwidth, arithmetic, results checked
#[derive(Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan bench\n  rambutan bench matmul\n  rambutan bench rms_norm --json\n  rambutan bench anchors --json > ours.jsonl\n  rambutan bench anchors --compare peers.json --record benches/record\n  rambutan bench --results ours.jsonl --compare peers.json\n  rambutan bench crossover --results ours.jsonl --out pictures\n\nTimes are medians of 20 runs after a warm-up, each on another copy of the inputs; slow devices stop earlier, see the\ncolumn `runs`. share: of the time, what a copy or a large product of this adapter would take for the same bytes or\noperations. host: what recording a run took. A row whose result is wrong has no time, and the command ends with 1."
)]
pub struct Bench {
    /// Only rows and ops whose name contains this; `anchors`: all rows, with the whole models; `crossover`: causal
    /// attention beside HSA from 1 K tokens to 64 K
    filter: Option<String>,
    /// Runs to take the median of
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Seconds after which an op stops with the runs it has
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Sizes of ops that move more MiB than this are left out
    #[arg(long, default_value_t = 512, value_name = "MIB")]
    pub(super) max_mib: usize,
    /// Leaves the whole models out
    #[arg(long)]
    quick: bool,
    /// Prints a line of JSON for every row, op and size
    #[arg(long)]
    pub(super) json: bool,
    /// Draws `crossover` into DIR/crossover.png
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Times of others beside ours: the JSON of peers.py or of a burn benchmark; may be given again
    #[arg(long, value_name = "FILE")]
    compare: Vec<PathBuf>,
    /// Times nothing: reads what an earlier `--json` printed, to compare it or to draw `crossover`
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Adds the comparison to FOLDER/DEVICE/DATE-anchors.md
    #[arg(long, value_name = "FOLDER", requires = "compare")]
    record: Option<PathBuf>,
}

/// Work that raises a GPU's clocks before an op is timed, since the check of the last one on the host let them fall: until
/// for so long no run was faster than all before, and no longer than this.
const WARM_UP: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(3)];
/// Seconds of work that stands before each timed run: a device that mostly waits for the host lowers its clocks.
const BUSY: f64 = 2e-3;
/// Runs that are recorded together while a device warms up.
const MOST_TOGETHER: usize = 64;

/// Inputs together exceed this, so that none lies in a cache when its turn comes.
const BEYOND_CACHES: usize = 128 << 20;
/// Copies of the inputs, whatever their size.
const MOST_COPIES: usize = 64;

/// The row of a device's first product, from the call to the result.
const FIRST_CALL: &str = "first_call.matmul";

/// What this adapter reaches with our own kernels, a second: the floor under every op's time.
struct Ceilings {
    /// Bytes read and written by a large copy.
    bytes: f64,
    /// Operations of a large product in f32, and in f16 where the adapter has it.
    flops: f64,
    flops_half: f64,
    /// Seconds that a launch takes which has next to nothing to do.
    launch: f64,
}

impl Ceilings {
    /// The least time in seconds that a pass can take at these rates.
    fn floor(&self, case: &Case, cost: Cost) -> f64 {
        let flops = if case.half.is_some() { self.flops_half } else { self.flops };
        (cost.bytes as f64 / self.bytes).max(cost.flops as f64 / flops)
    }
}

/// Seconds of each run of one pass, on the device and to record.
#[derive(Default)]
struct Times {
    device: Vec<f64>,
    host: Vec<f64>,
}

/// What was measured of one case at one size.
struct Measured {
    forward: Times,
    backward: Times,
    kernels: Vec<(&'static str, f64)>,
    /// Forward and backward.
    costs: [Cost; 2],
    /// Copies of the inputs, and the bytes of one.
    copies: usize,
    bytes: usize,
    /// Seconds of the first run, with all that it compiles.
    first: f64,
    /// What was compared.
    checked: String,
}

/// Whether the reference takes no longer than a second or so for all of it.
pub(super) fn is_quick_to_check(cost: Cost) -> bool {
    cost.flops <= 1 << 27 && cost.bytes <= 1 << 29
}

/// Whether an adapter with more memory would do.
pub(super) fn is_about_memory(e: &Error) -> bool {
    matches!(e, Error::OutOfMemory { .. } | Error::TooLarge { .. })
}

/// What one row's failure left behind says nothing about the next.
pub(super) fn forget_errors(gpu: &Gpu) {
    gpu.trim();
    while gpu.wait().is_err() {}
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// What a run of the command is about.
pub(super) struct Work<'a> {
    pub(super) gpu: &'a Gpu,
    /// Whether the adapter has timestamps; else the host's clock serves.
    stamps: bool,
    ceilings: Option<Ceilings>,
    pub(super) lines: Vec<Value>,
    wrong: usize,
}

impl Bench {
    pub fn run(&self, open: impl Fn() -> Result<Gpu, Problem>) -> Result<(), Problem> {
        // What cannot be read is better known before minutes of timing.
        let comparison = Comparison::open(&self.compare)?;
        let crossover = self.filter.as_deref() == Some("crossover");
        let (lines, wrong) = match &self.results {
            Some(path) if crossover => return bench_crossover::again(self, &earlier(path)?),
            Some(_) if self.compare.is_empty() => {
                return Err(Problem::input(
                    "--results alone has nothing to do",
                    "add --compare FILE, or `crossover` --out DIR",
                ));
            }
            Some(path) => (earlier(path)?, 0),
            None => self.measure_all(&open()?, open)?,
        };
        if !self.compare.is_empty() {
            let text = comparison.table(&lines)?;
            if !self.json {
                print(&format!("\n{text}"))?;
            }
            if let Some(folder) = &self.record {
                let path = comparison.record(folder, &lines, &text)?;
                if !self.json {
                    print(&format!("\nrecorded in {}\n", path.display()))?;
                }
            }
        }
        if wrong > 0 {
            let hint =
                "`rambutan selfcheck` shows where; please report its output with that of `rambutan info`";
            return Err(Problem::check(format!("{wrong} results were wrong and have no time"), hint));
        }
        Ok(())
    }

    fn measure_all(
        &self,
        gpu: &Gpu,
        open: impl Fn() -> Result<Gpu, Problem>,
    ) -> Result<(Vec<Value>, usize), Problem> {
        let wanted = self.filter.as_deref().unwrap_or_default();
        let all = ops::cases();
        let anchors = wanted == "anchors";
        let named = |name: &str| !wanted.is_empty() && (anchors || name.contains(wanted));
        let rows: Vec<&Row> = ROWS.iter().filter(|r| named(r.name)).collect();
        let models: Vec<&ModelBench> =
            MODEL_BENCHES.iter().filter(|m| named(m.name) && !(self.quick || wanted.is_empty())).collect();
        let cases: Vec<&Case> =
            all.iter().filter(|c| c.stem.contains(wanted) && !c.bench.is_empty()).collect();
        let (first_call, crossover) = (named(FIRST_CALL), wanted == "crossover");
        if rows.is_empty() && models.is_empty() && cases.is_empty() && !first_call && !crossover {
            let stems = all.iter().filter(|c| !c.bench.is_empty()).map(|c| c.stem);
            let names = stems
                .chain(ROWS.iter().map(|r| r.name))
                .chain([FIRST_CALL])
                .chain(MODEL_BENCHES.iter().map(|m| m.name));
            let message = format!("no row and no op with sizes to time contains `{wanted}`");
            return Err(Problem::input(
                message,
                format!("`anchors`, `crossover`, or of: {}", names.collect::<Vec<_>>().join(" ")),
            ));
        }
        let stamps = gpu.profile(Profile::Runs);
        let mut work = Work { gpu, stamps, ceilings: None, lines: Vec::new(), wrong: 0 };
        if !(rows.is_empty() && cases.is_empty()) || crossover {
            work.ceilings = Some(self.ceilings(&mut work, &all)?);
        }
        self.heading(&work)?;
        let mut done: HashSet<(&str, &[usize])> = HashSet::new();
        if !rows.is_empty() {
            self.say(&format!(
                "{:38} {:>5} {:>10} {:>9} {:>6} {:>9}  checked\n",
                "row", "runs", "ms", "goal ms", "share", "host ms"
            ))?;
        }
        for rows in rows.chunk_by(|a, b| (a.case, a.sizes) == (b.case, b.sizes)) {
            let case = all.iter().find(|c| c.stem == rows[0].case).expect("rows name cases");
            self.rows(&mut work, case, rows)?;
            done.insert((rows[0].case, rows[0].sizes));
            gpu.trim();
        }
        if first_call {
            self.first_call(&mut work, &all, &open()?)?;
        }
        let ops: Vec<(&Case, &[usize])> = cases
            .iter()
            .filter(|c| c.runs(gpu))
            .flat_map(|c| c.bench.iter().map(|sizes| (*c, *sizes)))
            .filter(|(c, sizes)| !done.contains(&(c.stem, *sizes)))
            .collect();
        if !ops.is_empty() || crossover {
            self.say(&format!(
                "\n{:24} {:40} {:>5} {:>10} {:>11} {:>9} {:>9} {:>6}  checked\n",
                "op", "sizes", "runs", "forward ms", "backward ms", "GB/s", "TFLOP/s", "share"
            ))?;
        }
        for (case, values) in ops {
            self.op(&mut work, case, values)?;
            gpu.trim();
        }
        if crossover {
            bench_crossover::run(self, &mut work, &all)?;
        }
        for model in models {
            self.model(&mut work, model)?;
            gpu.trim();
        }
        Ok((work.lines, work.wrong))
    }

    fn heading(&self, work: &Work<'_>) -> Result<(), Problem> {
        let c = work.gpu.capabilities();
        self.say(&format!("{} · {} · {} · {}\n", c.name, c.backend, c.driver, work.clock()))?;
        if let Some(Ceilings { bytes, flops, flops_half, launch }) = &work.ceilings {
            self.say(&format!(
                "ceilings: copy {:.1} GB/s, products {:.3} TFLOP/s in f32, {:.3} in f16; a launch {:.1} µs\n\n",
                bytes * 1e-9,
                flops * 1e-12,
                flops_half * 1e-12,
                launch * 1e6
            ))?;
        }
        Ok(())
    }

    /// Text for people, where JSON is not asked for.
    fn say(&self, text: &str) -> Result<(), Problem> {
        if self.json { Ok(()) } else { print(text) }
    }

    fn note(&self, work: &mut Work<'_>, line: Value) -> Result<(), Problem> {
        if self.json {
            print_json(&line)?;
        }
        work.lines.push(line);
        Ok(())
    }

    /// The rows of one case and size, which share their runs.
    fn rows(&self, work: &mut Work<'_>, case: &Case, rows: &[&Row]) -> Result<(), Problem> {
        let sizes = case.exactly(rows[0].sizes.to_vec());
        let measured = if case.runs(work.gpu) {
            let backward = rows.iter().any(|r| r.pass != Pass::Forward);
            self.measure(work, case, &sizes, backward)
        } else {
            Err(("skipped", "not for this adapter".to_owned()))
        };
        for row in rows {
            let mut line = work.line(case.stem, &sizes);
            line["row"] = json!(row.name);
            line["pass"] = json!(row.pass.name());
            line["goal_ms"] = json!(row.goal);
            line["peers"] = json!({ "torch": row.torch, "burn": row.burn });
            let text = match &measured {
                Err((how, why)) => {
                    line[*how] = json!(why);
                    work.wrong += usize::from(*how == "wrong");
                    format!("{how}: {why}\n")
                }
                Ok(m) => {
                    m.describe(&mut line);
                    let passes = match row.pass {
                        Pass::Forward => vec![(&m.forward, m.costs[0])],
                        Pass::Backward => vec![(&m.backward, m.costs[1])],
                        Pass::Both => vec![(&m.forward, m.costs[0]), (&m.backward, m.costs[1])],
                    };
                    let sum = |f: &dyn Fn(&(&Times, Cost)) -> f64| passes.iter().map(f).sum::<f64>();
                    let seconds = sum(&|(t, _)| median(&t.device));
                    let host = sum(&|(t, _)| median(&t.host));
                    let floor = sum(&|(_, cost)| work.floor(case, *cost));
                    let share = floor / seconds.max(1e-9);
                    line["ms"] = json!(seconds * 1e3);
                    line["host_ms"] = json!(host * 1e3);
                    line["floor_ms"] = json!(floor * 1e3);
                    line["launch_ms"] = json!(work.ceilings.as_ref().map(|c| c.launch * 1e3));
                    line["share"] = json!(share);
                    line["met"] = json!(seconds * 1e3 <= row.goal);
                    format!(
                        "{:>5} {:>10.4} {:>9} {:>5.0}% {:>9.3}  {}\n",
                        m.forward.device.len(),
                        seconds * 1e3,
                        row.goal,
                        share * 100.0,
                        host * 1e3,
                        line["checked"].as_str().unwrap_or_default(),
                    )
                }
            };
            self.say(&format!("{:38} {text}", row.name))?;
            self.note(work, line)?;
        }
        Ok(())
    }

    pub(super) fn op(&self, work: &mut Work<'_>, case: &Case, values: &[usize]) -> Result<(), Problem> {
        let sizes = case.exactly(values.to_vec());
        let mut line = work.line(case.stem, &sizes);
        let bytes = (case.cost)(&sizes).bytes;
        let measured = if bytes >> 20 > self.max_mib {
            Err(("skipped", format!("moves {} MiB, more than --max-mib", bytes >> 20)))
        } else {
            self.measure(work, case, &sizes, true)
        };
        let text = match measured {
            Err((how, why)) => {
                line[how] = json!(why);
                work.wrong += usize::from(how == "wrong");
                format!("{how}: {why}\n")
            }
            Ok(m) => {
                m.describe(&mut line);
                let forward = median(&m.forward.device);
                let rate = |amount: usize, unit: f64| amount as f64 / forward.max(1e-9) / unit;
                let (gb, tflop) = (rate(m.costs[0].bytes, 1e9), rate(m.costs[0].flops, 1e12));
                let floor = work.floor(case, m.costs[0]);
                let share = floor / forward.max(1e-9);
                line["floor_ms"] = json!(floor * 1e3);
                line["share"] = json!(share);
                line["gb_per_s"] = json!(gb);
                line["tflop_per_s"] = json!(tflop);
                line["host_ms"] = json!(median(&m.forward.host) * 1e3);
                let backward = if m.backward.device.is_empty() {
                    "-".into()
                } else {
                    let seconds = median(&m.backward.device);
                    let floor = work.floor(case, m.costs[1]);
                    line["backward_floor_ms"] = json!(floor * 1e3);
                    line["backward_share"] = json!(floor / seconds.max(1e-9));
                    format!("{:.3}", seconds * 1e3)
                };
                format!(
                    "{:>5} {:>10.3} {backward:>11} {gb:>9.1} {tflop:>9.3} {:>5.0}%  {}\n",
                    m.forward.device.len(),
                    forward * 1e3,
                    share * 100.0,
                    line["checked"].as_str().unwrap_or_default(),
                )
            }
        };
        self.say(&format!("{:24} {:40} {text}", case.stem, sizes.to_string()))?;
        self.note(work, line)
    }

    /// What a user waits for: on a device just opened, a product of 1024 in f32 with all that it compiles. Drivers may have
    /// the compiled kernel on disk.
    fn first_call(&self, work: &mut Work<'_>, all: &[Case], fresh: &Gpu) -> Result<(), Problem> {
        let case = all.iter().find(|c| c.stem == "matmul").expect("there are products");
        let sizes = case.exactly(vec![1, 1024, 1024, 1024, 0, 0]);
        let inputs = case.draw_inputs(&sizes, &mut Draw::quick(1));
        let tensors: Vec<Tensor> = inputs.iter().map(|i| i.tensor(fresh)).collect();
        fresh.wait()?;
        let begin = Instant::now();
        let result = no_grad(|| (case.run)(&sizes, &tensors));
        fresh.wait()?;
        let ms = begin.elapsed().as_secs_f64() * 1e3;
        drop(result);
        let goal = 100.0;
        let mut line = work.line(case.stem, &sizes);
        line["row"] = json!(FIRST_CALL);
        line["clock"] = json!("host clock");
        line["goal_ms"] = json!(goal);
        line["peers"] = json!({ "torch": "", "burn": "" });
        match check(fresh, case, &sizes, &inputs, false) {
            Ok(checked) => {
                line["ms"] = json!(ms);
                line["met"] = json!(ms <= goal);
                self.say(&format!("{FIRST_CALL:38} {:>5} {ms:>10.4} {goal:>9} {:>16}  {checked}\n", 1, ""))?;
                line["checked"] = json!(checked);
            }
            Err(why) => {
                self.say(&format!("{FIRST_CALL:38} wrong: {why}\n"))?;
                work.wrong += 1;
                line["wrong"] = json!(why);
            }
        }
        self.note(work, line)
    }

    fn model(&self, work: &mut Work<'_>, model: &ModelBench) -> Result<(), Problem> {
        let failed = |why: String| Err(rambutan_model::Error::Engine(Error::Device(why)));
        let line = match guarded(|| model.run(work.gpu, self.runs)).unwrap_or_else(failed) {
            Ok(line) => line,
            // Another adapter may have the memory; the other rows say what this one can do.
            Err(rambutan_model::Error::Engine(e)) if is_about_memory(&e) => {
                forget_errors(work.gpu);
                let mut line = model.line(work.gpu);
                line["skipped"] = json!(e.to_string());
                line
            }
            Err(rambutan_model::Error::Engine(e)) => {
                forget_errors(work.gpu);
                work.wrong += 1;
                let mut line = model.line(work.gpu);
                line["wrong"] = json!(e.to_string());
                line
            }
            Err(e) => return Err(e.into()),
        };
        if let Some(how) = ["skipped", "wrong"].into_iter().find(|k| line[*k].is_string()) {
            let why = line[how].as_str().unwrap_or_default();
            self.say(&format!("{:38} {how}: {why}\n", model.name))?;
        } else {
            self.say(&format!(
                "{:38} {:40} {:>5} {:>11.3} ms {:>12.0} tokens/s, goal {} ms\n",
                model.name,
                line["sizes"].as_str().unwrap_or_default(),
                line["runs"],
                line["ms"].as_f64().unwrap_or(0.0),
                line["tokens_per_s"].as_f64().unwrap_or(0.0),
                line["goal_ms"],
            ))?;
            for kernel in line["kernels"].as_array().into_iter().flatten() {
                self.say(&format!(
                    "    {:36} {:>6} × {:>11.3} ms\n",
                    kernel[0].as_str().unwrap_or_default(),
                    kernel[1],
                    kernel[2].as_f64().unwrap_or(0.0)
                ))?;
            }
        }
        self.note(work, line)
    }

    fn ceilings(&self, work: &mut Work<'_>, all: &[Case]) -> Result<Ceilings, Problem> {
        let (count, n) = if work.gpu.capabilities().cpu { (1 << 22, 512) } else { (1 << 26, 4096) };
        let mut best = |stem: &str, values: &[usize]| -> Result<(f64, Cost), Problem> {
            let Some(case) = all.iter().find(|c| c.stem == stem && c.runs(work.gpu)) else {
                return Ok((f64::INFINITY, Cost::default()));
            };
            let sizes = case.exactly(values.to_vec());
            let few = Bench { runs: 5, seconds: 2, ..self.clone() };
            let (measured, _) = few.time(work, case, &sizes, false)?;
            let least = measured.forward.device.iter().copied().fold(f64::INFINITY, f64::min);
            Ok((least, measured.costs[0]))
        };
        let (copy, moved) = best("copy", &[count])?;
        let (launch, _) = best("copy", &[1])?;
        let (single, done) = best("matmul", &[1, n, n, n, 0, 0])?;
        let (half, done_half) = best("matmul.f16", &[1, n, n, n, 0, 0])?;
        work.gpu.trim();
        let flops = done.flops as f64 / single;
        Ok(Ceilings {
            bytes: moved.bytes as f64 / copy,
            flops,
            flops_half: (done_half.flops as f64 / half).max(flops),
            launch,
        })
    }

    /// Times a case, then holds what it computes against its definition. Else: (`skipped` or `wrong`, why).
    fn measure(
        &self,
        work: &mut Work<'_>,
        case: &Case,
        sizes: &Sizes,
        backward: bool,
    ) -> Result<Measured, (&'static str, String)> {
        let gpu = work.gpu;
        let failed = |e: Error| {
            forget_errors(gpu);
            (if is_about_memory(&e) { "skipped" } else { "wrong" }, e.to_string())
        };
        let panicked = |why: String| {
            forget_errors(gpu);
            ("wrong", why)
        };
        let timed = guarded(|| self.time(work, case, sizes, backward)).map_err(panicked)?;
        let (mut measured, inputs) = timed.map_err(failed)?;
        let checked = guarded(|| check(gpu, case, sizes, &inputs, backward)).map_err(panicked)?;
        // A device that lacked the memory computed nothing.
        gpu.check().map_err(failed)?;
        measured.checked = checked.map_err(|why| ("wrong", why))?;
        Ok(measured)
    }

    fn time(
        &self,
        work: &mut Work<'_>,
        case: &Case,
        sizes: &Sizes,
        backward: bool,
    ) -> Result<(Measured, Vec<Input>), Error> {
        let (gpu, stamps) = (work.gpu, work.stamps);
        gpu.profile(Profile::Runs);
        let cpu = gpu.capabilities().cpu;
        let inputs = case.draw_inputs(sizes, &mut Draw::quick(1));
        let bytes = inputs.iter().map(|i| i.array.len() * i.dtype.bytes()).sum::<usize>();
        let elements = inputs.iter().map(|i| i.array.len()).sum::<usize>();
        let most = if cpu { 4 } else { MOST_COPIES.min(self.runs as usize + 1) };
        let copies = BEYOND_CACHES.div_ceil(bytes.max(1)).clamp(1, most);
        let sets: Vec<Vec<Tensor>> =
            (0..copies).map(|_| inputs.iter().map(|i| i.tensor(gpu)).collect()).collect();
        let backward = backward && inputs.iter().any(|i| i.differentiable);
        let mut kernels: Vec<(&'static str, f64)> = Vec::new();
        // (seconds on the device, seconds to record); `apart`, kernels are timed one by one, and kept.
        let mut once = |work: &mut dyn FnMut(), apart: bool| -> Result<[f64; 2], Error> {
            gpu.kernel_times()?;
            if apart {
                gpu.profile(Profile::Kernels);
            }
            let begin = Instant::now();
            work();
            let host = begin.elapsed().as_secs_f64();
            let times = gpu.kernel_times()?;
            let all = begin.elapsed().as_secs_f64();
            if apart {
                kernels.extend(times.iter().map(|k| (k.stem, k.nanoseconds * 1e-9)));
                gpu.profile(Profile::Runs);
            }
            let device = times.iter().map(|k| k.nanoseconds).sum::<f64>() * 1e-9;
            Ok([if stamps { device } else { all }, host])
        };
        let begin = Instant::now();
        // Of the four bytes that a cost counts an element.
        let mut size = 4.0;
        once(
            &mut || {
                let outputs = no_grad(|| (case.run)(sizes, &sets[0]));
                let moved = outputs.iter().map(|y| y.bytes() as usize).sum::<usize>() + bytes;
                let all = outputs.iter().map(Tensor::len).sum::<usize>() + elements;
                size = moved as f64 / all.max(1) as f64;
            },
            false,
        )?;
        let first = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        let (mut together, mut best, mut improved) = (1, f64::MAX, begin);
        while !cpu && improved.elapsed() < WARM_UP[0] && begin.elapsed() < WARM_UP[1] {
            let run = || drop(no_grad(|| (case.run)(sizes, &sets[0])));
            let [seconds, _] = once(&mut || (0..together).for_each(|_| run()), false)?;
            let each = seconds / together as f64;
            if each < 0.98 * best {
                (best, improved) = (each, Instant::now());
            }
            together = ((BUSY / each.max(1e-9)) as usize).clamp(1, MOST_TOGETHER);
        }
        // Read over before each run, so that caches forget what they held, for as long as keeps the clocks up.
        let scratch = (!cpu).then(|| Tensor::zeros(gpu, [1 << 15, BEYOND_CACHES >> 17], DType::F32));
        let rate = work.ceilings.as_ref().map_or(0.0, |c| c.bytes);
        let times_read = ((BUSY * rate) as usize / BEYOND_CACHES).clamp(1, MOST_TOGETHER);
        let read_over = || scratch.iter().for_each(|s| (0..times_read).for_each(|_| drop(ops::sum_last(s))));
        let (mut forward, mut back) = (Times::default(), Times::default());
        let begin = Instant::now();
        // The first round compiles what is left and fills the pool, the second one tells kernels apart.
        for round in 0..self.runs + 2 {
            let set = &sets[round as usize % copies];
            read_over();
            let times = once(&mut || drop(no_grad(|| (case.run)(sizes, set))), round == 1)?;
            if round > 1 {
                forward.push(times);
            }
            if backward {
                let leaves: Vec<Tensor> = inputs
                    .iter()
                    .zip(set)
                    .map(|(i, t)| if i.differentiable { t.detach().requires_grad() } else { t.clone() })
                    .collect();
                let outputs = (case.run)(sizes, &leaves);
                let used: Vec<&Tensor> =
                    outputs.iter().filter(|y| y.dtype().is_float() && y.needs_grad()).collect();
                let seeds: Vec<Tensor> =
                    used.iter().map(|y| Tensor::full(gpu, y.shape(), y.dtype(), 0.5)).collect();
                let pairs: Vec<_> = used.into_iter().zip(&seeds).collect();
                read_over();
                let times = once(&mut || autograd::backward(&pairs), round == 1)?;
                if round > 1 {
                    back.push(times);
                }
            }
            if !forward.device.is_empty() && begin.elapsed() > Duration::from_secs(self.seconds) {
                break;
            }
        }
        let costs = case.costs(sizes, size);
        let checked = "nothing".into();
        let measured = Measured { forward, backward: back, kernels, costs, copies, bytes, first, checked };
        Ok((measured, inputs))
    }
}

/// Holds a case at these sizes against its definition, as much of it as the host computes in about a second → what was
/// compared, or what is wrong.
fn check(gpu: &Gpu, case: &Case, sizes: &Sizes, inputs: &[Input], backward: bool) -> Result<String, String> {
    let tensors: Vec<Tensor> = inputs.iter().map(|i| i.tensor(gpu)).collect();
    let spot =
        testing::check_spot(gpu, case, sizes, inputs, &tensors, backward).map_err(|e| e.to_string())?;
    let Some(spot) = spot else { return whole(gpu, case, sizes, backward) };
    let mut text = format!("spot {} of {}", spot.outputs.0, spot.outputs.1);
    if spot.gradients.0 > 0 {
        text += &format!(", gradients {} of {}", spot.gradients.0, spot.gradients.1);
    }
    Ok(text)
}

/// The same where a case has no parts: all of it where that is quick, else at small sizes.
fn whole(gpu: &Gpu, case: &Case, sizes: &Sizes, backward: bool) -> Result<String, String> {
    let drawn = (1..=8).map(|seed| case.draw(seed));
    let small = drawn.max_by_key(|s| (case.cost)(s).bytes).expect("eight draws");
    let quick = is_quick_to_check((case.cost)(sizes)) && !gpu.capabilities().cpu;
    let at = if quick { sizes } else { &small };
    testing::check(gpu, case, at, 1).map_err(|e| e.to_string())?;
    let mut text = if quick { "all".into() } else { format!("all at {small}") };
    if backward {
        testing::check_gradients(gpu, case, &small, 1).map_err(|e| e.to_string())?;
        text += &format!(", gradients at {small}");
    }
    Ok(text)
}

impl Times {
    fn push(&mut self, [device, host]: [f64; 2]) {
        self.device.push(device);
        self.host.push(host);
    }
}

impl Measured {
    fn describe(&self, line: &mut Value) {
        let median = |times: &[f64]| (!times.is_empty()).then(|| median(times) * 1e3);
        line["runs"] = json!(self.forward.device.len());
        line["forward_ms"] = json!(median(&self.forward.device));
        line["backward_ms"] = json!(median(&self.backward.device));
        line["forward_host_ms"] = json!(median(&self.forward.host));
        line["backward_host_ms"] = json!(median(&self.backward.host));
        line["first_ms"] = json!(self.first * 1e3);
        line["bytes"] = json!(self.costs[0].bytes);
        line["flops"] = json!(self.costs[0].flops);
        line["backward_bytes"] = json!(self.costs[1].bytes);
        line["backward_flops"] = json!(self.costs[1].flops);
        line["copies"] = json!(self.copies);
        line["input_bytes"] = json!(self.bytes);
        line["checked"] = json!(self.checked);
        line["kernels_ms"] = self.kernels.iter().map(|(k, s)| ((*k).to_owned(), json!(s * 1e3))).collect();
    }
}

impl Work<'_> {
    fn clock(&self) -> &'static str {
        if self.stamps { "GPU timestamps around runs" } else { "host clock" }
    }

    fn floor(&self, case: &Case, cost: Cost) -> f64 {
        self.ceilings.as_ref().map_or(0.0, |c| c.floor(case, cost))
    }

    fn line(&self, stem: &str, sizes: &Sizes) -> Value {
        let c = self.gpu.capabilities();
        json!({
            "op": stem, "sizes": sizes.to_string(), "device": c.name, "backend": c.backend, "driver": c.driver,
            "clock": self.clock(), "time": now(),
        })
    }
}

pub(super) fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

#[cfg(test)]
mod tests {
    use rambutan_engine::GpuOptions;

    use super::*;

    fn bench(filter: &str) -> Bench {
        Bench {
            filter: Some(filter.into()),
            runs: 1,
            seconds: 5,
            max_mib: 512,
            quick: true,
            json: true,
            out: None,
            compare: Vec::new(),
            results: None,
            record: None,
        }
    }

    /// What a row reads as where a kernel does nothing.
    fn without(stem: &str, sizes: &[usize], kernel: Option<&str>) -> Result<String, (&'static str, String)> {
        let gpu = Gpu::new(GpuOptions::from_env()).unwrap_or_else(|e| panic!("{e}"));
        if let Some(kernel) = kernel {
            let text = rambutan_shaders::compose(
                rambutan_shaders::kernel(kernel).expect("a kernel"),
                &[],
                rambutan_shaders::Dialect::Naga,
            );
            let text = text.expect("it composes").replace("// uses:", "// with:");
            let main = text.find("fn main(").expect("an entry");
            let body = main + text[main..].find('{').expect("a body") + 1;
            let text = format!("{} if true {{ return; }} {}", &text[..body], &text[body..]);
            gpu.replace_kernel(kernel, Some(&text)).expect("the kernel is ours");
        }
        let cases = ops::cases();
        let case = cases.iter().find(|c| c.stem == stem).expect("a case");
        let stamps = gpu.profile(Profile::Runs);
        let mut work = Work { gpu: &gpu, stamps, ceilings: None, lines: Vec::new(), wrong: 0 };
        let measured = bench(stem).measure(&mut work, case, &case.exactly(sizes.to_vec()), true)?;
        assert!(measured.forward.device.len() == 1 && measured.forward.host[0] > 0.0);
        Ok(measured.checked)
    }

    #[test]
    fn a_wrong_kernel_has_no_time() {
        let sizes = [512, 300];
        let sound = without("rms_norm", &sizes, None);
        assert_eq!(sound.as_deref(), Ok("spot 3600 of 153600, gradients 1500 of 153900"));
        for kernel in ["rms_norm", "rms_norm_backward"] {
            let found = without("rms_norm", &sizes, Some(kernel));
            assert!(found.as_ref().is_err_and(|(how, _)| *how == "wrong"), "{kernel}: {found:?}");
        }
        // Cases without parts are held at small sizes.
        let found = without("mean_middle", &[2000, 20, 60], None).expect("it is sound");
        assert!(found.starts_with("all at rows="), "{found}");
        let found = without("mean_middle", &[2000, 20, 60], Some("mean_middle"));
        assert!(found.as_ref().is_err_and(|(how, _)| *how == "wrong"), "{found:?}");
    }
}
