//! Texts to be read: in memory, or wherever bytes can be had by their place.

use std::{borrow::Cow, ops::Range, sync::Arc};

use crate::Error;

/// A text of which any part can be had: a file, say, of which only what is asked for is ever in memory.
pub trait Source: Send + Sync {
    /// Its bytes, as many as there were at first.
    fn size(&self) -> usize;

    /// The bytes from `at` on.
    ///
    /// # Errors
    /// They are not there, or not as they were.
    fn fill(&self, at: usize, into: &mut [u8]) -> Result<(), Error>;
}

impl Source for Vec<u8> {
    fn size(&self) -> usize {
        self.len()
    }

    fn fill(&self, at: usize, into: &mut [u8]) -> Result<(), Error> {
        into.copy_from_slice(&self[at..at + into.len()]);
        Ok(())
    }
}

/// What [`Reader::start`](super::Reader::start) takes.
pub enum Text<'t> {
    /// The caller's.
    Borrowed(&'t [u8]),
    /// One that may be kept: where keys and values are computed again from the text, nothing is copied.
    Shared(Arc<dyn Source>),
}

impl Text<'_> {
    /// Its bytes.
    pub fn len(&self) -> usize {
        match self {
            Text::Borrowed(bytes) => bytes.len(),
            Text::Shared(source) => source.size(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn bytes(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>, Error> {
        match self {
            Text::Borrowed(bytes) => Ok(Cow::Borrowed(&bytes[range])),
            Text::Shared(source) => {
                let mut bytes = vec![0; range.len()];
                source.fill(range.start, &mut bytes)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    pub(super) fn shared(&self) -> Arc<dyn Source> {
        match self {
            Text::Borrowed(bytes) => Arc::new(bytes.to_vec()),
            Text::Shared(source) => source.clone(),
        }
    }
}

impl<'t> From<&'t [u8]> for Text<'t> {
    fn from(bytes: &'t [u8]) -> Text<'t> {
        Text::Borrowed(bytes)
    }
}

impl<'t, const N: usize> From<&'t [u8; N]> for Text<'t> {
    fn from(bytes: &'t [u8; N]) -> Text<'t> {
        Text::Borrowed(bytes)
    }
}

impl<'t> From<&'t Vec<u8>> for Text<'t> {
    fn from(bytes: &'t Vec<u8>) -> Text<'t> {
        Text::Borrowed(bytes)
    }
}

impl From<Vec<u8>> for Text<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Text::Shared(Arc::new(bytes))
    }
}

impl From<Arc<dyn Source>> for Text<'_> {
    fn from(source: Arc<dyn Source>) -> Self {
        Text::Shared(source)
    }
}

/// A file of text, of which only what is asked for is read. Where it has shrunk meanwhile, that is an error.
#[cfg(not(target_arch = "wasm32"))]
pub struct TextFile {
    path: std::path::PathBuf,
    file: std::fs::File,
    size: usize,
}

#[cfg(not(target_arch = "wasm32"))]
impl TextFile {
    /// Opens it; devices and pipes, which may never end, are refused.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(path: &std::path::Path) -> Result<TextFile, crate::data::DataError> {
        let open = || {
            // A pipe would wait for somebody to write.
            if !std::fs::metadata(path)?.is_file() {
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
            }
            let file = std::fs::File::open(path)?;
            let size = file.metadata()?.len() as usize;
            Ok(TextFile { path: path.to_owned(), file, size })
        };
        open().map_err(|source| crate::data::DataError::Read { path: path.to_owned(), source })
    }

    /// Its path, as it was opened.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    fn read(&self, at: usize, into: &mut [u8]) -> std::io::Result<()> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_exact_at(&self.file, into, at as u64);
        #[cfg(not(unix))]
        {
            use std::io::{Read as _, Seek as _};
            let mut file = self.file.try_clone()?;
            file.seek(std::io::SeekFrom::Start(at as u64))?;
            file.read_exact(into)
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Source for TextFile {
    fn size(&self) -> usize {
        self.size
    }

    fn fill(&self, at: usize, into: &mut [u8]) -> Result<(), Error> {
        self.read(at, into).map_err(|source| {
            let source = match source.kind() {
                std::io::ErrorKind::UnexpectedEof => std::io::Error::new(
                    source.kind(),
                    format!("it ends before byte {}, and had {} bytes", at + into.len(), self.size),
                ),
                _ => source,
            };
            Error::Data(crate::data::DataError::Read { path: self.path.clone(), source })
        })
    }
}
