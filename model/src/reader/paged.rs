//! Rows that lie in pages on the device, none larger than a binding.

use std::ops::Range;

#[cfg(not(target_arch = "wasm32"))]
use half::f16;
#[cfg(not(target_arch = "wasm32"))]
use rambutan_engine::Element;
use rambutan_engine::{
    DType, Error, Gpu, Tensor,
    gpu::{Purpose, with_purpose},
    ops,
};

/// Bytes of one page, at most, where a binding allows more: what is lost to the last one stays small.
const PAGE_BYTES: u64 = 256 << 20;

/// Rows of one shape and type in the text's order, each for so many tokens.
#[derive(Clone)]
pub(super) struct Paged {
    gpu: Gpu,
    /// Tokens a row.
    span: usize,
    /// Heads and channels of a row.
    row: [usize; 2],
    dtype: DType,
    /// (1, rows, heads, channels) each. Clones share them: what is written in one is written in all.
    pages: Vec<Tensor>,
}

impl Paged {
    pub fn new(gpu: &Gpu, span: usize, row: [usize; 2], dtype: DType) -> Paged {
        Paged { gpu: gpu.clone(), span, row, dtype, pages: Vec::new() }
    }

    /// No rows of the same kind.
    pub fn like(&self) -> Paged {
        Paged { pages: Vec::new(), ..self.clone() }
    }

    pub fn pages(&self) -> &[Tensor] {
        &self.pages
    }

    /// The pages as (rows, …) each.
    pub fn flat(&self) -> Vec<Tensor> {
        self.pages.iter().map(|p| p.reshape(&p.shape()[1..])).collect()
    }

    fn tokens_of(&self, page: &Tensor) -> usize {
        page.shape()[1] * self.span
    }

    pub fn tokens(&self) -> usize {
        self.pages.iter().map(|p| self.tokens_of(p)).sum()
    }

    fn shape(&self, tokens: usize) -> [usize; 4] {
        [1, tokens / self.span, self.row[0], self.row[1]]
    }

    fn elements(&self, tokens: usize) -> usize {
        self.shape(tokens).iter().product()
    }

    /// Bytes of so many tokens.
    pub fn bytes(&self, tokens: usize) -> usize {
        self.elements(tokens) * self.dtype.bytes()
    }

    /// Rows of a file, on the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn upload(&self, bytes: &[u8]) -> Result<Tensor, crate::Error> {
        fn rows<T: Element>(gpu: &Gpu, bytes: &[u8]) -> Result<Tensor, crate::Error> {
            let numbers: Vec<T> = bytemuck::pod_collect_to_vec(bytes);
            Ok(Tensor::from_slice(gpu, &numbers, [numbers.len()])?)
        }
        match self.dtype {
            DType::F16 => rows::<f16>(&self.gpu, bytes),
            DType::U32 => rows::<u32>(&self.gpu, bytes),
            _ => rows::<f32>(&self.gpu, bytes),
        }
    }

    /// Adds room for `tokens` tokens to all of `sets`, in pages that begin and end at the same tokens, of whole segments
    /// and where possible of whole batches.
    ///
    /// # Errors
    /// Memory does not suffice: what the device said, and for how many tokens it does.
    pub fn grow(
        sets: &mut [&mut Paged],
        tokens: usize,
        segment: usize,
        batch: usize,
    ) -> Result<(), (Error, usize)> {
        let Some(gpu) = sets.first().map(|s| s.gpu.clone()) else { return Ok(()) };
        let capabilities = gpu.capabilities();
        let limit = capabilities.max_binding.min(capabilities.max_buffer).min(PAGE_BYTES);
        let widest = sets.iter().map(|s| s.bytes(segment) as u64).max().expect("a set at least");
        let fitting = (limit / widest).max(1) as usize * segment;
        let mut size = if fitting > batch { fitting / batch * batch } else { fitting };
        let (mut left, mut failure) = (tokens, None);
        while left > 0 && (failure.is_none() || size > batch) {
            let n = size.min(left);
            let new: Vec<Tensor> = with_purpose(Purpose::Memory, || {
                sets.iter().map(|s| Tensor::empty(&gpu, s.shape(n), s.dtype)).collect()
            });
            match gpu.check() {
                Ok(()) => {
                    sets.iter_mut().zip(new).for_each(|(set, page)| set.pages.push(page));
                    left -= n;
                }
                // It is lost, but smaller pages tell how much would have fitted.
                Err(e) => {
                    size = n / 2 / segment * segment;
                    failure.get_or_insert(e);
                }
            }
        }
        failure.map_or(Ok(()), |e| Err((e, tokens - left)))
    }

    /// The pages that hold parts of `range`: (page, tokens within it, where they lie in the range).
    fn parts(&self, range: Range<usize>) -> impl Iterator<Item = (&Tensor, Range<usize>, usize)> {
        let mut first = 0;
        self.pages.iter().filter_map(move |page| {
            let begin = first;
            first += self.tokens_of(page);
            let (a, b) = (range.start.max(begin), range.end.min(first));
            (a < b).then(|| (page, a - begin..b - begin, a - range.start))
        })
    }

    /// Overwrites the rows from token `start` on by all of `rows`.
    pub fn write(&self, start: usize, rows: &Tensor) {
        let tokens = rows.len() / self.elements(self.span) * self.span;
        for (page, within, from) in self.parts(start..start + tokens) {
            let part;
            let part = if within.len() == tokens {
                rows
            } else {
                part = ops::slice(rows, self.elements(from), self.elements(within.len()));
                &part
            };
            ops::write_slice(page, self.elements(within.start), part);
        }
    }

    /// A copy of the rows of tokens `range`.
    pub fn copy(&self, range: Range<usize>) -> Tensor {
        let out = Tensor::empty(&self.gpu, self.shape(range.len()), self.dtype);
        for (page, within, at) in self.parts(range) {
            let part = ops::slice(page, self.elements(within.start), self.elements(within.len()));
            ops::write_slice(&out, self.elements(at), &part);
        }
        out
    }

    /// The rows of the first `tokens` tokens, shared.
    pub fn prefix(&self, tokens: usize) -> Paged {
        let cut =
            |(page, within, _): (&Tensor, Range<usize>, usize)| page.window(0, &self.shape(within.len()));
        Paged { pages: self.parts(0..tokens).map(cut).collect(), ..self.clone() }
    }

    pub fn append(&mut self, mut further: Paged) {
        self.pages.append(&mut further.pages);
    }
}
