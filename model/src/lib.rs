//! The RAMba model: Mamba-2 with hierarchical sparse attention.

pub mod config;
mod json;

pub use config::Config;
