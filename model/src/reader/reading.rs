//! A text being read: all at once, or in slices that fit a frame.

use std::{borrow::Cow, ops::Range, time::Duration};

use rambutan_engine::{
    Gpu, Tensor,
    gpu::{Instant, Purpose, Ticket, with_purpose},
};

use super::{Memory, PAGE_BYTES, Reader};
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
    text: Cow<'t, [u8]>,
    /// The reader's tokens when this began, and those of them in no whole segment.
    held: usize,
    rest: Vec<u8>,
    /// Tokens of whole segments to come, of the rest and the text; recorded; known to be done.
    tokens: usize,
    recorded: usize,
    done: usize,
    /// Tokens to record next.
    batch: usize,
    /// Calls of [`Reading::step`] that the batch under way took so far.
    steps: usize,
    pages: Vec<Memory>,
    /// Where the next segment goes: the page, and the tokens that it holds.
    page: usize,
    filled: usize,
    /// Bytes that a batch needs beside the text's memory.
    working: u64,
    /// One batch is recorded while the device works on the one before.
    before: Option<(Ticket, usize)>,
    over: bool,
}

impl<'t> Reading<'t> {
    pub(super) fn new(reader: &Reader<'_>, text: Cow<'t, [u8]>) -> Reading<'t> {
        let rest = reader.rest.clone();
        Reading {
            held: reader.len(),
            tokens: (rest.len() + text.len()) / reader.segment * reader.segment,
            recorded: 0,
            done: 0,
            batch: reader.segment,
            steps: 0,
            pages: Vec::new(),
            page: 0,
            filled: 0,
            working: 0,
            before: None,
            over: false,
            rest,
            text,
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let total = self.text.len();
        let done = if self.over { total } else { self.done.saturating_sub(self.rest.len()).min(total) };
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
        let result = self.slices(reader, budget);
        self.concluded(reader, result)
    }

    /// Reads all of it, waiting. `progress` hears the tokens read so far.
    pub(super) fn finish(
        mut self,
        reader: &mut Reader<'_>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), Error> {
        self.batch = reader.batch;
        let result = self.batches(reader, progress);
        self.concluded(reader, result)?;
        progress(self.text.len());
        Ok(())
    }

    #[track_caller]
    fn expect(&self, reader: &Reader<'_>) {
        assert!(!self.over, "step: this reading is over");
        assert!(
            reader.len() == self.held && reader.rest == self.rest,
            "step: the reader holds {} tokens, other ones than the {} when this reading began",
            reader.len(),
            self.held
        );
    }

    fn concluded<T>(&mut self, reader: &Reader<'_>, result: Result<T, Error>) -> Result<T, Error> {
        result.inspect_err(|_| {
            self.over = true;
            self.pages.clear();
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
                self.commit(reader);
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
            if let Some((ticket, done)) = self.before.replace((gpu.ticket(), self.recorded)) {
                self.wait(reader, &gpu, &ticket)?;
                self.done = done;
                progress(self.progress().done);
            }
        }
        if let Some((ticket, _)) = self.before.take() {
            self.wait(reader, &gpu, &ticket)?;
        }
        gpu.check().map_err(|e| self.too_long(reader, e, self.tokens))?;
        self.commit(reader);
        Ok(())
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
    fn commit(&mut self, reader: &mut Reader<'_>) {
        let kept = self.rest.len();
        if self.tokens == 0 {
            reader.rest.extend_from_slice(&self.text);
        } else {
            reader.pages.append(&mut self.pages);
            reader.rest = self.text[self.tokens - kept..].to_vec();
        }
        self.over = true;
    }

    /// Bytes of the segments' stretch `range`, which may begin in what was left.
    fn bytes(&self, range: Range<usize>) -> Vec<u8> {
        let kept = self.rest.len();
        let cut = range.start.min(kept)..range.end.min(kept);
        [&self.rest[cut], &self.text[range.start.max(kept) - kept..range.end.max(kept) - kept]].concat()
    }

    /// Records one batch of whole segments, a smaller one where the device's memory does not suffice.
    fn record(&mut self, reader: &Reader<'_>) -> Result<(), Error> {
        let gpu = reader.gpu();
        let (memory, n) = loop {
            let n = self.batch.min(self.tokens - self.recorded);
            let memory = reader.remember(&self.bytes(self.recorded..self.recorded + n))?;
            match gpu.check() {
                Err(rambutan_engine::Error::OutOfMemory { .. }) if n > reader.segment => {
                    drop(memory);
                    gpu.trim();
                    self.batch = n / 2 / reader.segment * reader.segment;
                }
                result => {
                    result.map_err(|e| match self.pages.is_empty() {
                        true => e.into(),
                        false => self.too_long(reader, e, self.tokens),
                    })?;
                    break (memory, n);
                }
            }
        };
        if self.pages.is_empty() {
            // Only now is it known what a batch needs beside the text's memory.
            let report = gpu.memory();
            self.working = report.reserved.saturating_sub(report.in_use);
            self.allocate(reader)?;
        }
        // A batch may fill several pages where bindings are small.
        let mut from = 0;
        while from < n {
            let to = &self.pages[self.page];
            let room = to.k.shape()[1] - self.filled;
            let count = room.min(n - from);
            reader.write(to, self.filled, &reader.rows_of(&memory, from..from + count));
            from += count;
            (self.page, self.filled) =
                if count == room { (self.page + 1, 0) } else { (self.page, self.filled + count) };
        }
        self.recorded += n;
        Ok(())
    }

    /// Adds empty pages for all tokens.
    fn allocate(&mut self, reader: &Reader<'_>) -> Result<(), Error> {
        let (gpu, tokens, batch) = (reader.gpu(), self.tokens, self.batch);
        let capabilities = gpu.capabilities();
        let limit = capabilities.max_binding.min(capabilities.max_buffer).min(PAGE_BYTES);
        let dtype = reader.model.dtype();
        let bytes = |s: [usize; 4]| (s.iter().product::<usize>() * dtype.bytes()) as u64;
        let widest = reader.shapes(reader.segment).map(bytes).into_iter().max();
        let fitting = (limit / widest.expect("three shapes")).max(1) as usize * reader.segment;
        let mut size = if fitting > batch { fitting / batch * batch } else { fitting };
        let (mut left, mut failure) = (tokens, None);
        while left > 0 && (failure.is_none() || size > batch) {
            let n = size.min(left);
            let [k, v, landmarks] =
                with_purpose(Purpose::Memory, || reader.shapes(n).map(|s| Tensor::empty(gpu, s, dtype)));
            match gpu.check() {
                Ok(()) => {
                    self.pages.push(Memory { k, v, landmarks });
                    left -= n;
                }
                // It is lost, but smaller pages tell how much would have fitted.
                Err(e) => {
                    size = n / 2 / reader.segment * reader.segment;
                    failure.get_or_insert(e);
                }
            }
        }
        failure.map_or(Ok(()), |e| Err(self.too_long(reader, e, tokens - left)))
    }

    /// Says how much would have fitted, where it was memory that failed with pages for `allocated` tokens.
    fn too_long(&self, reader: &Reader<'_>, error: rambutan_engine::Error, allocated: usize) -> Error {
        let bytes_per_token = reader.bytes_per_token();
        let fit = allocated.saturating_sub(self.working as usize / bytes_per_token) / reader.segment
            * reader.segment;
        match error {
            source @ rambutan_engine::Error::OutOfMemory { .. } => {
                Error::TextTooLong { tokens: self.tokens, fit, bytes_per_token, source }
            }
            other => other.into(),
        }
    }
}
