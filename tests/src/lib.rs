//! What the integration tests in `tests/` share.

mod folder;
pub mod golden;
pub mod machine;
mod program;
pub mod small;

pub use folder::Folder;
pub use program::{by_itself, program};

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
