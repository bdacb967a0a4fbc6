//! `rambutan demo`: hides facts in a long text, reads it, and finds them again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use rambutan_engine::Gpu;
use rambutan_model::{
    Error, Ramba, data,
    ranks::Alone,
    reader::Reader,
    tasks::{FactKind, Haystack, Needle, STOP},
};
use serde_json::json;

use super::eval::examine;
use crate::{
    Device,
    picture::HeatMap,
    problem::{Problem, print, print_json},
    reading::{self, MAX_TOKENS, MemoryIn, Read, Weights, short, tokens},
};

/// Hides facts in a long text, reads the text into memory, and asks for them
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan demo\n  rambutan demo --tokens 1048576 --facts 12\n  rambutan demo --text book.txt --out pictures\n\nThe picture, heatmap.png, shows how many answers were right for facts at every depth of texts of several lengths. Without\n--tokens the length is what this adapter reads in half a minute."
)]
pub struct Demo {
    /// Tokens (bytes) to read
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_TOKENS))]
    tokens: Option<u64>,
    /// A text to hide facts in, continued by pieces of itself where --tokens asks for more [default: generated prose]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Facts to hide and ask for
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    facts: u32,
    /// The folder for the picture
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
    #[command(flatten)]
    weights: Weights,
    #[command(flatten)]
    memory: MemoryIn,
    /// Draws other facts, places and prose
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Prints a line of JSON for each question, and one for all
    #[arg(long)]
    json: bool,
}

/// Seconds of reading that the default length is chosen for.
const SECONDS: f64 = 25.0;
/// The least and the greatest default length.
const DEFAULT: (usize, usize) = (1 << 16, 1 << 24);
/// A shorter text shows nothing: then it is better to say that memory is missing.
const LEAST: usize = 4096;
/// The longest answer, in tokens.
const LONGEST: usize = 16;

impl Demo {
    pub fn run(&self, device: &Device) -> Result<(), Problem> {
        let text = self.text.as_deref().map(data::read_text).transpose()?;
        let checkpoint = self.weights.open()?;
        let chunk = checkpoint.config.chunk_size;
        if let Some(n) = self.tokens.filter(|&n| n < chunk as u64) {
            return Err(Problem::input(
                format!("--tokens {n}: shorter than a chunk of {chunk} tokens"),
                "choose some hundred tokens or more, such as --tokens 65536",
            ));
        }
        let gpu = device.open()?;
        let model = self.weights.upload(&gpu, &checkpoint)?;
        // Whether it can read at all.
        drop(Reader::new(&model)?);
        let picture = self.prepare_folder()?;
        let c = gpu.capabilities();
        if !self.json {
            let parameters = model.config.parameter_count() as f64;
            print(&format!("{} · {} · {} parameters\n", c.name, c.backend, short(parameters)))?;
        }
        let mut n = match self.tokens {
            Some(n) => n as usize,
            None => {
                let quick = default_length(&gpu, &model)?;
                text.as_ref().map_or(quick, |t| t.len().min(quick))
            }
        };
        // Where nobody asked for a length, a smaller memory means a shorter text.
        let (hay, needles, planted, Read { mut reader, time, place }) = loop {
            let (hay, planted, needles) = self.hide(text.as_deref(), n)?;
            gpu.reset_peaks();
            match self.memory.read(&model, &gpu, &Alone, || planted.source()) {
                Ok(read) => break (hay, needles, planted, read),
                Err(Error::TextTooLong { fit, .. }) if self.tokens.is_none() && fit.min(n / 2) >= LEAST => {
                    n = fit.min(n / 2);
                }
                Err(e) => return Err(e.into()),
            }
        };
        let rate = n as f64 / time.as_secs_f64();
        let memory = gpu.memory();
        if !self.json {
            print(&format!(
                "read {} tokens at {} tokens/s, device memory {} MiB; keys and values in: {place}\n\n",
                planted.len(),
                short(rate),
                memory.peak >> 20
            ))?;
        }
        let found = self.ask(&reader, &needles, planted.len())?;
        if !self.json {
            print(&format!("\nfound {found} of {}\n", needles.len()))?;
        }
        // The facts are taken out again: the picture's trials stand alone in the text, as the questions ask.
        for needle in &needles {
            let stretch = reader.stretch(needle.span());
            reader.replace(stretch.start, &hay.bytes(stretch))?;
        }
        let map = self.measure(&gpu, &model, &mut reader, &hay)?;
        let memory = gpu.memory();
        let subtitle = format!("{}, {} tokens read at {} a second", c.name, planted.len(), short(rate));
        let (columns, rows): (Vec<_>, Vec<String>) = (
            map.lengths.iter().map(|&l| tokens(l)).zip(map.exact.iter().cloned()).collect(),
            (0..map.depths).map(|d| format!("{}%", (200 * d + 100) / (2 * map.depths))).collect(),
        );
        HeatMap {
            title: "Facts found, by depth and length",
            subtitle: &subtitle,
            columns: &columns,
            rows: &rows,
            across: "length of the text in tokens",
            down: "depth",
        }
        .draw()
        .save(&picture)?;
        if !self.json {
            return print(&format!("picture: {}\n", picture.display()));
        }
        print_json(&json!({
            "found": found, "asked": needles.len(), "tokens": planted.len(), "tokens_per_s": rate,
            "picture": picture.display().to_string(),
            "map": { "lengths": map.lengths, "depths": map.depths, "exact": map.exact, "trials_per_cell": map.trials },
            "peak_device_bytes": memory.peak, "peak_host_bytes": reading::peak_host_bytes(),
            "memory_in": reader.placement().name(), "landmarks": reading::landmarks_in(&reader, &model), "device": c.name, "backend": c.backend, "seed": self.seed,
        }))
    }

    /// Makes the folder, and sees that the picture can be written before anything takes its time.
    fn prepare_folder(&self) -> Result<PathBuf, Problem> {
        let probe = |folder: &Path| -> io::Result<()> {
            fs::create_dir_all(folder)?;
            let name = folder.join(format!(".rambutan-{}.tmp", std::process::id()));
            fs::write(&name, b"?").and_then(|()| fs::remove_file(&name)).inspect_err(|_| {
                let _ = fs::remove_file(&name);
            })
        };
        probe(&self.out).map_err(|e| {
            Problem::input(
                format!("cannot write to --out {}: {e}", self.out.display()),
                "name a folder that can be written to, with some room left",
            )
        })?;
        let picture = self.out.join("heatmap.png");
        if picture.is_dir() {
            return Err(Problem::input(
                format!("cannot write {}: it is a folder", picture.display()),
                "move it away, or choose another --out",
            ));
        }
        Ok(picture)
    }

    /// The text as it is, with facts in it, and the facts: one plain, the others named.
    fn hide(&self, text: Option<&[u8]>, n: usize) -> Result<(Haystack, Haystack, Vec<Needle>), Problem> {
        let hay = match text {
            Some(text) => Haystack::from_text(text, n, self.seed)?,
            None => Haystack::prose(self.seed, n)?,
        };
        let mut kinds = vec![FactKind::Named; self.facts as usize];
        kinds[self.facts as usize / 2] = FactKind::Plain;
        let mut planted = hay.clone();
        let needles = planted.plant(&kinds, self.seed)?;
        Ok((hay, planted, needles))
    }

    /// Asks for every fact by greedy decoding; how many answers were right.
    fn ask(&self, reader: &Reader<'_>, needles: &[Needle], length: usize) -> Result<usize, Problem> {
        let mut found = 0;
        for needle in needles {
            let fact = &needle.fact;
            let begin = Instant::now();
            let answer = pollster::block_on(reader.ask(fact.question.as_bytes(), STOP.as_bytes(), LONGEST))?;
            let right = fact.is_answered_by(&answer.text);
            found += usize::from(right);
            let said = String::from_utf8_lossy(&answer.text);
            let bare = |text: &str| text.trim_end_matches(STOP).to_owned();
            if self.json {
                print_json(&json!({
                    "question": fact.question, "answer": bare(&said), "expected": bare(&fact.answer), "found": right,
                    "position": needle.position, "depth": needle.depth(length), "ms": begin.elapsed().as_secs_f64() * 1e3,
                }))?;
            } else {
                let mark = if right { "✓" } else { "✗" };
                print(&format!(
                    "{mark} {:5.1}%  {:48} → {:10} expected {}\n",
                    needle.depth(length) * 100.0,
                    fact.question.trim_start_matches('|'),
                    bare(&said).escape_debug().to_string(),
                    bare(&fact.answer)
                ))?;
            }
        }
        Ok(found)
    }

    /// Exact answers by depth and length. A shorter text is the beginning of the long one, and so is its memory:
    /// nothing is read for it but the segments that a trial's fact touches.
    fn measure(
        &self,
        gpu: &Gpu,
        model: &Ramba,
        reader: &mut Reader<'_>,
        hay: &Haystack,
    ) -> Result<Map, Problem> {
        let (columns, depths, trials) = if gpu.capabilities().cpu { (4, 5, 1) } else { (6, 10, 4) };
        let segment = reader.segment();
        let mut lengths: Vec<usize> =
            (0..columns).rev().map(|i| (hay.len() >> i) / segment * segment).filter(|&l| l > 0).collect();
        lengths.dedup();
        if lengths.is_empty() {
            // Less than a segment: all of it is in the question's own stretch.
            lengths.push(hay.len());
        }
        let bar = reading::bar("measuring", lengths.len() * depths * trials);
        let mut exact = Vec::new();
        for (column, &length) in lengths.iter().enumerate() {
            let part = hay.prefix(length)?;
            let mut short = (length < segment || length == hay.len()).then_some(&mut *reader);
            let mut prefix;
            let reader = match short.take() {
                Some(all) => all,
                None => {
                    prefix = reader.prefix(length);
                    &mut prefix
                }
            };
            let mut right = vec![0u32; depths];
            for trial in 0..trials {
                let kinds = FactKind::ALL.map(|kind| part.trials(kind, depths, self.seed + trial as u64));
                let kinds: Vec<_> = kinds.into_iter().collect::<Result<_, _>>()?;
                for (depth, right) in right.iter_mut().enumerate() {
                    let needle = &kinds[(column + depth + trial) % kinds.len()][depth];
                    *right += u32::from(examine(reader, model, &part, &needle.into(), &[])?.exact);
                    bar.inc(1);
                }
            }
            exact.push(right.into_iter().map(|n| f64::from(n) / trials as f64).collect());
        }
        bar.finish_and_clear();
        Ok(Map { lengths, depths, trials, exact })
    }
}

/// Shares of exact answers, by length and then depth.
struct Map {
    lengths: Vec<usize>,
    depths: usize,
    trials: usize,
    exact: Vec<Vec<f64>>,
}

/// The power of two that this adapter reads in [`SECONDS`], from a measured batch.
fn default_length(gpu: &Gpu, model: &Ramba) -> Result<usize, Problem> {
    let probe = if gpu.capabilities().cpu { 2048 } else { 1 << 16 };
    let mut reader = Reader::new(model)?.with_batch(probe);
    reading::warm_up(&mut reader, gpu, probe)?;
    let begin = Instant::now();
    reading::warm_up(&mut reader, gpu, probe)?;
    let rate = probe as f64 / begin.elapsed().as_secs_f64();
    let most = (rate * SECONDS).clamp(DEFAULT.0 as f64, DEFAULT.1 as f64) as usize;
    Ok(1 << most.ilog2())
}
