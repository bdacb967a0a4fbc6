//! One file a command.

pub mod ask;
pub mod bench;
mod bench_compare;
mod bench_crossover;
mod bench_model;
mod bench_rows;
pub mod demo;
pub mod eval;
pub mod info;
pub mod inspect;
pub mod selfcheck;
pub mod shaders;
pub mod train;
