//! The crate's one error type: everything that can go wrong with what comes from outside.

use crate::{checkpoint::CheckpointError, config::ConfigError, data::DataError};

/// Why the model crate could not do what was asked.
///
/// Misuse in code (a wrong shape, say) is a bug and panics; files, configurations, data and devices end here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot be used.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// A checkpoint could not be read or written.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// A text or a batch could not be read or drawn.
    #[error("data: {0}")]
    Data(#[from] DataError),
    /// A memory file cannot be used.
    #[cfg(not(target_arch = "wasm32"))]
    #[error(transparent)]
    Memory(#[from] crate::reader::file::MemoryError),
    /// The device, its driver or its memory failed.
    #[error(transparent)]
    Engine(#[from] rambutan_engine::Error),
    /// The checkpoint lacks a parameter that its configuration names.
    #[error("the checkpoint has no parameter `{0}`, which its configuration names: is it the right pair?")]
    MissingParameter(String),
    /// The adapter computes in f32 alone.
    #[error(
        "the adapter `{0}` has no 16-bit floats, which half precision needs: choose f32, or another adapter"
    )]
    NoHalf(String),
    /// The model is not made to read texts by segments.
    #[error(
        "the configuration has no segment_size with segment_at_inference: this model cannot read a text by segments"
    )]
    NotSegmented,
    /// The device's memory does not hold the text.
    #[error(
        "{tokens} tokens do not fit this device's memory: about {fit} do, at {bytes_per_token} bytes of keys, values \
         and landmarks a token ({source})"
    )]
    TextTooLong {
        /// Tokens to be read.
        tokens: usize,
        /// Tokens that fit, about.
        fit: usize,
        /// What each leaves in memory.
        bytes_per_token: usize,
        /// What the device said.
        source: rambutan_engine::Error,
    },
    /// There is nothing to continue.
    #[error("nothing to answer: the text and the question are both empty")]
    Empty,
    /// A tokenizer cannot be used.
    #[error("tokenizer {path}: {reason}")]
    Tokenizer {
        /// Its file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A setting makes no sense.
    #[error("{field} = {value}: expected {expected}")]
    Setting {
        /// Its name in the file.
        field: String,
        /// Its value.
        value: String,
        /// What fits.
        expected: String,
    },
    /// The checkpoint holds no complete training state.
    #[error(
        "the checkpoint holds no complete training state (step and optimizer moments): start without --resume"
    )]
    NotResumable,
    /// Ranks that should hold the same parameters do not.
    #[error(
        "rank {rank} has other parameters than rank 0 after step {step}: their devices compute differently"
    )]
    OutOfStep {
        /// The first such rank.
        rank: usize,
        /// Steps trained.
        step: u64,
    },
}
