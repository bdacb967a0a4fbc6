//! Every op's cases against their references: values, gradients, determinism.

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use rambutan_engine::{
    DType, ops,
    reference::Array,
    testing::{self, Case, Draw, Failure, Input, Sizes, strategy},
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

/// A row's product is the same alone and in company, whichever kernels the numbers of rows select.
#[test]
fn rows_alone() {
    let gpu = testing::gpu();
    for dtype in [DType::F32, DType::F16].into_iter().filter(|d| *d == DType::F32 || gpu.capabilities().f16) {
        for (k, n) in [(128, 256), (64, 32), (61, 67)] {
            let mut draw = Draw::new(3);
            let x = Input::new("x", draw.normal(&[2100, k])).of(dtype);
            let weight = Input::new("weight", draw.normal(&[n, k])).tensor(&gpu);
            let product = |first: usize, rows: usize| {
                let part = Array::new(&[rows, k], x.array.data[first * k..(first + rows) * k].to_vec());
                let y = ops::linear(&Input { array: part, ..x.clone() }.tensor(&gpu), &weight, None);
                testing::read(&y).expect("no device error").data
            };
            let all = product(0, 2100);
            for (first, rows) in [(0, 1), (7, 1), (2099, 1), (60, 9), (100, 65), (128, 700)] {
                let same = product(first, rows) == all[first * n..(first + rows) * n];
                assert!(same, "rows {first}+{rows} of ({k} → {n}) in {dtype} differ from those of the whole product");
            }
        }
    }
}
