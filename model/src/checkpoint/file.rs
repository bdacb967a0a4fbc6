//! Checkpoints on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Checkpoint, CheckpointError, Header, Precision, write_all};
use crate::config::{Config, ConfigError};

impl Checkpoint {
    /// Reads a checkpoint; where the file holds no configuration, `config.json` beside it must.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Self::open_file(path.as_ref(), None)
    }

    /// Reads a checkpoint by this configuration, whatever the file or its neighbour says.
    pub fn open_with(path: impl AsRef<Path>, config: Config) -> Result<Self, CheckpointError> {
        Self::open_file(path.as_ref(), Some(config))
    }

    fn open_file(path: &Path, config: Option<Config>) -> Result<Self, CheckpointError> {
        let read = || {
            let (file, length) = regular_file(path)?;
            Self::read(&mut BufReader::with_capacity(1 << 20, file), length, config, || {
                match Config::open(path.with_file_name("config.json")) {
                    Ok(config) => Ok(Some(config)),
                    Err(ConfigError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                        Ok(None)
                    }
                    Err(e) => Err(e.into()),
                }
            })
        };
        read().map_err(|e| at(path, e))
    }

    /// Writes the checkpoint in the old file's place, or leaves the old file as it was.
    pub fn save(&self, path: impl AsRef<Path>, precision: Precision) -> Result<(), CheckpointError> {
        let path = path.as_ref();
        let save = || {
            let (header, order) = self.header(precision)?;
            write_atomically(path, |writer| write_all(writer, &header, &order))
                .map_err(|source| CheckpointError::Io { action: "save", source })
        };
        save().map_err(|e| at(path, e))
    }
}

impl Header {
    /// Reads the header of a safetensors file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        regular_file(path)
            .and_then(|(file, length)| Self::read(&mut BufReader::new(file), length))
            .map_err(|e| at(path, e))
    }
}

fn at(path: &Path, source: CheckpointError) -> CheckpointError {
    CheckpointError::At { path: path.display().to_string(), source: Box::new(source) }
}

fn regular_file(path: &Path) -> Result<(File, u64), CheckpointError> {
    let open = || {
        // Asked before opening, which would wait for ever on a pipe without a writer.
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    };
    open().map_err(|source| CheckpointError::Io { action: "open", source })
}

/// Removes the temporary file unless it has taken its place.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // The error that led here is the one to report.
            let _ = fs::remove_file(path);
        }
    }
}

/// Writes a file that is either wholly there or not at all.
///
/// `write` fills a temporary file in the same folder; it is flushed to the disk and renamed over `path`. On an error
/// what stood at `path` stays, and the temporary file is removed. A symbolic link is followed; what is not a regular
/// file (a device, a folder) is refused.
pub fn write_atomically(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let during = |what: &'static str| move |e: io::Error| io::Error::new(e.kind(), format!("{what}: {e}"));

    let mut target = path.as_ref().to_path_buf();
    if fs::symlink_metadata(&target).is_ok_and(|metadata| metadata.is_symlink()) {
        target = fs::canonicalize(&target).map_err(during("following the link"))?;
    }
    if fs::metadata(&target).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = folder.join(format!(".rambutan-{}-{count}.tmp", std::process::id()));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&name)
        .map_err(during("creating a temporary file beside it"))?;
    let mut temporary = Temporary(Some(name.clone()));

    let mut writer = BufWriter::with_capacity(1 << 20, file);
    let written = write(&mut writer).and_then(|()| writer.flush());
    // Taken apart, not dropped: dropping would try to write once more.
    let (file, _) = writer.into_parts();
    written.map_err(during("writing (the old file is untouched)"))?;
    file.sync_all().map_err(during("flushing to the disk (the old file is untouched)"))?;
    drop(file);
    fs::rename(&name, &target).map_err(during("replacing the old file, which is untouched"))?;
    temporary.0 = None;
    sync_folder(folder).map_err(during("written, but flushing the folder to the disk"))
}

/// Removes what [`write_atomically`] leaves half-written in a folder where its process is ended by force. For a folder that no
/// other process writes to.
pub fn remove_half_written(folder: impl AsRef<Path>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix(".rambutan-")?.strip_suffix(".tmp"));
        if number.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit() || b == b'-')) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Makes the rename itself last. Not every file system can, and those that cannot say so.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(e) if !matches!(e.kind(), InvalidInput | PermissionDenied | Unsupported) => Err(e),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
