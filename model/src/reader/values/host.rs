//! Keys and values on the host, or in a file that is mapped there: chunks go to the device when they are selected.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use half::f16;
use rambutan_engine::{DType, Element, Tensor, gpu::Download};

use super::{Before, Reader, Replaced};
use crate::{Error, chunking::Memory};

/// The keys and the values of a chunk or of more.
type Bytes = [Vec<u8>; 2];

/// Keys and values that lie in a file.
pub(in super::super) trait Stored: Send + Sync {
    /// Tokens of whole segments.
    #[cfg_attr(target_arch = "wasm32", allow(dead_code))]
    fn tokens(&self) -> usize;

    /// Copies the keys and the values of a chunk.
    ///
    /// # Errors
    /// They are not as they were written.
    fn chunk(&self, chunk: usize, keys: &mut [u8], values: &mut [u8]) -> Result<(), Error>;
}

/// All of them.
pub(in super::super) struct Host {
    /// Tokens a chunk, heads and channels of a token.
    chunk: usize,
    row: [usize; 2],
    dtype: DType,
    parts: Vec<Part>,
    /// Tokens that are kept.
    tokens: usize,
    /// What is on its way from the device.
    coming: VecDeque<[Coming; 2]>,
    pub(super) replaced: Replaced<Bytes>,
}

#[derive(Clone)]
struct Part {
    first: usize,
    kept: Kept,
}

#[derive(Clone)]
enum Kept {
    Here(Arc<Bytes>),
    #[cfg_attr(target_arch = "wasm32", allow(dead_code))]
    There(Arc<dyn Stored>),
}

/// Elements on their way from the device, as bytes.
pub(in super::super) enum Coming {
    Wide(Download<f32>),
    Half(Download<f16>),
    Words(Download<u32>),
    Here(Vec<u8>),
}

impl Coming {
    pub fn new(x: &Tensor) -> Result<Coming, Error> {
        Ok(match x.dtype() {
            DType::F16 => Coming::Half(x.download()?),
            DType::U32 => Coming::Words(x.download()?),
            _ => Coming::Wide(x.download()?),
        })
    }

    /// Whether they are there; with `wait` it waits for them.
    pub fn poll(&mut self, wait: bool) -> Result<bool, Error> {
        fn take<T: Element>(download: &mut Download<T>, wait: bool) -> Result<Option<Vec<u8>>, Error> {
            let numbers = match wait {
                #[cfg(not(target_arch = "wasm32"))]
                true => Some(pollster::block_on(download)?),
                _ => download.try_take()?,
            };
            Ok(numbers.map(|n| bytemuck::cast_slice(&n).to_vec()))
        }
        let bytes = match self {
            Coming::Wide(download) => take(download, wait)?,
            Coming::Half(download) => take(download, wait)?,
            Coming::Words(download) => take(download, wait)?,
            Coming::Here(_) => return Ok(true),
        };
        let Some(bytes) = bytes else { return Ok(false) };
        *self = Coming::Here(bytes);
        Ok(true)
    }

    /// # Panics
    /// Where they are not.
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Coming::Here(bytes) => bytes,
            _ => unreachable!("bytes are taken once they are here"),
        }
    }
}

impl Host {
    pub fn new(chunk: usize, row: [usize; 2], dtype: DType) -> Host {
        let (parts, coming) = (Vec::new(), VecDeque::new());
        Host { chunk, row, dtype, parts, tokens: 0, coming, replaced: Replaced::default() }
    }

    /// Those of a file.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn stored(chunk: usize, row: [usize; 2], dtype: DType, stored: Arc<dyn Stored>) -> Host {
        let mut host = Host::new(chunk, row, dtype);
        host.tokens = stored.tokens();
        host.parts.push(Part { first: 0, kept: Kept::There(stored) });
        host
    }

    pub fn like(&self) -> Host {
        Host::new(self.chunk, self.row, self.dtype)
    }

    /// Bytes of the keys, and as many of the values, of so many tokens.
    fn half(&self, tokens: usize) -> usize {
        tokens * self.row[0] * self.row[1] * self.dtype.bytes()
    }

    pub fn bytes(&self, tokens: usize) -> usize {
        2 * self.half(tokens)
    }

    fn keep(&mut self, bytes: Bytes) {
        let part = Part { first: self.tokens, kept: Kept::Here(Arc::new(bytes)) };
        let Kept::Here(bytes) = &part.kept else { unreachable!("just made") };
        self.tokens += bytes[0].len() / self.half(1);
        self.parts.push(part);
    }

    /// Begins to copy the next segments' from the device.
    pub fn push(&mut self, memory: &Memory) -> Result<(), Error> {
        self.coming.push_back([Coming::new(&memory.k)?, Coming::new(&memory.v)?]);
        Ok(())
    }

    pub fn settle(&mut self, wait: bool) -> Result<bool, Error> {
        while let Some([k, v]) = self.coming.front_mut() {
            if !(k.poll(wait)? && v.poll(wait)?) {
                return Ok(false);
            }
            let arrived = self.coming.pop_front().expect("it is there");
            self.keep(arrived.map(Coming::bytes));
        }
        Ok(true)
    }

    pub fn append(&mut self, further: Host) {
        for part in further.parts {
            self.parts.push(Part { first: self.tokens + part.first, ..part });
        }
        self.tokens += further.tokens;
    }

    pub fn prefix(&self, tokens: usize) -> Host {
        let parts = self.parts.iter().filter(|p| p.first < tokens).cloned().collect();
        let (coming, replaced) = (VecDeque::new(), self.replaced.clone());
        Host { parts, tokens, coming, replaced, ..*self }
    }

    /// Replaces whole chunks from token `start` on, and gives what replaced them before.
    pub fn replace(&self, start: usize, memory: &Memory) -> Result<Before<Bytes>, Error> {
        let mut new = Vec::new();
        for x in [&memory.k, &memory.v] {
            let mut coming = Coming::new(x)?;
            if !coming.poll(cfg!(not(target_arch = "wasm32")))? {
                return Err(Error::Setting {
                    field: "a replacement".into(),
                    value: "keys and values on the host".into(),
                    expected: "another place where nothing can wait for the device".into(),
                });
            }
            new.push(coming.bytes());
        }
        let size = self.half(self.chunk);
        let chunks = new[0].chunks(size).zip(new[1].chunks(size)).map(|(k, v)| [k.to_vec(), v.to_vec()]);
        Ok(self.replaced.put(start / self.chunk, chunks))
    }

    fn copy(&self, chunk: usize, keys: &mut [u8], values: &mut [u8]) -> Result<(), Error> {
        let here = |kv: &Bytes, range: Range<usize>, keys: &mut [u8], values: &mut [u8]| {
            keys.copy_from_slice(&kv[0][range.clone()]);
            values.copy_from_slice(&kv[1][range]);
        };
        let size = self.half(self.chunk);
        if let Some(bytes) = self.replaced.all().get(&chunk) {
            here(bytes, 0..size, keys, values);
            return Ok(());
        }
        let token = chunk * self.chunk;
        let part = &self.parts[self.parts.partition_point(|p| p.first <= token) - 1];
        let within = (token - part.first) / self.chunk;
        match &part.kept {
            Kept::Here(bytes) => here(bytes, within * size..(within + 1) * size, keys, values),
            Kept::There(stored) => stored.chunk(within, keys, values)?,
        }
        Ok(())
    }

    /// Keys and values of chunks, (chunks · S, heads, head dim), in one upload each.
    pub fn fetch(&self, reader: &Reader<'_>, chunks: &[u32]) -> Result<[Tensor; 2], Error> {
        match self.dtype {
            DType::F16 => self.upload::<f16>(reader, chunks),
            _ => self.upload::<f32>(reader, chunks),
        }
    }

    fn upload<T: Element>(&self, reader: &Reader<'_>, chunks: &[u32]) -> Result<[Tensor; 2], Error> {
        let size = self.half(self.chunk);
        let mut kv = [(); 2].map(|()| vec![T::zeroed(); chunks.len() * size / self.dtype.bytes()]);
        let [keys, values] = kv.each_mut().map(|x| bytemuck::cast_slice_mut::<T, u8>(x));
        for ((chunk, keys), values) in chunks.iter().zip(keys.chunks_mut(size)).zip(values.chunks_mut(size)) {
            self.copy(*chunk as usize, keys, values)?;
        }
        let shape = [chunks.len() * self.chunk, self.row[0], self.row[1]];
        let [k, v] = kv.map(|x| Tensor::from_slice(reader.gpu(), &x, shape));
        Ok([k?, v?])
    }
}
