//! The compilers that a kernel meets on its way to a device, asked whether they take it.

use std::{
    env,
    ffi::OsString,
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use naga::{
    Module, back,
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// naga's own validation: wgpu's compiler.
    Naga,
    /// naga's SPIR-V writer, for Vulkan.
    Spirv,
    /// Khronos' `spirv-val` on what that writes.
    SpirvVal,
    /// naga's Metal writer.
    Metal,
    /// naga's HLSL writer, for Direct3D 12.
    Hlsl,
    /// Microsoft's `dxc` on what that writes: the command that `RAMBUTAN_DXC` names, or `dxc`.
    Dxc,
    /// Chromium's compiler, through the npm package `webgpu` in the folder `RAMBUTAN_TINT`, or in ./node_modules.
    Tint,
}

/// What a judge says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// It takes the kernel.
    Accepted,
    /// It does not, for this reason.
    Refused(String),
    /// It is not installed; how it would be.
    Absent(String),
    /// It does not know what the kernel is made of.
    NotApplicable,
}

/// The order of tables.
pub const JUDGES: [Judge; 7] =
    [Judge::Naga, Judge::Spirv, Judge::SpirvVal, Judge::Metal, Judge::Hlsl, Judge::Dxc, Judge::Tint];

impl Judge {
    /// The head of its column.
    pub fn name(self) -> &'static str {
        match self {
            Judge::Naga => "naga",
            Judge::Spirv => "SPIR-V",
            Judge::SpirvVal => "spirv-val",
            Judge::Metal => "MSL",
            Judge::Hlsl => "HLSL",
            Judge::Dxc => "DXC",
            Judge::Tint => "Tint",
        }
    }

    /// Its opinion of each (name, WGSL). What is cooperative matrices is for naga's validation, SPIR-V and Metal alone.
    pub fn ask(self, kernels: &[(String, String)]) -> Vec<Opinion> {
        if self == Judge::Tint {
            return tint(kernels);
        }
        if let Some(absent) = self.absent() {
            return vec![Opinion::Absent(absent); kernels.len()];
        }
        // Those that are commands take their time: as many at once as there are cores.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        std::thread::scope(|scope| {
            let each = kernels.len().div_ceil(cores).max(1);
            let ask =
                |part: &[(String, String)]| part.iter().map(|(_, text)| self.one(text)).collect::<Vec<_>>();
            let parts: Vec<_> = kernels.chunks(each).map(|part| scope.spawn(move || ask(part))).collect();
            parts.into_iter().flat_map(|p| p.join().expect("a judge does not panic")).collect()
        })
    }

    fn absent(self) -> Option<String> {
        match self {
            Judge::SpirvVal => {
                let there = Command::new("spirv-val").arg("--version").output().is_ok();
                (!there).then(|| "spirv-val is not on PATH (Debian: spirv-tools)".into())
            }
            Judge::Dxc => {
                let there = Command::new(dxc()).arg("--version").output().is_ok();
                (!there).then(|| "no dxc on PATH, and RAMBUTAN_DXC names none".into())
            }
            _ => None,
        }
    }

    fn one(self, text: &str) -> Opinion {
        if cooperative(text) && !matches!(self, Judge::Naga | Judge::Spirv | Judge::Metal) {
            return Opinion::NotApplicable;
        }
        let verdict = parse(text).and_then(|(module, info)| match self {
            Judge::Naga | Judge::Tint => Ok(()),
            Judge::Spirv => spirv(&module, &info).map(drop),
            Judge::SpirvVal => spirv(&module, &info).and_then(|words| validate_spirv(&words)),
            Judge::Metal => metal(&module, &info),
            Judge::Hlsl => hlsl(&module, &info, text).map(drop),
            Judge::Dxc => {
                hlsl(&module, &info, text).and_then(|(hlsl, entry)| compile_hlsl(&hlsl, &entry, text))
            }
        });
        verdict.map_or_else(Opinion::Refused, |()| Opinion::Accepted)
    }
}

fn cooperative(text: &str) -> bool {
    text.contains("coop_mat")
}

fn parse(text: &str) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(text))?;
    // The writers take no overrides: their defaults stand for them.
    let constants = back::PipelineConstants::default();
    let (module, info) = back::pipeline_constants::process_overrides(&module, &info, None, &constants)
        .map(|(m, i)| (m.into_owned(), i.into_owned()))
        .map_err(|e| e.to_string())?;
    Ok((module, info))
}

fn spirv(module: &Module, info: &ModuleInfo) -> Result<Vec<u32>, String> {
    let options = back::spv::Options { lang_version: (1, 3), ..Default::default() };
    back::spv::write_vec(module, info, &options, None).map_err(|e| e.to_string())
}

/// Hands `input` to a command; what it says where it ends with another code than 0.
fn piped(command: &mut Command, input: &[u8]) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    child.stdin.take().expect("piped").write_all(input).map_err(|e| e.to_string())?;
    let out = child.wait_with_output().map_err(|e| e.to_string())?;
    let said = || String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    if out.status.success() { Ok(()) } else { Err(said()) }
}

fn validate_spirv(words: &[u32]) -> Result<(), String> {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    piped(Command::new("spirv-val").args(["--target-env", "vulkan1.1", "-"]), &bytes)
}

fn metal(module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let options =
        back::msl::Options { lang_version: (3, 0), fake_missing_bindings: true, ..Default::default() };
    let pipeline = back::msl::PipelineOptions::default();
    back::msl::write_string(module, info, &options, &pipeline).map(drop).map_err(|e| e.to_string())
}

fn half(text: &str) -> bool {
    text.contains("enable f16")
}

/// The text, and the name of its entry point.
fn hlsl(module: &Module, info: &ModuleInfo, text: &str) -> Result<(String, String), String> {
    let shader_model = if half(text) { back::hlsl::ShaderModel::V6_2 } else { back::hlsl::ShaderModel::V6_0 };
    let options = back::hlsl::Options { shader_model, fake_missing_bindings: true, ..Default::default() };
    let (mut out, pipeline) = (String::new(), back::hlsl::PipelineOptions::default());
    let written = back::hlsl::Writer::new(&mut out, &options, &pipeline).write(module, info, None);
    let names = written.map_err(|e| e.to_string())?.entry_point_names;
    let names = names.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    Ok((out, names.into_iter().next().unwrap_or_default()))
}

fn dxc() -> OsString {
    env::var_os("RAMBUTAN_DXC").filter(|v| !v.is_empty()).unwrap_or_else(|| "dxc".into())
}

/// A file of this process's own, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(ending: &str, text: &str) -> Result<Scratch, String> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("rambutan-kit-{}-{number}.{ending}", std::process::id()));
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn compile_hlsl(hlsl: &str, entry: &str, text: &str) -> Result<(), String> {
    let file = Scratch::new("hlsl", hlsl)?;
    let mut command = Command::new(dxc());
    command.args(["-T", if half(text) { "cs_6_2" } else { "cs_6_0" }, "-E", entry, "-HV", "2018"]);
    if half(text) {
        command.arg("-enable-16bit-types");
    }
    piped(command.arg(&file.0), &[])
}

/// All at once: starting it takes longer than all kernels do.
fn tint(kernels: &[(String, String)]) -> Vec<Opinion> {
    let modules = env::var_os("RAMBUTAN_TINT").filter(|v| !v.is_empty());
    let modules = modules.map_or_else(|| PathBuf::from("node_modules"), PathBuf::from);
    if !modules.join("webgpu").is_dir() {
        let how =
            "no npm package `webgpu` in ./node_modules, and RAMBUTAN_TINT names no folder that holds it";
        return vec![Opinion::Absent(how.into()); kernels.len()];
    }
    // Tint demands the directive that naga refuses.
    let directed = |text: &str| {
        let needs = text.contains("subgroup") && !text.contains("enable subgroups");
        if needs { format!("enable subgroups; {text}") } else { text.to_owned() }
    };
    let asked: Vec<(&str, String)> = kernels
        .iter()
        .map(|(name, text)| (name.as_str(), if cooperative(text) { String::new() } else { directed(text) }))
        .collect();
    let said = (|| {
        let list = Scratch::new("json", &serde_json::to_string(&asked).map_err(|e| e.to_string())?)?;
        let script = Scratch::new("mjs", include_str!("tint.mjs"))?;
        let modules = modules.canonicalize().map_err(|e| e.to_string())?;
        let out = Command::new("node").arg(&script.0).arg(&modules).arg(&list.0).output();
        let out = out.map_err(|e| format!("node: {e}"))?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str::<Vec<String>>(last)
            .map_err(|_| format!("{text}{}", String::from_utf8_lossy(&out.stderr)))
    })();
    let one = |i: usize| match &said {
        _ if cooperative(&kernels[i].1) => Opinion::NotApplicable,
        Ok(complaints) if complaints.get(i).is_some_and(String::is_empty) => Opinion::Accepted,
        Ok(complaints) => Opinion::Refused(complaints.get(i).cloned().unwrap_or_default()),
        Err(e) => Opinion::Refused(e.clone()),
    };
    (0..kernels.len()).map(one).collect()
}
