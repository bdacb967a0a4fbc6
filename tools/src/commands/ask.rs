//! `rambutan ask`: questions about a file or a memory, their answers, and where in the text they came from.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use rambutan_engine::Gpu;
use rambutan_model::{
    Ramba,
    ramba::Options,
    ranks::Ranks,
    reader::{Answer, Placement, Reader, Source, TextFile, file::MemoryFile},
    tasks,
};
use serde_json::json;

use crate::{
    Device,
    problem::{Problem, print, print_json},
    ranks::agree,
    reading::{self, MemoryIn, Weights, short},
};

/// Answers questions about facts in a file, read now, or in a memory that `read` wrote
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan ask --file notes.txt \"What is the passkey?\"\n  rambutan ask --file notes.txt \"What is the code of Rivaze?\" --json\n  rambutan ask --memory notes.mem \"What is the passkey?\" \"What is the code of Rivaze?\"\n  rambutan ask --file log.bin \"|What is the pin of Moka? It is:\"\n\nThe shipped weights know facts of two forms, |The passkey is:48213| and |The code of Rivaze is:7731942| (or number, key,\npin, secret), and their questions. A question that begins with | is passed on as it is."
)]
pub struct Ask {
    /// The text; any bytes. With --memory: where the text that was read is now
    #[arg(long, value_name = "FILE", required_unless_present = "memory")]
    file: Option<PathBuf>,
    /// A memory that `rambutan read` wrote: nothing is read
    #[arg(long, value_name = "FILE", conflicts_with_all = ["place", "landmarks"])]
    memory: Option<PathBuf>,
    /// The questions
    #[arg(value_name = "QUESTION", required = true)]
    questions: Vec<String>,
    #[command(flatten)]
    memory_in: MemoryIn,
    #[command(flatten)]
    weights: Weights,
    /// Prints a line of JSON for each question
    #[arg(long)]
    json: bool,
}

/// The longest answer, in tokens.
const LONGEST: usize = 64;

/// A text in memory.
struct Known<'m> {
    reader: Reader<'m>,
    /// For excerpts; none where it is gone and nothing else needs it.
    text: Option<Arc<TextFile>>,
    /// What was done to know it, in words.
    how: String,
    tokens_per_s: Option<f64>,
}

impl Ask {
    /// Refuses what several processes would only do several times.
    pub fn over_ranks(&self) -> Result<(), Problem> {
        match &self.memory {
            None => Ok(()),
            Some(_) => Err(Problem::input(
                "--memory: a memory file is opened by one process",
                "over ranks ask with --file, or start without mpirun",
            )),
        }
    }

    /// The text, and the model on its device.
    fn prepare(
        &self,
        device: &Device,
        file: &Path,
        ranks: &dyn Ranks,
    ) -> Result<(Arc<TextFile>, Gpu, Ramba), Problem> {
        let text = TextFile::open(file)?;
        if text.size() == 0 {
            let message = format!("{} is empty: there is nothing to ask about", file.display());
            return Err(Problem::input(message, "expected a file with text in it"));
        }
        let checkpoint = self.weights.open()?;
        let gpu = device.open()?;
        let model = self.weights.upload(&gpu, &checkpoint)?;
        drop(Reader::over(&model, Placement::Device, ranks)?);
        Ok((Arc::new(text), gpu, model))
    }

    pub fn run(&self, device: &Device, ranks: &dyn Ranks) -> Result<(), Problem> {
        let asked = match self.questions.iter().any(|q| q.trim().is_empty()) {
            true => Err(Problem::input("the question is empty", "ask as in \"What is the passkey?\"")),
            false => Ok(()),
        };
        agree(ranks, asked)?;
        let open = |path: &PathBuf| TextFile::open(path).map(Arc::new);
        match (&self.memory, &self.file) {
            (None, Some(file)) => {
                let (text, gpu, model) = agree(ranks, self.prepare(device, file, ranks))?;
                let source: Arc<dyn Source> = text.clone();
                let read = self.memory_in.read(&model, &gpu, ranks, || source.clone())?;
                let rate = text.size() as f64 / read.time.as_secs_f64();
                let how = format!("{} tokens at {} a second", text.size(), short(rate));
                let how = format!("{how}, keys and values in: {}", read.place);
                let known = Known { reader: read.reader, text: Some(text), how, tokens_per_s: Some(rate) };
                self.answer(&gpu, &model, &known)
            }
            (Some(memory), file) => {
                let begin = Instant::now();
                let memory = MemoryFile::open(memory)?;
                let text = match file {
                    Some(file) => Some(open(file)?),
                    // What needs it says so.
                    None => open(&memory.text().to_owned()).ok(),
                };
                let checkpoint = self.weights.open()?;
                let gpu = device.open()?;
                let options = Options { half: memory.is_half(), ..Options::default() };
                let model = Ramba::with(&gpu, &checkpoint, options)?;
                let (tokens, size) = memory.tokens();
                let part = if tokens < size {
                    format!(" of {size}: `rambutan read` goes on")
                } else {
                    String::new()
                };
                let reader = memory.reader(&model, &checkpoint.fingerprint(), text.clone())?;
                let opened = begin.elapsed().as_secs_f64();
                let how = format!(
                    "a memory of {tokens} tokens{part}, landmarks in {}, open after {opened:.1} s",
                    reading::landmarks_in(&reader, &model)
                );
                let known = Known { reader, text, how, tokens_per_s: None };
                self.answer(&gpu, &model, &known)
            }
            (None, None) => unreachable!("one of the two is required"),
        }
    }

    fn answer(&self, gpu: &Gpu, model: &Ramba, known: &Known<'_>) -> Result<(), Problem> {
        let chunk = model.config.chunk_size;
        let tokens = known.reader.len();
        let mut out = String::new();
        let (prompts, begin) =
            (self.questions.iter().map(|q| tasks::prompt(q)).collect::<Vec<_>>(), Instant::now());
        let bytes: Vec<&[u8]> = prompts.iter().map(String::as_bytes).collect();
        let answers = pollster::block_on(known.reader.ask_all(&bytes, tasks::STOP.as_bytes(), LONGEST))?;
        let seconds = begin.elapsed().as_secs_f64();
        for ((question, prompt), answer) in self.questions.iter().zip(&prompts).zip(&answers) {
            let said = String::from_utf8_lossy(&answer.text);
            let complete = said.ends_with(tasks::STOP);
            let said = said.strip_suffix(tasks::STOP).unwrap_or(&said);
            let places = places(answer, chunk, tokens);
            let excerpt = |c: usize| known.excerpt(c * chunk, chunk.min(tokens - c * chunk));
            if self.json {
                let sources: Vec<_> = places
                    .iter()
                    .map(|&(c, weight)| {
                        let bytes = excerpt(c);
                        json!({
                            "offset": c * chunk, "length": bytes.len(), "weight": weight,
                            "excerpt": String::from_utf8_lossy(&bytes),
                        })
                    })
                    .collect();
                print_json(&json!({
                    "question": question, "prompt": prompt, "answer": said, "complete": complete, "sources": sources,
                    "tokens": tokens, "tokens_per_s": known.tokens_per_s, "seconds": seconds,
                    "memory_in": known.reader.placement().name(), "landmarks": reading::landmarks_in(&known.reader, model), "peak_device_bytes": gpu.memory().peak,
                    "peak_host_bytes": reading::peak_host_bytes(), "device": gpu.capabilities().name,
                }))?;
                continue;
            }
            if self.questions.len() > 1 {
                let _ = writeln!(out, "{}", question.trim().escape_debug());
            }
            // What comes from the file must not steer the terminal.
            let _ = writeln!(out, "{}{}\n", said.escape_debug(), if complete { "" } else { " …" });
            let _ = writeln!(out, "{:>12}  {:>6}  where it looked", "byte", "weight");
            for (c, weight) in places {
                let bytes = excerpt(c);
                let shown = String::from_utf8_lossy(&bytes);
                let _ = writeln!(out, "{:>12}  {weight:>6.3}  {}", c * chunk, shown.escape_debug());
            }
            let _ = writeln!(out);
        }
        if self.json {
            return Ok(());
        }
        let _ = writeln!(out, "{}; answered in {seconds:.2} s on {}", known.how, gpu.capabilities().name);
        print(&out)
    }
}

impl Known<'_> {
    /// Bytes of the text, as far as they are at hand.
    fn excerpt(&self, at: usize, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        match self.text.as_ref().map(|text| text.fill(at, &mut bytes)) {
            Some(Ok(())) => bytes,
            _ => Vec::new(),
        }
    }
}

/// The chunks that the first token looked into, the weightiest first; those of the question are no places.
fn places(answer: &Answer, chunk: usize, tokens: usize) -> Vec<(usize, f32)> {
    let mut places: Vec<(usize, f32)> =
        answer.selected.iter().copied().filter(|(c, w)| c * chunk < tokens && *w > 0.0).collect();
    places.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    places
}
