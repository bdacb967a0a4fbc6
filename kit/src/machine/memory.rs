//! Variables' bytes, and for those that invocations share who touched what.

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

/// The last access of a kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    pub group: u32,
    /// Plus one; none where 0.
    lane1: u32,
    pub lane: u32,
    epoch: u32,
    pub line: u32,
    /// Others of its workgroup came in the same epoch.
    other_lane: bool,
    /// Others came from another workgroup.
    other_group: bool,
}

impl Record {
    pub fn new(group: u32, lane: u32, epoch: u32, line: u32) -> Record {
        Record { group, lane1: lane + 1, lane, epoch, line, other_lane: false, other_group: false }
    }

    /// Whether `me` is not ordered after it.
    fn meets(&self, me: &Record) -> bool {
        self.lane1 != 0
            && (self.other_group
                || self.group != me.group
                || (self.epoch == me.epoch && (self.other_lane || self.lane != me.lane)))
    }

    fn follow(&mut self, me: Record) {
        let known = self.lane1 != 0;
        let same = known && self.group == me.group;
        let together = same && self.epoch == me.epoch;
        let other_lane = together && (self.other_lane || self.lane != me.lane);
        let other_group = known && (self.other_group || !same);
        *self = Record { other_lane, other_group, ..me };
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
    read: Record,
    write: Record,
    update: Record,
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
    /// Whether it begins unwritten.
    blank: bool,
}

impl Memory {
    pub fn new(name: String, bytes: Vec<u8>, own: Option<usize>) -> Memory {
        Memory { name, bytes, own, cells: Vec::new(), granule: 4, blank: false }
    }

    /// Shared by invocations that write, in scalars of `granule` bytes at least; `blank` where it holds nothing yet.
    pub fn watched(mut self, watched: bool, granule: usize, blank: bool) -> Memory {
        self.granule = granule;
        if watched {
            self.cells = vec![Cell { written: !blank, ..Cell::default() }; self.bytes.len().div_ceil(granule)];
        }
        self.blank = blank;
        self
    }

    pub fn is_watched(&self) -> bool {
        !self.cells.is_empty()
    }

    /// For the next workgroup.
    pub fn restart(&mut self) {
        self.bytes.fill(0);
        self.cells.fill(Cell { written: !self.blank, ..Cell::default() });
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
        let against = match access {
            Access::Read => [Some((cell.write, Access::Write)), Some((cell.update, Access::Update)), None],
            Access::Write => [
                Some((cell.write, Access::Write)),
                Some((cell.update, Access::Update)),
                Some((cell.read, Access::Read)),
            ],
            Access::Update => [Some((cell.write, Access::Write)), Some((cell.read, Access::Read)), None],
        };
        let race = against.into_iter().flatten().find(|(record, _)| record.meets(&me));
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
