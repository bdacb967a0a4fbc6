//! What an examination says.

use std::fmt;

use crate::Check;

/// What a check came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing was found in so many trials.
    Held(u32),
    /// What failed, at the smallest sizes and inputs where it does.
    Failed(String),
    /// Why it was not done.
    Skipped(String),
}

/// Every check's verdict on a kernel.
#[derive(Clone, Debug)]
pub struct Examination {
    pub(crate) kernel: String,
    pub(crate) device: String,
    pub(crate) verdicts: Vec<(Check, Verdict)>,
}

impl Examination {
    /// Whether no check failed.
    pub fn holds(&self) -> bool {
        self.caught_by().is_empty()
    }

    /// The checks that failed.
    pub fn caught_by(&self) -> Vec<Check> {
        let failed = self.verdicts.iter().filter(|(_, v)| matches!(v, Verdict::Failed(_)));
        failed.map(|(c, _)| *c).collect()
    }

    /// The verdict of one check.
    pub fn verdict(&self, check: Check) -> &Verdict {
        let found = self.verdicts.iter().find(|(c, _)| *c == check);
        &found.unwrap_or_else(|| unreachable!("every check has a verdict")).1
    }
}

impl fmt::Display for Examination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} on {}", self.kernel, self.device)?;
        for (check, verdict) in &self.verdicts {
            let name = check.name();
            match verdict {
                Verdict::Held(judges) if *check == Check::Compilers => {
                    writeln!(f, "  {name:14} held before {judges} judges")?;
                }
                Verdict::Held(_) if *check == Check::Limits => writeln!(f, "  {name:14} held")?,
                Verdict::Held(trials) => writeln!(f, "  {name:14} held in {trials} trials")?,
                Verdict::Skipped(why) => writeln!(f, "  {name:14} skipped: {why}")?,
                Verdict::Failed(text) => {
                    writeln!(f, "  {name:14} FAILED")?;
                    text.lines().try_for_each(|line| writeln!(f, "    {line}"))?;
                }
            }
        }
        Ok(())
    }
}
