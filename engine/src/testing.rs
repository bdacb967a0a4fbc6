//! Holds kernels against their f64 references: ours, and yours.
//!
//! A [`Case`] says how to draw inputs, how to run the op and what it means. From it follow [`check`] (values),
//! [`check_gradients`] (the kernel's backward pass against central differences of the reference) and
//! [`check_determinism`]. Sizes are drawn awkwardly: 1, primes, powers of two ± 1.
//!
//! ```no_run
//! use rambutan_engine::{Gpu, GpuOptions, ops, testing::{self, Sizes}};
//! let gpu = Gpu::new(GpuOptions::default())?;
//! for case in ops::cases() {
//!     let report = testing::check(&gpu, &case, &case.draw(7), 7).expect("within its bound");
//!     println!("{} {} of {}", case.stem, report.worst, report.allowed);
//! }
//! # Ok::<(), rambutan_engine::Error>(())
//! ```

use std::{
    fmt,
    ops::{Index, Range},
};

use half::f16;

#[cfg(not(target_arch = "wasm32"))]
mod spot;

#[cfg(not(target_arch = "wasm32"))]
pub use spot::{Spot, check_spot};

use crate::{DType, Gpu, Tensor, autograd, ops, reference::Array};

/// One size of a case: a range, or a few values.
#[derive(Clone, Copy, Debug)]
pub struct Dim {
    /// Its name.
    pub name: &'static str,
    values: Values,
}

#[derive(Clone, Copy, Debug)]
enum Values {
    Range(usize, usize),
    OneOf(&'static [usize]),
}

impl Dim {
    /// Any size from `low` to `high`, both included.
    pub const fn range(name: &'static str, low: usize, high: usize) -> Dim {
        Dim { name, values: Values::Range(low, high) }
    }

    /// One of a few sizes, the simplest first.
    pub const fn one_of(name: &'static str, values: &'static [usize]) -> Dim {
        Dim { name, values: Values::OneOf(values) }
    }

    /// The smallest or simplest size.
    pub fn simplest(&self) -> usize {
        match self.values {
            Values::Range(low, _) => low,
            Values::OneOf(v) => v[0],
        }
    }

    /// The sizes worth trying first, the simplest first: 1, primes, powers of two ± 1.
    pub fn awkward(&self) -> Vec<usize> {
        match self.values {
            Values::Range(low, high) => {
                AWKWARD.iter().copied().filter(|v| (low..=high).contains(v)).collect()
            }
            Values::OneOf(v) => v.to_vec(),
        }
    }

    /// Whether it takes any size between two.
    pub fn is_range(&self) -> bool {
        matches!(self.values, Values::Range(..))
    }

    /// The largest size.
    pub fn largest(&self) -> usize {
        match self.values {
            Values::Range(_, high) => high,
            Values::OneOf(v) => v.iter().copied().max().unwrap_or(0),
        }
    }

    /// The `pick`-th of the sizes worth trying: the awkward ones for small picks, any for large ones.
    pub fn pick(&self, pick: u64) -> usize {
        match self.values {
            Values::OneOf(v) => v[(pick % v.len() as u64) as usize],
            Values::Range(low, high) => {
                let awkward = self.awkward();
                let span = (high - low + 1) as u64;
                match pick % 3 {
                    0 | 1 if !awkward.is_empty() => awkward[(pick / 3 % awkward.len() as u64) as usize],
                    _ => low + (pick / 3 % span) as usize,
                }
            }
        }
    }
}

const AWKWARD: [usize; 26] = [
    1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 32, 33, 61, 63, 64, 65, 97, 127, 128, 129, 191, 255, 256, 257, 509, 513,
];

/// The sizes of one run, by name or in order.
#[derive(Clone, Debug)]
pub struct Sizes {
    names: Vec<&'static str>,
    /// In the order of the case's dims.
    pub values: Vec<usize>,
}

impl Sizes {
    /// These sizes of these dims.
    ///
    /// # Panics
    /// Where there are more or fewer sizes than dims.
    #[track_caller]
    pub fn of(dims: &[Dim], values: Vec<usize>) -> Sizes {
        assert_eq!(values.len(), dims.len(), "one size a dim");
        Sizes { names: dims.iter().map(|d| d.name).collect(), values }
    }

    /// All sizes in order, for patterns: `let [rows, columns] = s.get();`.
    ///
    /// # Panics
    /// Where the case has another number of dims.
    #[track_caller]
    pub fn get<const N: usize>(&self) -> [usize; N] {
        self.values
            .as_slice()
            .try_into()
            .unwrap_or_else(|_| panic!("the case has {} dims", self.values.len()))
    }
}

impl Index<&str> for Sizes {
    type Output = usize;

    fn index(&self, name: &str) -> &usize {
        let i = self.names.iter().position(|n| *n == name);
        &self.values[i.unwrap_or_else(|| panic!("no dim `{name}` among {:?}", self.names))]
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.names.iter().zip(&self.values).map(|(n, v)| format!("{n}={v}")).collect();
        f.write_str(&parts.join(" "))
    }
}

/// One input of a case.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name in reports.
    pub name: &'static str,
    /// Its values, which `dtype` holds exactly.
    pub array: Array,
    /// The type it is uploaded as.
    pub dtype: DType,
    /// Whether gradients flow to it.
    pub differentiable: bool,
}

impl Input {
    /// An f32 input without gradient; values are rounded to f32.
    pub fn new(name: &'static str, array: Array) -> Input {
        Input { name, array: array.map(|v| f64::from(*v as f32)), dtype: DType::F32, differentiable: false }
    }

    /// The same with a gradient to check.
    pub fn grad(self) -> Input {
        Input { differentiable: true, ..self }
    }

    /// The same as another type; floats are rounded to it.
    pub fn of(self, dtype: DType) -> Input {
        let array =
            if dtype == DType::F16 { self.array.map(|v| f16::from_f64(*v).to_f64()) } else { self.array };
        Input { array, dtype, ..self }
    }

    /// Uploads it; what repeats is uploaded once and repeated there.
    pub fn tensor(&self, gpu: &Gpu) -> Tensor {
        let data = &self.array.data;
        let whole = [data.len()];
        let shape = if self.array.repeats() { &whole } else { self.array.shape.as_slice() };
        let tensor = match self.dtype {
            DType::F32 => Tensor::from_slice(gpu, &data.iter().map(|v| *v as f32).collect::<Vec<_>>(), shape),
            DType::F16 => {
                Tensor::from_slice(gpu, &data.iter().map(|v| f16::from_f64(*v)).collect::<Vec<_>>(), shape)
            }
            DType::I32 => Tensor::from_slice(gpu, &data.iter().map(|v| *v as i32).collect::<Vec<_>>(), shape),
            DType::U32 => Tensor::from_slice(gpu, &data.iter().map(|v| *v as u32).collect::<Vec<_>>(), shape),
        };
        let mut tensor = tensor.expect("an array fills its shape");
        if self.array.repeats() {
            tensor = ops::repeat(&tensor, self.array.shape.as_slice());
        }
        if self.differentiable { tensor.requires_grad() } else { tensor }
    }
}

/// Draws inputs; the same seed draws the same.
#[derive(Clone, Debug)]
pub struct Draw {
    state: u64,
    /// The most elements of an array that are drawn; they repeat beyond.
    most: usize,
}

/// Elements that a quick draw repeats: an even number, for whole words of 16-bit ones, and twice a prime, so that rows
/// of hardly any length begin alike.
const BLOCK: usize = 2 * 65_521;

impl Draw {
    /// From a seed.
    pub fn new(seed: u64) -> Draw {
        Draw { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66, most: usize::MAX }
    }

    /// The same for sizes worth timing: of a large array some 10⁵ elements are drawn, and repeat.
    pub fn quick(seed: u64) -> Draw {
        Draw { most: BLOCK, ..Draw::new(seed) }
    }

    fn array(&mut self, shape: &[usize], mut one: impl FnMut(&mut Draw) -> f64) -> Array {
        let drawn = shape.iter().product::<usize>().min(self.most);
        Array::repeating(shape, (0..drawn).map(|_| one(self)).collect())
    }

    /// 64 random bits (SplitMix64; Steele et al. 2014).
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n.max(1) as u64) as usize
    }

    /// From 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One standard normal value (Box & Muller 1958).
    pub fn gauss(&mut self) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Standard normal values, now and then a zero, a large or a tiny one: what real activations hold.
    pub fn normal(&mut self, shape: &[usize]) -> Array {
        let odd = self.bits().is_multiple_of(4);
        self.array(shape, |draw| {
            let v = draw.gauss();
            match if odd { draw.bits() % 97 } else { 97 } {
                0 => 0.0,
                1 => v * 30.0,
                2 => v * 1e-30,
                _ => v,
            }
        })
    }

    /// Uniform values.
    pub fn uniform(&mut self, shape: &[usize], low: f64, high: f64) -> Array {
        self.array(shape, |draw| low + (high - low) * draw.unit())
    }

    /// Integers from `low` to below `high`.
    pub fn integers(&mut self, shape: &[usize], low: i64, high: i64) -> Array {
        self.array(shape, |draw| (low + draw.below((high - low) as usize) as i64) as f64)
    }
}

/// The bytes an op must move and the operations it must do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Each input read once, each output written once, all of four bytes an element.
    pub bytes: usize,
    /// Floating-point operations.
    pub flops: usize,
}

/// What an op is, for every test at once.
#[derive(Clone)]
pub struct Case {
    /// The stem of the op, perhaps with a variant: `matmul`, `matmul.transposed`.
    pub stem: &'static str,
    /// The sizes to draw.
    pub dims: Vec<Dim>,
    /// Draws inputs of these sizes.
    pub inputs: fn(&Sizes, &mut Draw) -> Vec<Input>,
    /// The op.
    pub run: fn(&Sizes, &[Tensor]) -> Vec<Tensor>,
    /// Its definition.
    pub reference: fn(&Sizes, &[Array]) -> Vec<Array>,
    /// The error allowed, in units of the output type's rounding (2⁻²⁴, 2⁻¹¹) relative to the output's norm;
    /// see [`Case::in_half`] for what half precision allows.
    pub error: fn(&Sizes) -> f64,
    /// The same for gradients; by default four times `error`.
    pub error_grad: Option<fn(&Sizes) -> f64>,
    /// What the op must move and do.
    pub cost: fn(&Sizes) -> Cost,
    /// The same for its backward pass; by default half as many bytes again (the result's gradient comes in, one for each
    /// input goes out) and twice the operations.
    pub cost_backward: Option<fn(&Sizes) -> Cost>,
    /// A part that stands for the whole where the reference takes too long for all of it.
    pub part: Option<fn(&Sizes, &mut Draw) -> Part>,
    /// Sizes worth timing.
    pub bench: &'static [&'static [usize]],
    /// Whether this adapter has what its kernels need beside 16-bit floats and bindings: see [`Case::runs`].
    pub runs_on: fn(&Gpu) -> bool,
    /// Whether its sizes exceed the smallest bindings: one sequence, say, or one weight must fit.
    pub large: bool,
    /// What is f16 here and f32 in `inputs`, see [`Case::in_half`].
    pub half: Option<Half>,
}

/// A range of each axis.
pub type Cut = Vec<Range<usize>>;

/// A part of a case's work that is a case by itself: of other sizes, on cuts of the inputs, giving cuts of the outputs.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its sizes.
    pub sizes: Vec<usize>,
    /// What it reads of each input.
    pub inputs: Vec<Cut>,
    /// What each of its outputs is of the whole's.
    pub outputs: Vec<Share>,
}

/// What a part's output is of the whole's.
#[derive(Clone, Debug)]
pub enum Share {
    /// These elements.
    Cut(Cut),
    /// A summand: the gradient that flows back is that of the whole.
    Summand,
    /// Nothing that the whole returns.
    Nothing,
}

/// `count` neighbours among `all`, anywhere.
pub fn some(draw: &mut Draw, all: usize, count: usize) -> Range<usize> {
    let count = count.min(all);
    let first = draw.below(all - count + 1);
    first..first + count
}

/// How a case differs in half precision.
#[derive(Clone, Copy, Debug)]
pub struct Half {
    /// The inputs that are f16.
    pub inputs: &'static [&'static str],
    /// Roundings to f16 on the way to an f16 result, its own included. Results in f32 have none.
    pub roundings: f64,
}

/// Bytes of a binding that large cases fit.
const LARGE: u64 = 1 << 20;

impl Case {
    /// A case to fill in.
    pub fn new(stem: &'static str) -> Case {
        Case {
            stem,
            dims: Vec::new(),
            inputs: |_, _| Vec::new(),
            run: |_, _| Vec::new(),
            reference: |_, _| Vec::new(),
            error: |_| 0.0,
            error_grad: None,
            cost: |_| Cost::default(),
            cost_backward: None,
            part: None,
            bench: &[],
            runs_on: |_| true,
            large: false,
            half: None,
        }
    }

    /// The same with these inputs in f16, where the adapter has it. What is still f32 is held to the same error, what is
    /// f16 to that and `roundings` to f16.
    pub fn in_half(&self, stem: &'static str, inputs: &'static [&'static str], roundings: f64) -> Case {
        let half = Some(Half { inputs, roundings });
        Case { stem, half, bench: &[], ..self.clone() }
    }

    /// Whether an adapter can run it.
    pub fn runs(&self, gpu: &Gpu) -> bool {
        let c = gpu.capabilities();
        (c.f16 || self.half.is_none()) && (c.max_binding >= LARGE || !self.large) && (self.runs_on)(gpu)
    }

    /// Draws inputs of these sizes.
    ///
    /// # Panics
    /// Where the case in half precision names an input that is not there.
    pub fn draw_inputs(&self, sizes: &Sizes, draw: &mut Draw) -> Vec<Input> {
        let mut inputs = (self.inputs)(sizes, draw);
        for name in self.half.iter().flat_map(|h| h.inputs) {
            let input = inputs.iter_mut().find(|i| i.name == *name);
            let input = input.unwrap_or_else(|| panic!("{}: no input `{name}`", self.stem));
            *input = input.clone().of(DType::F16);
        }
        inputs
    }

    /// The relative error allowed for a result of type `dtype` where `units` roundings are.
    fn allowed(&self, units: f64, dtype: DType) -> f64 {
        match self.half {
            Some(half) if dtype == DType::F16 => {
                half.roundings * rounding(DType::F16) + units * rounding(DType::F32)
            }
            _ => units * rounding(dtype),
        }
    }

    /// What the op must move and do, forward and backward, where its tensors hold `bytes` of the four an element that
    /// [`Cost`] counts.
    pub fn costs(&self, sizes: &Sizes, bytes: f64) -> [Cost; 2] {
        let forward = (self.cost)(sizes);
        let backward = self.cost_backward.map_or_else(
            || Cost { bytes: forward.bytes * 3 / 2, flops: forward.flops * 2 },
            |cost| cost(sizes),
        );
        [forward, backward].map(|c| Cost { bytes: (c.bytes as f64 * bytes / 4.0) as usize, ..c })
    }

    /// Sizes from picks, one a dim.
    pub fn sizes(&self, picks: &[u64]) -> Sizes {
        let values = self.dims.iter().zip(picks).map(|(d, p)| d.pick(*p)).collect();
        self.exactly(values)
    }

    /// These sizes.
    pub fn exactly(&self, values: Vec<usize>) -> Sizes {
        Sizes::of(&self.dims, values)
    }

    /// Sizes drawn from a seed.
    pub fn draw(&self, seed: u64) -> Sizes {
        let mut draw = Draw::new(seed ^ 0xA11CE);
        self.sizes(&self.dims.iter().map(|_| draw.bits() >> 8).collect::<Vec<_>>())
    }
}

/// The worst error of a check, and the largest allowed, relative.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// The worst seen.
    pub worst: f64,
    /// What the case allows.
    pub allowed: f64,
}

/// Why a check failed.
#[derive(Clone, Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

fn device_error(case: &Case, sizes: &Sizes, e: &crate::Error) -> Failure {
    Failure(format!("{} [{sizes}]: {e}", case.stem))
}

/// The elements of a tensor as f64.
///
/// # Errors
/// Whatever went wrong on the device.
#[cfg(not(target_arch = "wasm32"))]
pub fn read(tensor: &Tensor) -> crate::Result<Array> {
    pollster::block_on(elements(tensor))
}

/// [`read`] for where waiting is impossible.
///
/// # Errors
/// As [`read`].
pub async fn elements(tensor: &Tensor) -> crate::Result<Array> {
    let data = match tensor.dtype() {
        DType::F32 => tensor.read::<f32>().await?.into_iter().map(f64::from).collect(),
        DType::F16 => tensor.read::<f16>().await?.into_iter().map(f64::from).collect(),
        DType::I32 => tensor.read::<i32>().await?.into_iter().map(f64::from).collect(),
        DType::U32 => tensor.read::<u32>().await?.into_iter().map(f64::from).collect(),
    };
    Ok(Array::new(tensor.shape(), data))
}

/// Rounding of one operation, relative.
fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2f64.powi(-24),
        DType::F16 => 2f64.powi(-11),
        DType::I32 | DType::U32 => 0.0,
    }
}

/// The error of `got` against `expected`: relative in the Frobenius norm, and for each element relative to the largest
/// (a quarter of it counts, since one element may be worse than all). Infinite where not finite or shaped otherwise.
pub fn error_of(got: &Array, expected: &Array) -> f64 {
    if got.len() != expected.len() {
        return f64::INFINITY;
    }
    let (mut difference, mut norm, mut worst, mut largest) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
    for (g, e) in got.data.iter().zip(&expected.data) {
        if !g.is_finite() {
            return f64::INFINITY;
        }
        difference += (g - e) * (g - e);
        norm += e * e;
        worst = worst.max((g - e).abs());
        largest = largest.max(e.abs());
    }
    if norm == 0.0 {
        return if difference == 0.0 { 0.0 } else { f64::INFINITY };
    }
    (difference / norm).sqrt().max(worst / largest / 4.0)
}

async fn compare(
    what: &str,
    got: &Tensor,
    expected: &Array,
    allowed: f64,
    report: &mut Report,
) -> Result<(), String> {
    if got.shape() != expected.shape.as_slice() {
        return Err(format!("{what}: shape {:?}, expected {:?}", got.shape(), expected.shape));
    }
    let got_array = elements(got).await.map_err(|e| e.to_string())?;
    compare_values(what, &got_array, got.dtype(), expected, allowed, report)
}

fn compare_values(
    what: &str,
    got_array: &Array,
    dtype: DType,
    expected: &Array,
    allowed: f64,
    report: &mut Report,
) -> Result<(), String> {
    if !dtype.is_float() {
        return match got_array.data.iter().zip(&expected.data).position(|(g, e)| g != e) {
            None => Ok(()),
            Some(i) => Err(format!(
                "{what}[{i}]: {} instead of {} (integers match exactly)",
                got_array.data[i], expected.data[i]
            )),
        };
    }
    let error = error_of(got_array, expected);
    if error > report.worst {
        *report = Report { worst: error, allowed };
    }
    if error <= allowed {
        return Ok(());
    }
    let furthest = |i: &usize| (got_array.data[*i] - expected.data[*i]).abs();
    let i = (0..got_array.len()).max_by(|a, b| furthest(a).total_cmp(&furthest(b))).unwrap_or(0);
    Err(format!(
        "{what}: error {error:.2e} exceeds {allowed:.2e}; worst at [{i}]: {} instead of {}",
        got_array.data[i], expected.data[i]
    ))
}

/// Runs the op and holds its outputs against the reference.
///
/// # Errors
/// What differs, by how much, where.
#[cfg(not(target_arch = "wasm32"))]
pub fn check(gpu: &Gpu, case: &Case, sizes: &Sizes, seed: u64) -> Result<Report, Failure> {
    pollster::block_on(values(gpu, case, sizes, seed))
}

/// [`check`] for where waiting is impossible.
///
/// # Errors
/// As [`check`].
pub async fn values(gpu: &Gpu, case: &Case, sizes: &Sizes, seed: u64) -> Result<Report, Failure> {
    let inputs = case.draw_inputs(sizes, &mut Draw::new(seed));
    let tensors: Vec<Tensor> = inputs.iter().map(|i| i.tensor(gpu)).collect();
    let outputs = (case.run)(sizes, &tensors);
    let expected = (case.reference)(sizes, &inputs.into_iter().map(|i| i.array).collect::<Vec<_>>());
    let fail = |e: String| Failure(format!("{} [{sizes}] seed {seed}: {e}", case.stem));
    if outputs.len() != expected.len() {
        return Err(fail(format!("{} outputs, the reference has {}", outputs.len(), expected.len())));
    }
    let mut report = Report::default();
    for (i, (got, expected)) in outputs.iter().zip(&expected).enumerate() {
        let allowed = case.allowed((case.error)(sizes), got.dtype());
        compare(&format!("output {i}"), got, expected, allowed, &mut report).await.map_err(fail)?;
    }
    Ok(report)
}

/// Runs the op backward from a random direction and holds every gradient against central differences of the
/// reference: along random directions, and for single elements (all of them where they are few).
///
/// # Errors
/// What differs, by how much, where.
#[cfg(not(target_arch = "wasm32"))]
pub fn check_gradients(gpu: &Gpu, case: &Case, sizes: &Sizes, seed: u64) -> Result<Report, Failure> {
    pollster::block_on(gradients(gpu, case, sizes, seed))
}

/// [`check_gradients`] for where waiting is impossible.
///
/// # Errors
/// As [`check_gradients`].
pub async fn gradients(gpu: &Gpu, case: &Case, sizes: &Sizes, seed: u64) -> Result<Report, Failure> {
    let mut draw = Draw::new(seed);
    let inputs = case.draw_inputs(sizes, &mut draw);
    let mut report = Report::default();
    if !inputs.iter().any(|i| i.differentiable) {
        return Ok(report);
    }
    let fail = |e: String| Failure(format!("{} [{sizes}] seed {seed}: {e}", case.stem));
    let tensors: Vec<Tensor> = inputs.iter().map(|i| i.tensor(gpu)).collect();
    let outputs = (case.run)(sizes, &tensors);
    let arrays: Vec<Array> = inputs.iter().map(|i| i.array.clone()).collect();
    let expected = (case.reference)(sizes, &arrays);
    // The loss is Σ ⟨output, direction⟩ over float outputs.
    let (mut directions, mut seeds) = (Vec::new(), Vec::new());
    for (y, e) in outputs.iter().zip(&expected) {
        let float = y.dtype().is_float() && y.needs_grad();
        let direction = direction(y, &e.shape, &mut draw);
        if float {
            seeds.push((y, direction.tensor(gpu)));
        }
        directions.push(if float { direction.array } else { Array::zeros(&e.shape) });
    }
    autograd::backward(&seeds.iter().map(|(y, dy)| (*y, dy)).collect::<Vec<_>>());
    let reference = |arrays: &[Array]| (case.reference)(sizes, arrays);
    let loss = Loss { reference: &reference, arrays, expected, directions };
    let units = case.error_grad.map_or_else(|| 4.0 * (case.error)(sizes) + 8.0, |f| f(sizes));
    for (i, (input, tensor)) in inputs.iter().zip(&tensors).enumerate().filter(|(_, (i, _))| i.differentiable)
    {
        let grad = arrived(input, tensor).map_err(fail)?;
        let got = elements(&grad).await.map_err(|e| device_error(case, sizes, &e))?;
        let n = got.len();
        let elements: Vec<usize> =
            if n <= 48 { (0..n).collect() } else { (0..12).map(|_| draw.below(n)).collect() };
        loss.hold(i, input.name, &got, case.allowed(units, input.dtype), &elements, &mut draw, &mut report)
            .map_err(fail)?;
    }
    gpu.check().map_err(|e| device_error(case, sizes, &e))?;
    Ok(report)
}

/// A gradient of the result, of its type, to go back from it.
fn direction(y: &Tensor, shape: &[usize], draw: &mut Draw) -> Input {
    let float = y.dtype().is_float() && y.needs_grad();
    Input::new("dy", draw.uniform(shape, -1.0, 1.0)).of(if float { y.dtype() } else { DType::F32 })
}

/// The gradient that has arrived at an input.
fn arrived(input: &Input, tensor: &Tensor) -> Result<Tensor, String> {
    let grad = tensor.grad().ok_or_else(|| format!("{}: no gradient arrived", input.name))?;
    if grad.dtype() != input.dtype {
        return Err(format!("d{}: {} for an input of {}", input.name, grad.dtype(), input.dtype));
    }
    if grad.len() != tensor.len() {
        let (got, shape) = (grad.shape(), tensor.shape());
        return Err(format!("d{}: shape {got:?} for an input of {shape:?}", input.name));
    }
    Ok(grad)
}

/// Σ ⟨output, direction⟩ of the reference, to be differentiated.
pub struct Loss<'a> {
    /// The definition.
    pub reference: &'a dyn Fn(&[Array]) -> Vec<Array>,
    /// Its inputs.
    pub arrays: Vec<Array>,
    /// What it makes of them.
    pub expected: Vec<Array>,
    /// A weight for each element of each output.
    pub directions: Vec<Array>,
}

impl Loss<'_> {
    /// The loss's terms, each through `f`, summed.
    fn sum(&self, outputs: &[Array], f: impl Fn(f64) -> f64) -> f64 {
        let pairs = outputs.iter().zip(&self.directions).flat_map(|(y, d)| y.data.iter().zip(&d.data));
        pairs.map(|(a, b)| f(a * b)).sum()
    }

    /// Holds the gradient of input `i` against central differences: for single elements, and along two random directions.
    ///
    /// # Errors
    /// What differs, by how much, where.
    pub fn hold(
        &self,
        i: usize,
        name: &str,
        got: &Array,
        allowed: f64,
        elements: &[usize],
        draw: &mut Draw,
        report: &mut Report,
    ) -> Result<(), String> {
        let n = got.len();
        let (base, terms) = (self.sum(&self.expected, |v| v).abs(), self.sum(&self.expected, f64::abs));
        // Where terms cancel (a normalised row of one column), errors are those of the terms: a gradient is expected
        // to be as large as the mean of |loss terms| over |input|.
        let rms = (self.arrays[i].data.iter().map(|v| v * v).sum::<f64>() / n.max(1) as f64).sqrt();
        let floor = terms / (rms * n.max(1) as f64).max(1e-30);
        let scale = got.data.iter().fold(floor, |m, v| m.max(v.abs()));
        let norm = got.data.iter().map(|v| v * v).sum::<f64>().sqrt().max(floor * (n as f64).sqrt());
        if !scale.is_finite() {
            return Err(format!("d{name}: not finite"));
        }
        let along = |direction: &dyn Fn(usize) -> f64| -> f64 {
            let size = 1e-5;
            let moved = |sign: f64| {
                let mut moved = self.arrays.clone();
                for (j, v) in moved[i].data.iter_mut().enumerate() {
                    *v += sign * size * direction(j);
                }
                self.sum(&(self.reference)(&moved), |v| v)
            };
            (moved(1.0) - moved(-1.0)) / (2.0 * size)
        };
        // What the difference itself cannot resolve: f64 rounding of the loss, and its third derivative.
        let noise = |expected: f64| base.max(1.0) * 1e-10 + expected.abs() * 1e-8;
        for &j in elements {
            let expected = along(&|k| f64::from(u8::from(k == j)));
            let error = ((got.data[j] - expected).abs() - noise(expected)).max(0.0) / scale.max(1e-30) / 4.0;
            report.note(error, allowed);
            if error > allowed && (got.data[j] - expected).abs() > noise(expected) {
                return Err(format!(
                    "d{name}[{j}]: {} instead of {expected} ({error:.2e} of {allowed:.2e})",
                    got.data[j]
                ));
            }
        }
        for _ in 0..2 {
            let mut signs = Draw::new(draw.bits());
            let signs: Vec<f64> = (0..n).map(|_| if signs.bits() & 1 == 0 { 1.0 } else { -1.0 }).collect();
            let expected = along(&|k| signs[k]);
            let seen: f64 = got.data.iter().zip(&signs).map(|(g, s)| g * s).sum();
            let error = ((seen - expected).abs() - noise(expected) * (n as f64).sqrt()).max(0.0)
                / norm.max(1e-30)
                / 4.0;
            report.note(error, allowed);
            if error > allowed {
                return Err(format!(
                    "d{name}: {seen} along a random direction instead of {expected} ({error:.2e} of {allowed:.2e})"
                ));
            }
        }
        Ok(())
    }
}

impl Report {
    fn note(&mut self, worst: f64, allowed: f64) {
        if worst >= self.worst {
            *self = Report { worst, allowed };
        }
    }
}

/// Runs the op forward and backward twice on the same inputs: every bit must agree.
///
/// # Errors
/// What differs.
#[cfg(not(target_arch = "wasm32"))]
pub fn check_determinism(gpu: &Gpu, case: &Case, sizes: &Sizes, seed: u64) -> Result<(), Failure> {
    pollster::block_on(determinism(gpu, case, sizes, seed))
}

/// [`check_determinism`] for where waiting is impossible.
///
/// # Errors
/// As [`check_determinism`].
pub async fn determinism(gpu: &Gpu, case: &Case, sizes: &Sizes, seed: u64) -> Result<(), Failure> {
    let once = async || -> crate::Result<Vec<Vec<u64>>> {
        let inputs = case.draw_inputs(sizes, &mut Draw::new(seed));
        let tensors: Vec<Tensor> = inputs.iter().map(|i| i.tensor(gpu)).collect();
        let outputs = (case.run)(sizes, &tensors);
        let mut all: Vec<Tensor> = outputs.iter().map(Tensor::detach).collect();
        let used: Vec<&Tensor> = outputs.iter().filter(|y| y.dtype().is_float() && y.needs_grad()).collect();
        let seeds: Vec<Tensor> = used.iter().map(|y| Tensor::full(gpu, y.shape(), y.dtype(), 0.7)).collect();
        autograd::backward(&used.into_iter().zip(&seeds).collect::<Vec<_>>());
        all.extend(tensors.iter().filter_map(Tensor::grad));
        let mut bits = Vec::new();
        for tensor in &all {
            bits.push(elements(tensor).await?.data.into_iter().map(f64::to_bits).collect());
        }
        Ok(bits)
    };
    let (a, b) = (
        once().await.map_err(|e| device_error(case, sizes, &e))?,
        once().await.map_err(|e| device_error(case, sizes, &e))?,
    );
    match a.iter().zip(&b).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(i) => {
            Err(Failure(format!("{} [{sizes}] seed {seed}: result {i} differs between two runs", case.stem)))
        }
    }
}

/// What a case came to on an adapter, over several sizes.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The sizes drawn.
    pub sizes: Vec<String>,
    /// The worst error, by what is allowed there.
    pub worst: Report,
    /// What did not hold.
    pub failures: Vec<String>,
}

/// Holds a case against its definition, for users to see whether their adapter computes what it should: values at `draws`
/// sizes, gradients and repeatability at the first two of them.
pub async fn selfcheck(gpu: &Gpu, case: &Case, draws: u64) -> Outcome {
    let mut outcome = Outcome::default();
    for seed in 1..=draws {
        let sizes = case.draw(seed);
        outcome.sizes.push(sizes.to_string());
        let mut results = vec![values(gpu, case, &sizes, seed).await];
        if seed <= 2 {
            results.push(gradients(gpu, case, &sizes, seed).await);
            let repeated = determinism(gpu, case, &sizes, seed).await;
            results.extend(repeated.err().map(Err));
        }
        let worst = &mut outcome.worst;
        for result in results {
            match result {
                // What has no bound (a case without gradients) says nothing about errors.
                Ok(r) if r.allowed > 0.0 && r.worst * worst.allowed >= worst.worst * r.allowed => *worst = r,
                Ok(_) => {}
                Err(e) => outcome.failures.push(e.to_string()),
            }
        }
    }
    outcome
}

/// Strategies for proptest.
#[cfg(feature = "proptest")]
pub mod strategy {
    use proptest::prelude::*;

    use super::{Case, Sizes};

    /// Sizes of a case with a seed for its inputs; shrinks towards the simplest sizes.
    pub fn sizes(case: &Case) -> impl Strategy<Value = (Sizes, u64)> + use<> {
        let case = case.clone();
        let picks = proptest::collection::vec(0u64..1 << 20, case.dims.len());
        (picks, 0u64..1 << 20).prop_map(move |(picks, seed)| (case.sizes(&picks), seed))
    }
}

/// A device shared by the tests of one process, chosen by the environment (see [`crate::GpuOptions::from_env`]), with checks on.
///
/// # Panics
/// Where there is no adapter: the tests need at least software Vulkan.
#[cfg(not(target_arch = "wasm32"))]
pub fn gpu() -> Gpu {
    static GPU: std::sync::OnceLock<Gpu> = std::sync::OnceLock::new();
    let open = || {
        let options = crate::GpuOptions { checked: true, ..crate::GpuOptions::from_env() };
        Gpu::new(options).unwrap_or_else(|e| panic!("{e}"))
    };
    GPU.get_or_init(open).clone()
}
