//! `rambutan selfcheck`: every op's cases on this adapter against their definitions.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use rambutan_engine::{
    Gpu, ops,
    testing::{self, Case, Outcome},
};
use rambutan_model::checkpoint::write_atomically;
use serde_json::{Value, json};

use super::{guarded, info};
use crate::problem::{Problem, print, print_json};

/// Holds every op on this adapter against its definition: values, gradients, repeatability
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan selfcheck\n  rambutan selfcheck --quick\n  rambutan selfcheck ssd_scan --json\n  rambutan selfcheck --report report.md\n\nEnds with 1 if any op failed. Attach the report when you tell of a GPU."
)]
pub struct Selfcheck {
    /// Only ops whose name contains this
    filter: Option<String>,
    /// One set of sizes an op
    #[arg(long)]
    quick: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    /// Writes a report to attach: adapter, driver, limits, variants, worst errors, failures, in Markdown
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

impl Selfcheck {
    pub fn run(&self, gpu: &Gpu) -> Result<(), Problem> {
        let wanted = self.filter.as_deref().unwrap_or_default();
        let cases: Vec<Case> = ops::cases().into_iter().filter(|c| c.stem.contains(wanted)).collect();
        if cases.is_empty() {
            let stems: Vec<_> = ops::cases().iter().map(|c| c.stem).collect();
            let message = format!("no op's name contains `{wanted}`");
            return Err(Problem::input(message, format!("ops: {}", stems.join(" "))));
        }
        if let Some(path) = &self.report {
            writable(path)?;
        }
        let c = gpu.capabilities();
        if !self.json {
            print(&format!(
                "{} · {} · {}\n\n{:28} {:>5}  {:>10}  {:>10}\n",
                c.name, c.backend, c.driver, "op", "sizes", "worst", "allowed"
            ))?;
        }
        let (mut values, mut failed, mut outcomes) = (Vec::new(), 0, Vec::new());
        for case in &cases {
            if !case.runs(gpu) {
                values.push(json!({ "op": case.stem, "ok": null }));
                if !self.json {
                    print(&format!("{:28} not for this adapter\n", case.stem))?;
                }
                outcomes.push((case.stem, None));
                continue;
            }
            let outcome = self.check(gpu, case);
            failed += usize::from(!outcome.failures.is_empty());
            values.push(json!({
                "op": case.stem, "ok": outcome.failures.is_empty(), "sizes": outcome.sizes,
                "worst": outcome.worst.worst, "allowed": outcome.worst.allowed, "failures": outcome.failures,
            }));
            if !self.json {
                let verdict = if outcome.failures.is_empty() { "ok" } else { "FAILED" };
                let mut row = format!(
                    "{:28} {:>5}  {:>10.2e}  {:>10.2e}  {verdict}\n",
                    case.stem,
                    outcome.sizes.len(),
                    outcome.worst.worst,
                    outcome.worst.allowed
                );
                for failure in &outcome.failures {
                    row.push_str(&format!("    {failure}\n"));
                }
                print(&row)?;
            }
            outcomes.push((case.stem, Some(outcome)));
        }
        if let Some(path) = &self.report {
            let text = report(gpu, &outcomes);
            write_atomically(path, |w| w.write_all(text.as_bytes())).map_err(|e| unwritable(path, &e))?;
        }
        if self.json {
            print_json(&json!({
                "device": c.name, "backend": c.backend, "driver": c.driver, "ok": failed == 0,
                "ops": Value::Array(values),
            }))?;
        }
        if failed > 0 {
            return Err(Problem::check(
                format!("{failed} of {} ops failed on {}", cases.len(), c.name),
                "please report it with what `rambutan selfcheck --report FILE` writes; a newer driver may help",
            ));
        }
        Ok(())
    }

    fn check(&self, gpu: &Gpu, case: &Case) -> Outcome {
        let draws = if self.quick { 1 } else { 6 };
        guarded(|| pollster::block_on(testing::selfcheck(gpu, case, draws)))
            .unwrap_or_else(|panic| Outcome { failures: vec![panic], ..Outcome::default() })
    }
}

fn unwritable(path: &Path, e: &dyn std::fmt::Display) -> Problem {
    let what = format!("--report {}: {e}", path.display());
    Problem::input(what, "expected a file that can be written, such as report.md")
}

/// Found out before minutes of checks, not after.
fn writable(path: &Path) -> Result<(), Problem> {
    if path.is_dir() {
        return Err(unwritable(path, &"a folder"));
    }
    let there = path.exists();
    fs::OpenOptions::new().append(true).create(true).open(path).map_err(|e| unwritable(path, &e))?;
    if !there {
        fs::remove_file(path).map_err(|e| unwritable(path, &e))?;
    }
    Ok(())
}

/// All that somebody needs who does not have this device.
fn report(gpu: &Gpu, outcomes: &[(&str, Option<Outcome>)]) -> String {
    let c = gpu.capabilities();
    let failed = |o: &Outcome| !o.failures.is_empty();
    let count =
        |wanted: &dyn Fn(&Option<Outcome>) -> bool| outcomes.iter().filter(|(_, o)| wanted(o)).count();
    let (mut limits, mut ignored) = (String::new(), json!({}));
    info::describe(c, &mut ignored, &mut limits);
    let mut text = format!(
        "# rambutan selfcheck: {}\n\n| | |\n|---|---|\n| adapter | {} |\n| backend | {} |\n| driver | {} |\n| kind | {} |\n| rambutan | {} |\n| system | {} {} |\n| ops | {} held, {} failed, {} not for this adapter |\n\n```text\n{}```\n",
        c.name,
        c.name,
        c.backend,
        c.driver,
        if c.cpu { "software" } else { "GPU" },
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        count(&|o| o.as_ref().is_some_and(|o| !failed(o))),
        count(&|o| o.as_ref().is_some_and(failed)),
        count(&|o| o.is_none()),
        limits.lines().map(|l| format!("{}\n", l.trim())).collect::<String>(),
    );
    for (stem, outcome) in
        outcomes.iter().filter_map(|(s, o)| Some((s, o.as_ref()?))).filter(|(_, o)| failed(o))
    {
        let _ = write!(text, "\n## {stem} failed\n\n```text\n{}\n```\n", outcome.failures.join("\n"));
    }
    text.push_str("\n## Worst errors\n\nRelative; what a case allows beside them.\n\n| op | worst | allowed | |\n|---|---|---|---|\n");
    for (stem, outcome) in outcomes {
        let _ = match outcome {
            None => writeln!(text, "| {stem} | | | not for this adapter |"),
            Some(o) => {
                let verdict = if failed(o) { "**failed**" } else { "ok" };
                writeln!(text, "| {stem} | {:.2e} | {:.2e} | {verdict} |", o.worst.worst, o.worst.allowed)
            }
        };
    }
    text.push_str("\n## Kernels that ran\n\n```text\n");
    for (stem, variant) in gpu.kernels() {
        let _ = writeln!(text, "{}", format!("{stem} {variant}").trim());
    }
    text.push_str("```\n");
    text
}
