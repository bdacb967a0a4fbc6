//! A text being read: all at once, or in slices that fit a frame.

use std::{ops::Range, sync::Arc, time::Duration};

use rambutan_engine::{
    Gpu,
    gpu::{Instant, Ticket},
};

use super::{Paged, Reader, Text, Values, cut::Cut, marks::Marks, shared::Dealt};
use crate::Error;

/// How far a text is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tokens read.
    pub done: usize,
    /// Tokens of the text.
    pub total: usize,
}

impl Progress {
    /// Whether all of it is read.
    pub fn is_done(self) -> bool {
        self.done == self.total
    }
}

/// A text on its way into a reader's memory, which stays as it was until all of it is read; dropping this cancels.
pub struct Reading<'t> {
    text: Text<'t>,
    /// Where ranks share the text, of which this is then one's part.
    dealt: Option<Arc<Dealt>>,
    /// The reader's tokens when this began, those of them in no whole segment, and what stands in front of these, if it is known.
    held: usize,
    rest: Vec<u8>,
    before: Option<Vec<u8>>,
    /// Where the segments to come lie in a stream of what is before, the rest and the text, or in what was dealt.
    cut: Cut,
    /// Tokens of whole segments to come, of the rest and the text; recorded; known to be done.
    tokens: usize,
    recorded: usize,
    done: usize,
    /// Tokens to record next.
    batch: usize,
    /// Calls of [`Reading::step`] that the batch under way took so far.
    steps: usize,
    /// What the text adds; there is room on the device once the first batch was recorded.
    landmarks: Marks,
    values: Values,
    grown: bool,
    /// Bytes that a batch needs beside the text's memory.
    working: u64,
    /// One batch is recorded while the device works on the one before.
    under_way: Option<(Ticket, usize)>,
    over: bool,
}

impl<'t> Reading<'t> {
    pub(super) fn new(reader: &Reader<'_>, text: Text<'t>) -> Reading<'t> {
        let (rest, before) = (reader.rest.clone(), reader.before.clone());
        let stands = before.clone().unwrap_or_default();
        let (text, tokens, cut, dealt) = match &reader.share {
            None => {
                let tokens = (rest.len() + text.len()) / reader.segment * reader.segment;
                (text, tokens, reader.cut(stands.len()), None)
            }
            Some(share) => {
                let dealt = Arc::new(share.deal(stands, &rest, &text));
                (Text::Shared(dealt.clone()), dealt.tokens, dealt.cut, Some(dealt))
            }
        };
        Reading {
            held: reader.len(),
            tokens,
            recorded: 0,
            done: 0,
            batch: reader.segment,
            steps: 0,
            landmarks: reader.landmarks.like(),
            values: reader.values.like(),
            grown: false,
            working: 0,
            under_way: None,
            over: false,
            rest,
            before,
            cut,
            text,
            dealt,
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        // The other ranks are about as far.
        let (total, kept, times) = match &self.dealt {
            Some(dealt) => (dealt.text.size(), 0, dealt.whole as f64 / self.tokens.max(1) as f64),
            None => (self.text.len(), self.rest.len(), 1.0),
        };
        let done = (self.done as f64 * times) as usize;
        let done = if self.over { total } else { done.saturating_sub(kept).min(total) };
        Progress { done, total }
    }

    /// Reads on for about `budget` of the device's time, a frame's few milliseconds say, and returns how far it is; see
    /// [`Gpu::advance`] for what waits and what does not.
    ///
    /// # Errors
    /// As [`Reader::read`]; then it is over, and the reader's memory is as before.
    ///
    /// # Panics
    /// Where `reader` is not as it was when this began, or it failed before.
    #[track_caller]
    pub fn step(&mut self, reader: &mut Reader<'_>, budget: Duration) -> Result<Progress, Error> {
        self.expect(reader);
        let result = self.known().and_then(|()| self.slices(reader, budget));
        self.concluded(reader, result)
    }

    /// Reads all of it, waiting. `progress` hears the tokens read so far.
    pub(super) fn finish(
        mut self,
        reader: &mut Reader<'_>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), Error> {
        self.batch = reader.batch;
        let result = self.known().and_then(|()| self.batches(reader, progress));
        self.concluded(reader, result)?;
        progress(self.progress().total);
        Ok(())
    }

    #[track_caller]
    fn expect(&self, reader: &Reader<'_>) {
        assert!(!self.over, "step: this reading is over");
        assert!(
            reader.len() == self.held && reader.rest == self.rest && reader.before == self.before,
            "step: the reader holds {} tokens, other ones than the {} when this reading began",
            reader.len(),
            self.held
        );
    }

    /// Whether it is known what stands in front of the text.
    fn known(&self) -> Result<(), Error> {
        if self.before.is_some() || self.text.is_empty() {
            return Ok(());
        }
        Err(Error::Setting {
            field: "reading".into(),
            value: "on behind a part of a text, where segments overlap".into(),
            expected: "a reader that has read all that comes before: what came last in a part is not kept"
                .into(),
        })
    }

    fn concluded<T>(&mut self, reader: &Reader<'_>, result: Result<T, Error>) -> Result<T, Error> {
        result.inspect_err(|_| {
            self.over = true;
            (self.landmarks, self.values) = (reader.landmarks.like(), reader.values.like());
            // Work that was under way when the first error came may add to it; all of it is void.
            reader.gpu().trim();
            let _ = reader.gpu().check();
        })
    }

    fn slices(&mut self, reader: &mut Reader<'_>, budget: Duration) -> Result<Progress, Error> {
        let gpu = reader.gpu().clone();
        let begin = Instant::now();
        let left = || budget.saturating_sub(begin.elapsed());
        let mut recorded = false;
        self.steps += 1;
        while gpu.advance(left()).map_err(|e| self.too_long(reader, e, self.tokens))? {
            // What leaves the device may take a moment more.
            if !self.values.settle(false)? {
                break;
            }
            // A batch that one frame sees through could be longer; one that takes many holds more memory than it need.
            if self.recorded > self.done {
                let batch = match self.steps {
                    ..=2 => (2 * self.batch).min(reader.batch),
                    3..=8 => self.batch,
                    _ => self.batch / 2,
                };
                self.batch = (batch / reader.segment).max(1) * reader.segment;
            }
            self.done = self.recorded;
            if self.done == self.tokens {
                self.commit(reader)?;
                break;
            }
            if recorded && left().is_zero() {
                break;
            }
            gpu.defer(|| self.record(reader))?;
            (self.steps, recorded) = (1, true);
        }
        Ok(self.progress())
    }

    fn batches(&mut self, reader: &mut Reader<'_>, progress: &mut dyn FnMut(usize)) -> Result<(), Error> {
        let gpu = reader.gpu().clone();
        while self.recorded < self.tokens {
            self.record(reader)?;
            if let Some((ticket, done)) = self.under_way.replace((gpu.ticket(), self.recorded)) {
                self.wait(reader, &gpu, &ticket)?;
                self.values.settle(false)?;
                self.done = done;
                progress(self.progress().done);
            }
        }
        if let Some((ticket, _)) = self.under_way.take() {
            self.wait(reader, &gpu, &ticket)?;
        }
        gpu.check().map_err(|e| self.too_long(reader, e, self.tokens))?;
        if !self.values.settle(cfg!(not(target_arch = "wasm32")))? {
            return Err(Error::Setting {
                field: "reading".into(),
                value: "keys and values on the host, at once".into(),
                expected: "`read_in_slices`, where nothing can wait for the device".into(),
            });
        }
        self.commit(reader)
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn wait(&self, reader: &Reader<'_>, gpu: &Gpu, ticket: &Ticket) -> Result<(), Error> {
        gpu.wait_for(ticket).map_err(|e| self.too_long(reader, e, self.tokens))
    }

    /// In a browser nothing waits; what was submitted is done in order.
    #[cfg(target_arch = "wasm32")]
    fn wait(&self, _: &Reader<'_>, _: &Gpu, _: &Ticket) -> Result<(), Error> {
        Ok(())
    }

    /// All of it is in memory.
    fn commit(&mut self, reader: &mut Reader<'_>) -> Result<(), Error> {
        let (lead, kept, total) = (self.cut.lead, self.rest.len(), self.text.len());
        let values = std::mem::replace(&mut self.values, reader.values.like());
        if let (Some(dealt), Some(share)) = (&self.dealt, &mut reader.share) {
            let (before, rest) = dealt.behind()?;
            if self.tokens > 0 {
                reader.values.append(values, [self.tokens, 0], self.cut, Vec::new(), &self.text);
                reader.landmarks.append(std::mem::replace(&mut self.landmarks, reader.landmarks.like()));
            }
            if dealt.whole > 0 {
                reader.before = Some(before);
            }
            reader.rest = rest;
            share.base += dealt.whole;
        } else if self.tokens == 0 {
            reader.rest.extend_from_slice(&self.text.bytes(0..total)?);
        } else {
            let end = lead + self.tokens;
            let before = self.bytes(end - reader.overlap..end)?;
            let rest = self.text.bytes(self.tokens - kept..total)?.into_owned();
            // What was left before is part of the first segment.
            let head = self.bytes(0..if kept > 0 { lead + reader.segment } else { lead })?;
            let at = head.len() - (lead + kept).min(head.len());
            reader.values.append(values, [self.tokens, at], self.cut, head, &self.text);
            reader.landmarks.append(std::mem::replace(&mut self.landmarks, reader.landmarks.like()));
            (reader.before, reader.rest) = (Some(before), rest);
        }
        self.over = true;
        Ok(())
    }

    /// Bytes of the stream's stretch `range`, which may begin in what was there before.
    fn bytes(&self, range: Range<usize>) -> Result<Vec<u8>, Error> {
        let head = match &self.dealt {
            Some(_) => Vec::new(),
            None => [self.before.as_deref().unwrap_or_default(), &self.rest].concat(),
        };
        let kept = head.len();
        let mut bytes = head[range.start.min(kept)..range.end.min(kept)].to_vec();
        let text = self.text.bytes(range.start.max(kept) - kept..range.end.max(kept) - kept)?;
        bytes.extend_from_slice(&text);
        Ok(bytes)
    }

    /// Records one batch of whole segments, a smaller one where the device's memory does not suffice.
    fn record(&mut self, reader: &Reader<'_>) -> Result<(), Error> {
        let gpu = reader.gpu();
        let (memory, n) = loop {
            let n = self.batch.min(self.tokens - self.recorded);
            let numbers = self.recorded / reader.segment..(self.recorded + n) / reader.segment;
            let stretch = self.bytes(self.cut.stretch(&numbers))?;
            let memory = reader.remember(&self.cut.rows(&stretch, numbers))?;
            match gpu.check() {
                Err(rambutan_engine::Error::OutOfMemory { .. }) if n > reader.segment => {
                    drop(memory);
                    gpu.trim();
                    self.batch = n / 2 / reader.segment * reader.segment;
                }
                result => {
                    result.map_err(|e| match self.grown {
                        false => e.into(),
                        true => self.too_long(reader, e, self.tokens),
                    })?;
                    break (memory, n);
                }
            }
        };
        if !self.grown {
            // Only now is it known what a batch needs beside the text's memory.
            let report = gpu.memory();
            self.working = report.reserved.saturating_sub(report.in_use);
            let mut sets = self.landmarks.paged();
            sets.extend(self.values.paged());
            let grown = Paged::grow(&mut sets, self.tokens, reader.segment, self.batch);
            grown.map_err(|(e, fit)| self.too_long(reader, e, fit))?;
            self.grown = true;
        }
        self.landmarks.write(self.recorded, &self.landmarks.kept(&memory.landmarks));
        self.values.write(self.recorded, &memory)?;
        self.recorded += n;
        Ok(())
    }

    /// Says how much would have fitted, where it was memory that failed with pages for `allocated` tokens.
    fn too_long(&self, reader: &Reader<'_>, error: rambutan_engine::Error, allocated: usize) -> Error {
        let (bytes_per_token, [a_segment, _]) = (reader.bytes_per_token(), reader.bytes_of(reader.segment));
        let segments =
            (allocated / reader.segment).saturating_sub((self.working as usize).div_ceil(a_segment.max(1)));
        let fit = segments * reader.segment;
        match error {
            source @ rambutan_engine::Error::OutOfMemory { .. } => {
                Error::TextTooLong { tokens: self.tokens, fit, bytes_per_token, source }
            }
            other => other.into(),
        }
    }
}
