//! `rambutan eval passkey`.

use rambutan_model::{
    ranks::Ranks,
    tasks::{FactKind, Trial},
};

use super::Setup;
use crate::{Device, problem::Problem};

/// Which facts.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Kinds {
    Plain,
    Named,
    Both,
}

/// Hides one fact a trial, at uniform depth, and asks for it
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan eval passkey --lengths 4096,65536 --trials 50\n  rambutan eval passkey --text book.txt --lengths 1048576 --kind named --json\n  rambutan eval passkey --random --lengths 65536\n  rambutan eval passkey --no-hsa --lengths 65536\n\nexact: the whole answer and its end, by greedy decoding. selected: all chunks of the fact are among those selected at the\nanswer's first token. Each length is read once and serves all trials: memory is local to segments, so the segments that a\nfact touches are read again with it and put back, which leaves the same bits as reading all of the text with that fact\nalone. A model without memory reads on from each fact to the text's end. Up to 300 bytes of text stand between the last\nrestart and the question. Generated text is never whole in memory."
)]
pub(super) struct Passkey {
    #[command(flatten)]
    setup: Setup,
    /// The kind of fact: |The passkey is:48213| or |The code of Rivaze is:7731942|
    #[arg(long, value_enum, default_value_t = Kinds::Both)]
    kind: Kinds,
}

impl Passkey {
    pub(super) fn run(&self, device: &Device, ranks: &dyn Ranks) -> Result<(), Problem> {
        let kinds: &[FactKind] = match self.kind {
            Kinds::Plain => &[FactKind::Plain],
            Kinds::Named => &[FactKind::Named],
            Kinds::Both => &FactKind::ALL,
        };
        let Setup { trials, seed, .. } = self.setup;
        self.setup.examine(device, ranks, "kind", kinds, FactKind::name, |hay, kind| {
            let needles = hay.trials(kind, trials as usize, seed)?;
            Ok((needles.iter().map(Trial::from).collect(), [seed, hay.len() as u64, kind as u64]))
        })
    }
}
