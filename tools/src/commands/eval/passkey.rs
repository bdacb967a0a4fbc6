//! `rambutan eval passkey`.

use std::time::Instant;

use rambutan_model::{
    ranks::Ranks,
    reader::{Placement, Reader},
    tasks::FactKind,
};

use super::{Setup, score};
use crate::{Device, problem::Problem, ranks::agree, reading};

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
    after_help = "Examples:\n  rambutan eval passkey --lengths 4096,65536 --trials 50\n  rambutan eval passkey --text book.txt --lengths 1048576 --kind named --json\n  rambutan eval passkey --random --lengths 65536\n  rambutan eval passkey --no-hsa --lengths 65536\n\nexact: the whole answer and its end, by greedy decoding. selected: all chunks of the fact are among those selected at the\nanswer's first token. Each length is read once; a trial reads only the segments again that its fact touches. Up to 300\nbytes of text stand between the last restart and the question."
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
        let setup = &self.setup;
        let opened = setup.open(device).and_then(|opened| {
            drop(Reader::over(&opened.2, Placement::Device, ranks)?);
            Ok(opened)
        });
        let (text, gpu, model) = agree(ranks, opened)?;
        setup.head(&gpu, "kind")?;
        let kinds: &[FactKind] = match self.kind {
            Kinds::Plain => &[FactKind::Plain],
            Kinds::Named => &[FactKind::Named],
            Kinds::Both => &FactKind::ALL,
        };
        for &length in &setup.lengths {
            let hay = agree(ranks, setup.hay(text.as_deref(), length as usize))?;
            let (mut reader, read) = setup.read(&gpu, &model, ranks, &hay)?;
            for &kind in kinds {
                let trials = setup.trials as usize;
                let (bar, begin) = (reading::bar(kind.name(), trials), Instant::now());
                let score = score(&mut reader, &model, &hay, kind, trials, setup.seed, || bar.inc(1))?;
                bar.finish_and_clear();
                setup.row(&read, "kind", kind.name(), score, begin.elapsed().as_secs_f64())?;
            }
        }
        Ok(())
    }
}
