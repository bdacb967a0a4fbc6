//! Every kernel in every variant before every judge at hand: naga's validation, its SPIR-V, MSL and HLSL writers,
//! spirv-val, and Tint. All complaints are listed at once.

use std::{env, fs, path::PathBuf, process::Command};

use naga::{
    back,
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};
use rambutan_shaders::{Dialect, KERNELS, compose, variants};

/// The name of a kernel's variant, with its text.
fn all(dialect: Dialect) -> Vec<(String, String)> {
    let mut composed = Vec::new();
    for (stem, text) in KERNELS {
        for variant in variants(text) {
            let spec: Vec<_> = variant.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            let shown: Vec<_> = variant.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let name = format!("{stem}.wgsl[{}]", shown.join(" "));
            let text = compose(text, &spec, dialect).unwrap_or_else(|e| panic!("{name}: {e}"));
            composed.push((name, text));
        }
    }
    composed
}

fn parse(text: &str) -> Result<(naga::Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(text))?;
    Ok((module, info))
}

/// Runs `judge` on every kernel and lists what it refuses.
fn hold(judge: impl Fn(&str, &str, &naga::Module, &ModuleInfo) -> Result<(), String>) {
    let failures: Vec<_> = all(Dialect::Naga)
        .iter()
        .filter_map(|(name, text)| {
            let verdict = parse(text).and_then(|(module, info)| judge(name, text, &module, &info));
            verdict.err().map(|e| format!("{name}: {e}"))
        })
        .collect();
    assert!(failures.is_empty(), "{} kernels refused:\n{}", failures.len(), failures.join("\n"));
}

fn cooperative(text: &str) -> bool {
    text.contains("coop_mat")
}

/// A folder of this process's own.
fn scratch(name: &str) -> PathBuf {
    let folder = env::temp_dir().join(format!("rambutan-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}

/// The portable base is WebGPU's default limits: no kernel binds more buffers or holds more workgroup memory, unless
/// it is a variant that a device must offer something for.
#[test]
fn portable_limits() {
    hold(|name, text, module, _| {
        // Each kernel as it stands runs everywhere; ops choose larger variants by what the adapter offers. Cooperative
        // matrices are always such a variant.
        let most = if name.ends_with("[]") && !cooperative(text) { 16384 } else { 49152 };
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).map_err(|e| e.to_string())?;
        let (mut storage, mut workgroup) = (0, 0);
        for (_, variable) in module.global_variables.iter() {
            match variable.space {
                naga::AddressSpace::Storage { .. } => storage += 1,
                naga::AddressSpace::WorkGroup => workgroup += layouter[variable.ty].size,
                _ => {}
            }
        }
        let [x, y, z] = module.entry_points[0].workgroup_size;
        if storage > 8 {
            return Err(format!("{storage} storage buffers, 8 are portable"));
        }
        if workgroup > most {
            return Err(format!("{workgroup} bytes of workgroup memory, at most {most}"));
        }
        if x * y * z > 256 && !cooperative(text) {
            return Err(format!("{} invocations, 256 are portable", x * y * z));
        }
        Ok(())
    });
}

#[test]
fn spirv() {
    let validate = Command::new("spirv-val").arg("--version").output().is_ok();
    if !validate {
        eprintln!("shaders: spirv-val skipped: not on PATH (Debian: spirv-tools)");
    }
    let folder = scratch("spirv");
    hold(|name, text, module, info| {
        let options = back::spv::Options { lang_version: (1, 3), ..Default::default() };
        let words = back::spv::write_vec(module, info, &options, None).map_err(|e| e.to_string())?;
        // Debian's spirv-val is older than cooperative matrices.
        if !validate || cooperative(text) {
            return Ok(());
        }
        let file = folder.join(name.replace(['[', ']', ' ', '='], "_"));
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        fs::write(&file, bytes).map_err(|e| e.to_string())?;
        let out = Command::new("spirv-val").args(["--target-env", "vulkan1.1"]).arg(&file).output();
        let out = out.map_err(|e| e.to_string())?;
        if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
    });
    let _ = fs::remove_dir_all(folder);
}

#[test]
fn metal() {
    hold(|_, _, module, info| {
        let options =
            back::msl::Options { lang_version: (3, 0), fake_missing_bindings: true, ..Default::default() };
        let pipeline = back::msl::PipelineOptions::default();
        back::msl::write_string(module, info, &options, &pipeline).map(drop).map_err(|e| e.to_string())
    });
}

#[test]
fn hlsl() {
    hold(|_, text, module, info| {
        // naga 30 writes no cooperative matrices for Direct3D: those variants are for Vulkan and Metal.
        if cooperative(text) {
            return Ok(());
        }
        let half = text.starts_with("enable f16");
        let shader_model = if half { back::hlsl::ShaderModel::V6_2 } else { back::hlsl::ShaderModel::V6_0 };
        let options = back::hlsl::Options { shader_model, fake_missing_bindings: true, ..Default::default() };
        let (mut out, pipeline) = (String::new(), back::hlsl::PipelineOptions::default());
        let written = back::hlsl::Writer::new(&mut out, &options, &pipeline).write(module, info, None);
        written
            .map_err(|e| e.to_string())?
            .entry_point_names
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map(drop)
            .map_err(|e| e.to_string())
    });
}

#[test]
fn tint() {
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/node_modules"));
    let modules = env::var_os("RAMBUTAN_TINT").map_or(beside, PathBuf::from);
    if !modules.join("webgpu").is_dir() {
        eprintln!("shaders: Tint skipped: {} holds no npm package webgpu", modules.display());
        return;
    }
    let kernels: Vec<_> = all(Dialect::Tint).into_iter().filter(|(_, text)| !cooperative(text)).collect();
    let folder = scratch("tint");
    let list = folder.join("kernels.json");
    fs::write(&list, serde_json::to_string(&kernels).expect("text")).expect("a temporary file");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tint.mjs");
    let out = Command::new("node").arg(script).arg(&modules).arg(&list).output().expect("node on PATH");
    let _ = fs::remove_dir_all(folder);
    let text = String::from_utf8_lossy(&out.stdout);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("Tint: 0 kernels refused"), "{text}{errors}");
}
