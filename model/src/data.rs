//! Text to train on and to search: the user's files, and endless generators for those who have none.

mod formats;
#[rustfmt::skip]
mod phrases;
mod prose;
mod words;

pub use formats::Formats;
pub use prose::Prose;

use std::path::{Path, PathBuf};

/// An endless text that is written a piece at a time and read at any length; equal seeds give equal texts.
pub trait TextStream {
    /// What is written, and how much of it was read.
    fn written(&mut self) -> (&mut Vec<u8>, &mut usize);

    /// Writes the next piece.
    fn write(&mut self);

    /// Fills `out` with the next bytes.
    fn fill(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            let (text, read) = self.written();
            let n = out.len().min(text.len() - *read);
            if n == 0 {
                text.clear();
                *read = 0;
                self.write();
                continue;
            }
            let (now, later) = out.split_at_mut(n);
            now.copy_from_slice(&text[*read..*read + n]);
            *read += n;
            out = later;
        }
    }

    /// Lets go of what was read.
    fn forget(&mut self) {
        let (text, read) = self.written();
        text.drain(..*read);
        text.shrink_to_fit();
        *read = 0;
    }

    /// The next `length` bytes.
    fn text(&mut self, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        self.fill(&mut out);
        out
    }
}

/// What can be wrong with texts, task settings and the building of batches.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file cannot be read.
    #[error("cannot read the text file {}: {source}; check that it exists, is a file and may be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No file was given.
    #[error("no text file was given; expected at least one (leave the option out to use generated text)")]
    NoFiles,
    /// The text has no characters but white space.
    #[error("the text {name} is empty; expected UTF-8 text; give a file with text in it")]
    Empty {
        /// The file, or what the text is.
        name: String,
    },
    /// The text has NUL bytes.
    #[error(
        "the text {name} is binary (a NUL byte at offset {offset}); expected UTF-8 text; \
         extract the text first, or convert UTF-16 with `iconv -f UTF-16 -t UTF-8`"
    )]
    Binary {
        /// The file, or what the text is.
        name: String,
        /// Where the first NUL byte stands.
        offset: usize,
    },
    /// The text is not UTF-8.
    #[error(
        "the text {name} is not UTF-8 (an invalid byte at offset {offset}); expected UTF-8 text; \
         convert it, for Latin-1 with `iconv -f LATIN1 -t UTF-8`"
    )]
    NotUtf8 {
        /// The file, or what the text is.
        name: String,
        /// Where the first invalid byte stands.
        offset: usize,
    },
    /// The text is shorter than what is to be cut from it.
    #[error("{what} has {have} bytes; expected at least {need}; give more text or choose a shorter length")]
    TooShort {
        /// Which text.
        what: &'static str,
        /// Its length.
        have: usize,
        /// The least length.
        need: usize,
    },
    /// A setting has a value that makes no sense.
    #[error("{field} is {value}; expected {expected}")]
    Setting {
        /// The setting's name.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// A text to hide needles in already has one of that kind.
    #[error(
        "the text already says `{found}` at offset {offset}; expected a text that does not, because one question would \
         have two answers; remove it or use another text"
    )]
    Occupied {
        /// What it says there, as far as its line goes.
        found: String,
        /// Where it stands.
        offset: usize,
    },
    /// A thread that builds batches has died; this is a bug.
    #[error("a thread that builds batches stopped: {message}; this is a bug, please report it")]
    Worker {
        /// What the thread said.
        message: String,
    },
}

/// Refuses what is not text: empty, with NUL bytes, or not UTF-8.
pub fn check_text(name: &str, bytes: &[u8]) -> Result<(), DataError> {
    let name = || name.to_owned();
    if let Some(offset) = bytes.iter().position(|&b| b == 0) {
        return Err(DataError::Binary { name: name(), offset });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| DataError::NotUtf8 { name: name(), offset: error.valid_up_to() })?;
    if text.trim().is_empty() {
        return Err(DataError::Empty { name: name() });
    }
    Ok(())
}

/// Reads one file as it is. Devices and pipes, which may never end, are refused.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    let read = || {
        if !std::fs::metadata(path)?.is_file() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
        }
        std::fs::read(path)
    };
    read().map_err(|source| DataError::Read { path: path.to_owned(), source })
}

/// Reads one text file and checks it.
pub fn read_text(path: &Path) -> Result<Vec<u8>, DataError> {
    let bytes = read_bytes(path)?;
    check_text(&path.display().to_string(), &bytes)?;
    Ok(bytes)
}

/// The user's texts, the end of each held out from training.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corpus {
    train: Vec<u8>,
    held: Vec<u8>,
}

impl Corpus {
    /// Reads the files; the last `held_share` of each (0 ≤ share < 1) is held out.
    pub fn load<P: AsRef<Path>>(paths: &[P], held_share: f64) -> Result<Self, DataError> {
        check_share(held_share)?;
        if paths.is_empty() {
            return Err(DataError::NoFiles);
        }
        let mut corpus = Self::default();
        for path in paths {
            corpus.push(&read_text(path.as_ref())?, held_share);
        }
        Ok(corpus)
    }

    /// A corpus of one text that is already in memory; `name` is for errors.
    pub fn from_text(name: &str, text: &[u8], held_share: f64) -> Result<Self, DataError> {
        check_share(held_share)?;
        check_text(name, text)?;
        let mut corpus = Self::default();
        corpus.push(text, held_share);
        Ok(corpus)
    }

    /// `text` is valid UTF-8; the border falls on a character's first byte.
    fn push(&mut self, text: &[u8], held_share: f64) {
        let mut border = text.len() - (text.len() as f64 * held_share) as usize;
        while border < text.len() && text[border] & 0xc0 == 0x80 {
            border += 1;
        }
        for (part, text) in [(&mut self.train, &text[..border]), (&mut self.held, &text[border..])] {
            if !part.is_empty() && !text.is_empty() {
                part.extend_from_slice(b"\n\n");
            }
            part.extend_from_slice(text);
        }
    }

    /// The text to train on.
    pub fn train(&self) -> &[u8] {
        &self.train
    }

    /// The text never trained on; empty if nothing was held out.
    pub fn held(&self) -> &[u8] {
        &self.held
    }
}

fn check_share(share: f64) -> Result<(), DataError> {
    if (0.0..1.0).contains(&share) {
        return Ok(());
    }
    let expected = "at least 0 and below 1".to_owned();
    Err(DataError::Setting { field: "the held-out share", value: share.to_string(), expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Temporary(PathBuf);
    impl Temporary {
        fn new(name: &str, bytes: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("rambutan-data-{}-{name}", std::process::id()));
            std::fs::write(&path, bytes).unwrap();
            Self(path)
        }
    }
    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn refusal(name: &str, bytes: &[u8]) -> DataError {
        let file = Temporary::new(name, bytes);
        let error = Corpus::load(&[&file.0], 0.1).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        error
    }

    #[test]
    fn refuses_what_is_not_text() {
        assert!(matches!(refusal("empty", b""), DataError::Empty { .. }));
        assert!(matches!(refusal("blank", b" \n\t\n"), DataError::Empty { .. }));
        assert!(matches!(refusal("binary", b"ab\0cd"), DataError::Binary { offset: 2, .. }));
        assert!(matches!(refusal("latin1", b"caf\xe9 au lait"), DataError::NotUtf8 { offset: 3, .. }));
        let missing = Corpus::load(&["/no/such/file"], 0.1).unwrap_err();
        assert!(matches!(missing, DataError::Read { .. }) && missing.to_string().contains("/no/such/file"));
        assert!(matches!(Corpus::load(&[std::env::temp_dir()], 0.1), Err(DataError::Read { .. })));
        assert!(matches!(Corpus::load::<&str>(&[], 0.1), Err(DataError::NoFiles)));
        for share in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(Corpus::from_text("x", b"text", share), Err(DataError::Setting { .. })));
        }
    }

    #[test]
    fn splits_each_file_by_position() {
        let (a, b) = (Temporary::new("a", &[b'a'; 1000]), Temporary::new("b", &[b'b'; 500]));
        let corpus = Corpus::load(&[&a.0, &b.0], 0.1).unwrap();
        assert_eq!(corpus.train(), [&[b'a'; 900][..], b"\n\n", &[b'b'; 450]].concat());
        assert_eq!(corpus.held(), [&[b'a'; 100][..], b"\n\n", &[b'b'; 50]].concat());
        assert!(Corpus::load(&[&a.0], 0.0).unwrap().held().is_empty());
    }

    #[test]
    fn never_splits_a_character() {
        let text = "\u{e9}\u{20ac}".repeat(50);
        for tenths in 0..10 {
            let corpus = Corpus::from_text("x", text.as_bytes(), f64::from(tenths) / 10.0 + 0.01).unwrap();
            assert!(
                std::str::from_utf8(corpus.train()).is_ok() && std::str::from_utf8(corpus.held()).is_ok()
            );
            assert_eq!(corpus.train().len() + corpus.held().len(), text.len());
        }
    }
}
