//! Chunks that come to the device by their numbers, and stay there for a while: neighbouring tokens look alike.

use std::collections::{BTreeSet, HashMap, VecDeque};

use rambutan_engine::{Tensor, ops};

use super::{Reader, values::rows};
use crate::{Error, chunking::Memory, ramba::Brought};

/// Sets of chunks that stay, at most.
const SETS: usize = 4;

/// What one retrieval layer had brought lately, what was used last first.
#[derive(Default)]
pub(super) struct Recent {
    sets: VecDeque<Set>,
}

/// Chunks that came together.
struct Set {
    /// Where each lies in it.
    places: HashMap<u32, u32>,
    /// (chunks · S, heads, head dim), keys and values.
    kv: [Tensor; 2],
}

impl Recent {
    /// Keys and values of the chunks with these numbers, of the text and then of `own`; `fetch` gives those of the text,
    /// in order and each once, that are not here.
    pub fn bring(
        &mut self,
        reader: &Reader<'_>,
        numbers: &[u32],
        own: Option<&Memory>,
        fetch: impl FnOnce(&[u32]) -> Result<[Tensor; 2], Error>,
    ) -> Result<Brought, Error> {
        let chunk = reader.model.config.chunk_size;
        let texts = (reader.base() / chunk) as u32;
        let wanted: BTreeSet<u32> = numbers.iter().copied().filter(|c| *c < texts).collect();
        let here = |set: &Set| wanted.iter().any(|c| set.places.contains_key(c));
        let (used, idle): (Vec<Set>, Vec<Set>) = self.sets.drain(..).partition(here);
        self.sets.extend(used);
        let missing: Vec<u32> = wanted
            .iter()
            .copied()
            .filter(|c| !self.sets.iter().any(|set| set.places.contains_key(c)))
            .collect();
        if !missing.is_empty() {
            let kv = fetch(&missing)?;
            let places = missing.iter().zip(0..).map(|(c, i)| (*c, i)).collect();
            self.sets.push_front(Set { places, kv });
        }
        // The sets' chunks are numbered one set after another, those of `own` behind them.
        let mut numbered = HashMap::new();
        let mut first = 0;
        for set in &self.sets {
            numbered.extend(set.places.iter().map(|(c, place)| (*c, first + place)));
            first += set.places.len() as u32;
        }
        let places: Vec<u32> =
            numbers.iter().map(|c| if *c < texts { numbered[c] } else { first + c - texts }).collect();
        let places = Tensor::from_slice(reader.gpu(), &places, [places.len()])?;
        let [k, v] = [0, 1].map(|i| {
            let mut pages: Vec<Tensor> = self.sets.iter().map(|set| set.kv[i].clone()).collect();
            pages.extend(own.map(|m| rows([&m.k, &m.v][i])));
            ops::gather_chunks(&pages.iter().collect::<Vec<_>>(), &places, chunk)
        });
        self.sets.extend(idle);
        self.sets.truncate(SETS);
        Ok(Brought { k, v })
    }
}
