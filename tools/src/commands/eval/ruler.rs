//! `rambutan eval ruler`.

use rambutan_model::{ranks::Ranks, tasks::Task};

use super::Setup;
use crate::{Device, problem::Problem};

/// Asks in the manner of RULER: one fact, one among five alike, two of six at once, variables over two hops
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan eval ruler --lengths 4096,65536 --trials 50\n  rambutan eval ruler --tasks variables --lengths 1048576 --json\n  rambutan eval ruler --formats --lengths 65536\n\npasskey: |The passkey is:48213|. named: |The code of Rivaze is:7731942|. similar: named, beside five facts with the same\nnoun or name and alike digits. reworded: in other words. multi-query: two of six named facts in one question. variables:\ntwo chains |VAR Kato = 48213|, |VAR Rimuvo = Kato|, |VAR Selate = Rimuvo|; asked for the last one's value, the answer is\nRimuvo = Kato = 48213. one-hop: the same with chains of two variables.\n\nexact: the whole answer and its end, by greedy decoding. selected: all chunks of the statement that the answer begins with\nare among those selected at its first token."
)]
pub(super) struct Ruler {
    #[command(flatten)]
    setup: Setup,
    /// passkey, named, similar, reworded, multi-query, variables, one-hop [default: all]
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    tasks: Vec<Task>,
}

impl Ruler {
    pub(super) fn run(&self, device: &Device, ranks: &dyn Ranks) -> Result<(), Problem> {
        let tasks = if self.tasks.is_empty() { &Task::ALL[..] } else { &self.tasks };
        let Setup { trials, seed, .. } = self.setup;
        self.setup.examine(device, ranks, "task", tasks, Task::name, |hay, task| {
            Ok((hay.ruler(task, trials as usize, seed)?, [seed, hay.len() as u64, 1000 + task as u64]))
        })
    }
}
