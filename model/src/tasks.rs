//! What the model is trained and examined on: facts hidden in text, and questions about them.
//!
//! A fact is `|The passkey is:48213|` (plain) or `|The code of Rivaze is:7731942|` (named); its question comes
//! later and is answered by the digits and the closing bar. Harder ones: facts almost alike, other words for the same,
//! two asked for at once, variables that lead from one to the next ([`Chain`]). One grammar ([`Fact`], [`Chain`]) serves
//! training and examination.
//!
//! [`Sampler`] draws training batches: sample i of step s depends on (seed, s, i) alone, so a run is resumed by its step
//! number and batches can be built ahead in any number of threads ([`Prefetch`]). [`Haystack`] with [`Needle`]s and
//! [`Trial`]s is the examination.

mod fact;
mod haystack;
mod mix;
#[cfg(not(target_arch = "wasm32"))]
mod prefetch;
mod ruler;
mod sampler;
#[cfg(test)]
mod tests;

pub use fact::{Chain, Fact, FactKind, prompt};
pub use haystack::{Haystack, Needle};
pub use mix::TaskMix;
#[cfg(not(target_arch = "wasm32"))]
pub use prefetch::Prefetch;
pub use ruler::{Task, Trial};
pub use sampler::{Batch, Evidence, Sample, Sampler};

use crate::data::DataError;

/// Greedy answers end with this.
pub const STOP: &str = "|";

/// Random streams that must never meet: each begins with a number of its own.
const TRAINING: u64 = 1;
const EXAMINATION: u64 = 2;
const PIECES: u64 = 3;

fn setting(field: &'static str, value: impl ToString, expected: impl Into<String>) -> DataError {
    DataError::Setting { field, value: value.to_string(), expected: expected.into() }
}
