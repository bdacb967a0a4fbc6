//! The rules of the house, read from the sources: who may know whom, and what every file must and must not hold. Each
//! rule lists all its offenders at once, and is shown to refuse a planted one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A file by its path from the root, with `/` between folders.
struct File {
    path: String,
    text: String,
}

impl File {
    /// The text without comments, and without what strings hold; lines keep their numbers.
    fn code(&self) -> String {
        stripped(&self.text)
    }

    fn is(&self, folder: &str, ending: &str) -> bool {
        self.path.starts_with(folder) && self.path.ends_with(ending)
    }

    fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.split('.').next().unwrap_or_default()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All text files of a checkout, whatever tool it came with.
fn files() -> Vec<File> {
    fn walk(folder: &Path, prefix: &str, all: &mut Vec<File>) {
        for entry in fs::read_dir(folder).expect("a folder of the checkout").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            if ["target", "out", "node_modules", "golden", "weights", "record", ".git"]
                .contains(&name.as_str())
            {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => walk(&entry.path(), &path, all),
                Ok(kind) if kind.is_file() => {
                    // What is no UTF-8 is no source.
                    all.extend(fs::read_to_string(entry.path()).ok().map(|text| File { path, text }));
                }
                _ => {}
            }
        }
    }
    let mut all = Vec::new();
    walk(&root(), "", &mut all);
    all.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(all.len() > 100, "only {} files in the checkout", all.len());
    all
}

/// Rust or WGSL without comments and the contents of strings.
fn stripped(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut out, mut i) = (String::with_capacity(text.len()), 0);
    let keep_lines = |out: &mut String, from: usize, to: usize| {
        out.extend(chars[from.min(chars.len())..to.min(chars.len())].iter().filter(|c| **c == '\n'));
    };
    while i < chars.len() {
        let start = i;
        match (at(i), at(i + 1)) {
            ('/', '/') => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            ('/', '*') => {
                i += 2;
                while i < chars.len() && (at(i), at(i + 1)) != ('*', '/') {
                    i += 1;
                }
                i += 2;
                keep_lines(&mut out, start, i);
            }
            ('r', '"' | '#') if !out.ends_with(|c: char| c.is_alphanumeric() || c == '_') => {
                let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
                if at(i + 1 + hashes) != '"' {
                    out.push('r');
                    i += 1;
                    continue;
                }
                i += 2 + hashes;
                let ends = |i: usize| at(i) == '"' && (0..hashes).all(|h| at(i + 1 + h) == '#');
                while i < chars.len() && !ends(i) {
                    i += 1;
                }
                i += 1 + hashes;
                out.push_str("\"\"");
                keep_lines(&mut out, start, i);
            }
            ('"', _) => {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
                out.push_str("\"\"");
                keep_lines(&mut out, start, i);
            }
            // Character literals may hold quotes; lifetimes end without one.
            ('\'', '\\') => {
                i += 3;
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            (c, _) => {
                out.push(c);
                i += 1;
            }
        }
    }
    out
}

/// Where `word` stands alone in `code`: line numbers.
fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let alone = |line: &str| {
        line.match_indices(word).any(|(i, _)| {
            !line[..i].chars().next_back().is_some_and(part)
                && !line[i + word.len()..].chars().next().is_some_and(part)
        })
    };
    code.lines().enumerate().filter(|(_, l)| alone(l)).map(|(i, _)| i + 1).collect()
}

/// `path:line: why` for every line of the files that holds one of the words.
fn forbidden<'a>(files: impl Iterator<Item = &'a File>, words: &[&str], why: &str) -> Vec<String> {
    let mut offenders = Vec::new();
    for file in files {
        let code = file.code();
        for word in words {
            offenders.extend(
                lines_with(&code, word).into_iter().map(|l| format!("{}:{l}: `{word}`: {why}", file.path)),
            );
        }
    }
    offenders
}

fn rust<'a>(files: &'a [File], folder: &'a str) -> impl Iterator<Item = &'a File> {
    files.iter().filter(move |f| f.is(folder, ".rs"))
}

/// Holds the checkout to a rule, and the rule to an offence.
#[track_caller]
fn hold(what: &str, rule: impl Fn(&[File]) -> Vec<String>, planted: &[(&str, &str)]) {
    let offence: Vec<File> =
        planted.iter().map(|(path, text)| File { path: (*path).into(), text: (*text).into() }).collect();
    assert!(!rule(&offence).is_empty(), "the rule \"{what}\" refuses nothing: it let pass {planted:?}");
    let offenders = rule(&files());
    assert!(offenders.is_empty(), "{what}; {} offend:\n{}", offenders.len(), offenders.join("\n"));
}

// Layers.

fn crate_layers(files: &[File]) -> Vec<String> {
    // Each crate, and those below it. Tests and benches see all, and nobody sees them.
    let layers = [
        ("shaders/", &["engine", "kit", "model", "tests", "benches"][..]),
        ("engine/", &["kit", "model", "tests", "benches"]),
        ("kit/", &["shaders", "model", "tests", "benches"]),
        ("model/", &["shaders", "kit", "tests", "benches"]),
        ("tools/", &["kit", "tests", "benches", "web"]),
        ("web/", &["shaders", "kit", "tests", "benches"]),
    ];
    let mut offenders = Vec::new();
    for (folder, above) in layers {
        let names: Vec<String> = above.iter().map(|c| format!("rambutan_{c}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        offenders.extend(forbidden(rust(files, folder), &names, "a layer that this crate must not know"));
        for manifest in files.iter().filter(|f| f.path == format!("{folder}Cargo.toml")) {
            for (i, line) in manifest.text.lines().enumerate() {
                if above.iter().any(|c| line.starts_with(&format!("rambutan-{c}"))) {
                    offenders.push(format!("{}:{}: {line}", manifest.path, i + 1));
                }
            }
        }
    }
    offenders
}

#[test]
fn crates_see_only_those_below() {
    let what = "shaders ← engine ← model ← tools";
    hold(what, crate_layers, &[("engine/src/ops/x.rs", "use rambutan_model::Config;")]);
    hold(what, crate_layers, &[("model/Cargo.toml", "[dependencies]\nrambutan-shaders.workspace = true")]);
}

/// The module of the engine that a name at its root belongs to.
fn module_of(name: &str) -> &str {
    match name {
        "Gpu" | "GpuOptions" | "launch" => "gpu",
        "Tensor" | "DType" | "Element" => "tensor",
        "no_grad" | "checkpoint" => "autograd",
        other => other,
    }
}

/// The names right after `crate::` in code: one, or those at the first level of a list.
fn names_of_crate(code: &str) -> Vec<(usize, String)> {
    let mut names: Vec<(usize, String)> = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count() + 1;
        let rest = code[at + "crate::".len()..].trim_start();
        let word =
            |s: &str| s.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(list) = rest.strip_prefix('{') else {
            names.push((line, word(rest)));
            continue;
        };
        let (mut depth, mut begin) = (1, 0);
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if (c == ',' && depth == 1) || depth == 0 {
                names.push((line, word(&list[begin..i])));
                begin = i + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    names.retain(|(_, n)| !n.is_empty());
    names
}

fn engine_layers(files: &[File]) -> Vec<String> {
    // Who may be named besides errors. A tensor's place in the graph and the graph of tensors are two halves of one
    // thing, so these two modules name each other; nothing else looks up.
    let layers: [(&str, &[&str]); 7] = [
        ("engine/src/gpu/", &["gpu"]),
        ("engine/src/tensor/", &["gpu", "tensor", "autograd"]),
        ("engine/src/autograd.rs", &["gpu", "tensor", "autograd"]),
        ("engine/src/ops/", &["gpu", "tensor", "autograd", "ops", "reference", "testing"]),
        ("engine/src/optim", &["gpu", "tensor", "autograd", "ops", "optim", "reference", "testing"]),
        ("engine/src/reference.rs", &["reference"]),
        ("engine/src/testing", &["gpu", "tensor", "autograd", "ops", "reference", "testing"]),
    ];
    let mut offenders = Vec::new();
    for (folder, seen) in layers {
        for file in rust(files, folder) {
            for (line, name) in names_of_crate(&file.code()) {
                let module = module_of(&name);
                if !seen.contains(&module) && !["Error", "Result", "error", "wgpu"].contains(&module) {
                    offenders.push(format!("{}:{line}: crate::{name} lies above or beside", file.path));
                }
            }
        }
    }
    offenders
}

#[test]
fn engine_modules_see_only_those_below() {
    let what = "gpu ← tensor and autograd ← ops ← optim";
    hold(what, engine_layers, &[("engine/src/gpu/memory.rs", "use crate::{Error, tensor::{Shape, DType}};")]);
    hold(what, engine_layers, &[("engine/src/autograd.rs", "fn f() { crate::ops::copy(x) }")]);
    hold(what, engine_layers, &[("engine/src/ops/sum.rs", "use crate::{\n    optim,\n    launch};")]);
}

fn wgpu_users(files: &[File]) -> Vec<String> {
    let outside = |f: &&File| {
        f.path.ends_with(".rs")
            && ["shaders/", "engine/", "model/", "tools/", "web/"].iter().any(|c| f.path.starts_with(c))
            && !f.path.starts_with("engine/src/gpu/")
            && f.path != "engine/src/lib.rs"
            // An app that draws has a device of its own to share.
            && !f.path.starts_with("tools/reader/")
    };
    forbidden(files.iter().filter(outside), &["wgpu"], "engine/src/gpu is its only user")
}

#[test]
fn only_the_gpu_module_uses_wgpu() {
    hold("wgpu stays in engine/src/gpu", wgpu_users, &[("engine/src/ops/x.rs", "let b: wgpu::Buffer;")]);
}

/// An app that shares its device tells our objects from its own in captures and messages.
fn labels(files: &[File]) -> Vec<String> {
    let mut offenders = Vec::new();
    for file in rust(files, "engine/src/gpu/") {
        for (i, line) in file.text.lines().enumerate() {
            let Some((_, label)) = line.split_once("label:") else { continue };
            if !label.contains("Some(\"rambutan") && !label.contains("Some(&label)") && !label.contains("&'")
            {
                offenders.push(format!("{}:{}: no label that begins with rambutan", file.path, i + 1));
            }
        }
    }
    offenders
}

#[test]
fn labels_begin_with_our_name() {
    hold(
        "labels of wgpu's objects",
        labels,
        &[("engine/src/gpu/x.rs", "Descriptor { label: None, size: 4 }")],
    );
}

fn kernels_in_models(files: &[File]) -> Vec<String> {
    forbidden(rust(files, "model/"), &["launch", "Launch", "Operand"], "models are written in ops")
}

#[test]
fn models_name_no_kernel() {
    hold(
        "models name no kernel",
        kernels_in_models,
        &[("model/src/x.rs", "launch!(copy { n }, [x] -> [y], 1);")],
    );
}

fn mpi_users(files: &[File]) -> Vec<String> {
    let outside = |f: &&File| {
        f.path.ends_with(".rs")
            && ["engine/", "kit/", "model/", "tools/", "web/"].iter().any(|c| f.path.starts_with(c))
            && f.path != "model/src/ranks.rs"
            && f.path != "model/src/ranks/mpi.rs"
    };
    let mut offenders =
        forbidden(files.iter().filter(outside), &["mpi"], "model/src/ranks/mpi.rs is its only user");
    let mut manifests: Vec<_> = files.iter().filter(|f| f.path.ends_with("Cargo.toml")).collect();
    manifests.retain(|f| f.path != "model/Cargo.toml");
    for file in manifests {
        let lines = file.text.lines().enumerate().filter(|(_, l)| l.starts_with("mpi = {"));
        offenders.extend(lines.map(|(i, _)| format!("{}:{}: MPI is the model's alone", file.path, i + 1)));
    }
    offenders
}

#[test]
fn only_one_module_uses_mpi() {
    let what = "MPI stays in model/src/ranks/mpi.rs";
    hold(what, mpi_users, &[("model/src/train.rs", "use mpi::traits::Communicator;")]);
    hold(what, mpi_users, &[("engine/Cargo.toml", "mpi = { version = \"0.8.2\" }")]);
}

// Kernels and ops.

/// (stem, file) of every launch by name.
fn launches(files: &[File]) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut note = |rest: &str, path: &str| {
        let stem = rest.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_');
        // The macro's own rules begin with `$` or `@`.
        let stem: String = stem.collect();
        if !stem.is_empty() {
            all.entry(stem).or_default().insert(path.into());
        }
    };
    for file in rust(files, "engine/src/") {
        let text: Vec<&str> = file.text.lines().map(|l| l.split("//").next().unwrap_or("")).collect();
        let text = text.join("\n");
        // `launch!(stem`, or a macro of the file that leads there and is named after it.
        for (at, _) in text.match_indices("launch") {
            let rest = text[at..].trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            let Some(rest) = rest.strip_prefix("!(") else { continue };
            note(rest, &file.path);
        }
        for (at, opening) in text.match_indices("Launch::new(\"") {
            note(&text[at + opening.len()..], &file.path);
        }
    }
    all
}

/// Kernels that many ops are built from, with the one file that offers each of them.
const SHARED: [&str; 3] = ["accumulate", "copy", "fill"];

fn kernels_launched(files: &[File]) -> Vec<String> {
    let stems: BTreeSet<&str> = files
        .iter()
        .filter(|f| f.is("shaders/", ".wgsl") && !f.path.starts_with("shaders/lib/"))
        .map(File::stem)
        .collect();
    let launched = launches(files);
    let mut offenders = Vec::new();
    for stem in &stems {
        match launched.get(*stem).map(BTreeSet::len) {
            None => offenders.push(format!("shaders/{stem}.wgsl: nothing launches it")),
            Some(n) if n > 1 && !SHARED.contains(stem) => {
                offenders.push(format!("{stem}: launched by {:?}: one op, one file", launched[*stem]));
            }
            _ => {}
        }
    }
    for (stem, by) in &launched {
        if !stems.contains(stem.as_str()) {
            offenders.push(format!("{by:?} launch `{stem}`: there is no shaders/{stem}.wgsl"));
        }
    }
    offenders
}

#[test]
fn every_kernel_belongs_to_one_op() {
    let what = "every kernel is launched, by one file";
    hold(what, kernels_launched, &[("shaders/lonely.wgsl", "")]);
    hold(what, kernels_launched, &[("engine/src/ops/x.rs", "launch!(gone { n }, [x] -> [y], n);")]);
    let two = [
        ("shaders/k.wgsl", ""),
        ("engine/src/ops/x.rs", "launch!(k {}, [] -> [y], 1)"),
        ("engine/src/ops/z.rs", "launch!(k {}, [] -> [y], 1)"),
    ];
    hold(what, kernels_launched, &two);
}

fn ops_with_cases(files: &[File]) -> Vec<String> {
    let mut offenders = Vec::new();
    let listed = files.iter().find(|f| f.path == "engine/src/ops/mod.rs").map_or(String::new(), File::code);
    let list = listed.split_once("ops! {").and_then(|(_, r)| r.split_once('}')).map_or("", |(l, _)| l);
    let listed: BTreeSet<&str> = list.split(',').map(str::trim).filter(|s| !s.is_empty()).collect();
    for file in rust(files, "engine/src/ops/").filter(|f| !f.path.ends_with("/mod.rs")) {
        if !listed.contains(file.stem()) {
            offenders.push(format!("{}: not in the list of ops! in mod.rs", file.path));
        }
        if !file.code().contains("Case::new(") && !file.code().contains("case(") {
            offenders.push(format!("{}: no Case, so nothing tests it", file.path));
        }
    }
    offenders
}

#[test]
fn every_op_has_a_case() {
    let what = "every op is listed and has a Case";
    hold(
        what,
        ops_with_cases,
        &[("engine/src/ops/x.rs", "fn cases() -> Vec<Case> { vec![Case::new(\"x\")] }")],
    );
    let listed = ("engine/src/ops/mod.rs", "ops! {\n    x,\n}");
    hold(what, ops_with_cases, &[listed, ("engine/src/ops/x.rs", "fn cases() -> Vec<Case> { Vec::new() }")]);
}

fn kernels_explained(files: &[File]) -> Vec<String> {
    let explained = |text: &str| {
        let comments = text.lines().take_while(|l| l.starts_with("//")).map(|l| l[2..].trim());
        comments.filter(|l| !l.starts_with("uses:") && !l.starts_with("variants:")).any(|l| l.len() >= 10)
    };
    let wgsl = files.iter().filter(|f| f.is("shaders/", ".wgsl"));
    wgsl.filter(|f| !explained(&f.text)).map(|f| format!("{}: no equation on top", f.path)).collect()
}

#[test]
fn every_kernel_begins_with_what_it_computes() {
    let bare = "// uses: lib/grid.wgsl\nconst WG: u32 = 64u;\n";
    hold("the equation stands on top of a kernel", kernels_explained, &[("shaders/x.wgsl", bare)]);
}

fn atomics(files: &[File]) -> Vec<String> {
    let mut offenders = Vec::new();
    for file in files.iter().filter(|f| f.is("shaders/", ".wgsl")) {
        for (i, line) in file.code().lines().enumerate().filter(|(_, l)| l.contains("atomic")) {
            offenders.push(format!("{}:{}: {}", file.path, i + 1, line.trim()));
        }
    }
    offenders
}

#[test]
fn no_atomics() {
    let planted = [("shaders/x.wgsl", "var<workgroup> sum: atomic<u32>;")];
    hold("nothing is added in an order of arrival", atomics, &planted);
}

/// Variables of a loop's body without a value: Tint's SPIR-V leaves them what they were in the round before, whatever
/// WGSL says. Cooperative matrices have no zero value to write, and no browser has them.
fn stale_variables(files: &[File]) -> Vec<String> {
    let mut offenders = Vec::new();
    let wgsl = files.iter().filter(|f| f.is("shaders/", ".wgsl") && !f.text.contains("coop_mat"));
    for file in wgsl {
        // Whether each open brace is a loop's.
        let (mut braces, mut looping) = (Vec::new(), false);
        for (i, line) in file.code().lines().enumerate() {
            let bare = line.trim_start();
            if bare.starts_with("var ") && !bare.contains('=') && braces.contains(&true) {
                offenders.push(format!("{}:{}: {bare}", file.path, i + 1));
            }
            looping |= ["for ", "while ", "loop "].iter().any(|w| bare.starts_with(w));
            for c in line.chars() {
                match c {
                    '{' => braces.push(std::mem::take(&mut looping)),
                    '}' => drop(braces.pop()),
                    _ => {}
                }
            }
        }
    }
    offenders
}

#[test]
fn what_a_loop_declares_has_a_value() {
    let planted = "fn f() {\n    for (var i = 0u; i < 4u; i++) {\n        if i > 1u {\n            var s: vec4f;\n        }\n    }\n}";
    hold("variables in loops begin with a value", stale_variables, &[("shaders/x.wgsl", planted)]);
}

// Habits.

fn unfinished(files: &[File]) -> Vec<String> {
    let mut offenders = Vec::new();
    for file in rust(files, "") {
        let code = file.code();
        for word in ["todo!", "unimplemented!", "dbg!"] {
            for (i, _) in code.lines().enumerate().filter(|(_, l)| l.contains(word)) {
                offenders.push(format!("{}:{}: {word}", file.path, i + 1));
            }
        }
    }
    offenders
}

#[test]
fn nothing_is_left_unfinished() {
    hold("no todo!, unimplemented! or dbg!", unfinished, &[("tools/src/x.rs", "fn f() { todo!() }")]);
}

fn machine_paths(files: &[File]) -> Vec<String> {
    // In two halves, so that this file does not name them.
    let roots = [("/ho", "me/"), ("/ro", "ot/"), ("/Us", "ers/"), ("C:", "\\"), ("/wo", "rk/")];
    let roots = roots.map(|(a, b)| format!("{a}{b}"));
    let mut offenders = Vec::new();
    for file in files {
        for (i, line) in file.text.lines().enumerate() {
            for found in roots.iter().filter(|r| {
                // `src/work/x` is a folder of its own; a path of a machine begins a word.
                line.match_indices(r.as_str())
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-}".contains(c)))
            }) {
                offenders.push(format!("{}:{}: {found}", file.path, i + 1));
            }
        }
    }
    offenders
}

#[test]
fn no_paths_of_one_machine() {
    let planted = format!("let file = \"{}me/somebody/file\";", "/ho");
    hold("no paths of one machine", machine_paths, &[("README.md", &planted)]);
}

fn lints_inherited(files: &[File]) -> Vec<String> {
    let manifests = files.iter().filter(|f| f.path.ends_with("/Cargo.toml"));
    let members = manifests.filter(|f| !f.path.starts_with("examples/"));
    let without = members.filter(|f| !f.text.contains("[lints]\nworkspace = true"));
    without.map(|f| format!("{}: lacks [lints] workspace = true", f.path)).collect()
}

#[test]
fn every_crate_inherits_the_lints() {
    hold(
        "every crate of the workspace inherits the lints",
        lints_inherited,
        &[("x/Cargo.toml", "[package]\nname = \"x\"")],
    );
}

// Packages.

fn cargo(arguments: &[&str]) -> String {
    let out = Command::new(env!("CARGO")).current_dir(root()).args(arguments).output().expect("cargo runs");
    assert!(out.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("cargo writes UTF-8")
}

/// What a published package must say of itself.
fn unpublishable(metadata: &serde_json::Value, has: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut offenders = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        // `publish = false` reads as an empty list of registries.
        if package["publish"].as_array().is_some_and(Vec::is_empty) {
            continue;
        }
        let name = package["name"].as_str().unwrap_or("?");
        for key in ["description", "license", "repository", "documentation", "readme", "rust_version"] {
            if package[key].as_str().is_none_or(str::is_empty) {
                offenders.push(format!("{name}: no {key}"));
            }
        }
        for key in ["keywords", "categories"] {
            let count = package[key].as_array().map_or(0, Vec::len);
            if !(1..=5).contains(&count) {
                offenders.push(format!("{name}: {count} {key}, a registry takes 1 to 5"));
            }
        }
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
            if !has(&manifest.with_file_name(file)) {
                offenders.push(format!("{name}: no {file} beside its manifest"));
            }
        }
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if dependency["path"].is_string() && dependency["req"] == "*" {
                offenders.push(format!("{name}: {} by path alone, without a version", dependency["name"]));
            }
        }
    }
    offenders
}

#[test]
fn every_crate_can_be_published() {
    let planted = serde_json::json!({"packages": [{"name": "x", "manifest_path": "Cargo.toml"}]});
    assert!(!unpublishable(&planted, |_| true).is_empty(), "the rule refuses nothing");
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata = serde_json::from_str(&metadata).expect("cargo writes JSON");
    let offenders = unpublishable(&metadata, Path::exists);
    assert!(offenders.is_empty(), "packages lack:\n{}", offenders.join("\n"));
}

/// Lines of `cargo tree`, each crate once.
fn crates_in(tree: &str) -> usize {
    tree.lines().filter(|l| !l.is_empty()).collect::<BTreeSet<_>>().len()
}

#[test]
fn few_dependencies() {
    assert_eq!(crates_in("a v1\nb v1\na v1\n\n"), 2);
    let tree = cargo(&["tree", "-p", "rambutan", "-e", "normal", "--prefix", "none"]);
    let count = crates_in(&tree);
    println!("{count} crates behind the command");
    assert!(count < 150, "{count} crates behind the command, fewer than 150 are allowed");
}

/// Whether an SPDX expression can be met with licences of the list.
fn licensed(expression: &str, allowed: &[&str]) -> bool {
    fn either(tokens: &mut std::iter::Peekable<std::vec::IntoIter<&str>>, allowed: &[&str]) -> bool {
        let mut met = both(tokens, allowed);
        while tokens.next_if_eq(&"OR").is_some() {
            met |= both(tokens, allowed);
        }
        met
    }
    fn both(tokens: &mut std::iter::Peekable<std::vec::IntoIter<&str>>, allowed: &[&str]) -> bool {
        let mut met = one(tokens, allowed);
        while tokens.next_if_eq(&"AND").is_some() {
            met &= one(tokens, allowed);
        }
        met
    }
    fn one(tokens: &mut std::iter::Peekable<std::vec::IntoIter<&str>>, allowed: &[&str]) -> bool {
        match tokens.next() {
            Some("(") => {
                let met = either(tokens, allowed);
                tokens.next_if_eq(&")").is_some() && met
            }
            // An exception only takes duties away.
            Some(id) => {
                if tokens.next_if_eq(&"WITH").is_some() {
                    tokens.next();
                }
                allowed.contains(&id)
            }
            None => false,
        }
    }
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut tokens = tokens.into_iter().peekable();
    either(&mut tokens, allowed) && tokens.next().is_none()
}

#[test]
fn licences_are_those_allowed() {
    let list = ["MIT", "Zlib"];
    for (expression, met) in [
        ("MIT OR GPL-3.0", true),
        ("MIT/GPL-3.0", true),
        ("(GPL-3.0 OR MIT) AND Zlib", true),
        ("MIT AND GPL-3.0", false),
        ("GPL-3.0 WITH x OR Zlib", true),
        ("", false),
    ] {
        assert_eq!(licensed(expression, &list), met, "{expression}");
    }
    let deny = fs::read_to_string(root().join("deny.toml")).expect("deny.toml lists the licences");
    let list = deny.split_once("allow = [").and_then(|(_, l)| l.split_once(']')).expect("a list").0;
    let list: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    let tree = cargo(&["tree", "--workspace", "-e", "normal,build", "--prefix", "none", "-f", "{p}: {l}"]);
    let crates: BTreeSet<&str> =
        tree.lines().map(|l| l.trim_end_matches(" (*)")).filter(|l| !l.is_empty()).collect();
    let refused = |line: &&&str| !line.rsplit_once(": ").is_some_and(|(_, l)| licensed(l, &list));
    let refused: Vec<_> = crates.iter().filter(refused).collect();
    assert!(crates.len() > 50 && refused.is_empty(), "licences that deny.toml does not allow: {refused:#?}");
}

#[test]
fn code_is_told_from_comments_and_strings() {
    let text = "a // b\n/* c\n */ d \"e // \\\" f\" g r#\"h \" i\"# 'j' '\\'' k<'l> \"m\nn\" o";
    assert_eq!(
        stripped(text).split_whitespace().collect::<Vec<_>>().join(" "),
        "a d \"\" g \"\" k<'l> \"\" o"
    );
    assert_eq!(stripped(text).matches('\n').count(), text.matches('\n').count());
    let names = names_of_crate("use crate::{\n  Tensor, ops::{copy, sum},\n};\nlet x = crate::gpu::lock(y);");
    let names: Vec<&str> = names.iter().map(|(_, n)| n.as_str()).collect();
    assert_eq!(names, ["Tensor", "ops", "gpu"]);
}
