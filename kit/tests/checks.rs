//! Each check fails on a defect of its own, and says where.

use rambutan_kit::{Backward, Check, Device, Kernel, Values, Verdict, wgpu};

/// Element by element: `body` computes `y[i]`, and may read `x[i]`.
fn element_wise(name: &str, body: &str) -> Kernel {
    let source = format!(
        "@group(0) @binding(0) var<uniform> n: u32;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {{
    let i = id.x;
    {body}
}}"
    );
    Kernel::new(name, &source)
        .dim("n", 1, 300)
        .uniform("n", |s| vec![s["n"].into()])
        .input("x", Values::normal(), |s| s["n"])
        .output("y", |s| s["n"])
        .workgroups(|s| [s["n"].div_ceil(64), 1, 1])
        .reference(|_, i| i["x"].iter().map(|v| v * v * v).collect::<Vec<_>>())
}

/// y = x³ and its gradient.
fn cube(gradient: &str) -> Kernel {
    let backward = format!(
        "@group(0) @binding(0) var<uniform> n: u32;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {{
    if id.x < n {{ dx[id.x] = dy[id.x] * {gradient}; }}
}}"
    );
    let backward = Backward::new(&backward)
        .upstream("dy", "y")
        .gradient("dx", "x")
        .workgroups(|s| [s["n"].div_ceil(64), 1, 1]);
    element_wise("cube", "if i < n { y[i] = x[i] * x[i] * x[i]; }").backward(backward)
}

/// What a check says of a kernel that it must catch.
#[track_caller]
fn said(kernel: &Kernel, check: Check) -> String {
    match kernel.verdict(check) {
        Verdict::Failed(text) => text,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn says(kernel: &Kernel, check: Check, parts: &[&str]) {
    let text = said(kernel, check);
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn a_right_kernel_with_its_gradient_holds() {
    cube("3.0 * x[id.x] * x[id.x]").check();
}

#[test]
fn a_wrong_gradient_is_caught() {
    says(&cube("2.0 * x[id.x] * x[id.x]"), Check::Gradients, &["n=1,", "backward", "dx[0]", "instead of"]);
}

#[test]
fn the_smallest_failure_is_told() {
    let wrong =
        element_wise("late", "if i < n { y[i] = select(x[i] * x[i] * x[i], 7.0, i == 40u && x[i] != 0.0); }");
    says(
        &wrong,
        Check::Values,
        &["n=41,", "x: all 0 but x[40] = ", "y[40] is 7", "the first of 1 that differ among 41"],
    );
}

#[test]
fn what_compilers_refuse_is_caught() {
    says(&element_wise("syntax", "y[i] = x[i"), Check::Compilers, &["naga", "expected"]);
}

#[test]
fn what_leaves_the_limits_is_caught() {
    let wide = element_wise("wide", "if i < n { y[i] = x[i] * x[i] * x[i]; }");
    let far = wide.clone().dim("more", 1, 70_000).workgroups(|s| [s["n"] * s["more"], 1, 1]);
    says(&far, Check::Limits, &["workgroups in x at [n=300 more=70000]: 21000000, at most 65535"]);
    let narrow = wgpu::Limits { max_storage_buffers_per_shader_stage: 1, ..wgpu::Limits::default() };
    says(&wide.limits(narrow), Check::Limits, &["storage buffers: 2, at most 1"]);
}

#[test]
fn a_write_behind_the_end_is_caught() {
    let wrong = element_wise("behind", "if i <= n { y[i] = select(0.0, x[i] * x[i] * x[i], i < n); }");
    let wrong = wrong.workgroups(|s| [s["n"] / 64 + 1, 1, 1]);
    says(&wrong, Check::Guards, &["`y` is written beyond its end: word 0"]);
    says(&wrong, Check::Bounds, &["n=1,", "index 1 of `y`, which has 1 elements"]);
}

#[test]
fn what_is_not_written_is_caught() {
    let wrong = element_wise("holes", "if i < n && i != 5u { y[i] = x[i] * x[i] * x[i]; }");
    says(&wrong, Check::Poison, &["n=6,", "y[5]"]);
    says(&wrong, Check::Uninitialised, &["n=6,", "1 of 6 elements are never written, `y[5]` first"]);
}

#[test]
fn a_read_of_an_output_is_caught() {
    let wrong = element_wise("adds", "if i < n { y[i] += x[i] * x[i] * x[i]; }");
    says(&wrong, Check::Uninitialised, &["n=1,", "reads `y[0]` before anything is written there"]);
}

/// Squares in the order in which invocations come by.
fn compaction() -> Kernel {
    const SOURCE: &str = "
@group(0) @binding(0) var<uniform> n: u32;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> next: atomic<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < n { y[atomicAdd(&next, 1u) % n] = x[id.x]; }
}";
    Kernel::new("compaction", SOURCE)
        .dim("n", 1, 300)
        .uniform("n", |s| vec![s["n"].into()])
        .input("x", Values::integers(0..9), |s| s["n"])
        .in_out("next", Values::custom(0.0, |_| 0.0), |_| 1)
        .output("y", |s| s["n"])
        .workgroups(|s| [s["n"].div_ceil(64), 1, 1])
}

#[test]
fn an_order_of_arrival_is_caught() {
    says(&compaction(), Check::Order, &["in another order", "next: all 0", "y[0] is "]);
}

/// Whoever waives one of the checks that an order of arrival fails is told of the others.
#[test]
fn what_else_to_waive_is_told() {
    says(&compaction(), Check::Order, &["waive repeats, guards and poison, too"]);
    let holes = element_wise("holes", "if i < n && i != 5u { y[i] = x[i] * x[i] * x[i]; }");
    assert!(!said(&holes, Check::Poison).contains("waive"));
    says(
        &holes.waive(Check::Order, "whoever reads it sorts"),
        Check::Poison,
        &["`order` is waived", "waive this check, too"],
    );
    // No two compilers round these alike.
    let source = "@group(0) @binding(0) var<storage, read> x: array<f32>;
        @group(0) @binding(1) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(64)
        fn main(@builtin(global_invocation_id) id: vec3u) {
            if id.x < arrayLength(&x) { y[id.x] = sin(exp(x[id.x])) * exp(x[id.x]); }
        }";
    let rough = Kernel::new("rough", source)
        .dim("n", 300, 400)
        .input("x", Values::uniform(1.0, 5.0), |s| s["n"])
        .output("y", |s| s["n"])
        .workgroups(|s| [s["n"].div_ceil(64), 1, 1])
        .tolerance(|_| 0.0);
    says(&rough, Check::Values, &["no reference is declared", ".reference(…)", ".waive(Check::Values, …)"]);
}

#[test]
fn a_check_is_waived_with_a_reason() {
    // No two runs need agree, the machine's (`values`, where no reference is declared) among them.
    let examination = [Check::Order, Check::Repeats, Check::Values, Check::Guards, Check::Poison]
        .into_iter()
        .fold(compaction(), |kernel, check| kernel.waive(check, "whoever reads it sorts"))
        .examine();
    assert!(examination.holds(), "{examination}");
    assert!(examination.to_string().contains("order          skipped: waived: whoever reads it sorts"));
}

/// y[r] = Σ x, one row a workgroup; `tail` ends it.
fn sum(head: &str, tail: &str) -> Kernel {
    let source = format!(
        "@group(0) @binding(0) var<uniform> n: u32;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
var<workgroup> part: array<f32, 32>;
@compute @workgroup_size(32)
fn main(@builtin(local_invocation_index) lane: u32) {{
    var own = 0.0;
    for (var i = lane; i < n; i += 32u) {{ own += x[i]; }}
    {head}
    part[lane] = own;
    workgroupBarrier();
    for (var width = 16u; width > 0u; width /= 2u) {{
        if lane < width {{ part[lane] += part[lane + width]; }}
        workgroupBarrier();
    }}
    {tail}
}}"
    );
    Kernel::new("sum", &source)
        .dim("n", 1, 200)
        .uniform("n", |s| vec![s["n"].into()])
        .input("x", Values::floats(), |s| s["n"])
        .output("y", |_| 1)
        .reference(|_, i| vec![i["x"].iter().sum::<f64>()])
        .tolerance(|s| 4.0 + 1e3 * s["n"] as f64)
}

#[test]
fn a_tree_of_sums_is_no_race() {
    // Values may cancel to nothing: what they are is not this test's.
    let right = sum("", "if lane == 0u { y[0] = part[0]; }").waive(Check::Values, "sums cancel");
    right.check();
}

#[test]
fn a_barrier_that_not_all_reach_is_caught() {
    let twin = sum("if lane >= n { return; }", "if lane == 0u { y[0] = part[0]; }");
    says(
        &twin,
        Check::Races,
        &["n=1,", "1 of 32 invocations reach this barrier", "invocation 1 of workgroup 0 does not"],
    );
}

#[test]
fn two_that_write_one_place_are_caught() {
    let text = said(&sum("", "y[0] = part[0];"), Check::Races);
    assert!(
        text.contains(
            "invocation 1 of workgroup 0 writes `y[0]`, which invocation 0 of the same workgroup wrote"
        ),
        "{text}"
    );
}

#[test]
fn workgroups_that_meet_are_caught() {
    let twin = element_wise("far", "if i < n { y[i] = x[i]; } if i < n && i >= 64u { y[i] = y[i - 64u]; }");
    says(
        &twin,
        Check::Races,
        &[
            "n=65,",
            "reads `y[0]`, which invocation 0 of workgroup 0 wrote in line 7: nothing orders workgroups",
        ],
    );
}

/// A device that somebody else opened.
#[test]
fn it_runs_on_a_device_of_ones_own() {
    let gpu = rambutan_engine::Gpu::new(rambutan_engine::GpuOptions::from_env()).expect("an adapter");
    let device = Device::new(gpu.device(), gpu.queue());
    cube("3.0 * x[id.x] * x[id.x]").trials(4).check_on(&device);
}

#[test]
#[should_panic(expected = "the kernel binds `x`, which is not declared")]
fn what_is_not_declared_is_named() {
    Kernel::new("nothing", "@group(0) @binding(0) var<storage, read_write> x: array<f32>; @compute @workgroup_size(1) fn main() { x[0] = 1.0; }").check();
}
