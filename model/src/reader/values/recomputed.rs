//! Keys and values that are kept nowhere: memory is local, so a segment read again has the same ones.

use std::sync::Arc;

use rambutan_engine::{Error as EngineError, Tensor, ops};

use super::{super::text::Source, Before, Reader, Replaced};
use crate::Error;

/// The text itself, in parts.
pub(in super::super) struct Recomputed {
    segment: usize,
    parts: Vec<Part>,
    pub(super) replaced: Replaced<Vec<u8>>,
}

/// Whole segments: `head`, then the source from `at` on.
#[derive(Clone)]
struct Part {
    tokens: usize,
    head: Arc<Vec<u8>>,
    source: Arc<dyn Source>,
    at: usize,
}

impl Recomputed {
    pub fn new(segment: usize) -> Recomputed {
        Recomputed { segment, parts: Vec::new(), replaced: Replaced::default() }
    }

    pub fn like(&self) -> Recomputed {
        Recomputed::new(self.segment)
    }

    pub fn push(&mut self, tokens: usize, head: Vec<u8>, source: Arc<dyn Source>, at: usize) {
        self.parts.push(Part { tokens, head: Arc::new(head), source, at });
    }

    pub fn prefix(&self, tokens: usize) -> Recomputed {
        let mut left = tokens;
        let cut = |part: &Part| {
            let n = left.min(part.tokens);
            left -= n;
            (n > 0).then(|| Part { tokens: n, ..part.clone() })
        };
        let parts = self.parts.iter().filter_map(cut).collect();
        Recomputed { segment: self.segment, parts, replaced: self.replaced.clone() }
    }

    pub fn replace(&self, start: usize, text: &[u8]) -> Before<Vec<u8>> {
        self.replaced.put(start / self.segment, text.chunks(self.segment).map(<[u8]>::to_vec))
    }

    /// The text of a segment.
    fn fill(&self, number: usize, into: &mut [u8]) -> Result<(), Error> {
        if let Some(bytes) = self.replaced.all().get(&number) {
            into.copy_from_slice(bytes);
            return Ok(());
        }
        let mut at = number * self.segment;
        for part in &self.parts {
            if at >= part.tokens {
                at -= part.tokens;
            } else if at < part.head.len() {
                into.copy_from_slice(&part.head[at..at + self.segment]);
                return Ok(());
            } else {
                return part.source.fill(part.at + at - part.head.len(), into);
            }
        }
        unreachable!("segment {number} was read")
    }

    /// Keys and values of chunks, in order and each once, (chunks · S, heads, head dim): their segments are read again, in
    /// batches.
    pub fn fetch(&self, reader: &Reader<'_>, chunks: &[u32]) -> Result<[Tensor; 2], Error> {
        let (gpu, config) = (reader.gpu(), &reader.model.config);
        let size = config.chunk_size;
        let per = self.segment / size;
        let mut segments: Vec<usize> = chunks.iter().map(|c| *c as usize / per).collect();
        segments.dedup();
        let shape = [chunks.len() * size, config.num_kv_heads, config.attention_head_dim];
        let out = [(); 2].map(|()| Tensor::empty(gpu, shape, reader.model.dtype()));
        let (mut done, mut batch) = (0, reader.batch / self.segment);
        while done < segments.len() {
            let part = &segments[done..(done + batch).min(segments.len())];
            let mut text = vec![0; part.len() * self.segment];
            for (number, into) in part.iter().zip(text.chunks_mut(self.segment)) {
                self.fill(*number, into)?;
            }
            let memory = reader.remember(&text)?;
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
                let page = page.reshape([part.len() * self.segment, shape[1], shape[2]]);
                ops::gather_chunks_into(out, 0, &[&page], &places, size);
            }
            done += part.len();
        }
        Ok(out)
    }
}
