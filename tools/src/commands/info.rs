//! `rambutan info`: the adapters of this machine, and what kernels may use on each.

use std::fmt::Write as _;

use rambutan_engine::{
    Gpu, GpuOptions, Tensor,
    gpu::{self, Capabilities},
};
use rambutan_model::{
    Checkpoint, Config, Ramba,
    ramba::{Options, Sharing},
};
use serde_json::{Value, json};

use crate::problem::{Problem, print, print_json};

/// Lists all adapters: backend, driver, limits, features, kernel variants
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan info\n  rambutan info --json\n  rambutan info --backend vulkan --kernels"
)]
pub struct Info {
    /// Runs one training step of the small model on each adapter and lists the kernels that it chose, with their variants
    #[arg(long)]
    kernels: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

impl Info {
    pub fn run(&self, options: &GpuOptions) -> Result<(), Problem> {
        let all = pollster::block_on(gpu::adapters(options))?;
        let wanted = |index: usize, name: &str| match &options.adapter {
            None => true,
            Some(w) => w
                .parse::<usize>()
                .map_or_else(|_| name.to_lowercase().contains(&w.to_lowercase()), |i| i == index),
        };
        let shown: Vec<_> = all.iter().filter(|a| wanted(a.index, &a.info.name)).collect();
        if shown.is_empty() {
            // Opening says what was asked for and what there is.
            return Gpu::new(options.clone()).map(drop).map_err(Problem::from);
        }
        let (mut text, mut values) = (String::new(), Vec::new());
        for adapter in shown {
            let index = adapter.index;
            let opened = Gpu::new(GpuOptions { adapter: Some(index.to_string()), ..options.clone() });
            let features: Vec<&str> = adapter.features.iter_names().map(|(name, _)| name).collect();
            let (kind, backend) =
                (format!("{:?}", adapter.info.device_type), adapter.info.backend.to_string());
            let driver = format!("{} {}", adapter.info.driver, adapter.info.driver_info);
            let mut value = json!({
                "index": index, "name": adapter.info.name, "backend": backend, "type": kind,
                "driver": driver.trim(), "features": features,
            });
            let _ = writeln!(
                text,
                "{index}: {}\n   backend   {backend} ({kind})\n   driver    {}",
                adapter.info.name,
                driver.trim()
            );
            match &opened {
                Ok(gpu) => {
                    describe(gpu.capabilities(), &mut value, &mut text);
                    if self.kernels {
                        chosen(gpu, &mut value, &mut text)?;
                    }
                }
                Err(e) => {
                    value["error"] = json!(e.to_string());
                    let _ = writeln!(text, "   cannot be opened: {e}");
                }
            }
            let _ = writeln!(text, "   features  {}\n", features.join(" "));
            values.push(value);
        }
        if self.json { print_json(&Value::Array(values)) } else { print(&text) }
    }
}

/// Limits, features and variants, for programs and for people.
pub(super) fn describe(c: &Capabilities, value: &mut Value, text: &mut String) {
    let (mut usable, mut all) = (0, 0);
    for (_, kernel) in rambutan_shaders::KERNELS {
        for variant in rambutan_shaders::variants(kernel) {
            all += 1;
            usable += u32::from(c.f16 || !variant.iter().any(|(_, v)| v == "f16"));
        }
    }
    value["limits"] = json!({
        "max_binding_bytes": c.max_binding, "max_buffer_bytes": c.max_buffer,
        "workgroup_memory_bytes": c.workgroup_memory, "invocations": c.invocations,
        "storage_buffers": c.storage_buffers,
    });
    value["kernels"] = json!({
        "f16": c.f16, "subgroups": c.subgroups.map(|(low, high)| [low, high]),
        "subgroup_barriers": c.subgroup_barriers, "cooperative_matrices": c.coop, "timestamps": c.timestamps,
        "variants_usable": usable, "variants": all,
    });
    let yes = |b: bool| if b { "yes" } else { "no" };
    let subgroups = c.subgroups.map_or("no".into(), |(low, high)| format!("{low} to {high}"));
    let _ = writeln!(
        text,
        "   limits    binding {} MiB, buffer {} MiB, workgroup {} KiB, {} invocations, {} storage buffers",
        c.max_binding >> 20,
        c.max_buffer >> 20,
        c.workgroup_memory >> 10,
        c.invocations,
        c.storage_buffers
    );
    let _ = writeln!(
        text,
        "   kernels   {usable} of {all} variants; f16 {}, subgroups {subgroups}, cooperative matrices {}, timestamps {}",
        yes(c.f16),
        yes(c.coop),
        yes(c.timestamps)
    );
}

/// The kernels that a training step chooses here, in f32 and in half precision, by doing it.
fn chosen(gpu: &Gpu, value: &mut Value, text: &mut String) -> Result<(), Problem> {
    let checkpoint = Checkpoint::initial(Config::small(), 0)?;
    let tokens = 128;
    let ids = Tensor::from_slice(gpu, &vec![32u32; tokens], [1, tokens])?;
    let weights = Tensor::from_slice(gpu, &vec![1.0f32; tokens], [1, tokens])?;
    let mut before = Vec::new();
    for half in [false, true].into_iter().filter(|half| !half || gpu.capabilities().f16) {
        let model = Ramba::with(gpu, &checkpoint, Options { trained: true, half })?;
        model.loss(&ids, None, &Sharing::default(), &ids, &weights, None).total.backward();
        gpu.wait()?;
        let all = gpu.kernels();
        let new: Vec<_> =
            all.iter().filter(|k| !before.contains(*k)).map(|(s, v)| format!("{s} {v}")).collect();
        let (key, head) =
            if half { ("chosen_f16", "in f16, beside those:") } else { ("chosen_f32", "in f32:") };
        let _ = writeln!(text, "   chosen    {head}\n      {}", new.join("\n      "));
        value["kernels"][key] = json!(new);
        before = all;
    }
    Ok(())
}
