//! Reading a text of any length into memory, and asking about it.
//!
//! States restart every `segment_size` tokens when a text is read, so memory is local: a segment's keys, values and
//! landmarks depend on that segment alone. Segments are read in parallel batches; a change in the text touches one
//! segment; the memory of a text's beginning is the beginning of its memory; and only the last, incomplete segment,
//! joined by the question, goes through the upper half. The result is that of one forward pass with the same restarts.

use std::ops::Range;

use rambutan_engine::{
    Gpu, Tensor,
    gpu::{Purpose, with_purpose},
    no_grad, ops,
};

use crate::{
    Error, Ramba,
    chunking::Memory,
    ramba::{Cache, Selected},
};

/// Numbers in the stream of one batch of segments, at most: enough to fill a GPU.
const BATCH: usize = 1 << 24;
/// The same for a CPU adapter, which is full at once and whose caches are small.
const BATCH_CPU: usize = 1 << 21;
/// Bytes of one page of keys, at most, where a binding allows more: what is lost to the last one stays small.
const PAGE_BYTES: u64 = 256 << 20;
/// Bytes of the chunks that one piece of a question brings together, at most.
const PIECE_BYTES: usize = 128 << 20;

/// A text in memory.
pub struct Reader<'m> {
    model: &'m Ramba,
    segment: usize,
    batch: usize,
    pages: Vec<Memory>,
    /// The text's last tokens, fewer than a segment.
    rest: Vec<u8>,
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
    /// (page, segments within it, their keys, values and landmarks).
    parts: Vec<(usize, Range<usize>, [Tensor; 3])>,
    rest: Vec<u8>,
}

impl<'m> Reader<'m> {
    /// An empty memory.
    ///
    /// # Errors
    /// The configuration has no segments to read by, or its tokens are no bytes.
    pub fn new(model: &'m Ramba) -> Result<Reader<'m>, Error> {
        let config = &model.config;
        let segment =
            config.segment_size.filter(|_| config.segment_at_inference).ok_or(Error::NotSegmented)?;
        if config.vocab_size != 256 {
            return Err(Error::Setting {
                field: "vocab_size".into(),
                value: config.vocab_size.to_string(),
                expected: "256, one for each byte: texts are read byte by byte".into(),
            });
        }
        let numbers = if model.gpu().capabilities().cpu { BATCH_CPU } else { BATCH };
        let reader = Reader { model, segment, batch: segment, pages: Vec::new(), rest: Vec::new() };
        Ok(reader.with_batch(numbers / config.hidden_size))
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
        self.pages.iter().map(|p| p.k.shape()[1]).sum()
    }

    fn gpu(&self) -> &Gpu {
        self.model.gpu()
    }

    /// Keys, values and landmarks: (rows, heads, channels) of `tokens` tokens.
    fn shapes(&self, tokens: usize) -> [[usize; 4]; 3] {
        let c = &self.model.config;
        let kv = [1, tokens, c.num_kv_heads, c.attention_head_dim];
        [kv, kv, [1, tokens / c.chunk_size, c.retrieval_heads(), c.retrieval_head_dim()]]
    }

    /// Bytes that a token leaves in memory.
    pub fn bytes_per_token(&self) -> usize {
        let (chunk, size) = (self.model.config.chunk_size, self.model.dtype().bytes());
        self.shapes(chunk).iter().map(|s| s.iter().product::<usize>() * size).sum::<usize>().div_ceil(chunk)
    }

    /// Tokens that are read at once, where the device's memory allows.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Reads further text. `progress` hears the tokens read so far in this call.
    ///
    /// # Errors
    /// The device failed or its memory does not suffice; then nothing of `text` counts as read.
    pub fn read(&mut self, text: &[u8], mut progress: impl FnMut(usize)) -> Result<(), Error> {
        let pages = self.pages.len();
        let result = self.read_segments(text, &mut progress);
        if result.is_err() {
            self.pages.truncate(pages);
            // Work that was under way when the first error came may add to it; all of it is void.
            self.gpu().trim();
            let _ = self.gpu().check();
            return result;
        }
        let kept = self.rest.len();
        let whole = (kept + text.len()) / self.segment * self.segment;
        if whole == 0 {
            self.rest.extend_from_slice(text);
        } else {
            self.rest = text[whole - kept..].to_vec();
        }
        progress(text.len());
        Ok(())
    }

    /// Reads all whole segments of what was left and `text` into pages of their own.
    fn read_segments(&mut self, text: &[u8], progress: &mut impl FnMut(usize)) -> Result<(), Error> {
        let kept = self.rest.len();
        let tokens = (kept + text.len()) / self.segment * self.segment;
        let mut batch = self.batch;
        // Bytes of the segments' stretch `range`, which may begin in what was left.
        let bytes = |rest: &[u8], range: Range<usize>| {
            let cut = range.start.min(kept)..range.end.min(kept);
            [&rest[cut], &text[range.start.max(kept) - kept..range.end.max(kept) - kept]].concat()
        };
        let first_page = self.pages.len();
        let (mut page, mut filled, mut done, mut working) = (first_page, 0, 0, 0);
        #[cfg(not(target_arch = "wasm32"))]
        let mut before: Option<(rambutan_engine::gpu::Ticket, usize)> = None;
        while done < tokens {
            let n = batch.min(tokens - done);
            let memory = self.remember(&bytes(&self.rest, done..done + n))?;
            if done == 0 {
                // Only now is it known what a batch needs beside the text's memory.
                self.gpu().submit();
                match self.gpu().check() {
                    Err(rambutan_engine::Error::OutOfMemory { .. }) if n > self.segment => {
                        drop(memory);
                        self.gpu().trim();
                        batch = n / 2 / self.segment * self.segment;
                        continue;
                    }
                    result => result?,
                }
                let report = self.gpu().memory();
                working = report.reserved.saturating_sub(report.in_use);
                self.allocate(tokens, batch, working)?;
            }
            // A batch may fill several pages where bindings are small.
            let mut from = 0;
            while from < n {
                let to = &self.pages[page];
                let room = to.k.shape()[1] - filled;
                let count = room.min(n - from);
                self.write(to, filled, &self.rows_of(&memory, from..from + count));
                from += count;
                (page, filled) = if count == room { (page + 1, 0) } else { (page, filled + count) };
            }
            done += n;
            // One batch is recorded while the device works on the one before.
            #[cfg(not(target_arch = "wasm32"))]
            if let Some((ticket, done)) = before.replace((self.gpu().ticket(), done)) {
                self.gpu().wait_for(&ticket).map_err(|e| self.too_long(e, tokens, tokens, working))?;
                progress(done.saturating_sub(kept));
            }
            #[cfg(target_arch = "wasm32")]
            {
                self.gpu().submit();
                progress(done.saturating_sub(kept));
            }
        }
        #[cfg(not(target_arch = "wasm32"))]
        if let Some((ticket, _)) = before {
            self.gpu().wait_for(&ticket).map_err(|e| self.too_long(e, tokens, tokens, working))?;
        }
        self.gpu().check().map_err(|e| self.too_long(e, tokens, tokens, working))
    }

    /// Adds empty pages for `tokens` tokens. `working`: bytes that a batch of `batch` tokens needs beside them.
    fn allocate(&mut self, tokens: usize, batch: usize, working: u64) -> Result<(), Error> {
        let capabilities = self.gpu().capabilities();
        let limit = capabilities.max_binding.min(capabilities.max_buffer).min(PAGE_BYTES);
        let dtype = self.model.dtype();
        let bytes = |s: [usize; 4]| (s.iter().product::<usize>() * dtype.bytes()) as u64;
        let widest = self.shapes(self.segment).map(bytes).into_iter().max();
        let fitting = (limit / widest.expect("three shapes")).max(1) as usize * self.segment;
        let mut size = if fitting > batch { fitting / batch * batch } else { fitting };
        let (mut left, mut failure) = (tokens, None);
        while left > 0 && (failure.is_none() || size > batch) {
            let n = size.min(left);
            let [k, v, landmarks] =
                with_purpose(Purpose::Memory, || self.shapes(n).map(|s| Tensor::empty(self.gpu(), s, dtype)));
            match self.gpu().check() {
                Ok(()) => {
                    self.pages.push(Memory { k, v, landmarks });
                    left -= n;
                }
                // It is lost, but smaller pages tell how much would have fitted.
                Err(e) => {
                    size = n / 2 / self.segment * self.segment;
                    failure.get_or_insert(e);
                }
            }
        }
        failure.map_or(Ok(()), |e| Err(self.too_long(e, tokens, tokens - left, working)))
    }

    /// Says how much would have fitted, where it was memory that failed with pages for `allocated` tokens.
    fn too_long(
        &self,
        error: rambutan_engine::Error,
        tokens: usize,
        allocated: usize,
        working: u64,
    ) -> Error {
        let bytes_per_token = self.bytes_per_token();
        let fit = allocated.saturating_sub(working as usize / bytes_per_token) / self.segment * self.segment;
        match error {
            source @ rambutan_engine::Error::OutOfMemory { .. } => {
                Error::TextTooLong { tokens, fit, bytes_per_token, source }
            }
            other => other.into(),
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
        let mut pages = Vec::new();
        let mut left = tokens;
        for page in &self.pages {
            let n = left.min(page.k.shape()[1]);
            if n > 0 {
                let [k, v, landmarks] = self.shapes(n);
                pages.push(Memory {
                    k: page.k.window(0, &k),
                    v: page.v.window(0, &v),
                    landmarks: page.landmarks.window(0, &landmarks),
                });
            }
            left -= n;
        }
        Reader { pages, rest: Vec::new(), ..*self }
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
    /// # Errors
    /// As [`Reader::read`].
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
        let mut saved = Saved { parts: Vec::new(), rest: self.rest.clone() };
        let whole = end.min(base).saturating_sub(start);
        if whole > 0 {
            let memory = self.remember(&text[..whole])?;
            let (mut first, mut from) = (0, 0);
            for (i, page) in self.pages.iter().enumerate() {
                let tokens = page.k.shape()[1];
                let (a, b) = (start.max(first), (start + whole).min(first + tokens));
                if a < b {
                    let rows = a - first..b - first;
                    saved.parts.push((i, rows.clone(), self.rows_of(page, rows)));
                    let new = self.rows_of(&memory, from..from + b - a);
                    self.write(page, a - first, &new);
                    from += b - a;
                }
                first += tokens;
            }
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
        for (i, rows, old) in saved.parts {
            self.write(&self.pages[i], rows.start, &old);
        }
        self.rest = saved.rest;
    }

    /// A copy of the memory of tokens `range`, whole chunks.
    fn rows_of(&self, memory: &Memory, range: Range<usize>) -> [Tensor; 3] {
        let sizes = self.shapes(range.len()).map(|s| s.iter().product::<usize>());
        let starts = self.shapes(range.start).map(|s| s.iter().product::<usize>());
        let of = [&memory.k, &memory.v, &memory.landmarks];
        std::array::from_fn(|i| ops::slice(of[i], starts[i], sizes[i]))
    }

    fn write(&self, page: &Memory, start: usize, rows: &[Tensor; 3]) {
        let starts = self.shapes(start).map(|s| s.iter().product::<usize>());
        for ((to, start), from) in [&page.k, &page.v, &page.landmarks].into_iter().zip(starts).zip(rows) {
            ops::write_slice(to, start, from);
        }
    }

    /// Generates greedily after the text and `question`, until `stop` or `most` tokens.
    ///
    /// # Errors
    /// The device failed, or text and question are both empty.
    pub async fn ask(&self, question: &[u8], stop: &[u8], most: usize) -> Result<Answer, Error> {
        let tail = [&self.rest, question].concat();
        let mut cache = self.model.cache_at(self.base());
        let last = tail.len().checked_sub(1).ok_or(Error::Empty)?;
        let (logits, selected) = self.feed(&mut cache, &tail, last).await?;
        let mut best = most_probable(&logits);
        let mut answer = Answer { text: Vec::new(), selected };
        while answer.text.len() < most {
            answer.text.push(best);
            if (!stop.is_empty() && answer.text.ends_with(stop)) || answer.text.len() == most {
                break;
            }
            best = most_probable(&self.feed(&mut cache, &[best], 0).await?.0);
        }
        Ok(answer)
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
        let (logits, selected) = self.feed(&mut cache, &tail, last).await?;
        let mut text: Vec<u8> = logits.chunks(self.model.config.vocab_size).map(most_probable).collect();
        let right = text.iter().zip(expected).take_while(|(a, b)| a == b).count();
        text.truncate(right + 1);
        text.truncate(expected.len());
        Ok(Answer { text, selected })
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
        Ok(self.feed(&mut cache, &tail, self.rest.len()).await?.0)
    }

    /// Chunks visible from `position`.
    pub fn visible(&self, position: usize) -> usize {
        let config = &self.model.config;
        if !config.mask_slide_window {
            return position / config.chunk_size;
        }
        position.checked_sub(config.slide_window).map_or(0, |p| p / config.chunk_size + 1)
    }

    /// Feeds tokens behind those that `cache` has seen → the logits after each from `first` on, and what was selected
    /// at `first`.
    async fn feed(
        &self,
        cache: &mut Cache,
        tokens: &[u8],
        first: usize,
    ) -> Result<(Vec<f32>, Vec<(usize, f32)>), Error> {
        let config = &self.model.config;
        // Keys, and as many values, of the chunks that a token selects; all of a piece's keys must fit a binding.
        let slots = config.chunk_topk * config.retrieval_heads() * config.chunk_size;
        let keys = slots * config.num_kv_heads * config.attention_head_dim * self.model.dtype().bytes();
        let most = (self.gpu().capabilities().max_binding as usize).min(PIECE_BYTES / 2);
        let piece = (most / keys).max(1);
        let (mut all, mut selected) = (Vec::new(), Vec::new());
        for start in (0..tokens.len()).step_by(piece) {
            let end = (start + piece).min(tokens.len());
            let ids: Vec<u32> = tokens[start..end].iter().map(|&b| b.into()).collect();
            let ids = Tensor::from_slice(self.gpu(), &ids, [1, ids.len()])?;
            let rows = end - start.max(first.min(end));
            let Selected { logits, weights, indices } =
                no_grad(|| self.model.continue_after(&self.pages, cache, &ids, rows.max(1)));
            if rows == 0 {
                continue;
            }
            if let (true, Some(weights), Some(indices)) = (first >= start, weights, indices) {
                let [_, _, heads, k] = weights.axes();
                let row = (first - start) * heads * k..(first - start + 1) * heads * k;
                let (weights, indices) = (weights.read::<f32>().await?, indices.read::<u32>().await?);
                let held = self.visible(cache.position - (end - first)).min(k);
                selected = mean_over_heads(&weights[row.clone()], &indices[row], heads, held);
            }
            all.extend(logits.read::<f32>().await?);
        }
        Ok((all, selected))
    }
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
