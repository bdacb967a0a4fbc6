//! One file a command.

pub mod bench;
pub mod info;
pub mod inspect;
pub mod selfcheck;
pub mod shaders;
