//! `rambutan jobs`: a list of trainings, each examined at its end, that goes on where it stopped.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rambutan_model::{
    Checkpoint,
    checkpoint::write_atomically,
    data,
    ranks::{Alone, Ranks},
    tasks::Task,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    eval::examine_tasks,
    train::{File, Train, read_plan},
};
use crate::{
    Device,
    problem::{Problem, print, print_json},
    reading::{Weights, tokens},
};

/// Trains and examines a list of variants of one plan; started again, it goes on where it stopped
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan jobs benches/ablations.toml --text book.txt --held other.txt\n  rambutan jobs benches/ablations.toml --only base-1 --only groups-16 --seconds 600\n\nThe list is a TOML file: plan = \"FILE\" (beside the list), [examine] with lengths, trials and tasks, and [[jobs]] with a name\nand what it sets over the plan's tables: set.model.chunk_topk = 4,\nand examine.lengths where it has its own. Every job has a folder of its own in --out; what is\nthere is not done again. results.jsonl has a line for each job, length and task, table.md a row for each job."
)]
pub struct Jobs {
    /// The list
    list: PathBuf,
    /// Where everything is written
    #[arg(long, default_value = "out/jobs", value_name = "DIR")]
    out: PathBuf,
    /// Text to train on beside the generated one; may be given several times
    #[arg(long, value_name = "FILE")]
    text: Vec<PathBuf>,
    /// A text to examine on [default: generated prose]
    #[arg(long, value_name = "FILE")]
    held: Option<PathBuf>,
    /// Only the job of this name; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Begins nothing more after so many seconds, and stops what trains, with a checkpoint
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Prints the lines of results
    #[arg(long)]
    json: bool,
}

/// The list's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    plan: PathBuf,
    examine: Examine,
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Examine {
    lengths: Vec<usize>,
    trials: usize,
    tasks: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    name: String,
    /// Laid over the plan's tables.
    #[serde(default)]
    set: toml::Table,
    /// What is examined otherwise.
    examine: Option<Lengths>,
}

/// Lengths of one job, where the list's are too much for it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lengths {
    lengths: Vec<usize>,
}

const HINT: &str = "a list is a TOML file such as benches/ablations.toml";

impl List {
    /// The list, and each job's plan.
    fn read(path: &Path) -> Result<(List, Vec<File>), Problem> {
        let name = path.display();
        let refuse = |why: String| Problem::input(format!("the list {name}: {why}"), HINT);
        let text = fs::read_to_string(path).map_err(|e| refuse(format!("it cannot be read: {e}")))?;
        let list: List = toml::from_str(&text).map_err(|e| refuse(format!("it does not parse: {e}")))?;
        let plan = path.parent().unwrap_or(Path::new(".")).join(&list.plan);
        let base: toml::Table = toml::from_str(&read_plan(&plan)?)
            .map_err(|e| Problem::input(format!("the plan {} does not parse: {e}", plan.display()), HINT))?;
        let e = &list.examine;
        let lengths = list.jobs.iter().filter_map(|j| j.examine.as_ref()).flat_map(|e| &e.lengths);
        if e.trials == 0 || e.lengths.is_empty() || lengths.chain(&e.lengths).any(|&l| l < 1024) {
            return Err(refuse("examine.trials from 1, examine.lengths from 1024 tokens".into()));
        }
        e.tasks()?;
        let mut files = Vec::new();
        for (i, job) in list.jobs.iter().enumerate() {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if job.name.is_empty() || !job.name.chars().all(plain) {
                return Err(refuse(format!("the job {:?}: a name has letters, digits, - and _", job.name)));
            }
            if list.jobs[..i].iter().any(|other| other.name == job.name) {
                return Err(refuse(format!("two jobs are called {}", job.name)));
            }
            let mut table = base.clone();
            lay_over(&mut table, &job.set);
            let file = File::of(&plan.with_file_name(format!("{} of {name}", job.name)), &table.to_string())?;
            file.config()?;
            files.push(file);
        }
        Ok((list, files))
    }
}

impl Examine {
    fn tasks(&self) -> Result<Vec<Task>, Problem> {
        Ok(self.tasks.iter().map(|task| task.parse()).collect::<Result<_, data::DataError>>()?)
    }
}

/// Tables merge, everything else is replaced.
fn lay_over(base: &mut toml::Table, set: &toml::Table) {
    for (key, value) in set {
        match (base.get_mut(key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => lay_over(old, new),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

impl Jobs {
    pub fn run(&self, device: &Device) -> Result<(), Problem> {
        let (list, files) = List::read(&self.list)?;
        if let Some(name) = self.only.iter().find(|name| list.jobs.iter().all(|job| job.name != **name)) {
            return Err(Problem::input(format!("--only {name}: the list has no such job"), HINT));
        }
        let held = self.held.as_deref().map(data::read_text).transpose()?;
        let alone: Arc<dyn Ranks> = Arc::new(Alone);
        let begin = Instant::now();
        let left = || self.seconds.map(|s| Duration::from_secs(s).saturating_sub(begin.elapsed()));
        for (job, file) in list.jobs.iter().zip(&files) {
            let folder = self.out.join(&job.name);
            let results = folder.join("results.jsonl");
            if results.exists() || !(self.only.is_empty() || self.only.contains(&job.name)) {
                continue;
            }
            if left().is_some_and(|left| left.is_zero()) {
                break;
            }
            print(&format!("{}: ", job.name))?;
            let train = Train {
                config: self.list.clone(),
                resume: folder.join("checkpoint.safetensors").exists(),
                out: folder.clone(),
                text: self.text.clone(),
                init: None,
                seconds: left().map(|left| left.as_secs()),
                json: false,
            };
            if !train.follow(&alone, file, || device.open())? {
                break;
            }
            let lines = self.examine(&list.examine, job, file, &folder, held.as_deref(), device)?;
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            self.write(&results, &text)?;
            self.report(&list)?;
        }
        self.report(&list)
    }

    fn examine(
        &self,
        examine: &Examine,
        job: &Job,
        file: &File,
        folder: &Path,
        held: Option<&[u8]>,
        device: &Device,
    ) -> Result<Vec<Value>, Problem> {
        let weights = Weights::of(folder.join("weights.safetensors"), file.plan.half);
        let checkpoint: Checkpoint = weights.open()?;
        let gpu = device.open()?;
        let model = weights.upload(&gpu, &checkpoint)?;
        let mut lines = Vec::new();
        for &length in job.examine.as_ref().map_or(&examine.lengths, |own| &own.lengths) {
            for (task, score) in examine_tasks(&model, held, length, &examine.tasks()?, examine.trials)? {
                let line = json!({
                    "job": job.name, "length": length, "task": task.name(), "trials": examine.trials,
                    "exact": score.exact, "selected": score.selected,
                });
                if self.json {
                    print_json(&line)?;
                }
                lines.push(line);
            }
        }
        Ok(lines)
    }

    /// Writes results.jsonl and table.md from what the jobs' folders hold.
    fn report(&self, list: &List) -> Result<(), Problem> {
        let mut all = String::new();
        let mut table = String::from("| job |");
        for &length in &list.examine.lengths {
            for task in &list.examine.tasks {
                table += &format!(" {} {task} |", tokens(length));
            }
        }
        table +=
            &format!("\n|---|{}\n", "---|".repeat(list.examine.lengths.len() * list.examine.tasks.len()));
        for job in &list.jobs {
            let path = self.out.join(&job.name).join("results.jsonl");
            let Ok(text) = fs::read_to_string(&path) else { continue };
            table += &format!("| {} |", job.name);
            let lines: Vec<Value> = text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
            for &length in &list.examine.lengths {
                for task in &list.examine.tasks {
                    let line = lines.iter().find(|l| l["length"] == length && l["task"] == task.as_str());
                    table += &match line.map(|l| (l["exact"].as_f64(), l["selected"].as_f64())) {
                        Some((Some(exact), Some(selected))) => format!(" {exact:.2} · {selected:.2} |"),
                        _ => " |".into(),
                    };
                }
            }
            table.push('\n');
            all += &text;
        }
        self.write(&self.out.join("results.jsonl"), &all)?;
        self.write(&self.out.join("table.md"), &table)
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), Problem> {
        let written = fs::create_dir_all(&self.out)
            .and_then(|()| write_atomically(path, |w| w.write_all(text.as_bytes())));
        written.map_err(|e| {
            Problem::input(
                format!("cannot write to {}: {e}", self.out.display()),
                "--out names a folder that can be written",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_merge_and_the_rest_is_replaced() {
        let table = |text: &str| -> toml::Table { toml::from_str(text).expect("TOML") };
        let mut base = table("a = 1\n[b]\nc = [1, 2]\nd = 3\n[b.e]\nf = 4");
        lay_over(&mut base, &table("g = 5\nb.c = [6]\nb.e.f = 7"));
        assert_eq!(base, table("a = 1\ng = 5\n[b]\nc = [6]\nd = 3\n[b.e]\nf = 7"));
    }
}
