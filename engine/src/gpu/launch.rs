//! Launching a kernel: its variant, its parameters, its operands in binding order, its workgroups.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use rambutan_shaders::{Access, Dialect, Interface};
use rustc_hash::FxHashMap;

use super::{Gpu, Inner, Storage, barrier, lock, stream::Bound, stream::PARAMS_BYTES};
use crate::Error;

/// Folds linear dispatches past 65535 workgroups: `GRID_WIDTH` in shaders/lib/grid.wgsl.
pub(crate) const GRID_WIDTH: usize = 32768;

/// How many workgroups run.
#[derive(Clone, Copy, Debug)]
pub enum Groups {
    /// So many, counted by `row_of(group)`; folded where they exceed one dimension's limit.
    Linear(usize),
    /// Along x, y and z.
    Grid([usize; 3]),
}

impl From<usize> for Groups {
    fn from(n: usize) -> Groups {
        Groups::Linear(n)
    }
}

impl From<(usize, usize, usize)> for Groups {
    fn from((x, y, z): (usize, usize, usize)) -> Groups {
        Groups::Grid([x, y, z])
    }
}

impl Groups {
    fn dimensions(self) -> [usize; 3] {
        match self {
            Groups::Linear(n) if n <= GRID_WIDTH => [n, 1, 1],
            Groups::Linear(n) => [GRID_WIDTH, n.div_ceil(GRID_WIDTH), 1],
            Groups::Grid(g) => g,
        }
    }
}

/// One four-byte field of `struct Params`.
pub trait Word: Copy {
    /// Its WGSL type.
    const TYPE: &'static str;
    /// Its bits.
    fn bits(self) -> u32;
}

impl Word for u32 {
    const TYPE: &'static str = "u32";
    fn bits(self) -> u32 {
        self
    }
}

impl Word for i32 {
    const TYPE: &'static str = "i32";
    fn bits(self) -> u32 {
        self as u32
    }
}

impl Word for f32 {
    const TYPE: &'static str = "f32";
    fn bits(self) -> u32 {
        self.to_bits()
    }
}

impl Word for usize {
    const TYPE: &'static str = "u32";
    #[track_caller]
    fn bits(self) -> u32 {
        u32::try_from(self).expect("a kernel parameter exceeds 32 bits")
    }
}

impl Word for bool {
    const TYPE: &'static str = "u32";
    fn bits(self) -> u32 {
        self.into()
    }
}

/// A range of a buffer that a kernel binds. Tensors convert into it.
#[derive(Clone)]
pub struct Operand {
    pub(crate) gpu: Gpu,
    pub(crate) storage: Arc<Storage>,
    /// In bytes.
    pub(crate) offset: u64,
    /// In bytes.
    pub(crate) size: u64,
}

impl Operand {
    /// The part from byte `offset` on, `size` bytes long. `offset` is a multiple of the adapter's alignment.
    #[track_caller]
    pub fn part(&self, offset: u64, size: u64) -> Operand {
        assert!(offset + size <= self.size, "a part {offset}+{size} outside of {} bytes", self.size);
        Operand { offset: self.offset + offset, size, ..self.clone() }
    }
}

pub(crate) struct Layout {
    pub id: u32,
    pub group: wgpu::BindGroupLayout,
    pub has_params: bool,
    /// The binding index of each storage operand.
    pub storage: Vec<u32>,
    pipeline: wgpu::PipelineLayout,
}

pub(crate) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: Arc<Layout>,
    interface: Interface,
}

impl Pipeline {
    /// The storage bindings: their numbers and names.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn storage(&self) -> impl Iterator<Item = (u32, &str)> {
        let storage = self.interface.bindings.iter().filter(|b| b.2 != Access::Uniform);
        storage.map(|(binding, name, _)| (*binding, name.as_str()))
    }
}

/// What is compiled: a kernel, what is set in it, and, of a kernel of one's own, a hash of its text, since two users may give
/// two kernels one name.
#[derive(PartialEq, Eq, Hash)]
struct Variant {
    stem: &'static str,
    spec: Vec<(&'static str, String)>,
    text: u64,
}

/// As `rambutan shaders` lists variants.
fn set(spec: &[(&'static str, String)]) -> String {
    spec.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// Compiled kernels.
#[derive(Default)]
pub(crate) struct Pipelines {
    compiled: FxHashMap<Variant, Arc<Pipeline>>,
    /// Texts that stand in for ours, by stem.
    replaced: HashMap<String, Arc<str>>,
    layouts: HashMap<Vec<(u32, u8)>, Arc<Layout>>,
}

impl Pipelines {
    pub fn len(&self) -> usize {
        self.compiled.len()
    }

    /// (stem, variant) of each, sorted.
    pub fn names(&self) -> Vec<(&'static str, String)> {
        let named = |v: &Variant| match v.text {
            0 => (v.stem, set(&v.spec)),
            text => (v.stem, format!("{} {text}", set(&v.spec)).trim_start().to_owned()),
        };
        let mut names: Vec<_> = self.compiled.keys().map(named).collect();
        names.sort();
        names
    }

    /// Sets or clears the text that stands in for a kernel of ours, and forgets what was compiled from the other.
    pub fn replace(&mut self, stem: &str, text: Option<&str>) {
        match text {
            Some(text) => self.replaced.insert(stem.into(), text.into()),
            None => self.replaced.remove(stem),
        };
        self.compiled.retain(|variant, _| variant.stem != stem);
    }
}

/// A launch under construction; [`crate::launch!`] is its short form.
#[must_use]
pub struct Launch<'a> {
    stem: &'static str,
    source: Option<&'a str>,
    spec: Vec<(&'static str, String)>,
    names: Vec<(&'static str, &'static str)>,
    params: Vec<u8>,
    operands: Vec<(Operand, bool)>,
}

impl<'a> Launch<'a> {
    /// Launches one of our kernels, `shaders/<stem>.wgsl`.
    pub fn new(stem: &'static str) -> Launch<'a> {
        Launch {
            stem,
            source: None,
            spec: Vec::new(),
            names: Vec::new(),
            params: Vec::new(),
            operands: Vec::new(),
        }
    }

    /// Launches a kernel of one's own: WGSL with the entry point `main`, bindings in group 0, `struct Params` of
    /// four-byte fields as uniform binding 0 if it has parameters. `stem` names it in caches and profiles.
    pub fn source(stem: &'static str, text: &'a str) -> Launch<'a> {
        Launch { source: Some(text), ..Launch::new(stem) }
    }

    /// Replaces the value of a module-scope `const` or `alias`.
    pub fn spec(mut self, name: &'static str, value: impl ToString) -> Self {
        self.spec.push((name, value.to_string()));
        self
    }

    /// The next field of `struct Params`.
    #[track_caller]
    pub fn param<W: Word>(mut self, name: &'static str, value: W) -> Self {
        self.names.push((name, W::TYPE));
        self.params.extend_from_slice(&value.bits().to_le_bytes());
        self
    }

    /// The next storage binding, read by the kernel.
    pub fn read(mut self, operand: impl Into<Operand>) -> Self {
        self.operands.push((operand.into(), false));
        self
    }

    /// The next storage binding, written (and perhaps read) by the kernel.
    pub fn write(mut self, operand: impl Into<Operand>) -> Self {
        self.operands.push((operand.into(), true));
        self
    }

    /// Records the dispatch. A kernel that does not compile or a refused binding surfaces at the next read, and at every
    /// read of what it should have written, or of what is computed from that: such launches are left out.
    ///
    /// # Panics
    /// Where parameters or operands disagree with the kernel's declarations.
    #[track_caller]
    pub fn groups(mut self, groups: impl Into<Groups>) {
        let gpu = self.operands.first().expect("a launch has an operand").0.gpu.clone();
        let dimensions = groups.into().dimensions();
        if dimensions.contains(&0) {
            return;
        }
        let inner = &*gpu.0;
        let result = self.pipeline(inner).and_then(|pipeline| {
            self.agree(&pipeline.interface, &gpu);
            if let Some(error) = self.operands.iter().find_map(|(o, _)| o.storage.lost.get()) {
                self.lose(error);
                return Ok(());
            }
            self.params.resize(self.params.len().next_multiple_of(16), 0);
            self.record(&gpu, &pipeline, dimensions)
        });
        if let Err(error) = result {
            self.lose(&error);
            inner.fail(error);
        }
    }

    /// What the launch should have written does not hold it.
    fn lose(&self, error: &Error) {
        for (operand, _) in self.operands.iter().filter(|(_, written)| *written) {
            // The first reason is the one to tell.
            let _ = operand.storage.lost.set(error.clone());
        }
    }

    fn record(&self, gpu: &Gpu, pipeline: &Pipeline, dimensions: [usize; 3]) -> Result<(), Error> {
        let inner = &*gpu.0;
        let operands: Vec<Bound<'_>> = self
            .operands
            .iter()
            .map(|(o, _)| Bound {
                id: o.storage.id,
                buffer: &o.storage.buffer,
                offset: o.offset,
                size: o.size.next_multiple_of(4).max(4),
            })
            .collect();
        let limit = inner.capabilities.max_binding;
        for o in &operands {
            if o.size > limit {
                let what = format!("an operand of kernel `{}`", self.stem);
                return Err(Error::TooLarge { what, asked: o.size, limit });
            }
        }
        let groups = dimensions.map(|d| u32::try_from(d).expect("workgroups fit 32 bits"));
        let record = || gpu.stream().dispatch(inner, self.stem, pipeline, &self.params, &operands, groups);
        #[cfg(not(target_arch = "wasm32"))]
        if gpu.captures() {
            let replaced = lock(&inner.pipelines).replaced.get(self.stem).cloned();
            let named = (self.stem, set(&self.spec), self.composed(replaced.as_deref())?);
            return gpu.captured_launch(named, pipeline, &self.params, &self.operands, groups, record);
        }
        record()
    }

    /// Names, types and access must be those that the kernel declares: positions alone would hide a swap. What an
    /// operand's elements are is not known here.
    #[track_caller]
    fn agree(&self, interface: &Interface, gpu: &Gpu) {
        let storage: Vec<_> = interface.bindings.iter().filter(|b| b.2 != Access::Uniform).collect();
        let stem = self.stem;
        if storage.len() != self.operands.len() {
            let side = |access: Access| -> Vec<_> {
                storage.iter().filter(|b| b.2 == access).map(|b| b.1.as_str()).collect()
            };
            let (reads, writes) = (side(Access::Read).join(", "), side(Access::ReadWrite).join(", "));
            let written = self.operands.iter().filter(|o| o.1).count();
            let read = self.operands.len() - written;
            panic!("kernel `{stem}` binds [{reads}] -> [{writes}], the launch gives {read} -> {written}");
        }
        for ((operand, written), (_, name, access)) in self.operands.iter().zip(&storage) {
            assert!(operand.gpu == *gpu, "kernel `{stem}`: operand `{name}` lives on another device");
            if *written != (*access == Access::ReadWrite) {
                let side = |written| if written { "written" } else { "read" };
                let (theirs, ours) = (side(*access == Access::ReadWrite), side(*written));
                panic!("kernel `{stem}` declares `{name}` as {theirs}, the launch gives it as {ours}");
            }
        }
        for (i, (a, written)) in self.operands.iter().enumerate().filter(|(_, o)| o.1) {
            let shared = self.operands.iter().position(|(b, w)| w != written && b.storage.id == a.storage.id);
            if let Some(j) = shared {
                let (a, b) = (&storage[i].1, &storage[j].1);
                panic!("kernel `{stem}` writes `{a}` to the buffer that it reads `{b}` from");
            }
        }
        let declared = || interface.params.iter().map(|(n, t)| (n.as_str(), t.as_str()));
        let given = || self.names.iter().copied();
        if declared().ne(given()) {
            let fields = |all: &mut dyn Iterator<Item = (&str, &str)>| -> String {
                let all: Vec<_> = all.map(|(name, kind)| format!("{name}: {kind}")).collect();
                all.join(", ")
            };
            let (declared, given) = (fields(&mut declared()), fields(&mut given()));
            panic!("kernel `{stem}` declares struct Params {{ {declared} }}, the launch gives {{ {given} }}");
        }
    }

    /// What the compiler gets, of the launch's own text, that which stands in for ours, or ours.
    fn composed(&self, replaced: Option<&str>) -> Result<String, Error> {
        let fail =
            |e: rambutan_shaders::Error| Error::Kernel { stem: self.stem.into(), reason: e.to_string() };
        let text = match self.source.or(replaced) {
            Some(text) => text,
            None => rambutan_shaders::kernel(self.stem).map_err(fail)?,
        };
        let dialect = if cfg!(target_arch = "wasm32") { Dialect::Tint } else { Dialect::Naga };
        rambutan_shaders::compose(text, &self.spec, dialect).map_err(fail)
    }

    fn pipeline(&mut self, inner: &Inner) -> Result<Arc<Pipeline>, Error> {
        let text = self.source.map_or(0, |text| {
            use std::hash::{DefaultHasher, Hash, Hasher};
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            hasher.finish() | 1
        });
        let mut pipelines = lock(&inner.pipelines);
        // The launch lends what it has set: most are compiled, and nothing is copied to find them.
        let variant = Variant { stem: self.stem, spec: std::mem::take(&mut self.spec), text };
        let found = pipelines.compiled.get(&variant).cloned();
        self.spec = variant.spec;
        if let Some(found) = found {
            return Ok(found);
        }
        let fail = |reason: String| Error::Kernel { stem: self.stem.into(), reason };
        let replaced = pipelines.replaced.get(self.stem).cloned();
        let mut composed = self.composed(replaced.as_deref())?;
        // One of a workgroup does as well, as long as all of it comes there: in our kernels it does.
        if self.source.is_none() && !inner.capabilities.subgroup_barriers {
            composed = barrier::of_workgroups(&composed);
        }
        let interface = rambutan_shaders::interface(&composed);
        let label = format!("rambutan {}", self.stem);
        let ((pipeline, layout), error) = inner.scoped(|| {
            let layout = layout(&mut pipelines, &inner.device, &interface);
            let descriptor =
                wgpu::ShaderModuleDescriptor { label: Some(&label), source: barrier::source(composed) };
            let ours = self.source.is_none() && replaced.is_none();
            let checked = inner.checked || cfg!(debug_assertions) || !ours;
            let module = if checked {
                inner.device.create_shader_module(descriptor)
            } else {
                // SAFETY: our kernels guard every index; the checked builds of the tests run the same text.
                unsafe {
                    inner
                        .device
                        .create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
                }
            };
            let pipeline = inner.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&label),
                layout: Some(&layout.pipeline),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: inner.cache.as_ref().map(|c| &c.pipelines),
            });
            (pipeline, layout)
        });
        if let Some(e) = error {
            let mut reason = format!("[{}] {e}", set(&self.spec));
            // As naga words it.
            let unknown =
                reason.split_once("in scope for identifier: `").and_then(|(_, r)| r.split_once('`'));
            if let Some(lib) = unknown.and_then(|(name, _)| rambutan_shaders::library_with(name)) {
                reason.push_str(&format!("\nThe kernel's first lines lack `// uses: {lib}.wgsl`"));
            }
            return Err(fail(reason));
        }
        if let Some(cache) = &inner.cache {
            cache.grown.store(true, Ordering::Relaxed);
        }
        let pipeline = Arc::new(Pipeline { pipeline, layout, interface });
        let variant = Variant { stem: self.stem, spec: self.spec.clone(), text };
        pipelines.compiled.insert(variant, pipeline.clone());
        Ok(pipeline)
    }
}

/// Kernels whose bindings look alike share a layout, and so their bind groups.
fn layout(pipelines: &mut Pipelines, device: &wgpu::Device, interface: &Interface) -> Arc<Layout> {
    let key: Vec<_> = interface.bindings.iter().map(|(i, _, a)| (*i, *a as u8)).collect();
    let id = pipelines.layouts.len() as u32;
    let make = || {
        let entries: Vec<_> = interface
            .bindings
            .iter()
            .map(|&(binding, _, access)| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match access {
                        Access::Uniform => wgpu::BufferBindingType::Uniform,
                        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
                        Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                    },
                    has_dynamic_offset: access == Access::Uniform,
                    // Storage is checked against the kernel's element at the dispatch: it may be a vector.
                    min_binding_size: std::num::NonZeroU64::new(PARAMS_BYTES)
                        .filter(|_| access == Access::Uniform),
                },
                count: None,
            })
            .collect();
        let label = Some("rambutan");
        let group =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&group)],
            immediate_size: 0,
        });
        let storage = interface.bindings.iter().filter(|b| b.2 != Access::Uniform).map(|b| b.0).collect();
        let has_params = interface.bindings.iter().any(|b| b.2 == Access::Uniform);
        Arc::new(Layout { id, group, has_params, storage, pipeline })
    };
    pipelines.layouts.entry(key).or_insert_with(make).clone()
}

/// `launch!(rms_norm [WG = 64] { rows, columns, eps }, [x, weight] -> [y, rstd], rows)`: the kernel's stem, values for
/// its constants and aliases, its parameters in order, what it reads and writes in binding order, its workgroups.
#[macro_export]
macro_rules! launch {
    ($stem:ident $([$($spec:ident = $with:expr),* $(,)?])? { $($param:ident $(: $value:expr)?),* $(,)? },
     [$($read:expr),* $(,)?] -> [$($write:expr),* $(,)?], $groups:expr $(,)?) => {
        $crate::gpu::Launch::new(stringify!($stem))
            $($(.spec(stringify!($spec), $with))*)?
            $(.param(stringify!($param), $crate::launch!(@value $param $($value)?)))*
            $(.read(&$read))*
            $(.write(&$write))*
            .groups($groups)
    };
    (@value $param:ident $value:expr) => { $value };
    (@value $param:ident) => { $param };
}
