//! Variables' bytes, and for those that invocations share who touched what.

use std::ops::Range;

use naga::{Module, Scalar, TypeInner, VectorSize};

/// How an access touches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    /// An atomic read, change and write: these commute, so they are ordered against reads and writes alone.
    Update,
}

impl Access {
    pub fn now(self) -> &'static str {
        match self {
            Access::Read => "reads",
            Access::Write => "writes",
            Access::Update => "updates",
        }
    }

    pub fn before(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::Write => "wrote",
            Access::Update => "updated",
        }
    }
}

/// Who touched a place, when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub group: u32,
    pub lane: u32,
    /// Barriers of its workgroup before it.
    pub epoch: u32,
    /// Its subgroup, and barriers of that alone before it. Where there are no subgroups each invocation is one.
    pub crew: u32,
    pub turn: u32,
    pub line: u32,
}

impl Record {
    /// Whether nothing orders `me` after it.
    fn meets(&self, me: &Record) -> bool {
        let ordered =
            self.epoch != me.epoch || self.lane == me.lane || (self.crew == me.crew && self.turn != me.turn);
        self.group != me.group || !ordered
    }
}

/// The last accesses of a kind: all that can still meet somebody.
#[derive(Clone, Copy, Debug, Default)]
struct Trace {
    last: Option<Record>,
    /// The last by another invocation than that.
    other: Option<Record>,
    /// The last by another subgroup of its workgroup than that.
    beside: Option<Record>,
    /// The last of another workgroup than that.
    foreign: Option<Record>,
}

impl Trace {
    fn meets(&self, me: &Record) -> Option<Record> {
        [self.last, self.other, self.beside, self.foreign].into_iter().flatten().find(|r| r.meets(me))
    }

    fn follow(&mut self, me: Record) {
        if let Some(last) = self.last {
            if last.group != me.group {
                self.foreign = Some(last);
            }
            if (last.group, last.crew) != (me.group, me.crew) {
                self.beside = Some(last);
            }
            if (last.group, last.lane) != (me.group, me.lane) {
                self.other = Some(last);
            }
        }
        self.last = Some(me);
    }
}

/// What is wrong with an access.
pub(super) struct Verdict {
    pub unwritten: bool,
    /// With whom, and what they did.
    pub race: Option<(Record, Access)>,
}

#[derive(Clone, Default)]
struct Cell {
    written: bool,
    read: Trace,
    write: Trace,
    update: Trace,
}

/// One variable.
pub(super) struct Memory {
    pub name: String,
    pub bytes: Vec<u8>,
    /// Bytes of one lane, where each has its own.
    own: Option<usize>,
    /// For every scalar of the smallest kind there is.
    cells: Vec<Cell>,
    granule: usize,
}

impl Memory {
    pub fn new(name: String, bytes: Vec<u8>, own: Option<usize>) -> Memory {
        Memory { name, bytes, own, cells: Vec::new(), granule: 4 }
    }

    /// Watches it, in scalars of `granule` bytes at least; `holes` hold nothing yet.
    pub fn watched(mut self, granule: usize, holes: &[Range<u32>]) -> Memory {
        self.granule = granule;
        self.cells = vec![Cell { written: true, ..Cell::default() }; self.bytes.len().div_ceil(granule)];
        for hole in holes {
            let end = (hole.end as usize).div_ceil(granule).min(self.cells.len());
            let cells = self.cells.get_mut(hole.start as usize / granule..end);
            cells.into_iter().flatten().for_each(|c| c.written = false);
        }
        self
    }

    /// What still holds nothing.
    pub fn holes(&self) -> Vec<Range<u32>> {
        let mut holes: Vec<Range<u32>> = Vec::new();
        for (i, _) in self.cells.iter().enumerate().filter(|(_, c)| !c.written) {
            let cell = (i * self.granule) as u32..((i + 1) * self.granule) as u32;
            match holes.last_mut().filter(|last| last.end == cell.start) {
                Some(last) => last.end = cell.end,
                None => holes.push(cell),
            }
        }
        holes
    }

    pub fn is_watched(&self) -> bool {
        !self.cells.is_empty()
    }

    /// For the next workgroup: nothing is written yet.
    pub fn restart(&mut self, poison: u32) {
        self.bytes.chunks_mut(4).for_each(|word| word.copy_from_slice(&poison.to_le_bytes()[..word.len()]));
        self.cells.fill(Cell::default());
    }

    /// Bytes that one lane sees.
    pub fn per_lane(&self) -> u32 {
        self.own.unwrap_or(self.bytes.len()) as u32
    }

    pub fn is_written(&self, offset: u32) -> bool {
        self.cells.get(offset as usize / self.granule).is_none_or(|c| c.written)
    }

    pub fn note(&mut self, offset: u32, width: u8, me: Record, access: Access) -> Verdict {
        let first = offset as usize / self.granule;
        let cell = &mut self.cells[first];
        let unwritten = access != Access::Write && !cell.written;
        let against: &[(Trace, Access)] = match access {
            Access::Read => &[(cell.write, Access::Write), (cell.update, Access::Update)],
            Access::Update => &[(cell.write, Access::Write), (cell.read, Access::Read)],
            Access::Write => {
                &[(cell.write, Access::Write), (cell.update, Access::Update), (cell.read, Access::Read)]
            }
        };
        let race = against.iter().find_map(|(trace, theirs)| Some((trace.meets(&me)?, *theirs)));
        match access {
            Access::Read => cell.read.follow(me),
            Access::Write => cell.write.follow(me),
            Access::Update => cell.update.follow(me),
        }
        if access != Access::Read {
            let covered = usize::from(width) / self.granule;
            self.cells[first..][..covered.max(1)].iter_mut().for_each(|c| c.written = true);
        }
        Verdict { unwritten, race }
    }

    fn at(&self, lane: usize, offset: u32) -> usize {
        lane * self.own.unwrap_or(0) + offset as usize
    }

    pub fn load(&self, lane: usize, offset: u32, scalar: Scalar) -> u32 {
        let at = self.at(lane, offset);
        let mut word = [0; 4];
        let width = usize::from(scalar.width.min(4));
        if let Some(bytes) = self.bytes.get(at..at + width) {
            word[..width].copy_from_slice(bytes);
        }
        u32::from_le_bytes(word)
    }

    pub fn store(&mut self, lane: usize, offset: u32, scalar: Scalar, value: u32) {
        let at = self.at(lane, offset);
        let width = usize::from(scalar.width.min(4));
        if let Some(bytes) = self.bytes.get_mut(at..at + width) {
            bytes.copy_from_slice(&value.to_le_bytes()[..width]);
        }
    }
}

/// Bytes from one column of a matrix to the next.
pub(super) fn column_stride(rows: VectorSize, scalar: Scalar) -> u32 {
    u32::from(scalar.width) * if rows == VectorSize::Bi { 2 } else { 4 }
}

/// Bytes of the narrowest scalar of a type.
pub(super) fn narrowest(module: &Module, inner: &TypeInner) -> usize {
    match *inner {
        TypeInner::Array { base, .. } => narrowest(module, &module.types[base].inner),
        TypeInner::Struct { ref members, .. } => {
            let each = members.iter().map(|m| narrowest(module, &module.types[m.ty].inner));
            each.min().unwrap_or(4)
        }
        ref inner => inner.scalar().map_or(4, |s| usize::from(s.width.clamp(1, 4))),
    }
}

/// The scalars of a type, each with its offset in bytes.
pub(crate) fn leaves(module: &Module, inner: &TypeInner) -> Vec<(u32, Scalar)> {
    let within = |ty, offset: u32, all: &mut Vec<(u32, Scalar)>| {
        let inner: &TypeInner = &module.types[ty].inner;
        all.extend(leaves(module, inner).into_iter().map(|(at, s)| (at + offset, s)));
    };
    match *inner {
        TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) => vec![(0, scalar)],
        TypeInner::Vector { size, scalar } => {
            (0..size as u32).map(|i| (i * u32::from(scalar.width), scalar)).collect()
        }
        TypeInner::Matrix { columns, rows, scalar } => {
            let (columns, rows_count) = (columns as u32, rows as u32);
            let stride = column_stride(rows, scalar);
            (0..columns * rows_count)
                .map(|i| (i / rows_count * stride + i % rows_count * u32::from(scalar.width), scalar))
                .collect()
        }
        TypeInner::Array { base, size: naga::ArraySize::Constant(n), stride } => {
            let mut all = Vec::new();
            (0..n.get()).for_each(|i| within(base, i * stride, &mut all));
            all
        }
        TypeInner::Struct { ref members, .. } => {
            let mut all = Vec::new();
            members.iter().for_each(|m| within(m.ty, m.offset, &mut all));
            all
        }
        _ => Vec::new(),
    }
}

/// The place that lies `offset` bytes into a variable, as WGSL writes it: `[3].position.x`.
pub(super) fn path(module: &Module, inner: &TypeInner, offset: u32) -> String {
    let within = |ty, offset| path(module, &module.types[ty].inner, offset);
    match *inner {
        TypeInner::Array { base, stride, .. } => {
            format!("[{}]{}", offset / stride, within(base, offset % stride))
        }
        TypeInner::Struct { ref members, .. } => {
            let member = members.iter().rev().find(|m| m.offset <= offset);
            member.map_or(String::new(), |m| {
                format!(".{}{}", m.name.as_deref().unwrap_or("?"), within(m.ty, offset - m.offset))
            })
        }
        TypeInner::Vector { scalar, .. } => {
            let i = offset / u32::from(scalar.width);
            format!(".{}", ["x", "y", "z", "w"][i.min(3) as usize])
        }
        TypeInner::Matrix { rows, scalar, .. } => {
            let stride = column_stride(rows, scalar);
            format!("[{}][{}]", offset / stride, offset % stride / u32::from(scalar.width))
        }
        _ => String::new(),
    }
}
