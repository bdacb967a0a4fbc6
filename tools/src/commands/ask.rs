//! `rambutan ask`: a question about a file, its answer, and where in the file it came from.

use std::{fmt::Write as _, path::PathBuf};

use rambutan_model::{data, reader::Reader, tasks};
use serde_json::json;

use crate::{
    Device,
    problem::{Problem, print, print_json},
    reading::{self, Weights, short},
};

/// Reads a file and answers a question about a fact in it
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan ask --file notes.txt \"What is the passkey?\"\n  rambutan ask --file notes.txt \"What is the code of Rivaze?\" --json\n  rambutan ask --file log.bin \"|What is the pin of Moka? It is:\"\n\nThe shipped weights know facts of two forms, |The passkey is:48213| and |The code of Rivaze is:7731942| (or number, key,\npin, secret), and their questions. A question that begins with | is passed on as it is."
)]
pub struct Ask {
    /// The text; any bytes
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// The question
    question: String,
    #[command(flatten)]
    weights: Weights,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// The longest answer, in tokens.
const LONGEST: usize = 64;

impl Ask {
    pub fn run(&self, device: &Device) -> Result<(), Problem> {
        if self.question.trim().is_empty() {
            return Err(Problem::input("the question is empty", "ask as in \"What is the passkey?\""));
        }
        let text = data::read_bytes(&self.file)?;
        if text.is_empty() {
            let message = format!("{} is empty: there is nothing to ask about", self.file.display());
            return Err(Problem::input(message, "expected a file with text in it"));
        }
        let checkpoint = self.weights.open()?;
        let gpu = device.open()?;
        let model = self.weights.upload(&gpu, &checkpoint)?;
        let mut reader = Reader::new(&model)?;
        let rate = text.len() as f64 / reading::read(&mut reader, &gpu, &text)?.as_secs_f64();
        let prompt = tasks::prompt(&self.question);
        let answer = pollster::block_on(reader.ask(prompt.as_bytes(), tasks::STOP.as_bytes(), LONGEST))?;
        let said = String::from_utf8_lossy(&answer.text);
        let complete = said.ends_with(tasks::STOP);
        let said = said.strip_suffix(tasks::STOP).unwrap_or(&said);

        // The chunks that the first token looked into, the weightiest first; those of the question are no places.
        let chunk = model.config.chunk_size;
        let mut places: Vec<(usize, f32)> =
            answer.selected.iter().copied().filter(|(c, w)| c * chunk < text.len() && *w > 0.0).collect();
        places.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let excerpt = |c: usize| &text[c * chunk..((c + 1) * chunk).min(text.len())];
        let memory = gpu.memory();
        if self.json {
            let sources: Vec<_> = places
                .iter()
                .map(|&(c, weight)| {
                    let bytes = excerpt(c);
                    json!({
                        "offset": c * chunk, "length": bytes.len(), "weight": weight,
                        "excerpt": String::from_utf8_lossy(bytes),
                    })
                })
                .collect();
            return print_json(&json!({
                "question": self.question, "prompt": prompt, "answer": said, "complete": complete,
                "sources": sources, "tokens": text.len(), "tokens_per_s": rate,
                "peak_device_bytes": memory.peak, "peak_host_bytes": reading::peak_host_bytes(),
                "device": gpu.capabilities().name,
            }));
        }
        // What comes from the file must not steer the terminal.
        let mut out = format!("{}{}\n\n", said.escape_debug(), if complete { "" } else { " …" });
        let _ = writeln!(out, "{:>12}  {:>6}  where it looked", "byte", "weight");
        for (c, weight) in places {
            let shown = String::from_utf8_lossy(excerpt(c));
            let _ = writeln!(out, "{:>12}  {weight:>6.3}  {}", c * chunk, shown.escape_debug());
        }
        let _ = writeln!(
            out,
            "\n{} tokens at {} a second on {}",
            text.len(),
            short(rate),
            gpu.capabilities().name
        );
        print(&out)
    }
}
