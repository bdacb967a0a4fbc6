//! Landmarks of what was read, in pages on the device.

use std::{fmt, ops::Range, str::FromStr};

use rambutan_engine::{DType, Tensor, no_grad, ops};

use super::paged::Paged;
use crate::{Error, Ramba};

/// How landmarks are kept. They are on the device in any case, and looked at for every token that is asked or answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Landmarks {
    /// In the type that the model computes in.
    #[default]
    Float,
    /// In eight bits, with a scale for each 32 dims: a value differs by no more than 1/254 of the largest of these. Now and
    /// then another chunk is selected in the place of one that matches about as well: with the shipped weights 3 to 4 of
    /// 1000 among 100 facts, 11 among 300 that are hard to tell apart.
    Int8,
}

impl Landmarks {
    /// Both.
    pub const ALL: [Landmarks; 2] = [Landmarks::Float, Landmarks::Int8];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Landmarks::Float => "float",
            Landmarks::Int8 => "int8",
        }
    }
}

impl fmt::Display for Landmarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Landmarks {
    type Err = Error;

    fn from_str(name: &str) -> Result<Landmarks, Error> {
        Landmarks::ALL.into_iter().find(|l| l.name() == name).ok_or_else(|| Error::Setting {
            field: "how landmarks are kept".into(),
            value: name.into(),
            expected: "float or int8".into(),
        })
    }
}

/// All of them: floats, or numbers and their scales.
#[derive(Clone)]
pub(super) struct Marks {
    parts: Vec<Paged>,
}

impl Marks {
    pub fn new(model: &Ramba, kind: Landmarks) -> Marks {
        let (gpu, c) = (model.gpu(), &model.config);
        let (heads, dim) = (c.retrieval_heads(), c.retrieval_head_dim());
        let paged = |width: usize, dtype: DType| Paged::new(gpu, c.chunk_size, [heads, width], dtype);
        Marks {
            parts: match kind {
                Landmarks::Float => vec![paged(dim, model.dtype())],
                Landmarks::Int8 => {
                    let [numbers, scales] = ops::landmark_in_bytes(dim);
                    vec![paged(numbers / 4, DType::U32), paged(scales, DType::F32)]
                }
            },
        }
    }

    /// None of the same kind.
    pub fn like(&self) -> Marks {
        Marks { parts: self.parts.iter().map(Paged::like).collect() }
    }

    pub fn kind(&self) -> Landmarks {
        if self.parts.len() == 1 { Landmarks::Float } else { Landmarks::Int8 }
    }

    pub fn tokens(&self) -> usize {
        self.parts[0].tokens()
    }

    /// Bytes of so many tokens, in each part.
    pub fn sizes(&self, tokens: usize) -> Vec<usize> {
        self.parts.iter().map(|p| p.bytes(tokens)).collect()
    }

    pub fn bytes(&self, tokens: usize) -> usize {
        self.sizes(tokens).iter().sum()
    }

    pub fn paged(&mut self) -> Vec<&mut Paged> {
        self.parts.iter_mut().collect()
    }

    /// What selection takes.
    pub fn pages(&self) -> Vec<ops::Landmarks> {
        match &self.parts[..] {
            [floats] => floats.pages().iter().cloned().map(Into::into).collect(),
            parts => {
                let (numbers, scales) = (parts[0].pages().iter(), parts[1].pages().iter());
                let both = |(n, s): (&Tensor, &Tensor)| (n.clone(), s.clone());
                let all = numbers.zip(scales).map(both);
                all.map(|(numbers, scales)| ops::Landmarks::Bytes { numbers, scales }).collect()
            }
        }
    }

    /// What is kept of landmarks as they were computed, (segments, chunks, heads, dim).
    pub fn kept(&self, landmarks: &Tensor) -> Vec<Tensor> {
        if self.kind() == Landmarks::Float {
            return vec![landmarks.clone()];
        }
        let [segments, chunks, heads, dim]: [usize; 4] = landmarks.axes();
        let all = landmarks.reshape([1, segments * chunks, heads, dim]);
        match no_grad(|| ops::quantize_landmarks(&all)) {
            ops::Landmarks::Bytes { numbers, scales } => vec![numbers, scales],
            ops::Landmarks::Floats(floats) => vec![floats],
        }
    }

    /// Overwrites those from token `start` on by what [`Marks::kept`] or [`Marks::copy`] gave.
    pub fn write(&self, start: usize, kept: &[Tensor]) {
        self.parts.iter().zip(kept).for_each(|(part, rows)| part.write(start, rows));
    }

    /// A copy of those of tokens `range`.
    pub fn copy(&self, range: Range<usize>) -> Vec<Tensor> {
        self.parts.iter().map(|part| part.copy(range.clone())).collect()
    }

    /// Those of the first `tokens` tokens, shared.
    pub fn prefix(&self, tokens: usize) -> Marks {
        Marks { parts: self.parts.iter().map(|part| part.prefix(tokens)).collect() }
    }

    pub fn append(&mut self, further: Marks) {
        self.parts.iter_mut().zip(further.parts).for_each(|(part, more)| part.append(more));
    }

    /// Whole segments' landmarks of a file, in which a segment's numbers come before its scales.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn upload(&self, bytes: &[u8], segment: usize) -> Result<Vec<Tensor>, Error> {
        let sizes = self.sizes(segment);
        let (whole, mut first) = (sizes.iter().sum::<usize>(), 0);
        let part = |(part, &size): (&Paged, &usize)| {
            let range = first..first + size;
            first += size;
            let rows: Vec<u8> = bytes.chunks(whole).flat_map(|s| &s[range.clone()]).copied().collect();
            part.upload(&rows)
        };
        self.parts.iter().zip(&sizes).map(part).collect()
    }
}
