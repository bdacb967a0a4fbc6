//! Every kernel of ours on the kit's abstract machine: what invocations share lies between barriers, indices lie inside of
//! what is bound, nothing that the host reads hangs on what nobody wrote, and the machine computes what the device does.
//! Software Vulkan runs a workgroup's invocations in their order and hides races; the machine needs no luck.

use std::{collections::BTreeMap, thread};

use rambutan_engine::{DType, Gpu, GpuOptions, Tensor, gpu::Launch, ops, testing};
use rambutan_shaders::{KERNELS, whole};
use rambutan_tests::machine::{Seen, Watch};

/// Which of twelve draws of a case, the cheapest first, are followed: with subgroups, where there are some, and without,
/// as other kernels are chosen then.
const DEVICES: [(&[&str], &[usize]); 2] = [(&[], &[1, 4]), (&["subgroups"], &[2])];

fn watched(without: &[&str], draws: &[usize]) -> Watch {
    let without = without.iter().map(|w| (*w).to_owned()).collect();
    let options = GpuOptions { checked: true, without, ..GpuOptions::from_env() };
    let gpu = Gpu::new(options).unwrap_or_else(|e| panic!("{e}"));
    let wanted = std::env::var("RAMBUTAN_CASE").unwrap_or_default();
    let mut watch = Watch::default();
    for case in ops::cases().iter().filter(|c| c.stem.contains(&wanted) && c.runs(&gpu)) {
        let mut sizes: Vec<_> = (0..12).map(|seed| case.draw(seed)).collect();
        sizes.sort_by_key(|s| case.costs(s, 4.0).iter().map(|c| c.flops + c.bytes).sum::<usize>());
        for (seed, draw) in draws.iter().enumerate() {
            watch.case(&gpu, case, &sizes[*draw], seed as u64);
        }
    }
    watch
}

#[test]
fn kernels_keep_to_their_own() {
    let watches = thread::scope(|scope| {
        DEVICES
            .map(|(without, draws)| scope.spawn(move || watched(without, draws)))
            .map(|thread| thread.join().expect("its panic is told"))
    });
    let mut seen: BTreeMap<&str, Seen> = BTreeMap::new();
    for (stem, one) in watches.iter().flat_map(|w| &w.seen) {
        let all = seen.entry(stem).or_default();
        all.launches += one.launches;
        all.long += one.long;
        all.widest = all.widest.max(one.widest);
    }
    println!("{:36} launches  workgroups  too long", "kernel");
    for (stem, s) in &seen {
        println!("{stem:36} {:8}  {:10}  {:8}", s.launches, s.widest, s.long);
    }
    let findings: Vec<&String> = watches.iter().flat_map(|w| &w.findings).collect();
    assert!(findings.is_empty(), "{} findings:\n{findings:#?}", findings.len());
    let matrices = |text: &str| whole(text).is_ok_and(|text| text.contains("coop_mat"));
    let followed = |stem: &str| seen.get(stem).is_some_and(|s| s.launches > 0);
    let left: Vec<&str> = KERNELS
        .iter()
        .filter(|(stem, text)| !matrices(text) && !followed(stem))
        .map(|(stem, _)| *stem)
        .collect();
    println!("not followed here: {left:?}, and those on cooperative matrices (tests/tests/coop.rs)");
    let gpu = testing::gpu();
    // An adapter of these chooses every other kernel in some case.
    if gpu.capabilities().cpu_vectors()
        && gpu.capabilities().f16
        && std::env::var_os("RAMBUTAN_CASE").is_none()
    {
        assert!(left.is_empty(), "no launch of these was followed: {left:?}");
    }
}

/// One mistake of each kind, launched as ops launch.
#[test]
fn what_is_wrong_is_told() {
    let gpu = testing::gpu();
    let text = |body: &str| {
        format!(
            "@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
var<workgroup> left: array<f32, 64>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {{
    let i = id.x;
    {body}
}}"
        )
    };
    let told = |body: &str| -> Vec<String> {
        let mut watch = Watch::default();
        watch.of(&gpu, "a launch", || {
            let x = Tensor::from_slice(&gpu, &[1.5f32; 100], [100]).expect("it fits");
            let y = Tensor::empty(&gpu, [100], DType::F32);
            let z = Tensor::empty(&gpu, [100], DType::F32);
            Launch::source("planted", &text(body)).read(&x).write(&y).groups(2);
            // What was left out is handed on.
            let copy = "if i < 100u { y[i] = x[i]; }";
            Launch::source("copy_on", &text(copy)).read(&y).write(&z).groups(2);
            z.to_vec::<f32>().expect("no device error");
        });
        watch.findings
    };
    assert_eq!(told("if i < 100u { y[i] = 2.0 * x[i]; }"), [""; 0]);
    for (body, part) in [
        ("y[i] = 2.0 * x[i];", "bounds: line 7: invocation 36 of workgroup 1: index 100 of `y`"),
        ("if i < 100u && i != 70u { y[i] = x[i]; }", "byte 280 of 400 that the host reads holds nothing"),
        ("if i < 100u { y[i] = x[i] + left[lane]; }", "byte 0 of 400 that the host reads holds nothing"),
        ("if i < 100u { left[lane] = x[i]; y[i] = left[lane ^ 1u]; }", "races: line 7"),
        ("if i < 100u { y[i] = x[i]; y[i % 64u] = x[i]; }", "nothing orders workgroups"),
    ] {
        let findings = told(body);
        assert!(findings.iter().any(|f| f.contains(part)), "`{body}`: `{part}` is not in {findings:#?}");
    }
    // What is read and not used hurts nobody.
    assert_eq!(told("if i < 100u { y[i] = select(left[lane], x[i], x[i] > 1.0); }"), [""; 0]);
}
