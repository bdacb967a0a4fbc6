//! Every kernel in every variant before every judge at hand: naga's validation, its SPIR-V, MSL and HLSL writers,
//! spirv-val, dxc and Tint. All complaints are listed at once, under a table of kernel × judge (`--nocapture`).

use std::fmt::Write as _;

use naga::valid::{Capabilities, ValidationFlags, Validator};
use rambutan_kit::judges::{JUDGES, Judge, Opinion};
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

fn cooperative(text: &str) -> bool {
    text.contains("coop_mat")
}

/// The portable base is WebGPU's default limits: no kernel binds more buffers or holds more workgroup memory, unless
/// it is a variant that a device must offer something for, or as `ssd_chunk_*` the twin of one.
#[test]
fn portable_limits() {
    let within = |name: &str, text: &str| -> Result<(), String> {
        let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
        Validator::new(ValidationFlags::all(), Capabilities::all())
            .validate(&module)
            .map_err(|e| e.emit_to_string(text))?;
        // Each kernel as it stands runs everywhere; ops choose larger variants by what the adapter offers. Cooperative
        // matrices are always such a variant.
        let most = if name.ends_with("[]") && !cooperative(text) { 16384 } else { 49152 };
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).map_err(|e| e.to_string())?;
        let (mut storage, mut workgroup) = (0, 0);
        for (_, variable) in module.global_variables.iter() {
            match variable.space {
                naga::AddressSpace::Storage { .. } => storage += 1,
                naga::AddressSpace::WorkGroup => {
                    let size = layouter[variable.ty].size;
                    // Drivers lay these one after the other, and matrices are read from where 16 bytes begin.
                    if cooperative(text) && size % 16 != 0 {
                        let name = variable.name.as_deref().unwrap_or_default();
                        return Err(format!("{name}: {size} bytes of workgroup memory, no multiple of 16"));
                    }
                    workgroup += size;
                }
                _ => {}
            }
        }
        let [x, y, z] = module.entry_points[0].workgroup_size;
        let buffers = match name {
            _ if cooperative(text) || name.starts_with("ssd_chunk_") => 12,
            _ if name.starts_with("causal_conv1d_parts_backward") => 10,
            _ => 8,
        };
        if storage > buffers {
            return Err(format!("{storage} storage buffers, at most {buffers}"));
        }
        if workgroup > most {
            return Err(format!("{workgroup} bytes of workgroup memory, at most {most}"));
        }
        if x * y * z > 256 && !cooperative(text) {
            return Err(format!("{} invocations, 256 are portable", x * y * z));
        }
        Ok(())
    };
    let kernels = all(Dialect::Naga);
    let failures: Vec<_> = kernels
        .iter()
        .filter_map(|(name, text)| Some(format!("{name}: {}", within(name, text).err()?)))
        .collect();
    assert!(failures.is_empty(), "{} kernels refused:\n{}", failures.len(), failures.join("\n"));
}

/// How many variants of a kernel a judge took; what it refused; or why it was not asked.
fn cell(opinions: &[&Opinion]) -> String {
    let count = |wanted: fn(&Opinion) -> bool| opinions.iter().filter(|o| wanted(o)).count();
    let refused = count(|o| matches!(o, Opinion::Refused(_)));
    let accepted = count(|o| *o == Opinion::Accepted);
    match (refused, accepted) {
        (0, 0) if count(|o| *o == Opinion::NotApplicable) > 0 => "n/a".into(),
        (0, 0) => "absent".into(),
        (0, n) => format!("{n}"),
        (n, _) => format!("{n} REFUSED"),
    }
}

/// What naga has no words for in a language, and what a judge is too old to know, is not applicable there: cooperative
/// matrices are for Vulkan and Metal.
#[test]
fn judges() {
    // Integration tests run in their package's folder, where `tools/check` puts Tint's package.
    let kernels = all(Dialect::Naga);
    let browser = all(Dialect::Tint);
    let texts = |judge| if judge == Judge::Tint { &browser } else { &kernels };
    let opinions: Vec<Vec<Opinion>> = JUDGES.iter().map(|j| j.ask(texts(*j))).collect();
    let mut table = format!("{:38}{:>9}", "kernel", "variants");
    for judge in JUDGES {
        let _ = write!(table, "{:>11}", judge.name());
    }
    let stem = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let mut first = 0;
    while first < kernels.len() {
        let same =
            kernels[first..].iter().take_while(|(name, _)| stem(name) == stem(&kernels[first].0)).count();
        let _ = write!(table, "\n{:38}{same:>9}", stem(&kernels[first].0));
        for of in &opinions {
            let _ = write!(table, "{:>11}", cell(&of[first..first + same].iter().collect::<Vec<_>>()));
        }
        first += same;
    }
    let _ = write!(table, "\n{:38}{:>9}", format!("all {} kernels", KERNELS.len()), kernels.len());
    for of in &opinions {
        let _ = write!(table, "{:>11}", cell(&of.iter().collect::<Vec<_>>()));
    }
    println!(
        "{table}\nCells count the variants taken; n/a: cooperative matrices, which that language lacks."
    );
    for (judge, of) in JUDGES.iter().zip(&opinions) {
        if let Some(Opinion::Absent(how)) = of.first() {
            println!("shaders: {} skipped: {how}", judge.name());
        }
    }
    let mut refused = Vec::new();
    for (judge, of) in JUDGES.iter().zip(&opinions) {
        for ((name, _), opinion) in kernels.iter().zip(of) {
            if let Opinion::Refused(why) = opinion {
                refused.push(format!("{name}: {}: {}", judge.name(), why.trim()));
            }
        }
    }
    assert!(refused.is_empty(), "{} verdicts against kernels:\n{}", refused.len(), refused.join("\n"));
}

/// Each judge at hand refuses something: one that takes all judges nothing.
#[test]
fn judges_refuse() {
    let diverging = "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(8) fn main(@builtin(local_invocation_index) i: u32) { if y[i] > 1u { workgroupBarrier(); } }";
    let broken = "fn main( {";
    for judge in JUDGES {
        let kernels = [broken, diverging].map(|text| ("planted".to_owned(), text.to_owned()));
        let opinions = judge.ask(&kernels);
        match &opinions[..] {
            [Opinion::Absent(_), _] => {}
            [Opinion::Refused(_), second] => {
                assert_eq!(
                    matches!(second, Opinion::Refused(_)),
                    judge == Judge::Tint,
                    "{judge:?}: {second:?}"
                );
            }
            other => panic!("{judge:?}: {other:?}"),
        }
    }
}
