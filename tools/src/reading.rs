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
    ranks::Ranks,
    reader::{Keeping, Landmarks, Placement, Reader, Text},
};

use crate::problem::{Problem, is_hushed};

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

/// How the memory of a text is kept.
#[derive(clap::Args, Clone, Copy)]
pub struct MemoryIn {
    /// Where keys and values are kept: device, host, text (computed again from it when they are needed), int8 (on the device
    /// in eight bits, not exactly the same), or the device where they fit and else the text
    #[arg(long = "memory-in", value_name = "PLACE", value_enum, default_value_t = Place::Auto)]
    place: Place,
    /// How landmarks are kept: float (in the type that the model computes in), int8 (in eight bits, not exactly the same), or
    /// float where they fit and else int8
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Kind::Auto)]
    pub landmarks: Kind,
}

/// What --landmarks takes.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Auto,
    Float,
    Int8,
}

impl Kind {
    /// None where it is left open.
    pub fn choice(self) -> Option<Landmarks> {
        match self {
            Kind::Auto => None,
            Kind::Float => Some(Landmarks::Float),
            Kind::Int8 => Some(Landmarks::Int8),
        }
    }
}

/// What landmarks are in: f32, f16 or int8.
pub fn landmarks_in(reader: &Reader<'_>, model: &Ramba) -> &'static str {
    match reader.keeping().landmarks {
        Landmarks::Float => model.dtype().wgsl(),
        Landmarks::Int8 => "int8",
    }
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
    /// Where its keys and values are and what its landmarks are in, and why.
    pub place: String,
}

impl MemoryIn {
    /// Reads a text with a bar; ranks share it.
    ///
    /// # Errors
    /// As [`Reader::read`]; where something is left open, only once the text fits in no way.
    pub fn read<'m, 't, T: Into<Text<'t>>>(
        self,
        model: &'m Ramba,
        gpu: &Gpu,
        ranks: &'m dyn Ranks,
        text: impl Fn() -> T,
    ) -> Result<Read<'m>, Error> {
        let place = match self.place {
            Place::Auto => None,
            Place::Device => Some(Placement::Device),
            Place::Host => Some(Placement::Host),
            Place::Text => Some(Placement::Text),
            Place::Int8 => Some(Placement::Int8),
        };
        let tokens = text().into().len().div_ceil(ranks.size());
        let ways = Keeping::fitting(model, tokens, place, self.landmarks.choice())?;
        // All ranks keep it in the way that fits on each.
        let fewest = ranks.gather(&[ways.len() as u8]).iter().map(|n| n[0] as usize).min();
        let skipped = ways.len() - fewest.unwrap_or(ways.len());
        let mut ways = ways.into_iter().skip(skipped).peekable();
        loop {
            let keeping = ways.next().expect("there is one at least");
            let mut reader = Reader::over(model, keeping, ranks)?;
            let result = read(&mut reader, gpu, text());
            let too_long = matches!(result, Err(Error::TextTooLong { .. }));
            let anywhere = ranks.gather(&[too_long.into()]).iter().any(|n| n[0] == 1);
            match result {
                _ if anywhere && ways.peek().is_some() => {
                    drop(reader);
                    gpu.trim();
                }
                Ok(time) => {
                    let why = |asked: bool, first: bool| match (asked, first) {
                        (true, _) => ", as asked",
                        (false, true) => "",
                        (false, false) => ", since the device has no room",
                    };
                    let Keeping { values, landmarks } = keeping;
                    let place = format!(
                        "{values}{}; landmarks in {}{}",
                        why(place.is_some(), values == Placement::Device),
                        landmarks_in(&reader, model),
                        why(self.landmarks != Kind::Auto, landmarks == Landmarks::Float),
                    );
                    return Ok(Read { reader, time, place });
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// A bar on stderr; none where that is no terminal.
pub fn bar(what: &str, length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {human_pos}/{human_len} {msg}");
    if is_hushed() {
        return ProgressBar::hidden();
    }
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
