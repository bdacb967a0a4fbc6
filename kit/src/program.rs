//! A kernel as naga reads it: its entry point, what it binds, and how numbers lie there.

use half::f16;
use naga::{
    AddressSpace, ArraySize, Expression, Function, GlobalVariable, Handle, Module, Scalar, ScalarKind,
    ShaderStage, StorageAccess, TypeInner,
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};

use crate::machine::{self, Launch, Outcome, Stop};

/// A variable that the entry point uses.
pub(crate) struct Variable {
    pub name: String,
    pub handle: Handle<GlobalVariable>,
    pub group: u32,
    pub binding: u32,
    pub uniform: bool,
    pub writable: bool,
    /// The scalars of one element, or of the whole where `stride` is none.
    leaves: Vec<(u32, Scalar)>,
    /// Bytes from one element to the next of a runtime-sized array.
    stride: Option<u32>,
    /// Bytes of the whole, or of one element.
    span: u32,
}

impl Variable {
    /// The words of numbers, as the kernel sees them; `poison` stands where nothing is.
    pub fn encode(&self, data: &[f64]) -> Vec<u8> {
        let elements = data.len().div_ceil(self.leaves.len().max(1));
        let size = self.stride.map_or(self.span, |s| (s * elements.max(1) as u32).max(self.span));
        let mut bytes = vec![0; (size as usize).next_multiple_of(4)];
        for (i, v) in data.iter().enumerate() {
            let (at, scalar) = self.place(i);
            let word = match (scalar.kind, scalar.width) {
                (ScalarKind::Float, 2) => u32::from(f16::from_f64(*v).to_bits()),
                (ScalarKind::Float, _) => (*v as f32).to_bits(),
                (ScalarKind::Sint, _) => *v as i32 as u32,
                _ => *v as u32,
            };
            let width = usize::from(scalar.width);
            if let Some(place) = bytes.get_mut(at..at + width) {
                place.copy_from_slice(&word.to_le_bytes()[..width]);
            }
        }
        bytes
    }

    /// `n` numbers.
    pub fn decode(&self, bytes: &[u8], n: usize) -> Vec<f64> {
        let one = |i: usize| {
            let (at, scalar) = self.place(i);
            let width = usize::from(scalar.width);
            let mut word = [0; 4];
            word[..width].copy_from_slice(&bytes[at..at + width]);
            let word = u32::from_le_bytes(word);
            match (scalar.kind, scalar.width) {
                (ScalarKind::Float, 2) => f16::from_bits(word as u16).to_f64(),
                (ScalarKind::Float, _) => f32::from_bits(word).into(),
                (ScalarKind::Sint, _) => (word as i32).into(),
                _ => word.into(),
            }
        };
        (0..n).map(one).collect()
    }

    /// Numbers that a variable of fixed size holds.
    pub fn capacity(&self) -> Option<usize> {
        self.stride.is_none().then_some(self.leaves.len())
    }

    /// Scalars in so many bytes.
    pub fn holds(&self, bytes: usize) -> usize {
        let elements = self.stride.map_or(1, |stride| bytes / stride as usize);
        elements * self.leaves.len()
    }

    /// Bytes of `n` scalars.
    pub fn bytes(&self, n: usize) -> u64 {
        let elements = n.div_ceil(self.leaves.len().max(1)) as u64;
        self.stride.map_or(self.span.into(), |s| u64::from(s) * elements)
    }

    /// Where the first `n` scalars lie, in bytes.
    pub fn places(&self, n: usize) -> Vec<u32> {
        (0..n).map(|i| self.place(i).0 as u32).collect()
    }

    /// Whether its first scalar is a float.
    pub fn is_float(&self) -> bool {
        self.leaves[0].1.kind == ScalarKind::Float
    }

    /// One rounding of its type, relative.
    pub fn rounding(&self) -> f64 {
        if self.leaves[0].1.width == 2 { 2f64.powi(-11) } else { 2f64.powi(-24) }
    }

    /// The smallest normal number of its type, below which devices may flush, and the largest.
    pub fn range(&self) -> (f64, f64) {
        if self.leaves[0].1.width == 2 {
            (f16::MIN_POSITIVE.to_f64(), f16::MAX.to_f64())
        } else {
            (f32::MIN_POSITIVE.into(), f32::MAX.into())
        }
    }

    fn place(&self, i: usize) -> (usize, Scalar) {
        let n = self.leaves.len().max(1);
        let (at, scalar) = self.leaves[i % n];
        ((self.stride.unwrap_or(0) * (i / n) as u32 + at) as usize, scalar)
    }
}

pub(crate) struct Program {
    pub source: String,
    pub module: Module,
    pub info: ModuleInfo,
    pub entry: usize,
    pub variables: Vec<Variable>,
    /// Whether the kernel asks how long its arrays are.
    pub asks_lengths: bool,
}

impl Program {
    pub fn new(source: &str) -> Result<Program, String> {
        let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
        let validate = |module: &Module| {
            Validator::new(ValidationFlags::all(), Capabilities::all())
                .validate(module)
                .map_err(|e| e.emit_to_string(source))
        };
        let info = validate(&module)?;
        let compute: Vec<usize> = (0..module.entry_points.len())
            .filter(|i| module.entry_points[*i].stage == ShaderStage::Compute)
            .collect();
        let [entry] = compute[..] else {
            return Err(format!("{} compute entry points, expected one", compute.len()));
        };
        let name = module.entry_points[entry].name.clone();
        let (module, info) = naga::back::pipeline_constants::process_overrides(
            &module,
            &info,
            Some((ShaderStage::Compute, &name)),
            &naga::back::PipelineConstants::default(),
        )
        .map(|(m, i)| (m.into_owned(), i.into_owned()))
        .map_err(|e| e.to_string())?;
        let entry = module.entry_points.iter().position(|e| e.name == name).ok_or("no entry point")?;
        let used = info.get_entry_point(entry);
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).map_err(|e| e.to_string())?;
        let mut variables = Vec::new();
        for (handle, v) in module.global_variables.iter().filter(|(h, _)| !used[*h].is_empty()) {
            let name = v.name.clone().unwrap_or_default();
            let (uniform, writable) = match v.space {
                AddressSpace::Uniform => (true, false),
                AddressSpace::Storage { access } => (false, access.contains(StorageAccess::STORE)),
                AddressSpace::WorkGroup | AddressSpace::Private => continue,
                space => return Err(format!("`{name}` lies in {space:?}: buffers alone are bound here")),
            };
            let binding = v.binding.ok_or_else(|| format!("`{name}` has no @group and @binding"))?;
            let inner = &module.types[v.ty].inner;
            let (leaves, stride, span) = match inner {
                TypeInner::Array { base, size: ArraySize::Dynamic, stride } => {
                    let leaves = machine::leaves(&module, &module.types[*base].inner);
                    (leaves, Some(*stride), *stride)
                }
                inner => (machine::leaves(&module, inner), None, layouter[v.ty].size),
            };
            if leaves.is_empty() || leaves.iter().any(|(_, s)| s.width > 4) {
                return Err(format!(
                    "`{name}`: expected scalars of up to 32 bits, or arrays and structs of them"
                ));
            }
            variables.push(Variable {
                name,
                handle,
                group: binding.group,
                binding: binding.binding,
                uniform,
                writable,
                leaves,
                stride,
                span,
            });
        }
        let asks = |f: &Function| f.expressions.iter().any(|(_, e)| matches!(e, Expression::ArrayLength(_)));
        let asks_lengths = module.functions.iter().any(|(_, f)| asks(f))
            || module.entry_points.iter().any(|e| asks(&e.function));
        Ok(Program { source: source.into(), module, info, entry, variables, asks_lengths })
    }

    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.iter().find(|v| v.name == name)
    }

    /// The type of a variable's first scalar.
    pub fn scalar(&self, name: &str) -> Scalar {
        self.variable(name).map_or(Scalar::F32, |v| v.leaves[0].1)
    }

    /// The number nearest to `v` that a type holds.
    pub fn rounded(&self, scalar: Scalar, v: f64) -> f64 {
        match (scalar.kind, scalar.width) {
            (ScalarKind::Float, 2) => f16::from_f64(v).to_f64(),
            (ScalarKind::Float, _) => f64::from(v as f32),
            (ScalarKind::Sint, _) => f64::from(v as i32),
            _ => f64::from(v as u32),
        }
    }

    /// Bytes of workgroup memory.
    pub fn workgroup_memory(&self) -> u32 {
        let mut layouter = naga::proc::Layouter::default();
        if layouter.update(self.module.to_ctx()).is_err() {
            return 0;
        }
        let used = self.info.get_entry_point(self.entry);
        let held = self
            .module
            .global_variables
            .iter()
            .filter(|(h, v)| v.space == AddressSpace::WorkGroup && !used[*h].is_empty());
        held.map(|(_, v)| layouter[v.ty].size).sum()
    }

    /// Runs it on the abstract machine.
    pub fn interpret(&self, launch: Launch) -> Result<Outcome, Stop> {
        machine::run(&self.module, &self.info, &self.source, self.entry, launch)
    }

    /// A line of the source.
    pub fn line(&self, line: u32) -> &str {
        self.source.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default().trim()
    }
}
