//! `rambutan selfcheck` in a browser: every op's Cases against their definitions.

use rambutan_engine::{
    Gpu, GpuOptions, ops as engine_ops,
    testing::{self, Case},
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
        let outcome = testing::selfcheck(gpu, case, draws.into()).await;
        json!({
            "op": case.stem, "ok": outcome.failures.is_empty(), "sizes": outcome.sizes,
            "worst": outcome.worst.worst, "allowed": outcome.worst.allowed, "failures": outcome.failures,
        })
        .to_string()
    }
}
