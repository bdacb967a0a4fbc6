//! `rambutan generate`: text after a prompt.

use std::{io::IsTerminal as _, path::PathBuf, time::Instant};

use rambutan_model::{
    data,
    generate::{Generator, Sampling, stopped},
    tokens::Tokenizer,
};
use serde_json::json;

use crate::{
    Device,
    problem::{Problem, print, print_bytes, print_json},
    reading::Weights,
};

/// Goes on after a prompt
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan generate \"The winter was long\" --tokens 200 --temperature 0.8 --top-p 0.95 --seed 7\n  rambutan generate --prompt-file notes.txt --stop \"|\" --stop \". \" --json\n  rambutan generate \"Once\" --checkpoint model.safetensors --tokenizer tokenizer.json\n\nThe shipped weights are made to find facts: their prose is poor. A tokenizer.json needs a build with --features tokenizers."
)]
pub struct Generate {
    /// The prompt
    #[arg(required_unless_present = "prompt_file", conflicts_with = "prompt_file")]
    prompt: Option<String>,
    /// Reads the prompt from a file; any bytes
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Tokens to generate, at most
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    tokens: u32,
    /// 0 takes the most probable token; 1 draws by the model's probabilities; more is bolder
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,
    /// Draws from the most probable tokens whose probabilities together reach this
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f32,
    /// Ends before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Equal seeds draw equal texts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A Hugging Face tokenizer.json, for models whose tokens are no bytes
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    #[command(flatten)]
    weights: Weights,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

impl Generate {
    pub fn run(&self, device: &Device) -> Result<(), Problem> {
        let sampling =
            Sampling { temperature: self.temperature, top_p: self.top_p, seed: self.seed }.checked()?;
        let prompt = match (&self.prompt_file, &self.prompt) {
            (Some(file), _) => data::read_bytes(file)?,
            (None, prompt) => prompt.clone().unwrap_or_default().into_bytes(),
        };
        if prompt.is_empty() {
            return Err(Problem::input("the prompt is empty", "give some text to go on from"));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Problem::input("--stop is empty", "expected a text that ends the output"));
        }
        let tokenizer = self.tokenizer.as_deref().map_or(Ok(Tokenizer::Bytes), Tokenizer::open)?;
        let checkpoint = self.weights.open()?;
        let vocabulary = checkpoint.config.vocab_size;
        if vocabulary < tokenizer.len() || (self.tokenizer.is_none() && vocabulary != tokenizer.len()) {
            let message = format!("the model has {vocabulary} tokens, the tokenizer {}", tokenizer.len());
            return Err(Problem::input(message, "name the model's own with --tokenizer tokenizer.json"));
        }
        let gpu = device.open()?;
        let model = self.weights.upload(&gpu, &checkpoint)?;
        let ids = tokenizer.encode(&prompt)?;
        let mut generator = Generator::new(&model, &ids, tokenizer.len(), sampling)?;
        gpu.wait()?;

        // A stop may come in several tokens: what could be its beginning is held back.
        let held = self.stop.iter().map(|s| s.len() - 1).max().unwrap_or(0);
        let (begin, mut tokens, mut text, mut shown) = (Instant::now(), Vec::new(), Vec::new(), 0);
        let mut why = "length";
        while tokens.len() < self.tokens as usize {
            let token = pollster::block_on(generator.next())?;
            if tokenizer.is_end(token) {
                why = "end";
                break;
            }
            tokens.push(token);
            text = tokenizer.decode(&tokens);
            if let Some(end) = stopped(&text, &self.stop) {
                text.truncate(end);
                why = "stop";
                break;
            }
            let sure = whole(&text, text.len().saturating_sub(held));
            if !self.json && sure > shown {
                self.show(&text[shown..sure])?;
                shown = sure;
            }
        }
        let rate = tokens.len() as f64 / begin.elapsed().as_secs_f64();
        if self.json {
            return print_json(&json!({
                "prompt": String::from_utf8_lossy(&prompt), "text": String::from_utf8_lossy(&text), "ended_by": why,
                "prompt_tokens": ids.len(), "tokens": tokens.len(), "tokens_per_s": rate, "seed": self.seed,
                "temperature": self.temperature, "top_p": self.top_p, "device": gpu.capabilities().name,
            }));
        }
        self.show(&text[shown.min(text.len())..])?;
        print("\n")
    }

    /// Bytes as they are into a file or a pipe; on a terminal what could steer it is escaped.
    fn show(&self, bytes: &[u8]) -> Result<(), Problem> {
        if !std::io::stdout().is_terminal() {
            return print_bytes(bytes);
        }
        let plain = |c: char| match c {
            '\n' | '\t' => c.to_string(),
            c if c.is_control() => c.escape_default().to_string(),
            c => c.to_string(),
        };
        print(&String::from_utf8_lossy(bytes).chars().map(plain).collect::<String>())
    }
}

/// The most bytes of `text`, `most` of them or fewer, that end no letter in its midst: tokens may hold parts of one, and
/// a tokenizer then shows U+FFFD in its place.
fn whole(text: &[u8], most: usize) -> usize {
    let mut end = most;
    while end > 0 && end < text.len() && text[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    while text[..end].ends_with("\u{fffd}".as_bytes()) {
        end -= '\u{fffd}'.len_utf8();
    }
    // The last letter may still lack bytes.
    let start = text[..end].iter().rposition(|b| b & 0xc0 != 0x80).unwrap_or(0);
    let needs = match text.get(start) {
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf7) => 4,
        _ => 1,
    };
    if end - start.min(end) < needs { start } else { end }
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn letters_are_shown_whole() {
        let text = "aé→".as_bytes();
        let shown: Vec<usize> = (0..=text.len()).map(|n| whole(&text[..n], n)).collect();
        assert_eq!(shown, [0, 1, 1, 3, 3, 3, 6]);
        assert_eq!(whole(text, 2), 1);
        assert_eq!(whole("a\u{fffd}".as_bytes(), 4), 1);
        assert_eq!(whole(b"ab\xff", 3), 3);
    }
}
