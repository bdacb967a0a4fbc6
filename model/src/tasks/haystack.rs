//! Examinations: texts, and the needles hidden in them.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{EXAMINATION, Fact, FactKind, PIECES, TaskMix, setting};
use crate::{
    data::{DataError, Formats, Prose, TextStream},
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
/// text serves many trials, each with one needle. [`Haystack::plant`] writes several needles for good.
#[derive(Clone, Debug)]
pub struct Haystack {
    text: Vec<u8>,
    /// Where `|The ` stands, the beginning of every statement.
    statements: Vec<usize>,
}

impl Haystack {
    /// A text as it is. Refuses an empty text.
    pub fn new(text: Vec<u8>) -> Result<Self, DataError> {
        if text.is_empty() {
            return Err(DataError::Empty { name: "to search".to_owned() });
        }
        let statements = text
            .iter()
            .enumerate()
            .filter(|&(at, &byte)| byte == b'|' && text[at..].starts_with(b"|The "))
            .map(|(at, _)| at)
            .collect();
        Ok(Self { text, statements })
    }

    /// Generated text that training never draws.
    pub fn prose(seed: u64, length: usize) -> Result<Self, DataError> {
        Self::new(Prose::held(seed).text(length))
    }

    /// Generated code, logs, tables and other languages that training never draws.
    pub fn formats(seed: u64, length: usize) -> Result<Self, DataError> {
        Self::new(Formats::held(seed).text(length))
    }

    /// `length` bytes of a text: its beginning, or, if it is shorter, all of it and then pieces of up to 64 KiB from
    /// anywhere in it.
    pub fn from_text(text: &[u8], length: usize, seed: u64) -> Result<Self, DataError> {
        if text.is_empty() {
            return Err(DataError::Empty { name: "to search".to_owned() });
        }
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(&text[..text.len().min(length)]);
        let mut rng = Rng::from_parts(&[PIECES, seed]);
        while out.len() < length {
            let n = text.len().min(1 << 16).min(length - out.len());
            let start = rng.below(text.len() - n + 1);
            out.extend_from_slice(&text[start..start + n]);
        }
        Self::new(out)
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Its length in tokens.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Never: an empty text is refused.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Where the text already states the fact's stem (such as `|The passkey is:`).
    pub(super) fn stated(&self, stem: &str) -> Option<usize> {
        self.statements.iter().copied().find(|&at| self.text[at..].starts_with(stem.as_bytes()))
    }

    pub(super) fn room(&self, n: usize) -> Result<usize, DataError> {
        if self.text.len() < n {
            return Err(DataError::TooShort {
                what: "the text to hide a fact in",
                have: self.text.len(),
                need: n,
            });
        }
        Ok(self.text.len() - n + 1)
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
                return Err(DataError::Occupied { found: fact.stem(), offset });
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
                let parts = [EXAMINATION, seed, self.text.len() as u64, kind as u64, trial as u64];
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
        let rng = &mut Rng::from_parts(&[EXAMINATION, seed, self.text.len() as u64, u64::MAX]);
        let stretch = self.text.len() / kinds.len();
        let mut needles: Vec<Needle> = Vec::with_capacity(kinds.len());
        for (i, &kind) in kinds.iter().enumerate() {
            let fact = self.draw(kind, &needles, rng)?;
            let n = fact.text.len();
            if stretch < n {
                let need = kinds.len() * n;
                return Err(DataError::TooShort {
                    what: "the text to hide facts in",
                    have: self.text.len(),
                    need,
                });
            }
            let position = i * stretch + rng.below(stretch - n + 1);
            needles.push(Needle { fact, position });
        }
        for needle in &needles {
            self.text[needle.span()].copy_from_slice(needle.fact.text.as_bytes());
        }
        *self = Self::new(std::mem::take(&mut self.text))?;
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
        let mut out = self.text[range.clone()].to_vec();
        for (position, text) in statements {
            let (from, to) = (position.max(range.start), (position + text.len()).min(range.end));
            if from < to {
                out[from - range.start..to - range.start]
                    .copy_from_slice(&text.as_bytes()[from - position..to - position]);
            }
        }
        out
    }

    /// Up to `most` bytes from anywhere in the text, to stand between a restart and a question.
    pub fn lead(&self, most: usize, rng: &mut Rng) -> &[u8] {
        let n = rng.range(0, most.min(self.text.len()));
        let start = rng.below(self.text.len() - n + 1);
        &self.text[start..start + n]
    }
}
