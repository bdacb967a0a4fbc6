//! The crate's one error type: everything that can go wrong with what comes from outside.

use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;

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
}
