//! What the integration tests in `tests/` share.

pub mod golden;
