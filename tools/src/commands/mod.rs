//! One file a command.

use std::panic::{AssertUnwindSafe, catch_unwind};

pub mod ask;
pub mod bench;
mod bench_compare;
mod bench_crossover;
mod bench_model;
mod bench_rows;
pub mod demo;
pub mod eval;
pub mod generate;
pub mod info;
pub mod inspect;
pub mod jobs;
pub mod read;
pub mod selfcheck;
pub mod shaders;
pub mod train;

/// What `f` gives, or why it panicked: a launch that disagrees with its kernel is one op's failure, not the end of a
/// table.
fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(f));
    std::panic::set_hook(hook);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_else(|| "panicked".into())
    })
}
