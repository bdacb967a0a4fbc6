//! A script: one command a line, each begun when the one before is done.
//!
//!     open PATH | ask QUESTION | screenshot PATH | exit

use std::{collections::VecDeque, path::PathBuf};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Opens a text and reads all of it.
    Open(PathBuf),
    /// Asks, and waits for the answer.
    Ask(String),
    /// Saves what the window shows as a PNG.
    Screenshot(PathBuf),
    /// Ends.
    Exit,
}

/// Parses a script, or says which line is none.
pub fn parse(text: &str) -> Result<VecDeque<Command>, String> {
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, l)| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|(i, line)| {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match (word, rest.trim()) {
                ("open", path) if !path.is_empty() => Ok(Command::Open(path.into())),
                ("ask", question) if !question.is_empty() => Ok(Command::Ask(question.into())),
                ("screenshot", path) if !path.is_empty() => Ok(Command::Screenshot(path.into())),
                ("exit", "") => Ok(Command::Exit),
                _ => Err(format!(
                    "line {}: `{line}`: expected open PATH, ask QUESTION, screenshot PATH or exit",
                    i + 1
                )),
            }
        })
        .collect()
}

/// The times of frames, for their percentiles.
#[derive(Default)]
pub struct Frames(Vec<f64>);

impl Frames {
    /// One more, in seconds.
    pub fn push(&mut self, seconds: f64) {
        self.0.push(seconds);
    }

    /// `"frames": 100, "p50_ms": …`, for a JSON object.
    pub fn json(&self) -> String {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            sorted.get((sorted.len() as f64 * part) as usize).or(sorted.last()).unwrap_or(&0.0) * 1e3
        };
        format!(
            "\"frames\": {}, \"p50_ms\": {:.2}, \"p95_ms\": {:.2}, \"p99_ms\": {:.2}, \"max_ms\": {:.2}",
            sorted.len(),
            at(0.5),
            at(0.95),
            at(0.99),
            at(1.0)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_lines() {
        let parsed = parse("# a comment\nopen a file.txt\n\n  ask What is it?\nscreenshot x.png\nexit\n")
            .expect("a script");
        let expected = [
            Command::Open("a file.txt".into()),
            Command::Ask("What is it?".into()),
            Command::Screenshot("x.png".into()),
            Command::Exit,
        ];
        assert_eq!(parsed, expected);
        assert!(parse("open x\nsay hello").expect_err("no command").starts_with("line 2: `say hello`"));
        assert!(parse("open").is_err() && parse("exit now").is_err());
    }

    #[test]
    fn percentiles_are_of_sorted_times() {
        let mut frames = Frames::default();
        (1..=100).rev().for_each(|ms| frames.push(f64::from(ms) / 1e3));
        let json = frames.json();
        assert!(json.starts_with("\"frames\": 100, \"p50_ms\": 51.00, \"p95_ms\": 96.00"), "{json}");
        assert!(Frames::default().json().contains("\"frames\": 0"));
    }
}
