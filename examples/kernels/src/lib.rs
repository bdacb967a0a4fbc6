//! Five kernels that somebody might write, each declared once to be tested whole. `tests/` runs them, and twins of them
//! with one mistake each.

use rambutan_kit::{Backward, Kernel, Values};

/// Running sums along rows.
pub const PREFIX_SUM: &str = include_str!("prefix_sum.wgsl");
/// A 3 × 3 filter over an image.
pub const CONVOLUTION: &str = include_str!("convolution.wgsl");
/// Its gradient.
pub const CONVOLUTION_BACKWARD: &str = include_str!("convolution_backward.wgsl");
/// Lists sorted in place.
pub const BITONIC_SORT: &str = include_str!("bitonic_sort.wgsl");
/// Samples counted by bins.
pub const HISTOGRAM: &str = include_str!("histogram.wgsl");
/// A matrix transposed.
pub const TRANSPOSE: &str = include_str!("transpose.wgsl");

/// Running sums of f64 cost nothing: plain Rust says what is meant.
pub fn prefix_sum(source: &str) -> Kernel {
    Kernel::new("prefix_sum", source)
        .dim("rows", 1, 7)
        .dim("columns", 1, 600)
        .uniform("params", |s| vec![s["columns"].into()])
        .input("x", Values::floats(), |s| s["rows"] * s["columns"])
        .output("y", |s| s["rows"] * s["columns"])
        .workgroups(|s| [s["rows"], 1, 1])
        .reference(|s, i| {
            let rows = i["x"].chunks(s["columns"]);
            let sums = rows.flat_map(|row| {
                row.iter().scan(0.0, |sum, v| {
                    *sum += v;
                    Some(*sum)
                })
            });
            sums.collect::<Vec<f64>>()
        })
        // Cancellation makes the largest sum smaller than what was added up.
        .tolerance(|s| 8.0 + s["columns"] as f64)
}

/// The nine taps around a pixel, those outside left out.
fn filtered(x: &[f64], filter: &[f64], height: usize, width: usize) -> Vec<f64> {
    let at = |row: usize, column: usize| {
        let inside = (1..=height).contains(&row) && (1..=width).contains(&column);
        if inside { x[(row - 1) * width + column - 1] } else { 0.0 }
    };
    (0..height * width)
        .map(|p| (0..9).map(|t| filter[t] * at(p / width + t / 3, p % width + t % 3)).sum())
        .collect()
}

/// A filter and its backward pass.
pub fn convolution(source: &str, backward: &str) -> Kernel {
    let groups = |s: &rambutan_kit::Sizes| [s["width"].div_ceil(8), s["height"].div_ceil(8), 1];
    Kernel::new("convolution", source)
        .dim("height", 1, 70)
        .dim("width", 1, 70)
        .uniform("params", |s| vec![s["height"].into(), s["width"].into()])
        .input("x", Values::floats(), |s| s["height"] * s["width"])
        .input("filter_", Values::normal(), |_| 9)
        .output("y", |s| s["height"] * s["width"])
        .workgroups(groups)
        .reference(|s, i| filtered(&i["x"], &i["filter_"], s["height"], s["width"]))
        .tolerance(|_| 40.0)
        .backward(Backward::new(backward).upstream("dy", "y").gradient("dx", "x").workgroups(groups))
}

/// Sorted in place.
pub fn bitonic_sort(source: &str) -> Kernel {
    Kernel::new("bitonic_sort", source)
        .dim("lists", 1, 5)
        .dim("keys", 1, 128)
        .uniform("params", |s| vec![s["keys"].into()])
        .in_out("keys", Values::integers(0..1 << 32), |s| s["lists"] * s["keys"])
        .workgroups(|s| [s["lists"], 1, 1])
        .reference(|s, i| {
            let mut keys = i.u32("keys");
            keys.chunks_mut(s["keys"]).for_each(<[u32]>::sort_unstable);
            keys
        })
}

/// Counts on top of what was counted before.
pub fn histogram(source: &str) -> Kernel {
    Kernel::new("histogram", source)
        .dim("samples", 1, 5000)
        .uniform("params", |s| vec![s["samples"].into()])
        .input("samples", Values::integers(0..1 << 26), |s| s["samples"])
        .in_out("counts", Values::integers(0..1000), |_| 256)
        .workgroups(|s| [s["samples"].div_ceil(1024), 1, 1])
        .reference(|_, i| {
            let mut counts = i.u32("counts");
            i.u32("samples").iter().for_each(|v| counts[(v >> 18) as usize] += 1);
            counts
        })
}

/// Nothing is computed, so every bit agrees.
pub fn transpose(source: &str) -> Kernel {
    Kernel::new("transpose", source)
        .dim("rows", 1, 100)
        .dim("columns", 1, 100)
        .uniform("params", |s| vec![s["rows"].into(), s["columns"].into()])
        .input("x", Values::floats(), |s| s["rows"] * s["columns"])
        .output("y", |s| s["rows"] * s["columns"])
        .workgroups(|s| [s["columns"].div_ceil(16), s["rows"].div_ceil(16), 1])
        .reference(|s, i| {
            let (rows, columns) = (s["rows"], s["columns"]);
            (0..rows * columns).map(|at| i["x"][at % rows * columns + at / rows]).collect::<Vec<f64>>()
        })
        .tolerance(|_| 0.0)
}
