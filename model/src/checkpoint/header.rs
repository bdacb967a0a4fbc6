//! The safetensors header: eight bytes of length, then JSON that says where each tensor's bytes lie.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::{CheckpointError, layout};
use crate::json::{UniqueMap, complaint, shown};

/// No header of ours comes near; the format itself stops at 100 MB.
pub(super) const MAX_BYTES: u64 = 32 << 20;
/// Nor does any tensor have more dimensions.
const MAX_RANK: usize = 8;

/// A tensor as the header describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// Its type, as safetensors spells it: `F32`, `F16`, `BF16`, `I32` ….
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its length in the file.
    pub bytes: u64,
    kind: Dtype,
}

/// A safetensors header, checked against the file's length: tensors in file order, without gaps or overlaps, and the
/// metadata. It can be read from any safetensors file, a model of ours or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The tensors, in the order of their bytes.
    pub tensors: Vec<TensorEntry>,
    /// The metadata, as written.
    pub metadata: BTreeMap<String, String>,
}

/// The header's object, not yet checked but for names that stand twice.
struct Raw {
    tensors: Vec<(String, TensorInfo)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let (mut tensors, mut metadata) = (Vec::new(), None);
                while let Some(key) = map.next_key::<String>()? {
                    let at = |e: A::Error| A::Error::custom(format_args!("{}: {e}", shown(&key)));
                    if key != "__metadata__" {
                        let info = map.next_value::<TensorInfo>().map_err(at)?;
                        tensors.push((key, info));
                    } else if metadata.replace(map.next_value::<UniqueMap<String>>().map_err(at)?).is_some() {
                        return Err(A::Error::custom("__metadata__ stands twice"));
                    }
                }
                tensors.sort_by(|a, b| a.0.cmp(&b.0));
                if let Some(pair) = tensors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                    return Err(A::Error::custom(format_args!("{} stands twice", shown(&pair[0].0))));
                }
                let metadata = metadata.map(|map| map.0.into_iter().collect()).unwrap_or_default();
                Ok(Raw { tensors, metadata })
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

impl Header {
    /// Reads the header of a file of `length` bytes from its beginning; the reader is left at the first tensor.
    pub fn read(reader: &mut impl Read, length: u64) -> Result<Self, CheckpointError> {
        let truncated = |what, needed| Err(CheckpointError::Truncated { what, needed, found: length });
        if length < 8 {
            return truncated("the header's length", 8);
        }
        let mut size = [0; 8];
        read_exact(reader, &mut size)?;
        let size = u64::from_le_bytes(size);
        if size > MAX_BYTES {
            let reason = format!("it claims {size} bytes, more than {MAX_BYTES}: not a safetensors file?");
            return Err(CheckpointError::Header(reason));
        }
        if size > length - 8 {
            return truncated("the header", size + 8);
        }
        let mut text = vec![0; size as usize];
        read_exact(reader, &mut text)?;
        let raw: Raw = serde_json::from_slice(&text).map_err(|e| CheckpointError::Header(complaint(&e)))?;

        let mut tensors = raw.tensors;
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        let mut end = 0;
        let mut checked = Vec::with_capacity(tensors.len());
        for (name, info) in tensors {
            let entry = TensorEntry::check(name, info, end)?;
            // Cannot overflow: both are differences of addresses that `check` has compared.
            end += entry.bytes;
            checked.push(entry);
        }
        let data = length - 8 - size;
        if end > data {
            return truncated("the tensors", (8 + size).saturating_add(end));
        }
        if end < data {
            return Err(CheckpointError::Trailing { bytes: data - end });
        }
        Ok(Self { tensors: checked, metadata: raw.metadata })
    }
}

impl TensorEntry {
    /// A tensor that must begin at byte `start` of the data.
    fn check(name: String, info: TensorInfo, start: u64) -> Result<Self, CheckpointError> {
        let (begin, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        if end < begin {
            return layout(&name, format!("it ends at byte {end}, before it begins at {begin}"));
        }
        if begin < start {
            return layout(
                &name,
                format!("it begins at byte {begin}, inside another tensor that ends at {start}"),
            );
        }
        if begin > start {
            return layout(
                &name,
                format!("it begins at byte {begin}, {} bytes after the last one", begin - start),
            );
        }
        if info.shape.len() > MAX_RANK {
            return layout(&name, format!("{} dimensions, more than {MAX_RANK}", info.shape.len()));
        }
        let bits =
            info.shape.iter().try_fold(info.dtype.bitsize() as u64, |n, &size| n.checked_mul(size as u64));
        match bits {
            Some(bits) if bits.is_multiple_of(8) && bits / 8 == end - begin => {}
            Some(_) => {
                let reason =
                    format!("shape {:?} of {:?} does not take {} bytes", info.shape, info.dtype, end - begin);
                return layout(&name, reason);
            }
            None => return layout(&name, format!("shape {:?} of {:?} overflows", info.shape, info.dtype)),
        }
        let dtype = format!("{:?}", info.dtype);
        Ok(Self { name, dtype, shape: info.shape, bytes: end - begin, kind: info.dtype })
    }

    /// Whether weights can have this type.
    pub(super) fn is_float(&self) -> bool {
        matches!(self.kind, Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }

    /// Reads the tensor's bytes, the next in the file, as f32.
    pub(super) fn read_numbers(&self, reader: &mut impl Read) -> Result<Vec<f32>, CheckpointError> {
        let size = self.kind.bitsize() / 8;
        let count = self.bytes as usize / size;
        let mut data = Vec::new();
        if data.try_reserve_exact(count).is_err() {
            return Err(CheckpointError::Memory { tensor: shown(&self.name), bytes: 4 * count as u64 });
        }
        let mut buffer = vec![0; (self.bytes as usize).min(1 << 16)];
        let mut left = self.bytes as usize;
        while left > 0 {
            let piece = &mut buffer[..left.min(1 << 16)];
            left -= piece.len();
            read_exact(reader, piece)?;
            match self.kind {
                Dtype::F32 => data.extend(piece.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
                Dtype::F16 => {
                    data.extend(piece.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()))
                }
                Dtype::BF16 => {
                    data.extend(piece.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()))
                }
                _ => {
                    return Err(CheckpointError::Dtype {
                        tensor: shown(&self.name),
                        found: self.dtype.clone(),
                    });
                }
            }
        }
        Ok(data)
    }
}

/// The file may have shrunk since its length was taken.
fn read_exact(reader: &mut impl Read, buffer: &mut [u8]) -> Result<(), CheckpointError> {
    reader.read_exact(buffer).map_err(|source| CheckpointError::Io { action: "read", source })
}
