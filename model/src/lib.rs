#![doc = include_str!("../README.md")]

pub mod checkpoint;
pub mod chunking;
pub mod config;
pub mod data;
mod error;
pub mod generate;
pub mod hsa;
mod json;
pub mod mamba2;
pub mod mixer;
pub mod ramba;
pub mod ranks;
pub mod reader;
pub mod retrieval;
pub mod rng;
pub mod tasks;
pub mod tokens;
pub mod train;
pub mod weights;
pub mod window;

pub use checkpoint::Checkpoint;
pub use config::Config;
pub use error::Error;
pub use ramba::Ramba;
