//! What the integration tests in `tests/` share.

pub mod golden;
pub mod machine;
pub mod small;

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
