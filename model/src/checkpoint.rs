//! Checkpoints: weights, optimizer moments and training state in one safetensors file.
//!
//! Reading trusts nothing. The header is checked first (its length against the file's, every offset, every size, gaps
//! and overlaps), then the configuration, then names, types and shapes against it, and only then is memory taken for
//! the numbers, which must be finite. So no file, however hostile, makes the reader panic or take more memory than a
//! small multiple of the file's length.
//!
//! Writing is atomic: a temporary file in the same folder, flushed to the disk, takes the old file's place in one
//! step. Whatever goes wrong before, the old file stays and the temporary one is removed.
//!
//! Layout: parameters stand under their official names; further tensors under `optimizer.m.NAME`,
//! `optimizer.v.NAME` (moments of parameter NAME, of its shape, always f32) or `extra.ANYTHING`. The header's metadata
//! hold `rambutan.format_version`, `rambutan.config` (the configuration's JSON), `rambutan.training` (any JSON) and
//! what the caller adds. Files without a version come from elsewhere; their configuration lies beside them as
//! `config.json`, or is given. The same checkpoint gives the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use half::f16;
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use crate::config::{Config, ConfigError};
use crate::json::{complaint, edit_distance, shown};

#[cfg(not(target_arch = "wasm32"))]
mod file;
mod header;
#[cfg(test)]
mod tests;

#[cfg(not(target_arch = "wasm32"))]
pub use file::{remove_half_written, write_atomically};
pub use header::{Header, TensorEntry};

/// The version of the layout that this crate writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// How many names an error lists.
const LISTED: usize = 4;

const PREFIX: &str = "rambutan.";
const MOMENTS: [&str; 2] = ["optimizer.m.", "optimizer.v."];
const EXTRA: &str = "extra.";

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Something about the file of this name.
    #[error("{path}: {source}")]
    At {
        /// The file.
        path: String,
        /// What about it.
        source: Box<CheckpointError>,
    },
    /// The system refused.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file ends too early.
    #[error("truncated: {needed} bytes are needed for {what}, {found} are there")]
    Truncated {
        /// What does not fit.
        what: &'static str,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that the file has.
        found: u64,
    },
    /// Bytes follow the last tensor.
    #[error("{bytes} bytes follow the last tensor")]
    Trailing {
        /// How many.
        bytes: u64,
    },
    /// The header cannot be understood.
    #[error("not a safetensors header: {0}")]
    Header(String),
    /// The header says something impossible about a tensor.
    #[error("tensor {tensor}: {reason}")]
    Layout {
        /// The tensor.
        tensor: String,
        /// What is impossible.
        reason: String,
    },
    /// The file's names are not those of the configuration's model.
    #[error(
        "the tensors are not those of the configuration{}{}",
        list("missing", missing),
        list("unexpected", unexpected)
    )]
    Names {
        /// Names that should be there.
        missing: Vec<String>,
        /// Names that should not, the first few with the nearest right name.
        unexpected: Vec<String>,
    },
    /// A tensor has the wrong shape.
    #[error("tensor {tensor}: shape {found:?}, the configuration asks for {expected:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// The right shape.
        expected: Vec<usize>,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A tensor has a type that weights cannot have.
    #[error("tensor {tensor}: type {found}, expected F32, F16 or BF16")]
    Dtype {
        /// The tensor.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// A number is not finite.
    #[error("tensor {tensor}: element {index} is {value}")]
    NonFinite {
        /// The tensor.
        tensor: String,
        /// Which element, in row-major order.
        index: usize,
        /// The number.
        value: f32,
    },
    /// A number is too large for f16.
    #[error("tensor {tensor}: element {index} is {value}, beyond f16's ±65504; write f32")]
    Range {
        /// The tensor.
        tensor: String,
        /// Which element, in row-major order.
        index: usize,
        /// The number.
        value: f32,
    },
    /// An entry of the metadata cannot be used.
    #[error("metadata {key}: {reason}")]
    Metadata {
        /// The entry.
        key: String,
        /// Why.
        reason: String,
    },
    /// The configuration cannot be used.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// There is no configuration to go by.
    #[error("no configuration: neither in the file's metadata nor as config.json beside it")]
    NoConfig,
    /// There is no memory for the numbers.
    #[error("tensor {tensor}: no memory for {bytes} bytes")]
    Memory {
        /// The tensor.
        tensor: String,
        /// How much it needs.
        bytes: u64,
    },
}

fn list(what: &str, names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let more = names.len().saturating_sub(LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("; {what}: {}{more}", names[..names.len().min(LISTED)].join(", "))
}

fn layout<T>(tensor: &str, reason: impl Into<String>) -> Result<T, CheckpointError> {
    Err(CheckpointError::Layout { tensor: shown(tensor), reason: reason.into() })
}

fn metadata_error<T>(key: &str, reason: impl Into<String>) -> Result<T, CheckpointError> {
    Err(CheckpointError::Metadata { key: shown(key), reason: reason.into() })
}

/// Numbers in host memory, row-major.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostTensor {
    /// Length of each dimension.
    pub shape: Vec<usize>,
    /// The product of the lengths, in numbers.
    pub data: Vec<f32>,
}

impl HostTensor {
    /// A tensor of this shape.
    ///
    /// # Panics
    /// If the data's length is not the shape's product.
    #[track_caller]
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(
            shape.iter().product::<usize>(),
            data.len(),
            "HostTensor::new: shape {shape:?} and data length"
        );
        Self { shape, data }
    }
}

/// How parameters are written. Moments and extras are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 4 bytes a number, exact: for training checkpoints.
    #[default]
    F32,
    /// 2 bytes a number, rounded to nearest: for weights to ship. Numbers beyond f16's range are an error.
    F16,
}

/// What stands beside the tensors.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    /// The file's layout version; 0 for files from elsewhere. What is written always has [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The training state, any JSON. Integers of 64 bits come back exactly; floats should go in as their bits, for
    /// decimal text need not bring back the last one.
    pub training: Option<Value>,
    /// Further entries, not ours to understand. Keys that begin with `rambutan.` are refused.
    pub extra: BTreeMap<String, String>,
}

/// A model's numbers, its configuration, and what a resumed training needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// What the model is.
    pub config: Config,
    /// The parameters, exactly those of [`Config::parameters`], by official name.
    pub tensors: BTreeMap<String, HostTensor>,
    /// Further tensors under their full names: `optimizer.m.NAME` and `optimizer.v.NAME` for all parameters or for
    /// none, and `extra.ANYTHING`.
    pub extras: BTreeMap<String, HostTensor>,
    /// What stands beside the tensors.
    pub metadata: Metadata,
}

impl Checkpoint {
    /// 32 hexadecimal digits that stand for configuration and weights: equal for equal ones, whatever else the file holds.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn fingerprint(&self) -> String {
        let mut hash = twox_hash::XxHash3_128::new();
        hash.write(self.config.to_json().as_bytes());
        for (name, tensor) in &self.tensors {
            hash.write(name.as_bytes());
            for axis in &tensor.shape {
                hash.write(&(*axis as u64).to_le_bytes());
            }
            hash.write(bytemuck::cast_slice(&tensor.data));
        }
        format!("{:032x}", hash.finish_128())
    }

    /// An untrained model; the same numbers for the same seed on every machine.
    pub fn initial(config: Config, seed: u64) -> Result<Self, CheckpointError> {
        config.validate()?;
        let tensors = config
            .parameters()
            .into_iter()
            .map(|spec| (spec.name.clone(), HostTensor::new(spec.shape.clone(), spec.initial(seed))))
            .collect();
        Ok(Self { config, tensors, extras: BTreeMap::new(), metadata: Metadata::default() })
    }

    /// Reads a checkpoint that holds its configuration.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        Self::read(&mut &*bytes, bytes.len() as u64, None, || Ok(None))
    }

    /// Reads a checkpoint by this configuration, whatever the file says.
    pub fn from_bytes_with(bytes: &[u8], config: Config) -> Result<Self, CheckpointError> {
        Self::read(&mut &*bytes, bytes.len() as u64, Some(config), || Ok(None))
    }

    /// `given` wins over the file's own configuration, `fallback` is asked where both are absent.
    fn read(
        reader: &mut impl Read,
        length: u64,
        given: Option<Config>,
        fallback: impl FnOnce() -> Result<Option<Config>, CheckpointError>,
    ) -> Result<Self, CheckpointError> {
        let mut header = Header::read(reader, length)?;
        let (embedded, metadata) = take_metadata(std::mem::take(&mut header.metadata))?;
        let config = match (given, embedded) {
            (Some(config), _) => config,
            (None, Some(text)) => Config::from_json(&text)?,
            (None, None) => fallback()?.ok_or(CheckpointError::NoConfig)?,
        };
        config.validate()?;
        check_tensors(
            &config,
            header.tensors.iter().map(|entry| (entry.name.as_str(), entry.shape.as_slice())),
        )?;
        if let Some(entry) = header.tensors.iter().find(|entry| !entry.is_float()) {
            return Err(CheckpointError::Dtype { tensor: shown(&entry.name), found: entry.dtype.clone() });
        }
        let (mut tensors, mut extras) = (BTreeMap::new(), BTreeMap::new());
        for entry in header.tensors {
            let data = entry.read_numbers(reader)?;
            check_finite(&entry.name, &data)?;
            let map = if is_extra(&entry.name) { &mut extras } else { &mut tensors };
            map.insert(entry.name, HostTensor { shape: entry.shape, data });
        }
        Ok(Self { config, tensors, extras, metadata })
    }

    /// Whether the optimizer's moments are here.
    pub fn has_moments(&self) -> bool {
        self.extras.keys().any(|name| name.starts_with(MOMENTS[0]))
    }

    /// The checkpoint as a file's bytes.
    pub fn to_bytes(&self, precision: Precision) -> Result<Vec<u8>, CheckpointError> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes, precision)?;
        Ok(bytes)
    }

    /// Writes the checkpoint, tensor by tensor. Nothing is written where it would not be readable again.
    pub fn write_to(&self, writer: &mut impl Write, precision: Precision) -> Result<(), CheckpointError> {
        let (header, order) = self.header(precision)?;
        write_all(writer, &header, &order).map_err(|source| CheckpointError::Io { action: "write", source })
    }

    /// Checks everything, and lays the file out: its first bytes and the tensors that follow.
    fn header(&self, precision: Precision) -> Result<(Vec<u8>, Vec<(&HostTensor, Dtype)>), CheckpointError> {
        self.config.validate()?;
        let all = self.tensors.iter().chain(&self.extras);
        check_tensors(
            &self.config,
            all.clone().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice())),
        )?;
        for (map, extra) in [(&self.tensors, false), (&self.extras, true)] {
            if let Some(name) = map.keys().find(|name| is_extra(name) != extra) {
                return layout(name, "it is in the wrong map: parameters in tensors, all else in extras");
            }
        }
        let half = |name: &str| precision == Precision::F16 && !is_extra(name);
        for (name, tensor) in all.clone() {
            if tensor.shape.iter().product::<usize>() != tensor.data.len() {
                return layout(name, format!("shape {:?} but {} numbers", tensor.shape, tensor.data.len()));
            }
            check_finite(name, &tensor.data)?;
            let too_large = |x: &f32| !f16::from_f32(*x).is_finite();
            if half(name)
                && let Some(index) = tensor.data.iter().position(too_large)
            {
                return Err(CheckpointError::Range { tensor: shown(name), index, value: tensor.data[index] });
            }
        }

        let mut metadata = Map::new();
        for (key, value) in &self.metadata.extra {
            if key.starts_with(PREFIX) || key == "format" {
                return metadata_error(key, "this key is the format's own");
            }
            metadata.insert(key.clone(), json!(value));
        }
        metadata.insert("format".into(), json!("pt"));
        metadata.insert(format!("{PREFIX}format_version"), json!(FORMAT_VERSION.to_string()));
        metadata.insert(format!("{PREFIX}config"), json!(json!(self.config).to_string()));
        if let Some(training) = &self.metadata.training {
            metadata.insert(format!("{PREFIX}training"), json!(training.to_string()));
        }

        // Wider types first, so that every tensor is aligned to its type; within a type by name.
        let (wide, narrow): (Vec<_>, Vec<_>) = all.partition(|(name, _)| !half(name));
        let mut object = Map::from_iter([("__metadata__".to_string(), Value::Object(metadata))]);
        let (mut order, mut at) = (Vec::new(), 0u64);
        for (name, tensor) in wide.into_iter().chain(narrow) {
            let (dtype, spelt, size) =
                if half(name) { (Dtype::F16, "F16", 2) } else { (Dtype::F32, "F32", 4) };
            let end = at + size * tensor.data.len() as u64;
            object.insert(
                name.clone(),
                json!({"dtype": spelt, "shape": tensor.shape, "data_offsets": [at, end]}),
            );
            order.push((tensor, dtype));
            at = end;
        }
        let mut text = Value::Object(object).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        if text.len() as u64 > header::MAX_BYTES {
            return metadata_error("training", format!("the header would take {} bytes", text.len()));
        }
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut text);
        Ok((bytes, order))
    }
}

fn write_all(
    writer: &mut (impl Write + ?Sized),
    header: &[u8],
    order: &[(&HostTensor, Dtype)],
) -> io::Result<()> {
    writer.write_all(header)?;
    let mut buffer = Vec::with_capacity(1 << 16);
    for (tensor, dtype) in order {
        for piece in tensor.data.chunks(1 << 14) {
            buffer.clear();
            match dtype {
                Dtype::F16 => buffer.extend(piece.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes())),
                _ => buffer.extend(piece.iter().flat_map(|x| x.to_le_bytes())),
            }
            writer.write_all(&buffer)?;
        }
    }
    writer.flush()
}

/// Parts our metadata from others', and the configuration's text from both.
fn take_metadata(mut raw: BTreeMap<String, String>) -> Result<(Option<String>, Metadata), CheckpointError> {
    let key = |name: &str| format!("{PREFIX}{name}");
    let format_version = match raw.remove(&key("format_version")) {
        None => 0,
        Some(text) => match text.parse() {
            Ok(version @ 1..=FORMAT_VERSION) => version,
            Ok(newer) if newer > FORMAT_VERSION => {
                let reason =
                    format!("{newer} is newer than this program, which reads up to {FORMAT_VERSION}");
                return metadata_error(&key("format_version"), reason);
            }
            _ => return metadata_error(&key("format_version"), format!("{} is no version", shown(&text))),
        },
    };
    let training = match raw.remove(&key("training")) {
        None => None,
        Some(text) => match serde_json::from_str(&text) {
            Ok(value) => Some(value),
            Err(e) => return metadata_error(&key("training"), complaint(&e)),
        },
    };
    let config = raw.remove(&key("config"));
    raw.retain(|key, _| key != "format" && !key.starts_with(PREFIX));
    Ok((config, Metadata { format_version, training, extra: raw }))
}

fn is_extra(name: &str) -> bool {
    moment_of(name).is_some() || name.starts_with(EXTRA)
}

/// The parameter whose moment this is.
fn moment_of(name: &str) -> Option<&str> {
    MOMENTS.iter().find_map(|prefix| name.strip_prefix(prefix))
}

/// The names must be those of the configuration's parameters, with moments for all of them or for none, and the
/// shapes theirs.
fn check_tensors<'a>(
    config: &Config,
    found: impl Iterator<Item = (&'a str, &'a [usize])> + Clone,
) -> Result<(), CheckpointError> {
    let mut expected = BTreeMap::new();
    let with_moments = found.clone().any(|(name, _)| moment_of(name).is_some());
    for spec in config.parameters() {
        if with_moments {
            expected.extend(MOMENTS.map(|prefix| (format!("{prefix}{}", spec.name), spec.shape.clone())));
        }
        expected.insert(spec.name, spec.shape);
    }
    let (mut unexpected, mut wrong_shape) = (Vec::new(), None);
    let mut missing = expected.clone();
    for (name, shape) in found {
        match expected.get(name) {
            Some(right) if right == shape => {}
            Some(right) => {
                let error = || CheckpointError::Shape {
                    tensor: shown(name),
                    expected: right.clone(),
                    found: shape.to_vec(),
                };
                wrong_shape.get_or_insert_with(error);
            }
            None if name.starts_with(EXTRA) => {}
            None => unexpected.push(name),
        }
        missing.remove(name);
    }
    if missing.is_empty() && unexpected.is_empty() {
        return wrong_shape.map_or(Ok(()), Err);
    }
    let hinted = |(i, name): (usize, &&str)| {
        let candidates = || missing.keys().chain(expected.keys());
        match (i < LISTED).then(|| nearest(name, candidates())).flatten() {
            Some(near) => format!("{} (near {near})", shown(name)),
            None => shown(name),
        }
    };
    let unexpected = unexpected.iter().enumerate().map(hinted).collect();
    Err(CheckpointError::Names { missing: missing.into_keys().collect(), unexpected })
}

/// The candidate that a name was most likely meant to be, if any is close; the first of equals.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    // The distance takes time in the product of the lengths: neither many nor long names are worth it.
    let length = name.len();
    let close = |candidate: &&String| candidate.len().abs_diff(length) <= length / 3;
    candidates
        .take(2000)
        .filter(|_| length <= 200)
        .filter(close)
        .map(|candidate| (edit_distance(name, candidate), candidate.as_str()))
        .filter(|(distance, _)| *distance <= length / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn check_finite(name: &str, data: &[f32]) -> Result<(), CheckpointError> {
    match data.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(CheckpointError::NonFinite { tensor: shown(name), index, value: data[index] }),
        None => Ok(()),
    }
}
