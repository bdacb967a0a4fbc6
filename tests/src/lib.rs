//! What the integration tests in `tests/` share.

pub mod golden;
pub mod machine;
mod program;
pub mod small;

pub use program::program;

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
