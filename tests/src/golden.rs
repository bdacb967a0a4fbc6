//! Golden vectors: recorded inputs, outputs and gradients, one safetensors file a case, and how ours are held against
//! them.
//!
//! A file's metadata are its `kind` and `meta`, the options as JSON. Tensors are `in.X`, `param.NAME`, `out.X`,
//! `proj.X` (the loss is Σ ⟨out.X, proj.X⟩) and `grad.X` or `grad.param.NAME`. A kind's check asks for each option and
//! tensor by name; one that nothing asked for is a failure, since it may say something that was not computed.
//!
//! The numbers come from f64. A `manifest.json` beside the file tells how far an f32 run of the same modules was from
//! it. Ours may be ten times as far, or, where that run was lucky, as far as f32 runs of the kind were at most. Without a
//! manifest it is ten times the latter:
//!
//! ```text
//! allowed = max(10 · |f32 − f64|, ρ · max |f64|),  or 10 · ρ · max |f64|
//! ```
//!
//! AdamW turns the rounding of a gradient near 0 into any share of a step, so that one run's distance says nothing about
//! another's in single numbers: there it is always ten times ρ, and the root mean square of an update's error counts.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use rambutan_engine::{
    Gpu, Tensor, autograd,
    tensor::{ParameterSpec, Parameters},
};
use rambutan_model::config;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};

/// ρ, how far f32 runs were from f64 at most, relative to a tensor's largest value, by kind: outputs, gradients.
const SEEN: &[(&str, f64, f64)] = &[
    ("rmsnorm", 8e-7, 8e-7),
    ("gated_rmsnorm", 8e-7, 8e-7),
    ("causal_conv1d", 8e-7, 8e-7),
    ("ssd_scan", 8e-7, 8e-7),
    ("ssd_step", 8e-7, 8e-7),
    ("selective_scan", 8e-7, 8e-7),
    ("hsa", 8e-7, 8e-7),
    ("chunking", 2e-6, 2e-6),
    ("retrieval", 2e-6, 2e-6),
    ("mamba2_block", 2e-6, 2e-6),
    ("ramba_model", 2e-6, 1.1e-5),
    ("ramba_decode", 2e-6, 2e-6),
    ("ramba_adamw", 4.3e-5, 4.3e-5),
];

/// The same for the root mean square error of AdamW's updates, relative to that of the updates.
const UPDATE_SEEN: f64 = 1.2e-4;

/// The kinds there are.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    SEEN.iter().map(|s| s.0)
}

/// One tensor of a file; integers and booleans are held exactly.
struct Stored {
    shape: Vec<usize>,
    data: Vec<f64>,
}

/// One file.
pub struct Vectors<'g> {
    /// Its name.
    pub name: String,
    /// What it records.
    pub kind: String,
    /// How it was computed.
    pub options: Options,
    gpu: &'g Gpu,
    tensors: BTreeMap<String, Stored>,
    /// |f32 − f64| by tensor, where the manifest tells.
    recorded: BTreeMap<String, f64>,
    asked: RefCell<BTreeSet<String>>,
    worst: RefCell<Worst>,
}

/// The comparison that came nearest to its bound, or went furthest beyond.
#[derive(Clone, Debug, Default)]
pub struct Worst {
    /// The tensor.
    pub tensor: String,
    /// The largest difference.
    pub error: f64,
    /// What is allowed.
    pub allowed: f64,
}

impl Worst {
    fn ratio(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.allowed }
    }
}

impl<'g> Vectors<'g> {
    /// Reads a file, and what the manifest beside it tells about it.
    ///
    /// # Errors
    /// It is no golden file.
    pub fn open(gpu: &'g Gpu, path: &Path) -> Result<Vectors<'g>, String> {
        let bytes = fs::read(path).map_err(|e| e.to_string())?;
        let parsed = SafeTensors::deserialize(&bytes).map_err(|e| format!("no safetensors file: {e}"))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| e.to_string())?;
        let entry = |key: &str| {
            let found = header.metadata().as_ref().and_then(|m| m.get(key));
            found.cloned().ok_or_else(|| format!("the header's metadata have no `{key}`"))
        };
        let (kind, meta) = (entry("kind")?, entry("meta")?);
        if !kinds().any(|k| k == kind) {
            let known: Vec<_> = kinds().collect();
            return Err(format!("unknown kind `{kind}`; known: {}", known.join(", ")));
        }
        let tensors = parsed
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                let words = view.data().chunks_exact(4).map(|b| <[u8; 4]>::try_from(b).expect("four bytes"));
                let data = match view.dtype() {
                    Dtype::F32 => words.map(|b| f32::from_le_bytes(b).into()).collect(),
                    Dtype::I32 => words.map(|b| i32::from_le_bytes(b).into()).collect(),
                    Dtype::U8 => view.data().iter().map(|&b| b.into()).collect(),
                    other => return Err(format!("{name} is {other:?}; known: F32, I32, U8")),
                };
                Ok((name, Stored { shape: view.shape().to_vec(), data }))
            })
            .collect::<Result<_, String>>()?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let recorded = recorded(path)?;
        let (options, asked, worst) = (Options::parse(&meta)?, RefCell::default(), RefCell::default());
        Ok(Vectors { name, kind, options, gpu, tensors, recorded, asked, worst })
    }

    /// The device.
    pub fn gpu(&self) -> &'g Gpu {
        self.gpu
    }

    /// Whether the file holds this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn stored(&self, name: &str) -> Result<&Stored, String> {
        self.asked.borrow_mut().insert(name.into());
        self.tensors.get(name).ok_or_else(|| format!("the file holds no {name}"))
    }

    /// A tensor's elements.
    ///
    /// # Errors
    /// It is not there.
    pub fn values(&self, name: &str) -> Result<&[f64], String> {
        Ok(&self.stored(name)?.data)
    }

    /// A tensor's shape.
    ///
    /// # Errors
    /// It is not there, or has another number of axes.
    pub fn axes<const N: usize>(&self, name: &str) -> Result<[usize; N], String> {
        let shape = &self.stored(name)?.shape;
        shape.as_slice().try_into().map_err(|_| format!("{name} has shape {shape:?}, expected {N} axes"))
    }

    /// A tensor as f32, outside of the graph.
    ///
    /// # Errors
    /// It is not there.
    pub fn tensor(&self, name: &str) -> Result<Tensor, String> {
        let Stored { shape, data } = self.stored(name)?;
        let data: Vec<f32> = data.iter().map(|v| *v as f32).collect();
        Tensor::from_slice(self.gpu, &data, shape.as_slice()).map_err(|e| e.to_string())
    }

    /// `in.NAME` as a leaf of the graph.
    ///
    /// # Errors
    /// It is not there.
    pub fn leaf(&self, name: &str) -> Result<Tensor, String> {
        Ok(self.tensor(&format!("in.{name}"))?.requires_grad())
    }

    /// `in.NAME` as a leaf of the graph, where it is there.
    ///
    /// # Errors
    /// It does not upload.
    pub fn find_leaf(&self, name: &str) -> Result<Option<Tensor>, String> {
        self.has(&format!("in.{name}")).then(|| self.leaf(name)).transpose()
    }

    /// `in.NAME`, whole numbers, as u32.
    ///
    /// # Errors
    /// It is not there or holds negative numbers.
    pub fn ids(&self, name: &str) -> Result<Tensor, String> {
        let name = format!("in.{name}");
        let Stored { shape, data } = self.stored(&name)?;
        if let Some(v) = data.iter().find(|v| **v < 0.0) {
            return Err(format!("{name} holds {v}"));
        }
        let data: Vec<u32> = data.iter().map(|v| *v as u32).collect();
        Tensor::from_slice(self.gpu, &data, shape.as_slice()).map_err(|e| e.to_string())
    }

    /// `param.NAME` for all parameters, which must be those that the configuration asks for.
    ///
    /// # Errors
    /// Names or shapes differ.
    pub fn parameters(&self, expected: Vec<config::ParameterSpec>) -> Result<Parameters, String> {
        let names: BTreeSet<_> = expected.iter().map(|p| format!("param.{}", p.name)).collect();
        let found = self.tensors.keys().filter(|name| name.starts_with("param."));
        if let Some(name) = found.into_iter().find(|name| !names.contains(*name)) {
            return Err(format!("the file holds {name}, the options ask for no such parameter"));
        }
        let specs = expected
            .into_iter()
            .map(|p| {
                let name = format!("param.{}", p.name);
                let Stored { shape, data } = self.stored(&name)?;
                if *shape != p.shape {
                    return Err(format!("{name} has shape {shape:?}, the options ask for {:?}", p.shape));
                }
                let values = data.iter().map(|v| *v as f32).collect();
                Ok(ParameterSpec { name: p.name, shape: p.shape, decay: p.decay, values })
            })
            .collect::<Result<_, _>>()?;
        Parameters::new(self.gpu, specs, true).map_err(|e| e.to_string())
    }

    /// How far ours may be from `name`.
    fn allowed(&self, name: &str, data: &[f64]) -> f64 {
        let largest = data.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
        let (_, out, grad) = SEEN.iter().find(|s| s.0 == self.kind).expect("a known kind");
        let seen = largest * if name.starts_with("grad.") { grad } else { out };
        let recorded = self.recorded.get(name).filter(|_| self.kind != "ramba_adamw");
        recorded.map_or(10.0 * seen, |distance| seen.max(10.0 * distance))
    }

    fn note(&self, tensor: String, error: f64, allowed: f64) {
        let seen = Worst { tensor, error, allowed };
        let mut worst = self.worst.borrow_mut();
        if worst.tensor.is_empty() || seen.ratio() > worst.ratio() {
            *worst = seen;
        }
    }

    /// Holds numbers against a tensor of the file, infinities exactly.
    ///
    /// # Errors
    /// It is not there or has another number of elements; how far the numbers are is part of the verdict.
    pub fn compare_values(&self, name: &str, got: &[f64]) -> Result<(), String> {
        let Stored { data, shape } = self.stored(name)?;
        if got.len() != data.len() {
            return Err(format!("{name} has shape {shape:?}, ours {} elements", got.len()));
        }
        let difference = |(g, e): (&f64, &f64)| match (g - e).abs() {
            _ if g == e => 0.0,
            d if d.is_finite() => d,
            _ => f64::INFINITY,
        };
        let error = got.iter().zip(data).map(difference).fold(0.0, f64::max);
        self.note(name.into(), error, self.allowed(name, data));
        Ok(())
    }

    /// Holds what an optimizer made of `param.NAME` against `out.final.NAME`: single numbers, and the root mean square of
    /// the error relative to that of the update.
    ///
    /// # Errors
    /// As [`Vectors::compare`].
    pub fn compare_update(&self, name: &str, got: &Tensor) -> Result<(), String> {
        let (last, got) = (format!("out.final.{name}"), read(got)?);
        self.compare_values(&last, &got)?;
        let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
        let right = self.values(&last)?;
        let (error, update) = (square(&got, right), square(self.values(&format!("param.{name}"))?, right));
        let allowed = 10.0 * UPDATE_SEEN * update.sqrt();
        // What f32 stores of a parameter that hardly moves is no error of the optimizer.
        let stored = 2f64.powi(-24) * square(right, &vec![0.0; right.len()]).sqrt();
        self.note(format!("{last}, root of squares"), error.sqrt(), allowed.max(stored));
        Ok(())
    }

    /// Holds a tensor of ours against one of the file, of as many elements.
    ///
    /// # Errors
    /// As [`Vectors::compare_values`], or the device failed.
    pub fn compare(&self, name: &str, got: &Tensor) -> Result<(), String> {
        self.compare_values(name, &read(got)?)
    }

    /// Holds whole numbers against a tensor of the file, exactly.
    ///
    /// # Errors
    /// They differ.
    pub fn compare_exactly(&self, name: &str, got: &[f64]) -> Result<(), String> {
        let Stored { data, shape } = self.stored(name)?;
        if got.len() != data.len() {
            return Err(format!("{name} has shape {shape:?}, ours {} elements", got.len()));
        }
        match got.iter().zip(data).position(|(g, e)| g != e) {
            None => Ok(()),
            Some(i) => Err(format!("{name}[{i}] (of shape {shape:?}): {} instead of {}", got[i], data[i])),
        }
    }

    /// Outputs against `out.NAME`, then gradients of Σ ⟨out.NAME, proj.NAME⟩ over those that have a projection.
    ///
    /// # Errors
    /// As [`Vectors::compare`].
    pub fn outputs(&self, outputs: &[(&str, &Tensor)]) -> Result<(), String> {
        let mut seeds = Vec::new();
        for (name, y) in outputs {
            self.compare(&format!("out.{name}"), y)?;
            let projection = format!("proj.{name}");
            if self.has(&projection) {
                seeds.push((*y, self.tensor(&projection)?));
            }
        }
        autograd::backward(&seeds.iter().map(|(y, dy)| (*y, dy)).collect::<Vec<_>>());
        Ok(())
    }

    /// The gradient of a leaf against `grad.NAME`, where the file holds it.
    ///
    /// # Errors
    /// There is none of ours, or as [`Vectors::compare`].
    pub fn gradient(&self, name: &str, leaf: &Tensor) -> Result<(), String> {
        let name = format!("grad.{name}");
        if !self.has(&name) {
            return Ok(());
        }
        match leaf.grad() {
            Some(grad) => self.compare(&name, &grad),
            None => self.compare_values(&name, &vec![0.0; leaf.len()]),
        }
    }

    /// [`Vectors::gradient`] of several leaves.
    ///
    /// # Errors
    /// As there.
    pub fn gradients(&self, leaves: &[(&str, Option<&Tensor>)]) -> Result<(), String> {
        leaves
            .iter()
            .filter_map(|(name, leaf)| Some((name, (*leaf)?)))
            .try_for_each(|(n, l)| self.gradient(n, l))
    }

    /// The gradients of all parameters against `grad.param.NAME`.
    ///
    /// # Errors
    /// As [`Vectors::gradient`].
    pub fn parameter_gradients(&self, parameters: &Parameters) -> Result<(), String> {
        parameters.iter().try_for_each(|(name, leaf)| self.gradient(&format!("param.{name}"), leaf))
    }

    /// The worst comparison, once nothing of the file is left over.
    ///
    /// # Errors
    /// An option or a tensor that nothing asked for; nothing was compared.
    pub fn verdict(&self) -> Result<Worst, String> {
        self.options.finish(&self.kind)?;
        let asked = self.asked.borrow();
        let left: Vec<_> = self.tensors.keys().filter(|name| !asked.contains(*name)).cloned().collect();
        if !left.is_empty() {
            return Err(format!("nothing was held against {}", left.join(", ")));
        }
        let worst = self.worst.borrow().clone();
        if worst.tensor.is_empty() {
            return Err("the file holds no outputs".into());
        }
        Ok(worst)
    }
}

/// A tensor's elements as f64.
///
/// # Errors
/// The device failed.
pub fn read(tensor: &Tensor) -> Result<Vec<f64>, String> {
    Ok(rambutan_engine::testing::read(tensor).map_err(|e| e.to_string())?.data)
}

/// |f32 − f64| by tensor, from the manifest beside the file; empty where it does not tell.
fn recorded(path: &Path) -> Result<BTreeMap<String, f64>, String> {
    let manifest = path.with_file_name("manifest.json");
    let Ok(text) = fs::read_to_string(&manifest) else { return Ok(BTreeMap::new()) };
    let wrong = |what: &str| format!("{}: {what}", manifest.display());
    let manifest: Value = serde_json::from_str(&text).map_err(|e| wrong(&e.to_string()))?;
    let files = manifest["files"].as_array().ok_or_else(|| wrong("no list `files`"))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(entry) = files.iter().find(|f| f["file"] == *name) else { return Ok(BTreeMap::new()) };
    let Some(distances) = entry["f32_vs_f64"].as_object() else { return Ok(BTreeMap::new()) };
    let distance = |(tensor, v): (&String, &Value)| match v["max_abs_diff"].as_f64() {
        Some(d) => Ok((tensor.clone(), d)),
        None => Err(wrong(&format!("{name}: {tensor} has no max_abs_diff"))),
    };
    distances.iter().map(distance).collect()
}

/// A file's options; each is asked for by name.
pub struct Options {
    map: Map<String, Value>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl Options {
    fn parse(meta: &str) -> Result<Options, String> {
        let map = serde_json::from_str(meta).map_err(|e| format!("meta is no JSON object: {e}"))?;
        Ok(Options { map, asked: RefCell::default() })
    }

    /// An option; null counts as absent.
    pub fn find(&self, key: &'static str) -> Option<&Value> {
        self.asked.borrow_mut().insert(key);
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn get(&self, key: &'static str) -> Result<&Value, String> {
        self.find(key).ok_or_else(|| format!("meta has no `{key}`"))
    }

    /// An option that says nothing about the computation, or nothing that the tensors do not.
    pub fn note(&self, keys: &[&'static str]) {
        self.asked.borrow_mut().extend(keys);
    }

    /// A whole number.
    ///
    /// # Errors
    /// It is absent or something else.
    pub fn count(&self, key: &'static str) -> Result<usize, String> {
        let value = self.get(key)?;
        value.as_u64().map(|n| n as usize).ok_or_else(|| format!("{key} = {value}: expected a whole number"))
    }

    /// A number.
    ///
    /// # Errors
    /// It is absent or something else.
    pub fn number(&self, key: &'static str) -> Result<f64, String> {
        let value = self.get(key)?;
        value.as_f64().ok_or_else(|| format!("{key} = {value}: expected a number"))
    }

    /// True or false; false where absent.
    ///
    /// # Errors
    /// It is something else.
    pub fn flag(&self, key: &'static str) -> Result<bool, String> {
        match self.find(key) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| format!("{key} = {value}: expected true or false")),
        }
    }

    /// Refuses all values but those, where the option is there.
    ///
    /// # Errors
    /// It has another value.
    pub fn only(&self, key: &'static str, known: &[Value]) -> Result<(), String> {
        match self.find(key) {
            Some(value)
                if !known.iter().any(|k| k == value || k.is_number() && k.as_f64() == value.as_f64()) =>
            {
                let known: Vec<_> = known.iter().map(Value::to_string).collect();
                Err(format!("{key} = {value}; known: {}", known.join(", ")))
            }
            _ => Ok(()),
        }
    }

    /// Limits of dt, [lower, upper]; the upper may be "inf".
    ///
    /// # Errors
    /// It is something else.
    pub fn limits(&self, key: &'static str) -> Result<(f32, f32), String> {
        let Some(value) = self.find(key) else { return Ok((0.0, f32::MAX)) };
        let end = |v: &Value| if v == "inf" { Some(f32::MAX) } else { v.as_f64().map(|x| x as f32) };
        match value.as_array().map(Vec::as_slice) {
            Some([low, high]) => end(low).zip(end(high)),
            _ => None,
        }
        .ok_or_else(|| format!("{key} = {value}: expected [lower, upper], the upper a number or \"inf\""))
    }

    fn finish(&self, kind: &str) -> Result<(), String> {
        let asked = self.asked.borrow();
        match self.map.keys().find(|key| !asked.contains(key.as_str())) {
            None => Ok(()),
            Some(key) => {
                let known: Vec<_> = asked.iter().copied().collect();
                Err(format!("unknown option `{key}` of {kind}; known: {}", known.join(", ")))
            }
        }
    }
}

/// The committed files.
pub fn committed() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// All golden files: those of `RAMBUTAN_GOLDEN` (a folder, or one file, from the workspace's root), else of a folder beside the checkout where it
/// is there, then the committed ones that are not among them; of these, the ones whose names contain `RAMBUTAN_CASE`.
///
/// # Errors
/// `RAMBUTAN_GOLDEN` names nothing that can be read, or nothing is in it.
pub fn files() -> Result<Vec<PathBuf>, String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let given =
        std::env::var_os("RAMBUTAN_GOLDEN").filter(|path| !path.is_empty()).map(|path| root.join(path));
    let beside = root.join("../shared/golden");
    let list = |folder: &Path| -> Result<Vec<PathBuf>, String> {
        let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let paths = entries.map(|e| e.map(|e| e.path()).map_err(|e| e.to_string()));
        let mut paths = paths.collect::<Result<Vec<_>, _>>()?;
        paths.retain(|p| p.extension().is_some_and(|e| e == "safetensors"));
        paths.sort();
        if paths.is_empty() {
            return Err(format!("{}: no .safetensors files", folder.display()));
        }
        Ok(paths)
    };
    let mut all = match given {
        Some(path) if path.is_file() => vec![path],
        Some(folder) => list(&folder)?,
        None if beside.is_dir() => list(&beside)?,
        None => Vec::new(),
    };
    for path in list(&committed())? {
        let twin = |other: &PathBuf| {
            other.file_name() == path.file_name() && fs::read(other).ok() == fs::read(&path).ok()
        };
        if !all.iter().any(twin) {
            all.push(path);
        }
    }
    let wanted = std::env::var("RAMBUTAN_CASE").unwrap_or_default();
    all.retain(|path| path.file_stem().is_some_and(|name| name.to_string_lossy().contains(&wanted)));
    Ok(all)
}
