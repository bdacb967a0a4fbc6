//! Examinations: texts, and the needles hidden in them.

use std::{collections::HashMap, ops::Range, sync::Arc};

use serde::{Deserialize, Serialize};

use super::fact::{NOUNS, PLAIN, states_plain};
use super::{EXAMINATION, Fact, FactKind, PIECES, TaskMix, setting};
use crate::{
    Error,
    data::{DataError, Formats, Prose, TextStream},
    reader::Source,
    rng::Rng,
};

/// A fact and where it is hidden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needle {
    /// The fact.
    pub fact: Fact,
    /// Where its first byte stands in the text.
    pub position: usize,
}

impl Needle {
    /// The bytes it covers.
    pub fn span(&self) -> Range<usize> {
        self.position..self.position + self.fact.text.len()
    }

    /// The blocks of `size` tokens (chunks, or segments) it touches.
    pub fn blocks(&self, size: usize) -> Range<usize> {
        self.position / size..(self.span().end - 1) / size + 1
    }

    /// Whether a border of blocks of `size` tokens cuts it.
    pub fn is_cut_by(&self, size: usize) -> bool {
        self.blocks(size).len() > 1
    }

    /// Where it stands in a text of `length` tokens, from 0 to 1.
    pub fn depth(&self, length: usize) -> f64 {
        self.position as f64 / length.saturating_sub(self.fact.text.len()).max(1) as f64
    }
}

/// A text to hide needles in.
///
/// The text itself stays as it is: [`Haystack::with`] gives a stretch of it as it reads with a needle, so that one
/// text serves many trials, each with one needle. [`Haystack::plant`] writes several needles for good. Generated text is
/// written anew wherever it is read: a billion tokens of it are never whole in memory.
#[derive(Clone)]
pub struct Haystack {
    hay: Arc<Hay>,
    /// What the text says that may be the answer to a question, and where first: statements up to their colon,
    /// `|The code of Rivaze is:`, and whose noun is spoken of in whatever words, `code of Rivaze`. Any wording of the plain
    /// statement counts as the published one.
    said: Arc<HashMap<Vec<u8>, usize>>,
}

impl Haystack {
    /// A text as it is. Refuses an empty text.
    pub fn new(text: Vec<u8>) -> Result<Self, DataError> {
        Self::of(Base::Whole(text))
    }

    /// Generated text that training never draws.
    pub fn prose(seed: u64, length: usize) -> Result<Self, DataError> {
        Self::of(Base::Prose(Generated::new(Prose::held(seed), length)))
    }

    /// Generated code, logs, tables and other languages that training never draws.
    pub fn formats(seed: u64, length: usize) -> Result<Self, DataError> {
        Self::of(Base::Formats(Generated::new(Formats::held(seed), length)))
    }

    /// `length` bytes of a text: its beginning, or, if it is shorter, all of it and then pieces of up to 64 KiB from
    /// anywhere in it.
    pub fn from_text(text: &[u8], length: usize, seed: u64) -> Result<Self, DataError> {
        if text.is_empty() {
            return Err(DataError::Empty { name: "to search".to_owned() });
        }
        let mut pieces = vec![(0, 0)];
        let mut filled = text.len();
        let mut rng = Rng::from_parts(&[PIECES, seed]);
        while filled < length {
            let n = text.len().min(1 << 16).min(length - filled);
            pieces.push((filled, rng.below(text.len() - n + 1)));
            filled += n;
        }
        Self::of(Base::Pieces { text: text.to_vec(), pieces, length })
    }

    fn of(base: Base) -> Result<Self, DataError> {
        Self::with_hay(Hay { base, planted: Vec::new() })
    }

    fn with_hay(hay: Hay) -> Result<Self, DataError> {
        if hay.size() == 0 {
            return Err(DataError::Empty { name: "to search".to_owned() });
        }
        let said = said(&hay);
        Ok(Self { hay: Arc::new(hay), said: Arc::new(said) })
    }

    /// The first `length` bytes, or all there are.
    ///
    /// # Errors
    /// There would be none.
    pub fn prefix(&self, length: usize) -> Result<Self, DataError> {
        let mut hay = (*self.hay).clone();
        match &mut hay.base {
            Base::Whole(text) => text.truncate(length),
            Base::Pieces { length: all, .. } => *all = length.min(*all),
            Base::Prose(text) => text.length = length.min(text.length),
            Base::Formats(text) => text.length = length.min(text.length),
        }
        Self::with_hay(hay)
    }

    /// All of the text, for texts that fit.
    pub fn text(&self) -> Vec<u8> {
        self.bytes(0..self.len())
    }

    /// The bytes of `range`.
    ///
    /// # Panics
    /// Where it exceeds the text.
    #[track_caller]
    pub fn bytes(&self, range: Range<usize>) -> Vec<u8> {
        assert!(range.end <= self.len(), "bytes {range:?} of {}", self.len());
        let mut out = vec![0; range.len()];
        self.hay.write(range.start, &mut out);
        out
    }

    /// The text for a [`Reader`](crate::reader::Reader), which asks for what it needs.
    pub fn source(&self) -> Arc<dyn Source> {
        self.hay.clone()
    }

    /// Its length in tokens.
    pub fn len(&self) -> usize {
        self.hay.size()
    }

    /// Never: an empty text is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the text already answers what a fact with this stem (such as `|The passkey is:`) would be asked for, or
    /// speaks of it in other words: a question must have one answer.
    pub(super) fn stated(&self, stem: &str) -> Option<usize> {
        let spoken_of = stem.strip_prefix("|The ").and_then(|s| s.strip_suffix(" is:"));
        let keys = [Some(stem), spoken_of];
        keys.into_iter().flatten().filter_map(|key| self.said.get(key.as_bytes()).copied()).min()
    }

    /// Why a question has a second answer: what the text says there.
    pub(super) fn occupied(&self, offset: usize) -> DataError {
        /// Enough to find it by.
        const SHOWN: usize = 32;
        let said = self.bytes(offset..(offset + SHOWN).min(self.len()));
        let line = said.split(|b| *b == b'\n').next().unwrap_or_default();
        DataError::Occupied {
            found: String::from_utf8_lossy(line).trim_end_matches('\u{fffd}').to_owned(),
            offset,
        }
    }

    pub(super) fn room(&self, n: usize) -> Result<usize, DataError> {
        if self.len() < n {
            return Err(DataError::TooShort {
                what: "the text to hide a fact in",
                have: self.len(),
                need: n,
            });
        }
        Ok(self.len() - n + 1)
    }

    fn draw(&self, kind: FactKind, others: &[Needle], rng: &mut Rng) -> Result<Fact, DataError> {
        let defaults = TaskMix::default();
        loop {
            let fact = Fact::draw(kind, (defaults.digits_min, defaults.digits_max), rng);
            let stated = self.stated(&fact.stem());
            if stated.is_none() && others.iter().all(|other| other.fact.stem() != fact.stem()) {
                return Ok(fact);
            }
            // A name can be drawn anew, the plain statement has but one form.
            if let (FactKind::Plain, Some(offset)) = (kind, stated) {
                return Err(self.occupied(offset));
            }
        }
    }

    /// One needle for each of `trials` equal stretches of the text, uniform within its stretch: together at uniform
    /// depth, on and off the borders of chunks and segments. One needle a trial: each stands alone in the text.
    pub fn trials(&self, kind: FactKind, trials: usize, seed: u64) -> Result<Vec<Needle>, DataError> {
        if trials == 0 {
            return Err(setting("the number of trials", 0, "at least 1"));
        }
        (0..trials)
            .map(|trial| {
                let parts = [EXAMINATION, seed, self.len() as u64, kind as u64, trial as u64];
                let rng = &mut Rng::from_parts(&parts);
                let fact = self.draw(kind, &[], rng)?;
                let room = self.room(fact.text.len())?;
                let at = (trial as f64 + rng.float()) / trials as f64 * room as f64;
                Ok(Needle { fact, position: (at as usize).min(room - 1) })
            })
            .collect()
    }

    /// Writes `count` needles into the text for good, at depths spread over it: at most one plain, none over another.
    pub fn plant(&mut self, kinds: &[FactKind], seed: u64) -> Result<Vec<Needle>, DataError> {
        if kinds.is_empty() {
            return Err(setting("the number of facts", 0, "at least 1"));
        }
        if kinds.iter().filter(|kind| **kind == FactKind::Plain).count() > 1 {
            return Err(setting(
                "the number of plain facts",
                "more than 1",
                "at most 1, as all have the same question",
            ));
        }
        let rng = &mut Rng::from_parts(&[EXAMINATION, seed, self.len() as u64, u64::MAX]);
        let stretch = self.len() / kinds.len();
        let mut needles: Vec<Needle> = Vec::with_capacity(kinds.len());
        for (i, &kind) in kinds.iter().enumerate() {
            let fact = self.draw(kind, &needles, rng)?;
            let n = fact.text.len();
            if stretch < n {
                let need = kinds.len() * n;
                return Err(DataError::TooShort {
                    what: "the text to hide facts in",
                    have: self.len(),
                    need,
                });
            }
            let position = i * stretch + rng.below(stretch - n + 1);
            needles.push(Needle { fact, position });
        }
        let mut hay = (*self.hay).clone();
        for Needle { fact, position } in &needles {
            hay.planted.push((*position, fact.text.clone().into_bytes()));
            Arc::make_mut(&mut self.said).entry(fact.stem().into_bytes()).or_insert(*position);
        }
        self.hay = Arc::new(hay);
        Ok(needles)
    }

    /// The bytes of `range` as they read with the needle in place.
    #[track_caller]
    pub fn with(&self, needle: &Needle, range: Range<usize>) -> Vec<u8> {
        self.with_all([(needle.position, needle.fact.text.as_str())], range)
    }

    /// The bytes of `range` as they read with statements in place, (position, text) each.
    #[track_caller]
    pub fn with_all<'a>(
        &self,
        statements: impl IntoIterator<Item = (usize, &'a str)>,
        range: Range<usize>,
    ) -> Vec<u8> {
        let mut out = self.bytes(range.clone());
        for (position, text) in statements {
            lay_over(&mut out, range.start, position, text.as_bytes());
        }
        out
    }

    /// Up to `most` bytes from anywhere in the text, to stand between a restart and a question.
    pub fn lead(&self, most: usize, rng: &mut Rng) -> Vec<u8> {
        let n = rng.range(0, most.min(self.len()));
        let start = rng.below(self.len() - n + 1);
        self.bytes(start..start + n)
    }
}

/// Writes of `text`, which begins at `position`, what falls on `out`, which begins at `start`.
fn lay_over(out: &mut [u8], start: usize, position: usize, text: &[u8]) {
    let (from, to) = (position.max(start), (position + text.len()).min(start + out.len()));
    if from < to {
        out[from - start..to - start].copy_from_slice(&text[from - position..to - position]);
    }
}

/// What a haystack's text is made of, and what was written into it.
#[derive(Clone)]
struct Hay {
    base: Base,
    planted: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum Base {
    Whole(Vec<u8>),
    /// Pieces of a text: where each begins, and where in the text.
    Pieces {
        text: Vec<u8>,
        pieces: Vec<(usize, usize)>,
        length: usize,
    },
    Prose(Generated<Prose>),
    Formats(Generated<Formats>),
}

impl Hay {
    fn write(&self, at: usize, into: &mut [u8]) {
        match &self.base {
            Base::Whole(text) => into.copy_from_slice(&text[at..at + into.len()]),
            Base::Pieces { text, pieces, length } => {
                let mut done = 0;
                let first = pieces.partition_point(|p| p.0 <= at) - 1;
                for (i, (begin, from)) in pieces.iter().enumerate().skip(first) {
                    let end = pieces.get(i + 1).map_or(*length, |next| next.0);
                    let n = (end - at - done).min(into.len() - done);
                    let from = from + at + done - begin;
                    into[done..done + n].copy_from_slice(&text[from..from + n]);
                    done += n;
                    if done == into.len() {
                        break;
                    }
                }
            }
            Base::Prose(text) => text.write(at, into),
            Base::Formats(text) => text.write(at, into),
        }
        for (position, text) in &self.planted {
            lay_over(into, at, *position, text);
        }
    }
}

impl Source for Hay {
    fn size(&self) -> usize {
        match &self.base {
            Base::Whole(text) => text.len(),
            Base::Pieces { length, .. } => *length,
            Base::Prose(text) => text.length,
            Base::Formats(text) => text.length,
        }
    }

    fn fill(&self, at: usize, into: &mut [u8]) -> Result<(), Error> {
        self.write(at, into);
        Ok(())
    }
}

/// An endless text's beginning, of which any part can be written again: the stream as it stood every [`STRIDE`] bytes.
#[derive(Clone)]
struct Generated<S> {
    marks: Vec<S>,
    length: usize,
}

/// Bytes between two marks: a mark takes some 2 KiB, and a byte as long as the text before it since the last mark.
const STRIDE: usize = 16 << 10;

impl<S: TextStream + Clone> Generated<S> {
    fn new(mut stream: S, length: usize) -> Generated<S> {
        let mut marks = Vec::with_capacity(length.div_ceil(STRIDE));
        let mut rest = vec![0; STRIDE];
        for _ in 0..length.div_ceil(STRIDE) {
            let mut mark = stream.clone();
            mark.forget();
            marks.push(mark);
            stream.fill(&mut rest);
        }
        Generated { marks, length }
    }

    fn write(&self, at: usize, into: &mut [u8]) {
        let Some(mark) = self.marks.get(at / STRIDE) else { return };
        let mut stream = mark.clone();
        stream.fill(&mut vec![0; at % STRIDE]);
        stream.fill(into);
    }
}

/// See [`Haystack::said`].
fn said(hay: &Hay) -> HashMap<Vec<u8>, usize> {
    /// Statements and names are shorter.
    const LONGEST: usize = 64;
    const PIECE: usize = 1 << 20;
    let mut said = HashMap::new();
    let mut text = vec![0; (PIECE + 2 * LONGEST).min(hay.size())];
    for start in (0..hay.size()).step_by(PIECE) {
        // With what stands around the piece.
        let first = start.saturating_sub(LONGEST);
        let end = (start + PIECE + LONGEST).min(hay.size());
        let text = &mut text[..end - first];
        hay.write(first, text);
        let own = start - first..(start + PIECE).min(end) - first;
        let mut note = |key: &[u8], at: usize| {
            said.entry(key.to_vec()).or_insert(first + at);
        };
        for at in own {
            let rest = &text[at..(at + LONGEST).min(text.len())];
            if rest.starts_with(b"|The ") {
                if let Some(colon) = rest.iter().position(|&b| b == b':') {
                    note(&rest[..=colon], at);
                }
            } else if rest.starts_with(b" of ") && rest.get(4).is_some_and(u8::is_ascii_uppercase) {
                let before = text[..at].iter().rev().take_while(|b| b.is_ascii_lowercase()).count();
                let name = rest[4..].iter().take_while(|b| b.is_ascii_alphabetic()).count();
                if NOUNS.iter().any(|noun| noun.as_bytes() == &text[at - before..at]) {
                    note(&text[at - before..at + 4 + name], at - before);
                }
            } else if states_plain(rest) {
                note(PLAIN.as_bytes(), at);
            }
        }
    }
    said
}
