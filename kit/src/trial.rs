//! One trial: sizes and inputs; how proptest draws it and makes it smaller.

use std::{fmt, ops::Range};

use proptest::{
    strategy::{NewTree, Strategy, ValueTree},
    test_runner::TestRunner,
};
use rambutan_engine::testing::{Dim, Draw, Sizes};

use crate::{Kernel, kernel::Inputs, program::Program};

/// Sizes, and what the inputs are drawn from.
#[derive(Clone)]
pub(crate) struct Trial {
    dims: Vec<Dim>,
    values: Vec<usize>,
    /// The flavour of each role, where it is drawn.
    flavours: Vec<usize>,
    pub seed: u64,
    /// Parts of inputs (by role) that hold nothing but their simplest value.
    blanks: Vec<(usize, Range<usize>)>,
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] seed {}", self.sizes(), self.seed)
    }
}

impl Trial {
    pub fn sizes(&self) -> Sizes {
        Sizes::of(&self.dims, self.values.clone())
    }

    /// Two trials of one key hold the same.
    pub fn key(&self) -> String {
        format!("{:?} {:?} {} {:?}", self.values, self.flavours, self.seed, self.blanks)
    }

    /// The sizes at their largest, of the plainest values.
    pub fn largest(kernel: &Kernel) -> Sizes {
        Sizes::of(&kernel.dims, kernel.dims.iter().map(Dim::largest).collect())
    }

    /// What each drawn input holds, rounded to its type.
    pub fn inputs(&self, kernel: &Kernel, program: &Program) -> Inputs {
        let sizes = self.sizes();
        let mut inputs = Inputs { names: Vec::new(), data: Vec::new() };
        for (i, (name, role)) in kernel.roles.iter().enumerate() {
            let (Some(values), Some(n)) = (role.values(), role.len(&sizes)) else { continue };
            let mut draw = Draw::new(self.seed.wrapping_add(i as u64 * 0x9E37));
            let mut data = values.draw(self.flavours[i], n, &mut draw);
            for (_, range) in self.blanks.iter().filter(|(role, _)| *role == i) {
                data[range.clone()].fill(values.simplest);
            }
            let scalar = program.scalar(name);
            data.iter_mut().for_each(|v| *v = program.rounded(scalar, *v));
            inputs.names.push(name.clone());
            inputs.data.push(data);
        }
        inputs
    }

    /// In words: what each input was drawn from.
    pub fn describe(&self, kernel: &Kernel) -> Vec<(String, &'static str)> {
        let drawn = kernel.roles.iter().enumerate();
        drawn.filter_map(|(i, (n, r))| Some((n.clone(), r.values()?.name(self.flavours[i])))).collect()
    }
}

/// Draws trials of a kernel.
#[derive(Clone, Debug)]
pub(crate) struct Trials(pub Kernel);

impl Strategy for Trials {
    type Tree = TrialTree;
    type Value = Trial;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        use proptest::prelude::Rng;
        let kernel = self.0.clone();
        let mut draw = Draw::new(runner.rng().next_u64());
        let values = kernel.dims.iter().map(|d| d.pick(draw.bits() >> 8)).collect();
        let flavours = kernel.roles.iter().map(|(_, r)| r.values().map_or(0, |v| draw.below(v.flavours())));
        let flavours = flavours.collect();
        let seed = draw.bits() >> 32;
        let trial = Trial { dims: kernel.dims.clone(), values, flavours, seed, blanks: Vec::new() };
        Ok(TrialTree {
            kernel,
            before: trial.clone(),
            trial,
            stage: Stage::Begin,
            queue: Vec::new(),
            left: 400,
        })
    }
}

/// What is tried next to make a trial smaller.
#[derive(Clone, Debug)]
enum Step {
    /// Another size, and the largest smaller one that does not fail.
    Size(usize, usize),
    Flavour(usize),
    Blank(usize, Range<usize>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Begin,
    /// The sizes of dim `.0`, from the smallest up.
    Small(usize),
    /// Between the smallest size of dim `.0` that fails and `.1`, the last that did not.
    Between(usize, usize),
    Flavours,
    Blanks,
    Done,
}

pub(crate) struct TrialTree {
    kernel: Kernel,
    /// The last that failed.
    before: Trial,
    trial: Trial,
    stage: Stage,
    /// To be tried, last first.
    queue: Vec<Step>,
    /// How often it may still be tried.
    left: u32,
}

impl TrialTree {
    /// Takes the next step there is.
    fn step(&mut self) -> bool {
        loop {
            self.trial = self.before.clone();
            if self.left == 0 {
                return false;
            }
            if let Some(step) = self.queue.pop() {
                match &step {
                    Step::Size(dim, size) => self.trial.values[*dim] = *size,
                    Step::Flavour(i) => self.trial.flavours[*i] = 0,
                    Step::Blank(role, range) => self.trial.blanks.push((*role, range.clone())),
                }
                self.queue.push(step);
                self.left -= 1;
                return true;
            }
            let dims = self.kernel.dims.len();
            self.stage = match self.stage {
                Stage::Begin if dims > 0 => self.small(0),
                Stage::Small(d) | Stage::Between(d, _) if d + 1 < dims => self.small(d + 1),
                Stage::Begin | Stage::Small(_) | Stage::Between(..) => {
                    let plain = |(i, f): (usize, &usize)| (*f > 0).then_some(Step::Flavour(i));
                    self.queue = self.before.flavours.iter().enumerate().filter_map(plain).collect();
                    Stage::Flavours
                }
                Stage::Flavours => {
                    let sizes = self.before.sizes();
                    let whole = |(i, (_, r)): (usize, &(String, crate::kernel::Role))| {
                        let n = r.is_drawn().then(|| r.len(&sizes))??;
                        (n > 0).then_some(Step::Blank(i, 0..n))
                    };
                    self.queue = self.kernel.roles.iter().enumerate().filter_map(whole).collect();
                    Stage::Blanks
                }
                Stage::Blanks | Stage::Done => {
                    self.stage = Stage::Done;
                    return false;
                }
            };
        }
    }

    /// Sizes of a dim that are smaller than what fails, the smallest to be tried first.
    fn small(&mut self, dim: usize) -> Stage {
        let now = self.before.values[dim];
        let d = &self.kernel.dims[dim];
        let mut smaller = d.awkward();
        smaller.insert(0, d.simplest());
        smaller.dedup();
        let smaller: Vec<usize> =
            smaller.into_iter().take_while(|v| *v != now).filter(|v| *v < now).collect();
        self.queue = smaller.into_iter().rev().map(|v| Step::Size(dim, v)).collect();
        Stage::Small(dim)
    }

    /// Halves the gap between the largest size that holds and the smallest that fails.
    fn between(&mut self, dim: usize, holds: usize) {
        let fails = self.before.values[dim];
        let ranges = self.kernel.dims[dim].is_range();
        self.queue.clear();
        if ranges && fails > holds + 1 {
            self.queue.push(Step::Size(dim, holds + (fails - holds) / 2));
        }
        self.stage = Stage::Between(dim, holds);
    }
}

impl ValueTree for TrialTree {
    type Value = Trial;

    fn current(&self) -> Trial {
        self.trial.clone()
    }

    /// What is current fails: keep it.
    fn simplify(&mut self) -> bool {
        self.before = self.trial.clone();
        match (self.queue.pop(), self.stage) {
            (Some(Step::Size(dim, size)), Stage::Small(_)) => {
                let smaller = self.kernel.dims[dim].awkward();
                let holds = smaller.into_iter().filter(|v| *v < size).max();
                let holds = holds.unwrap_or(self.kernel.dims[dim].simplest().min(size));
                self.between(dim, holds);
            }
            (Some(Step::Size(dim, _)), Stage::Between(_, holds)) => self.between(dim, holds),
            _ => {}
        }
        self.step()
    }

    /// What is current holds: go back, and try something else.
    fn complicate(&mut self) -> bool {
        match (self.queue.pop(), self.stage) {
            (Some(Step::Size(dim, size)), Stage::Between(..)) => self.between(dim, size),
            (Some(Step::Blank(role, range)), _) if range.len() > 1 => {
                let middle = range.start + range.len() / 2;
                self.queue.insert(0, Step::Blank(role, range.start..middle));
                self.queue.insert(0, Step::Blank(role, middle..range.end));
            }
            _ => {}
        }
        self.step()
    }
}
