//! The abstract machine for launches of an engine of one's own: what it bound, and nothing declared.

use std::{collections::HashMap, ops::Range};

use naga::{GlobalVariable, Handle};

use crate::{
    Check,
    checks::{told, why},
    machine::{self, Kind, Order, Outcome},
    program::Program,
};

/// A kernel on the abstract machine, to be launched with the bytes that an engine binds.
///
/// ```
/// use rambutan_kit::{Check, Machine};
///
/// let machine = Machine::new("
///     @group(0) @binding(0) var<storage, read_write> x: array<u32>;
///     var<workgroup> first: u32;
///     @compute @workgroup_size(4)
///     fn main(@builtin(local_invocation_index) lane: u32) {
///         if lane == 0u { first = x[0]; }
///         x[lane] = first;
///     }")?;
/// let trace = machine.launch([1, 1, 1]).bind(0, 0, &[7; 16]).run()?;
/// let (check, text) = &trace.findings[0];
/// assert_eq!(*check, Check::Races);
/// assert!(text.contains("reads `first`, which invocation 0 of the same workgroup wrote in line 6"), "{text}");
/// # Ok::<(), String>(())
/// ```
pub struct Machine(Program);

/// A launch under construction.
#[derive(Clone)]
#[must_use]
pub struct Launch<'a> {
    program: &'a Program,
    launch: machine::Launch,
}

/// What a launch did.
pub struct Trace<'a> {
    /// What is wrong with it, each with its line: under [`Check::Bounds`], [`Check::Uninitialised`] or [`Check::Races`].
    pub findings: Vec<(Check, String)>,
    program: &'a Program,
    outcome: Outcome,
}

impl Machine {
    /// From WGSL with one compute entry point.
    ///
    /// # Errors
    /// What naga says of it, or what it binds that the machine does not know.
    pub fn new(source: &str) -> Result<Machine, String> {
        Program::new(source).map(Machine)
    }

    /// So many workgroups along x, y and z, in ascending order.
    pub fn launch(&self, workgroups: [u32; 3]) -> Launch<'_> {
        let launch = machine::Launch {
            buffers: HashMap::new(),
            holes: HashMap::new(),
            outputs: Vec::new(),
            workgroups,
            order: Order::Ascending,
            subgroup: None,
            poison: 0,
            budget: 20_000_000,
        };
        Launch { program: &self.0, launch }
    }

    /// The scalars that a binding of these bytes holds, in order; none where the kernel does not use it.
    pub fn decode(&self, group: u32, binding: u32, bytes: &[u8]) -> Option<Vec<f64>> {
        let v = self.0.variables.iter().find(|v| (v.group, v.binding) == (group, binding))?;
        Some(v.decode(bytes, v.holds(bytes.len())))
    }
}

impl Program {
    fn bound(&self, group: u32, binding: u32) -> Option<Handle<GlobalVariable>> {
        self.variables.iter().find(|v| (v.group, v.binding) == (group, binding)).map(|v| v.handle)
    }
}

impl<'a> Launch<'a> {
    /// What a binding holds. One that the kernel does not use is left out.
    pub fn bind(mut self, group: u32, binding: u32, bytes: &[u8]) -> Launch<'a> {
        if let Some(v) = self.program.bound(group, binding) {
            self.launch.buffers.insert(v, bytes.to_vec());
        }
        self
    }

    /// Where a binding holds nothing yet, in bytes: reading that is a mistake.
    pub fn holes(mut self, group: u32, binding: u32, holes: &[Range<u32>]) -> Launch<'a> {
        if let Some(v) = self.program.bound(group, binding) {
            self.launch.holes.insert(v, holes.to_vec());
        }
        self
    }

    /// So many invocations a subgroup; none until told otherwise.
    pub fn subgroups(mut self, lanes: u32) -> Launch<'a> {
        self.launch.subgroup = Some(lanes);
        self
    }

    /// Workgroups, and invocations within a statement, in another order, by a seed.
    pub fn shuffled(mut self, seed: u64) -> Launch<'a> {
        self.launch.order = Order::Shuffled(seed);
        self
    }

    /// What every word of workgroup memory holds before it is written; 0 until told otherwise.
    pub fn poisoned(mut self, word: u32) -> Launch<'a> {
        self.launch.poison = word;
        self
    }

    /// How many statements of how many invocations it may take; 20 million until told otherwise.
    pub fn budget(mut self, statements: u64) -> Launch<'a> {
        self.launch.budget = statements;
        self
    }

    /// Runs it.
    ///
    /// # Errors
    /// Why the machine could not: what it does not know, a binding that is missing, or the budget.
    pub fn run(self) -> Result<Trace<'a>, String> {
        let Launch { program, launch } = self;
        if let Some(v) = program.variables.iter().find(|v| !launch.buffers.contains_key(&v.handle)) {
            return Err(format!(
                "`{}`, binding {} of group {}, is not given: add .bind({2}, {1}, …)",
                v.name, v.binding, v.group
            ));
        }
        let outcome = program.interpret(launch).map_err(|stop| why(&stop))?;
        let findings = outcome.findings.iter().map(|f| {
            let check = match f.kind {
                Kind::Bounds | Kind::Wrap => Check::Bounds,
                Kind::Uninitialised | Kind::Unwritten => Check::Uninitialised,
                Kind::Race | Kind::Barrier => Check::Races,
            };
            (check, told(program, f))
        });
        Ok(Trace { findings: findings.collect(), program, outcome })
    }
}

impl Trace<'_> {
    /// What a binding holds afterwards; none where the kernel does not use it.
    pub fn bytes(&self, group: u32, binding: u32) -> Option<&[u8]> {
        self.outcome.buffers.get(&self.program.bound(group, binding)?).map(Vec::as_slice)
    }

    /// Where it holds nothing still, in bytes; none where the kernel does not write it.
    pub fn holes(&self, group: u32, binding: u32) -> Option<&[Range<u32>]> {
        self.outcome.holes.get(&self.program.bound(group, binding)?).map(Vec::as_slice)
    }
}
