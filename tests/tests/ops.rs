//! Every op's cases against their references: values, gradients, determinism.

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use rambutan_engine::{
    ops,
    testing::{self, Case, Failure, Sizes, strategy},
};

/// Runs `check` on drawn sizes of all cases whose stem contains `RAMBUTAN_CASE`, listing all failures at once.
fn all(draws: u32, check: impl Fn(&Case, &Sizes, u64) -> Result<(), Failure>) {
    let gpu = testing::gpu();
    let wanted = std::env::var("RAMBUTAN_CASE").unwrap_or_default();
    let mut failures = Vec::new();
    for case in ops::cases().iter().filter(|c| c.stem.contains(&wanted) && (c.runs_on)(&gpu)) {
        let mut runner = TestRunner::new_with_rng(
            Config { cases: draws, failure_persistence: None, max_shrink_iters: 64, ..Config::default() },
            TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        );
        let result = runner.run(&strategy::sizes(case), |(sizes, seed)| {
            check(case, &sizes, seed).map_err(|e| TestCaseError::fail(e.to_string()))
        });
        if let Err(e) = result {
            failures.push(e.to_string());
        }
    }
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn property_values() {
    let gpu = testing::gpu();
    all(24, |case, sizes, seed| testing::check(&gpu, case, sizes, seed).map(drop));
}

#[test]
fn property_gradients() {
    let gpu = testing::gpu();
    all(6, |case, sizes, seed| testing::check_gradients(&gpu, case, sizes, seed).map(drop));
}

#[test]
fn property_determinism() {
    let gpu = testing::gpu();
    all(4, |case, sizes, seed| testing::check_determinism(&gpu, case, sizes, seed));
}
