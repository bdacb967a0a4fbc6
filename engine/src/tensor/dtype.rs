//! Element types.

use std::fmt;

use half::f16;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit float; needs the adapter's f16.
    F16,
    /// 32-bit signed integer.
    I32,
    /// 32-bit unsigned integer.
    U32,
}

impl DType {
    /// Bytes an element.
    pub fn bytes(self) -> usize {
        if self == DType::F16 { 2 } else { 4 }
    }

    /// Its name in WGSL.
    pub fn wgsl(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::I32 => "i32",
            DType::U32 => "u32",
        }
    }

    /// One element in WGSL, or four: what `count`, offsets and strides of a launch are then counted in. Pages begin at
    /// multiples of 16 bytes, so that whole fours may be loaded at once.
    pub(crate) fn wgsl_by(self, four: usize) -> &'static str {
        match (self, four) {
            (_, 1) => self.wgsl(),
            (DType::F32, _) => "vec4<f32>",
            (DType::F16, _) => "vec4<f16>",
            (DType::I32, _) => "vec4<i32>",
            (DType::U32, _) => "vec4<u32>",
        }
    }

    /// Four floats as words: `HALF` and `words` of shaders/lib/quads.wgsl.
    pub(crate) fn quad(self) -> (u32, &'static str) {
        if self == DType::F16 { (1, "vec2<u32>") } else { (0, "vec4<u32>") }
    }

    /// Whether it is a float.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16)
    }

    /// A four-byte word that repeats `value`.
    pub(super) fn pattern(self, value: f64) -> u32 {
        match self {
            DType::F32 => (value as f32).to_bits(),
            DType::F16 => u32::from(f16::from_f64(value).to_bits()) * 0x1_0001,
            DType::I32 => value as i32 as u32,
            DType::U32 => value as u32,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wgsl())
    }
}

/// A host type whose slices are tensor data.
pub trait Element: bytemuck::Pod {
    /// The tensor's element type.
    const DTYPE: DType;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;
}

impl Element for i32 {
    const DTYPE: DType = DType::I32;
}

impl Element for u32 {
    const DTYPE: DType = DType::U32;
}
