//! `rambutan eval`: how much of what was hidden is found, how well text is foretold, and what memory takes.

mod memory;
mod passkey;
mod perplexity;
mod record;
mod ruler;

use std::{
    ops::{ControlFlow, Range},
    path::PathBuf,
    time::{Duration, Instant},
};

use rambutan_engine::Gpu;
use rambutan_model::{
    Checkpoint, Ramba,
    data::{self, DataError},
    ranks::Ranks,
    reader::{Placement, Reader, States},
    rng::Rng,
    tasks::{FactKind, Haystack, Task, Trial},
};
use serde_json::{Value, json};

use crate::{
    Device,
    problem::{Problem, print, print_json},
    ranks::agree,
    reading::{self, MAX_TOKENS, MemoryIn, Weights, short},
};
use record::{Record, Tried};

/// Measures how often hidden facts are found, how well text is foretold, and what memory takes
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan eval passkey --lengths 4096,65536 --trials 50\n  rambutan eval passkey --checkpoint run/latest.safetensors --kind named --json\n  rambutan eval ruler --lengths 4096,65536 --tasks multi-query,variables\n  rambutan eval passkey --half --lengths 1048576,1073741824 --trials 100 --memory-in text --out out/passkey --seconds 500\n  rambutan eval perplexity --text book.txt --lengths 4096,65536\n  rambutan eval memory --lengths 4096,65536"
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
    /// Keeps each trial in DIR/trials.jsonl as it ends, goes on with what is there, and draws DIR/heatmap.png
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Begins no more trials after so many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
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
    /// The text of one's own, the model on its device, all kernels compiled, and what stands for its weights.
    fn open(&self, device: &Device) -> Result<(Option<Vec<u8>>, Gpu, Ramba, String), Problem> {
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
        if model.config.enable_hsa {
            let mut warm = Reader::new(&model)?;
            let batch = warm.batch().min(longest);
            reading::warm_up(&mut warm, &gpu, batch)?;
        } else {
            let mut warm = States::new(&model)?;
            warm.read(&vec![b' '; warm.piece().min(longest)])?;
        }
        Ok((text, gpu, model, checkpoint.fingerprint()))
    }

    /// Whether ranks can share a text for this model.
    fn shareable(&self, model: &Ramba, ranks: &dyn Ranks) -> Result<(), Problem> {
        if ranks.size() > 1 && !model.config.enable_hsa {
            return Err(Problem::input(
                "the model keeps no memory of a text that ranks could share",
                "start it without mpirun",
            ));
        }
        if model.config.enable_hsa {
            Reader::over(model, Placement::Device, ranks)?;
        }
        Ok(())
    }

    fn hay(&self, text: Option<&[u8]>, length: usize) -> Result<Haystack, Problem> {
        Ok(match text {
            Some(text) => Haystack::from_text(text, length, self.seed)?,
            None if self.formats => Haystack::formats(self.seed, length)?,
            None => Haystack::prose(self.seed, length)?,
        })
    }
}

/// What trials are made in.
pub enum Subject<'m> {
    /// A text in memory: a trial reads the segments again that its statements touch.
    Memory(Reader<'m>),
    /// A model that keeps no memory of texts, and what it carries from the text's beginning: a trial reads all again from its
    /// first statement on.
    States(States<'m>),
}

impl<'m> Subject<'m> {
    /// The model with `hay` in memory on the device, where it has one.
    pub fn new(model: &'m Ramba, hay: &Haystack) -> Result<Subject<'m>, Problem> {
        if !model.config.enable_hsa {
            return Ok(Subject::States(States::new(model)?));
        }
        let mut reader = Reader::new(model)?;
        reader.read(hay.source(), |_| ())?;
        Ok(Subject::Memory(reader))
    }
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

    /// Reads the text of a length → the subject, and what that took.
    fn read<'m>(
        &self,
        gpu: &Gpu,
        model: &'m Ramba,
        ranks: &'m dyn Ranks,
        hay: &Haystack,
    ) -> Result<(Subject<'m>, Value), Problem> {
        gpu.reset_peaks();
        let c = gpu.capabilities();
        let mut line = json!({ "device": c.name, "backend": c.backend });
        if !model.config.enable_hsa {
            line["memory_in"] = json!("state");
            line["place"] = json!("nothing but the state: every trial reads on from its fact");
            return Ok((Subject::States(States::new(model)?), line));
        }
        let reading::Read { reader, time, place } = self.memory.read(model, gpu, ranks, || hay.source())?;
        line["tokens_per_s"] = json!(hay.len() as f64 / time.as_secs_f64());
        line["memory_in"] = json!(reader.placement().name());
        line["landmarks"] = json!(reading::landmarks_in(&reader, model));
        line["place"] = json!(place);
        Ok((Subject::Memory(reader), line))
    }

    /// Examines `all` kinds or tasks, `column` in reports, at each length: `draw` gives their trials and what seeds them.
    /// Ranks try each together; rank 0 keeps what came of it, and the clock.
    fn examine<K: Copy>(
        &self,
        device: &Device,
        ranks: &dyn Ranks,
        column: &'static str,
        all: &[K],
        name: impl Fn(K) -> &'static str,
        draw: impl Fn(&Haystack, K) -> Result<(Vec<Trial>, [u64; 3]), DataError>,
    ) -> Result<(), Problem> {
        let begin = Instant::now();
        let late = || {
            let mine = self.seconds.is_some_and(|s| begin.elapsed() >= Duration::from_secs(s));
            self.seconds.is_some() && ranks.broadcast(vec![mine.into()])[0] == 1
        };
        let opened = self.open(device).and_then(|opened| {
            self.shareable(&opened.2, ranks)?;
            Ok(opened)
        });
        let (text, gpu, model, weights) = agree(ranks, opened)?;
        let text_is = match &text {
            Some(text) => format!("{:016x}", reading::digest(text)),
            None if self.formats => "generated formats".into(),
            None => "generated prose".into(),
        };
        let record = Record::open(
            self.out.as_deref().filter(|_| ranks.rank() == 0),
            &json!({
                "weights": weights, "half": self.weights.half, "hsa": !self.no_hsa, "text": text_is,
                "seed": self.seed, "trials": self.trials,
            }),
        );
        let mut record = agree(ranks, record)?;
        self.head(&gpu, column)?;
        let (count, mut left) = (self.trials as usize, 0);
        for length in self.lengths.iter().map(|&l| l as usize) {
            let left_of = |record: &Record, k: K| -> Vec<usize> {
                let left = record.left(length, name(k), count);
                let left = ranks.broadcast(left.iter().flat_map(|&n| (n as u32).to_le_bytes()).collect());
                let numbers = left.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                numbers.map(|n| n as usize).collect()
            };
            let numbers: Vec<Vec<usize>> = all.iter().map(|&k| left_of(&record, k)).collect();
            let mut subject = None;
            if numbers.iter().any(|n| !n.is_empty()) && !late() {
                let hay = agree(ranks, self.hay(text.as_deref(), length))?;
                let (read, line) = self.read(&gpu, &model, ranks, &hay)?;
                record.note_reading(length, line)?;
                subject = Some((hay, read));
            }
            for (&k, numbers) in all.iter().zip(&numbers) {
                if let Some((hay, subject)) = &mut subject {
                    let (trials, seed) = draw(hay, k)?;
                    let bar = reading::bar(name(k), numbers.len());
                    try_all(subject, &model, hay, &trials, numbers, &seed, |number, tried| {
                        bar.inc(1);
                        record.note(length, name(k), number, tried)?;
                        Ok(if late() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
                    })?;
                    bar.finish_and_clear();
                }
                if record.left(length, name(k), count).is_empty() {
                    self.row(&record, &gpu, length, column, name(k))?;
                }
            }
            left += all.iter().map(|&k| left_of(&record, k).len()).sum::<usize>();
        }
        let c = gpu.capabilities();
        record.draw(&format!("{}, {count} trials a length and {column}", c.name))?;
        if left == 0 {
            return Ok(());
        }
        if self.json {
            return print_json(&json!({ "trials_left": left }));
        }
        let on = if self.out.is_some() { "the same command goes on" } else { "--out keeps what was tried" };
        print(&format!("out of time with {left} trials left: {on}\n"))
    }

    /// One row: `column` is the name in JSON of what `which` stands in.
    fn row(
        &self,
        record: &Record,
        gpu: &Gpu,
        length: usize,
        column: &str,
        which: &str,
    ) -> Result<(), Problem> {
        let memory = gpu.memory();
        let nothing = json!({});
        let read = record.reading(length).unwrap_or(&nothing);
        let score = Score::of(record.tried(length, which));
        let each = record.tried(length, which).map(|t| t.seconds).sum::<f64>() / f64::from(self.trials);
        let Score { exact, selected } = score;
        if self.json {
            return print_json(&json!({
                "length": length, column: which, "trials": self.trials,
                "exact": exact, "selected": selected, "tokens_per_s": read["tokens_per_s"],
                "peak_device_bytes": memory.peak, "peak_host_bytes": reading::peak_host_bytes(),
                "device": read["device"], "backend": read["backend"], "seconds_per_trial": each, "seed": self.seed,
                "memory_in": read["memory_in"], "landmarks": read["landmarks"], "hsa": !self.no_hsa, "random": self.random, "half": self.weights.half,
            }));
        }
        print(&format!(
            "{length:>12} {which:>11} {:>7} {exact:>7.3} {selected:>9.3} {:>9} {:>11} {each:>8.3}  {}\n",
            self.trials,
            read["tokens_per_s"].as_f64().map_or_else(|| "-".into(), short),
            memory.peak >> 20,
            read["place"].as_str().unwrap_or_default()
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

impl Score {
    fn of<'a>(tried: impl Iterator<Item = &'a Tried>) -> Score {
        let (mut all, mut exact, mut selected) = (0u32, 0u32, 0u32);
        for Tried { found, .. } in tried {
            all += 1;
            exact += u32::from(found.exact);
            selected += u32::from(found.selected);
        }
        let share = |n: u32| f64::from(n) / f64::from(all.max(1));
        Score { exact: share(exact), selected: share(selected) }
    }
}

/// Tries needles of one kind in what `subject` has read of `hay`.
pub fn score(
    subject: &mut Subject<'_>,
    model: &Ramba,
    hay: &Haystack,
    kind: FactKind,
    trials: usize,
    seed: u64,
) -> Result<Score, Problem> {
    let trials: Vec<Trial> = hay.trials(kind, trials, seed)?.iter().map(Trial::from).collect();
    score_all(subject, model, hay, &trials, &[seed, hay.len() as u64, kind as u64])
}

/// Tries all tasks in `length` tokens of `text`, or of generated prose.
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
    let mut subject = Subject::new(model, &hay)?;
    let mut scores = Vec::new();
    for &task in tasks {
        let trials = hay.ruler(task, trials, 0)?;
        scores.push((task, score_all(&mut subject, model, &hay, &trials, &[0, task as u64])?));
    }
    Ok(scores)
}

fn score_all(
    subject: &mut Subject<'_>,
    model: &Ramba,
    hay: &Haystack,
    trials: &[Trial],
    seed: &[u64],
) -> Result<Score, Problem> {
    let (numbers, mut all) = ((0..trials.len()).collect::<Vec<_>>(), Vec::new());
    try_all(subject, model, hay, trials, &numbers, seed, |_, tried| {
        all.push(tried);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Score::of(all.iter()))
}

/// Goes through the trials of these numbers, those whose statements begin earlier first; `seed` draws what stands before each
/// question, `tried` hears of each.
fn try_all(
    subject: &mut Subject<'_>,
    model: &Ramba,
    hay: &Haystack,
    trials: &[Trial],
    numbers: &[usize],
    seed: &[u64],
    mut tried: impl FnMut(usize, Tried) -> Result<ControlFlow<()>, Problem>,
) -> Result<(), Problem> {
    let mut numbers = numbers.to_vec();
    numbers.sort_by_key(|&n| (trials[n].begin(), n));
    for number in numbers {
        let (trial, begin) = (&trials[number], Instant::now());
        let mut rng = Rng::from_parts(&[seed, &[number as u64]].concat());
        let lead = hay.lead(LEAD, &mut rng);
        let found = match subject {
            Subject::Memory(reader) => examine(reader, model, hay, trial, &lead)?,
            Subject::States(states) => examine_anew(states, hay, trial, &lead)?,
        };
        let depth = trial.span(trial.first).start as f64 / hay.len() as f64;
        if tried(number, Tried { depth, found, seconds: begin.elapsed().as_secs_f64() })?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Asks after `lead` in `hay` with the trial's statements, of which `states` has read no more than stands before them.
fn examine_anew(
    states: &mut States<'_>,
    hay: &Haystack,
    trial: &Trial,
    lead: &[u8],
) -> Result<Found, Problem> {
    let begin = trial.begin();
    if states.len() > begin {
        *states = states.anew();
    }
    let piece = states.piece();
    let pieces =
        |from: usize, to: usize| (from..to).step_by(piece).map(move |start| start..(start + piece).min(to));
    for range in pieces(states.len(), begin) {
        states.read(&hay.bytes(range))?;
    }
    let mut after = states.clone();
    for range in pieces(begin, hay.len()) {
        let statements = trial.statements.iter().map(|(at, text)| (*at, text.as_str()));
        after.read(&hay.with_all(statements, range))?;
    }
    let (question, expected) = ([lead, trial.question.as_bytes()].concat(), trial.answer.as_bytes());
    let said = pollster::block_on(after.examine(&question, expected))?;
    Ok(Found { exact: said == expected, selected: false, said })
}

/// How a trial went.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The answer was right to the last byte and the stop.
    pub exact: bool,
    /// All chunks of the statement that the answer begins with were among those selected at its first token.
    pub selected: bool,
    /// The answer, up to its first wrong byte.
    pub said: Vec<u8>,
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
    Ok(Found { exact: answer.text == expected, selected, said: answer.text })
}
