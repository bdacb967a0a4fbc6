//! The same kernels with one mistake each, and the checks that must notice it on any adapter. Others may: `--nocapture`
//! shows all that each says here.

use kernels::*;
use rambutan_kit::{Check, Kernel};

/// `source` with `right`, which stands there once, made `wrong`.
fn broken(source: &str, right: &str, wrong: &str) -> String {
    assert_eq!(source.matches(right).count(), 1, "`{right}` stands in the kernel once");
    source.replace(right, wrong)
}

/// The examination of a twin: these checks catch it. The machine's others, which say the same on every adapter, do not.
fn caught(twin: &Kernel, must: &[Check]) {
    let examination = twin.examine();
    println!("{examination}");
    let caught = examination.caught_by();
    let missed: Vec<_> = must.iter().filter(|c| !caught.contains(c)).collect();
    assert!(missed.is_empty(), "{missed:?} saw nothing:\n{examination}");
    for check in [Check::Bounds, Check::Uninitialised, Check::Races, Check::Order] {
        assert_eq!(caught.contains(&check), must.contains(&check), "{check:?}:\n{examination}");
    }
}

#[test]
fn a_barrier_is_missing() {
    let right = "            workgroupBarrier();\n            tile[lane] += left;";
    let twin = prefix_sum(&broken(PREFIX_SUM, right, "            tile[lane] += left;"));
    caught(&twin, &[Check::Races]);
}

#[test]
fn an_edge_is_off_by_one() {
    let twin = broken(CONVOLUTION, "column < i32(params.width)", "column <= i32(params.width)");
    caught(&convolution(&twin, CONVOLUTION_BACKWARD), &[Check::Values, Check::Bounds]);
}

#[test]
fn an_index_overflows() {
    let twin = broken(HISTOGRAM, "samples[i] / (RANGE / BINS)", "samples[i] * BINS / RANGE");
    caught(&histogram(&twin), &[Check::Values, Check::Bounds]);
}

#[test]
fn the_identity_is_wrong() {
    let twin = broken(BITONIC_SORT, "LAST: u32 = 0xFFFFFFFFu", "LAST: u32 = 0xFFFFu");
    caught(&bitonic_sort(&twin), &[Check::Values]);
}

#[test]
fn workgroup_memory_is_not_initialised() {
    let twin = broken(HISTOGRAM, "    atomicStore(&own[lane], 0u);\n    workgroupBarrier();\n", "");
    caught(&histogram(&twin), &[Check::Uninitialised]);
    let twin = broken(
        TRANSPOSE,
        "k = lane.y; k < TILE; k += 4u) {\n        let row = from_.x + k;",
        "k = lane.y; k < 12u; k += 4u) {\n        let row = from_.x + k;",
    );
    caught(&transpose(&twin), &[Check::Values, Check::Uninitialised]);
}
