//! What an examination has found so far, trial by trial: in a file where one is asked for, so that a later call goes on.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use rambutan_model::checkpoint::write_atomically;
use serde_json::{Value, json};

use super::Found;
use crate::{picture::HeatMap, problem::Problem, reading::tokens};

/// One trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// From 0 to 1.
    pub depth: f64,
    pub found: Found,
    pub seconds: f64,
}

/// Trials by (length, kind or task), and what each reading took.
pub struct Record {
    folder: Option<PathBuf>,
    trials: BTreeMap<(usize, String), BTreeMap<usize, Tried>>,
    readings: BTreeMap<usize, Value>,
}

/// Bands of depth in the picture.
const BANDS: usize = 10;

impl Record {
    /// What `folder`, if any, holds of the examination that `head` describes.
    pub fn open(folder: Option<&Path>, head: &Value) -> Result<Record, Problem> {
        let mut record =
            Record { folder: folder.map(Path::to_owned), trials: BTreeMap::new(), readings: BTreeMap::new() };
        let Some(folder) = folder else { return Ok(record) };
        let unwritable = |e| unwritable(folder, e);
        fs::create_dir_all(folder).map_err(unwritable)?;
        let path = record.path().unwrap_or_default();
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other.map_err(unwritable)?,
        };
        // A line that is not whole is one that was being written when the process ended.
        let whole: String = text
            .lines()
            .filter(|l| serde_json::from_str::<Value>(l).is_ok())
            .map(|l| format!("{l}\n"))
            .collect();
        let mut lines = whole.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        match lines.next() {
            None => record.append(head)?,
            Some(other) if other != *head => {
                return Err(Problem::input(
                    format!("{} is of another examination: {other}, not {head}", path.display()),
                    "--out names another folder, or the options are those it was begun with",
                ));
            }
            Some(_) => {
                for line in lines {
                    record.hear(&line);
                }
                if whole != text {
                    write_atomically(&path, |w| w.write_all(whole.as_bytes())).map_err(unwritable)?;
                }
            }
        }
        Ok(record)
    }

    fn path(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join("trials.jsonl"))
    }

    fn append(&self, line: &Value) -> Result<(), Problem> {
        let Some(path) = self.path() else { return Ok(()) };
        let file = fs::OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| writeln!(file, "{line}")).map_err(|e| unwritable(&path, e))
    }

    fn hear(&mut self, line: &Value) {
        let Some(length) = line["length"].as_u64().map(|n| n as usize) else { return };
        let Some(trial) = line["trial"].as_u64() else {
            self.readings.insert(length, line.clone());
            return;
        };
        let flag = |name: &str| line[name].as_bool().unwrap_or(false);
        let number = |name: &str| line[name].as_f64().unwrap_or(0.0);
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let found =
            Found { exact: flag("exact"), selected: flag("selected"), said: text("said").into_bytes() };
        let tried = Tried { depth: number("depth"), found, seconds: number("seconds") };
        self.trials.entry((length, text("what"))).or_default().insert(trial as usize, tried);
    }

    /// Notes what reading a text of a length took.
    pub fn note_reading(&mut self, length: usize, mut line: Value) -> Result<(), Problem> {
        line["length"] = json!(length);
        self.append(&line)?;
        self.hear(&line);
        Ok(())
    }

    /// What the last reading of this length took.
    pub fn reading(&self, length: usize) -> Option<&Value> {
        self.readings.get(&length)
    }

    /// Notes a trial.
    pub fn note(&mut self, length: usize, what: &str, trial: usize, tried: Tried) -> Result<(), Problem> {
        let Found { exact, selected, said } = &tried.found;
        self.append(&json!({
            "length": length, "what": what, "trial": trial, "depth": tried.depth, "exact": exact,
            "selected": selected, "said": String::from_utf8_lossy(said), "seconds": tried.seconds,
        }))?;
        self.trials.entry((length, what.to_owned())).or_default().insert(trial, tried);
        Ok(())
    }

    /// The trials of `count` that are left.
    pub fn left(&self, length: usize, what: &str, count: usize) -> Vec<usize> {
        let done = self.trials.get(&(length, what.to_owned()));
        (0..count).filter(|n| done.is_none_or(|done| !done.contains_key(n))).collect()
    }

    /// The trials of a length and kind.
    pub fn tried(&self, length: usize, what: &str) -> impl Iterator<Item = &Tried> {
        self.trials.get(&(length, what.to_owned())).into_iter().flat_map(BTreeMap::values)
    }

    /// Draws heatmap.png beside the trials: shares of exact answers of all kinds by length and depth.
    pub fn draw(&self, subtitle: &str) -> Result<(), Problem> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let mut bands: BTreeMap<usize, [[u32; 2]; BANDS]> = BTreeMap::new();
        for ((length, _), trials) in &self.trials {
            for tried in trials.values() {
                let band = ((tried.depth * BANDS as f64) as usize).min(BANDS - 1);
                let cell = &mut bands.entry(*length).or_default()[band];
                cell[0] += u32::from(tried.found.exact);
                cell[1] += 1;
            }
        }
        if bands.is_empty() {
            return Ok(());
        }
        // A cell without trials has no share.
        let share =
            |[exact, all]: [u32; 2]| if all == 0 { f64::NAN } else { f64::from(exact) / f64::from(all) };
        let columns: Vec<(String, Vec<f64>)> =
            bands.iter().map(|(length, cells)| (tokens(*length), cells.map(share).to_vec())).collect();
        let rows: Vec<String> = (0..BANDS).map(|i| format!("{}%", i * 100 / BANDS)).collect();
        HeatMap {
            title: "facts found, by depth and length",
            subtitle,
            columns: &columns,
            rows: &rows,
            across: "tokens in the text",
            down: "depth",
        }
        .draw()
        .save(&folder.join("heatmap.png"))
    }
}

fn unwritable(path: &Path, e: std::io::Error) -> Problem {
    Problem::input(
        format!("cannot write to {}: {e}", path.display()),
        "--out names a folder that can be written",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(depth: f64, exact: bool) -> Tried {
        Tried { depth, found: Found { exact, selected: true, said: b"12|".to_vec() }, seconds: 0.5 }
    }

    #[test]
    fn what_was_tried_is_there_again_but_for_a_line_cut_off() {
        let folder = std::env::temp_dir().join(format!("rambutan-record-{}", std::process::id()));
        let head = json!({"examination": "passkey", "seed": 1});
        let mut record = Record::open(Some(&folder), &head).expect("it opens");
        record.note_reading(4096, json!({"tokens_per_s": 7.5})).expect("it writes");
        for trial in [0, 1, 4] {
            record.note(4096, "plain", trial, tried(0.1 * trial as f64, trial != 1)).expect("it writes");
        }
        let path = folder.join("trials.jsonl");
        let text = fs::read_to_string(&path).expect("it reads");
        fs::write(&path, format!("{text}{{\"length\":4096,\"what\":\"pl")).expect("it writes");
        for _ in 0..2 {
            let again = Record::open(Some(&folder), &head).expect("it opens");
            assert_eq!(fs::read_to_string(&path).expect("it reads"), text, "what was cut off is gone");
            assert_eq!(again.left(4096, "plain", 6), [2, 3, 5]);
            assert_eq!(again.left(4096, "named", 2), [0, 1]);
            let exact: Vec<bool> = again.tried(4096, "plain").map(|t| t.found.exact).collect();
            assert_eq!(exact, [true, false, true]);
            assert_eq!(again.tried(4096, "plain").last(), Some(&tried(0.4, true)));
            assert_eq!(again.reading(4096).map(|r| r["tokens_per_s"].as_f64()), Some(Some(7.5)));
            again.draw("three trials").expect("it draws");
        }
        assert!(image::open(folder.join("heatmap.png")).expect("a picture").width() > 100);
        assert!(Record::open(Some(&folder), &json!({"seed": 2})).is_err(), "another examination");
        fs::remove_dir_all(&folder).expect("it is there");
        let without = Record::open(None, &head).expect("nothing is needed");
        assert_eq!(without.left(4096, "plain", 1), [0]);
    }
}
