//! `rambutan shaders`: a kernel as its driver gets it.

use std::fmt::Write as _;

use naga::{
    back::{hlsl, msl, spv},
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};
use rambutan_shaders::Dialect;
use serde_json::json;

use crate::problem::{Problem, print, print_bytes, print_json};

/// Prints a kernel in another language, or lists all kernels
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan shaders\n  rambutan shaders rms_norm --to msl\n  rambutan shaders matmul --to hlsl --variant elem=f16\n  rambutan shaders matmul --to spirv > matmul.spv"
)]
pub struct Shaders {
    /// The kernel's stem; without it, all are listed with their variants
    stem: Option<String>,
    /// The language
    #[arg(long, value_enum, default_value = "wgsl")]
    to: Language,
    /// A value for a constant or alias of the kernel; may be given again
    #[arg(long = "variant", value_name = "NAME=VALUE")]
    variants: Vec<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Language {
    Wgsl,
    Spirv,
    Msl,
    Hlsl,
}

const LIST: &str = "`rambutan shaders` lists the kernels and their variants";

impl Shaders {
    pub fn run(&self) -> Result<(), Problem> {
        let Some(stem) = &self.stem else { return self.list() };
        let kernel = rambutan_shaders::kernel(stem).map_err(|e| Problem::input(e.to_string(), LIST))?;
        let mut spec: Vec<(&str, String)> = Vec::new();
        for pair in self.variants.iter().flat_map(|v| v.split_whitespace()) {
            let (name, value) =
                pair.split_once('=').filter(|(n, v)| !n.is_empty() && !v.is_empty()).ok_or_else(|| {
                    Problem::input(
                        format!("variant `{pair}`: expected NAME=VALUE"),
                        "such as --variant elem=f16",
                    )
                })?;
            spec.push((name, value.to_owned()));
        }
        let text = rambutan_shaders::compose(kernel, &spec, Dialect::Naga)
            .map_err(|e| Problem::input(format!("kernel `{stem}`: {e}"), LIST))?;
        let output = if self.to == Language::Wgsl { text.into_bytes() } else { self.translate(stem, &text)? };
        if self.json {
            let value = match std::str::from_utf8(&output) {
                Ok(text) if self.to != Language::Spirv => json!({ "stem": stem, "text": text }),
                _ => {
                    json!({ "stem": stem, "words": output.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect::<Vec<_>>() })
                }
            };
            return print_json(&value);
        }
        print_bytes(&output)
    }

    fn list(&self) -> Result<(), Problem> {
        let variants = |text: &str| -> Vec<String> {
            let join = |v: &Vec<(String, String)>| {
                v.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ")
            };
            rambutan_shaders::variants(text).iter().filter(|v| !v.is_empty()).map(join).collect()
        };
        let all = rambutan_shaders::KERNELS;
        if self.json {
            return print_json(
                &all.iter().map(|(s, t)| json!({ "stem": s, "variants": variants(t) })).collect(),
            );
        }
        let mut out = String::new();
        for (stem, text) in all {
            let _ = writeln!(out, "{}", format!("{stem:28} {}", variants(text).join(" | ")).trim_end());
        }
        print(&out)
    }

    fn translate(&self, stem: &str, text: &str) -> Result<Vec<u8>, Problem> {
        let bad = |stage: &str, e: &dyn std::error::Error| {
            let (mut message, mut cause) = (format!("kernel `{stem}`: {stage}: {e}"), e.source());
            while let Some(e) = cause {
                let _ = write!(message, ": {e}");
                cause = e.source();
            }
            Problem::input(message, "is the variant one of those that `rambutan shaders` lists?")
        };
        let module = naga::front::wgsl::parse_str(text).map_err(|e| bad("WGSL", &e))?;
        let info: ModuleInfo = Validator::new(ValidationFlags::all(), Capabilities::all())
            .validate(&module)
            .map_err(|e| bad("validation", &e.into_inner()))?;
        Ok(match self.to {
            Language::Wgsl => text.into(),
            Language::Spirv => spv::write_vec(&module, &info, &spv::Options::default(), None)
                .map_err(|e| bad("SPIR-V", &e))?
                .into_iter()
                .flat_map(u32::to_le_bytes)
                .collect(),
            Language::Msl => {
                let options = msl::Options { lang_version: (3, 0), ..msl::Options::default() };
                let (text, translated) =
                    msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
                        .map_err(|e| bad("MSL", &e))?;
                for name in translated.entry_point_names {
                    name.map_err(|e| bad("MSL", &e))?;
                }
                text.into_bytes()
            }
            Language::Hlsl => {
                let options =
                    hlsl::Options { shader_model: hlsl::ShaderModel::V6_2, ..hlsl::Options::default() };
                let pipeline = hlsl::PipelineOptions::default();
                let mut out = String::new();
                let reflected = hlsl::Writer::new(&mut out, &options, &pipeline)
                    .write(&module, &info, None)
                    .map_err(|e| bad("HLSL", &e))?;
                for name in reflected.entry_point_names {
                    name.map_err(|e| bad("HLSL", &e))?;
                }
                out.into_bytes()
            }
        })
    }
}
