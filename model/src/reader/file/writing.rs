//! Reading a text into a file: pages that are there already and whose text is as it was stay.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use rambutan_engine::Error as EngineError;
use twox_hash::XxHash3_64;

use super::{
    super::{Keeping, Placement, Progress, Reader, Source, TextFile, cut::Cut, values::Coming},
    about, agrees,
    log::{Log, ROW},
};
use crate::{Error, Ramba};

/// Tokens a page, about, and time between commits, where nothing else is asked for.
const PAGE: usize = 1 << 17;
const INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a log that taken places may waste.
const STALE: u64 = 1 << 20;

/// How [`write()`] goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// [`Placement::Text`] to compute keys and values again when they are needed, [`Placement::Host`] to keep them in the
    /// file; and how landmarks are kept.
    pub keeps: Keeping,
    /// Tokens a page of a new file, about: what is read again at least where reading was ended by force.
    pub page: usize,
    /// The time between two commits, and so what is read again at most.
    pub interval: Duration,
}

impl Manner {
    /// Pages of 128 K tokens, and a commit a second.
    pub fn new(keeps: impl Into<Keeping>) -> Manner {
        Manner { keeps: keeps.into(), page: PAGE, interval: INTERVAL }
    }
}

/// What [`write()`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the text.
    pub tokens: usize,
    /// Of them, those that were in memory before and did not change.
    pub kept: usize,
    /// Whether all of it is in memory now; else the next call goes on.
    pub complete: bool,
}

/// A page on its way into the file.
struct Sheet {
    number: usize,
    segments: usize,
    /// Table and landmarks, then keys and values; those of `fresh` are to come.
    head: Vec<u8>,
    values: Vec<u8>,
    fresh: Vec<usize>,
    /// Of so many of them: parts of landmarks, keys and values where they are kept, one after another.
    coming: Vec<(usize, Vec<Coming>)>,
}

/// Reads `text` into the memory file `path`, which may be there: then what is in it and has not changed is not read again.
/// `fingerprint`: of the model's checkpoint. `progress` hears how far it is and may stop it: what was read by then is kept.
///
/// # Errors
/// The file is something else or was made with other weights, the text cannot be read, the disk is full, the device failed:
/// what was committed before stays.
///
/// # Panics
/// Where values are to be kept at another place.
pub fn write(
    model: &Ramba,
    fingerprint: &str,
    text: &TextFile,
    path: &Path,
    manner: Manner,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Written, Error> {
    let Manner { keeps, page, interval } = manner;
    assert!(matches!(keeps.values, Placement::Text | Placement::Host), "a file keeps values or none");
    let expected = about(model, fingerprint, keeps, page)?;
    let named = std::path::absolute(text.path()).unwrap_or_else(|_| text.path().into());
    let named = named.to_string_lossy().into_owned();
    if !path.exists() {
        Log::create(path, &expected, &named)?;
    }
    let log = Log::open(path, true)?;
    agrees(&log, &expected)?;
    let reader = Reader::placed(model, keeps)?;
    let (size, total) = (expected.segment, text.size());
    let mut writer = Writer {
        batch: reader.batch / size,
        reader,
        log,
        text,
        last: Instant::now(),
        sheets: VecDeque::new(),
    };
    if writer.log.text != named {
        writer.log.append_tail(&named, &[])?;
    }
    let (whole, page) = (total / size, writer.log.about.page);
    // Segments that counted before: where the text became shorter, they count until its end is reached.
    let before = writer.log.whole();
    let mut written = Written { tokens: total, kept: 0, complete: false };
    for number in 0..whole.div_ceil(page) {
        let segments = page.min(whole - number * page);
        let kept = writer.read(number, segments)?;
        written.kept += kept * size;
        while writer.sheets.len() > 1 {
            writer.finish()?;
        }
        let done = number * page + segments;
        let stopped = progress(Progress { done: done * size, total }).is_break();
        let new = writer.log.has_grown() || !writer.sheets.is_empty();
        if new && (stopped || writer.last.elapsed() >= interval) {
            writer.commit(done.max(before), total)?;
        }
        if stopped {
            return Ok(written);
        }
    }
    while !writer.sheets.is_empty() {
        writer.finish()?;
    }
    let front = if whole > 0 { expected.overlap } else { 0 };
    let mut last = vec![0; total - whole * size + front];
    text.fill(whole * size - front, &mut last)?;
    let log = &mut writer.log;
    let state = (log.commit.tokens, log.commit.size, log.commit.complete);
    let now = ((whole * size) as u64, total as u64, true);
    if log.has_grown() || log.last != last || state != now {
        log.append_tail(&named, &last)?;
        log.commit(now.0, now.1, true)?;
    }
    let [bytes, stale] = log.stale();
    if stale > STALE && stale > bytes / 2 {
        log.compact(whole, &named, &last)?;
    }
    written.complete = true;
    Ok(written)
}

struct Writer<'a> {
    reader: Reader<'a>,
    log: Log,
    text: &'a TextFile,
    /// Segments that are read at once.
    batch: usize,
    /// Pages on their way.
    sheets: VecDeque<Sheet>,
    last: Instant,
}

impl Writer<'_> {
    /// Sets a page out, unless it is there; how many of its segments are.
    fn read(&mut self, number: usize, segments: usize) -> Result<usize, Error> {
        let (size, page) = (self.log.about.segment, self.log.about.page);
        let (lm, values) = (self.log.about.landmarks, self.log.about.values);
        let (overlap, first) = (self.log.about.overlap, number * page * size);
        let cut = Cut::along(size, overlap, if number > 0 { overlap } else { 0 });
        let mut bytes = vec![0; cut.lead + segments * size];
        self.text.fill(first - cut.lead, &mut bytes)?;
        let mut sheet = Sheet {
            number,
            segments,
            head: vec![0; segments * (ROW + lm)],
            values: vec![0; segments * values],
            fresh: Vec::new(),
            coming: Vec::new(),
        };
        let (table, landmarks) = sheet.head.split_at_mut(segments * ROW);
        let old = match self.log.page(number) {
            Some(_) => Some(self.log.checked(number)?),
            None => None,
        };
        for i in 0..segments {
            let hash = XxHash3_64::oneshot(&bytes[cut.row(i)]);
            let row = &mut table[i * ROW..(i + 1) * ROW];
            row[..8].copy_from_slice(&hash.to_le_bytes());
            match old.as_ref().filter(|old| i < old.segments && old.hash(i) == hash) {
                Some(old) => {
                    row[8..12].copy_from_slice(&old.values_crc(i).to_le_bytes());
                    landmarks[i * lm..(i + 1) * lm].copy_from_slice(&old.landmarks[i * lm..(i + 1) * lm]);
                    let range = i * values..(i + 1) * values;
                    sheet.values[range.clone()].copy_from_slice(&old.values[range]);
                }
                None => sheet.fresh.push(i),
            }
        }
        let kept = segments - sheet.fresh.len();
        if sheet.fresh.is_empty() && old.is_some_and(|old| old.segments == segments) {
            return Ok(kept);
        }
        let mut done = 0;
        while done < sheet.fresh.len() {
            let part = &sheet.fresh[done..(done + self.batch).min(sheet.fresh.len())];
            let rows: Vec<&[u8]> = part.iter().map(|i| &bytes[cut.row(*i)]).collect();
            let gpu = self.reader.gpu();
            let memory = self.reader.remember(&rows.concat())?;
            match gpu.check() {
                Err(EngineError::OutOfMemory { .. }) if part.len() > 1 => {
                    self.batch = part.len() / 2;
                    drop(memory);
                    gpu.trim();
                    continue;
                }
                result => result?,
            }
            let mut wanted = self.reader.landmarks.kept(&memory.landmarks);
            if values > 0 {
                wanted.extend([memory.k, memory.v]);
            }
            let coming = wanted.iter().map(Coming::new).collect::<Result<_, _>>()?;
            gpu.submit();
            let n = part.len();
            sheet.coming.push((n, coming));
            done += n;
        }
        self.sheets.push_back(sheet);
        Ok(kept)
    }

    /// Waits for the first page on its way, and appends it.
    fn finish(&mut self) -> Result<(), Error> {
        let Some(mut sheet) = self.sheets.pop_front() else { return Ok(()) };
        let (lm, values) = (self.log.about.landmarks, self.log.about.values);
        let (table, landmarks) = sheet.head.split_at_mut(sheet.segments * ROW);
        let sizes = self.reader.landmarks.sizes(self.log.about.segment);
        let mut fresh = sheet.fresh.iter();
        for (n, mut coming) in sheet.coming {
            for part in &mut coming {
                part.poll(true)?;
            }
            let parts: Vec<Vec<u8>> = coming.into_iter().map(Coming::bytes).collect();
            for (j, i) in fresh.by_ref().take(n).enumerate() {
                let mut to = &mut landmarks[i * lm..(i + 1) * lm];
                for (part, &size) in parts.iter().zip(&sizes) {
                    let (here, rest) = to.split_at_mut(size);
                    here.copy_from_slice(&part[j * size..(j + 1) * size]);
                    to = rest;
                }
                if values > 0 {
                    let to = &mut sheet.values[i * values..(i + 1) * values];
                    let half = values / 2;
                    for (to, part) in to.chunks_mut(half).zip(&parts[sizes.len()..]) {
                        to.copy_from_slice(&part[j * half..(j + 1) * half]);
                    }
                    table[i * ROW + 8..i * ROW + 12].copy_from_slice(&crc32fast::hash(to).to_le_bytes());
                }
            }
        }
        Ok(self.log.append(sheet.number, sheet.segments, &sheet.head, &sheet.values)?)
    }

    /// What was read up to segment `done` counts.
    fn commit(&mut self, done: usize, total: usize) -> Result<(), Error> {
        while !self.sheets.is_empty() {
            self.finish()?;
        }
        self.last = Instant::now();
        Ok(self.log.commit((done * self.log.about.segment) as u64, total as u64, false)?)
    }
}
