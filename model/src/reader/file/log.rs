//! The layout of a memory file, and what makes it safe against an end at any moment.
//!
//! A header, two commit slots, then a log of pages, each with the memory of the same number of segments. A page is appended
//! and flushed to the disk, and only then a commit, written into the older slot, counts it; what lies behind the latest
//! commit is cut off when the file is next written to. A page of a number that is there already takes its place. All
//! numbers are little-endian; every part carries a CRC-32.
//!
//! ```text
//! 0      magic, version, length of the description, the description in JSON …, CRC
//! 4096   slot 0: sequence, end of the log, tokens, bytes of the text, place, length and CRC of the tail, complete, CRC
//! 8192   slot 1
//! 12288  pages: "PAGE", number, segments, CRC of the head, bytes of head and values, CRC; then the head (for each
//!        segment the hash of its text, with what is in front of it, and the CRC of its values; all landmarks) and the
//!        values (for each segment its keys, then its values); tails: the text's path, the overlap that ends whole
//!        segments, and the text's last tokens, fewer than a segment
//! ```

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use super::MemoryError;

const MAGIC: [u8; 8] = *b"RAMBMEM\n";
const VERSION: u32 = 3;
/// The oldest that is read, too: before there were overlaps.
const OLDEST: u32 = 2;
const BLOCK: usize = 4096;
/// Where the log begins.
const LOG: u64 = 3 * BLOCK as u64;
/// Bytes before a page's head.
const PAGE: usize = 64;
const SLOT: usize = 64;
/// Bytes that a segment's hash and CRC take.
pub(super) const ROW: usize = 16;

/// What a memory file holds, and by whom it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// Of configuration and weights.
    pub fingerprint: String,
    /// `f16` or `f32`.
    pub dtype: String,
    /// `host` where keys and values are in the file, `text` where they are computed again.
    pub keeps: String,
    /// `float`: in the type above; `int8`: each segment's numbers, then its scales.
    pub landmarks_as: String,
    /// Tokens a segment, segments a page.
    pub segment: usize,
    pub page: usize,
    /// Tokens in front of a segment that it is read with.
    #[serde(default)]
    pub overlap: usize,
    /// Bytes of a segment's landmarks, and of its keys and values, where they are kept.
    pub landmarks: usize,
    pub values: usize,
}

/// What counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Commit {
    sequence: u64,
    end: u64,
    /// Tokens of whole segments.
    pub tokens: u64,
    /// Bytes that the text had.
    pub size: u64,
    tail: u64,
    tail_length: u32,
    tail_crc: u32,
    /// Whether all of the text was read.
    pub complete: bool,
}

/// A page in the log.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: u64,
    segments: usize,
    crc: u32,
}

/// A page's parts.
pub(super) struct Page<'a> {
    /// The number of its segments.
    pub segments: usize,
    /// [`ROW`] bytes a segment.
    pub table: &'a [u8],
    pub landmarks: &'a [u8],
    pub values: &'a [u8],
}

impl Page<'_> {
    pub fn hash(&self, segment: usize) -> u64 {
        u64_at(self.table, segment * ROW)
    }

    pub fn values_crc(&self, segment: usize) -> u32 {
        u32_at(self.table, segment * ROW + 8)
    }
}

/// An open memory file.
pub(super) struct Log {
    pub path: PathBuf,
    file: File,
    pub about: About,
    pub commit: Commit,
    pages: Vec<Option<Place>>,
    /// What was committed when it was opened.
    map: Mmap,
    /// Where the next page goes.
    end: u64,
    /// The text's path, and its last tokens where all of it was read: what is in front of them, too, where segments overlap.
    pub text: String,
    pub last: Vec<u8>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl Commit {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SLOT);
        for n in [self.sequence, self.end, self.tokens, self.size, self.tail] {
            bytes.extend(n.to_le_bytes());
        }
        for n in [self.tail_length, self.tail_crc, u32::from(self.complete), 0, 0] {
            bytes.extend(n.to_le_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Commit> {
        let [sequence, end, tokens, size, tail] = [0, 8, 16, 24, 32].map(|at| u64_at(bytes, at));
        let [tail_length, tail_crc, complete] = [40, 44, 48].map(|at| u32_at(bytes, at));
        let right = u32_at(bytes, SLOT - 4) == crc32fast::hash(&bytes[..SLOT - 4]) && sequence > 0;
        let complete = complete == 1;
        right.then_some(Commit { sequence, end, tokens, size, tail, tail_length, tail_crc, complete })
    }
}

impl Log {
    /// Writes an empty one in one step: whatever ends it before, no file of this name appears.
    pub fn create(path: &Path, about: &About, text: &str) -> Result<(), MemoryError> {
        let description = serde_json::to_vec(about).expect("a description is JSON");
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((description.len() as u32).to_le_bytes());
        bytes.extend(description);
        bytes.resize(BLOCK - 4, 0);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes.resize(LOG as usize, 0);
        let tail = tail(text, &[]);
        let commit = Commit {
            sequence: 1,
            end: LOG + aligned(tail.len()),
            tail: LOG + TAIL as u64,
            tail_length: (tail.len() - TAIL) as u32,
            tail_crc: crc32fast::hash(&tail[TAIL..]),
            ..Commit::default()
        };
        bytes[BLOCK..BLOCK + SLOT].copy_from_slice(&commit.bytes());
        bytes.extend(&tail);
        bytes.resize(commit.end as usize, 0);
        crate::checkpoint::write_atomically(path, |file| file.write_all(&bytes))
            .map_err(|source| MemoryError::Io { path: path.into(), action: "write", source })
    }

    /// Opens one; `write` cuts off what no commit counts, and keeps others from writing.
    pub fn open(path: &Path, write: bool) -> Result<Log, MemoryError> {
        let io = |action| move |source| MemoryError::Io { path: path.into(), action, source };
        if !std::fs::metadata(path).map_err(io("read"))?.is_file() {
            return Err(MemoryError::Foreign { path: path.into() });
        }
        let mut file = OpenOptions::new().read(true).write(write).open(path).map_err(io("open"))?;
        if write {
            match file.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => {
                    return Err(MemoryError::Busy { path: path.into() });
                }
                // Where a file system has no locks.
                Err(std::fs::TryLockError::Error(_)) => {}
            }
        }
        let mut head = Vec::new();
        (&mut file).take(LOG).read_to_end(&mut head).map_err(io("read"))?;
        if head.len() < MAGIC.len() || head[..MAGIC.len()] != MAGIC {
            return Err(MemoryError::Foreign { path: path.into() });
        }
        let length = file.metadata().map_err(io("read"))?.len();
        let cut = |needed| MemoryError::Cut { path: path.into(), needed, found: length };
        if head.len() < LOG as usize {
            return Err(cut(LOG));
        }
        let damaged = |what: &str, at: u64| MemoryError::Damaged { path: path.into(), what: what.into(), at };
        // The version first: another one may have its CRC elsewhere.
        let version = u32_at(&head, 8);
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(MemoryError::Version { path: path.into(), found: version, known: VERSION });
        }
        if u32_at(&head, BLOCK - 4) != crc32fast::hash(&head[..BLOCK - 4]) {
            return Err(damaged("the header", 0));
        }
        let described = head.get(16..16 + u32_at(&head, 12) as usize).unwrap_or_default();
        let about: About = serde_json::from_slice(described).map_err(|_| damaged("the description", 16))?;
        // Sizes beyond these overflow what is computed from them.
        let counts = [about.segment, about.page].iter().all(|n| (1..=1 << 24).contains(n));
        let counts = counts && about.overlap <= about.segment;
        let sound = counts && about.landmarks > 0 && about.landmarks.max(about.values) as u64 <= 1 << 32;
        let slots = [BLOCK, 2 * BLOCK].map(|at| Commit::parse(&head[at..at + SLOT]));
        let latest = slots.into_iter().flatten().max_by_key(|c| c.sequence);
        let commit = latest.filter(|_| sound).ok_or_else(|| damaged("every commit", BLOCK as u64))?;
        if length < commit.end {
            return Err(cut(commit.end));
        }
        if write {
            file.set_len(commit.end).map_err(io("write"))?;
        }
        // SAFETY: what is committed is never written again but by us; a file that somebody cuts off under our hands is beyond
        // what any program that maps files can help.
        let map =
            unsafe { memmap2::MmapOptions::new().len(commit.end as usize).map(&file) }.map_err(io("map"))?;
        let tail = commit.tail as usize;
        let tail = map.get(tail..tail + commit.tail_length as usize).unwrap_or_default();
        if tail.len() < 4 || crc32fast::hash(tail) != commit.tail_crc {
            return Err(damaged("the text's path and end", commit.tail));
        }
        let (text, rest) = tail.split_at_checked(4 + u32_at(tail, 0) as usize).unwrap_or_default();
        let text = String::from_utf8_lossy(text.get(4..).unwrap_or_default()).into_owned();
        let last = if commit.complete { rest.to_vec() } else { Vec::new() };
        let (end, pages) = (commit.end, Vec::new());
        let mut log = Log { path: path.into(), file, about, commit, pages, map, end, text, last };
        if log.commit.complete && log.last.len() < log.front() {
            return Err(damaged("the text's path and end", log.commit.tail));
        }
        log.index()?;
        Ok(log)
    }

    /// Walks the log: where the latest page of each number lies.
    fn index(&mut self) -> Result<(), MemoryError> {
        let about = &self.about;
        let size = |segments: usize| segments * (ROW + about.landmarks + about.values);
        let mut at = LOG;
        while at < self.commit.end {
            let damaged = |what: &str| self.damaged(what, at);
            let header =
                self.map.get(at as usize..at as usize + PAGE).ok_or_else(|| damaged("a page's header"))?;
            if header[..4] == *b"TAIL" {
                at += aligned(TAIL + u32_at(header, 4) as usize);
                continue;
            }
            let [number, segments, crc, check] = [4, 8, 12, PAGE - 4].map(|at| u32_at(header, at));
            let (number, segments) = (number as usize, segments as usize);
            let right = header[..4] == *b"PAGE" && check == crc32fast::hash(&header[..PAGE - 4]);
            if !right || segments == 0 || segments > about.page {
                return Err(damaged("a page's header"));
            }
            let place = Place { at, segments, crc };
            let next = at + PAGE as u64 + aligned(size(segments));
            if next > self.commit.end || number > self.pages.len() {
                return Err(damaged("a page's header"));
            }
            if number == self.pages.len() {
                self.pages.push(Some(place));
            } else {
                self.pages[number] = Some(place);
            }
            at = next;
        }
        let needed = self.commit.tokens as usize / about.segment;
        let held: usize = (0..needed.div_ceil(about.page)).map(|p| self.segments(p)).sum();
        if held < needed {
            return Err(self.damaged("the list of pages", LOG));
        }
        Ok(())
    }

    fn damaged(&self, what: &str, at: u64) -> MemoryError {
        MemoryError::Damaged { path: self.path.clone(), what: what.into(), at }
    }

    /// Of the last tokens, those in front of what is in no whole segment.
    fn front(&self) -> usize {
        if self.commit.tokens > 0 { self.about.overlap } else { 0 }
    }

    /// What stands last in whole segments, where all of the text was read and it is known, and what is in none.
    pub fn before_and_rest(&self) -> (Option<&[u8]>, &[u8]) {
        match self.last.split_at_checked(self.front()) {
            Some((before, rest)) => (Some(before), rest),
            None => (None, &[]),
        }
    }

    /// Whole segments that count.
    pub fn whole(&self) -> usize {
        self.commit.tokens as usize / self.about.segment
    }

    /// Segments of a page, 0 where there is none.
    fn segments(&self, number: usize) -> usize {
        self.pages.get(number).copied().flatten().map_or(0, |p| p.segments)
    }

    /// A page that was there when this was opened, unchecked.
    pub fn page(&self, number: usize) -> Option<Page<'_>> {
        let place = self.pages.get(number).copied().flatten()?;
        let at = place.at as usize + PAGE;
        let (table, landmarks) = (place.segments * ROW, place.segments * self.about.landmarks);
        let values = place.segments * self.about.values;
        let bytes = self.map.get(at..at + table + landmarks + values)?;
        let (table, rest) = bytes.split_at(table);
        let (landmarks, values) = rest.split_at(landmarks);
        Some(Page { segments: place.segments, table, landmarks, values })
    }

    /// The same, its head checked.
    pub fn checked(&self, number: usize) -> Result<Page<'_>, MemoryError> {
        let page = self.page(number).ok_or_else(|| self.damaged("the list of pages", LOG))?;
        let place = self.pages[number].expect("it is there");
        let mut crc = crc32fast::Hasher::new();
        crc.update(page.table);
        crc.update(page.landmarks);
        if crc.finalize() != place.crc {
            return Err(self.damaged(&format!("page {number}"), place.at));
        }
        Ok(page)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let result = self.file.seek(SeekFrom::Start(at)).and_then(|_| self.file.write_all(bytes));
        result.map_err(|source| MemoryError::Io { path: self.path.clone(), action: "write", source })
    }

    /// Appends a page, `head` (table and landmarks) and `values`; it counts from the next commit on.
    pub fn append(
        &mut self,
        number: usize,
        segments: usize,
        head: &[u8],
        values: &[u8],
    ) -> Result<(), MemoryError> {
        let crc = crc32fast::hash(head);
        let mut bytes = b"PAGE".to_vec();
        for n in [number as u32, segments as u32, crc] {
            bytes.extend(n.to_le_bytes());
        }
        bytes.extend(((head.len() + values.len()) as u64).to_le_bytes());
        bytes.resize(PAGE - 4, 0);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(values);
        bytes.resize(PAGE + aligned(head.len() + values.len()) as usize, 0);
        self.write(self.end, &bytes)?;
        self.pages.resize(self.pages.len().max(number + 1), None);
        self.pages[number] = Some(Place { at: self.end, segments, crc });
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Appends the text's path and its last tokens, with what is in front of them.
    pub fn append_tail(&mut self, text: &str, last: &[u8]) -> Result<(), MemoryError> {
        let mut bytes = tail(text, last);
        let length = bytes.len();
        (self.commit.tail, self.commit.tail_length) = (self.end + TAIL as u64, (length - TAIL) as u32);
        self.commit.tail_crc = crc32fast::hash(&bytes[TAIL..]);
        bytes.resize(aligned(length) as usize, 0);
        self.write(self.end, &bytes)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// From now on all that was appended counts, and so many tokens of a text of `size` bytes.
    pub fn commit(&mut self, tokens: u64, size: u64, complete: bool) -> Result<(), MemoryError> {
        let flush = |log: &Log| {
            let source = log.file.sync_data();
            source.map_err(|source| MemoryError::Io { path: log.path.clone(), action: "flush", source })
        };
        flush(self)?;
        let sequence = self.commit.sequence + 1;
        self.commit = Commit { sequence, end: self.end, tokens, size, complete, ..self.commit };
        let bytes = self.commit.bytes();
        let slot = BLOCK as u64 * (2 - sequence % 2);
        self.write(slot, &bytes)?;
        flush(self)
    }

    /// Where a page lies.
    pub fn place(&self, number: usize) -> u64 {
        self.pages.get(number).copied().flatten().map_or(LOG, |p| p.at)
    }

    /// Whether anything was appended that no commit counts.
    pub fn has_grown(&self) -> bool {
        self.end > self.commit.end
    }

    /// Writes the pages of the first `whole` segments anew, without those that others took the place of, in one step.
    pub fn compact(&self, whole: usize, text: &str, last: &[u8]) -> Result<(), MemoryError> {
        let path = self.path.clone();
        let old = Log::open(&path, false)?;
        let fresh = path.with_extension("compacting");
        let _ = std::fs::remove_file(&fresh);
        Log::create(&fresh, &self.about, text)?;
        let mut new = Log::open(&fresh, true)?;
        for number in 0..whole.div_ceil(self.about.page) {
            let page = old.checked(number)?;
            let segments = page.segments.min(whole - number * self.about.page);
            let head =
                [&page.table[..segments * ROW], &page.landmarks[..segments * self.about.landmarks]].concat();
            new.append(number, segments, &head, &page.values[..segments * self.about.values])?;
        }
        new.append_tail(text, last)?;
        new.commit(self.commit.tokens, self.commit.size, true)?;
        let renamed = std::fs::rename(&fresh, &path);
        renamed.map_err(|source| MemoryError::Io { path, action: "replace", source })
    }

    /// Bytes of the log, and of them what pages take that others took the place of.
    pub fn stale(&self) -> [u64; 2] {
        let size =
            |p: &Place| PAGE as u64 + aligned(p.segments * (ROW + self.about.landmarks + self.about.values));
        let live: u64 = self.pages.iter().flatten().map(size).sum();
        [self.end - LOG, self.end - LOG - live]
    }
}

/// Bytes before a tail.
const TAIL: usize = 64;

fn tail(text: &str, last: &[u8]) -> Vec<u8> {
    let mut bytes = b"TAIL".to_vec();
    bytes.extend(((4 + text.len() + last.len()) as u32).to_le_bytes());
    bytes.resize(TAIL, 0);
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(last);
    bytes
}

/// Parts begin at multiples of 64 bytes.
fn aligned(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(64)
}
