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
    after_help = "Examples:\n  rambutan jobs benches/ablations.toml --text book.txt --held other.txt\n  rambutan jobs benches/ablations.toml --only base-1 --only groups-4 --seconds 500\n  rambutan jobs benches/ablations.toml --results benches/record/results.md\n\nThe list is a TOML file: plan = \"FILE\" (beside the list), [examine] with lengths, trials and tasks, and [[jobs]] with a name\nand what it sets over the plan's tables: set.model.chunk_topk = 4,\nand examine.lengths and examine.trials, one for each length, where it has its own. [[findings]] say what is known\nof a question, from where, which jobs ask it again, and how far the two compare; --results writes them beside what the\nfolder holds. Every job has a folder of its own in --out; what is\nthere is not done again. results.jsonl has a line for each job, length and task, table.md a row for each job."
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
    /// Runs nothing: writes the table of all jobs, run or not, and the list's findings beside it, into this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "held", "only", "seconds"])]
    results: Option<PathBuf>,
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
    #[serde(default)]
    findings: Vec<Finding>,
    /// What is said of all results, and of what was not asked again.
    #[serde(default)]
    about: String,
    #[serde(default)]
    missing: String,
}

/// What others found, and which jobs ask the same.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Finding {
    question: String,
    found: String,
    source: String,
    jobs: Vec<String>,
    compare: String,
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
    examine: Option<Own>,
}

/// Lengths of one job, and the trials of each, where the list's are too much for it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    lengths: Vec<usize>,
    trials: Option<Vec<usize>>,
}

impl Job {
    /// (length, trials).
    fn examined(&self, list: &Examine) -> Vec<(usize, usize)> {
        let Some(own) = &self.examine else {
            return list.lengths.iter().map(|&l| (l, list.trials)).collect();
        };
        let trials = |i: usize| own.trials.as_ref().map_or(list.trials, |t| t[i]);
        own.lengths.iter().enumerate().map(|(i, &l)| (l, trials(i))).collect()
    }
}

/// What was examined of a job that is not through.
const EXAMINED: &str = "examined.jsonl";

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
        for own in list.jobs.iter().filter_map(|job| job.examine.as_ref()) {
            if own.trials.as_ref().is_some_and(|t| t.len() != own.lengths.len() || t.contains(&0)) {
                return Err(refuse("a job's examine.trials: from 1, one for each of its lengths".into()));
            }
        }
        let unknown = |name: &&String| list.jobs.iter().all(|job| job.name != **name);
        if let Some(name) = list.findings.iter().flat_map(|f| &f.jobs).find(unknown) {
            return Err(refuse(format!("findings name the job {name}, which is not there")));
        }
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

impl List {
    /// A table's head, a column for each length and task.
    fn head(&self, first: &str) -> String {
        let mut head = format!("| {first} |");
        let columns = self.examine.lengths.len() * self.examine.tasks.len();
        for &length in &self.examine.lengths {
            for task in &self.examine.tasks {
                head += &format!(" {} {task} |", tokens(length));
            }
        }
        head + &format!("\n|{}\n", "---|".repeat(columns + first.matches('|').count() + 1))
    }

    /// A row of what a job's lines say.
    fn row(&self, name: &str, text: Option<&str>) -> String {
        let lines: Vec<Value> =
            text.unwrap_or_default().lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        let mut row = format!("| {name} |");
        for &length in &self.examine.lengths {
            for task in &self.examine.tasks {
                let line = lines.iter().find(|l| l["length"] == length && l["task"] == task.as_str());
                row += &match line.map(|l| (l["exact"].as_f64(), l["selected"].as_f64())) {
                    Some((Some(exact), Some(selected))) => format!(" {exact:.2} · {selected:.2} |"),
                    Some((Some(exact), None)) => format!(" {exact:.2} |"),
                    _ => " |".into(),
                };
            }
        }
        row + "\n"
    }

    /// [`List::row`] that says which cells are to be examined and were not.
    fn row_of(&self, job: &Job, name: &str, text: Option<&str>) -> String {
        let examined = job.examined(&self.examine);
        let row = self.row(name, text);
        let lengths = self.examine.lengths.iter().flat_map(|l| self.examine.tasks.iter().map(move |_| l));
        let cells = lengths.map(|l| if examined.iter().any(|e| e.0 == *l) { " not run |" } else { " – |" });
        let (head, rest) = row.split_at(format!("| {name} |").len());
        let filled = rest.trim_end().split_inclusive('|').zip(cells);
        let filled: String = filled.map(|(cell, empty)| if cell == " |" { empty } else { cell }).collect();
        format!("{head}{filled}\n")
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
        if let Some(path) = &self.results {
            return self.write(path, &self.results(&list, &files));
        }
        if let Some(name) = self.only.iter().find(|name| list.jobs.iter().all(|job| job.name != **name)) {
            return Err(Problem::input(format!("--only {name}: the list has no such job"), HINT));
        }
        let held = self.held.as_deref().map(data::read_text).transpose()?;
        let alone: Arc<dyn Ranks> = Arc::new(Alone);
        let begin = Instant::now();
        let left = || self.seconds.map(|s| Duration::from_secs(s).saturating_sub(begin.elapsed()));
        let over = || left().is_some_and(|left| left.is_zero());
        for (job, file) in list.jobs.iter().zip(&files) {
            let folder = self.out.join(&job.name);
            let results = folder.join("results.jsonl");
            if results.exists() || !(self.only.is_empty() || self.only.contains(&job.name)) {
                continue;
            }
            if over() {
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
            let Some(text) =
                self.examine(&list.examine, job, file, &folder, held.as_deref(), device, &over)?
            else {
                break;
            };
            self.write(&results, &text)?;
            // What is not there is not in the way.
            let _ = fs::remove_file(folder.join(EXAMINED));
            self.report(&list)?;
        }
        self.report(&list)
    }

    /// The lines of all lengths; None where `over` came first. Each length's are kept as soon as they are there.
    fn examine(
        &self,
        examine: &Examine,
        job: &Job,
        file: &File,
        folder: &Path,
        held: Option<&[u8]>,
        device: &Device,
        over: &dyn Fn() -> bool,
    ) -> Result<Option<String>, Problem> {
        let weights = Weights::of(folder.join("weights.safetensors"), file.plan.half);
        let checkpoint: Checkpoint = weights.open()?;
        let gpu = device.open()?;
        let model = weights.upload(&gpu, &checkpoint)?;
        let kept = folder.join(EXAMINED);
        let mut text = fs::read_to_string(&kept).unwrap_or_default();
        for (length, trials) in job.examined(examine) {
            let of = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|l| l["length"] == length);
            if text.lines().any(of) {
                continue;
            }
            if over() {
                return Ok(None);
            }
            for (task, score) in examine_tasks(&model, held, length, &examine.tasks()?, trials)? {
                // A model without memory selects nothing.
                let selected = model.config.enable_hsa.then_some(score.selected);
                let line = json!({
                    "job": job.name, "length": length, "task": task.name(), "trials": trials,
                    "exact": score.exact, "selected": selected, "tokens": file.plan.tokens(),
                    "device": gpu.capabilities().name,
                });
                if self.json {
                    print_json(&line)?;
                }
                text += &format!("{line}\n");
            }
            self.write(&kept, &text)?;
        }
        Ok(Some(text))
    }

    /// Writes results.jsonl and table.md from what the jobs' folders hold.
    fn report(&self, list: &List) -> Result<(), Problem> {
        let done: Vec<(&Job, String)> =
            list.jobs.iter().filter_map(|job| Some((job, self.lines(job)?))).collect();
        let mut table = list.head("job");
        for (job, text) in &done {
            table += &list.row(&job.name, Some(text));
        }
        let all: String = done.into_iter().map(|(_, text)| text).collect();
        self.write(&self.out.join("results.jsonl"), &all)?;
        self.write(&self.out.join("table.md"), &table)
    }

    /// What a job's folder holds.
    fn lines(&self, job: &Job) -> Option<String> {
        fs::read_to_string(self.out.join(&job.name).join("results.jsonl")).ok()
    }

    /// The document: all jobs, and each finding beside the jobs that ask the same.
    fn results(&self, list: &List, files: &[File]) -> String {
        let lines: Vec<Option<String>> = list.jobs.iter().map(|job| self.lines(job)).collect();
        let mut devices: Vec<String> = lines
            .iter()
            .flatten()
            .flat_map(|text| text.lines())
            .filter_map(|l| Some(serde_json::from_str::<Value>(l).ok()?["device"].as_str()?.to_owned()))
            .collect();
        devices.sort();
        devices.dedup();
        let run = lines.iter().flatten().count();
        let mut out = format!(
            "# The paper's questions, asked again\n\n{}\n\n{run} of {} jobs were run{}{}. A cell is exact answers · selected \
             facts, shares of the trials; `not run` is what it says, – what was not to be examined.\n\n",
            list.about.trim(),
            list.jobs.len(),
            if devices.is_empty() { "" } else { " on " },
            devices.join(", "),
        );
        out += &list.head("job | M parameters | M tokens");
        for ((job, file), text) in list.jobs.iter().zip(files).zip(&lines) {
            let parameters = file.config().map_or(0, |c| c.parameter_count());
            let name = format!(
                "{} | {:.2} | {:.1}",
                job.name,
                parameters as f64 / 1e6,
                file.plan.tokens() as f64 / 1e6
            );
            out += &list.row_of(job, &name, text.as_deref());
        }
        out += "\n## Beside the paper\n";
        for Finding { question, found, source, jobs, compare } in &list.findings {
            out += &format!("\n### {}\n\nFound: {} ({source}).\n\n", question.trim(), found.trim());
            if jobs.is_empty() {
                out += "Ours: no job asks this.\n";
            } else {
                out += &list.head("ours");
                for (job, text) in list.jobs.iter().zip(&lines).filter(|(job, _)| jobs.contains(&job.name)) {
                    out += &list.row_of(job, &job.name, text.as_deref());
                }
            }
            out += &format!("\nHow far they compare: {}\n", compare.trim());
        }
        if !list.missing.is_empty() {
            out += &format!("\n## Not reproduced\n\n{}\n", list.missing.trim());
        }
        out
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), Problem> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let written = fs::create_dir_all(folder)
            .and_then(|()| write_atomically(path, |w| w.write_all(text.as_bytes())));
        written.map_err(|e| {
            Problem::input(
                format!("cannot write {}: {e}", path.display()),
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
