//! `rambutan eval ruler`.

use std::time::Instant;

use rambutan_model::{
    ranks::Ranks,
    reader::{Placement, Reader},
    tasks::Task,
};

use super::{Setup, score_all};
use crate::{Device, problem::Problem, ranks::agree, reading};

/// Asks in the manner of RULER: one fact, one among five alike, two of six at once, variables over two hops
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan eval ruler --lengths 4096,65536 --trials 50\n  rambutan eval ruler --tasks variables --lengths 1048576 --json\n  rambutan eval ruler --formats --lengths 65536\n\npasskey: |The passkey is:48213|. named: |The code of Rivaze is:7731942|. similar: named, beside five facts with the same\nnoun or name and alike digits. reworded: in other words. multi-query: two of six named facts in one question. variables:\ntwo chains |VAR Kato = 48213|, |VAR Rimuvo = Kato|, |VAR Selate = Rimuvo|; asked for the last one's value, the answer is\nRimuvo = Kato = 48213.\n\nexact: the whole answer and its end, by greedy decoding. selected: all chunks of the statement that the answer begins with\nare among those selected at its first token."
)]
pub(super) struct Ruler {
    #[command(flatten)]
    setup: Setup,
    /// passkey, named, similar, reworded, multi-query, variables [default: all]
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    tasks: Vec<Task>,
}

impl Ruler {
    pub(super) fn run(&self, device: &Device, ranks: &dyn Ranks) -> Result<(), Problem> {
        let setup = &self.setup;
        let opened = setup.open(device).and_then(|opened| {
            drop(Reader::over(&opened.2, Placement::Device, ranks)?);
            Ok(opened)
        });
        let (text, gpu, model) = agree(ranks, opened)?;
        setup.head(&gpu, "task")?;
        let tasks = if self.tasks.is_empty() { &Task::ALL[..] } else { &self.tasks };
        for &length in &setup.lengths {
            let hay = agree(ranks, setup.hay(text.as_deref(), length as usize))?;
            let (mut reader, read) = setup.read(&gpu, &model, ranks, &hay)?;
            for &task in tasks {
                let trials = hay.ruler(task, setup.trials as usize, setup.seed)?;
                let (bar, begin) = (reading::bar(task.name(), trials.len()), Instant::now());
                let seed = [setup.seed, hay.len() as u64, 1000 + task as u64];
                let score = score_all(&mut reader, &model, &hay, &trials, &seed, || bar.inc(1))?;
                bar.finish_and_clear();
                setup.row(&read, "task", task.name(), score, begin.elapsed().as_secs_f64())?;
            }
        }
        Ok(())
    }
}
