//! Launches as they were, kept for those who run them again: the tests do so on the kit's abstract machine.

use std::{mem, ops::Range};

use super::{Gpu, Operand, Storage, launch::Pipeline, lock};
use crate::Error;

/// What happened to memory, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// A buffer was taken from the pool: it holds nothing yet, whatever lies there.
    Taken {
        /// Its number.
        buffer: u64,
    },
    /// The host wrote a part of a buffer.
    Written {
        /// Its number.
        buffer: u64,
        /// Where.
        bytes: Range<u64>,
    },
    /// The host read a part of a buffer.
    Read {
        /// Its number.
        buffer: u64,
        /// Where.
        bytes: Range<u64>,
    },
    /// A kernel ran.
    Launched(Dispatch),
}

/// One launch, as the device got it.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The kernel's stem.
    pub stem: &'static str,
    /// What was set in it, as [`Gpu::kernels`] names it.
    pub variant: String,
    /// WGSL with its libraries, specialised.
    pub source: String,
    /// The bytes of `struct Params`, which is binding 0, where the kernel has one.
    pub params: Option<Vec<u8>>,
    /// The storage bindings.
    pub operands: Vec<Binding>,
    /// Workgroups along x, y and z.
    pub groups: [u32; 3],
}

/// One storage binding of a launch, in group 0.
#[derive(Clone, Debug)]
pub struct Binding {
    /// As the kernel calls it.
    pub name: String,
    /// Its number there.
    pub binding: u32,
    /// The buffer's number.
    pub buffer: u64,
    /// What is bound of it.
    pub bytes: Range<u64>,
    /// What it held before the launch.
    pub before: Vec<u8>,
    /// What it held after it, where the kernel may write it.
    pub after: Option<Vec<u8>>,
}

impl Gpu {
    /// Keeps what happens to memory from now on, or stops and forgets. Every launch is waited for and its operands are
    /// read back, before and after: for tests of small shapes.
    pub fn capture(&self, on: bool) {
        *lock(&self.0.captured) = on.then(Vec::new);
    }

    /// What happened since the last call.
    pub fn captured(&self) -> Vec<Event> {
        lock(&self.0.captured).as_mut().map_or_else(Vec::new, mem::take)
    }

    pub(super) fn note(&self, event: impl FnOnce() -> Event) {
        if let Some(events) = lock(&self.0.captured).as_mut() {
            events.push(event());
        }
    }

    pub(super) fn note_written(&self, storage: &Storage, offset: u64, size: usize) {
        let bytes = offset..offset + (size as u64).next_multiple_of(4);
        self.note(|| Event::Written { buffer: storage.id, bytes });
    }

    pub(super) fn note_read(&self, operand: &Operand) {
        let bytes = operand.offset..operand.offset + operand.size;
        self.note(|| Event::Read { buffer: operand.storage.id, bytes });
    }

    /// Records a launch by `record`, and keeps it.
    pub(super) fn captured_launch(
        &self,
        (stem, variant, source): (&'static str, String, String),
        pipeline: &Pipeline,
        params: &[u8],
        operands: &[(Operand, bool)],
        groups: [u32; 3],
        record: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let read = |o: &Operand| {
            let size = o.size.next_multiple_of(4).max(4);
            pollster::block_on(self.fetch(&Operand { size, ..o.clone() }))
        };
        let mut held = Vec::new();
        for ((o, _), (binding, name)) in operands.iter().zip(pipeline.storage()) {
            let before = read(o)?;
            let bytes = o.offset..o.offset + before.len() as u64;
            let buffer = o.storage.id;
            held.push(Binding { name: name.into(), binding, buffer, bytes, before, after: None });
        }
        record()?;
        for ((o, written), held) in operands.iter().zip(&mut held) {
            held.after = if *written { Some(read(o)?) } else { None };
        }
        let params = pipeline.layout.has_params.then(|| params.to_vec());
        self.note(|| Event::Launched(Dispatch { stem, variant, source, params, operands: held, groups }));
        Ok(())
    }

    pub(super) fn captures(&self) -> bool {
        lock(&self.0.captured).is_some()
    }
}
