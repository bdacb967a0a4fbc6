//! Tests a WGSL compute kernel against a plain Rust function, from one declaration.
//!
//! ```
//! use rambutan_kit::{Kernel, Values};
//!
//! const SAXPY: &str = "
//!     struct Params { n: u32, a: f32 }
//!     @group(0) @binding(0) var<uniform> params: Params;
//!     @group(0) @binding(1) var<storage, read> x: array<f32>;
//!     @group(0) @binding(2) var<storage, read> y: array<f32>;
//!     @group(0) @binding(3) var<storage, read_write> z: array<f32>;
//!     @compute @workgroup_size(64)
//!     fn main(@builtin(global_invocation_id) id: vec3u) {
//!         if id.x < params.n { z[id.x] = params.a * x[id.x] + y[id.x]; }
//!     }";
//!
//! fn saxpy(x: &[f64], y: &[f64]) -> Vec<f64> {
//!     x.iter().zip(y).map(|(x, y)| 2.0 * x + y).collect()
//! }
//!
//! Kernel::new("saxpy", SAXPY)
//!     .dim("n", 1, 5000)
//!     .uniform("params", |s| vec![s["n"].into(), 2f32.into()])
//!     .input("x", Values::floats(), |s| s["n"])
//!     .input("y", Values::floats(), |s| s["n"])
//!     .output("z", |s| s["n"])
//!     .workgroups(|s| [s["n"].div_ceil(64), 1, 1])
//!     .reference(|_, i| saxpy(&i["x"], &i["y"]))
//!     .check();
//! ```
//!
//! Buffers are bound by the names that they have in WGSL; numbers are f64 on the Rust side and what the kernel declares on
//! its own. Sizes are drawn awkwardly (1, primes, powers of two ± 1), values as ties, denormals, magnitudes side by side.
//! What fails is made smaller, sizes first, then the values, and told so that it can be acted on:
//!
//! ```text
//! prefix_sum on llvmpipe (LLVM 15.0.6, 256 bits)
//!   values         FAILED
//!     smallest sizes that fail: rows=1 columns=9, in 1 × 1 × 1 workgroups
//!     x: all 0 but x[6] = 1.8322998
//!     y[8] is 3.6645997, expected 1.8322998 within 1.86e-6: the first of 1 that differ among 9
//!                               expected               got
//!                 y[6]         1.8322998         1.8322998
//!                 y[7]         1.8322998         1.8322998
//!       >         y[8]         1.8322998         3.6645997
//!     in step, invocation by invocation, the kernel computes what is expected: look for a race, or the driver's mistake
//!   races          FAILED
//!     smallest sizes that fail: rows=1 columns=1, in 1 × 1 × 1 workgroups
//!     x: all 0
//!     line 23: invocation 0 of workgroup 0 writes `tile[0]`, which invocation 1 of the same workgroup read in line 21: no barrier lies between
//!         23 | tile[lane] += left;
//! ```
//!
//! # Two ways to run a kernel
//!
//! *On a device*, yours ([`Device::new`]) or the best there is: what it computes is held against the reference; buffers get
//! guards behind them, outputs and workgroup memory are poisoned, and runs repeated.
//!
//! *On an abstract machine*, which interprets naga's IR in step and watches each access. It needs no luck: a race is found
//! where two invocations touch one place and no barrier lies between, whatever order they ran in; so are an index
//! outside of its array, one whose arithmetic wrapped, a read of what nobody wrote, and a barrier that not all reach.
//! Subgroups are as wide there as the device's smallest. An engine that makes its launches by itself hands them to a
//! [`Machine`]: text and bytes, nothing declared.
//!
//! # What catches what
//!
//! Five kernels in `examples/kernels`, broken on purpose; its tests hold the kit to this table (● must, on any adapter;
//! ○ seen on lavapipe):
//!
//! | planted defect | values | guards | poison | bounds | uninitialised | races |
//! |---|---|---|---|---|---|---|
//! | prefix sum: a barrier is missing | ○ | | | | | ● |
//! | convolution: an edge is off by one | ● | ○ | | ● | | |
//! | histogram: the index of a bin overflows | ● | | | ● | | |
//! | bitonic sort: the padding is not the identity | ● | | | | | |
//! | transpose: part of the tile is not initialised | ● | | ○ | | ● | |
//! | histogram: counts rely on zeroed workgroup memory | | | ○ | | ● | |
//!
//! Each other check is held against a defect of its own in this crate's tests: a kernel that compilers refuse, one beyond
//! WebGPU's limits, a wrong gradient, a write behind the end, results in the order of arrival.
//!
//! # What it cannot find
//!
//! - What no drawn input shows. The machine sees the accesses that happen, not those that could: declare sizes that reach
//!   every branch, and more than one workgroup. It leaves out launches too long for it, and says so where all are.
//! - Mistakes that need more memory than a test has: that a product of sizes leaves 32 bits at billions of elements is seen
//!   only if `limits` does, at the largest sizes declared.
//! - Races of atomics that mean to race. Updates commute, and are ordered against loads and stores alone; a ticket drawn by
//!   `atomicAdd` shows under `order` where the result depends on it. Where that is meant, `repeats`, `guards` and `poison`
//!   are to be waived with `order`, and `values` wants a reference, as the machine knows one order alone. A kernel that waits for another workgroup has no
//!   guarantee to end, and the machine gives up on it.
//! - What only a GPU's own memory does: the machine has one memory, in order. It knows no textures, no cooperative
//!   matrices and no 64-bit numbers, and skips its checks there.
//! - Compilers' mistakes, but where values differ on the device and not on the machine: the report says which.
//! - Numbers that a poor reference shares with the kernel: write what is meant, not how.
//!
//! A check that does not apply is left out with [`Kernel::waive`], which wants a reason.

mod checks;
mod device;
pub mod judges;
mod kernel;
mod machine;
mod program;
mod replay;
mod report;
mod trial;
mod values;

pub use checks::Check;
pub use device::Device;
pub use kernel::{Backward, Inputs, Kernel, Outputs, Word};
pub use rambutan_engine::{
    testing::{Dim, Draw, Sizes},
    wgpu,
};
pub use replay::{Launch, Machine, Trace};
pub use report::{Examination, Verdict};
pub use values::Values;

/// The package's README, as it was run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
