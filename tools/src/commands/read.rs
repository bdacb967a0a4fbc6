//! `rambutan read`: a text into a memory file, to be asked many times.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rambutan_model::reader::{
    Keeping, Landmarks, Placement, Reader, Source as _, TextFile,
    file::{self, Manner, MemoryFile},
};
use serde_json::json;

use crate::{
    Device,
    problem::{Problem, print, print_json},
    reading::{self, Kind, Weights, short},
};

/// Reads a file into a memory on disk, to be asked many times
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan read notes.txt --memory notes.mem\n  rambutan ask --memory notes.mem \"What is the passkey?\" \"What is the code of Rivaze?\"\n  rambutan read log.txt --memory log.mem --half   # again as the log grows: only what is new is read\n\nReading stops at Ctrl-C, or at whatever ends it, and goes on where it stopped with the same command; what was edited since is\nread again, and nothing else."
)]
pub struct Read {
    /// The text; any bytes
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The memory file, new or one to be brought up to date
    #[arg(long, value_name = "FILE")]
    memory: PathBuf,
    /// What a new memory keeps: keys and values, or landmarks alone, a fiftieth of it, so that keys and values are computed
    /// again from the text, which must stay at hand. auto: what is there, else all up to a GiB
    #[arg(long, value_enum, default_value_t = Keep::Auto)]
    keep: Keep,
    /// How a new memory keeps landmarks: float (in the type that the model computes in) or int8 (in eight bits, half of f16 or a
    /// quarter of f32, not exactly the same). auto: as they are there, else float where they fit the device and int8 where not
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Kind::Auto)]
    landmarks: Kind,
    /// Tokens a page of a new memory, each committed by itself: what is lost at most where reading is ended by force
    /// [default: pages of 131072, committed each second]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    page: Option<u64>,
    #[command(flatten)]
    weights: Weights,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// What a memory file keeps beside landmarks.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Keep {
    Auto,
    Text,
    Values,
}

/// Bytes of keys and values that a memory keeps where nothing else is asked for.
const KEPT: usize = 1 << 30;

static STOP: AtomicBool = AtomicBool::new(false);

impl Read {
    pub fn run(&self, device: &Device) -> Result<(), Problem> {
        let text = TextFile::open(&self.file)?;
        if text.size() == 0 {
            let message = format!("{} is empty: there is nothing to read", self.file.display());
            return Err(Problem::input(message, "expected a file with text in it"));
        }
        let same = |a: &PathBuf, b: &PathBuf| {
            a.canonicalize().ok().is_some_and(|a| b.canonicalize().ok() == Some(a))
        };
        if same(&self.file, &self.memory) {
            let message = format!("{} is the text itself", self.memory.display());
            return Err(Problem::input(message, "name another file with --memory"));
        }
        let checkpoint = self.weights.open()?;
        let gpu = device.open()?;
        let model = self.weights.upload(&gpu, &checkpoint)?;
        let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
        let there = if self.memory.exists() { Some(MemoryFile::open(&self.memory)?.keeps()?) } else { None };
        let values = match (self.keep, there) {
            (Keep::Text, _) => Placement::Text,
            (Keep::Values, _) => Placement::Host,
            (Keep::Auto, Some(there)) => there.values,
            (Keep::Auto, None) => {
                let bytes = Reader::placed(&model, Placement::Host)?.bytes_of(text.size())[1];
                if bytes <= KEPT { Placement::Host } else { Placement::Text }
            }
        };
        let landmarks = self.landmarks.choice().or(there.map(|there| there.landmarks));
        let ways = Keeping::fitting(&model, text.size(), Some(values), landmarks)?;
        let keeps = ways[0];
        let mut manner = Manner::new(keeps);
        if let Some(page) = self.page {
            manner = Manner { page: page as usize, interval: Duration::ZERO, ..manner };
        }
        let (bar, begin) = (reading::bar("reading", text.size()), Instant::now());
        let written =
            file::write(&model, &checkpoint.fingerprint(), &text, &self.memory, manner, |progress| {
                bar.set_position(progress.done as u64);
                let rate = progress.done as f64 / begin.elapsed().as_secs_f64();
                bar.set_message(format!("tokens, {}/s, {} MiB", short(rate), gpu.memory().in_use >> 20));
                if STOP.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        bar.finish_and_clear();
        let (written, seconds) = (written?, begin.elapsed().as_secs_f64());
        if !written.complete {
            return Err(Problem::input(
                format!("stopped before all of {} was read", self.file.display()),
                "the same command goes on where this one stopped",
            ));
        }
        let bytes = std::fs::metadata(&self.memory).map_or(0, |m| m.len());
        let (memory, read) = (gpu.memory(), written.tokens - written.kept);
        if self.json {
            return print_json(&json!({
                "memory": self.memory.display().to_string(), "tokens": written.tokens, "kept": written.kept,
                "bytes": bytes, "keeps": keeps.values.name(), "landmarks": keeps.landmarks.name(), "seconds": seconds, "tokens_per_s": read as f64 / seconds,
                "peak_device_bytes": memory.peak, "peak_host_bytes": reading::peak_host_bytes(),
                "device": gpu.capabilities().name, "half": self.weights.half,
            }));
        }
        print(&format!(
            "{} tokens in memory, {read} of them read now at {} a second on {}; {} MiB in {}, keys and values {}, landmarks in {}\n",
            written.tokens,
            short(read as f64 / seconds),
            gpu.capabilities().name,
            bytes >> 20,
            self.memory.display(),
            if keeps.values == Placement::Host { "with it" } else { "in the text" },
            if keeps.landmarks == Landmarks::Float { model.dtype().wgsl() } else { "int8" }
        ))
    }
}
