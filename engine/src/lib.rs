//! Tensors, reverse-mode autodiff and compute kernels on wgpu: Vulkan, Metal and DX12 from one set of WGSL shaders.
//!
//! ```no_run
//! use rambutan_engine::{Gpu, GpuOptions, Tensor, ops};
//! let gpu = Gpu::new(GpuOptions::default())?;
//! let x = Tensor::from_slice(&gpu, &[3.0f32, 4.0], [1, 2])?;
//! let weight = Tensor::from_slice(&gpu, &[1.0f32, 1.0], [2])?;
//! println!("{:?}", ops::rms_norm(&x, &weight, 1e-5).to_vec::<f32>()?);
//! # Ok::<(), rambutan_engine::Error>(())
//! ```
//!
//! Layers, each seeing only those before it: [`gpu`] (the only user of wgpu), [`tensor`] and [`autograd`] (a tensor
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
