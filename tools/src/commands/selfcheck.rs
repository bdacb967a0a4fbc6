//! `rambutan selfcheck`: every op's cases on this adapter against their definitions.

use rambutan_engine::{
    Gpu, ops,
    testing::{self, Case, Report, Sizes},
};
use serde_json::{Value, json};

use super::guarded;
use crate::problem::{Problem, print, print_json};

/// Holds every op on this adapter against its definition: values, gradients, repeatability
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan selfcheck\n  rambutan selfcheck --quick\n  rambutan selfcheck ssd_scan --json\n\nEnds with 1 if any op failed. Send the output along when you report a GPU."
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
}

#[derive(Default)]
struct Outcome {
    sizes: Vec<String>,
    worst: Report,
    failures: Vec<String>,
}

impl Outcome {
    fn note(&mut self, result: Result<Report, String>) {
        match result {
            // A check without a bound of its own (repeatability) says nothing about errors.
            Ok(r) if r.allowed == 0.0 => {}
            Ok(r)
                if self.worst.allowed == 0.0
                    || r.worst / r.allowed > self.worst.worst / self.worst.allowed =>
            {
                self.worst = r;
            }
            Ok(_) => {}
            Err(e) => self.failures.push(e),
        }
    }
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
        let c = gpu.capabilities();
        if !self.json {
            print(&format!(
                "{} · {} · {}\n\n{:28} {:>5}  {:>10}  {:>10}\n",
                c.name, c.backend, c.driver, "op", "sizes", "worst", "allowed"
            ))?;
        }
        let (mut values, mut failed) = (Vec::new(), 0);
        for case in &cases {
            if !(case.runs_on)(gpu) {
                values.push(json!({ "op": case.stem, "ok": null }));
                if !self.json {
                    print(&format!("{:28} not for this adapter\n", case.stem))?;
                }
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
                "please report this table with the output of `rambutan info`; a newer driver may help",
            ));
        }
        Ok(())
    }

    fn check(&self, gpu: &Gpu, case: &Case) -> Outcome {
        let mut outcome = Outcome::default();
        let checked = |check: &dyn Fn() -> Result<Report, testing::Failure>| {
            guarded(check).and_then(|result| result.map_err(|e| e.to_string()))
        };
        let draws = if self.quick { 1 } else { 6 };
        for seed in 1..=draws {
            let sizes: Sizes = case.draw(seed);
            outcome.sizes.push(sizes.to_string());
            outcome.note(checked(&|| testing::check(gpu, case, &sizes, seed)));
            if seed <= 2 {
                outcome.note(checked(&|| testing::check_gradients(gpu, case, &sizes, seed)));
                outcome.note(checked(&|| {
                    testing::check_determinism(gpu, case, &sizes, seed).map(|()| Report::default())
                }));
            }
        }
        outcome
    }
}
