//! `rambutan inspect`: what a checkpoint holds, and whether it is sound.

use std::{fmt::Write as _, path::PathBuf};

use rambutan_model::checkpoint::{Checkpoint, CheckpointError, Header};
use serde_json::{Value, json};

use crate::problem::{Problem, print, print_json};

/// Shows a checkpoint's configuration, parameters and metadata, and checks every number
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan inspect model.safetensors\n  rambutan inspect model.safetensors --json\n\nA safetensors file without a configuration is listed, and said to be no model of Rambutan."
)]
pub struct Inspect {
    /// A .safetensors file
    checkpoint: PathBuf,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub fn run(&self) -> Result<(), Problem> {
        let header = Header::open(&self.checkpoint)?;
        let model = match Checkpoint::open(&self.checkpoint) {
            Ok(model) => Some(model),
            Err(e) if without_config(&e) => None,
            Err(e) => return Err(e.into()),
        };
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        let bytes: u64 = header.tensors.iter().map(|t| t.bytes).sum();
        if self.json {
            let config = model.as_ref().map(|m| serde_json::from_str::<Value>(&m.config.to_json()));
            let tensors: Vec<Value> = header
                .tensors
                .iter()
                .map(|t| json!({ "name": t.name, "dtype": t.dtype, "shape": t.shape, "bytes": t.bytes }))
                .collect();
            return print_json(&json!({
                "model": model.is_some(), "config": config.and_then(Result::ok),
                "parameters": model.as_ref().map(|m| m.config.parameter_count()),
                "moments": model.as_ref().is_some_and(Checkpoint::has_moments),
                "bytes": bytes, "metadata": header.metadata, "tensors": tensors,
            }));
        }
        let mut out = String::new();
        match &model {
            Some(m) => {
                let moments = if m.has_moments() { ", with the optimizer's moments" } else { "" };
                let _ = writeln!(
                    out,
                    "model of {} parameters, all finite{moments}\n\nconfiguration\n{}\n",
                    m.config.parameter_count(),
                    m.config.to_json()
                );
            }
            None => {
                out.push_str("no configuration: not a model of Rambutan, its numbers are not checked\n\n")
            }
        }
        for (key, value) in header.metadata.iter().filter(|(k, _)| *k != "rambutan.config") {
            // Names and values come from the file: no control character may reach the terminal.
            let mut value: String = value.escape_debug().take(201).collect();
            if value.chars().count() > 200 {
                value.push('…');
            }
            let _ = writeln!(out, "metadata {}: {value}", key.escape_debug());
        }
        let _ = writeln!(out, "\n{:56} {:>5} {:>12} {:>12}  shape", "tensor", "type", "elements", "bytes");
        for t in &header.tensors {
            let name = t.name.escape_debug().to_string();
            let _ = writeln!(
                out,
                "{name:56} {:>5} {:>12} {:>12}  {:?}",
                t.dtype,
                elements(&t.shape),
                t.bytes,
                t.shape
            );
        }
        let _ = writeln!(out, "{} tensors, {bytes} bytes", header.tensors.len());
        print(&out)
    }
}

fn without_config(error: &CheckpointError) -> bool {
    match error {
        CheckpointError::NoConfig => true,
        CheckpointError::At { source, .. } => without_config(source),
        _ => false,
    }
}
