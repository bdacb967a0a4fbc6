//! `rambutan eval`: how much of what was hidden is found, how well text is foretold, and what memory takes.

mod memory;
mod passkey;
mod perplexity;
mod ruler;

use std::{ops::Range, path::PathBuf};

use rambutan_engine::Gpu;
use rambutan_model::{
    Checkpoint, Ramba, data,
    ranks::Ranks,
    reader::Reader,
    rng::Rng,
    tasks::{FactKind, Haystack, Task, Trial},
};
use serde_json::json;

use crate::{
    Device,
    problem::{Problem, print, print_json},
    reading::{self, MAX_TOKENS, MemoryIn, Weights, short},
};

/// Measures how often hidden facts are found, how well text is foretold, and what memory takes
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan eval passkey --lengths 4096,65536 --trials 50\n  rambutan eval passkey --checkpoint run/latest.safetensors --kind named --json\n  rambutan eval ruler --lengths 4096,65536 --tasks multi-query,variables\n  rambutan eval perplexity --text book.txt --lengths 4096,65536\n  rambutan eval memory --lengths 4096,65536"
)]
pub struct Eval {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Passkey(passkey::Passkey),
    Ruler(ruler::Ruler),
    Perplexity(perplexity::Perplexity),
    Memory(memory::Memory),
}

/// Which model examines what text at which lengths: what every examination asks.
#[derive(clap::Args)]
struct Setup {
    #[command(flatten)]
    weights: Weights,
    #[command(flatten)]
    memory: MemoryIn,
    /// A text of one's own [default: generated prose]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Generated code, logs, tables and other languages in place of prose
    #[arg(long, conflicts_with = "text")]
    formats: bool,
    /// Lengths of the text in tokens
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "4096,16384,65536",
        value_parser = clap::value_parser!(u64).range(1..=MAX_TOKENS))]
    lengths: Vec<u64>,
    /// Trials for each length and each kind, task or text
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    trials: u32,
    /// Draws other facts, places and text
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Switches the HSA layers off: memory stays unread
    #[arg(long)]
    no_hsa: bool,
    /// Random weights of the checkpoint's configuration
    #[arg(long)]
    random: bool,
    /// Prints a line of JSON for each row
    #[arg(long)]
    json: bool,
}

/// Text between the last restart and the question, at most.
const LEAD: usize = 300;

impl Eval {
    /// Refuses what several processes would only do several times.
    pub fn over_ranks(&self) -> Result<(), Problem> {
        match &self.what {
            What::Perplexity(_) => {
                Err(Problem::input("eval perplexity works in one process", "start it without mpirun"))
            }
            _ => Ok(()),
        }
    }

    pub fn run(&self, device: &Device, ranks: &dyn Ranks) -> Result<(), Problem> {
        match &self.what {
            What::Passkey(passkey) => passkey.run(device, ranks),
            What::Ruler(ruler) => ruler.run(device, ranks),
            What::Perplexity(perplexity) => perplexity.run(device),
            What::Memory(memory) => memory.run(device),
        }
    }
}

impl Setup {
    /// The text of one's own, and the model on its device, all kernels compiled.
    fn open(&self, device: &Device) -> Result<(Option<Vec<u8>>, Gpu, Ramba), Problem> {
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
        Ok((text, gpu, model))
    }

    fn hay(&self, text: Option<&[u8]>, length: usize) -> Result<Haystack, Problem> {
        Ok(match text {
            Some(text) => Haystack::from_text(text, length, self.seed)?,
            None if self.formats => Haystack::formats(self.seed, length)?,
            None => Haystack::prose(self.seed, length)?,
        })
    }
}

/// What a row of the report says of a text that was read.
struct Read<'a> {
    gpu: &'a Gpu,
    length: usize,
    tokens_per_s: f64,
    /// Where its keys and values are and what its landmarks are in, and why.
    place: String,
    memory_in: &'static str,
    landmarks: &'static str,
}

impl Setup {
    /// The table's head; `what` names the second column.
    fn head(&self, gpu: &Gpu, what: &str) -> Result<(), Problem> {
        if self.json {
            return Ok(());
        }
        let c = gpu.capabilities();
        let header =
            ["length", "trials", "exact", "selected", "tokens/s", "device MiB", "s/trial", "memory in"];
        let [length, trials, exact, selected, rate, memory, each, place] = header;
        print(&format!(
            "{} · {}\n\n{length:>12} {what:>11} {trials:>7} {exact:>7} {selected:>9} {rate:>9} {memory:>11} {each:>8}  {place}\n",
            c.name, c.backend
        ))
    }

    /// Reads the text of a length.
    fn read<'a, 'm>(
        &self,
        gpu: &'a Gpu,
        model: &'m Ramba,
        ranks: &'m dyn Ranks,
        hay: &Haystack,
    ) -> Result<(Reader<'m>, Read<'a>), Problem> {
        gpu.reset_peaks();
        let reading::Read { reader, time, place } = self.memory.read(model, gpu, ranks, || hay.text())?;
        let (length, memory_in) = (hay.len(), reader.placement().name());
        let landmarks = reading::landmarks_in(&reader, model);
        let tokens_per_s = length as f64 / time.as_secs_f64();
        Ok((reader, Read { gpu, length, tokens_per_s, place, memory_in, landmarks }))
    }

    /// One row: `what` is the column's name in JSON and `which` what stands in it.
    fn row(
        &self,
        read: &Read<'_>,
        what: &str,
        which: &str,
        score: Score,
        seconds: f64,
    ) -> Result<(), Problem> {
        let (memory, c) = (read.gpu.memory(), read.gpu.capabilities());
        let each = seconds / f64::from(self.trials);
        let Score { exact, selected } = score;
        if self.json {
            return print_json(&json!({
                "length": read.length, what: which, "trials": self.trials,
                "exact": exact, "selected": selected, "tokens_per_s": read.tokens_per_s,
                "peak_device_bytes": memory.peak, "peak_host_bytes": reading::peak_host_bytes(),
                "device": c.name, "backend": c.backend, "seconds_per_trial": each, "seed": self.seed,
                "memory_in": read.memory_in, "landmarks": read.landmarks, "hsa": !self.no_hsa, "random": self.random, "half": self.weights.half,
            }));
        }
        print(&format!(
            "{:>12} {which:>11} {:>7} {exact:>7.3} {selected:>9.3} {:>9} {:>11} {each:>8.3}  {}\n",
            read.length,
            self.trials,
            short(read.tokens_per_s),
            memory.peak >> 20,
            read.place
        ))
    }
}

/// Shares of the trials of one kind.
pub struct Score {
    /// Answered to the last byte.
    pub exact: f64,
    /// With all chunks of the statement that the answer begins with selected.
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
    tried: impl FnMut(),
) -> Result<Score, Problem> {
    let trials: Vec<Trial> = hay.trials(kind, trials, seed)?.iter().map(Trial::from).collect();
    score_all(reader, model, hay, &trials, &[seed, hay.len() as u64, kind as u64], tried)
}

/// Reads `length` tokens of `text`, or of generated prose, and tries all tasks in them.
pub fn examine_tasks(
    model: &Ramba,
    text: Option<&[u8]>,
    length: usize,
    tasks: &[Task],
    trials: usize,
) -> Result<Vec<(Task, Score)>, Problem> {
    let hay = match text {
        Some(text) => Haystack::from_text(text, length, 0)?,
        None => Haystack::prose(0, length)?,
    };
    let mut reader = Reader::new(model)?;
    reader.read(hay.text(), |_| ())?;
    let mut scores = Vec::new();
    for &task in tasks {
        let trials = hay.ruler(task, trials, 0)?;
        scores.push((task, score_all(&mut reader, model, &hay, &trials, &[0, task as u64], || ())?));
    }
    Ok(scores)
}

/// Goes through trials; `seed` draws what stands before each question.
fn score_all(
    reader: &mut Reader<'_>,
    model: &Ramba,
    hay: &Haystack,
    trials: &[Trial],
    seed: &[u64],
    mut tried: impl FnMut(),
) -> Result<Score, Problem> {
    let (mut exact, mut selected) = (0, 0);
    for (number, trial) in trials.iter().enumerate() {
        let mut rng = Rng::from_parts(&[seed, &[number as u64]].concat());
        let found = examine(reader, model, hay, trial, hay.lead(LEAD, &mut rng))?;
        exact += usize::from(found.exact);
        selected += usize::from(found.selected);
        tried();
    }
    let share = |n: usize| n as f64 / trials.len() as f64;
    Ok(Score { exact: share(exact), selected: share(selected) })
}

/// How a trial went.
pub struct Found {
    /// The answer was right to the last byte and the stop.
    pub exact: bool,
    /// All chunks of the statement that the answer begins with were among those selected at its first token.
    pub selected: bool,
}

/// Hides the trial's statements in what `reader` has read of `hay`, asks after `lead`, and takes them out again.
pub fn examine(
    reader: &mut Reader<'_>,
    model: &Ramba,
    hay: &Haystack,
    trial: &Trial,
    lead: &[u8],
) -> Result<Found, Problem> {
    // Whole segments; what several statements touch is read once.
    let mut stretches: Vec<Range<usize>> =
        (0..trial.statements.len()).map(|i| reader.stretch(trial.span(i))).collect();
    stretches.sort_by_key(|s| s.start);
    stretches.dedup_by(|next, last| {
        let touches = next.start < last.end;
        if touches {
            last.end = last.end.max(next.end);
        }
        touches
    });
    let mut saved = Vec::new();
    for stretch in stretches {
        let statements = trial.statements.iter().map(|(at, text)| (*at, text.as_str()));
        saved.push(reader.replace(stretch.start, &hay.with_all(statements, stretch))?);
    }
    let question = [lead, trial.question.as_bytes()].concat();
    let expected = trial.answer.as_bytes();
    let answer = pollster::block_on(reader.examine(&question, expected))?;
    // A chunk that is not complete there, at the text's very end, is in the state's own sight and needs no selection.
    let visible = reader.visible(reader.len() + question.len() - 1);
    for saved in saved.into_iter().rev() {
        reader.restore(saved);
    }
    let (chunk, span) = (model.config.chunk_size, trial.span(trial.first));
    let mut chunks = (span.start / chunk..(span.end - 1) / chunk + 1).filter(|c| *c < visible);
    let selected = chunks.all(|c| answer.selected.iter().any(|s| s.0 == c));
    Ok(Found { exact: answer.text == expected, selected })
}
