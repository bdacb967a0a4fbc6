//! One file per op: equation, forward, backward, reference and [`Case`].
//!
//! To add an op, add `shaders/<stem>.wgsl`, `shaders/<stem>_backward.wgsl`, `<stem>.rs` here and its name to the list
//! below: tests, gradient checks, benches and the self-check follow from its cases.

use crate::testing::Case;

/// Declares the modules, re-exports their functions and collects their cases.
macro_rules! ops {
    ($($op:ident),* $(,)?) => {
        $(mod $op; #[allow(unused_imports)] pub use $op::*;)*
        /// The cases of all ops.
        pub fn cases() -> Vec<Case> {
            let mut all = Vec::new();
            $(all.extend($op::cases());)*
            all
        }
    };
}

ops! {
    adamw,
    add_rms_norm,
    attention,
    batches,
    causal_conv1d,
    columns,
    contrast,
    copy,
    cross_entropy,
    cumulative_sum,
    elementwise,
    embedding,
    gated_rms_norm,
    gather_chunks,
    hsa,
    hsa_step,
    inverse_list,
    linear_step,
    mamba2_step,
    matmul,
    quantized,
    reduce,
    repeat,
    restart,
    rms_norm,
    rope,
    segment_code,
    select,
    selective_scan,
    softmax,
    square_sum,
    ssd_chunk,
    ssd_scan,
    ssd_step,
    top_k,
    weights,
    window_attention,
}
