//! What ends a command: an exit code, one line for the user, and a hint.

use std::{
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering},
};

/// Why a command ended without success.
#[derive(Debug)]
pub struct Problem {
    /// 1: a check failed. 2: the input cannot be used.
    pub code: u8,
    message: String,
    hint: String,
    /// Whether all ranks know of it, and end by themselves.
    shared: bool,
}

impl Problem {
    /// Input that cannot be used.
    pub fn input(message: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem { code: 2, message: message.into(), hint: hint.into(), shared: false }
    }

    /// A check that failed.
    pub fn check(message: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem { code: 1, message: message.into(), hint: hint.into(), shared: false }
    }

    /// The same, of which all ranks know.
    pub fn shared(self) -> Problem {
        Problem { shared: true, ..self }
    }

    /// What another rank tells.
    pub fn told(code: u8) -> Problem {
        Problem { code, message: String::new(), hint: String::new(), shared: true }
    }

    /// Whether all ranks know of it.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Writes it to stderr: one line, and a line with the hint.
    pub fn report(&self) {
        if self.message.is_empty() {
            return;
        }
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        // Where stderr is closed there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "error: {}\nhint: {}", line(&self.message), line(&self.hint));
    }
}

impl From<rambutan_engine::Error> for Problem {
    fn from(error: rambutan_engine::Error) -> Problem {
        use rambutan_engine::Error as E;
        let hint = match &error {
            E::NoAdapter { .. } | E::NoDevice { .. } => {
                "`rambutan info` lists the adapters; --adapter and --backend choose one; software Vulkan comes with mesa-vulkan-drivers"
            }
            E::OutOfMemory { .. } | E::TooLarge { .. } => {
                "ask for less at once, or close what else uses the device's memory"
            }
            _ => "`rambutan selfcheck` shows what works on this adapter; a newer driver may help",
        };
        Problem::input(error.to_string(), hint)
    }
}

impl From<rambutan_model::checkpoint::CheckpointError> for Problem {
    fn from(error: rambutan_model::checkpoint::CheckpointError) -> Problem {
        Problem::input(error.to_string(), "expected a readable .safetensors file that was written completely")
    }
}

impl From<rambutan_model::data::DataError> for Problem {
    fn from(error: rambutan_model::data::DataError) -> Problem {
        use rambutan_model::data::DataError as E;
        let hint = match &error {
            E::TooShort { .. } => "a fact needs some 40 bytes: choose a longer text or fewer facts",
            E::Setting { .. } => "`--help` shows what fits",
            E::Occupied { .. } => "`rambutan ask` asks about facts that a text states itself",
            _ => "expected a readable file of plain text",
        };
        Problem::input(error.to_string(), hint)
    }
}

impl From<rambutan_model::Error> for Problem {
    fn from(error: rambutan_model::Error) -> Problem {
        match error {
            rambutan_model::Error::Engine(e) => e.into(),
            rambutan_model::Error::Checkpoint(e) => e.into(),
            rambutan_model::Error::Data(e) => e.into(),
            e @ rambutan_model::Error::TextTooLong { .. } => Problem::input(
                e.to_string(),
                "let the text itself be its memory (--memory-in text), read less (--tokens, --lengths or a shorter file), or choose an adapter with more memory (--adapter)",
            ),
            e @ rambutan_model::Error::OutOfStep { .. } => Problem::check(
                e.to_string(),
                "give all ranks adapters of one kind, with one driver (--adapter); --resume goes on from the last checkpoint",
            ),
            rambutan_model::Error::Memory(e) => Problem::input(e.to_string(), memory_hint(&e)),
            e @ rambutan_model::Error::Tokenizer { .. } => Problem::input(
                e.to_string(),
                "expected a Hugging Face tokenizer.json, and a build that reads it",
            ),
            e => Problem::input(e.to_string(), "`rambutan inspect CHECKPOINT` shows its configuration"),
        }
    }
}

fn memory_hint(error: &rambutan_model::reader::file::MemoryError) -> &'static str {
    use rambutan_model::reader::file::MemoryError as E;
    match error {
        E::Io { .. } => "expected a memory file, in a folder that can be written to, with some room left",
        E::Foreign { .. } => {
            "`rambutan read FILE --memory OUT` writes one; a text is asked about with --file"
        }
        E::Other { .. } => {
            "use the --checkpoint, --half and --keep that it was read with, or read the text into another file"
        }
        E::Busy { .. } => "one program at a time reads into a memory; asking is possible meanwhile",
        E::TextChanged { .. } | E::TextCut { .. } => {
            "`rambutan read` reads what changed; --file tells where the text is now"
        }
        _ => "remove the file and read the text again with `rambutan read`",
    }
}

/// Set where another rank speaks for this one.
static HUSHED: AtomicBool = AtomicBool::new(false);

/// Leaves output and bars to another rank; problems are still told.
pub fn hush() {
    HUSHED.store(true, Ordering::Relaxed);
}

/// Whether another rank speaks.
pub fn is_hushed() -> bool {
    HUSHED.load(Ordering::Relaxed)
}

/// Writes a command's output. A reader that has seen enough (`| head`) is no error; a full disk is.
pub fn print(text: &str) -> Result<(), Problem> {
    print_bytes(text.as_bytes())
}

/// [`print()`] for bytes.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Problem> {
    if is_hushed() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Problem::input(format!("cannot write the output: {e}"), "is the disk full?"))
        }
        _ => Ok(()),
    }
}

/// [`print()`] for a line of JSON.
pub fn print_json(value: &serde_json::Value) -> Result<(), Problem> {
    print(&format!("{value}\n"))
}
