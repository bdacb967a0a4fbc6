//! `rambutan eval`: how much of what was hidden is found.

use std::{path::PathBuf, time::Instant};

use rambutan_engine::Gpu;
use rambutan_model::{
    Checkpoint, Ramba, data,
    reader::Reader,
    rng::Rng,
    tasks::{FactKind, Haystack, Needle},
};
use serde_json::{Value, json};

use crate::{
    Device,
    problem::{Problem, print, print_json},
    reading::{self, MAX_TOKENS, MemoryIn, Read, Weights, short},
};

/// Measures how often hidden facts are found
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan eval passkey --lengths 4096,65536 --trials 50\n  rambutan eval passkey --checkpoint run/latest.safetensors --kind named --json"
)]
pub struct Eval {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Passkey(Passkey),
}

/// Which facts.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Kinds {
    Plain,
    Named,
    Both,
}

/// Hides one fact a trial, at uniform depth, and asks for it
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan eval passkey --lengths 4096,65536 --trials 50\n  rambutan eval passkey --text book.txt --lengths 1048576 --kind named --json\n  rambutan eval passkey --random --lengths 65536\n  rambutan eval passkey --no-hsa --lengths 65536\n\nexact: the whole answer and its end, by greedy decoding. selected: all chunks of the fact are among those selected at the\nanswer's first token. Each length is read once; a trial reads only the segments again that its fact touches. Up to 300\nbytes of text stand between the last restart and the question."
)]
struct Passkey {
    #[command(flatten)]
    weights: Weights,
    #[command(flatten)]
    memory: MemoryIn,
    /// A text to hide facts in, continued by pieces of itself where it is too short [default: generated prose]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Lengths of the text in tokens
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "4096,16384,65536",
        value_parser = clap::value_parser!(u64).range(1..=MAX_TOKENS))]
    lengths: Vec<u64>,
    /// Trials for each length and kind
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    trials: u32,
    /// The kind of fact: |The passkey is:48213| or |The code of Rivaze is:7731942|
    #[arg(long, value_enum, default_value_t = Kinds::Both)]
    kind: Kinds,
    /// Draws other facts, places and prose
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Switches the HSA layers off: memory stays unread
    #[arg(long)]
    no_hsa: bool,
    /// Random weights of the checkpoint's configuration
    #[arg(long)]
    random: bool,
    /// Prints a line of JSON for each length and kind
    #[arg(long)]
    json: bool,
}

/// Text between the last restart and the question, at most.
const LEAD: usize = 300;

impl Eval {
    pub fn run(&self, device: &Device) -> Result<(), Problem> {
        let What::Passkey(passkey) = &self.what;
        passkey.run(device)
    }
}

impl Passkey {
    fn run(&self, device: &Device) -> Result<(), Problem> {
        let text = self.text.as_deref().map(data::read_text).transpose()?;
        let mut checkpoint = self.weights.open()?;
        let config = &checkpoint.config;
        if let Some(short) = self.lengths.iter().find(|&&l| l < config.chunk_size as u64) {
            return Err(Problem::input(
                format!("--lengths {short}: shorter than a chunk of {} tokens", config.chunk_size),
                "choose lengths of some hundred tokens or more, such as --lengths 4096,65536",
            ));
        }
        if self.random {
            checkpoint = Checkpoint::initial(config.clone(), self.seed)?;
        }
        let gpu = device.open()?;
        let mut model = self.weights.upload(&gpu, &checkpoint)?;
        model.hsa = !self.no_hsa;
        let longest = self.lengths.iter().max().map_or(0, |&l| l as usize);
        let mut warm = Reader::new(&model)?;
        let batch = warm.batch().min(longest);
        reading::warm_up(&mut warm, &gpu, batch)?;
        drop(warm);
        let c = gpu.capabilities();
        if !self.json {
            let header = [
                "length",
                "kind",
                "trials",
                "exact",
                "selected",
                "tokens/s",
                "device MiB",
                "s/trial",
                "memory in",
            ];
            let [length, kind, trials, exact, selected, rate, memory, each, place] = header;
            print(&format!(
                "{} · {}\n\n{length:>12} {kind:>6} {trials:>7} {exact:>7} {selected:>9} {rate:>9} {memory:>11} {each:>8}  {place}\n",
                c.name, c.backend
            ))?;
        }
        for &length in &self.lengths {
            self.length(&gpu, &model, text.as_deref(), length as usize)?;
        }
        Ok(())
    }

    fn length(&self, gpu: &Gpu, model: &Ramba, text: Option<&[u8]>, length: usize) -> Result<(), Problem> {
        let hay = match text {
            Some(text) => Haystack::from_text(text, length, self.seed)?,
            None => Haystack::prose(self.seed, length)?,
        };
        gpu.reset_peaks();
        let Read { mut reader, time, place } = self.memory.read(model, gpu, || hay.text())?;
        let rate = length as f64 / time.as_secs_f64();
        let kinds: &[FactKind] = match self.kind {
            Kinds::Plain => &[FactKind::Plain],
            Kinds::Named => &[FactKind::Named],
            Kinds::Both => &FactKind::ALL,
        };
        for &kind in kinds {
            let trials = self.trials as usize;
            let (bar, begin) = (reading::bar(kind.name(), trials), Instant::now());
            let Score { exact, selected } =
                score(&mut reader, model, &hay, kind, trials, self.seed, || bar.inc(1))?;
            bar.finish_and_clear();
            let each = begin.elapsed().as_secs_f64() / f64::from(self.trials);
            let (memory, c) = (gpu.memory(), gpu.capabilities());
            if self.json {
                let line: Value = json!({
                    "length": length, "kind": kind.name(), "trials": self.trials,
                    "exact": exact, "selected": selected, "tokens_per_s": rate,
                    "peak_device_bytes": memory.peak, "peak_host_bytes": reading::peak_host_bytes(),
                    "device": c.name, "backend": c.backend, "seconds_per_trial": each, "seed": self.seed,
                    "memory_in": reader.placement().name(), "hsa": !self.no_hsa, "random": self.random, "half": self.weights.half,
                });
                print_json(&line)?;
            } else {
                print(&format!(
                    "{length:>12} {:>6} {:>7} {:>7.3} {:>9.3} {:>9} {:>11} {each:>8.3}  {place}\n",
                    kind.name(),
                    self.trials,
                    exact,
                    selected,
                    short(rate),
                    memory.peak >> 20
                ))?;
            }
        }
        Ok(())
    }
}

/// Shares of the trials of one kind.
pub struct Score {
    /// Answered to the last digit.
    pub exact: f64,
    /// With all of the needle's chunks selected.
    pub selected: f64,
}

/// Tries needles of one kind in what `reader` has read of `hay`; `tried` hears of each.
pub fn score(
    reader: &mut Reader<'_>,
    model: &Ramba,
    hay: &Haystack,
    kind: FactKind,
    trials: usize,
    seed: u64,
    mut tried: impl FnMut(),
) -> Result<Score, Problem> {
    let needles = hay.trials(kind, trials, seed)?;
    let (mut exact, mut selected) = (0, 0);
    for (trial, needle) in needles.iter().enumerate() {
        let mut rng = Rng::from_parts(&[seed, hay.len() as u64, kind as u64, trial as u64]);
        let found = examine(reader, model, hay, needle, hay.lead(LEAD, &mut rng))?;
        exact += usize::from(found.exact);
        selected += usize::from(found.selected);
        tried();
    }
    let share = |n: usize| n as f64 / trials as f64;
    Ok(Score { exact: share(exact), selected: share(selected) })
}

/// How a trial went.
pub struct Found {
    /// The answer was right to the last digit and the stop.
    pub exact: bool,
    /// All chunks of the needle were among those selected at the answer's first token.
    pub selected: bool,
}

/// Hides the needle in what `reader` has read of `hay`, asks for it after `lead`, and takes it out again.
pub fn examine(
    reader: &mut Reader<'_>,
    model: &Ramba,
    hay: &Haystack,
    needle: &Needle,
    lead: &[u8],
) -> Result<Found, Problem> {
    let stretch = reader.stretch(needle.span());
    let saved = reader.replace(stretch.start, &hay.with(needle, stretch))?;
    let question = [lead, needle.fact.question.as_bytes()].concat();
    let expected = needle.fact.answer.as_bytes();
    let answer = pollster::block_on(reader.examine(&question, expected))?;
    // A chunk that is not complete there, at the text's very end, is in the state's own sight and needs no selection.
    let visible = reader.visible(reader.len() + question.len() - 1);
    reader.restore(saved);
    let mut chunks = needle.blocks(model.config.chunk_size).filter(|c| *c < visible);
    let selected = chunks.all(|c| answer.selected.iter().any(|s| s.0 == c));
    Ok(Found { exact: needle.fact.is_answered_by(&answer.text), selected })
}
