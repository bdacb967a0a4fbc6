//! The declaration: a kernel, what it binds, and the plain function that it must agree with.

use std::{fmt, ops::Index, rc::Rc};

use rambutan_engine::{
    testing::{Dim, Sizes},
    wgpu,
};

use crate::{Check, Device, Examination, Values, Verdict, checks};

/// One word of a uniform buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(pub(crate) u32);

impl From<u32> for Word {
    fn from(v: u32) -> Word {
        Word(v)
    }
}

impl From<i32> for Word {
    fn from(v: i32) -> Word {
        Word(v as u32)
    }
}

impl From<f32> for Word {
    fn from(v: f32) -> Word {
        Word(v.to_bits())
    }
}

impl From<usize> for Word {
    #[track_caller]
    fn from(v: usize) -> Word {
        Word(u32::try_from(v).expect("a uniform's word has 32 bits"))
    }
}

type Count = Rc<dyn Fn(&Sizes) -> usize>;

/// What a variable of the kernel holds.
#[derive(Clone)]
pub(crate) enum Role {
    Uniform(Rc<dyn Fn(&Sizes) -> Vec<Word>>),
    Input {
        values: Values,
        len: Count,
    },
    Output {
        len: Count,
    },
    InOut {
        values: Values,
        len: Count,
    },
    Scratch {
        len: Count,
    },
    /// The gradient of a forward output, drawn.
    Upstream {
        of: String,
    },
    /// The gradient of a forward input, written.
    Gradient {
        of: String,
    },
}

impl Role {
    pub fn is_drawn(&self) -> bool {
        matches!(self, Role::Input { .. } | Role::InOut { .. })
    }

    pub fn is_compared(&self) -> bool {
        matches!(self, Role::Output { .. } | Role::InOut { .. })
    }

    pub fn values(&self) -> Option<&Values> {
        match self {
            Role::Input { values, .. } | Role::InOut { values, .. } => Some(values),
            _ => None,
        }
    }

    pub fn len(&self, sizes: &Sizes) -> Option<usize> {
        match self {
            Role::Input { len, .. }
            | Role::Output { len }
            | Role::InOut { len, .. }
            | Role::Scratch { len } => Some(len(sizes)),
            _ => None,
        }
    }
}

/// What was drawn for a kernel's inputs, by name: numbers that the kernel's types hold exactly.
#[derive(Clone, Debug)]
pub struct Inputs {
    pub(crate) names: Vec<String>,
    pub(crate) data: Vec<Vec<f64>>,
}

impl Inputs {
    /// An input as `f32`.
    pub fn f32(&self, name: &str) -> Vec<f32> {
        self[name].iter().map(|v| *v as f32).collect()
    }

    /// An input as `u32`.
    pub fn u32(&self, name: &str) -> Vec<u32> {
        self[name].iter().map(|v| *v as u32).collect()
    }

    /// An input as `i32`.
    pub fn i32(&self, name: &str) -> Vec<i32> {
        self[name].iter().map(|v| *v as i32).collect()
    }
}

impl Index<&str> for Inputs {
    type Output = [f64];

    #[track_caller]
    fn index(&self, name: &str) -> &[f64] {
        let i = self.names.iter().position(|n| n == name);
        &self.data[i.unwrap_or_else(|| panic!("no input `{name}` among {:?}", self.names))]
    }
}

/// What a kernel should write: one array for each output, in the order of their declaration.
#[derive(Clone, Debug)]
pub struct Outputs(pub(crate) Vec<Vec<f64>>);

macro_rules! outputs {
    ($($number:ty),*) => {$(
        impl From<Vec<$number>> for Outputs {
            fn from(v: Vec<$number>) -> Outputs {
                Outputs(vec![v.into_iter().map(f64::from).collect()])
            }
        }

        impl<const N: usize> From<[Vec<$number>; N]> for Outputs {
            fn from(all: [Vec<$number>; N]) -> Outputs {
                Outputs(all.into_iter().map(|v| v.into_iter().map(f64::from).collect()).collect())
            }
        }
    )*};
}

outputs!(f64, f32, u32, i32);

impl From<Vec<Vec<f64>>> for Outputs {
    fn from(all: Vec<Vec<f64>>) -> Outputs {
        Outputs(all)
    }
}

/// A kernel's backward pass: another kernel, which binds by the same names what forward binds, the gradients of forward's
/// outputs, and those of its inputs that it writes.
#[derive(Clone)]
pub struct Backward {
    pub(crate) source: String,
    pub(crate) roles: Vec<(String, Role)>,
    pub(crate) workgroups: Rc<dyn Fn(&Sizes) -> [usize; 3]>,
    pub(crate) tolerance: Rc<dyn Fn(&Sizes) -> f64>,
}

impl Backward {
    /// From WGSL with one compute entry point. One workgroup, and the tolerance of a few roundings, until told otherwise.
    pub fn new(source: &str) -> Backward {
        Backward {
            source: source.into(),
            roles: Vec::new(),
            workgroups: Rc::new(|_| [1, 1, 1]),
            tolerance: Rc::new(|_| 16.0),
        }
    }

    /// The variable `name` holds the gradient of the output `of`.
    #[must_use]
    pub fn upstream(mut self, name: &str, of: &str) -> Backward {
        self.roles.push((name.into(), Role::Upstream { of: of.into() }));
        self
    }

    /// The kernel writes the gradient of the input `of` into the variable `name`.
    #[must_use]
    pub fn gradient(mut self, name: &str, of: &str) -> Backward {
        self.roles.push((name.into(), Role::Gradient { of: of.into() }));
        self
    }

    /// How many workgroups to launch.
    #[must_use]
    pub fn workgroups(mut self, count: impl Fn(&Sizes) -> [usize; 3] + 'static) -> Backward {
        self.workgroups = Rc::new(count);
        self
    }

    /// The error allowed, in roundings of the gradient's type.
    #[must_use]
    pub fn tolerance(mut self, roundings: impl Fn(&Sizes) -> f64 + 'static) -> Backward {
        self.tolerance = Rc::new(roundings);
        self
    }
}

/// A WGSL kernel, declared once for every check. See the [crate's example](crate).
#[derive(Clone)]
pub struct Kernel {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) dims: Vec<Dim>,
    pub(crate) roles: Vec<(String, Role)>,
    pub(crate) workgroups: Rc<dyn Fn(&Sizes) -> [usize; 3]>,
    pub(crate) reference: Option<Rc<dyn Fn(&Sizes, &Inputs) -> Outputs>>,
    pub(crate) tolerance: Rc<dyn Fn(&Sizes) -> f64>,
    pub(crate) backward: Option<Backward>,
    pub(crate) waived: Vec<(Check, String)>,
    pub(crate) trials: u32,
    pub(crate) limits: wgpu::Limits,
    pub(crate) budget: u64,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({})", self.name)
    }
}

impl Kernel {
    /// From WGSL with one compute entry point. Variables are bound by the names that they have there.
    pub fn new(name: &str, source: &str) -> Kernel {
        Kernel {
            name: name.into(),
            source: source.into(),
            dims: Vec::new(),
            roles: Vec::new(),
            workgroups: Rc::new(|_| [1, 1, 1]),
            reference: None,
            tolerance: Rc::new(|_| 4.0),
            backward: None,
            waived: Vec::new(),
            trials: 32,
            limits: wgpu::Limits::default(),
            budget: 20_000_000,
        }
    }

    /// A size to draw, from `low` to `high`: mostly 1, primes and powers of two ± 1.
    #[must_use]
    pub fn dim(self, name: &'static str, low: usize, high: usize) -> Kernel {
        self.dim_of(Dim::range(name, low, high))
    }

    /// The same for any [`Dim`].
    #[must_use]
    pub fn dim_of(mut self, dim: Dim) -> Kernel {
        self.dims.push(dim);
        self
    }

    fn role(mut self, name: &str, role: Role) -> Kernel {
        self.roles.push((name.into(), role));
        self
    }

    /// A `var<uniform>`, as words; what is missing to the end of the struct is padding.
    #[must_use]
    pub fn uniform(self, name: &str, words: impl Fn(&Sizes) -> Vec<Word> + 'static) -> Kernel {
        self.role(name, Role::Uniform(Rc::new(words)))
    }

    /// A `var<storage>` to read, of `len` scalars.
    #[must_use]
    pub fn input(self, name: &str, values: Values, len: impl Fn(&Sizes) -> usize + 'static) -> Kernel {
        self.role(name, Role::Input { values, len: Rc::new(len) })
    }

    /// A `var<storage, read_write>` of `len` scalars that the kernel writes, all of it, and reads nothing from before.
    #[must_use]
    pub fn output(self, name: &str, len: impl Fn(&Sizes) -> usize + 'static) -> Kernel {
        self.role(name, Role::Output { len: Rc::new(len) })
    }

    /// A `var<storage, read_write>` that is changed in place: both an input and an output.
    #[must_use]
    pub fn in_out(self, name: &str, values: Values, len: impl Fn(&Sizes) -> usize + 'static) -> Kernel {
        self.role(name, Role::InOut { values, len: Rc::new(len) })
    }

    /// A `var<storage, read_write>` whose contents matter to nobody, before or after.
    #[must_use]
    pub fn scratch(self, name: &str, len: impl Fn(&Sizes) -> usize + 'static) -> Kernel {
        self.role(name, Role::Scratch { len: Rc::new(len) })
    }

    /// How many workgroups to launch.
    #[must_use]
    pub fn workgroups(mut self, count: impl Fn(&Sizes) -> [usize; 3] + 'static) -> Kernel {
        self.workgroups = Rc::new(count);
        self
    }

    /// What the kernel computes, in plain Rust; in f64 where it can be, so that the difference is the kernel's alone.
    #[must_use]
    pub fn reference<R: Into<Outputs>>(mut self, f: impl Fn(&Sizes, &Inputs) -> R + 'static) -> Kernel {
        self.reference = Some(Rc::new(move |s, i| f(s, i).into()));
        self
    }

    /// The error allowed as a function of the work: in roundings (2⁻²⁴ for f32, 2⁻¹¹ for f16) of the output's largest
    /// element. A sum of n terms needs n at most; √n is what chance leaves. 4 until told otherwise; integers match exactly.
    #[must_use]
    pub fn tolerance(mut self, roundings: impl Fn(&Sizes) -> f64 + 'static) -> Kernel {
        self.tolerance = Rc::new(roundings);
        self
    }

    /// The kernel's backward pass, to be held against central differences of the reference.
    #[must_use]
    pub fn backward(mut self, backward: Backward) -> Kernel {
        self.backward = Some(backward);
        self
    }

    /// Leaves a check out, and says why: the reason stands in every report.
    #[must_use]
    pub fn waive(mut self, check: Check, why: &str) -> Kernel {
        self.waived.push((check, why.into()));
        self
    }

    /// How many sizes and inputs each check draws; 32 until told otherwise.
    #[must_use]
    pub fn trials(mut self, trials: u32) -> Kernel {
        self.trials = trials;
        self
    }

    /// The limits to stay within; WebGPU's defaults until told otherwise.
    #[must_use]
    pub fn limits(mut self, limits: wgpu::Limits) -> Kernel {
        self.limits = limits;
        self
    }

    /// All checks, each until its first failure, shrunk; on the device that the environment chooses (see
    /// [`Device::open`]).
    ///
    /// # Panics
    /// Where the declaration does not fit the kernel.
    #[track_caller]
    pub fn examine(&self) -> Examination {
        self.examine_on(&Device::open())
    }

    /// All checks on a device of yours.
    ///
    /// # Panics
    /// Where the declaration does not fit the kernel.
    #[track_caller]
    pub fn examine_on(&self, device: &Device) -> Examination {
        checks::examine(self, device, &Check::ALL)
    }

    /// All checks, for a test.
    ///
    /// # Panics
    /// Where one fails: with the smallest sizes and inputs that fail, the first place where they do, and what stands
    /// beside it.
    #[track_caller]
    pub fn check(&self) {
        self.check_on(&Device::open());
    }

    /// The same on a device of yours.
    ///
    /// # Panics
    /// Where a check fails.
    #[track_caller]
    pub fn check_on(&self, device: &Device) {
        let examination = self.examine_on(device);
        assert!(examination.holds(), "\n{examination}");
    }

    /// One check alone, on the device that the environment chooses.
    ///
    /// # Panics
    /// Where the declaration does not fit the kernel.
    #[track_caller]
    pub fn verdict(&self, check: Check) -> Verdict {
        checks::examine(self, &Device::open(), &[check]).verdicts.remove(0).1
    }
}
