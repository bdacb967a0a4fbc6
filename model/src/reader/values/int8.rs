//! Keys and values in eight bits, with a scale for each chunk and head.

use rambutan_engine::{DType, Tensor, ops};

use super::{super::paged::Paged, Reader};
use crate::{Error, Ramba, chunking::Memory, ramba::Brought};

/// All of them, in pages.
pub(in super::super) struct Int8 {
    /// Keys and their scales, values and theirs.
    pub parts: [Paged; 4],
    chunk: usize,
    row: [usize; 2],
    dtype: DType,
}

impl Int8 {
    /// `row`: heads and channels of a token.
    pub fn new(model: &Ramba, chunk: usize, row: [usize; 2]) -> Result<Int8, Error> {
        let [heads, channels] = row;
        if !channels.is_multiple_of(4) {
            return Err(Error::Setting {
                field: "attention_head_dim".into(),
                value: channels.to_string(),
                expected: "a multiple of 4, where keys and values are kept in 8 bits".into(),
            });
        }
        let (gpu, packed) = (model.gpu(), [heads, channels / 4]);
        let parts = [(1, packed, DType::U32), (chunk, [heads, 1], DType::F32)];
        let [numbers, scales] = parts.map(|(span, row, dtype)| Paged::new(gpu, span, row, dtype));
        let parts = [numbers.like(), scales.like(), numbers, scales];
        Ok(Int8 { parts, chunk, row, dtype: model.dtype() })
    }

    pub fn like(&self) -> Int8 {
        Int8 { parts: self.parts.each_ref().map(Paged::like), ..*self }
    }

    pub fn write(&self, start: usize, memory: &Memory) {
        for (parts, x) in self.parts.chunks(2).zip([&memory.k, &memory.v]) {
            let rows = x.reshape([x.len() / (self.row[0] * self.row[1]), self.row[0], self.row[1]]);
            let (numbers, scales) = ops::quantize_chunks(&rows, self.chunk);
            parts[0].write(start, &numbers);
            parts[1].write(start, &scales);
        }
    }

    pub fn append(&mut self, further: Int8) {
        self.parts.iter_mut().zip(further.parts).for_each(|(part, more)| part.append(more));
    }

    pub fn prefix(&self, tokens: usize) -> Int8 {
        Int8 { parts: self.parts.each_ref().map(|p| p.prefix(tokens)), ..*self }
    }

    /// The selected chunks of the text, and of `own` behind them, which is kept as it was computed.
    pub fn gather(&self, reader: &Reader<'_>, indices: &Tensor, own: Option<[Tensor; 2]>) -> Brought {
        let texts = reader.base() / self.chunk;
        let shape = [indices.len() * self.chunk, self.row[0], self.row[1]];
        let [k, v] = [0, 1].map(|i| {
            let out = Tensor::empty(reader.gpu(), shape, self.dtype);
            let pages: Vec<_> =
                self.parts[2 * i].flat().into_iter().zip(self.parts[2 * i + 1].flat()).collect();
            ops::gather_quantized_into(&out, &pages, indices, self.chunk);
            if let Some(own) = &own {
                ops::gather_chunks_into(&out, texts, &[&own[i]], indices, self.chunk);
            }
            out
        });
        Brought { k, v }
    }
}
