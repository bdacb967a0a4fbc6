//! Keys and values that are kept nowhere: memory is local, so a segment read again, with what is in front of it, has the same
//! ones.

use std::sync::Arc;

use rambutan_engine::{Error as EngineError, Tensor, ops};

use super::{
    super::{cut::Cut, text::Source},
    Before, Reader, Replaced,
};
use crate::Error;

/// The text itself, in parts.
pub(in super::super) struct Recomputed {
    cut: Cut,
    parts: Vec<Part>,
    /// Segments with what is in front of them.
    pub(super) replaced: Replaced<Vec<u8>>,
}

/// Whole segments, as `cut` says in a stream: `head`, then the source from `at` on.
#[derive(Clone)]
struct Part {
    tokens: usize,
    cut: Cut,
    head: Arc<Vec<u8>>,
    source: Arc<dyn Source>,
    at: usize,
}

impl Part {
    /// One of its segments, and what is in front of it.
    fn row(&self, number: usize) -> Result<Vec<u8>, Error> {
        let range = self.cut.row(number);
        let mut row = vec![0; range.len()];
        let (here, there) = row.split_at_mut(self.head.len().saturating_sub(range.start).min(range.len()));
        here.copy_from_slice(&self.head[range.start.min(self.head.len())..][..here.len()]);
        if !there.is_empty() {
            self.source.fill(self.at + range.start + here.len() - self.head.len(), there)?;
        }
        Ok(row)
    }
}

impl Recomputed {
    /// None yet; `cut` says how long segments are, and what is in front of them.
    pub fn new(cut: Cut) -> Recomputed {
        Recomputed { cut, parts: Vec::new(), replaced: Replaced::default() }
    }

    pub fn like(&self) -> Recomputed {
        Recomputed::new(self.cut)
    }

    pub fn push(&mut self, [tokens, at]: [usize; 2], cut: Cut, head: Vec<u8>, source: Arc<dyn Source>) {
        self.parts.push(Part { tokens, cut, head: Arc::new(head), source, at });
    }

    pub fn prefix(&self, tokens: usize) -> Recomputed {
        let mut left = tokens;
        let cut = |part: &Part| {
            let n = left.min(part.tokens);
            left -= n;
            (n > 0).then(|| Part { tokens: n, ..part.clone() })
        };
        let parts = self.parts.iter().filter_map(cut).collect();
        Recomputed { cut: self.cut, parts, replaced: self.replaced.clone() }
    }

    pub fn replace(&self, start: usize, rows: &[u8]) -> Before<Vec<u8>> {
        let whole = self.cut.overlap + self.cut.segment;
        // The text's first has nothing in front of it.
        let (first, others) = rows.split_at(rows.len() % whole);
        let all = (!first.is_empty()).then_some(first).into_iter().chain(others.chunks(whole));
        self.replaced.put(start / self.cut.segment, all.map(<[u8]>::to_vec))
    }

    /// The text of a segment and what is in front of it.
    fn row(&self, number: usize) -> Result<Vec<u8>, Error> {
        if let Some(bytes) = self.replaced.all().get(&number) {
            return Ok(bytes.clone());
        }
        let mut within = number;
        for part in &self.parts {
            let segments = part.tokens / self.cut.segment;
            if within < segments {
                return part.row(within);
            }
            within -= segments;
        }
        unreachable!("segment {number} was read")
    }

    /// Keys and values of chunks, in order and each once, (chunks · S, heads, head dim): their segments are read again, in
    /// batches.
    pub fn fetch(&self, reader: &Reader<'_>, chunks: &[u32]) -> Result<[Tensor; 2], Error> {
        let (gpu, config) = (reader.gpu(), &reader.model.config);
        let size = config.chunk_size;
        let segment = self.cut.segment;
        let per = segment / size;
        let mut segments: Vec<usize> = chunks.iter().map(|c| *c as usize / per).collect();
        segments.dedup();
        let shape = [chunks.len() * size, config.num_kv_heads, config.attention_head_dim];
        let out = [(); 2].map(|()| Tensor::empty(gpu, shape, reader.model.dtype()));
        let (mut done, mut batch) = (0, reader.batch / segment);
        while done < segments.len() {
            let part = &segments[done..(done + batch).min(segments.len())];
            let mut rows = Vec::new();
            for number in part {
                rows.extend(self.row(*number)?);
            }
            let memory = reader.remember(&rows)?;
            match gpu.check() {
                Err(EngineError::OutOfMemory { .. }) if part.len() > 1 => {
                    batch = part.len() / 2;
                    drop(memory);
                    gpu.trim();
                    continue;
                }
                result => result?,
            }
            // Chunks of other batches lie beyond all pages, and stay as they are.
            let place = |c: &u32| {
                let (segment, chunk) = (*c as usize / per, *c as usize % per);
                part.binary_search(&segment).map_or(u32::MAX, |i| (i * per + chunk) as u32)
            };
            let places: Vec<u32> = chunks.iter().map(place).collect();
            let places = Tensor::from_slice(gpu, &places, [places.len()])?;
            for (out, page) in out.iter().zip([&memory.k, &memory.v]) {
                // The segments' rows follow one another.
                let page = page.reshape([part.len() * segment, shape[1], shape[2]]);
                ops::gather_chunks_into(out, 0, &[&page], &places, size);
            }
            done += part.len();
        }
        Ok(out)
    }
}
