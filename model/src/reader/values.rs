//! Where the keys and values of what was read are kept: one interface, a file a place.

mod host;
mod int8;
mod recomputed;

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rambutan_engine::{Tensor, ops};

use super::{Landmarks, Reader, Text, bringing::Recent, cut::Cut, paged::Paged};
use crate::{Error, Ramba, chunking::Memory, ramba::Brought};
pub(super) use host::Coming;
#[cfg(not(target_arch = "wasm32"))]
pub(super) use host::Stored;
pub(super) use {host::Host, int8::Int8, recomputed::Recomputed};

/// Where the keys and values of a text are kept. Answers are the same bit for bit in all but [`Placement::Int8`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Placement {
    /// On the device, in pages.
    #[default]
    Device,
    /// On the host; those of selected chunks go to the device, all that a step needs at once.
    Host,
    /// Nowhere: the text is kept, a byte a token, and the segments of selected chunks are read again.
    Text,
    /// On the device in eight bits, with a scale for each chunk and head: a value differs by no more than 1/254 of the
    /// largest of its chunk and head.
    Int8,
}

impl Placement {
    /// All of them.
    pub const ALL: [Placement; 4] = [Placement::Device, Placement::Host, Placement::Text, Placement::Int8];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Placement::Device => "device",
            Placement::Host => "host",
            Placement::Text => "text",
            Placement::Int8 => "int8",
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Placement {
    type Err = Error;

    fn from_str(name: &str) -> Result<Placement, Error> {
        Placement::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| Error::Setting {
            field: "the memory's place".into(),
            value: name.into(),
            expected: "device, host, text or int8".into(),
        })
    }
}

/// How the memory of a text is kept. A [`Placement`] alone is one with landmarks in floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Keeping {
    /// Where keys and values are.
    pub values: Placement,
    /// How landmarks are.
    pub landmarks: Landmarks,
}

impl From<Placement> for Keeping {
    fn from(values: Placement) -> Keeping {
        Keeping { values, landmarks: Landmarks::Float }
    }
}

impl Keeping {
    /// How the memory of `tokens` tokens may be kept, what is left open (None) chosen, the best first. For keys and values
    /// these are the places that change no answer: the device, unless it is known to be too small, then the text itself. (The
    /// host answers a little faster than the text, but reads at half its speed and takes a hundred times the memory: it is for
    /// those who ask for it.) For landmarks it is floats, and eight bits where nothing else fits. What a device has beyond
    /// [`GpuOptions::max_memory`] only reading tells: where it fails with [`Error::TextTooLong`], the next is to be tried.
    ///
    /// [`GpuOptions::max_memory`]: rambutan_engine::GpuOptions::max_memory
    ///
    /// # Errors
    /// As [`Reader::placed`].
    pub fn fitting(
        model: &Ramba,
        tokens: usize,
        values: Option<Placement>,
        landmarks: Option<Landmarks>,
    ) -> Result<Vec<Keeping>, Error> {
        let places = values.map_or(vec![Placement::Device, Placement::Text], |place| vec![place]);
        let kinds = landmarks.map_or(Landmarks::ALL.to_vec(), |kind| vec![kind]);
        // Better the text in floats than the device in eight bits.
        let of = |&landmarks: &Landmarks| places.iter().map(move |&values| Keeping { values, landmarks });
        let mut all: Vec<Keeping> = kinds.iter().flat_map(of).collect();
        let last = all.pop().expect("a way at least");
        all.retain(|k| k.landmarks == Landmarks::Float || landmarks.is_some());
        let most = model.gpu().capabilities().max_memory;
        let room = most.map(|most| most.saturating_sub(model.gpu().memory().in_use) as usize);
        let mut fitting = Vec::new();
        for keeping in all {
            let [bytes, _] = Reader::placed(model, keeping)?.bytes_of(tokens);
            fitting.extend(room.is_none_or(|room| bytes <= room).then_some(keeping));
        }
        fitting.push(last);
        Ok(fitting)
    }
}

/// Keys and values of whole segments.
pub(super) enum Values {
    Device([Paged; 2]),
    Host(Host),
    Text(Recomputed),
    Int8(Box<Int8>),
}

/// What was replaced.
pub(super) enum Old {
    Device([Tensor; 2]),
    Host(Before<[Vec<u8>; 2]>),
    Text(Before<Vec<u8>>),
    Int8([Tensor; 4]),
}

/// Chunks or segments that were replaced on the host, by their number. Clones share them, so that prefixes do.
#[derive(Clone)]
struct Replaced<T>(Arc<Mutex<BTreeMap<usize, T>>>);

/// What stood in each number's place before, if it was replaced at all.
pub(super) type Before<T> = Vec<(usize, Option<T>)>;

impl<T> Default for Replaced<T> {
    fn default() -> Self {
        Replaced(Arc::default())
    }
}

impl<T> Replaced<T> {
    fn all(&self) -> MutexGuard<'_, BTreeMap<usize, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `new` from `number` on.
    fn put(&self, number: usize, new: impl Iterator<Item = T>) -> Before<T> {
        let mut all = self.all();
        (number..).zip(new).map(|(number, new)| (number, all.insert(number, new))).collect()
    }

    fn restore(&self, before: Before<T>) {
        let mut all = self.all();
        for (number, old) in before {
            match old {
                Some(old) => all.insert(number, old),
                None => all.remove(&number),
            };
        }
    }
}

impl Values {
    pub fn new(model: &Ramba, cut: Cut, placement: Placement) -> Result<Values, Error> {
        let c = &model.config;
        let row = [c.num_kv_heads, c.attention_head_dim];
        Ok(match placement {
            Placement::Device => {
                Values::Device([(); 2].map(|()| Paged::new(model.gpu(), 1, row, model.dtype())))
            }
            Placement::Host => Values::Host(Host::new(c.chunk_size, row, model.dtype())),
            Placement::Text => Values::Text(Recomputed::new(cut)),
            Placement::Int8 => Values::Int8(Box::new(Int8::new(model, c.chunk_size, row)?)),
        })
    }

    /// None of the same kind.
    pub fn like(&self) -> Values {
        match self {
            Values::Device(kv) => Values::Device(kv.each_ref().map(Paged::like)),
            Values::Host(host) => Values::Host(host.like()),
            Values::Text(text) => Values::Text(text.like()),
            Values::Int8(int8) => Values::Int8(Box::new(int8.like())),
        }
    }

    pub fn placement(&self) -> Placement {
        match self {
            Values::Device(_) => Placement::Device,
            Values::Host(_) => Placement::Host,
            Values::Text(_) => Placement::Text,
            Values::Int8(_) => Placement::Int8,
        }
    }

    /// What of it lies on the device.
    pub fn paged(&mut self) -> Vec<&mut Paged> {
        match self {
            Values::Device(kv) => kv.iter_mut().collect(),
            Values::Int8(int8) => int8.parts.iter_mut().collect(),
            Values::Host(_) | Values::Text(_) => Vec::new(),
        }
    }

    /// Bytes of so many tokens on the device, and on the host.
    pub fn bytes(&self, tokens: usize) -> [usize; 2] {
        let sum = |sets: &[Paged]| [sets.iter().map(|s| s.bytes(tokens)).sum(), 0];
        match self {
            Values::Device(kv) => sum(kv),
            Values::Int8(int8) => sum(&int8.parts),
            Values::Host(host) => [0, host.bytes(tokens)],
            Values::Text(_) => [0, tokens],
        }
    }

    /// Takes note of the next whole segments, which begin at token `start`; where they lie on the device there is room.
    pub fn write(&mut self, start: usize, memory: &Memory) -> Result<(), Error> {
        match self {
            Values::Device([k, v]) => {
                k.write(start, &memory.k);
                v.write(start, &memory.v);
            }
            Values::Int8(int8) => int8.write(start, memory),
            Values::Host(host) => host.push(memory)?,
            Values::Text(_) => {}
        }
        Ok(())
    }

    /// Whether all that was written has arrived; with `wait` it waits for it.
    pub fn settle(&mut self, wait: bool) -> Result<bool, Error> {
        match self {
            Values::Host(host) => host.settle(wait),
            _ => Ok(true),
        }
    }

    /// Adds those of the text's next `tokens` tokens, whole segments, which lie as `cut` says in `head` and `text` from `at` on.
    pub fn append(
        &mut self,
        further: Values,
        [tokens, at]: [usize; 2],
        cut: Cut,
        head: Vec<u8>,
        text: &Text<'_>,
    ) {
        match (self, further) {
            (Values::Device([k, v]), Values::Device([more_k, more_v])) => {
                k.append(more_k);
                v.append(more_v);
            }
            (Values::Int8(int8), Values::Int8(more)) => int8.append(*more),
            (Values::Host(host), Values::Host(more)) => host.append(more),
            (Values::Text(parts), Values::Text(_)) => parts.push([tokens, at], cut, head, text.shared()),
            _ => unreachable!("a reading keeps values where its reader does"),
        }
    }

    /// Those of the first `tokens` tokens, shared.
    pub fn prefix(&self, tokens: usize) -> Values {
        match self {
            Values::Device(kv) => Values::Device(kv.each_ref().map(|p| p.prefix(tokens))),
            Values::Host(host) => Values::Host(host.prefix(tokens)),
            Values::Text(text) => Values::Text(text.prefix(tokens)),
            Values::Int8(int8) => Values::Int8(Box::new(int8.prefix(tokens))),
        }
    }

    /// Overwrites whole segments from token `start` on by `memory`, that of `rows` ([`Cut::rows`]), and gives what was there.
    pub fn replace(&self, start: usize, tokens: usize, memory: &Memory, rows: &[u8]) -> Result<Old, Error> {
        let range = start..start + tokens;
        Ok(match self {
            Values::Device([k, v]) => {
                let old = [k.copy(range.clone()), v.copy(range)];
                k.write(start, &memory.k);
                v.write(start, &memory.v);
                Old::Device(old)
            }
            Values::Int8(int8) => {
                let old = int8.parts.each_ref().map(|p| p.copy(range.clone()));
                int8.write(start, memory);
                Old::Int8(old)
            }
            Values::Host(host) => Old::Host(host.replace(start, memory)?),
            Values::Text(parts) => Old::Text(parts.replace(start, rows)),
        })
    }

    /// Puts back what [`Values::replace`] gave.
    pub fn restore(&self, start: usize, old: Old) {
        match (self, old) {
            (Values::Device(kv), Old::Device(old)) => {
                kv.iter().zip(&old).for_each(|(p, old)| p.write(start, old));
            }
            (Values::Int8(int8), Old::Int8(old)) => {
                int8.parts.iter().zip(&old).for_each(|(p, old)| p.write(start, old));
            }
            (Values::Host(host), Old::Host(old)) => host.replaced.restore(old),
            (Values::Text(parts), Old::Text(old)) => parts.replaced.restore(old),
            _ => unreachable!("values come back to where they were kept"),
        }
    }

    /// Whether bringing chunks needs their numbers on the host.
    pub fn by_number(&self) -> bool {
        matches!(self, Values::Host(_) | Values::Text(_))
    }

    /// The keys and values of the chunks that `indices` name, of the text and then of `own`, for a place on the device.
    pub fn gather(&self, reader: &Reader<'_>, indices: &Tensor, own: Option<&Memory>) -> Brought {
        let chunk = reader.model.config.chunk_size;
        let own = own.map(|m| [rows(&m.k), rows(&m.v)]);
        if let Values::Int8(int8) = self {
            return int8.gather(reader, indices, own);
        }
        let Values::Device(kv) = self else { unreachable!("{} brings chunks by number", self.placement()) };
        let [k, v] = [0, 1].map(|i| {
            let mut pages = kv[i].flat();
            pages.extend(own.as_ref().map(|own| own[i].clone()));
            ops::gather_chunks(&pages.iter().collect::<Vec<_>>(), indices, chunk)
        });
        Brought { k, v }
    }

    /// The same by their numbers, for a place that is not. `recent` has what was fetched lately.
    pub fn bring(
        &self,
        reader: &Reader<'_>,
        recent: &mut Recent,
        numbers: &[u32],
        own: Option<&Memory>,
    ) -> Result<Brought, Error> {
        recent.bring(reader, numbers, own, |chunks| match &reader.share {
            Some(share) => share.fetch(reader, chunks, |chunks| self.fetch(reader, chunks)),
            None => self.fetch(reader, chunks),
        })
    }

    /// Those of chunks that are kept here, in order and each once: (chunks · S, heads, head dim).
    fn fetch(&self, reader: &Reader<'_>, chunks: &[u32]) -> Result<[Tensor; 2], Error> {
        match self {
            Values::Host(host) => host.fetch(reader, chunks),
            Values::Text(text) => text.fetch(reader, chunks),
            Values::Device(_) | Values::Int8(_) => {
                let numbers = Tensor::from_slice(reader.gpu(), chunks, [chunks.len()])?;
                let Brought { k, v } = self.gather(reader, &numbers, None);
                Ok([k, v])
            }
        }
    }
}

/// The bytes of a tensor on the device. Waits for them.
pub(super) fn downloaded(x: &Tensor) -> Result<Vec<u8>, Error> {
    let mut coming = Coming::new(x)?;
    while !coming.poll(true)? {}
    Ok(coming.bytes())
}

/// (1, rows, …) as (rows, …).
pub(super) fn rows(x: &Tensor) -> Tensor {
    x.reshape(&x.shape()[1..])
}
