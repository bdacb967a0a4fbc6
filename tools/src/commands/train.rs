//! `rambutan train`: follows a plan, keeps a log, and can be stopped and resumed at any moment.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use pollster::block_on;
use rambutan_engine::Gpu;
use rambutan_model::{
    Checkpoint, Config,
    checkpoint::{Header, Precision, remove_half_written},
    data::Corpus,
    ranks::Ranks,
    tasks::{FactKind, Haystack, Prefetch, Sampler, TaskMix},
    train::{self, Plan, StepLosses, Trainer},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::eval::{Score, Subject, score};
use crate::{
    picture::{Curve, curves},
    problem::{Problem, print, print_json},
    ranks::{agree, everywhere},
};

/// Trains a model by a plan; Ctrl-C writes a checkpoint and stops, --resume goes on bit for bit
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan train passkey.toml --out out/passkey\n  rambutan train passkey.toml --out out/passkey --resume --seconds 600\n  rambutan train passkey.toml --text book.txt --text notes.txt\n  rambutan train harder.toml --init out/passkey/weights.safetensors --out out/harder\n  mpirun -n 4 rambutan train passkey.toml --out out/passkey    (a build with the feature mpi)\n\nThe folder gets checkpoint.safetensors (to resume from), weights.safetensors (16 bits, to use), log.jsonl and curves.png.\nThe plan is a TOML file: [model], [plan] with [[plan.phases]] and [plan.optimizer], [tasks], [run]; see model/weights/passkey.toml."
)]
pub struct Train {
    /// The plan
    pub config: PathBuf,
    /// Where everything is written
    #[arg(long, default_value = "out/train", value_name = "DIR")]
    pub out: PathBuf,
    /// Text to train on beside the generated one; may be given several times
    #[arg(long, value_name = "FILE")]
    pub text: Vec<PathBuf>,
    /// Goes on from the folder's checkpoint
    #[arg(long)]
    pub resume: bool,
    /// Begins with this checkpoint's parameters instead of random ones
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub init: Option<PathBuf>,
    /// Stops after so many seconds, with a checkpoint
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
    /// Prints the log's lines
    #[arg(long)]
    pub json: bool,
}

/// The plan's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Published keys over those of a preset (`preset = "small"` or `"ramba-370m"`).
    #[serde(default)]
    model: toml::Table,
    pub plan: Plan,
    #[serde(default)]
    tasks: TaskMix,
    #[serde(default)]
    run: Run,
}

/// How the run is watched and kept.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Run {
    /// Steps between two lines of the log; only there losses are read back.
    log_steps: u64,
    /// Steps between two checkpoints.
    checkpoint_steps: u64,
    /// Seconds after which one is written in any case.
    checkpoint_seconds: u64,
    /// Steps between two examinations, as `eval passkey` does them; 0 for none.
    eval_steps: u64,
    /// Lengths to examine.
    eval_lengths: Vec<usize>,
    /// Trials a kind and length.
    eval_trials: usize,
    /// Threads that build batches ahead.
    threads: usize,
    /// Share of the given texts that is kept for examinations.
    held: f64,
}

impl Default for Run {
    fn default() -> Self {
        Run {
            log_steps: 20,
            checkpoint_steps: 1000,
            checkpoint_seconds: 120,
            eval_steps: 0,
            eval_lengths: vec![4096],
            eval_trials: 20,
            threads: 2,
            held: 0.02,
        }
    }
}

const PLAN_HINT: &str = "a plan is a TOML file such as model/weights/passkey.toml";

/// The text of a plan's file.
pub fn read_plan(path: &Path) -> Result<String, Problem> {
    fs::read_to_string(path)
        .map_err(|e| Problem::input(format!("cannot read the plan {}: {e}", path.display()), PLAN_HINT))
}

/// Set by Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);

impl File {
    fn read(path: &Path) -> Result<File, Problem> {
        File::of(path, &read_plan(path)?)
    }

    /// The plan that `text` holds; `path` is for errors.
    pub fn of(path: &Path, text: &str) -> Result<File, Problem> {
        let name = path.display();
        let hint = PLAN_HINT;
        let file: File = toml::from_str(text)
            .map_err(|e| Problem::input(format!("the plan {name} does not parse: {e}"), hint))?;
        file.plan.check()?;
        let run = &file.run;
        let refuse = |field: &str, expected: &str| {
            Err(Problem::input(format!("the plan {name}: run.{field} must be {expected}"), hint))
        };
        if run.log_steps == 0 {
            return refuse("log_steps", "at least 1");
        }
        if run.checkpoint_steps == 0 || run.checkpoint_seconds == 0 {
            return refuse("checkpoint_steps and run.checkpoint_seconds", "at least 1");
        }
        if !(0.0..1.0).contains(&run.held) {
            return refuse("held", "a share from 0 to below 1");
        }
        if run.eval_steps > 0 && (run.eval_trials == 0 || run.eval_lengths.iter().any(|&l| l < 256)) {
            return refuse("eval_trials and run.eval_lengths", "at least 1, and at least 256 tokens each");
        }
        if !(1..=64).contains(&run.threads) {
            return refuse("threads", "from 1 to 64");
        }
        Ok(file)
    }

    /// The preset with the file's keys over it.
    pub fn config(&self) -> Result<Config, Problem> {
        let mut keys = self.model.clone();
        let preset = match keys.remove("preset") {
            None => Config::small(),
            Some(toml::Value::String(name)) if name == "small" => Config::small(),
            Some(toml::Value::String(name)) if name == "ramba-370m" => Config::ramba_370m(),
            Some(other) => {
                let message = format!("the plan's model.preset = {other}: no such preset");
                return Err(Problem::input(message, "presets: \"small\", \"ramba-370m\""));
            }
        };
        let mut all: Value = serde_json::from_str(&preset.to_json()).unwrap_or_default();
        for (key, value) in keys {
            all[key] = json!(value);
        }
        Config::from_json(&all.to_string()).map_err(|e| rambutan_model::Error::from(e).into())
    }
}

impl Train {
    pub fn run(
        &self,
        ranks: &Arc<dyn Ranks>,
        open: impl FnOnce() -> Result<Gpu, Problem>,
    ) -> Result<(), Problem> {
        let file = agree(&**ranks, File::read(&self.config))?;
        self.follow(ranks, &file, open).map(|_| ())
    }

    /// The text to train on, where some was given, and what draws from it. Without it all text is generated.
    fn data(&self, file: &File) -> Result<(Option<Arc<Corpus>>, Arc<Sampler>), Problem> {
        let corpus = match self.text.as_slice() {
            [] => None,
            paths => Some(Arc::new(Corpus::load(paths, file.run.held).map_err(rambutan_model::Error::from)?)),
        };
        let sampler = Sampler::new(file.tasks.clone(), corpus.clone(), file.plan.seed)
            .map_err(rambutan_model::Error::from)?;
        Ok((corpus, Arc::new(sampler)))
    }

    /// What the run begins with, or goes on from.
    fn beginning(&self, file: &File, config: Config) -> Result<Checkpoint, Problem> {
        let kept = self.kept();
        let checkpoint = match (self.resume, kept.exists()) {
            (true, _) => {
                let checkpoint = Checkpoint::open(&kept)?;
                if checkpoint.config != config {
                    return Err(Problem::input(
                        format!("{} is of another model than the plan's", kept.display()),
                        "resume with the plan that began the run, or start anew in another --out",
                    ));
                }
                if train::progress(&checkpoint)?.is_none() {
                    return Err(rambutan_model::Error::NotResumable.into());
                }
                checkpoint
            }
            (false, true) => {
                return Err(Problem::input(
                    format!("{} already holds a run", self.out.display()),
                    "--resume goes on with it; --out names another folder",
                ));
            }
            (false, false) => match &self.init {
                None => Checkpoint::initial(config, file.plan.seed)?,
                Some(path) => {
                    let mut begun = Checkpoint::open(path)?;
                    // What no parameter depends on may be the plan's.
                    let Config { segment_size, segment_overlap, chunk_topk, .. } = config;
                    begun.config = Config { segment_size, segment_overlap, chunk_topk, ..begun.config };
                    if begun.config != config {
                        return Err(Problem::input(
                            format!("{} is of another model than the plan's", path.display()),
                            "the plan's [model] names the checkpoint's configuration, but for segment_size, segment_overlap and chunk_topk; `rambutan inspect` shows it",
                        ));
                    }
                    begun.extras.clear();
                    begun.metadata.training = None;
                    begun
                }
            },
        };
        if file.run.eval_steps > 0 && checkpoint.config.enable_hsa && !checkpoint.config.segment_at_inference
        {
            return Err(rambutan_model::Error::NotSegmented.into());
        }
        fs::create_dir_all(&self.out).map_err(|e| self.unwritable(e))?;
        remove_half_written(&self.out).map_err(|e| self.unwritable(e))?;
        Ok(checkpoint)
    }

    /// Where checkpoints are written.
    fn kept(&self) -> PathBuf {
        self.out.join("checkpoint.safetensors")
    }

    fn unwritable(&self, e: std::io::Error) -> Problem {
        Problem::input(
            format!("cannot write to {}: {e}", self.out.display()),
            "--out names a folder that can be written",
        )
    }

    /// Follows a plan, in `config`'s place → whether it came to its end. Rank 0 alone reads and writes the folder.
    pub fn follow(
        &self,
        ranks: &Arc<dyn Ranks>,
        file: &File,
        open: impl FnOnce() -> Result<Gpu, Problem>,
    ) -> Result<bool, Problem> {
        let (lead, over) = (ranks.rank() == 0, ranks.size() > 1);
        let unwritable = |e: std::io::Error| self.unwritable(e);
        let (kept, start) = (self.kept(), Instant::now());
        let prepared = file.plan.check_shared(ranks.size()).map_err(|e| {
            Problem::input(e.to_string(), "start another number of ranks, or change the plan's phases")
        });
        let config = agree(&**ranks, prepared.and_then(|()| file.config()))?;
        let data = self.data(file).and_then(|(corpus, sampler)| {
            let first = file.plan.phases.first().map_or(1, |p| p.length);
            let sample = sampler.batch(0, 1, first).map_err(rambutan_model::Error::from)?;
            Ok((corpus, sampler, sample))
        });
        let (corpus, sampler, sample) = agree(&**ranks, data)?;
        let begun = agree(
            &**ranks,
            match lead {
                true => self.beginning(file, config).map(Some),
                false => Ok(None),
            },
        )?;
        let checkpoint = if over {
            let ids: Vec<u8> = sample.ids.iter().map(|&id| id as u8).collect();
            let drawn = ranks.gather(&ids);
            if let Some(rank) = drawn.iter().position(|theirs| *theirs != drawn[0]) {
                let problem = Problem::input(
                    format!("rank {rank} draws other training data than rank 0"),
                    "the plan and the files of --text must be the same on all machines",
                );
                return Err(everywhere(&**ranks, problem));
            }
            let bytes = begun.map_or(Ok(Vec::new()), |begun| begun.to_bytes(Precision::F32))?;
            Checkpoint::from_bytes(&ranks.broadcast(bytes))?
        } else {
            begun.expect("rank 0 has it")
        };
        let opened = open().and_then(|gpu| {
            let trainer = Trainer::over(ranks.clone(), &gpu, &checkpoint, file.plan.clone())?;
            let log = match lead {
                true => Some(Log::open(&self.log(), trainer.next_step()).map_err(unwritable)?),
                false => None,
            };
            Ok((gpu, trainer, log))
        });
        let (gpu, mut trainer, mut log) = agree(&**ranks, opened)?;
        drop(checkpoint);
        self.listen(over);

        let total = file.plan.steps();
        let plan = file.plan.clone();
        let mut batches = Prefetch::new(sampler, trainer.next_step(), file.run.threads, 2, move |step| {
            plan.phase(step).map(|p| (p.sequences, p.length))
        });
        let bar = if lead { ProgressBar::new(total) } else { ProgressBar::hidden() };
        let bar = bar.with_style(
            ProgressStyle::with_template("{bar:24} {pos}/{len} {msg} · {eta} left")
                .expect("the template is valid"),
        );
        bar.set_position(trainer.next_step());
        bar.reset_eta();
        let (mut saved, mut window) = (Instant::now(), (Instant::now(), trainer.tokens()));
        let mut stopped = None;
        while let Some(batch) = batches.next_batch() {
            let batch = batch.map_err(rambutan_model::Error::from)?;
            let losses = trainer.step(&batch)?;
            let step = trainer.next_step();
            bar.set_position(step);
            if step.is_multiple_of(file.run.log_steps) || step == total {
                let StepLosses { loss, answers, evidence } = block_on(losses.read())?;
                let report = block_on(trainer.report())?;
                let rate = (trainer.tokens() - window.1) as f64 / window.0.elapsed().as_secs_f64();
                window = (Instant::now(), trainer.tokens());
                let memory = gpu.memory();
                let line = json!({
                    "step": step, "loss": loss, "answers": answers, "evidence": evidence,
                    "text": f64::from(loss) - file.tasks.answer_weight * f64::from(answers),
                    "lr": file.plan.schedule().at(step - 1), "norm": report.norm, "loss_scale": report.loss_scale,
                    "skipped": report.skipped, "tokens": trainer.tokens(), "tokens_per_s": rate,
                    "seconds": start.elapsed().as_secs_f64(), "device_bytes": memory.peak,
                });
                bar.set_message(format!(
                    "loss {loss:.3} · answers {answers:.4} · {:.0} k tokens/s · {} MiB",
                    rate / 1e3,
                    memory.peak >> 20
                ));
                self.note(&mut log, &line)?;
                if !loss.is_finite() {
                    let problem = Problem::check(
                        format!("the loss is {loss} at step {step}: the run has diverged"),
                        "lower plan.optimizer.lr or lengthen its warmup; --resume goes on from the last checkpoint",
                    );
                    return Err(everywhere(&**ranks, problem));
                }
            }
            let examined =
                file.run.eval_steps > 0 && (step.is_multiple_of(file.run.eval_steps) || step == total);
            if examined && lead {
                for line in file.run.examine(&trainer, corpus.as_deref())? {
                    self.note(&mut log, &line)?;
                }
                window = (Instant::now(), trainer.tokens());
            }
            let mut asked = STOP.load(Ordering::Relaxed);
            let mut timed_out = self.seconds.is_some_and(|s| start.elapsed() >= Duration::from_secs(s));
            let mut due = step.is_multiple_of(file.run.checkpoint_steps)
                || saved.elapsed() >= Duration::from_secs(file.run.checkpoint_seconds);
            if over {
                // All are told to stop or one is; the clock is rank 0's.
                let all = ranks.gather(&[asked, timed_out, due].map(u8::from));
                asked = all.iter().any(|flags| flags[0] == 1);
                [timed_out, due] = [all[0][1] == 1, all[0][2] == 1];
            }
            if asked || timed_out || due || step == total {
                let checkpoint = block_on(trainer.checkpoint())?;
                trainer.in_step(&checkpoint).map_err(|e| everywhere(&**ranks, e.into()))?;
                if lead {
                    checkpoint.save(&kept, Precision::F32)?;
                }
                saved = Instant::now();
                if (asked || timed_out) && step < total {
                    stopped = Some(if asked { "interrupted" } else { "out of time" });
                    break;
                }
            }
        }
        bar.finish_and_clear();
        let step = trainer.next_step();
        if let Some(log) = log {
            let mut shipped = block_on(trainer.checkpoint())?;
            shipped.extras.clear();
            shipped.metadata.training = None;
            shipped.save(self.out.join("weights.safetensors"), Precision::F16)?;
            log.draw(&self.out.join("curves.png"))?;
            match stopped {
                Some(why) => {
                    print(&format!(
                        "{why} at step {step} of {total}: --resume goes on from {}\n",
                        kept.display()
                    ))?;
                }
                None => {
                    print(&format!("{step} steps, {} tokens: {}\n", trainer.tokens(), self.out.display()))?
                }
            }
        }
        OVER.store(true, Ordering::Relaxed);
        Ok(stopped.is_none())
    }

    fn log(&self) -> PathBuf {
        self.out.join("log.jsonl")
    }

    /// Writes a line of the log, where this rank keeps it.
    fn note(&self, log: &mut Option<Log>, line: &Value) -> Result<(), Problem> {
        let Some(log) = log else { return Ok(()) };
        log.write(line).map_err(|e| self.unwritable(e))?;
        if self.json { print_json(line) } else { Ok(()) }
    }

    /// Hears when the run is to stop: at the next step, with a checkpoint. Over ranks it may be that one has died; then no
    /// step ends any more, and MPI ends all ranks, this one with a word of what to do.
    fn listen(&self, over: bool) {
        let (log, kept) = (self.log(), self.kept());
        // Where a handler stands already (a test in this process), the first one serves.
        let _ = ctrlc::set_handler(move || {
            STOP.store(true, Ordering::Relaxed);
            if over {
                std::thread::sleep(GRACE);
                if !OVER.load(Ordering::Relaxed) {
                    last_words(&log, &kept);
                }
            }
        });
    }
}

/// How long a step may take to end by itself; Open MPI gives all of it a second.
const GRACE: Duration = Duration::from_millis(300);

/// Set when the run has come to its end.
static OVER: AtomicBool = AtomicBool::new(false);

/// Says how to go on where the ranks are being ended: the first rank that takes the log's lock does.
fn last_words(log: &Path, kept: &Path) {
    let lock = fs::File::open(log).and_then(|file| file.try_lock().map_err(Into::into).map(|()| file));
    if let Ok(lock) = lock {
        let step = Header::open(kept).ok().and_then(|header| train::next_step(&header));
        let hint = match step {
            Some(step) => format!(
                "the same command with --resume goes on from step {step}, with any number of ranks: {}",
                kept.display()
            ),
            None => "there is no checkpoint yet: the same command begins anew".into(),
        };
        Problem::check("a rank has died or the run was stopped from outside, and all ranks end", hint)
            .report();
        // It is held until the process has ended.
        std::mem::forget(lock);
    }
}

impl Run {
    /// A line for each length and kind, on text that is not trained on.
    fn examine(&self, trainer: &Trainer, corpus: Option<&Corpus>) -> Result<Vec<Value>, Problem> {
        let mut lines = Vec::new();
        for &length in &self.eval_lengths {
            let held = corpus.map(Corpus::held).filter(|text| !text.is_empty());
            let hay = match held {
                Some(text) => Haystack::from_text(text, length, 0)?,
                None => Haystack::prose(0, length)?,
            };
            let mut subject = Subject::new(trainer.model(), &hay)?;
            for kind in FactKind::ALL {
                let Score { exact, selected } =
                    score(&mut subject, trainer.model(), &hay, kind, self.eval_trials, 0)?;
                lines.push(json!({
                    "step": trainer.next_step(), "eval": "passkey", "length": length, "kind": kind.name(),
                    "trials": self.eval_trials, "exact": exact, "selected": selected,
                }));
            }
        }
        Ok(lines)
    }
}

/// The log: a line of JSON for every read-back.
struct Log {
    path: PathBuf,
    file: fs::File,
}

impl Log {
    /// Opens it for the run that goes on at `step`: later lines are of steps that will be trained again.
    fn open(path: &Path, step: u64) -> std::io::Result<Log> {
        let old = match fs::read_to_string(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        let before = |line: &&str| {
            serde_json::from_str::<Value>(line).is_ok_and(|v| v["step"].as_u64().is_some_and(|s| s <= step))
        };
        let kept: String = old.lines().filter(before).map(|l| format!("{l}\n")).collect();
        rambutan_model::checkpoint::write_atomically(path, |w| w.write_all(kept.as_bytes()))?;
        Ok(Log { path: path.to_owned(), file: fs::OpenOptions::new().append(true).open(path)? })
    }

    fn write(&mut self, line: &Value) -> std::io::Result<()> {
        writeln!(self.file, "{line}")
    }

    /// Draws the whole run: losses, rate, and what examinations found.
    fn draw(&self, path: &Path) -> Result<(), Problem> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let lines: Vec<Value> = text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        let over = |name: &str, key: &str, log, takes: &dyn Fn(&Value) -> bool| Curve {
            name: name.into(),
            points: lines
                .iter()
                .filter(|l| takes(l))
                .filter_map(|l| Some((l["step"].as_f64()?, l[key].as_f64()?)))
                .collect(),
            log,
        };
        let mut all = vec![
            over("text, nats a token", "text", false, &|_| true),
            over("answers, nats a token", "answers", true, &|_| true),
            over("tokens a second", "tokens_per_s", false, &|_| true),
        ];
        let examined: BTreeSet<(u64, &str)> =
            lines.iter().filter_map(|l| Some((l["length"].as_u64()?, l["kind"].as_str()?))).collect();
        for (length, kind) in examined {
            let name = format!("exact answers, {kind}, {length} tokens");
            all.push(over(&name, "exact", false, &|l| l["length"] == length && l["kind"] == kind));
        }
        curves("training", &all).save(path)
    }
}
