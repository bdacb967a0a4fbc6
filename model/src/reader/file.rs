//! The memory of a text in a file: read once, asked many times, continued where it stopped or where the text grew.

mod log;
mod writing;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rambutan_engine::DType;
use twox_hash::XxHash3_64;

use self::log::{About, Log};
use super::{
    Keeping, Paged, Placement, Reader, Source, TextFile,
    cut::Cut,
    values::{Host, Recomputed, Stored, Values},
};
use crate::{Error, Ramba};
pub use writing::{Manner, Written, write};

/// What can be wrong with a memory file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The system refused.
    #[error("cannot {action} the memory {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is something else.
    #[error("{} is no memory: expected a file that `rambutan read` wrote", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It is of another version.
    #[error("the memory {} has version {found}, and this program knows version {known}: read the text again", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Its end is missing.
    #[error("the memory {} is truncated: {needed} bytes were committed, {found} are there: read the text again", path.display())]
    Cut {
        /// The file.
        path: PathBuf,
        /// Bytes that were committed.
        needed: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// A checksum is wrong.
    #[error("the memory {} is damaged: {what}, at byte {at}, is not what was written: read the text again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which part.
        what: String,
        /// Where it lies.
        at: u64,
    },
    /// It was made otherwise.
    #[error("the memory {} was read with {found}, and this is {expected}: expected the same", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What it was read with.
        found: String,
        /// What is at hand.
        expected: String,
    },
    /// Somebody writes to it.
    #[error("the memory {} is being written to by another program: wait for it to end", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The text is not the one that was read.
    #[error("the text {} is not as it was read: it differs from byte {at} on: `rambutan read` brings the memory up to date", path.display())]
    TextChanged {
        /// The text.
        path: PathBuf,
        /// Where.
        at: usize,
    },
    /// The text is shorter than what was read of it.
    #[error(
        "the text {} is truncated: {needed} bytes of it were read, {found} are there: `rambutan read` brings the memory up to date",
        path.display()
    )]
    TextCut {
        /// The text.
        path: PathBuf,
        /// Bytes that were read.
        needed: usize,
        /// Bytes that are there.
        found: usize,
    },
}

/// A memory file, open to be asked.
pub struct MemoryFile {
    log: Log,
}

impl MemoryFile {
    /// Opens and maps it. Only its outline is checked here, its pages when they are used.
    ///
    /// # Errors
    /// It is no memory, or damaged.
    pub fn open(path: &Path) -> Result<MemoryFile, Error> {
        Ok(MemoryFile { log: Log::open(path, false)? })
    }

    /// Whether it was read in half precision.
    pub fn is_half(&self) -> bool {
        self.log.about.dtype == DType::F16.wgsl()
    }

    /// How landmarks are, and where keys and values are: in the file ([`Placement::Host`]), or computed again
    /// ([`Placement::Text`]).
    ///
    /// # Errors
    /// It says that landmarks are as this program does not know.
    pub fn keeps(&self) -> Result<Keeping, Error> {
        let values = if self.log.about.values > 0 { Placement::Host } else { Placement::Text };
        Ok(Keeping { values, landmarks: self.log.about.landmarks_as.parse()? })
    }

    /// The text that was read.
    pub fn text(&self) -> &Path {
        Path::new(&self.log.text)
    }

    /// Tokens that are in memory, and bytes that the text had.
    pub fn tokens(&self) -> (usize, usize) {
        let (_, rest) = self.log.before_and_rest();
        (self.log.commit.tokens as usize + rest.len(), self.log.commit.size as usize)
    }

    /// A reader that has read the text; where segments overlap it reads on only behind all of it. `fingerprint`: that of the
    /// model's checkpoint; `text`: where the text is, which must be at hand where keys and values are computed again from it.
    ///
    /// # Errors
    /// Other weights read it, a page is damaged, or the device's memory does not hold the landmarks.
    pub fn reader<'m>(
        self,
        model: &'m Ramba,
        fingerprint: &str,
        text: Option<Arc<TextFile>>,
    ) -> Result<Reader<'m>, Error> {
        let keeps = self.keeps()?;
        let expected = about(model, fingerprint, keeps, 0)?;
        agrees(&self.log, &expected)?;
        let (tokens, segment) = (self.log.commit.tokens as usize, self.log.about.segment);
        let mut reader = Reader::placed(model, keeps)?;
        let gpu = model.gpu();
        Paged::grow(&mut reader.landmarks.paged(), tokens, segment, segment).map_err(|(source, fit)| {
            let bytes_per_token = reader.bytes_per_token();
            Error::TextTooLong { tokens, fit, bytes_per_token, source }
        })?;
        let (mut start, mut uploaded) = (0, 0);
        for number in 0..self.log.whole().div_ceil(self.log.about.page) {
            let page = self.log.checked(number)?;
            let segments = page.segments.min((tokens - start) / segment);
            let bytes = &page.landmarks[..segments * self.log.about.landmarks];
            reader.landmarks.write(start, &reader.landmarks.upload(bytes, segment)?);
            start += segments * segment;
            uploaded += bytes.len();
            // What waits to be uploaded lies in host memory until it is.
            if uploaded >= 64 << 20 {
                gpu.wait()?;
                uploaded = 0;
            }
        }
        gpu.wait()?;
        let (before, rest) = self.log.before_and_rest();
        (reader.before, reader.rest) = (before.map(<[u8]>::to_vec), rest.to_vec());
        let c = &model.config;
        let shared = Arc::new(self.log);
        reader.values = match (keeps.values, text) {
            (Placement::Host, _) => {
                let row = [c.num_kv_heads, c.attention_head_dim];
                let stored = Arc::new(InFile { log: shared, chunk: c.chunk_size });
                Values::Host(Host::stored(c.chunk_size, row, model.dtype(), stored))
            }
            (_, text) => {
                let text = match text {
                    Some(text) => text,
                    None => Arc::new(TextFile::open(Path::new(&shared.text))?),
                };
                let needed = tokens + reader.rest.len();
                if text.size() < needed {
                    let (path, found) = (text.path().into(), text.size());
                    return Err(MemoryError::TextCut { path, needed, found }.into());
                }
                let cut = Cut::along(segment, shared.about.overlap, 0);
                let mut parts = Recomputed::new(cut);
                if tokens > 0 {
                    parts.push([tokens, 0], cut, Vec::new(), Arc::new(AsRead { log: shared, text }));
                }
                Values::Text(parts)
            }
        };
        Ok(reader)
    }
}

/// What a file that `model` reads a text into says of itself.
fn about(model: &Ramba, fingerprint: &str, keeps: Keeping, page: usize) -> Result<About, Error> {
    let reader = Reader::placed(model, keeps)?;
    let segment = reader.segment;
    Ok(About {
        fingerprint: fingerprint.into(),
        dtype: model.dtype().wgsl().into(),
        keeps: keeps.values.name().into(),
        landmarks_as: keeps.landmarks.name().into(),
        segment,
        overlap: reader.overlap,
        page: (page / segment).max(1),
        landmarks: reader.landmarks.bytes(segment),
        values: if keeps.values == Placement::Host { reader.values.bytes(segment)[1] } else { 0 },
    })
}

/// Says where a file was made otherwise.
fn agrees(log: &Log, expected: &About) -> Result<(), MemoryError> {
    let found = &log.about;
    // Pages may be of any size.
    if *found == (About { page: found.page, ..expected.clone() }) {
        return Ok(());
    }
    let told =
        |found: String, expected: String| Err(MemoryError::Other { path: log.path.clone(), found, expected });
    let short = |f: &str| format!("the weights {}", f.chars().take(12).collect::<String>());
    if found.fingerprint != expected.fingerprint {
        return told(short(&found.fingerprint), short(&expected.fingerprint));
    }
    if found.dtype != expected.dtype {
        return told(found.dtype.clone(), expected.dtype.clone());
    }
    if found.keeps != expected.keeps {
        return told(format!("values kept in {}", found.keeps), format!("kept in {}", expected.keeps));
    }
    if found.landmarks_as != expected.landmarks_as {
        return told(
            format!("landmarks kept as {}", found.landmarks_as),
            format!("kept as {}", expected.landmarks_as),
        );
    }
    if found.overlap != expected.overlap {
        let before = |overlap| format!("segments that overlap by {overlap} tokens");
        return told(before(found.overlap), before(expected.overlap));
    }
    told(format!("{found:?}"), format!("{expected:?}"))
}

/// Keys and values in a file.
struct InFile {
    log: Arc<Log>,
    chunk: usize,
}

impl Stored for InFile {
    fn tokens(&self) -> usize {
        self.log.commit.tokens as usize
    }

    fn chunk(&self, chunk: usize, keys: &mut [u8], values: &mut [u8]) -> Result<(), Error> {
        let about = &self.log.about;
        let per = about.segment / self.chunk;
        let (segment, chunk) = (chunk / per, chunk % per);
        let (number, within) = (segment / about.page, segment % about.page);
        let damaged = || MemoryError::Damaged {
            path: self.log.path.clone(),
            what: format!("keys and values of segment {segment}"),
            at: self.log.place(number),
        };
        let page = self.log.page(number).ok_or_else(damaged)?;
        let bytes = &page.values[within * about.values..(within + 1) * about.values];
        if crc32fast::hash(bytes) != page.values_crc(within) {
            return Err(damaged().into());
        }
        let (all_keys, all_values) = bytes.split_at(bytes.len() / 2);
        keys.copy_from_slice(&all_keys[chunk * keys.len()..(chunk + 1) * keys.len()]);
        values.copy_from_slice(&all_values[chunk * values.len()..(chunk + 1) * values.len()]);
        Ok(())
    }
}

/// A text that must be as it was when it was read. It is asked for one segment at a time, with what is in front of it.
struct AsRead {
    log: Arc<Log>,
    text: Arc<TextFile>,
}

impl Source for AsRead {
    fn size(&self) -> usize {
        self.log.commit.tokens as usize
    }

    fn fill(&self, at: usize, into: &mut [u8]) -> Result<(), Error> {
        let about = &self.log.about;
        let number = (at + into.len()) / about.segment - 1;
        self.text.fill(at, into)?;
        let page = self.log.page(number / about.page);
        let hash = page.map(|page| page.hash(number % about.page));
        if hash != Some(XxHash3_64::oneshot(into)) {
            return Err(MemoryError::TextChanged { path: self.text.path().into(), at }.into());
        }
        Ok(())
    }
}
