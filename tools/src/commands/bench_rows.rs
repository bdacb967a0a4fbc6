//! The rows that speed is judged by: one op at one size, one pass, what others take for it and what it shall take.

/// What of a row is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Forward,
    Backward,
    /// Both, one after the other.
    Both,
}

impl Pass {
    pub fn name(self) -> &'static str {
        match self {
            Pass::Forward => "forward",
            Pass::Backward => "backward",
            Pass::Both => "both",
        }
    }
}

/// One row. Peers are named as in their files, `name|shape|dtype`; empty where they have none.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    /// The stem of the Case, and its sizes.
    pub case: &'static str,
    pub sizes: &'static [usize],
    pub pass: Pass,
    /// Milliseconds on an H200.
    pub goal: f64,
    pub torch: &'static str,
    pub burn: &'static str,
}

const fn row(
    name: &'static str,
    case: &'static str,
    sizes: &'static [usize],
    pass: Pass,
    goal: f64,
    torch: &'static str,
    burn: &'static str,
) -> Row {
    Row { name, case, sizes, pass, goal, torch, burn }
}

use Pass::{Backward, Both, Forward};

/// 16-bit rows are f16, where peers have bf16. Rows of one case and size follow one another: they share their runs.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row("matmul.f32.1024", "matmul", &[1, 1024, 1024, 1024, 0, 0], Forward, 0.065, "matmul|1024x1024x1024|f32", "matmul|1024x1024x1024|f32"),
    row("matmul.f32.4096", "matmul", &[1, 4096, 4096, 4096, 0, 0], Forward, 2.85, "matmul|4096x4096x4096|f32", "matmul|4096x4096x4096|f32"),
    row("matmul.f16.1024", "matmul.f16", &[1, 1024, 1024, 1024, 0, 0], Forward, 0.02, "matmul|1024x1024x1024|f16", "matmul|1024x1024x1024|f16"),
    row("matmul.f16.2048", "matmul.f16", &[1, 2048, 2048, 2048, 0, 0], Forward, 0.06, "matmul|2048x2048x2048|f16", "matmul|2048x2048x2048|f16"),
    row("matmul.f16.4096", "matmul.f16", &[1, 4096, 4096, 4096, 0, 0], Forward, 0.34, "matmul|4096x4096x4096|f16", "matmul|4096x4096x4096|f16"),
    row("matmul.f16.8192", "matmul.f16", &[1, 8192, 8192, 8192, 0, 0], Forward, 2.75, "matmul|8192x8192x8192|f16", "matmul|8192x8192x8192|f16"),
    row("mlp.f32", "mlp", &[4096, 1024, 4096, 1024], Both, 3.7, "", "mlp_fwd_bwd|4096x1024->4096->1024 silu|f32"),
    row("mlp.f16", "mlp.f16", &[4096, 1024, 4096, 1024], Both, 0.6, "", "mlp_fwd_bwd|4096x1024->4096->1024 silu|f16"),
    row("softmax.8192x4096", "softmax", &[8192, 4096], Forward, 0.075, "", "softmax|8192x4096|f32"),
    row("rms_norm.f32.16384x1024", "rms_norm", &[16384, 1024], Forward, 0.037, "", "rms_norm|16384x1024|f32"),
    row("add.64M", "add", &[65536, 1024, 0], Forward, 0.195, "", "add|67108864|f32"),
    row("sum.64M", "sum", &[65536, 1024], Forward, 0.075, "", "sum|67108864|f32"),
    row("top_k.8_of_1024", "top_k", &[4096, 1024, 8], Forward, 0.02, "", "topk_with_indices|4096x1024 k=8|f32"),
    row("cumulative_sum.4096x1024", "cumulative_sum", &[4096, 1024], Forward, 0.012, "", "cumsum|4096x1024 dim1|f32"),
    row("gather.16384x1024", "embedding", &[16384, 65536, 1024], Forward, 0.037, "", "select_rows|[65536,1024] select 16384 rows|f32"),
    row("hsa.random.8x4096.forward", "hsa.random", &[8, 4096, 16, 1, 64, 64, 64, 8, 1, 0], Forward, 0.71, "hsa-noassert fwd|B8 L4096 Hq16 Hkv1 d64 S64 K8|f16", ""),
    row("hsa.random.8x4096.backward", "hsa.random", &[8, 4096, 16, 1, 64, 64, 64, 8, 1, 0], Backward, 2.1, "hsa-noassert bwd|B8 L4096 Hq16 Hkv1 d64 S64 K8|f16", ""),
    row("hsa.random.8x16384.forward", "hsa.random", &[8, 16384, 16, 1, 64, 256, 64, 8, 1, 0], Forward, 2.8, "hsa-noassert fwd|B8 L16384 Hq16 Hkv1 d64 S64 K8|f16", ""),
    row("hsa.random.8x16384.backward", "hsa.random", &[8, 16384, 16, 1, 64, 256, 64, 8, 1, 0], Backward, 8.4, "hsa-noassert bwd|B8 L16384 Hq16 Hkv1 d64 S64 K8|f16", ""),
    row("hsa.random.1x65536.forward", "hsa.random", &[1, 65536, 16, 1, 64, 1024, 64, 8, 1, 0], Forward, 1.4, "hsa-noassert fwd|B1 L65536 Hq16 Hkv1 d64 S64 K8|f16", ""),
    row("hsa.random.1x65536.backward", "hsa.random", &[1, 65536, 16, 1, 64, 1024, 64, 8, 1, 0], Backward, 4.2, "hsa-noassert bwd|B1 L65536 Hq16 Hkv1 d64 S64 K8|f16", ""),
    row("hsa.shared16.8x4096.forward", "hsa.shared16", &[8, 4096, 16, 1, 64, 64, 64, 8, 1, 0], Forward, 0.45, "hsa-noassert-shared16 fwd|B8 L4096 Hq16 Hkv1 d64 S64 K8|f16", ""),
    row("hsa.shared16.8x4096.backward", "hsa.shared16", &[8, 4096, 16, 1, 64, 64, 64, 8, 1, 0], Backward, 2.1, "hsa-noassert-shared16 bwd|B8 L4096 Hq16 Hkv1 d64 S64 K8|f16", ""),
    row("hsa.shared16.8x16384.forward", "hsa.shared16", &[8, 16384, 16, 1, 64, 256, 64, 8, 1, 0], Forward, 1.8, "hsa-noassert-shared16 fwd|B8 L16384 Hq16 Hkv1 d64 S64 K8|f16", ""),
    row("hsa.shared16.8x16384.backward", "hsa.shared16", &[8, 16384, 16, 1, 64, 256, 64, 8, 1, 0], Backward, 8.4, "hsa-noassert-shared16 bwd|B8 L16384 Hq16 Hkv1 d64 S64 K8|f16", ""),
    row("hsa.shared16.1x65536.forward", "hsa.shared16", &[1, 65536, 16, 1, 64, 1024, 64, 8, 1, 0], Forward, 0.9, "hsa-noassert-shared16 fwd|B1 L65536 Hq16 Hkv1 d64 S64 K8|f16", ""),
    row("hsa.shared16.1x65536.backward", "hsa.shared16", &[1, 65536, 16, 1, 64, 1024, 64, 8, 1, 0], Backward, 4.2, "hsa-noassert-shared16 bwd|B1 L65536 Hq16 Hkv1 d64 S64 K8|f16", ""),
    row("select.8x4096.forward", "select.weights.f16", &[8, 4096, 64, 1024, 8, 64, 0], Forward, 0.1, "select-noassert fwd|B8 L4096 r1024 S64 K8|bf16", ""),
    row("select.8x4096.both", "select.weights.f16", &[8, 4096, 64, 1024, 8, 64, 0], Both, 0.5, "select-noassert fwd+bwd|B8 L4096 r1024 S64 K8|bf16", ""),
    row("select.8x16384.forward", "select.weights.f16", &[8, 16384, 256, 1024, 8, 64, 0], Forward, 0.5, "select-noassert fwd|B8 L16384 r1024 S64 K8|bf16", ""),
    row("select.8x16384.both", "select.weights.f16", &[8, 16384, 256, 1024, 8, 64, 0], Both, 1.8, "select-noassert fwd+bwd|B8 L16384 r1024 S64 K8|bf16", ""),
    row("select.1x65536.forward", "select.weights.f16", &[1, 65536, 1024, 1024, 8, 64, 0], Forward, 0.9, "select-noassert fwd|B1 L65536 r1024 S64 K8|bf16", ""),
    row("select.1x65536.both", "select.weights.f16", &[1, 65536, 1024, 1024, 8, 64, 0], Both, 1.6, "select-noassert fwd+bwd|B1 L65536 r1024 S64 K8|bf16", ""),
    row("select.question.30x262144.forward", "select.weights.f16", &[1, 30, 262144, 1024, 8, 64, 16777216], Forward, 0.25, "", ""),
    row("ssd.8x4096.forward", "ssd_scan.best.f16", &[8, 4096, 32, 1, 64, 128, 1, 0, 0], Forward, 0.67, "ssd fwd|B8 L4096 H32 P64 N128 G1 Q256|bf16", ""),
    row("ssd.8x4096.backward", "ssd_scan.best.f16", &[8, 4096, 32, 1, 64, 128, 1, 0, 0], Backward, 2.0, "ssd bwd|B8 L4096 H32 P64 N128 G1 Q256|bf16", ""),
    row("ssd.1x65536.forward", "ssd_scan.best.f16", &[1, 65536, 32, 1, 64, 128, 1, 0, 0], Forward, 1.3, "ssd fwd|B1 L65536 H32 P64 N128 G1 Q256|bf16", ""),
    row("ssd.1x65536.backward", "ssd_scan.best.f16", &[1, 65536, 32, 1, 64, 128, 1, 0, 0], Backward, 3.9, "ssd bwd|B1 L65536 H32 P64 N128 G1 Q256|bf16", ""),
    row("ssd.1x262144.forward", "ssd_scan.best.f16", &[1, 262144, 32, 1, 64, 128, 1, 0, 0], Forward, 5.0, "ssd fwd|B1 L262144 H32 P64 N128 G1 Q256|bf16", ""),
    row("ssd.1x262144.backward", "ssd_scan.best.f16", &[1, 262144, 32, 1, 64, 128, 1, 0, 0], Backward, 15.0, "ssd bwd|B1 L262144 H32 P64 N128 G1 Q256|bf16", ""),
    row("rms_norm.f16.32768x1024.forward", "rms_norm.f16", &[32768, 1024], Forward, 0.045, "rmsnorm fwd|[32768,1024]|bf16", ""),
    row("rms_norm.f16.32768x1024.backward", "rms_norm.f16", &[32768, 1024], Backward, 0.1, "rmsnorm bwd|[32768,1024]|bf16", ""),
    row("gated_rms_norm.32768x2048.forward", "gated_rms_norm.f16", &[32768, 2048, 1], Forward, 0.13, "rmsnorm-gated fwd|[32768,2048]|bf16", ""),
    row("gated_rms_norm.32768x2048.backward", "gated_rms_norm.f16", &[32768, 2048, 1], Backward, 0.3, "rmsnorm-gated bwd|[32768,2048]|bf16", ""),
    row("cross_entropy.16384x50280.forward", "cross_entropy.f16", &[16384, 50280], Forward, 0.5, "cross-entropy fwd|16384 tokens, vocabulary 50280|bf16", ""),
    row("cross_entropy.16384x50280.backward", "cross_entropy.f16", &[16384, 50280], Backward, 0.9, "cross-entropy bwd|16384 tokens, vocabulary 50280|bf16", ""),
    row("adamw.370M", "adamw.step", &[92_500_000], Forward, 2.8, "adamw step|370 M parameters, 49 tensors|f32", ""),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rambutan_engine::ops;

    use super::*;

    #[test]
    fn rows_name_cases_that_can_check_them() {
        let cases = ops::cases();
        let names: BTreeSet<&str> = ROWS.iter().map(|r| r.name).collect();
        assert_eq!(names.len(), ROWS.len(), "a name stands twice");
        for row in ROWS {
            let case = cases.iter().find(|c| c.stem == row.case);
            let case = case.unwrap_or_else(|| panic!("{}: no case `{}`", row.name, row.case));
            let sizes = case.exactly(row.sizes.to_vec());
            let cost = (case.cost)(&sizes);
            assert!(cost.bytes > 0, "{}: what does it move?", row.name);
            let checked = case.part.is_some() || super::super::bench::is_quick_to_check(cost);
            assert!(checked && row.goal > 0.0, "{}: nothing to hold it against", row.name);
            for peer in [row.torch, row.burn].into_iter().filter(|p| !p.is_empty()) {
                assert_eq!(peer.split('|').count(), 3, "{}: {peer}: name|shape|dtype", row.name);
            }
        }
        // Those of one case and size share their runs.
        let keys: Vec<_> = ROWS.iter().map(|r| (r.case, r.sizes)).collect();
        let runs = keys.chunk_by(|a, b| a == b).count();
        assert_eq!(runs, keys.iter().collect::<BTreeSet<_>>().len(), "rows of one size lie apart");
    }
}
