//! The RAMba model: Mamba-2 with hierarchical sparse attention.

pub mod checkpoint;
pub mod config;
mod error;
mod json;

pub use checkpoint::Checkpoint;
pub use config::Config;
pub use error::Error;
