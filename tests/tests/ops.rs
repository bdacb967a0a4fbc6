//! Every op's cases against their references: values, gradients, determinism.

use std::{collections::BTreeMap, time::Instant};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use rambutan_engine::{
    DType, Gpu, GpuOptions, Tensor, autograd,
    gpu::Profile,
    ops,
    reference::Array,
    testing::{self, Case, Draw, Failure, Input, Sizes, strategy},
};

/// Runs `check` on drawn sizes of all cases whose stem contains `RAMBUTAN_CASE`, listing all failures at once.
fn all(draws: u32, check: impl Fn(&Case, &Sizes, u64) -> Result<(), Failure>) {
    let gpu = testing::gpu();
    let wanted = std::env::var("RAMBUTAN_CASE").unwrap_or_default();
    let mut failures = Vec::new();
    let cases: Vec<Case> = ops::cases().into_iter().filter(|c| c.stem.contains(&wanted)).collect();
    assert!(
        !cases.is_empty(),
        "no case's stem contains RAMBUTAN_CASE={wanted}: is its op in engine/src/ops/mod.rs?"
    );
    for case in cases.iter().filter(|c| c.runs(&gpu)) {
        let start = Instant::now();
        let mut runner = TestRunner::new_with_rng(
            Config { cases: draws, failure_persistence: None, max_shrink_iters: 64, ..Config::default() },
            TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        );
        let result = runner.run(&strategy::sizes(case), |(sizes, seed)| {
            check(case, &sizes, seed).map_err(|e| TestCaseError::fail(e.to_string()))
        });
        // Shown with --nocapture: where the time goes.
        println!("{:24} {:6.2} s", case.stem, start.elapsed().as_secs_f64());
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

/// A part is what the whole holds there, of values and of gradients.
#[test]
fn property_parts() {
    let gpu = testing::gpu();
    all(4, |case, sizes, seed| {
        let inputs = case.draw_inputs(sizes, &mut Draw::quick(seed));
        let tensors: Vec<Tensor> = inputs.iter().map(|i| i.tensor(&gpu)).collect();
        let spot = testing::check_spot(&gpu, case, sizes, &inputs, &tensors, true)?;
        let counted = |(some, all): (usize, usize)| some > 0 && all > 0;
        let differentiable = inputs.iter().any(|i| i.differentiable);
        match spot {
            Some(s) if !counted(s.outputs) || (differentiable && !counted(s.gradients)) => {
                Err(Failure(format!("{} [{sizes}]: a part of nothing: {s:?}", case.stem)))
            }
            _ => Ok(()),
        }
    });
}

/// Large inputs repeat what was drawn, on the device as in the array.
#[test]
fn quick_draws_repeat() {
    let gpu = testing::gpu();
    let all = Draw::quick(3).normal(&[3, 70_001]);
    assert!(all.repeats() && all.len() == 210_003 && all.data.len() < 140_000);
    let part = all.cut(&[1..3, 69_990..70_001]);
    for dtype in [DType::F32, DType::F16].into_iter().filter(|d| *d == DType::F32 || gpu.capabilities().f16) {
        let input = Input::new("x", all.clone()).of(dtype);
        let read = testing::read(&input.tensor(&gpu)).expect("no device error");
        assert_eq!(read.shape, [3, 70_001]);
        assert_eq!(read.cut(&[1..3, 69_990..70_001]), input.array.cut(&[1..3, 69_990..70_001]));
    }
    assert_eq!(Draw::new(3).normal(&[7]), Draw::quick(3).normal(&[7]), "small arrays are the same");
    assert_ne!(part.data[..11], part.data[11..], "rows differ");
}

/// Kernels whose tiles follow workgroup memory, at each size that this adapter can play.
#[test]
fn property_tiles() {
    let own = testing::gpu().capabilities().workgroup_memory;
    for memory in [16384, 32768, 49152].into_iter().filter(|m| *m <= own) {
        let options = GpuOptions { workgroup_memory: Some(memory), checked: true, ..GpuOptions::from_env() };
        let gpu = Gpu::new(options).unwrap_or_else(|e| panic!("{e}"));
        let wanted = std::env::var("RAMBUTAN_CASE").unwrap_or_default();
        let tiled = |stem: &str| {
            ["matmul", "linear", "select", "hsa", "ssd_scan", "window_attention"]
                .iter()
                .any(|t| stem.starts_with(t))
        };
        for case in ops::cases().iter().filter(|c| tiled(c.stem) && c.stem.contains(&wanted) && c.runs(&gpu))
        {
            for seed in 0..3 {
                let sizes = case.draw(seed);
                let values = testing::check(&gpu, case, &sizes, seed).map(drop);
                let both = values.and_then(|()| testing::check_gradients(&gpu, case, &sizes, seed).map(drop));
                both.unwrap_or_else(|e| panic!("with {memory} bytes of workgroup memory: {e}"));
            }
        }
    }
}

/// Mistakes between workgroups show only where there are some: the sizes that cases draw give every kernel more than
/// two at least once.
#[test]
fn property_workgroups() {
    // A device of its own: what other tests launch says nothing about these draws.
    let gpu = Gpu::new(GpuOptions::from_env()).unwrap_or_else(|e| panic!("{e}"));
    if std::env::var_os("RAMBUTAN_CASE").is_some() || !gpu.profile(Profile::Kernels) {
        println!("no counts by kernel: some cases only, or no timestamps on {}", gpu.capabilities().name);
        return;
    }
    let mut widest: BTreeMap<&str, u64> = BTreeMap::new();
    for case in ops::cases().iter().filter(|c| c.runs(&gpu)) {
        for seed in 0..8 {
            let sizes = case.draw(seed);
            let inputs = case.draw_inputs(&sizes, &mut Draw::new(seed));
            let tensors: Vec<Tensor> = inputs.iter().map(|i| i.tensor(&gpu)).collect();
            let outputs = (case.run)(&sizes, &tensors);
            let used: Vec<&Tensor> =
                outputs.iter().filter(|y| y.dtype().is_float() && y.needs_grad()).collect();
            let seeds: Vec<Tensor> =
                used.iter().map(|y| Tensor::full(&gpu, y.shape(), y.dtype(), 1.0)).collect();
            autograd::backward(&used.into_iter().zip(&seeds).collect::<Vec<_>>());
        }
        for time in gpu.kernel_times().unwrap_or_else(|e| panic!("{}: {e}", case.stem)) {
            let most = widest.entry(time.stem).or_default();
            *most = time.widest.max(*most);
        }
    }
    // One workgroup walks over all lists; one decides a step.
    widest.retain(|stem, _| !["inverse_list_pieces", "adamw_control"].contains(stem));
    let narrow: Vec<_> = widest.iter().filter(|(_, n)| **n <= 2).collect();
    println!("{} kernels", widest.len());
    assert!(narrow.is_empty(), "kernels that no case runs in more than two workgroups: {narrow:?}");
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
                assert!(
                    same,
                    "rows {first}+{rows} of ({k} → {n}) in {dtype} differ from those of the whole product"
                );
            }
        }
    }
}

/// A sequence's attention and its gradients are the same alone, in company, and with more tokens after it.
#[test]
fn sequences_alone() {
    let gpu = testing::gpu();
    let (batches, tokens, more, share, heads, d) = (2, 61, 150, 5, 2, 16);
    for dtype in [DType::F32, DType::F16].into_iter().filter(|d| *d == DType::F32 || gpu.capabilities().f16) {
        let mut draw = Draw::new(5);
        let inputs: Vec<Array> = [share * heads, heads, heads, share * heads]
            .map(|heads| draw.uniform(&[batches, more, heads, d], -2.0, 2.0))
            .into();
        for window in [33, 1000] {
            // o, dq, dk and dv of the first `tokens` of these sequences, of which `all` are there.
            let run = |first: usize, count: usize, all: usize| -> Vec<Array> {
                let part = |i: usize| {
                    let heads = inputs[i].shape[2];
                    let mut array = inputs[i].cut(&[first..first + count, 0..all, 0..heads, 0..d]);
                    if i == 3 {
                        let row = heads * d;
                        let late = |at: usize| at / row % all >= tokens;
                        (0..array.len()).filter(|at| late(*at)).for_each(|at| array.data[at] = 0.0);
                    }
                    Input::new("x", array).of(dtype)
                };
                let [q, k, v] = [0, 1, 2].map(|i| part(i).grad().tensor(&gpu));
                let o = ops::window_attention(&q, &k, &v, window);
                autograd::backward(&[(&o, &part(3).tensor(&gpu))]);
                let gradients = [&q, &k, &v].map(|x| x.grad().expect("it arrived").reshape(x.shape()));
                let results = std::iter::once(&o).chain(&gradients);
                let early = |x: Array| x.cut(&[0..count, 0..tokens, 0..x.shape[2], 0..d]);
                results.map(|x| early(testing::read(x).expect("no device error"))).collect()
            };
            let together = run(0, batches, more);
            for b in 0..batches {
                let alone = run(b, 1, tokens);
                for ((name, all), one) in ["o", "dq", "dk", "dv"].iter().zip(&together).zip(&alone) {
                    let same = all.cut(&[b..b + 1, 0..tokens, 0..all.shape[2], 0..d]).data == one.data;
                    assert!(same, "{name} of sequence {b}, window {window}, {dtype}, differs alone");
                }
            }
        }
    }
}

/// What a token selects is the same alone, in company, and however the chunks are cut into pages and parts.
#[test]
fn tokens_select_alone() {
    let gpu = testing::gpu();
    let (tokens, chunks, heads, r) = (150, 1100, 2, 48);
    for dtype in [DType::F32, DType::F16].into_iter().filter(|d| *d == DType::F32 || gpu.capabilities().f16) {
        let mut draw = Draw::new(7);
        let q = draw.uniform(&[1, tokens, heads, r], -2.0, 2.0);
        let landmarks = draw.uniform(&[1, chunks, heads, r], -2.0, 2.0);
        let tensor = |x: &Array, axis: std::ops::Range<usize>| {
            let part = x.cut(&[0..1, axis, 0..heads, 0..r]);
            Input::new("x", part).of(dtype).tensor(&gpu)
        };
        let run = |first: usize, count: usize, cuts: &[usize]| -> Vec<Array> {
            let seen = ops::Visibility { chunk: 4, first_position: 4300 + first, window: None, group: None };
            let pages: Vec<ops::Landmarks> =
                cuts.windows(2).map(|c| tensor(&landmarks, c[0]..c[1]).into()).collect();
            let (scores, indices) = ops::select_pages(&tensor(&q, first..first + count), &pages, 8, &seen);
            [scores, indices].iter().map(|x| testing::read(x).expect("no device error")).collect()
        };
        let all = run(0, tokens, &[0, chunks]);
        for (first, count) in [(0, 1), (149, 1), (60, 70), (0, tokens)] {
            for cuts in [&[0, chunks][..], &[0, 1, 70, chunks], &[0, 550, chunks]] {
                for (all, one) in all.iter().zip(run(first, count, cuts)) {
                    let same = all.cut(&[0..1, first..first + count, 0..heads, 0..8]).data == one.data;
                    assert!(
                        same,
                        "tokens {first}+{count}, {dtype}, pages {cuts:?}: another selection than together"
                    );
                }
            }
        }
    }
}
