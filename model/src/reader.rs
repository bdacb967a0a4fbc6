//! Reading a text of any length into memory, and asking about it.
//!
//! States restart every `segment_size` tokens when a text is read, so memory is local: a segment's keys, values and
//! landmarks depend on that segment alone. Segments are read in parallel batches; a change in the text touches one
//! segment; the memory of a text's beginning is the beginning of its memory; and only the last, incomplete segment,
//! joined by the question, goes through the upper half. The result is that of one forward pass with the same restarts.

mod asking;
mod bringing;
#[cfg(not(target_arch = "wasm32"))]
pub mod file;
mod marks;
mod paged;
mod reading;
mod shared;
#[cfg(not(target_arch = "wasm32"))]
mod states;
mod text;
mod values;

use std::{ops::Range, time::Duration};

use rambutan_engine::{Gpu, Tensor, no_grad};

use crate::{Error, Ramba, chunking::Memory, ranks::Ranks};

pub use asking::Asking;
use asking::Feed;
pub use marks::Landmarks;
use marks::Marks;
use paged::Paged;
pub use reading::{Progress, Reading};
use shared::Share;
#[cfg(not(target_arch = "wasm32"))]
pub use states::States;
#[cfg(not(target_arch = "wasm32"))]
pub use text::TextFile;
pub use text::{Source, Text};
pub use values::{Keeping, Placement};
use values::{Old, Values};

/// Numbers in the stream of one batch of segments, at most: enough to fill a GPU.
const BATCH: usize = 1 << 24;
/// The same for a CPU adapter, which is full at once and whose caches are small.
const BATCH_CPU: usize = 1 << 21;
/// Bytes of the chunks that one piece of a question brings together, at most.
const PIECE_BYTES: usize = 128 << 20;

/// A segment that no text fills.
const UNCUT: usize = 1 << 30;

/// A text in memory.
pub struct Reader<'m> {
    model: &'m Ramba,
    segment: usize,
    batch: usize,
    landmarks: Marks,
    values: Values,
    /// The text's last tokens, fewer than a segment.
    rest: Vec<u8>,
    /// Where ranks share the text, this one's part: then landmarks and values are of that alone.
    share: Option<Share<'m>>,
}

/// What the model said, and where it looked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The tokens generated, the stop included where it came.
    pub text: Vec<u8>,
    /// The chunks looked into at the first token, newest first, with their weights (mean over heads); numbers count
    /// chunks of the text from its start.
    pub selected: Vec<(usize, f32)>,
}

/// What was replaced, to be put back.
pub struct Saved {
    /// Where the segments begin, their landmarks and their values.
    old: Option<(usize, Vec<Tensor>, Old)>,
    rest: Vec<u8>,
}

impl<'m> Reader<'m> {
    /// An empty memory on the device.
    ///
    /// # Errors
    /// The configuration has no segments to read by, or its tokens are no bytes.
    pub fn new(model: &'m Ramba) -> Result<Reader<'m>, Error> {
        Reader::placed(model, Placement::Device)
    }

    /// An empty memory that is kept otherwise, a [`Placement`] of keys and values or a whole [`Keeping`]:
    /// [`Keeping::fitting`] tells what fits.
    ///
    /// # Errors
    /// As [`Reader::new`], or the configuration's sizes cannot be kept there.
    pub fn placed(model: &'m Ramba, keeping: impl Into<Keeping>) -> Result<Reader<'m>, Error> {
        let keeping = keeping.into();
        let config = &model.config;
        // Without memory nothing is kept but the text: all of it goes through with each question.
        let segment = if config.enable_hsa {
            config.segment_size.filter(|_| config.segment_at_inference).ok_or(Error::NotSegmented)?
        } else {
            UNCUT
        };
        if config.vocab_size != 256 {
            return Err(Error::Setting {
                field: "vocab_size".into(),
                value: config.vocab_size.to_string(),
                expected: "256, one for each byte: texts are read byte by byte".into(),
            });
        }
        let numbers = if model.gpu().capabilities().cpu { BATCH_CPU } else { BATCH };
        let landmarks = Marks::new(model, keeping.landmarks);
        let values = Values::new(model, segment, keeping.values)?;
        let rest = Vec::new();
        let reader = Reader { model, segment, batch: segment, landmarks, values, rest, share: None };
        Ok(reader.with_batch(numbers / config.hidden_size))
    }

    /// The same as one of `ranks`, which share the memory: each keeps its part of the segments, and all give the same answers,
    /// bit for bit those of one rank alone where their devices compute alike. All that reads, replaces, and asks is collective,
    /// with the same texts and questions on all ranks. There are no scores of all chunks, and what is done in slices may wait
    /// for other ranks.
    ///
    /// # Errors
    /// As [`Reader::placed`], or a window hides chunks (`mask_slide_window`).
    pub fn over(
        model: &'m Ramba,
        keeping: impl Into<Keeping>,
        ranks: &'m dyn Ranks,
    ) -> Result<Reader<'m>, Error> {
        let mut reader = Reader::placed(model, keeping)?;
        if ranks.size() > 1 {
            if model.config.mask_slide_window {
                return Err(Error::Setting {
                    field: "mask_slide_window".into(),
                    value: true.to_string(),
                    expected: "false, where ranks share a text".into(),
                });
            }
            let (segment, chunk) = (reader.segment, model.config.chunk_size);
            reader.share = Some(Share { ranks, base: 0, segment, chunks: segment / chunk });
        }
        Ok(reader)
    }

    /// The same, reading about so many tokens at once, whole segments: fewer need less memory beside the text's.
    #[must_use]
    pub fn with_batch(self, tokens: usize) -> Self {
        Reader { batch: (tokens / self.segment).max(1) * self.segment, ..self }
    }

    /// Tokens read.
    pub fn len(&self) -> usize {
        self.base() + self.rest.len()
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens a segment.
    pub fn segment(&self) -> usize {
        self.segment
    }

    /// Tokens in whole segments.
    fn base(&self) -> usize {
        self.share.map_or_else(|| self.landmarks.tokens(), |share| share.base)
    }

    fn gpu(&self) -> &Gpu {
        self.model.gpu()
    }

    /// Where keys and values are kept.
    pub fn placement(&self) -> Placement {
        self.values.placement()
    }

    /// How keys, values and landmarks are kept.
    pub fn keeping(&self) -> Keeping {
        Keeping { values: self.placement(), landmarks: self.landmarks.kind() }
    }

    /// Bytes that the memory of `tokens` tokens, whole segments, takes on the device and on the host.
    pub fn bytes_of(&self, tokens: usize) -> [usize; 2] {
        let [device, host] = self.values.bytes(tokens);
        [self.landmarks.bytes(tokens) + device, host]
    }

    /// Bytes of device memory that a token leaves taken, rounded up.
    pub fn bytes_per_token(&self) -> usize {
        let chunk = self.model.config.chunk_size;
        self.bytes_of(chunk)[0].div_ceil(chunk)
    }

    /// Bytes of host memory that a token leaves taken, rounded up.
    pub fn host_bytes_per_token(&self) -> usize {
        let chunk = self.model.config.chunk_size;
        self.bytes_of(chunk)[1].div_ceil(chunk)
    }

    /// Tokens that are read at once, where the device's memory allows.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Reads further text. `progress` hears the tokens read so far in this call.
    ///
    /// # Errors
    /// The device failed or its memory does not suffice; then nothing of `text` counts as read.
    pub fn read<'t>(
        &mut self,
        text: impl Into<Text<'t>>,
        mut progress: impl FnMut(usize),
    ) -> Result<(), Error> {
        self.start(text).finish(self, &mut progress)
    }

    /// Begins to read further text in slices, each as long as a frame allows:
    ///
    /// ```no_run
    /// # use rambutan_model::{Error, reader::Reader};
    /// # fn frame(reader: &mut Reader<'_>, text: Vec<u8>) -> Result<(), Error> {
    /// let mut reading = reader.start(text);
    /// // Once a frame:
    /// let progress = reading.step(reader, std::time::Duration::from_millis(4))?;
    /// println!("{} of {}", progress.done, progress.total);
    /// # Ok(()) }
    /// ```
    pub fn start<'t>(&self, text: impl Into<Text<'t>>) -> Reading<'t> {
        Reading::new(self, text.into())
    }

    /// [`Reader::read`] in slices of about `budget`, between which the executor runs: for where blocking is impossible.
    /// `progress` hears how far it is.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn read_in_slices<'t>(
        &mut self,
        text: impl Into<Text<'t>>,
        budget: Duration,
        mut progress: impl FnMut(Progress),
    ) -> Result<(), Error> {
        let mut reading = self.start(text);
        loop {
            let far = reading.step(self, budget)?;
            progress(far);
            if far.is_done() {
                return Ok(());
            }
            self.gpu().turn().await;
        }
    }

    /// The memory of whole segments.
    fn remember(&self, text: &[u8]) -> Result<Memory, Error> {
        let segments = text.len() / self.segment;
        let ids: Vec<u32> = text.iter().map(|&b| b.into()).collect();
        no_grad(|| {
            let ids = Tensor::from_slice(self.gpu(), &ids, [segments, self.segment])?;
            Ok(self.model.remember_segments(&ids))
        })
    }

    /// A reader of the first `tokens` tokens alone, whole segments, sharing this one's memory: what is replaced in
    /// one is replaced in both.
    ///
    /// # Panics
    /// Where `tokens` cuts a segment or exceeds the text.
    #[track_caller]
    pub fn prefix(&self, tokens: usize) -> Reader<'m> {
        assert!(
            tokens.is_multiple_of(self.segment),
            "a prefix of {tokens} cuts a segment of {}",
            self.segment
        );
        assert!(tokens <= self.base(), "a prefix of {tokens} of {} tokens", self.base());
        let here = self.share.map_or(tokens, |share| share.kept(tokens));
        let (landmarks, values) = (self.landmarks.prefix(here), self.values.prefix(here));
        let share = self.share.map(|share| Share { base: tokens, ..share });
        Reader { landmarks, values, rest: Vec::new(), share, ..*self }
    }

    /// The stretch of whole segments, or up to the text's end, that holds tokens `range`: what [`Reader::replace`]
    /// needs to change them.
    pub fn stretch(&self, range: Range<usize>) -> Range<usize> {
        let start = range.start / self.segment * self.segment;
        start..range.end.next_multiple_of(self.segment).min(self.len())
    }

    /// Reads the tokens from `start` on again, as `text` has them; it covers whole segments, or ends with the text.
    ///
    /// # Errors
    /// The device failed; then the text stays as it was read.
    ///
    /// # Panics
    /// Where `text` begins or ends within a segment.
    #[track_caller]
    pub fn replace(&mut self, start: usize, text: &[u8]) -> Result<Saved, Error> {
        let (end, base) = (start + text.len(), self.base());
        assert!(start.is_multiple_of(self.segment), "replace: token {start} begins no segment");
        assert!(
            end == self.len() || (end.is_multiple_of(self.segment) && end < self.len()),
            "replace: token {end} ends no segment"
        );
        let mut saved = Saved { old: None, rest: self.rest.clone() };
        let whole = end.min(base).saturating_sub(start);
        let (at, new) = match &self.share {
            Some(share) => share.part(start, &text[..whole]),
            None => (start, text[..whole].to_vec()),
        };
        if !new.is_empty() {
            let memory = self.remember(&new)?;
            let old = self.values.replace(at, &memory, &new)?;
            let landmarks = self.landmarks.copy(at..at + new.len());
            self.landmarks.write(at, &self.landmarks.kept(&memory.landmarks));
            saved.old = Some((at, landmarks, old));
            if let Err(e) = self.gpu().check() {
                self.restore(saved);
                return Err(e.into());
            }
        }
        if end > base {
            let from = start.max(base);
            self.rest = self.rest[..from - base].to_vec();
            self.rest.extend_from_slice(&text[from - start..]);
        }
        Ok(saved)
    }

    /// Puts back what [`Reader::replace`] replaced.
    pub fn restore(&mut self, saved: Saved) {
        if let Some((start, landmarks, old)) = saved.old {
            self.landmarks.write(start, &landmarks);
            self.values.restore(start, old);
        }
        self.rest = saved.rest;
    }

    /// Generates greedily after the text and `question`, until `stop` or `most` tokens.
    ///
    /// # Errors
    /// The device failed, or text and question are both empty.
    pub async fn ask(&self, question: &[u8], stop: &[u8], most: usize) -> Result<Answer, Error> {
        self.asking(question, stop, most)?.run(self).await
    }

    /// [`Reader::ask`] for several questions at a time, each by itself: they share each pass over the landmarks, of which
    /// there are many where a text is long.
    ///
    /// # Errors
    /// As [`Reader::ask`].
    pub async fn ask_all(&self, questions: &[&[u8]], stop: &[u8], most: usize) -> Result<Vec<Answer>, Error> {
        if self.share.is_some() {
            let mut answers = Vec::new();
            for question in questions {
                answers.push(self.ask(question, stop, most).await?);
            }
            return Ok(answers);
        }
        let all: Result<Vec<Asking>, Error> =
            questions.iter().map(|question| self.asking(question, stop, most)).collect();
        let mut all = all?;
        Asking::run_together(&mut all, self).await?;
        Ok(all.into_iter().map(|asking| asking.answer().clone()).collect())
    }

    /// [`Reader::ask`] in slices: [`Asking::step`] once a frame.
    ///
    /// # Errors
    /// Text and question are both empty.
    pub fn asking(&self, question: &[u8], stop: &[u8], most: usize) -> Result<Asking, Error> {
        Asking::new(self, question, stop, most)
    }

    /// [`Reader::ask`] in slices of about `budget`, between which the executor runs. `progress` hears after each how far it
    /// is.
    ///
    /// # Errors
    /// As [`Reader::ask`].
    pub async fn ask_in_slices(
        &self,
        mut asking: Asking,
        budget: Duration,
        mut progress: impl FnMut(&Asking),
    ) -> Result<Answer, Error> {
        while !asking.step(self, budget)? {
            progress(&asking);
            asking.turn(self).await?;
        }
        progress(&asking);
        Ok(asking.answer().clone())
    }

    /// The score of every chunk for what follows `question`, as [`Asking::scores`] has it; None where there are no
    /// chunks. To be drawn straight from its buffer, or read as numbers.
    ///
    /// # Errors
    /// As [`Reader::ask`].
    pub async fn scores(&self, question: &[u8]) -> Result<Option<Tensor>, Error> {
        let tail = [&self.rest, question].concat();
        let last = tail.len().checked_sub(1).ok_or(Error::Empty)?;
        let mut cache = self.model.cache_at(self.base());
        let mut feed = Feed::new(tail, last, true);
        feed.run(self, &mut cache).await?;
        Ok(feed.scores)
    }

    /// What [`Reader::ask`] answers, up to the first token that differs from `expected`, in one pass: as long as
    /// every most probable token is the expected one, greedy decoding is fed exactly `expected`.
    ///
    /// # Errors
    /// As [`Reader::ask`].
    pub async fn examine(&self, question: &[u8], expected: &[u8]) -> Result<Answer, Error> {
        let fed = &expected[..expected.len().saturating_sub(1)];
        let tail = [&self.rest, question, fed].concat();
        let last = (self.rest.len() + question.len()).checked_sub(1).ok_or(Error::Empty)?;
        let mut cache = self.model.cache_at(self.base());
        let mut feed = Feed::new(tail, last, false);
        feed.run(self, &mut cache).await?;
        let Feed { logits, selected, .. } = feed;
        Ok(Answer { text: agreed(&logits, self.model.config.vocab_size, expected), selected })
    }

    /// The logits after each byte of `question`, (bytes, vocabulary).
    ///
    /// # Errors
    /// As [`Reader::ask`].
    pub async fn logits(&self, question: &[u8]) -> Result<Vec<f32>, Error> {
        let tail = [&self.rest, question].concat();
        let mut cache = self.model.cache_at(self.base());
        if question.is_empty() {
            return Err(Error::Empty);
        }
        let mut feed = Feed::new(tail, self.rest.len(), false);
        feed.run(self, &mut cache).await?;
        Ok(feed.logits)
    }

    /// Chunks visible from `position`.
    pub fn visible(&self, position: usize) -> usize {
        let config = &self.model.config;
        if !config.mask_slide_window {
            return position / config.chunk_size;
        }
        position.checked_sub(config.slide_window).map_or(0, |p| p / config.chunk_size + 1)
    }
}

/// The most probable bytes by their logits, a row each, up to the first that differs from `expected`.
fn agreed(logits: &[f32], vocabulary: usize, expected: &[u8]) -> Vec<u8> {
    let mut text: Vec<u8> = logits.chunks(vocabulary).map(most_probable).collect();
    let right = text.iter().zip(expected).take_while(|(a, b)| a == b).count();
    text.truncate(right + 1);
    text.truncate(expected.len());
    text
}

/// The smallest of the most probable bytes.
fn most_probable(logits: &[f32]) -> u8 {
    let better = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (1..logits.len()).fold(0, better) as u8
}

/// (heads, K) weights and chunks, of which the first `held` of each head are no padding → each chunk once, newest
/// first.
fn mean_over_heads(weights: &[f32], chunks: &[u32], heads: usize, held: usize) -> Vec<(usize, f32)> {
    let k = weights.len() / heads;
    let mut sums = std::collections::BTreeMap::new();
    for (weights, chunks) in weights.chunks(k).zip(chunks.chunks(k)) {
        for (&weight, &chunk) in weights.iter().zip(chunks).take(held) {
            *sums.entry(chunk as usize).or_insert(0.0) += weight / heads as f32;
        }
    }
    sums.into_iter().rev().collect()
}
