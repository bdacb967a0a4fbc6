//! The checks.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt::Write as _,
    rc::Rc,
};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use rambutan_engine::{
    reference::Array,
    testing::{Draw, Loss, Report, Sizes},
};

use crate::{
    Device, Examination, Kernel, Verdict,
    device::{Compiled, Dispatch, Traps},
    judges::{JUDGES, Opinion},
    kernel::{Inputs, Role},
    machine::{Finding, Kind, Launch, Order, Outcome, Stop},
    program::{Program, Variable},
    trial::{Trial, Trials},
};

/// What a kernel is examined for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Check {
    /// Whether compilers take it: naga, its SPIR-V, Metal and HLSL writers; spirv-val, dxc and Tint where they are installed.
    Compilers,
    /// Whether it stays within limits, WebGPU's defaults, at the largest sizes declared.
    Limits,
    /// Whether the device computes what the reference says; without one, what the abstract machine does, which knows one
    /// order: where any will do, declare a reference or waive this.
    Values,
    /// Whether the backward kernel agrees with central differences of the reference.
    Gradients,
    /// Whether the device computes the same bits again.
    Repeats,
    /// Whether what lies beyond the end of a buffer is left alone, and matters to no result (on the device).
    Guards,
    /// Whether what outputs and workgroup memory held before matters to no result (on the device).
    Poison,
    /// Whether every index lies inside of its array, and its arithmetic inside of 32 bits (on the abstract machine).
    Bounds,
    /// Whether workgroup memory and outputs are written before they are read, and outputs in whole (on the machine).
    Uninitialised,
    /// Whether barriers order all that invocations share, and all invocations reach them (on the machine).
    Races,
    /// Whether other orders of workgroups and invocations give the same bits (on the machine).
    Order,
}

impl Check {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Check::Compilers => "compilers",
            Check::Limits => "limits",
            Check::Values => "values",
            Check::Gradients => "gradients",
            Check::Repeats => "repeats",
            Check::Guards => "guards",
            Check::Poison => "poison",
            Check::Bounds => "bounds",
            Check::Uninitialised => "uninitialised",
            Check::Races => "races",
            Check::Order => "order",
        }
    }

    /// All, in the order of reports.
    pub const ALL: [Check; 11] = [
        Check::Compilers,
        Check::Limits,
        Check::Values,
        Check::Gradients,
        Check::Repeats,
        Check::Guards,
        Check::Poison,
        Check::Bounds,
        Check::Uninitialised,
        Check::Races,
        Check::Order,
    ];
}

/// Why a trial did not hold.
enum Fault {
    Failed(String),
    /// It could not be done.
    Skipped(String),
}

type Tried = Result<(), Fault>;

fn failed(text: impl Into<String>) -> Fault {
    Fault::Failed(text.into())
}

/// A kernel to be launched: forward or backward.
struct Subject<'a> {
    kernel: &'a Kernel,
    program: Program,
    backward: bool,
    /// Invocations of the device's smallest subgroups.
    subgroup: Option<u32>,
    /// What the machine made of a trial, in ascending order.
    interpreted: RefCell<HashMap<String, Rc<Result<Outcome, Stop>>>>,
}

/// A variable that a launch writes.
struct Written {
    variable: usize,
    /// Scalars.
    n: usize,
    /// Whether what it holds afterwards matters.
    result: bool,
    /// Whether it held something before.
    filled: bool,
}

/// A trial made ready to launch.
struct Loaded {
    sizes: Sizes,
    inputs: Inputs,
    dispatch: Dispatch,
    written: Vec<Written>,
    /// The gradient of each output.
    upstream: Vec<(String, Vec<f64>)>,
}

impl<'a> Subject<'a> {
    #[track_caller]
    fn new(kernel: &'a Kernel, program: Program, backward: bool, subgroup: Option<u32>) -> Subject<'a> {
        let what = if backward { "backward of " } else { "" };
        let subject = Subject { kernel, program, backward, subgroup, interpreted: RefCell::default() };
        let name = &kernel.name;
        for v in &subject.program.variables {
            let role = subject.role(&v.name).unwrap_or_else(|| {
                panic!("{what}{name}: the kernel binds `{}`, which is not declared: add .uniform, .input, .output, .in_out or .scratch", v.name)
            });
            let (fits, wants) = match role {
                Role::Uniform(_) => (v.uniform, "var<uniform>"),
                Role::Input { .. } | Role::Upstream { .. } => (!v.uniform, "var<storage>"),
                _ if backward && !matches!(role, Role::Gradient { .. } | Role::Scratch { .. }) => (true, ""),
                _ => (v.writable, "var<storage, read_write>"),
            };
            assert!(
                fits,
                "{what}{name}: `{}` is declared as something else than the kernel's: expected {wants}",
                v.name
            );
        }
        let known: Vec<&str> =
            subject.program.module.global_variables.iter().filter_map(|(_, v)| v.name.as_deref()).collect();
        let declared = if backward {
            kernel.backward.iter().flat_map(|b| &b.roles).collect::<Vec<_>>()
        } else {
            kernel.roles.iter().collect()
        };
        for (declared, _) in declared {
            assert!(
                known.contains(&declared.as_str()),
                "{what}{name}: no variable `{declared}` in the kernel: it has {}",
                known.join(", ")
            );
        }
        subject
    }

    fn role(&self, name: &str) -> Option<&Role> {
        let own = self.kernel.backward.iter().filter(|_| self.backward).flat_map(|b| &b.roles);
        own.chain(&self.kernel.roles).find(|(n, _)| n == name).map(|(_, role)| role)
    }

    fn forward_len(&self, name: &str, sizes: &Sizes) -> usize {
        let role = self.kernel.roles.iter().find(|(n, _)| n == name);
        let len = role.and_then(|(_, r)| r.len(sizes));
        len.unwrap_or_else(|| panic!("{}: no buffer `{name}` is declared", self.kernel.name))
    }

    fn workgroups(&self, sizes: &Sizes) -> [usize; 3] {
        match &self.kernel.backward {
            Some(b) if self.backward => (b.workgroups)(sizes),
            _ => (self.kernel.workgroups)(sizes),
        }
    }

    /// How many scalars a variable holds.
    fn len(&self, v: &Variable, sizes: &Sizes) -> usize {
        match self.role(&v.name) {
            Some(Role::Upstream { of } | Role::Gradient { of }) => self.forward_len(of, sizes),
            Some(role) => role.len(sizes).unwrap_or(0),
            None => 0,
        }
    }

    fn load(&self, trial: &Trial, forward: &Program) -> Loaded {
        let kernel = self.kernel;
        let sizes = trial.sizes();
        let inputs = trial.inputs(kernel, forward);
        let mut expected: Option<Vec<(String, Vec<f64>)>> = None;
        let (mut buffers, mut written, mut upstream) = (Vec::new(), Vec::new(), Vec::new());
        for (i, v) in self.program.variables.iter().enumerate() {
            let n = self.len(v, &sizes);
            if let Some(capacity) = v.capacity().filter(|c| !v.uniform && *c != n) {
                panic!("{}: `{}` holds {capacity} scalars, {n} are declared", kernel.name, v.name);
            }
            let blank = || Err(v.encode(&vec![0.0; n]).len());
            let mut write =
                |result: bool, filled: bool| written.push(Written { variable: i, n, result, filled });
            buffers.push(match self.role(&v.name).expect("checked before") {
                Role::Uniform(words) => {
                    let mut bytes: Vec<u8> = words(&sizes).iter().flat_map(|w| w.0.to_le_bytes()).collect();
                    let span = v.encode(&[]).len();
                    assert!(
                        bytes.len() <= span,
                        "{}: `{}` has {span} bytes, {} are declared",
                        kernel.name,
                        v.name,
                        bytes.len()
                    );
                    bytes.resize(span.next_multiple_of(16), 0);
                    Ok(bytes)
                }
                Role::Input { .. } => Ok(v.encode(&inputs[&v.name])),
                // What forward wrote is what its reference says.
                Role::Output { .. } | Role::InOut { .. } if self.backward => {
                    let all = expected.get_or_insert_with(|| self.expected(&sizes, &inputs));
                    let (_, data) = all.iter().find(|(name, _)| *name == v.name).expect("declared");
                    Ok(v.encode(data))
                }
                Role::InOut { .. } => {
                    write(true, true);
                    Ok(v.encode(&inputs[&v.name]))
                }
                Role::Output { .. } | Role::Gradient { .. } => {
                    write(true, false);
                    blank()
                }
                Role::Scratch { .. } => {
                    write(false, false);
                    blank()
                }
                Role::Upstream { of } => {
                    let mut draw = Draw::new(trial.seed ^ 0xD1);
                    let scalar = self.program.scalar(&v.name);
                    let dy: Vec<f64> =
                        (0..n).map(|_| self.program.rounded(scalar, draw.unit() * 2.0 - 1.0)).collect();
                    let bytes = v.encode(&dy);
                    upstream.push((of.clone(), dy));
                    Ok(bytes)
                }
            });
        }
        let workgroups = self.workgroups(&sizes).map(|n| n as u32);
        Loaded { sizes, inputs, dispatch: Dispatch { buffers, workgroups }, written, upstream }
    }

    /// What the reference says, by output.
    fn expected(&self, sizes: &Sizes, inputs: &Inputs) -> Vec<(String, Vec<f64>)> {
        let kernel = self.kernel;
        let Some(reference) = &kernel.reference else { return Vec::new() };
        let all = reference(sizes, inputs).0;
        let names: Vec<&String> =
            kernel.roles.iter().filter(|(_, r)| r.is_compared()).map(|(name, _)| name).collect();
        assert_eq!(
            all.len(),
            names.len(),
            "{}: the reference gives one array an output ({names:?})",
            kernel.name
        );
        for (name, data) in names.iter().zip(&all) {
            let n = self.forward_len(name, sizes);
            assert_eq!(
                data.len(),
                n,
                "{} [{sizes}]: the reference's `{name}` has {} elements",
                kernel.name,
                data.len()
            );
        }
        names.into_iter().cloned().zip(all).collect()
    }

    fn interpret(&self, loaded: &Loaded, order: Order) -> Result<Outcome, Stop> {
        let (mut buffers, mut holes, mut outputs) = (HashMap::new(), HashMap::new(), Vec::new());
        for (v, contents) in self.program.variables.iter().zip(&loaded.dispatch.buffers) {
            let poison = |n: &usize| Traps::PLAIN.poison.to_le_bytes().repeat(n.div_ceil(4));
            buffers.insert(v.handle, contents.as_ref().map_or_else(poison, Clone::clone));
        }
        for w in loaded.written.iter().filter(|w| !w.filled) {
            let v = &self.program.variables[w.variable];
            holes.insert(v.handle, vec![0..u32::MAX]);
            if w.result {
                outputs.push((v.handle, v.places(w.n)));
            }
        }
        let (workgroups, budget) = (loaded.dispatch.workgroups, self.kernel.budget);
        let subgroup = self.subgroup;
        let launch = Launch { buffers, holes, outputs, workgroups, order, subgroup, poison: 0, budget };
        self.program.interpret(launch)
    }

    fn interpreted(&self, trial: &Trial, loaded: &Loaded) -> Rc<Result<Outcome, Stop>> {
        let key = trial.key();
        if let Some(known) = self.interpreted.borrow().get(&key) {
            return known.clone();
        }
        let outcome = Rc::new(self.interpret(loaded, Order::Ascending));
        self.interpreted.borrow_mut().insert(key, outcome.clone());
        outcome
    }

    /// What the machine says that a kernel without reference computes.
    fn by_machine(&self, trial: &Trial, loaded: &Loaded) -> Result<Vec<(String, Vec<f64>)>, Fault> {
        let outcome = self.interpreted(trial, loaded);
        let outcome = outcome.as_ref().as_ref().map_err(|stop| Fault::Skipped(why(stop)))?;
        let results = loaded.written.iter().filter(|w| w.result).map(|w| {
            let v = &self.program.variables[w.variable];
            (v.name.clone(), v.decode(&outcome.buffers[&v.handle], w.n))
        });
        Ok(results.collect())
    }

    /// The head of a failure: sizes and inputs.
    fn where_(&self, trial: &Trial, loaded: &Loaded) -> String {
        let [x, y, z] = loaded.dispatch.workgroups;
        let sizes = if loaded.sizes.values.is_empty() { "(none)".into() } else { loaded.sizes.to_string() };
        let mut text = format!("smallest sizes that fail: {sizes}, in {x} × {y} × {z} workgroups");
        if self.backward {
            text.push_str(", backward");
        }
        for (name, flavour) in trial.describe(self.kernel) {
            let simplest = self.kernel.roles.iter().find(|(n, _)| *n == name).and_then(|(_, r)| r.values());
            let simplest = simplest.map_or(0.0, |v| v.simplest);
            let data = &loaded.inputs[&name];
            let odd: Vec<usize> = (0..data.len()).filter(|i| data[*i] != simplest).collect();
            let listed = odd.iter().take(6).map(|i| format!("{name}[{i}] = {}", shown(data[*i])));
            let listed = listed.collect::<Vec<_>>().join(", ");
            let _ = match odd.len() {
                0 => write!(text, "\n{name}: all {simplest}"),
                n if n <= 6 => write!(text, "\n{name}: all {simplest} but {listed}"),
                n => write!(
                    text,
                    "\n{name}: {flavour}: {listed}, … ({n} of {} are not {simplest})",
                    data.len()
                ),
            };
        }
        text
    }
}

/// A number, short.
fn shown(v: f64) -> String {
    let single = v as f32;
    if v.fract() == 0.0 && v.abs() < 1e10 {
        return format!("{}", v as i64);
    }
    if v == 0.0 || (1e-4..1e7).contains(&v.abs()) || !v.is_finite() {
        if f64::from(single) == v { format!("{single}") } else { format!("{v}") }
    } else {
        format!("{v:e}")
    }
}

/// How one array differs from what it should be: none where it does not.
fn compare(v: &Variable, got: &[f64], expected: &[f64], roundings: f64) -> Option<String> {
    let (smallest, largest) = v.range();
    let scale = expected.iter().filter(|e| e.is_finite()).fold(0.0f64, |m, e| m.max(e.abs()));
    // Below the smallest normal number devices may flush to zero, once a rounding.
    let allowed = if v.is_float() { roundings * (v.rounding() * scale + smallest) } else { 0.0 };
    let differs = |i: usize| {
        let (g, e) = (got[i], expected[i]);
        // What leaves the type's range is nobody's promise.
        let beyond = v.is_float() && (!e.is_finite() || e.abs() > largest);
        !beyond && (g.is_nan() || (g - e).abs() > allowed)
    };
    let wrong: Vec<usize> = (0..got.len()).filter(|i| differs(*i)).collect();
    let first = *wrong.first()?;
    let (name, n) = (&v.name, got.len());
    let bound = if v.is_float() { format!("within {allowed:.2e}") } else { "exactly".into() };
    let mut text = format!(
        "{name}[{first}] is {}, expected {} {bound}: the first of {} that differ among {n}",
        shown(got[first]),
        shown(expected[first]),
        wrong.len()
    );
    let _ = write!(text, "\n    {:>12}  {:>16}  {:>16}", "", "expected", "got");
    for i in first.saturating_sub(2)..(first + 3).min(n) {
        let mark = if differs(i) { '>' } else { ' ' };
        let place = format!("{name}[{i}]");
        let _ = write!(text, "\n  {mark} {place:>12}  {:>16}  {:>16}", shown(expected[i]), shown(got[i]));
    }
    Some(text)
}

/// The first word of a result that two runs disagree on.
fn first_difference(subject: &Subject<'_>, loaded: &Loaded, a: &[Vec<u8>], b: &[Vec<u8>]) -> Option<String> {
    for w in loaded.written.iter().filter(|w| w.result) {
        let v = &subject.program.variables[w.variable];
        let bytes = v.encode(&vec![0.0; w.n]).len();
        let (a, b) = (&a[w.variable][..bytes], &b[w.variable][..bytes]);
        if a == b {
            continue;
        }
        let places = v.places(w.n);
        let width = if v.rounding() > 1e-6 && v.is_float() { 2 } else { 4 };
        let differs = |i: &usize| {
            let at = places[*i] as usize;
            a[at..at + width] != b[at..at + width]
        };
        let wrong: Vec<usize> = (0..w.n).filter(differs).collect();
        let Some(first) = wrong.first() else { continue };
        let (x, y) = (v.decode(a, w.n)[*first], v.decode(b, w.n)[*first]);
        return Some(format!(
            "{}[{first}] is {} in one run and {} in the other: the first of {} that differ among {}",
            v.name,
            shown(x),
            shown(y),
            wrong.len(),
            w.n
        ));
    }
    None
}

struct Bench<'a> {
    kernel: &'a Kernel,
    device: &'a Device,
    forward: Subject<'a>,
    backward: Option<Subject<'a>>,
}

impl<'a> Bench<'a> {
    fn subjects(&self) -> impl Iterator<Item = &Subject<'a>> {
        std::iter::once(&self.forward).chain(&self.backward)
    }

    /// Draws trials until one fails, and shrinks it.
    fn trials(&self, mut body: impl FnMut(&Trial) -> Tried) -> Verdict {
        // Without a size or an input, there is one trial.
        let drawn = self.kernel.roles.iter().any(|(_, r)| r.is_drawn());
        let cases = if self.kernel.dims.is_empty() && !drawn { 1 } else { self.kernel.trials };
        let config =
            Config { cases, failure_persistence: None, max_shrink_iters: u32::MAX, ..Config::default() };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let (held, skipped) = (Cell::new(0), RefCell::new(None));
        let body = RefCell::new(&mut body);
        let result = runner.run(&Trials(self.kernel.clone()), |trial| match (body.borrow_mut())(&trial) {
            Ok(()) => {
                held.set(held.get() + 1);
                Ok(())
            }
            Err(Fault::Skipped(why)) => {
                *skipped.borrow_mut() = Some(why);
                Ok(())
            }
            Err(Fault::Failed(text)) => Err(TestCaseError::fail(text)),
        });
        match (result, skipped.into_inner()) {
            (Err(TestError::Fail(reason, _)), _) => Verdict::Failed(reason.message().into()),
            (Err(TestError::Abort(reason)), _) => Verdict::Failed(reason.message().into()),
            (Ok(()), Some(why)) if held.get() == 0 => Verdict::Skipped(why),
            (Ok(()), _) => Verdict::Held(held.get()),
        }
    }

    /// A check that runs on the device, forward and backward.
    fn on_device(&self, check: impl Fn(&Subject<'_>, &Compiled<'_>, &Loaded) -> Tried) -> Verdict {
        let compiled: Result<Vec<_>, String> =
            self.subjects().map(|s| Compiled::new(self.device, &s.program).map(|c| (s, c))).collect();
        let compiled = match compiled {
            Ok(all) => all,
            Err(e) => return Verdict::Failed(format!("the device's compiler refuses the kernel: {e}")),
        };
        self.trials(|trial| {
            for (subject, compiled) in &compiled {
                let loaded = subject.load(trial, &self.forward.program);
                check(subject, compiled, &loaded).map_err(|fault| match fault {
                    Fault::Failed(text) => failed(format!("{}\n{text}", subject.where_(trial, &loaded))),
                    skipped => skipped,
                })?;
            }
            Ok(())
        })
    }

    /// A check that reads what the machine found.
    fn on_machine(&self, kinds: &[Kind]) -> Verdict {
        self.trials(|trial| {
            for subject in self.subjects() {
                let loaded = subject.load(trial, &self.forward.program);
                let outcome = subject.interpreted(trial, &loaded);
                let outcome = outcome.as_ref().as_ref().map_err(|stop| Fault::Skipped(why(stop)))?;
                let found: Vec<&Finding> =
                    outcome.findings.iter().filter(|f| kinds.contains(&f.kind)).collect();
                if !found.is_empty() {
                    let mut text = subject.where_(trial, &loaded);
                    for finding in found.iter().take(4) {
                        let _ = write!(text, "\n{}", told(&subject.program, finding));
                    }
                    return Err(failed(text));
                }
            }
            Ok(())
        })
    }

    fn verdict(&self, check: Check) -> Verdict {
        if let Some((_, why)) = self.kernel.waived.iter().find(|(c, _)| *c == check) {
            return Verdict::Skipped(format!("waived: {why}"));
        }
        match check {
            Check::Compilers => self.compilers(),
            Check::Limits => self.limits(),
            Check::Values => self.values(),
            Check::Gradients => self.gradients(),
            Check::Repeats => self.repeats(),
            Check::Guards => self.guards(),
            Check::Poison => self.poison(),
            Check::Bounds => self.on_machine(&[Kind::Bounds, Kind::Wrap]),
            Check::Uninitialised => self.on_machine(&[Kind::Uninitialised, Kind::Unwritten]),
            Check::Races => self.on_machine(&[Kind::Race, Kind::Barrier]),
            Check::Order => self.order(),
        }
    }

    fn compilers(&self) -> Verdict {
        let texts: Vec<(String, String)> = self
            .subjects()
            .map(|s| {
                (
                    if s.backward { "backward".into() } else { self.kernel.name.clone() },
                    s.program.source.clone(),
                )
            })
            .collect();
        let (mut refused, mut asked) = (Vec::new(), 0);
        for judge in JUDGES {
            for opinion in judge.ask(&texts) {
                match opinion {
                    Opinion::Refused(why) => refused.push(format!("{}: {}", judge.name(), why.trim())),
                    Opinion::Accepted => asked += 1,
                    Opinion::Absent(_) | Opinion::NotApplicable => {}
                }
            }
        }
        if refused.is_empty() { Verdict::Held(asked) } else { Verdict::Failed(refused.join("\n")) }
    }

    fn limits(&self) -> Verdict {
        let (l, mut over) = (&self.kernel.limits, Vec::new());
        let sizes = Trial::largest(self.kernel);
        for subject in self.subjects() {
            let program = &subject.program;
            let mut hold = |what: &str, has: u64, most: u64| {
                if has > most {
                    over.push(format!("{what}: {has}, at most {most}"));
                }
            };
            let size = program.module.entry_points[program.entry].workgroup_size;
            hold(
                "invocations a workgroup",
                size.iter().product::<u32>().into(),
                l.max_compute_invocations_per_workgroup.into(),
            );
            let most = [
                l.max_compute_workgroup_size_x,
                l.max_compute_workgroup_size_y,
                l.max_compute_workgroup_size_z,
            ];
            for (k, axis) in ["x", "y", "z"].iter().enumerate() {
                hold(&format!("@workgroup_size in {axis}"), size[k].into(), most[k].into());
            }
            hold(
                "bytes of workgroup memory",
                program.workgroup_memory().into(),
                l.max_compute_workgroup_storage_size.into(),
            );
            let storage = program.variables.iter().filter(|v| !v.uniform).count();
            hold("storage buffers", storage as u64, l.max_storage_buffers_per_shader_stage.into());
            for (axis, n) in ["x", "y", "z"].iter().zip(subject.workgroups(&sizes)) {
                let what = format!("workgroups in {axis} at [{sizes}]");
                hold(&what, n as u64, l.max_compute_workgroups_per_dimension.into());
            }
            for v in &program.variables {
                let n = subject.len(v, &sizes);
                let bytes = v.bytes(n);
                let most = if v.uniform {
                    l.max_uniform_buffer_binding_size
                } else {
                    l.max_storage_buffer_binding_size
                };
                hold(&format!("bytes of `{}` at [{sizes}]", v.name), bytes, most);
            }
        }
        if over.is_empty() { Verdict::Held(1) } else { Verdict::Failed(over.join("\n")) }
    }

    fn values(&self) -> Verdict {
        let compiled = match Compiled::new(self.device, &self.forward.program) {
            Ok(compiled) => compiled,
            Err(e) => return Verdict::Failed(format!("the device's compiler refuses the kernel: {e}")),
        };
        let subject = &self.forward;
        self.trials(|trial| {
            let loaded = subject.load(trial, &subject.program);
            let expected = match self.kernel.reference {
                Some(_) => subject.expected(&loaded.sizes, &loaded.inputs),
                None => subject.by_machine(trial, &loaded)?,
            };
            let roundings = (self.kernel.tolerance)(&loaded.sizes);
            let compared = |bytes: &dyn Fn(usize) -> Vec<u8>| -> Option<String> {
                let results = loaded.written.iter().filter(|w| w.result);
                results.into_iter().find_map(|w| {
                    let v = &subject.program.variables[w.variable];
                    let (_, expected) = expected.iter().find(|(name, _)| *name == v.name)?;
                    compare(v, &v.decode(&bytes(w.variable), w.n), expected, roundings)
                })
            };
            let after = compiled.run(&loaded.dispatch, Traps::PLAIN).map_err(failed)?;
            let Some(text) = compared(&|i| after[i].clone()) else { return Ok(()) };
            let outcome = subject.interpreted(trial, &loaded);
            let opinion = match outcome.as_ref() {
                _ if self.kernel.reference.is_none() => NO_REFERENCE,
                Ok(o) => match compared(&|i| o.buffers[&subject.program.variables[i].handle].clone()) {
                    None => "in step, invocation by invocation, the kernel computes what is expected: look for a race, or the driver's mistake",
                    Some(_) => "in step, invocation by invocation, the kernel is wrong too: its arithmetic is",
                },
                Err(_) => "",
            };
            let text = format!("{}\n{text}\n{opinion}", subject.where_(trial, &loaded));
            Err(failed(if self.kernel.reference.is_none() { self.ordered(text) } else { text }))
        })
    }

    fn gradients(&self) -> Verdict {
        let (Some(subject), Some(declared)) = (&self.backward, &self.kernel.backward) else {
            return Verdict::Skipped("no backward kernel is declared".into());
        };
        let Some(reference) = &self.kernel.reference else {
            return Verdict::Skipped("no reference is declared".into());
        };
        let compiled = match Compiled::new(self.device, &subject.program) {
            Ok(compiled) => compiled,
            Err(e) => return Verdict::Failed(format!("the device's compiler refuses the kernel: {e}")),
        };
        self.trials(|trial| {
            let loaded = subject.load(trial, &self.forward.program);
            let after = compiled.run(&loaded.dispatch, Traps::PLAIN).map_err(failed)?;
            let array = |data: &[f64]| Array::new(&[data.len()], data.to_vec());
            let differentiated = |arrays: &[Array]| -> Vec<Array> {
                let inputs = Inputs {
                    names: loaded.inputs.names.clone(),
                    data: arrays.iter().map(|a| a.data.clone()).collect(),
                };
                reference(&loaded.sizes, &inputs).0.iter().map(|y| array(y)).collect()
            };
            let expected = subject.expected(&loaded.sizes, &loaded.inputs);
            let direction = |(name, y): &(String, Vec<f64>)| {
                let dy = loaded.upstream.iter().find(|(of, _)| of == name);
                dy.map_or_else(|| Array::zeros(&[y.len()]), |(_, dy)| array(dy))
            };
            let loss = Loss {
                reference: &differentiated,
                arrays: loaded.inputs.data.iter().map(|d| array(d)).collect(),
                directions: expected.iter().map(direction).collect(),
                expected: expected.iter().map(|(_, y)| array(y)).collect(),
            };
            for w in loaded.written.iter().filter(|w| w.result) {
                let v = &subject.program.variables[w.variable];
                let Some(Role::Gradient { of }) = subject.role(&v.name) else { continue };
                let i = loaded.inputs.names.iter().position(|n| n == of).expect("an input");
                // Differences of large or tiny values say more about f64 than about the kernel.
                let largest = loaded.inputs.data[i].iter().fold(0.0f64, |m, x| m.max(x.abs()));
                if largest > 1e4 {
                    return Err(Fault::Skipped("values too large for central differences".into()));
                }
                let got = array(&v.decode(&after[w.variable], w.n));
                let mut draw = Draw::new(trial.seed ^ 0x6D);
                let elements: Vec<usize> =
                    if w.n <= 48 { (0..w.n).collect() } else { (0..12).map(|_| draw.below(w.n)).collect() };
                let allowed = (declared.tolerance)(&loaded.sizes) * v.rounding();
                loss.hold(i, of, &got, allowed, &elements, &mut draw, &mut Report::default())
                    .map_err(|e| failed(format!("{}\n{e}", subject.where_(trial, &loaded))))?;
            }
            Ok(())
        })
    }

    fn repeats(&self) -> Verdict {
        self.on_device(|subject, compiled, loaded| {
            let first = compiled.run(&loaded.dispatch, Traps::PLAIN).map_err(failed)?;
            for _ in 0..3 {
                let again = compiled.run(&loaded.dispatch, Traps::PLAIN).map_err(failed)?;
                if let Some(text) = first_difference(subject, loaded, &first, &again) {
                    return Err(failed(self.ordered(text)));
                }
            }
            Ok(())
        })
    }

    fn guards(&self) -> Verdict {
        if self.subjects().any(|s| s.program.asks_lengths) {
            let why = "the kernel asks arrayLength, which guards would change; see bounds";
            return Verdict::Skipped(why.into());
        }
        self.on_device(|subject, compiled, loaded| {
            let words = 256;
            let run = |traps| compiled.run(&loaded.dispatch, traps).map_err(failed);
            let guarded = |traps: Traps| run(Traps { guard: words, ..traps });
            let (a, b) = (guarded(Traps::PLAIN)?, guarded(Traps::OTHER)?);
            for (after, traps) in [(&a, Traps::PLAIN), (&b, Traps::OTHER)] {
                for (v, bytes) in subject.program.variables.iter().zip(after) {
                    if v.uniform || v.capacity().is_some() {
                        continue;
                    }
                    let guard = &bytes[bytes.len() - 4 * words..];
                    let hit = guard.chunks(4).position(|w| w != traps.poison.to_le_bytes());
                    if let Some(word) = hit {
                        return Err(failed(format!(
                            "`{}` is written beyond its end: word {word} after it",
                            v.name
                        )));
                    }
                }
            }
            // What depends on the outputs' own poison is another check's.
            let same = first_difference(subject, loaded, &run(Traps::PLAIN)?, &run(Traps::OTHER)?).is_none();
            match first_difference(subject, loaded, &a, &b).filter(|_| same) {
                Some(text) => {
                    let why = "a result depends on what lies beyond a buffer's end";
                    Err(failed(self.ordered(format!("{why}:\n{text}"))))
                }
                None => Ok(()),
            }
        })
    }

    fn poison(&self) -> Verdict {
        self.on_device(|subject, compiled, loaded| {
            let run = |traps| compiled.run(&loaded.dispatch, traps).map_err(failed);
            let plain = run(Traps::PLAIN)?;
            let differs = |other: &[Vec<u8>]| first_difference(subject, loaded, &plain, other);
            if let Some(text) = differs(&run(Traps::OTHER)?) {
                let why = "what an output held before the launch is seen after it: it is read, or not all is written";
                return Err(failed(self.ordered(format!("{why}:\n{text}"))));
            }
            for traps in [Traps::PLAIN, Traps::OTHER] {
                if let Some(text) = differs(&run(Traps { dirty: true, ..traps })?) {
                    let why = "what workgroup memory held before the launch matters, where it is not zeroed";
                    return Err(failed(self.ordered(format!("{why}:\n{text}"))));
                }
            }
            Ok(())
        })
    }

    /// A failure that two runs show by differing: where results may come in any order, they differ without a defect.
    fn ordered(&self, text: String) -> String {
        let unordered = |(check, _): &&(Check, String)| matches!(check, Check::Order | Check::Repeats);
        match self.kernel.waived.iter().find(unordered) {
            Some((check, _)) => format!(
                "{text}\n`{}` is waived: where any order of results will do, two runs differ without a defect, so waive this check, too",
                check.name()
            ),
            None => text,
        }
    }

    fn order(&self) -> Verdict {
        self.trials(|trial| {
            for subject in self.subjects() {
                let loaded = subject.load(trial, &self.forward.program);
                let first = subject.interpreted(trial, &loaded);
                let first = first.as_ref().as_ref().map_err(|stop| Fault::Skipped(why(stop)))?;
                let bytes = |o: &Outcome| -> Vec<Vec<u8>> {
                    subject.program.variables.iter().map(|v| o.buffers[&v.handle].clone()).collect()
                };
                for order in [Order::Descending, Order::Shuffled(trial.seed)] {
                    let other =
                        subject.interpret(&loaded, order).map_err(|stop| Fault::Skipped(why(&stop)))?;
                    if let Some(text) = first_difference(subject, &loaded, &bytes(first), &bytes(&other)) {
                        let head = subject.where_(trial, &loaded);
                        let what = "workgroups and invocations in another order give another result";
                        let hint = "where any order will do, say so with .waive(Check::Order, …), and waive repeats, guards and poison, too";
                        return Err(failed(format!("{head}\n{what}:\n{text}\n{hint}")));
                    }
                }
            }
            Ok(())
        })
    }
}

/// What stands under values that differ from the machine's.
const NO_REFERENCE: &str = "no reference is declared: expected is what the abstract machine computes, workgroup after workgroup. Where that is not the only right result, declare what is with .reference(…), or say .waive(Check::Values, …)";

pub(crate) fn why(stop: &Stop) -> String {
    match stop {
        Stop::Unsupported(what) => format!("the abstract machine does not know {what}"),
        Stop::Budget => "too long for the abstract machine at these sizes: declare smaller ones".into(),
    }
}

/// A finding with its line.
pub(crate) fn told(program: &Program, finding: &Finding) -> String {
    let hint = match finding.kind {
        Kind::Uninitialised => {
            "\n  WGSL zeroes workgroup memory; who relies on that says so with .waive(Check::Uninitialised, …)"
        }
        Kind::Wrap => "\n  where it shall wrap, as in a hash, say so with .waive(Check::Bounds, …)",
        Kind::Barrier => "\n  Tint refuses such kernels, and a GPU may hang",
        _ => "",
    };
    match finding.line {
        0 => finding.text.clone(),
        line => format!("line {line}: {}\n  {line:4} | {}{hint}", finding.text, program.line(line)),
    }
}

/// The verdicts of these checks.
#[track_caller]
pub(crate) fn examine(kernel: &Kernel, device: &Device, checks: &[Check]) -> Examination {
    let done = |verdicts| Examination { kernel: kernel.name.clone(), device: device.name().into(), verdicts };
    let forward = Program::new(&kernel.source);
    let backward = kernel.backward.as_ref().map(|b| Program::new(&b.source)).transpose();
    let (forward, backward) = match (forward, backward) {
        (Ok(forward), Ok(backward)) => (forward, backward),
        (Err(e), _) | (_, Err(e)) => {
            let verdict = |check: &Check| match check {
                Check::Compilers => (*check, Verdict::Failed(format!("naga: {e}"))),
                _ => (*check, Verdict::Skipped("the kernel does not compile".into())),
            };
            return done(checks.iter().map(verdict).collect());
        }
    };
    let subgroup = device.subgroup();
    let bench = Bench {
        kernel,
        device,
        forward: Subject::new(kernel, forward, false, subgroup),
        backward: backward.map(|b| Subject::new(kernel, b, true, subgroup)),
    };
    done(checks.iter().map(|check| (*check, bench.verdict(*check))).collect())
}
