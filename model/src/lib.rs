//! The RAMba model: Mamba-2 with hierarchical sparse attention.

pub mod checkpoint;
pub mod config;
pub mod data;
mod error;
mod json;
pub mod rng;
pub mod tasks;

pub use checkpoint::Checkpoint;
pub use config::Config;
pub use error::Error;
