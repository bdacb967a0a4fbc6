//! Kit.
mod checks;
mod device;
pub mod judges;
mod kernel;
mod machine;
mod program;
mod report;
mod trial;
mod values;

pub use checks::Check;
pub use device::Device;
pub use kernel::{Backward, Inputs, Kernel, Outputs, Word};
pub use rambutan_engine::{testing::{Dim, Draw, Sizes}, wgpu};
pub use report::{Examination, Verdict};
pub use values::Values;
