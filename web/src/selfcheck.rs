//! `rambutan selfcheck` in a browser: every op's Cases against their definitions.

use rambutan_engine::{
    Gpu, GpuOptions, ops as engine_ops,
    testing::{self, Case, Report},
};
use serde_json::json;
use wasm_bindgen::prelude::*;

use crate::thrown;

/// The names of all Cases, in order.
#[wasm_bindgen]
pub fn ops() -> Vec<String> {
    engine_ops::cases().iter().map(|c| c.stem.to_owned()).collect()
}

/// A device of its own with checks on.
#[wasm_bindgen]
pub struct Selfcheck {
    gpu: Gpu,
    cases: Vec<Case>,
}

#[wasm_bindgen]
impl Selfcheck {
    /// Opens the browser's GPU.
    pub async fn open() -> Result<Selfcheck, JsError> {
        let gpu =
            Gpu::request(GpuOptions { checked: true, ..GpuOptions::default() }).await.map_err(thrown)?;
        Ok(Selfcheck { gpu, cases: engine_ops::cases() })
    }

    /// Values at `draws` sizes, gradients and repeatability at the first two of them, of the Case number `i`, as JSON:
    /// `ok` is null where the adapter cannot run it.
    pub async fn run(&self, i: usize, draws: u32) -> String {
        let (gpu, case) = (&self.gpu, &self.cases[i]);
        if !case.runs(gpu) {
            return json!({ "op": case.stem, "ok": null }).to_string();
        }
        let (mut sizes_seen, mut failures, mut worst) = (Vec::new(), Vec::new(), Report::default());
        for seed in 1..=u64::from(draws) {
            let sizes = case.draw(seed);
            sizes_seen.push(sizes.to_string());
            let mut results = vec![testing::values(gpu, case, &sizes, seed).await];
            if seed <= 2 {
                results.push(testing::gradients(gpu, case, &sizes, seed).await);
                let repeated = testing::determinism(gpu, case, &sizes, seed).await;
                results.push(repeated.map(|()| Report::default()));
            }
            for result in results {
                match result {
                    Ok(r) if r.allowed > 0.0 && r.worst * worst.allowed >= worst.worst * r.allowed => {
                        worst = r
                    }
                    Ok(_) => {}
                    Err(e) => failures.push(e.to_string()),
                }
            }
        }
        json!({
            "op": case.stem, "ok": failures.is_empty(), "sizes": sizes_seen,
            "worst": worst.worst, "allowed": worst.allowed, "failures": failures,
        })
        .to_string()
    }
}
