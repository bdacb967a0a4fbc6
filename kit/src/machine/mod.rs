//! An abstract machine that runs naga's IR and watches every access.
//!
//! A workgroup's invocations go in step: a statement is done for all that are active before the next one begins, so
//! barriers need no scheduler, and one that not all invocations reach is seen as such. Between two barriers nothing is
//! ordered: each scalar of workgroup and storage memory remembers who touched it last, and when, and two invocations that
//! met there without a barrier, one of them writing, are a race *whatever order this run had*. Workgroups are never
//! ordered among each other.
//!
//! What it says is true of the inputs it ran on, and of these alone.

mod memory;
mod scalar;

use std::{collections::HashMap, ops::Range, rc::Rc};

pub(crate) use memory::leaves;
use memory::{Access, Memory};
use naga::{
    AddressSpace, ArraySize, Barrier, Block, BuiltIn, CollectiveOperation, Direction, Expression, Function,
    GatherMode, GlobalVariable, Handle, Module, Scalar, ScalarKind, Span, Statement, SubgroupOperation,
    SwitchValue, Type, TypeInner,
    valid::{FunctionInfo, ModuleInfo},
};

/// What the machine can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// An index outside of its array.
    Bounds,
    /// The arithmetic of an index left 32 bits, and the index fell inside of its array nevertheless.
    Wrap,
    /// Read before it was written.
    Uninitialised,
    /// Never written.
    Unwritten,
    /// Two invocations met at one place without a barrier between.
    Race,
    /// A barrier that some invocations of a workgroup reach and others do not.
    Barrier,
}

/// One mistake, with the line where it was seen.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub kind: Kind,
    pub line: u32,
    pub text: String,
}

/// Why the machine stopped.
#[derive(Clone, Debug)]
pub(crate) enum Stop {
    /// It does not know this.
    Unsupported(String),
    /// The launch is too long for it.
    Budget,
}

/// The order of workgroups, and of the invocations within a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Ascending,
    Descending,
    /// By a seed.
    Shuffled(u64),
}

impl Order {
    fn of(self, n: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        match self {
            Order::Ascending => {}
            Order::Descending => all.reverse(),
            Order::Shuffled(seed) => {
                let mut draw = rambutan_engine::testing::Draw::new(seed);
                (1..n).rev().for_each(|i| all.swap(i, draw.below(i + 1)));
            }
        }
        all
    }
}

/// One dispatch.
#[derive(Clone)]
pub(crate) struct Launch {
    /// What is bound, by variable.
    pub buffers: HashMap<Handle<GlobalVariable>, Vec<u8>>,
    /// Where buffers hold nothing yet, in bytes: what is read there must have been written.
    pub holes: HashMap<Handle<GlobalVariable>, Vec<Range<u32>>>,
    /// Where scalars must have been written in the end, in bytes.
    pub outputs: Vec<(Handle<GlobalVariable>, Vec<u32>)>,
    pub workgroups: [u32; 3],
    pub order: Order,
    /// Invocations of a subgroup, where there are any.
    pub subgroup: Option<u32>,
    /// What workgroup memory holds before it is written.
    pub poison: u32,
    /// Invocations × statements before it gives up.
    pub budget: u64,
}

/// What a launch left behind.
pub(crate) struct Outcome {
    pub buffers: HashMap<Handle<GlobalVariable>, Vec<u8>>,
    /// Where watched buffers hold nothing still.
    pub holes: HashMap<Handle<GlobalVariable>, Vec<Range<u32>>>,
    pub findings: Vec<Finding>,
}

/// A value of all lanes.
#[derive(Clone, Debug)]
enum Value {
    /// `n` words a lane.
    Words { n: usize, data: Vec<u32> },
    /// Into one variable, by byte.
    Pointer { place: usize, offsets: Vec<u32> },
}

/// An offset that lies outside of everything.
const OUTSIDE: u32 = u32::MAX;

impl Value {
    fn scalar(data: Vec<u32>) -> Value {
        Value::Words { n: 1, data }
    }

    fn uniform(words: &[u32], lanes: usize) -> Value {
        Value::Words { n: words.len(), data: words.repeat(lanes) }
    }

    fn words(&self) -> (usize, &[u32]) {
        match self {
            Value::Words { n, data } => (*n, data),
            Value::Pointer { .. } => unreachable!("validated: a pointer is no value"),
        }
    }

    fn lane(&self, lane: usize) -> &[u32] {
        let (n, data) = self.words();
        &data[lane * n..][..n]
    }
}

type Mask = Vec<bool>;

fn any(mask: &Mask) -> bool {
    mask.contains(&true)
}

fn both(a: &Mask, b: impl Fn(usize) -> bool) -> Mask {
    a.iter().enumerate().map(|(i, a)| *a && b(i)).collect()
}

fn join(a: &mut Mask, b: &Mask) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a |= b);
}

/// One call of a function.
struct Frame<'a> {
    function: &'a Function,
    info: &'a FunctionInfo,
    values: Vec<Option<Rc<Value>>>,
    arguments: Vec<Rc<Value>>,
    /// The place of the first local variable.
    locals: usize,
    returned: Option<Value>,
    /// Where `break` and `continue` lead, innermost last: (left, goes on, is a loop).
    exits: Vec<(Mask, Mask, bool)>,
}

pub(crate) struct Machine<'a> {
    module: &'a Module,
    info: &'a ModuleInfo,
    /// Where the lines of the source begin.
    lines: Vec<u32>,
    layouter: naga::proc::Layouter,
    globals: HashMap<Handle<GlobalVariable>, usize>,
    memories: Vec<Memory>,
    lanes: usize,
    order: Vec<usize>,
    group: u32,
    /// Barriers so far in this workgroup: of workgroup memory, of storage.
    epochs: [u32; 2],
    /// Barriers so far of each subgroup alone.
    turns: Vec<u32>,
    subgroup: Option<u32>,
    poison: u32,
    budget: u64,
    findings: Vec<Finding>,
    span: Span,
}

type Run<T> = Result<T, Stop>;

fn unsupported<T>(what: impl Into<String>) -> Run<T> {
    Err(Stop::Unsupported(what.into()))
}

/// Runs a launch of the module's entry point `entry`.
pub(crate) fn run(
    module: &Module,
    info: &ModuleInfo,
    source: &str,
    entry: usize,
    launch: Launch,
) -> Result<Outcome, Stop> {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| Stop::Unsupported(e.to_string()))?;
    let point = &module.entry_points[entry];
    let lanes = point.workgroup_size.iter().product::<u32>() as usize;
    let mut machine = Machine {
        module,
        info,
        lines: std::iter::once(0).chain(source.match_indices('\n').map(|(i, _)| i as u32 + 1)).collect(),
        layouter,
        globals: HashMap::new(),
        memories: Vec::new(),
        lanes,
        order: launch.order.of(lanes),
        group: 0,
        epochs: [0; 2],
        turns: Vec::new(),
        subgroup: launch.subgroup,
        poison: launch.poison,
        budget: launch.budget,
        findings: Vec::new(),
        span: Span::UNDEFINED,
    };
    let used = info.get_entry_point(entry);
    let mut buffers = launch.buffers;
    for (handle, variable) in module.global_variables.iter().filter(|(h, _)| !used[*h].is_empty()) {
        let name = variable.name.clone().unwrap_or_default();
        let granule = memory::narrowest(module, &module.types[variable.ty].inner);
        let memory = match variable.space {
            AddressSpace::Storage { access } => {
                let memory = Memory::new(name, buffers.remove(&handle).unwrap_or_default(), None);
                let holes = launch.holes.get(&handle).map_or(&[][..], Vec::as_slice);
                // What is only read races with nobody.
                let watched = access.contains(naga::StorageAccess::STORE) || !holes.is_empty();
                if watched { memory.watched(granule, holes) } else { memory }
            }
            AddressSpace::Uniform => Memory::new(name, buffers.remove(&handle).unwrap_or_default(), None),
            AddressSpace::WorkGroup => {
                let size = machine.layouter[variable.ty].size as usize;
                Memory::new(name, vec![0; size], None)
                    .watched(granule, std::slice::from_ref(&(0..size as u32)))
            }
            AddressSpace::Private => {
                let size = machine.layouter[variable.ty].size as usize;
                Memory::new(name, vec![0; size * lanes], Some(size))
            }
            space => return unsupported(format!("variables in {space:?}")),
        };
        machine.globals.insert(handle, machine.memories.len());
        machine.memories.push(memory);
    }
    let [x, y, z] = launch.workgroups;
    let groups = x as usize * y as usize * z as usize;
    for index in launch.order.of(groups) {
        let index = index as u32;
        machine.group = index;
        machine.workgroup(entry, [index % x, index / x % y, index / x / y], launch.workgroups)?;
    }
    let (mut kept, mut holes) = (HashMap::new(), HashMap::new());
    for (handle, place) in machine.globals.clone() {
        if let Some((_, must)) = launch.outputs.iter().find(|(h, _)| *h == handle) {
            machine.unwritten(place, must);
        }
        let memory = &mut machine.memories[place];
        if memory.is_watched() {
            holes.insert(handle, memory.holes());
        }
        kept.insert(handle, std::mem::take(&mut memory.bytes));
    }
    machine.findings.sort_by_key(|f| (f.kind, f.line));
    Ok(Outcome { buffers: kept, holes, findings: machine.findings })
}

impl<'a> Machine<'a> {
    /// The line of what is being done.
    fn line(&self) -> u32 {
        let at = self.span.to_range().map_or(0, |r| r.start as u32);
        self.lines.partition_point(|begin| *begin <= at) as u32
    }

    fn find(&mut self, kind: Kind, text: impl FnOnce(&Self) -> String) {
        let line = self.line();
        // The first of a kind on a line stands for all.
        if self.findings.len() < 64 && !self.findings.iter().any(|f| f.kind == kind && f.line == line) {
            let text = text(self);
            self.findings.push(Finding { kind, line, text });
        }
    }

    fn unwritten(&mut self, place: usize, must: &[u32]) {
        let memory = &self.memories[place];
        let mut blank = (0..must.len()).filter(|i| !memory.is_written(must[*i]));
        if let Some(first) = blank.next() {
            let (name, count) = (&memory.name, blank.count() + 1);
            let text =
                format!("{count} of {} elements are never written, `{name}[{first}]` first", must.len());
            self.findings.push(Finding { kind: Kind::Unwritten, line: 0, text });
        }
    }

    /// A place in a variable, as WGSL writes it.
    fn named(&self, place: usize, offset: u32) -> String {
        let name = &self.memories[place].name;
        let handle = self.globals.iter().find(|(_, p)| **p == place).map(|(h, _)| *h);
        let inner = handle.map(|h| &self.module.types[self.module.global_variables[h].ty].inner);
        format!("{name}{}", inner.map_or(String::new(), |t| memory::path(self.module, t, offset)))
    }

    fn who(&self, lane: usize) -> String {
        format!("invocation {lane} of workgroup {}", self.group)
    }

    fn workgroup(&mut self, entry: usize, id: [u32; 3], count: [u32; 3]) -> Run<()> {
        self.epochs = [0; 2];
        let (module, lanes) = (self.module, self.lanes);
        self.turns = vec![0; lanes.div_ceil(self.crew())];
        for (handle, place) in self.globals.clone() {
            let variable = &module.global_variables[handle];
            match variable.space {
                AddressSpace::WorkGroup => self.memories[place].restart(self.poison),
                AddressSpace::Private => {
                    let zeros = vec![0; self.memories[place].bytes.len()];
                    self.memories[place].bytes = zeros;
                    if let Some(init) = variable.init {
                        let value = Value::uniform(&self.constant(init)?, lanes);
                        let leaves = leaves(module, &module.types[variable.ty].inner);
                        self.write(
                            place,
                            &vec![0; lanes],
                            &leaves,
                            &value,
                            &vec![true; lanes],
                            Access::Write,
                        );
                    }
                }
                _ => {}
            }
        }
        let point = &module.entry_points[entry];
        let [wx, wy, _] = point.workgroup_size;
        let locals: Vec<[u32; 3]> = (0..lanes as u32).map(|i| [i % wx, i / wx % wy, i / wx / wy]).collect();
        let builtin = |builtin: BuiltIn| -> Run<Vec<[u32; 3]>> {
            Ok(match builtin {
                BuiltIn::WorkGroupId => vec![id; lanes],
                BuiltIn::NumWorkGroups => vec![count; lanes],
                BuiltIn::WorkGroupSize => vec![point.workgroup_size; lanes],
                BuiltIn::LocalInvocationId => locals.clone(),
                BuiltIn::LocalInvocationIndex => (0..lanes as u32).map(|i| [i, 0, 0]).collect(),
                BuiltIn::GlobalInvocationId => locals
                    .iter()
                    .map(|l| std::array::from_fn(|k| id[k] * point.workgroup_size[k] + l[k]))
                    .collect(),
                BuiltIn::SubgroupSize
                | BuiltIn::SubgroupInvocationId
                | BuiltIn::SubgroupId
                | BuiltIn::NumSubgroups => {
                    let size = self.subgroup_size()?;
                    let one = |i: u32| match builtin {
                        BuiltIn::SubgroupSize => size,
                        BuiltIn::SubgroupInvocationId => i % size,
                        BuiltIn::SubgroupId => i / size,
                        _ => (lanes as u32).div_ceil(size),
                    };
                    (0..lanes as u32).map(|i| [one(i), 0, 0]).collect()
                }
                other => return unsupported(format!("{other:?}")),
            })
        };
        let mut arguments = Vec::new();
        for argument in &point.function.arguments {
            let bound: Vec<(&Option<naga::Binding>, Handle<Type>)> = match &module.types[argument.ty].inner {
                TypeInner::Struct { members, .. } if argument.binding.is_none() => {
                    members.iter().map(|m| (&m.binding, m.ty)).collect()
                }
                _ => vec![(&argument.binding, argument.ty)],
            };
            let mut parts = Vec::new();
            for (binding, ty) in bound {
                let Some(naga::Binding::BuiltIn(b)) = binding else { return unsupported("this argument") };
                let n = leaves(module, &module.types[ty].inner).len();
                parts.push((n, builtin(*b)?));
            }
            let n = parts.iter().map(|p| p.0).sum();
            let data = (0..lanes)
                .flat_map(|lane| parts.iter().flat_map(move |(n, p)| p[lane][..*n].to_vec()))
                .collect();
            arguments.push(Rc::new(Value::Words { n, data }));
        }
        let info = self.info.get_entry_point(entry);
        self.call(&point.function, info, arguments, &vec![true; lanes]).map(drop)
    }

    fn call(
        &mut self,
        function: &'a Function,
        info: &'a FunctionInfo,
        arguments: Vec<Rc<Value>>,
        mask: &Mask,
    ) -> Run<Option<Value>> {
        let (module, lanes) = (self.module, self.lanes);
        let locals = self.memories.len();
        let mut frame = Frame {
            function,
            info,
            values: vec![None; function.expressions.len()],
            arguments,
            locals,
            returned: None,
            exits: Vec::new(),
        };
        for (_, variable) in function.local_variables.iter() {
            let size = self.layouter[variable.ty].size as usize;
            let name = variable.name.clone().unwrap_or_default();
            self.memories.push(Memory::new(name, vec![0; size * lanes], Some(size)));
        }
        for (i, (_, variable)) in function.local_variables.iter().enumerate() {
            if let Some(init) = variable.init {
                let value = self.value(&mut frame, init, mask)?;
                let leaves = leaves(module, &module.types[variable.ty].inner);
                self.write(locals + i, &vec![0; lanes], &leaves, &value, mask, Access::Write);
            }
        }
        self.block(&mut frame, &function.body, mask.clone())?;
        self.memories.truncate(locals);
        Ok(frame.returned)
    }

    /// Runs a block; those that fall out at its end.
    fn block(&mut self, f: &mut Frame<'a>, block: &'a Block, mut mask: Mask) -> Run<Mask> {
        for (statement, span) in block.span_iter() {
            if !any(&mask) {
                break;
            }
            self.budget = self.budget.checked_sub(self.lanes as u64).ok_or(Stop::Budget)?;
            self.span = *span;
            mask = self.statement(f, statement, mask)?;
        }
        Ok(mask)
    }

    fn statement(&mut self, f: &mut Frame<'a>, statement: &'a Statement, mask: Mask) -> Run<Mask> {
        let (module, lanes, span) = (self.module, self.lanes, self.span);
        let none = || vec![false; lanes];
        match statement {
            Statement::Emit(range) => {
                for h in range.clone() {
                    // Loops come here again: what was there is stale.
                    f.values[h.index()] = None;
                    self.span = f.function.expressions.get_span(h);
                    self.value(f, h, &mask)?;
                }
            }
            Statement::Block(inner) => return self.block(f, inner, mask),
            Statement::If { condition, accept, reject } => {
                let condition = self.value(f, *condition, &mask)?;
                let yes = both(&mask, |i| condition.lane(i)[0] != 0);
                let no = both(&mask, |i| condition.lane(i)[0] == 0);
                let mut after = if any(&yes) { self.block(f, accept, yes)? } else { none() };
                if any(&no) {
                    join(&mut after, &self.block(f, reject, no)?);
                }
                return Ok(after);
            }
            Statement::Switch { selector, cases } => {
                let selector = self.value(f, *selector, &mask)?;
                let hit = |value: SwitchValue, i: usize| match value {
                    SwitchValue::I32(v) => selector.lane(i)[0] == v as u32,
                    SwitchValue::U32(v) => selector.lane(i)[0] == v,
                    SwitchValue::Default => !cases.iter().any(|c| match c.value {
                        SwitchValue::I32(v) => selector.lane(i)[0] == v as u32,
                        SwitchValue::U32(v) => selector.lane(i)[0] == v,
                        SwitchValue::Default => false,
                    }),
                };
                f.exits.push((none(), none(), false));
                let (mut after, mut falling) = (none(), none());
                for case in cases {
                    let mut enter = both(&mask, |i| hit(case.value, i));
                    join(&mut enter, &falling);
                    let out = if any(&enter) { self.block(f, &case.body, enter)? } else { none() };
                    falling = none();
                    if case.fall_through { falling = out } else { join(&mut after, &out) }
                }
                let (left, _, _) = f.exits.pop().expect("pushed above");
                join(&mut after, &left);
                return Ok(after);
            }
            Statement::Loop { body, continuing, break_if } => {
                let (mut active, mut after) = (mask, none());
                while any(&active) {
                    self.budget = self.budget.checked_sub(lanes as u64).ok_or(Stop::Budget)?;
                    f.exits.push((none(), none(), true));
                    let mut on = self.block(f, body, active)?;
                    let (left, goes_on, _) = f.exits.pop().expect("pushed above");
                    join(&mut on, &goes_on);
                    join(&mut after, &left);
                    if any(&on) {
                        on = self.block(f, continuing, on)?;
                        if let Some(condition) = break_if.filter(|_| any(&on)) {
                            let condition = self.value(f, condition, &on)?;
                            join(&mut after, &both(&on, |i| condition.lane(i)[0] != 0));
                            on = both(&on, |i| condition.lane(i)[0] == 0);
                        }
                    }
                    active = on;
                }
                return Ok(after);
            }
            Statement::Break => {
                join(&mut f.exits.last_mut().expect("validated: inside a loop").0, &mask);
                return Ok(none());
            }
            Statement::Continue => {
                let inside = f.exits.iter_mut().rev().find(|e| e.2);
                join(&mut inside.expect("validated: inside a loop").1, &mask);
                return Ok(none());
            }
            Statement::Return { value } => {
                if let Some(value) = value {
                    let value = self.value(f, *value, &mask)?;
                    f.returned = Some(match (f.returned.take(), &*value) {
                        (Some(Value::Words { n, mut data }), Value::Words { data: new, .. }) => {
                            for i in (0..lanes).filter(|i| mask[*i]) {
                                data[i * n..][..n].copy_from_slice(&new[i * n..][..n]);
                            }
                            Value::Words { n, data }
                        }
                        _ => (*value).clone(),
                    });
                }
                return Ok(none());
            }
            Statement::ControlBarrier(Barrier::SUB_GROUP) => self.turn(&mask)?,
            Statement::ControlBarrier(barrier) => self.barrier(*barrier, &mask),
            Statement::MemoryBarrier(_) => {}
            Statement::Store { pointer, value } => {
                let pointer_value = self.value(f, *pointer, &mask)?;
                let value = self.value(f, *value, &mask)?;
                let leaves = self.pointee_leaves(f, *pointer);
                let (place, offsets) = pointer_of(&pointer_value);
                self.span = span;
                // An atomicStore is a Store through a pointer to an atomic.
                self.write(place, offsets, &leaves, &value, &mask, Access::Write);
            }
            Statement::Atomic { pointer, fun, value, result } => {
                self.atomic(f, *pointer, fun, *value, *result, &mask, span)?;
            }
            Statement::WorkGroupUniformLoad { pointer, result } => {
                self.barrier(Barrier::WORK_GROUP, &mask);
                let pointer_value = self.value(f, *pointer, &mask)?;
                let leaves = self.pointee_leaves(f, *pointer);
                let (place, offsets) = pointer_of(&pointer_value);
                self.span = span;
                let value = self.read(place, offsets, &leaves, &mask);
                f.values[result.index()] = Some(Rc::new(value));
                self.barrier(Barrier::WORK_GROUP, &mask);
            }
            Statement::Call { function, arguments, result } => {
                let mut values = Vec::new();
                for a in arguments {
                    values.push(self.value(f, *a, &mask)?);
                }
                let returned =
                    self.call(&module.functions[*function], &self.info[*function], values, &mask)?;
                if let (Some(result), Some(value)) = (result, returned) {
                    f.values[result.index()] = Some(Rc::new(value));
                }
            }
            Statement::SubgroupBallot { result, predicate } => {
                let predicate = predicate.map(|p| self.value(f, p, &mask)).transpose()?;
                let says = |i: usize| mask[i] && predicate.as_ref().is_none_or(|p| p.lane(i)[0] != 0);
                let size = self.subgroup_size()? as usize;
                let mut data = vec![0; 4 * lanes];
                for i in 0..lanes {
                    let first = i / size * size;
                    for j in (first..lanes.min(first + size)).filter(|j| says(*j)) {
                        data[4 * i + (j - first) / 32] |= 1 << ((j - first) % 32);
                    }
                }
                f.values[result.index()] = Some(Rc::new(Value::Words { n: 4, data }));
            }
            Statement::SubgroupCollectiveOperation { op, collective_op, argument, result } => {
                let value = self.value(f, *argument, &mask)?;
                let scalar = self.scalar_of(f, *argument)?;
                let value = self.collective(*op, *collective_op, scalar, &value, &mask)?;
                f.values[result.index()] = Some(Rc::new(value));
            }
            Statement::SubgroupGather { mode, argument, result } => {
                let value = self.value(f, *argument, &mask)?;
                let value = self.gather(f, mode, &value, &mask)?;
                f.values[result.index()] = Some(Rc::new(value));
            }
            other => {
                let name = format!("{other:?}");
                return unsupported(name.split([' ', '(']).next().unwrap_or_default());
            }
        }
        Ok(mask)
    }

    fn subgroup_size(&self) -> Run<u32> {
        self.subgroup.map_or_else(|| unsupported("subgroups where the device has none"), Ok)
    }

    /// What a subgroup's active invocations make of their values together.
    fn collective(
        &self,
        op: SubgroupOperation,
        how: CollectiveOperation,
        scalar: Scalar,
        value: &Value,
        mask: &Mask,
    ) -> Run<Value> {
        let (size, (n, _)) = (self.subgroup_size()? as usize, value.words());
        let mut data = vec![0; n * self.lanes];
        for lane in (0..self.lanes).filter(|l| mask[*l]) {
            let first = lane / size * size;
            let end = match how {
                CollectiveOperation::Reduce => self.lanes.min(first + size),
                CollectiveOperation::InclusiveScan => lane + 1,
                CollectiveOperation::ExclusiveScan => lane,
            };
            for k in 0..n {
                let mut each = (first..end).filter(|l| mask[*l]).map(|l| value.lane(l)[k]);
                let start = each.next().unwrap_or_else(|| scalar::identity(op, scalar));
                data[lane * n + k] = each.fold(start, |a, b| scalar::together(op, scalar, a, b));
            }
        }
        Ok(Value::Words { n, data })
    }

    /// What invocations take from others of their subgroup.
    fn gather(&mut self, f: &mut Frame<'a>, mode: &GatherMode, value: &Value, mask: &Mask) -> Run<Value> {
        let size = self.subgroup_size()? as usize;
        let index = match mode {
            GatherMode::BroadcastFirst | GatherMode::QuadSwap(_) => None,
            GatherMode::Broadcast(h)
            | GatherMode::Shuffle(h)
            | GatherMode::ShuffleDown(h)
            | GatherMode::ShuffleUp(h)
            | GatherMode::ShuffleXor(h)
            | GatherMode::QuadBroadcast(h) => Some(self.value(f, *h, mask)?),
        };
        let n = value.words().0;
        let mut data = vec![0; n * self.lanes];
        for lane in (0..self.lanes).filter(|l| mask[*l]) {
            let (first, own) = (lane / size * size, lane % size);
            let i = index.as_ref().map_or(0, |v| v.lane(lane)[0] as usize);
            let from = match mode {
                GatherMode::BroadcastFirst => {
                    (first..self.lanes.min(first + size)).find(|l| mask[*l]).map(|l| l - first)
                }
                GatherMode::Broadcast(_) | GatherMode::Shuffle(_) => Some(i),
                GatherMode::ShuffleDown(_) => own.checked_add(i),
                GatherMode::ShuffleUp(_) => own.checked_sub(i),
                GatherMode::ShuffleXor(_) => Some(own ^ i),
                GatherMode::QuadBroadcast(_) => Some(own / 4 * 4 + i),
                GatherMode::QuadSwap(Direction::X) => Some(own ^ 1),
                GatherMode::QuadSwap(Direction::Y) => Some(own ^ 2),
                GatherMode::QuadSwap(Direction::Diagonal) => Some(own ^ 3),
            };
            match from.filter(|i| *i < size && mask.get(first + i) == Some(&true)) {
                Some(i) => data[lane * n..][..n].copy_from_slice(value.lane(first + i)),
                None => self.find(Kind::Uninitialised, |m| {
                    let whom = from.map_or("none".into(), |i| i.to_string());
                    format!("{} takes from lane {whom} of its subgroup, which takes no part", m.who(lane))
                }),
            }
        }
        Ok(Value::Words { n, data })
    }

    fn barrier(&mut self, barrier: Barrier, mask: &Mask) {
        if let Some(missing) = mask.iter().position(|m| !m) {
            let reached = mask.iter().filter(|m| **m).count();
            self.find(Kind::Barrier, |m| {
                format!(
                    "{reached} of {} invocations reach this barrier, {} does not",
                    mask.len(),
                    m.who(missing)
                )
            });
        }
        self.epochs[0] += u32::from(barrier.contains(Barrier::WORK_GROUP));
        self.epochs[1] += u32::from(barrier.contains(Barrier::STORAGE));
    }

    /// Invocations that a barrier of a subgroup orders.
    fn crew(&self) -> usize {
        self.subgroup.map_or(1, |size| size as usize)
    }

    /// A barrier of the subgroups that reach it: it orders what they do in workgroup memory, as the engine has it.
    fn turn(&mut self, mask: &Mask) -> Run<()> {
        let size = self.subgroup_size()? as usize;
        for (crew, active) in mask.chunks(size).enumerate() {
            let Some(missing) = active.iter().position(|m| !m) else {
                self.turns[crew] += 1;
                continue;
            };
            let reached = active.iter().filter(|m| **m).count();
            if reached > 0 {
                self.find(Kind::Barrier, |m| {
                    let (all, who) = (active.len(), m.who(crew * size + missing));
                    format!("{reached} of {all} invocations of a subgroup reach this barrier, {who} does not")
                });
            }
        }
        Ok(())
    }

    fn pointee_leaves(&self, f: &Frame<'a>, pointer: Handle<Expression>) -> Vec<(u32, Scalar)> {
        match *f.info[pointer].ty.inner_with(&self.module.types) {
            TypeInner::Pointer { base, .. } => leaves(self.module, &self.module.types[base].inner),
            TypeInner::ValuePointer { size: Some(size), scalar, .. } => {
                leaves(self.module, &TypeInner::Vector { size, scalar })
            }
            TypeInner::ValuePointer { size: None, scalar, .. } => vec![(0, scalar)],
            _ => unreachable!("validated: a pointer"),
        }
    }

    fn epoch(&self, place: usize) -> u32 {
        let workgroup = self
            .globals
            .iter()
            .any(|(h, p)| *p == place && self.module.global_variables[*h].space == AddressSpace::WorkGroup);
        self.epochs[usize::from(!workgroup)]
    }

    /// Notes an access of one lane, and what is wrong with it.
    fn note(
        &mut self,
        place: usize,
        (offset, width): (u32, u8),
        lane: usize,
        access: Access,
        (epoch, line): (u32, u32),
    ) {
        let crew = lane / self.crew();
        let turn = self.turns[crew];
        let me =
            memory::Record { group: self.group, lane: lane as u32, epoch, crew: crew as u32, turn, line };
        let verdict = self.memories[place].note(offset, width, me, access);
        if verdict.unwritten {
            self.find(Kind::Uninitialised, |m| {
                format!("{} reads `{}` before anything is written there", m.who(lane), m.named(place, offset))
            });
        }
        if let Some((other, theirs)) = verdict.race {
            self.find(Kind::Race, |m| {
                let (group, why) = if other.group == m.group {
                    ("the same workgroup".into(), "no barrier lies between")
                } else {
                    (format!("workgroup {}", other.group), "nothing orders workgroups")
                };
                format!(
                    "{} {} `{}`, which invocation {} of {group} {} in line {}: {why}",
                    m.who(lane),
                    access.now(),
                    m.named(place, offset),
                    other.lane,
                    theirs.before(),
                    other.line
                )
            });
        }
    }

    fn read(&mut self, place: usize, offsets: &[u32], leaves: &[(u32, Scalar)], mask: &Mask) -> Value {
        let n = leaves.len();
        let mut data = vec![0; n * self.lanes];
        let watched = self.memories[place].is_watched();
        let when = (self.epoch(place), self.line());
        for o in 0..self.lanes {
            let lane = self.order[o];
            if !mask[lane] || offsets[lane] == OUTSIDE {
                continue;
            }
            for (k, (at, scalar)) in leaves.iter().enumerate() {
                if watched {
                    self.note(place, (offsets[lane] + at, scalar.width), lane, Access::Read, when);
                }
                data[lane * n + k] = self.memories[place].load(lane, offsets[lane] + at, *scalar);
            }
        }
        Value::Words { n, data }
    }

    fn write(
        &mut self,
        place: usize,
        offsets: &[u32],
        leaves: &[(u32, Scalar)],
        value: &Value,
        mask: &Mask,
        access: Access,
    ) {
        let watched = self.memories[place].is_watched();
        let when = (self.epoch(place), self.line());
        for o in 0..self.lanes {
            let lane = self.order[o];
            if !mask[lane] || offsets[lane] == OUTSIDE {
                continue;
            }
            for (k, (at, scalar)) in leaves.iter().enumerate() {
                if watched {
                    self.note(place, (offsets[lane] + at, scalar.width), lane, access, when);
                }
                self.memories[place].store(lane, offsets[lane] + at, *scalar, value.lane(lane)[k]);
            }
        }
    }

    fn atomic(
        &mut self,
        f: &mut Frame<'a>,
        pointer: Handle<Expression>,
        fun: &naga::AtomicFunction,
        value: Handle<Expression>,
        result: Option<Handle<Expression>>,
        mask: &Mask,
        span: Span,
    ) -> Run<()> {
        let pointer_value = self.value(f, pointer, mask)?;
        let value = self.value(f, value, mask)?;
        let compare = match fun {
            naga::AtomicFunction::Exchange { compare: Some(c) } => Some(self.value(f, *c, mask)?),
            _ => None,
        };
        let scalar = self.pointee_leaves(f, pointer)[0].1;
        if scalar.width != 4 {
            return unsupported("64-bit atomics");
        }
        let (place, offsets) = pointer_of(&pointer_value);
        self.span = span;
        let when = (self.epoch(place), self.line());
        let n = 1 + usize::from(compare.is_some());
        let mut data = vec![0; self.lanes * n];
        for o in 0..self.lanes {
            let lane = self.order[o];
            if !mask[lane] || offsets[lane] == OUTSIDE {
                continue;
            }
            let at = offsets[lane];
            if self.memories[place].is_watched() {
                self.note(place, (at, scalar.width), lane, Access::Update, when);
            }
            let old = self.memories[place].load(lane, at, scalar);
            let exchanged = compare.as_ref().is_none_or(|c| c.lane(lane)[0] == old);
            if exchanged {
                let new = scalar::atomic(fun, scalar.kind, old, value.lane(lane)[0]);
                self.memories[place].store(lane, at, scalar, new);
            }
            data[lane * n] = old;
            if n == 2 {
                data[lane * n + 1] = u32::from(exchanged);
            }
        }
        if let Some(result) = result {
            f.values[result.index()] = Some(Rc::new(Value::Words { n, data }));
        }
        Ok(())
    }

    /// The words of a module-scope expression.
    fn constant(&self, h: Handle<Expression>) -> Run<Vec<u32>> {
        Ok(match &self.module.global_expressions[h] {
            Expression::Literal(l) => vec![scalar::literal(*l).ok_or_else(|| wide("a literal"))?],
            Expression::Constant(c) => self.constant(self.module.constants[*c].init)?,
            Expression::ZeroValue(ty) => {
                vec![0; leaves(self.module, &self.module.types[*ty].inner).len()]
            }
            Expression::Compose { components, .. } => {
                let parts: Run<Vec<_>> = components.iter().map(|c| self.constant(*c)).collect();
                parts?.concat()
            }
            Expression::Splat { size, value } => self.constant(*value)?.repeat(*size as usize),
            other => return unsupported(format!("the constant {other:?}")),
        })
    }

    /// The value of an expression, computed where it is not known yet.
    fn value(&mut self, f: &mut Frame<'a>, h: Handle<Expression>, mask: &Mask) -> Run<Rc<Value>> {
        if let Some(value) = &f.values[h.index()] {
            return Ok(value.clone());
        }
        let value = Rc::new(self.evaluate(f, h, mask)?);
        f.values[h.index()] = Some(value.clone());
        Ok(value)
    }

    fn inner<'f>(&'f self, f: &'f Frame<'a>, h: Handle<Expression>) -> &'f TypeInner {
        f.info[h].ty.inner_with(&self.module.types)
    }

    fn scalar_of(&self, f: &Frame<'a>, h: Handle<Expression>) -> Run<Scalar> {
        match self.inner(f, h).scalar() {
            Some(s) if s.width <= 4 => Ok(s),
            Some(_) => Err(wide("arithmetic")),
            None => unsupported("arithmetic on this type"),
        }
    }

    fn evaluate(&mut self, f: &mut Frame<'a>, h: Handle<Expression>, mask: &Mask) -> Run<Value> {
        let (module, lanes) = (self.module, self.lanes);
        Ok(match &f.function.expressions[h] {
            Expression::Literal(l) => {
                Value::uniform(&[scalar::literal(*l).ok_or_else(|| wide("a literal"))?], lanes)
            }
            Expression::Constant(c) => Value::uniform(&self.constant(module.constants[*c].init)?, lanes),
            Expression::ZeroValue(ty) => {
                Value::uniform(&vec![0; leaves(module, &module.types[*ty].inner).len()], lanes)
            }
            Expression::Compose { components, .. } => {
                let mut parts = Vec::new();
                for c in components {
                    parts.push(self.value(f, *c, mask)?);
                }
                let n = parts.iter().map(|p| p.words().0).sum();
                let data =
                    (0..lanes).flat_map(|i| parts.iter().flat_map(move |p| p.lane(i))).copied().collect();
                Value::Words { n, data }
            }
            Expression::Splat { size, value } => {
                let value = self.value(f, *value, mask)?;
                let n = *size as usize;
                Value::Words { n, data: (0..lanes * n).map(|i| value.lane(i / n)[0]).collect() }
            }
            Expression::Swizzle { size, vector, pattern } => {
                let vector = self.value(f, *vector, mask)?;
                let n = *size as usize;
                let data = (0..lanes * n).map(|i| vector.lane(i / n)[pattern[i % n] as usize]).collect();
                Value::Words { n, data }
            }
            Expression::FunctionArgument(i) => (*f.arguments[*i as usize]).clone(),
            Expression::GlobalVariable(g) => {
                let Some(place) = self.globals.get(g) else { return unsupported("this variable") };
                Value::Pointer { place: *place, offsets: vec![0; lanes] }
            }
            Expression::LocalVariable(l) => {
                Value::Pointer { place: f.locals + l.index(), offsets: vec![0; lanes] }
            }
            Expression::Load { pointer } => {
                let pointer_value = self.value(f, *pointer, mask)?;
                let leaves = self.pointee_leaves(f, *pointer);
                let (place, offsets) = pointer_of(&pointer_value);
                self.read(place, offsets, &leaves, mask)
            }
            Expression::Access { base, index } => self.access(f, *base, *index, mask)?,
            Expression::AccessIndex { base, index } => self.access_index(f, *base, *index, mask)?,
            Expression::Unary { op, expr } => {
                let scalar = self.scalar_of(f, *expr)?;
                let value = self.value(f, *expr, mask)?;
                let (n, data) = value.words();
                Value::Words { n, data: data.iter().map(|v| scalar::unary(*op, scalar, *v)).collect() }
            }
            Expression::Binary { op, left, right } => {
                let scalar = self.scalar_of(f, *left)?;
                let (l, r) = (self.value(f, *left, mask)?, self.value(f, *right, mask)?);
                let shapes = (self.inner(f, *left).clone(), self.inner(f, *right).clone());
                self.binary(*op, scalar, &shapes, &l, &r)
            }
            Expression::Select { condition, accept, reject } => {
                let condition = self.value(f, *condition, mask)?;
                let (a, r) = (self.value(f, *accept, mask)?, self.value(f, *reject, mask)?);
                let (n, wide) = (a.words().0, condition.words().0 > 1);
                let pick = |i: usize| {
                    let (lane, k) = (i / n, i % n);
                    let yes = condition.lane(lane)[if wide { k } else { 0 }] != 0;
                    if yes { a.lane(lane)[k] } else { r.lane(lane)[k] }
                };
                Value::Words { n, data: (0..lanes * n).map(pick).collect() }
            }
            Expression::Relational { fun, argument } => {
                let scalar = self.scalar_of(f, *argument)?;
                let value = self.value(f, *argument, mask)?;
                use naga::RelationalFunction as R;
                let (n, data) = value.words();
                match fun {
                    R::All | R::Any => Value::scalar(
                        (0..lanes)
                            .map(|i| {
                                let mut lane = value.lane(i).iter().map(|v| *v != 0);
                                u32::from(if *fun == R::All { lane.all(|v| v) } else { lane.any(|v| v) })
                            })
                            .collect(),
                    ),
                    R::IsNan | R::IsInf => {
                        let test = |v: &u32| {
                            let v = scalar::float(scalar, *v);
                            u32::from(if *fun == R::IsNan { v.is_nan() } else { v.is_infinite() })
                        };
                        Value::Words { n, data: data.iter().map(test).collect() }
                    }
                }
            }
            Expression::Math { fun, arg, arg1, arg2, arg3 } => {
                let scalar = self.scalar_of(f, *arg)?;
                let mut arguments = Vec::new();
                for a in [Some(*arg), *arg1, *arg2, *arg3].into_iter().flatten() {
                    arguments.push(self.value(f, a, mask)?);
                }
                let (n, data) = {
                    let slices: Vec<(usize, &[u32])> = arguments.iter().map(|a| a.words()).collect();
                    match scalar::math(*fun, scalar, lanes, &slices, self.inner(f, *arg)) {
                        Some(done) => done,
                        None => return unsupported(format!("{fun:?}")),
                    }
                };
                Value::Words { n, data }
            }
            Expression::As { expr, kind, convert } => {
                let from = self.scalar_of(f, *expr)?;
                let value = self.value(f, *expr, mask)?;
                let (n, data) = value.words();
                match convert {
                    Some(width) if *width <= 4 => {
                        let to = Scalar { kind: *kind, width: *width };
                        let data = data.iter().map(|v| scalar::convert(from, to, *v)).collect();
                        Value::Words { n, data }
                    }
                    None if from.width == 4 => (*value).clone(),
                    _ => return Err(wide("a conversion")),
                }
            }
            Expression::ArrayLength(pointer) => {
                let pointer_value = self.value(f, *pointer, mask)?;
                let (place, offsets) = pointer_of(&pointer_value);
                let TypeInner::Pointer { base, .. } = *self.inner(f, *pointer) else {
                    unreachable!("validated: a pointer")
                };
                let TypeInner::Array { stride, .. } = module.types[base].inner else {
                    unreachable!("validated: an array")
                };
                let bytes = self.memories[place].bytes.len() as u32;
                Value::scalar(offsets.iter().map(|o| (bytes - o) / stride).collect())
            }
            other => {
                let name = format!("{other:?}");
                return unsupported(name.split([' ', '(', '{']).next().unwrap_or_default());
            }
        })
    }

    /// `base[index]`, whose index is checked.
    fn access(
        &mut self,
        f: &mut Frame<'a>,
        base: Handle<Expression>,
        index: Handle<Expression>,
        mask: &Mask,
    ) -> Run<Value> {
        let module = self.module;
        let (base_value, index_value) = (self.value(f, base, mask)?, self.value(f, index, mask)?);
        let signed = self.scalar_of(f, index)?.kind == ScalarKind::Sint;
        let base_inner = self.inner(f, base).clone();
        let (pointee, by_pointer) = match base_inner {
            TypeInner::Pointer { base, .. } => (module.types[base].inner.clone(), true),
            TypeInner::ValuePointer { size: Some(size), scalar, .. } => {
                (TypeInner::Vector { size, scalar }, true)
            }
            inner => (inner, false),
        };
        let (stride, count, words) = match pointee {
            TypeInner::Array { base, size, stride } => {
                let count = match size {
                    ArraySize::Constant(n) => Some(n.get()),
                    ArraySize::Pending(_) => return unsupported("an array whose size is an override"),
                    ArraySize::Dynamic => None,
                };
                (stride, count, leaves(module, &module.types[base].inner).len())
            }
            TypeInner::Vector { size, scalar } => (u32::from(scalar.width), Some(size as u32), 1),
            TypeInner::Matrix { columns, rows, scalar } => {
                (memory::column_stride(rows, scalar), Some(columns as u32), rows as usize)
            }
            _ => return unsupported("an index into this type"),
        };
        let exact = self.leaves_32_bits(f, index);
        let mut offsets = vec![OUTSIDE; self.lanes];
        for lane in (0..self.lanes).filter(|l| mask[*l]) {
            let i = index_value.lane(lane)[0];
            let (start, name, count) = match &*base_value {
                Value::Pointer { place, offsets } => {
                    let memory = &self.memories[*place];
                    let rest = (memory.bytes.len() as u32).saturating_sub(offsets[lane]);
                    (offsets[lane], memory.name.clone(), count.unwrap_or(rest / stride))
                }
                Value::Words { .. } => (0, "a value".into(), count.unwrap_or(0)),
            };
            if start == OUTSIDE {
                continue;
            }
            let shown = if signed { i64::from(i as i32) } else { i64::from(i) };
            if i >= count || (signed && (i as i32) < 0) {
                self.find(Kind::Bounds, |m| {
                    format!("{}: index {shown} of `{name}`, which has {count} elements", m.who(lane))
                });
                continue;
            }
            if exact {
                let meant = self.exactly(f, index, lane);
                if meant != i128::from(shown) {
                    self.find(Kind::Wrap, |m| {
                        format!(
                            "{}: the index of `{name}` would be {meant}, and wrapped to {shown} at 32 bits",
                            m.who(lane)
                        )
                    });
                }
            }
            offsets[lane] = start + i * stride;
        }
        Ok(match &*base_value {
            Value::Pointer { place, .. } => Value::Pointer { place: *place, offsets },
            Value::Words { .. } => {
                debug_assert!(!by_pointer);
                let mut data = vec![0; self.lanes * words];
                for lane in (0..self.lanes).filter(|l| mask[*l] && offsets[*l] != OUTSIDE) {
                    let i = index_value.lane(lane)[0] as usize;
                    data[lane * words..][..words]
                        .copy_from_slice(&base_value.lane(lane)[i * words..][..words]);
                }
                Value::Words { n: words, data }
            }
        })
    }

    /// Whether the arithmetic of an index could leave 32 bits at all.
    fn leaves_32_bits(&self, f: &Frame<'a>, h: Handle<Expression>) -> bool {
        use naga::BinaryOperator as B;
        match &f.function.expressions[h] {
            Expression::Binary { op: B::Add | B::Subtract | B::Multiply, .. } => true,
            Expression::Binary { op: B::Divide | B::Modulo, left, right } => {
                self.leaves_32_bits(f, *left) || self.leaves_32_bits(f, *right)
            }
            _ => false,
        }
    }

    /// An index as if integers had no end.
    fn exactly(&self, f: &Frame<'a>, h: Handle<Expression>, lane: usize) -> i128 {
        use naga::BinaryOperator as B;
        let own = || {
            let v = f.values[h.index()].as_ref().map_or(0, |v| v.lane(lane)[0]);
            let signed = self.inner(f, h).scalar_kind() == Some(ScalarKind::Sint);
            if signed { i128::from(v as i32) } else { i128::from(v) }
        };
        let Expression::Binary { op, left, right } = &f.function.expressions[h] else { return own() };
        let sides = || (self.exactly(f, *left, lane), self.exactly(f, *right, lane));
        match op {
            B::Add => {
                let (l, r) = sides();
                l.saturating_add(r)
            }
            B::Subtract => {
                let (l, r) = sides();
                l.saturating_sub(r)
            }
            B::Multiply => {
                let (l, r) = sides();
                l.saturating_mul(r)
            }
            B::Divide => {
                let (l, r) = sides();
                if r == 0 { own() } else { l / r }
            }
            B::Modulo => {
                let (l, r) = sides();
                if r == 0 { own() } else { l % r }
            }
            _ => own(),
        }
    }

    fn access_index(
        &mut self,
        f: &mut Frame<'a>,
        base: Handle<Expression>,
        index: u32,
        mask: &Mask,
    ) -> Run<Value> {
        let module = self.module;
        let base_value = self.value(f, base, mask)?;
        let pointee = match self.inner(f, base).clone() {
            TypeInner::Pointer { base, .. } => module.types[base].inner.clone(),
            TypeInner::ValuePointer { size: Some(size), scalar, .. } => TypeInner::Vector { size, scalar },
            inner => inner,
        };
        let count_of = |ty: Handle<Type>| leaves(module, &module.types[ty].inner).len();
        // In bytes behind a pointer, in words of a value: (offset, first word, words).
        let (offset, first, words) = match &pointee {
            TypeInner::Struct { members, .. } => (
                members[index as usize].offset,
                members[..index as usize].iter().map(|m| count_of(m.ty)).sum(),
                count_of(members[index as usize].ty),
            ),
            TypeInner::Array { base, stride, .. } => {
                let n = count_of(*base);
                (index * stride, index as usize * n, n)
            }
            TypeInner::Vector { scalar, .. } => (index * u32::from(scalar.width), index as usize, 1),
            TypeInner::Matrix { rows, scalar, .. } => {
                let n = *rows as usize;
                (index * memory::column_stride(*rows, *scalar), index as usize * n, n)
            }
            _ => return unsupported("a member of this type"),
        };
        Ok(match &*base_value {
            Value::Pointer { place, offsets } => {
                let end = self.memories[*place].per_lane();
                let runtime = matches!(pointee, TypeInner::Array { size: ArraySize::Dynamic, .. });
                let moved: Vec<u32> =
                    offsets
                        .iter()
                        .map(|o| {
                            if *o == OUTSIDE || (runtime && o + offset >= end) { OUTSIDE } else { o + offset }
                        })
                        .collect();
                if let Some(lane) = (0..self.lanes).find(|l| mask[*l] && runtime && moved[*l] == OUTSIDE) {
                    let name = self.memories[*place].name.clone();
                    self.find(Kind::Bounds, |m| {
                        format!("{}: index {index} of `{name}`, which has fewer elements", m.who(lane))
                    });
                }
                Value::Pointer { place: *place, offsets: moved }
            }
            Value::Words { .. } => {
                let data = (0..self.lanes).flat_map(|l| &base_value.lane(l)[first..first + words]);
                Value::Words { n: words, data: data.copied().collect() }
            }
        })
    }

    fn binary(
        &self,
        op: naga::BinaryOperator,
        scalar: Scalar,
        (left, right): &(TypeInner, TypeInner),
        l: &Value,
        r: &Value,
    ) -> Value {
        use naga::BinaryOperator as B;
        let lanes = self.lanes;
        // (columns, rows) of a matrix; a vector on the left is a row, on the right a column.
        let matrix = |t: &TypeInner| match t {
            TypeInner::Matrix { columns, rows, .. } => Some((*columns as usize, *rows as usize)),
            _ => None,
        };
        let vector = |t: &TypeInner| matches!(t, TypeInner::Vector { .. });
        let (nl, nr) = (l.words().0, r.words().0);
        if op == B::Multiply && (matrix(left).is_some() || matrix(right).is_some()) {
            let shapes = match (matrix(left), matrix(right)) {
                (Some(a), Some(b)) => Some((a, b)),
                (Some(a), None) if vector(right) => Some((a, (1, nr))),
                (None, Some(b)) if vector(left) => Some(((nl, 1), b)),
                _ => None,
            };
            if let Some(((inner, rows), (columns, _))) = shapes {
                let mut data = Vec::with_capacity(lanes * rows * columns);
                for lane in 0..lanes {
                    let (a, b) = (l.lane(lane), r.lane(lane));
                    for c in 0..columns {
                        for row in 0..rows {
                            let product = |k: usize| {
                                scalar::binary(B::Multiply, scalar, a[k * rows + row], b[c * inner + k])
                            };
                            let sum = |s, k| scalar::binary(B::Add, scalar, s, product(k));
                            data.push((1..inner).fold(product(0), sum));
                        }
                    }
                }
                return Value::Words { n: rows * columns, data };
            }
        }
        let n = nl.max(nr);
        let mut data = Vec::with_capacity(lanes * n);
        for lane in 0..lanes {
            let (a, b) = (l.lane(lane), r.lane(lane));
            for k in 0..n {
                data.push(scalar::binary(
                    op,
                    scalar,
                    a[if nl == 1 { 0 } else { k }],
                    b[if nr == 1 { 0 } else { k }],
                ));
            }
        }
        Value::Words { n, data }
    }
}

fn wide(what: &str) -> Stop {
    Stop::Unsupported(format!("{what} wider than 32 bits"))
}

fn pointer_of(value: &Value) -> (usize, &[u32]) {
    match value {
        Value::Pointer { place, offsets } => (*place, offsets),
        Value::Words { .. } => unreachable!("validated: a value is no pointer"),
    }
}
