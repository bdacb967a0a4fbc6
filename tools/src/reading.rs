//! What the commands that read texts share: which weights, a reader with a progress bar, and what it took.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use rambutan_engine::Gpu;
use rambutan_model::{
    Checkpoint, Error, Ramba,
    ramba::Options,
    reader::{Placement, Reader, Text},
};

use crate::problem::Problem;

/// More tokens than the model was ever tried with; a larger number is a slip of the keyboard.
pub const MAX_TOKENS: u64 = 1 << 30;

/// Which weights.
#[derive(clap::Args)]
pub struct Weights {
    /// A .safetensors checkpoint [default: the shipped model/weights/passkey.safetensors]
    #[arg(long, value_name = "FILE", env = "RAMBUTAN_WEIGHTS")]
    checkpoint: Option<PathBuf>,
    /// Computes in f16 where the adapter has it: faster, and half the memory
    #[arg(long)]
    pub half: bool,
}

const SHIPPED: &str = "model/weights/passkey.safetensors";

impl Weights {
    /// Those of a file.
    pub fn of(file: PathBuf, half: bool) -> Weights {
        Weights { checkpoint: Some(file), half }
    }

    /// The file: what was given, else the shipped weights in the current folder, in the source tree that this
    /// program was built from, or beside the program.
    pub fn path(&self) -> Result<PathBuf, Problem> {
        if let Some(given) = self.checkpoint.as_ref().filter(|p| !p.as_os_str().is_empty()) {
            return Ok(given.clone());
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(|root| root.join(SHIPPED));
        let program = std::env::current_exe().ok();
        let folder = program.as_deref().and_then(Path::parent);
        let beside = ["passkey.safetensors", SHIPPED].map(|name| folder.map(|f| f.join(name)));
        let mut places =
            std::iter::once(Some(PathBuf::from(SHIPPED))).chain([source]).chain(beside).flatten();
        places.find(|place| place.is_file()).ok_or_else(|| {
            Problem::input(
                format!("the shipped weights ({SHIPPED}) are neither here, nor in the source tree, nor beside the program"),
                "name a checkpoint with --checkpoint FILE or RAMBUTAN_WEIGHTS, or run from a checkout of the repository",
            )
        })
    }

    /// Reads and checks it.
    pub fn open(&self) -> Result<Checkpoint, Problem> {
        Ok(Checkpoint::open(self.path()?)?)
    }

    /// Uploads it.
    pub fn upload(&self, gpu: &Gpu, checkpoint: &Checkpoint) -> Result<Ramba, Error> {
        Ramba::with(gpu, checkpoint, Options { half: self.half, ..Options::default() })
    }
}

/// Where the memory of a text is kept.
#[derive(clap::Args, Clone, Copy)]
pub struct MemoryIn {
    /// Where keys and values are kept: device, host, text (computed again from it when they are needed), int8 (on the device
    /// in eight bits, not exactly the same), or the device where they fit and else the text
    #[arg(long = "memory-in", value_name = "PLACE", value_enum, default_value_t = Place::Auto)]
    place: Place,
}

/// What --memory-in takes.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Place {
    Auto,
    Device,
    Host,
    Text,
    Int8,
}

/// A text in memory, and what it took.
pub struct Read<'m> {
    pub reader: Reader<'m>,
    pub time: Duration,
    /// Where its keys and values are, and why there.
    pub place: String,
}

impl MemoryIn {
    /// Reads a text with a bar.
    ///
    /// # Errors
    /// As [`Reader::read`]; where the place is left open, only once the text fits nowhere.
    pub fn read<'m, 't, T: Into<Text<'t>>>(
        self,
        model: &'m Ramba,
        gpu: &Gpu,
        text: impl Fn() -> T,
    ) -> Result<Read<'m>, Error> {
        let placement = match self.place {
            Place::Auto => return self.read_where_it_fits(model, gpu, text),
            Place::Device => Placement::Device,
            Place::Host => Placement::Host,
            Place::Text => Placement::Text,
            Place::Int8 => Placement::Int8,
        };
        let mut reader = Reader::placed(model, placement)?;
        let time = read(&mut reader, gpu, text())?;
        Ok(Read { reader, time, place: format!("{placement}, as asked") })
    }

    fn read_where_it_fits<'m, 't, T: Into<Text<'t>>>(
        self,
        model: &'m Ramba,
        gpu: &Gpu,
        text: impl Fn() -> T,
    ) -> Result<Read<'m>, Error> {
        let tokens = text().into().len();
        let mut places = Placement::fitting(model, tokens)?.into_iter().peekable();
        let skipped = places.peek() != Some(&Placement::Device);
        let mut why = if skipped { ", since the device has no room" } else { "" };
        loop {
            let placement = places.next().expect("the text itself is the last");
            let mut reader = Reader::placed(model, placement)?;
            match read(&mut reader, gpu, text()) {
                Ok(time) => return Ok(Read { reader, time, place: format!("{placement}{why}") }),
                Err(Error::TextTooLong { .. }) if places.peek().is_some() => {
                    gpu.trim();
                    why = ", since the device has no room";
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// A bar on stderr; none where that is no terminal.
pub fn bar(what: &str, length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {human_pos}/{human_len} {msg}");
    let bar = ProgressBar::new(length as u64).with_prefix(what.to_owned());
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

/// Reads `text` with a bar, and returns the time it took.
pub fn read<'t>(reader: &mut Reader<'_>, gpu: &Gpu, text: impl Into<Text<'t>>) -> Result<Duration, Error> {
    let text = text.into();
    let (bar, begin) = (bar("reading", text.len()), Instant::now());
    let result = reader.read(text, |done| {
        bar.set_position(done as u64);
        let rate = done as f64 / begin.elapsed().as_secs_f64();
        bar.set_message(format!("tokens, {}/s, {} MiB", short(rate), gpu.memory().in_use >> 20));
    });
    bar.finish_and_clear();
    result?;
    gpu.wait()?;
    Ok(begin.elapsed())
}

/// Lets kernels compile before anything is timed.
pub fn warm_up(reader: &mut Reader<'_>, gpu: &Gpu, tokens: usize) -> Result<(), Error> {
    // Whole segments, but for what has none.
    let whole = tokens.next_multiple_of(reader.segment());
    reader.read(vec![b' '; if whole > 2 * tokens.max(1 << 16) { tokens } else { whole }], |_| {})?;
    Ok(gpu.wait()?)
}

/// 1234567 → `1.23M`.
pub fn short(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let digits = if scaled >= 100.0 || unit.is_empty() { 0 } else { 2 - usize::from(scaled >= 10.0) };
    format!("{scaled:.digits$}{unit}")
}

/// Bytes as people say them: `4GiB`, `512 MiB`, `1e9`.
pub fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(0);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    let unit = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1u64,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err("expected bytes, or a number with KiB, MiB or GiB".into()),
    };
    match digits.parse::<f64>() {
        Ok(n) if n >= 0.0 && n * unit as f64 <= 2f64.powi(60) => Ok((n * unit as f64) as u64),
        _ => Err("expected bytes, or a number with KiB, MiB or GiB".into()),
    }
}

/// 64 bits that tell texts apart (FNV-1a).
pub fn digest(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// A length in tokens as people say it: 65536 → `64 K`.
pub fn tokens(n: usize) -> String {
    match n {
        n if n >= 1 << 30 && n.is_multiple_of(1 << 30) => format!("{} G", n >> 30),
        n if n >= 1 << 20 && n.is_multiple_of(1 << 20) => format!("{} M", n >> 20),
        n if n >= 1 << 10 && n.is_multiple_of(1 << 10) => format!("{} K", n >> 10),
        n => n.to_string(),
    }
}

/// The most memory this process has held, where the system tells.
pub fn peak_host_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shorts = [
            (0.0, "0"),
            (999.4, "999"),
            (1234.0, "1.23k"),
            (65536.0, "65.5k"),
            (9.99e6, "9.99M"),
            (2e9, "2.00G"),
        ];
        for (value, text) in shorts {
            assert_eq!(short(value), text);
        }
        assert_eq!([65536, 1 << 24, 1000, 1 << 30].map(tokens), ["64 K", "16 M", "1000", "1 G"]);
    }

    #[test]
    fn sizes_have_units() {
        let sizes =
            [("134217728", 1 << 27), ("4GiB", 4 << 30), ("1.5 m", 3 << 19), ("2gb", 2_000_000_000), ("", 0)];
        for (text, bytes) in sizes {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["lots", "-1", "4 pints", "1e99", "GiB", "NaN"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
