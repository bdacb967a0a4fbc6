//! Reading a text of any length into memory, and asking about it.
//!
//! States restart every `segment_size` tokens when a text is read, so memory is local: a segment's keys, values and
//! landmarks depend on that segment alone. Segments are read in parallel batches, a change in the text touches one
//! segment, and only the last, incomplete segment, joined by the question, goes through the upper half. The result is
//! that of one forward pass with the same restarts.

use std::ops::Range;

use rambutan_engine::{
    Tensor,
    gpu::{Purpose, with_purpose},
    no_grad, ops,
};

use crate::{Error, Ramba, chunking::Memory, ramba::Selected};

/// Tokens that one batch of segments holds at most: enough to fill a GPU, little enough for software Vulkan.
const BATCH_TOKENS: usize = 1 << 16;

/// A text in memory.
pub struct Reader<'m> {
    model: &'m Ramba,
    segment: usize,
    pages: Vec<Page>,
    /// The text's last tokens, fewer than a segment.
    rest: Vec<u8>,
}

/// The memory of consecutive whole segments.
struct Page {
    segments: usize,
    memory: Memory,
}

/// What the model said, and where it looked.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The tokens generated, the stop included where it came.
    pub text: Vec<u8>,
    /// The chunks looked into at the first token, newest first, with their weights (mean over heads); numbers count
    /// chunks of the text from its start.
    pub selected: Vec<(usize, f32)>,
}

impl<'m> Reader<'m> {
    /// An empty memory.
    ///
    /// # Errors
    /// The configuration has no segments to read by.
    pub fn new(model: &'m Ramba) -> Result<Reader<'m>, Error> {
        let config = &model.config;
        let segment =
            config.segment_size.filter(|_| config.segment_at_inference).ok_or(Error::NotSegmented)?;
        Ok(Reader { model, segment, pages: Vec::new(), rest: Vec::new() })
    }

    /// Tokens read.
    pub fn len(&self) -> usize {
        self.pages.iter().map(|p| p.segments).sum::<usize>() * self.segment + self.rest.len()
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads further text. `progress` hears the tokens read so far in this call, as they are recorded.
    ///
    /// # Errors
    /// The device failed or its memory does not suffice; then nothing of `text` counts as read.
    pub fn read(&mut self, text: &[u8], mut progress: impl FnMut(usize)) -> Result<(), Error> {
        let (pages, rest) = (self.pages.len(), self.rest.len());
        let mut joined = std::mem::take(&mut self.rest);
        joined.extend_from_slice(text);
        let whole = joined.len() / self.segment * self.segment;
        let batch = (BATCH_TOKENS / self.segment).max(1) * self.segment;
        let mut done = 0;
        let result = joined[..whole].chunks(batch).try_for_each(|part| {
            let memory = self.remember(part)?;
            self.pages.push(Page { segments: part.len() / self.segment, memory });
            done += part.len();
            progress(done);
            self.model.gpu().check().map_err(Error::from)
        });
        match result {
            Ok(()) => {
                self.rest = joined.split_off(whole);
                progress(text.len());
                Ok(())
            }
            Err(e) => {
                self.pages.truncate(pages);
                joined.truncate(rest);
                self.rest = joined;
                Err(e)
            }
        }
    }

    /// The memory of whole segments.
    fn remember(&self, text: &[u8]) -> Result<Memory, Error> {
        let segments = text.len() / self.segment;
        let ids: Vec<u32> = text.iter().map(|&b| b.into()).collect();
        no_grad(|| {
            with_purpose(Purpose::Memory, || {
                let ids = Tensor::from_slice(self.model.gpu(), &ids, [segments, self.segment])?;
                let memory = self.model.remember_segments(&ids);
                let flat = |x: &Tensor| {
                    let mut shape = x.shape().to_vec();
                    (shape[0], shape[1]) = (1, shape[0] * shape[1]);
                    x.reshape(shape)
                };
                Ok(Memory { k: flat(&memory.k), v: flat(&memory.v), landmarks: flat(&memory.landmarks) })
            })
        })
    }

    /// Reads segments `range` again from `text`, which fills them: what changed in them counts from now on.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn replace(&mut self, range: Range<usize>, text: &[u8]) -> Result<Saved, Error> {
        assert_eq!(text.len(), range.len() * self.segment, "the text fills the segments it replaces");
        let mut saved = Saved { pages: Vec::new() };
        let mut first = 0;
        for (i, page) in self.pages.iter_mut().enumerate() {
            let (start, end) = (range.start.max(first), range.end.min(first + page.segments));
            if start < end {
                saved.pages.push((i, page.memory.clone()));
            }
            first += page.segments;
        }
        let bounds: Vec<(usize, usize)> = self
            .pages
            .iter()
            .scan(0, |first, p| {
                *first += p.segments;
                Some((*first - p.segments, *first))
            })
            .collect();
        for (i, old) in &saved.pages {
            let (first, end) = bounds[*i];
            let (from, to) = (range.start.max(first), range.end.min(end));
            let bytes = &text[(from - range.start) * self.segment..(to - range.start) * self.segment];
            let new = self.remember(bytes)?;
            let patch = |old: &Tensor, new: &Tensor| no_grad(|| patched(old, new, from - first, end - first));
            self.pages[*i].memory = with_purpose(Purpose::Memory, || Memory {
                k: patch(&old.k, &new.k),
                v: patch(&old.v, &new.v),
                landmarks: patch(&old.landmarks, &new.landmarks),
            });
        }
        Ok(saved)
    }

    /// Puts back what [`Reader::replace`] replaced.
    pub fn restore(&mut self, saved: Saved) {
        for (i, memory) in saved.pages {
            self.pages[i].memory = memory;
        }
    }

    /// Generates greedily after the text and `question`, until `stop` or `most` tokens.
    ///
    /// # Errors
    /// The device failed.
    pub async fn ask(&self, question: &[u8], stop: &[u8], most: usize) -> Result<Answer, Error> {
        let mut tail = self.rest.clone();
        tail.extend_from_slice(question);
        if tail.is_empty() {
            return Err(Error::Empty);
        }
        let mut answer = Answer::default();
        let pages: Vec<&Memory> = self.pages.iter().map(|p| &p.memory).collect();
        let base = self.len() - self.rest.len();
        while answer.text.len() < most {
            let ids: Vec<u32> = tail.iter().map(|&b| b.into()).collect();
            let ids = Tensor::from_slice(self.model.gpu(), &ids, [1, ids.len()])?;
            let Selected { logits, weights, indices } =
                no_grad(|| self.model.continue_after(&pages, base, &ids));
            let row = logits.read::<f32>().await?;
            if answer.text.is_empty()
                && let (Some(weights), Some(indices)) = (weights, indices)
            {
                let k = *indices.shape().last().expect("four axes");
                let (w, i) = (weights.read::<f32>().await?, indices.read::<u32>().await?);
                let last = w.len() - k;
                answer.selected =
                    (last..w.len()).map(|j| (i[j] as usize, w[j])).filter(|s| s.1 > 0.0).collect();
            }
            let vocabulary = self.model.config.vocab_size;
            let last = &row[row.len() - vocabulary..];
            let best =
                (0..vocabulary).max_by(|&a, &b| last[a].total_cmp(&last[b]).then(b.cmp(&a))).unwrap_or(0);
            let byte = u8::try_from(best).map_err(|_| Error::NotBytes(best))?;
            answer.text.push(byte);
            tail.push(byte);
            if !stop.is_empty() && answer.text.ends_with(stop) {
                break;
            }
        }
        Ok(answer)
    }
}

/// Memory that was replaced for a while.
pub struct Saved {
    pages: Vec<(usize, Memory)>,
}

/// `old` (1, n, …) with `new` (1, m, …) in place of its rows from segment `from` on, of `segments` in all.
fn patched(old: &Tensor, new: &Tensor, from: usize, segments: usize) -> Tensor {
    let rows = old.shape()[1];
    let per = rows / segments;
    let row = old.len() / rows;
    let (before, middle) = (from * per * row, new.len());
    let after = old.len() - before - middle;
    let parts = ops::split_columns(&old.reshape([1, old.len()]), &[before, middle, after]);
    let new = new.reshape([1, middle]);
    let kept: Vec<&Tensor> = [&parts[0], &new, &parts[2]].into_iter().filter(|p| !p.is_empty()).collect();
    ops::concat_columns(&kept).reshape(old.shape())
}
