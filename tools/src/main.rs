//! The command `rambutan`.
fn main() {}
