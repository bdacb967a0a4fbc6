//! The engine's own launches on the kit's abstract machine: races, indices and unwritten memory are seen there whatever
//! order an adapter runs invocations in.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
};

use rambutan_engine::{
    Gpu, Tensor, autograd,
    gpu::{Binding, Dispatch, Event},
    testing::{self, Case, Draw, Input, Sizes},
};
use rambutan_kit::{Check, Machine, Trace};

/// Which bytes of a buffer were written, in units of two: of the narrowest scalar that kernels have.
#[derive(Default)]
struct Shadow(Vec<bool>);

impl Shadow {
    fn write(&mut self, bytes: Range<u64>, holes: &[Range<u32>]) {
        let (first, end) = (bytes.start as usize / 2, bytes.end as usize / 2);
        if self.0.len() < end {
            self.0.resize(end, false);
        }
        self.0[first..end].fill(true);
        for hole in holes {
            let hole = first + hole.start as usize / 2..(first + hole.end as usize / 2).min(end);
            self.0[hole].fill(false);
        }
    }

    fn holes(&self, bytes: Range<u64>) -> Vec<Range<u32>> {
        let mut holes: Vec<Range<u32>> = Vec::new();
        for unit in bytes.start / 2..bytes.end / 2 {
            if self.0.get(unit as usize).copied().unwrap_or(false) {
                continue;
            }
            let at = (2 * unit - bytes.start) as u32;
            match holes.last_mut().filter(|last| last.end == at) {
                Some(last) => last.end += 2,
                None => holes.push(at..at + 2),
            }
        }
        holes
    }
}

/// Launches alike in all but what their buffers hold, of which so many are followed.
const ALIKE: usize = 2;

/// What a kernel was seen to do.
#[derive(Clone, Copy, Default)]
pub struct Seen {
    /// Launches followed to their end.
    pub launches: usize,
    /// Workgroups of the largest.
    pub widest: u32,
    /// Launches that were too long.
    pub long: usize,
}

/// Follows launches.
pub struct Watch {
    /// Statements of invocations that one launch may take.
    pub budget: u64,
    /// By stem.
    pub seen: BTreeMap<&'static str, Seen>,
    /// What is wrong, or unknown to the machine; each kernel's line once.
    pub findings: Vec<String>,
    machines: HashMap<String, Result<Machine, String>>,
    /// How many of a kind were followed, and what the last one left unwritten.
    alike: HashMap<u64, (usize, Vec<Vec<Range<u32>>>)>,
    told: HashSet<(&'static str, String)>,
}

/// A barrier of a workgroup where the kernel has one of a subgroup of 32: for devices of other subgroups. The machine has those.
pub const TURN: &str = "workgroupBarrier(/* of a subgroup */)";

/// Words that no kernel means.
const POISONS: [u32; 2] = [0x7FC0_BEEF, 0x803F_4110];

impl Default for Watch {
    fn default() -> Watch {
        let budget = 40_000_000;
        let (seen, findings) = (BTreeMap::new(), Vec::new());
        let (machines, alike, told) = (HashMap::new(), HashMap::new(), HashSet::new());
        Watch { budget, seen, findings, machines, alike, told }
    }
}

impl Watch {
    /// Runs a case forward and backward, and every launch of it again on the machine.
    ///
    /// # Panics
    /// Where the device fails.
    pub fn case(&mut self, gpu: &Gpu, case: &Case, sizes: &Sizes, seed: u64) {
        let inputs = case.draw_inputs(sizes, &mut Draw::new(seed));
        self.of(gpu, &format!("{} [{sizes}]", case.stem), || run(gpu, case, sizes, &inputs));
    }

    /// Runs anything, and every launch of it again on the machine.
    pub fn of(&mut self, gpu: &Gpu, what: &str, work: impl FnOnce()) {
        gpu.capture(true);
        work();
        let events = gpu.captured();
        gpu.capture(false);
        self.follow(what, &events, gpu.capabilities().subgroups.map(|(least, _)| least));
    }

    /// All that happened, on a device whose smallest subgroups have so many invocations.
    fn follow(&mut self, what: &str, events: &[Event], subgroup: Option<u32>) {
        // What was there before is taken for written.
        let mut shadows: HashMap<u64, Shadow> = HashMap::new();
        let mut last = "";
        for event in events {
            match event {
                Event::Taken { buffer } => drop(shadows.insert(*buffer, Shadow::default())),
                Event::Written { buffer, bytes } => {
                    if let Some(shadow) = shadows.get_mut(buffer) {
                        shadow.write(bytes.clone(), &[]);
                    }
                }
                Event::Read { buffer, bytes } => {
                    let holes = shadows.get(buffer).map_or_else(Vec::new, |s| s.holes(bytes.clone()));
                    if let Some(first) = holes.first() {
                        let (at, size) = (first.start, bytes.end - bytes.start);
                        let text =
                            format!("uninitialised: byte {at} of {size} that the host reads holds nothing");
                        self.tell(last, what, text);
                    }
                }
                Event::Launched(dispatch) => {
                    last = dispatch.stem;
                    let of = |o: &Binding| shadows.get(&o.buffer).map(|s| s.holes(o.bytes.clone()));
                    let holes = dispatch.operands.iter().map(|o| of(o).unwrap_or_default()).collect();
                    let left = self.launch(what, dispatch, holes, subgroup);
                    for (o, left) in dispatch.operands.iter().zip(left).filter(|(o, _)| o.after.is_some()) {
                        if let Some(shadow) = shadows.get_mut(&o.buffer) {
                            shadow.write(o.bytes.clone(), &left);
                        }
                    }
                }
            }
        }
    }

    fn tell(&mut self, stem: &'static str, what: &str, text: String) {
        // A mistake is known by its line, or by its first words.
        let line = text.lines().nth(1).unwrap_or(&text).to_owned();
        if self.told.insert((stem, line)) {
            self.findings.push(format!("{stem} of {what}\n  {text}"));
        }
    }

    /// Where each operand holds nothing after a launch, given where it held nothing before.
    fn launch(
        &mut self,
        what: &str,
        dispatch: &Dispatch,
        holes: Vec<Vec<Range<u32>>>,
        subgroup: Option<u32>,
    ) -> Vec<Vec<Range<u32>>> {
        let stem = dispatch.stem;
        // The machine knows no matrices: tests/tests/coop.rs spells them out.
        if dispatch.source.contains("coop_mat") {
            return vec![Vec::new(); holes.len()];
        }
        let mut kind = DefaultHasher::new();
        let operands: Vec<_> = dispatch.operands.iter().map(|o| o.before.len()).collect();
        (&dispatch.source, &dispatch.params, dispatch.groups, operands, &holes).hash(&mut kind);
        let kind = kind.finish();
        if let Some((_, left)) = self.alike.get(&kind).filter(|(count, _)| *count >= ALIKE) {
            return left.clone();
        }
        let mut machines = std::mem::take(&mut self.machines);
        let subgroup = if dispatch.source.contains(TURN) { Some(32) } else { subgroup };
        let machine = machines
            .entry(dispatch.source.clone())
            .or_insert_with(|| Machine::new(&dispatch.source.replace(TURN, "subgroupBarrier()")));
        let (findings, left) = match machine {
            Ok(machine) => {
                let seen = self.seen.entry(stem).or_default();
                examined(machine, dispatch, &holes, (subgroup, self.budget), seen)
            }
            Err(why) => (vec![why.clone()], vec![Vec::new(); holes.len()]),
        };
        self.machines = machines;
        self.alike.entry(kind).and_modify(|k| k.0 += 1).or_insert_with(|| (1, left.clone()));
        let named = format!("{what}, [{}]", dispatch.variant);
        findings.into_iter().for_each(|text| self.tell(stem, &named, text));
        left
    }
}

/// A case, forward and backward; what comes of it is read.
fn run(gpu: &Gpu, case: &Case, sizes: &Sizes, inputs: &[Input]) {
    let tensors: Vec<Tensor> = inputs.iter().map(|i| i.tensor(gpu)).collect();
    let outputs = (case.run)(sizes, &tensors);
    let used: Vec<&Tensor> = outputs.iter().filter(|y| y.dtype().is_float() && y.needs_grad()).collect();
    let seeds: Vec<Tensor> = used.iter().map(|y| Tensor::full(gpu, y.shape(), y.dtype(), 0.7)).collect();
    autograd::backward(&used.into_iter().zip(&seeds).collect::<Vec<_>>());
    let gradients: Vec<Tensor> = tensors.iter().filter_map(Tensor::grad).collect();
    for result in outputs.iter().chain(&gradients) {
        testing::read(result).unwrap_or_else(|e| panic!("{} [{sizes}]: {e}", case.stem));
    }
}

/// A launch on the machine: what is wrong, and where each operand holds nothing afterwards.
fn examined(
    machine: &Machine,
    dispatch: &Dispatch,
    holes: &[Vec<Range<u32>>],
    (subgroup, budget): (Option<u32>, u64),
    seen: &mut Seen,
) -> (Vec<String>, Vec<Vec<Range<u32>>>) {
    let launch = |poison: Option<u32>| {
        let mut launch = machine.launch(dispatch.groups).budget(budget);
        launch = subgroup.map_or(launch.clone(), |lanes| launch.subgroups(lanes));
        if let Some(params) = &dispatch.params {
            let mut bytes = params.clone();
            bytes.resize(256, 0);
            launch = launch.bind(0, 0, &bytes);
        }
        for (o, holes) in dispatch.operands.iter().zip(holes) {
            let mut bytes = o.before.clone();
            for hole in holes.iter().filter(|_| poison.is_some()) {
                let word = poison.unwrap_or(0).to_le_bytes();
                hole.clone().for_each(|i| bytes[i as usize] = word[i as usize % 4]);
            }
            launch = launch.bind(0, o.binding, &bytes).holes(0, o.binding, holes);
        }
        launch.poisoned(poison.unwrap_or(0)).run()
    };
    let trace = match launch(None) {
        Ok(trace) => trace,
        Err(why) if why.contains("too long") => {
            seen.long += 1;
            return (Vec::new(), vec![Vec::new(); holes.len()]);
        }
        Err(why) => return (vec![why], vec![Vec::new(); holes.len()]),
    };
    seen.launches += 1;
    seen.widest = seen.widest.max(dispatch.groups.iter().product());
    let told = |trace: &Trace<'_>| -> Vec<String> {
        let grave = trace.findings.iter().filter(|(check, _)| *check != Check::Uninitialised);
        grave.map(|(check, text)| format!("{}: {text}", check.name())).collect()
    };
    let mut wrong = told(&trace);
    let left = |o: &Binding, before: &Vec<Range<u32>>| {
        trace.holes(0, o.binding).map_or_else(|| before.clone(), <[_]>::to_vec)
    };
    let mut left: Vec<_> = dispatch.operands.iter().zip(holes).map(|(o, before)| left(o, before)).collect();
    if trace.findings.iter().any(|(check, _)| *check == Check::Uninitialised) {
        // What was read matters where the result depends on it: that holds nothing either.
        let [a, b] = POISONS.map(|word| launch(Some(word)).expect("it ran before"));
        wrong.extend(told(&a).into_iter().chain(told(&b)));
        for (o, left) in dispatch.operands.iter().zip(&mut left).filter(|(o, _)| o.after.is_some()) {
            let (Some(a), Some(b)) = (a.bytes(0, o.binding), b.bytes(0, o.binding)) else { continue };
            let units = (0..a.len() as u32).step_by(2).filter(|i| {
                let unit = *i as usize..*i as usize + 2;
                a[unit.clone()] != b[unit]
            });
            left.extend(units.map(|i| i..i + 2));
        }
    }
    wrong.extend(dispatch.operands.iter().filter_map(|o| differs(machine, o, &trace)));
    (wrong, left)
}

/// How far the machine's result is from the device's, where that is more than what roundings leave.
fn differs(machine: &Machine, o: &Binding, trace: &Trace<'_>) -> Option<String> {
    let (after, got) = (o.after.as_ref()?, trace.bytes(0, o.binding)?);
    if after == got {
        return None;
    }
    let numbers = |bytes: &[u8]| machine.decode(0, o.binding, bytes).expect("it is bound");
    let (device, got) = (numbers(after), numbers(got));
    // What both leave as it was may be anything.
    let differ: Vec<usize> =
        (0..device.len()).filter(|i| device[*i].to_bits() != got[*i].to_bits()).collect();
    let largest = differ.iter().fold(0.0f64, |most, i| most.max(device[*i].abs()));
    let far = |i: &&usize| {
        let (device, got) = (device[**i], got[**i]);
        device.is_nan() || got.is_nan() || (device - got).abs() > 1e-2 * largest + 1e-5
    };
    let first = *differ.iter().find(far)?;
    Some(format!(
        "`{}[{first}]` is {} on the device and {} on the machine, where {} differ",
        o.name,
        device[first],
        got[first],
        differ.len()
    ))
}
