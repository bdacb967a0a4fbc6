#![doc = include_str!("../README.md")]
//!
//! # A kernel
//!
//! A kernel is one file, valid WGSL by itself once its libraries are appended, with the entry point `main`:
//!
//! ```wgsl
//! // uses: lib/reduce.wgsl
//! // variants: elem=f16 | WG=64
//! alias elem = f32;
//! const WG: u32 = 256u;
//! ```
//!
//! `uses` and `variants` count among the comments that begin the file, before the first line of code or blank line.
//! A variant replaces the value of a module-scope `const` or the target of an `alias`; nothing else is generated,
//! so the text in an editor is the text that runs, but for loops marked `// unroll`, which are written out. Libraries are appended after the kernel (WGSL's module scope is
//! order-free), so line numbers in error messages are those of the file.

mod unroll;

use std::fmt;

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// Values that replace defaults of a kernel's constants and aliases: `[("elem", "f16"), ("WG", "64")]`.
pub type Spec<'a> = &'a [(&'a str, String)];

/// Who compiles the text: they disagree on `enable` directives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// wgpu's own compiler: refuses `enable subgroups`.
    Naga,
    /// Browsers (Tint): demand `enable subgroups`.
    Tint,
}

/// Why a text could not be composed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No kernel file has this stem.
    UnknownKernel(String),
    /// A `// uses:` line names a library that does not exist.
    UnknownLibrary(String),
    /// The kernel declares no constant or alias of this name.
    UnknownSpec(String),
    /// A loop marked `// unroll` does not count from one constant to another.
    Unroll(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::UnknownKernel(stem) => {
                write!(f, "no kernel `{stem}`: expected the stem of a file in shaders/")
            }
            Error::UnknownLibrary(lib) => {
                write!(f, "no library `{lib}`: expected a file such as lib/reduce.wgsl")
            }
            Error::UnknownSpec(name) => {
                write!(f, "no module-scope `const {name}` or `alias {name}` to specialise")
            }
            Error::Unroll(line) => {
                write!(f, "no constant bounds to unroll `{line}`: expected `for (var i = 0u; i < N; i++) {{`")
            }
        }
    }
}

impl std::error::Error for Error {}

/// The text of the kernel file `stem`.
pub fn kernel(stem: &str) -> Result<&'static str, Error> {
    KERNELS
        .binary_search_by_key(&stem, |(s, _)| s)
        .map(|i| KERNELS[i].1)
        .map_err(|_| Error::UnknownKernel(stem.into()))
}

/// The library that declares the function `name`: `lib/grid` for `row_of`.
pub fn library_with(name: &str) -> Option<&'static str> {
    let declaration = format!("fn {name}(");
    LIBRARIES.iter().find(|(_, text)| text.contains(&declaration)).map(|(stem, _)| *stem)
}

/// The variants that the file's `// variants:` line declares, the default first.
pub fn variants(text: &str) -> Vec<Vec<(String, String)>> {
    let mut all = vec![Vec::new()];
    for line in text.lines().take_while(|l| l.starts_with("//")) {
        let Some(list) = line.strip_prefix("// variants:") else { continue };
        for variant in list.split('|') {
            let pairs = variant.split_whitespace().filter_map(|p| p.split_once('='));
            all.push(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
        }
    }
    all
}

/// `text`, and the libraries that it uses (and those they use).
fn parts(text: &str) -> Result<Vec<&str>, Error> {
    let mut parts: Vec<&str> = vec![text];
    let mut names: Vec<&str> = Vec::new();
    let mut next = 0;
    while next < parts.len() {
        for line in parts[next].lines().take_while(|l| l.starts_with("//")) {
            let Some(list) = line.strip_prefix("// uses:") else { continue };
            for name in list.split([',', ' ']).filter(|s| !s.is_empty()) {
                let stem = name.trim_end_matches(".wgsl");
                if names.contains(&stem) {
                    continue;
                }
                let (_, lib) = LIBRARIES
                    .iter()
                    .find(|(s, _)| *s == stem)
                    .ok_or_else(|| Error::UnknownLibrary(name.into()))?;
                names.push(stem);
                parts.push(lib);
            }
        }
        next += 1;
    }
    Ok(parts)
}

/// `text` with its libraries appended as they are, to be specialised yet.
///
/// # Errors
/// An unknown library.
pub fn whole(text: &str) -> Result<String, Error> {
    Ok(parts(text)?.join("\n").replace("// uses:", "// with:"))
}

/// Appends the libraries that `text` uses (and those they use), applies `spec` and adds `enable` directives.
///
/// # Errors
/// An unknown library, or a name in `spec` that neither the kernel nor its libraries declare.
pub fn compose(text: &str, spec: Spec<'_>, dialect: Dialect) -> Result<String, Error> {
    let parts = parts(text)?;
    let mut used = vec![false; spec.len()];
    let mut body = String::with_capacity(parts.iter().map(|p| p.len() + 1).sum());
    for part in parts {
        for line in part.lines() {
            match respecified(line, spec, &mut used) {
                Some(replaced) => body.push_str(&replaced),
                None => body.push_str(line),
            }
            body.push('\n');
        }
    }
    if let Some(i) = used.iter().position(|u| !u) {
        return Err(Error::UnknownSpec(spec[i].0.into()));
    }
    let body = unroll::unroll(body)?;
    // Directives lead the first line (a comment in our files), so that lines keep their numbers.
    let code = || body.lines().map(|l| l.split("//").next().unwrap_or(""));
    let mut head = String::new();
    if code().any(|l| has_word(l, "f16")) {
        head.push_str("enable f16; ");
    }
    if code().any(|l| l.contains("coop_mat")) {
        head.push_str("enable wgpu_cooperative_matrix; ");
    }
    if dialect == Dialect::Tint && code().any(|l| l.contains("subgroup")) {
        head.push_str("enable subgroups; ");
    }
    Ok(head + &body)
}

/// `const NAME: u32 = 4u;` or `alias NAME = f32;` with the value that `spec` gives, where it gives one.
fn respecified(line: &str, spec: Spec<'_>, used: &mut [bool]) -> Option<String> {
    let rest = line.strip_prefix("const ").or_else(|| line.strip_prefix("alias "))?;
    let name = rest.split([':', ' ', '=']).next()?;
    let i = spec.iter().position(|(n, _)| *n == name)?;
    let (head, tail) = line.split_once('=')?;
    let comment = tail.split_once(';').map_or("", |(_, c)| c);
    let value = &spec[i].1;
    let suffix = match head.split_once(':').map(|(_, t)| t.trim()) {
        Some("u32") if value.bytes().all(|b| b.is_ascii_digit()) => "u",
        _ => "",
    };
    used[i] = true;
    Some(format!("{head}= {value}{suffix};{comment}"))
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(i, _)| {
        !line[..i].chars().next_back().is_some_and(part)
            && !line[i + word.len()..].chars().next().is_some_and(part)
    })
}

/// How a kernel accesses one binding of group 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `var<uniform>`: the parameters.
    Uniform,
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// What a kernel expects from outside, read off its declarations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// (binding index, name, access) of `@group(0)`, by index.
    pub bindings: Vec<(u32, String, Access)>,
    /// (name, type) of the fields of `struct Params`, in order.
    pub params: Vec<(String, String)>,
}

/// Reads bindings and parameters off a kernel's text. Declarations stand on one line each, as rustfmt would leave
/// them: `@group(0) @binding(1) var<storage, read> x: array<f32>;`.
pub fn interface(text: &str) -> Interface {
    let mut found = Interface::default();
    let plain: String =
        text.lines().map(|l| l.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    for (at, _) in plain.match_indices("@binding(") {
        let rest = &plain[at + "@binding(".len()..];
        let Some((index, rest)) = rest.split_once(')') else { continue };
        let Some((var, rest)) = rest.split_once('>') else { continue };
        let Some((name, _)) = rest.split_once(':') else { continue };
        let access = match var.replace(' ', "").trim() {
            v if v.ends_with("var<uniform") => Access::Uniform,
            v if v.ends_with("read_write") => Access::ReadWrite,
            _ => Access::Read,
        };
        if let Ok(index) = index.trim().trim_end_matches('u').parse() {
            found.bindings.push((index, name.trim().to_owned(), access));
        }
    }
    found.bindings.sort_by_key(|b| b.0);
    if let Some((_, rest)) = plain.split_once("struct Params") {
        let body = rest.split_once('{').and_then(|(_, r)| r.split_once('}')).map_or("", |(b, _)| b);
        for field in body.split(',') {
            if let Some((name, kind)) = field.split_once(':') {
                found.params.push((name.trim().to_owned(), kind.trim().to_owned()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "// uses: lib/grid.wgsl\n// variants: elem=f16 WG=64 | WG=32\nalias elem = f32;\nconst WG: u32 = 256u; // lanes\nstruct Params { rows: u32, eps: f32 }\n@group(0) @binding(0) var<uniform> params: Params;\n@group(0) @binding(2) var<storage, read_write> y: array<elem>;\n@group(0) @binding(1) var<storage, read> x: array<elem>;\n";

    #[test]
    fn variants_replace_values_and_keep_line_numbers() {
        let spec = [("elem", "f16".to_owned()), ("WG", "64".to_owned())];
        let out = compose(TEXT, &spec, Dialect::Naga).unwrap();
        assert!(out.starts_with("enable f16; // uses"));
        assert_eq!(out.lines().nth(2), Some("alias elem = f16;"));
        assert_eq!(out.lines().nth(3), Some("const WG: u32 = 64u; // lanes"));
        assert!(out.contains("fn row_of"));
        assert_eq!((library_with("row_of"), library_with("row")), (Some("lib/grid"), None));
        assert_eq!(variants(TEXT).len(), 3);
    }

    #[test]
    fn mistakes_are_named() {
        let spec = [("TILE", "4".to_owned())];
        assert_eq!(compose(TEXT, &spec, Dialect::Naga), Err(Error::UnknownSpec("TILE".into())));
        assert_eq!(kernel("nothing"), Err(Error::UnknownKernel("nothing".into())));
        assert_eq!(
            compose("// uses: lib/no.wgsl\n", &[], Dialect::Naga),
            Err(Error::UnknownLibrary("lib/no.wgsl".into()))
        );
    }

    #[test]
    fn interface_reads_bindings_in_order_and_params() {
        let i = interface(TEXT);
        assert_eq!(i.bindings.iter().map(|b| b.0).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(i.bindings[2], (2, "y".into(), Access::ReadWrite));
        assert_eq!(i.params, [("rows".into(), "u32".into()), ("eps".into(), "f32".into())]);
    }
}
