//! A device shared with an app, and buffers shared both ways without a copy.
//!
//! # The rule
//!
//! Order is the queue's order and nothing else; nothing of ours waits for it, and nothing of yours needs to.
//!
//! 1. **Our work is submitted when you say so.** Ops record; [`Gpu::submit`] hands what is recorded to the queue. Call it
//!    before a submit of your own that reads a tensor, and before one that overwrites what recorded work still reads.
//!    (It may happen earlier: after some hundred dispatches, and at reads.)
//! 2. **Your work that was submitted is done before ours that is recorded later.** Write your buffer (in a pass that you
//!    submit, or by `queue.write_buffer`), then record ops on the tensor over it.
//! 3. **A tensor's buffer is yours to bind for as long as you hold the [`SharedBuffer`]** that [`Tensor::buffer`] gives.
//!    Hold it until you have submitted what uses it; then it may go, while the device still works. Without it the buffer
//!    goes back to the pool with the tensor's last handle, and what is recorded next may overwrite it.
//! 4. **A buffer of yours under a tensor stays yours.** [`Tensor::from_buffer`] keeps it alive while a tensor or recorded
//!    work uses it, never pools it, and never overwrites it but where you pass the tensor to something that writes.
//!    Keep it unmapped, and do not destroy it, until what was recorded with it is submitted.
//!
//! So a frame is: submit what writes your buffer, record ops, [`Gpu::submit`], submit the pass that draws the result.
//!
//! # What an app keeps
//!
//! Its handlers of uncaptured errors and of a lost device: ours are not installed, and mistakes of ours are caught in error
//! scopes that are closed before a call returns; they surface at the next read or [`Gpu::check`]. (A browser resolves scopes
//! later; there they surface at a check that comes later.) Its callbacks: they run inside whichever call next polls the
//! device, one of ours or of the app's, so they must not call into the [`Gpu`]. Its time: no call waits for the device but
//! those that say so, and an allocation that the device refuses, which waits for our own work to free what it can. Labels
//! of ours begin with `rambutan`.
//!
//! [`Tensor::buffer`]: crate::Tensor::buffer
//! [`Tensor::from_buffer`]: crate::Tensor::from_buffer

use std::{ops::Deref, sync::Arc};

use super::{Gpu, Storage, lock};
use crate::{Error, Result};

/// A tensor's buffer in the hands of an app: as long as this lives, nothing else is put into it. It dereferences to the
/// wgpu buffer, which has the usages STORAGE, COPY_SRC and COPY_DST, or those that the app gave it.
#[derive(Clone)]
pub struct SharedBuffer {
    storage: Arc<Storage>,
    offset: u64,
    size: u64,
}

impl SharedBuffer {
    pub(crate) fn new(storage: Arc<Storage>, offset: u64, size: u64) -> SharedBuffer {
        SharedBuffer { storage, offset, size }
    }

    /// Where the tensor's bytes start.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many they are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The tensor's bytes as a binding, in whole words; None where there are none.
    pub fn binding(&self) -> Option<wgpu::BindingResource<'_>> {
        let size = wgpu::BufferSize::new(self.size.next_multiple_of(4))?;
        let buffer = &self.storage.buffer;
        Some(wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer,
            offset: self.offset,
            size: Some(size),
        }))
    }
}

impl Deref for SharedBuffer {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        &self.storage.buffer
    }
}

impl Gpu {
    /// An app's buffer as storage for `bytes` bytes from `offset` on.
    pub(crate) fn adopt(&self, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Arc<Storage>> {
        let refuse = |what: &str, expected: String, got: String| {
            Err(Error::Data { what: format!("a tensor over an app's buffer: {what}"), expected, got })
        };
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return refuse("its usage", "STORAGE among others".into(), format!("{:?}", buffer.usage()));
        }
        let alignment = self.capabilities().storage_alignment;
        if !offset.is_multiple_of(alignment) {
            let expected = format!("a multiple of {alignment}, where this device can bind");
            return refuse("its offset", expected, offset.to_string());
        }
        // Kernels bind whole words.
        let end = offset.saturating_add(bytes.next_multiple_of(4));
        if end > buffer.size() {
            let expected = format!("at least {end} bytes, {bytes} (in whole words) from {offset} on");
            return refuse("its size", expected, buffer.size().to_string());
        }
        let id = lock(&self.0.pool).adopt(buffer, || self.0.id());
        Ok(Arc::new(Storage::adopted(self, buffer.clone(), id)))
    }
}
