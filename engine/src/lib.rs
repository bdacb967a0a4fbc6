#![doc = include_str!("../README.md")]
//!
//! # Layers
//!
//! Each sees only those before it: [`gpu`] (the only user of wgpu), [`tensor`] and [`autograd`] (a tensor
//! carries its place in the graph), [`ops`], [`optim`]. [`mod@reference`] and [`testing`] stand beside: definitions in
//! f64 and what holds ops against them, ours and yours.

pub mod autograd;
mod error;
pub mod gpu;
pub mod ops;
pub mod optim;
pub mod reference;
pub mod tensor;
pub mod testing;

pub use autograd::{checkpoint, no_grad};
pub use error::{Error, Result};
pub use gpu::{Gpu, GpuOptions};
pub use tensor::{DType, Element, Tensor};
pub use wgpu;
