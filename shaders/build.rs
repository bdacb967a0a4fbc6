//! Lists the WGSL files beside this script, so that adding a kernel means adding a file.

use std::{env, fmt::Write as _, fs, path::Path};

fn table(name: &str, folder: &Path, prefix: &str, out: &mut String) {
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|file| file.strip_suffix(".wgsl").map(str::to_owned))
        .collect();
    files.sort();
    writeln!(out, "/// Every file of `shaders/{prefix}`: (stem, text), by name.").unwrap();
    writeln!(out, "pub const {name}: &[(&str, &str)] = &[").unwrap();
    for stem in files {
        let path = folder.join(format!("{stem}.wgsl"));
        println!("cargo::rerun-if-changed={}", path.display());
        writeln!(out, "    (\"{prefix}{stem}\", include_str!({:?})),", path).unwrap();
    }
    out.push_str("];\n");
}

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let root = Path::new(&root);
    let mut out = String::new();
    table("KERNELS", root, "", &mut out);
    table("LIBRARIES", &root.join("lib"), "lib/", &mut out);
    fs::write(Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("files.rs"), out).unwrap();
}
