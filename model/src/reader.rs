//! Reading a text of any length into memory, and asking about it.
//!
//! States restart every `segment_size` tokens when a text is read, so memory is local: a segment's keys, values and
//! landmarks depend on that segment alone, and on the `segment_overlap` tokens in front of it. Segments are read in parallel
//! batches; a change in the text touches one segment, or two; the memory of a text's beginning is the beginning of its memory;
//! and only the last, incomplete segment, joined by the question, goes through the upper half. Without overlap the result is
//! that of one forward pass with the same restarts.
//!
//! With it the states at a segment's first token know what came just before: where a border cuts a fact, what lies behind it is
//! no longer nobody's. Each segment is read from `segment_overlap` tokens before it on, and what those leave in memory is left
//! out: the segment before has it. The text's first segment has nothing in front of it, and the text's last tokens, in no whole
//! segment, begin in the same way behind the last border.

mod asking;
mod bringing;
mod cut;
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

use crate::{
    Error, Ramba,
    chunking::Memory,
    ramba::{Cache, join},
    ranks::Ranks,
};

pub use asking::Asking;
use asking::Feed;
use cut::Cut;
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
    /// Tokens in front of a segment that it is read with.
    overlap: usize,
    batch: usize,
    landmarks: Marks,
    values: Values,
    /// The last `overlap` tokens of whole segments, none where there are none; None where they are not known.
    before: Option<Vec<u8>>,
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
    before: Option<Vec<u8>>,
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
        let (segment, overlap) = if config.enable_hsa {
            let segment = config.segment_size.filter(|_| config.segment_at_inference);
            (segment.ok_or(Error::NotSegmented)?, config.segment_overlap)
        } else {
            (UNCUT, 0)
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
        let values = Values::new(model, Cut::along(segment, overlap, 0), keeping.values)?;
        let reader = Reader {
            model,
            segment,
            overlap,
            batch: segment,
            landmarks,
            values,
            before: Some(Vec::new()),
            rest: Vec::new(),
            share: None,
        };
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
            let (segment, overlap) = (reader.segment, reader.overlap);
            let chunks = segment / model.config.chunk_size;
            reader.share = Some(Share { ranks, base: 0, segment, overlap, chunks });
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

    /// (rows, tokens) of bytes as ids.
    fn ids(&self, bytes: &[u8], rows: usize) -> Result<Tensor, Error> {
        let ids: Vec<u32> = bytes.iter().map(|&b| b.into()).collect();
        Ok(Tensor::from_slice(self.gpu(), &ids, [rows, ids.len() / rows])?)
    }

    /// Where whole segments lie in a stream of their text that begins `lead` tokens before the first of them.
    fn cut(&self, lead: usize) -> Cut {
        Cut::along(self.segment, self.overlap, lead)
    }

    /// Tokens in the whole segments of `rows`, each with what is in front of it.
    fn tokens_in(&self, rows: &[u8]) -> usize {
        rows.len().div_ceil(self.overlap + self.segment) * self.segment
    }

    /// The memory of whole segments, each of which comes with what is in front of it: [`Cut::rows`].
    fn remember(&self, rows: &[u8]) -> Result<Memory, Error> {
        let whole = self.overlap + self.segment;
        let read = |rows: &[u8], width: usize| -> Result<Memory, Error> {
            let ids = self.ids(rows, rows.len() / width)?;
            Ok(no_grad(|| self.model.remember_segments(&ids, width - self.segment)))
        };
        // The text's first segment has nothing in front of it, and so is shorter than all others: it is read by itself.
        let (first, others) = rows.split_at(rows.len() % whole);
        if first.is_empty() {
            return read(others, whole);
        }
        let first = read(first, self.segment)?;
        if others.is_empty() {
            return Ok(first);
        }
        let others = read(others, whole)?;
        let both = |a: &Tensor, b: &Tensor| {
            let mut shape = b.shape().to_vec();
            shape[0] += 1;
            let rows = |x: &Tensor| x.reshape([1, x.len()]);
            no_grad(|| join(&[&rows(a), &rows(b)])).reshape(shape)
        };
        Ok(Memory {
            k: both(&first.k, &others.k),
            v: both(&first.v, &others.v),
            landmarks: both(&first.landmarks, &others.landmarks),
        })
    }

    /// What follows the whole segments, `tail`, about to be fed: the logits from its token `first` on are wanted.
    fn feed(&self, tail: Vec<u8>, first: usize) -> (Cache, Feed) {
        // The text goes on behind the last border, a question by itself does not.
        let lead = if self.rest.is_empty() { None } else { self.before.clone() };
        (self.model.cache_at(self.base()), Feed::new(lead.unwrap_or_default(), tail, first))
    }

    /// A reader of the first `tokens` tokens alone, whole segments, sharing this one's memory: what is replaced in
    /// one is replaced in both. It reads no further text where segments overlap: what came last in it is not kept.
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
        let before = match tokens {
            _ if self.overlap == 0 || tokens == 0 => Some(Vec::new()),
            _ if tokens == self.base() => self.before.clone(),
            _ => None,
        };
        Reader { landmarks, values, before, rest: Vec::new(), share, ..*self }
    }

    /// The stretch of text that [`Reader::replace`] needs to change tokens `range`: the segments that hold them, those that are
    /// read with any of them in front, or what is left up to the text's end, and what stands in front of all these.
    pub fn stretch(&self, range: Range<usize>) -> Range<usize> {
        let first = range.start / self.segment * self.segment;
        let mut end = range.end.next_multiple_of(self.segment);
        if end - range.end < self.overlap {
            end += self.segment;
        }
        first.saturating_sub(self.overlap)..end.min(self.len())
    }

    /// Reads the tokens from `start` on again, as `text` has them: a stretch as [`Reader::stretch`] gives it, of which the
    /// first segment's overlap, where it has one, is unchanged.
    ///
    /// # Errors
    /// The device failed; then the text stays as it was read.
    ///
    /// # Panics
    /// Where `text` begins other than an overlap before a segment or with the text, or ends within a segment.
    #[track_caller]
    pub fn replace(&mut self, start: usize, text: &[u8]) -> Result<Saved, Error> {
        let (end, base) = (start + text.len(), self.base());
        // The first segment that is read again.
        let lead = if start == 0 { 0 } else { self.overlap };
        let first = start + lead;
        assert!(
            first.is_multiple_of(self.segment) && first <= end,
            "replace: token {start} begins no stretch: expected {} tokens before a segment, or the text's first",
            self.overlap
        );
        assert!(
            end == self.len() || (end.is_multiple_of(self.segment) && end < self.len()),
            "replace: token {end} ends no segment"
        );
        let mut saved = Saved { old: None, before: self.before.clone(), rest: self.rest.clone() };
        let whole = end.min(base).saturating_sub(first);
        let numbers = 0..whole / self.segment;
        let (at, new) = match &self.share {
            _ if numbers.is_empty() => (first, Vec::new()),
            Some(share) => share.part(first, &text[..lead + whole], lead),
            None => (first, self.cut(lead).rows(&text[..lead + whole], numbers)),
        };
        if !new.is_empty() {
            let (memory, tokens) = (self.remember(&new)?, self.tokens_in(&new));
            let old = self.values.replace(at, tokens, &memory, &new)?;
            let landmarks = self.landmarks.copy(at..at + tokens);
            self.landmarks.write(at, &self.landmarks.kept(&memory.landmarks));
            saved.old = Some((at, landmarks, old));
            if let Err(e) = self.gpu().check() {
                self.restore(saved);
                return Err(e.into());
            }
        }
        if end >= base && base > 0 {
            self.before = Some(text[base - self.overlap - start..base - start].to_vec());
        }
        if end > base {
            self.rest = text[base - start..].to_vec();
        }
        Ok(saved)
    }

    /// Puts back what [`Reader::replace`] replaced.
    pub fn restore(&mut self, saved: Saved) {
        if let Some((start, landmarks, old)) = saved.old {
            self.landmarks.write(start, &landmarks);
            self.values.restore(start, old);
        }
        (self.before, self.rest) = (saved.before, saved.rest);
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
        let (mut cache, feed) = self.feed(tail, last);
        let mut feed = feed.scored();
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
        let (mut cache, mut feed) = self.feed(tail, last);
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
        if question.is_empty() {
            return Err(Error::Empty);
        }
        let (mut cache, mut feed) = self.feed(tail, self.rest.len());
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
