//! Uploads and downloads. In a browser nothing waits: the event loop completes a read. Natively nobody else drives the
//! device, so a read that is awaited waits, for its own copy alone; [`Download::try_take`] waits nowhere.

use std::{
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, Mutex, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use super::{Gpu, Operand, Storage, lock};
use crate::{Error, Result};

/// Downloads go through mappable buffers of at most this size.
const STAGING: u64 = 64 << 20;
/// Such buffers of at most this size are kept for the next download, so many of them: a token's logits are read through
/// the same one each time.
const KEPT_BYTES: u64 = 1 << 20;
const KEPT: usize = 4;

#[derive(Default)]
struct Mapping {
    result: Option<Result<(), wgpu::BufferAsyncError>>,
    waker: Option<Waker>,
}

/// A part of a tensor on its way to the host.
struct Piece {
    gpu: Gpu,
    staging: wgpu::Buffer,
    size: u64,
    /// The command buffer that holds the copy.
    epoch: u64,
    /// Of what holds the copy, once that is submitted.
    index: Option<wgpu::SubmissionIndex>,
    state: Arc<Mutex<Mapping>>,
}

impl Piece {
    /// Asks for the mapping as soon as the copy is submitted: whether it is.
    fn ask(&mut self) -> bool {
        if self.index.is_some() {
            return true;
        }
        let Some(index) = self.gpu.stream().submit_of(self.epoch) else { return false };
        self.index = Some(index);
        let filled = self.state.clone();
        // What is wrong the callback tells.
        let _ = self.gpu.0.scoped(|| {
            self.staging.map_async(wgpu::MapMode::Read, ..padded(self.size), move |result| {
                let mut state = lock(&filled);
                state.result = Some(result);
                if let Some(waker) = state.waker.take() {
                    waker.wake();
                }
            });
        });
        true
    }

    /// The bytes, where they are there.
    fn take(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(result) = lock(&self.state).result.take() else { return Ok(None) };
        self.gpu.check()?;
        result.map_err(|e| Error::Device(e.to_string()))?;
        let range = self.staging.get_mapped_range(..padded(self.size));
        let view = range.map_err(|e| Error::Device(e.to_string()))?;
        let bytes = view[..self.size as usize].to_vec();
        drop(view);
        let mut kept = lock(&self.gpu.0.staging);
        if self.staging.size() <= KEPT_BYTES && kept.len() < KEPT {
            self.staging.unmap();
            kept.push(self.staging.clone());
        } else {
            // A browser frees what is dropped only when it collects garbage.
            self.staging.destroy();
        }
        Ok(Some(bytes))
    }
}

impl Future for Piece {
    type Output = Result<Vec<u8>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.ask() {
            self.gpu.submit();
            self.ask();
        }
        // Natively nobody else drives the device; in a browser the event loop does.
        #[cfg(not(target_arch = "wasm32"))]
        self.gpu.wait_index(&self.index, None);
        {
            // Another thread may be about to call back: nothing comes between the look and the waker.
            let mut state = lock(&self.state);
            if state.result.is_none() {
                state.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        match self.take().transpose() {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        }
    }
}

/// Elements on their way to the host. Awaiting it submits what is recorded; [`Download::try_take`] waits for nothing.
#[must_use]
pub struct Download<T> {
    piece: Piece,
    /// Why there is nothing to come, where the tensor does not hold what it should.
    lost: Option<Error>,
    element: PhantomData<fn() -> T>,
}

impl<T: bytemuck::Pod> Download<T> {
    /// The elements, once: None as long as the device has not copied them. Whatever records or keeps back the copy must
    /// have submitted it: [`Gpu::submit`] or [`Gpu::advance`].
    ///
    /// # Errors
    /// Whatever went wrong on the device since the last read.
    pub fn try_take(&mut self) -> Result<Option<Vec<T>>> {
        if let Some(error) = self.lost.take() {
            return Err(error);
        }
        if !self.piece.ask() {
            return Ok(None);
        }
        let _ = self.piece.gpu.0.device.poll(wgpu::PollType::Poll);
        Ok(self.piece.take()?.map(|bytes| bytemuck::pod_collect_to_vec(&bytes)))
    }
}

impl<T: bytemuck::Pod> Future for Download<T> {
    type Output = Result<Vec<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(error) = self.lost.take() {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.piece).poll(context).map_ok(|bytes| bytemuck::pod_collect_to_vec(&bytes))
    }
}

impl Gpu {
    /// A new buffer with these bytes, copied before any work recorded from now on.
    pub(crate) fn upload(&self, bytes: &[u8]) -> Arc<Storage> {
        let storage = self.allocate(bytes.len() as u64, true);
        if !bytes.is_empty() {
            self.write(&storage, 0, bytes);
        }
        storage
    }

    /// Overwrites part of a buffer, after all work recorded so far.
    pub(crate) fn overwrite(&self, operand: &Operand, bytes: &[u8]) -> Result<()> {
        allows(&operand.storage, wgpu::BufferUsages::COPY_DST, "writing a tensor over an app's buffer")?;
        self.submit();
        self.write(&operand.storage, operand.offset, bytes);
        Ok(())
    }

    fn write(&self, storage: &Storage, offset: u64, bytes: &[u8]) {
        let ((), error) = self.0.scoped(|| {
            let whole = bytes.len() / 4 * 4;
            if whole > 0 {
                self.0.queue.write_buffer(&storage.buffer, offset, &bytes[..whole]);
            }
            if whole < bytes.len() {
                let mut last = [0; 4];
                last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
                self.0.queue.write_buffer(&storage.buffer, offset + whole as u64, &last);
            }
        });
        if let Some(e) = error {
            self.0.fail(Error::Device(e.to_string()));
        }
        self.stream().counters.writes += 1;
        #[cfg(not(target_arch = "wasm32"))]
        self.note_written(storage, offset, bytes.len());
    }

    /// Reads bytes of a buffer once all work recorded so far is done.
    pub(crate) async fn download(&self, operand: &Operand) -> Result<Vec<u8>> {
        self.0.reads.fetch_add(1, Ordering::Relaxed);
        #[cfg(not(target_arch = "wasm32"))]
        self.note_read(operand);
        self.fetch(operand).await
    }

    pub(super) async fn fetch(&self, operand: &Operand) -> Result<Vec<u8>> {
        self.loss(operand)?;
        let mut bytes = Vec::new();
        let mut at = 0;
        while at < operand.size {
            let size = (operand.size - at).min(STAGING);
            let piece = self.copy_out(operand, at, size)?;
            self.submit();
            self.stream().waits();
            self.check()?;
            let part = piece.await?;
            if size == operand.size {
                bytes = part
            } else {
                bytes.extend(part)
            }
            at += size;
        }
        self.check()?;
        Ok(bytes)
    }

    /// Records the copy of a whole operand to the host.
    pub(crate) fn begin_download<T: bytemuck::Pod>(&self, operand: &Operand) -> Result<Download<T>> {
        self.0.reads.fetch_add(1, Ordering::Relaxed);
        #[cfg(not(target_arch = "wasm32"))]
        self.note_read(operand);
        let lost = self.loss(operand).err();
        Ok(Download { piece: self.copy_out(operand, 0, operand.size)?, lost, element: PhantomData })
    }

    /// Why there is nothing to read, where the buffer does not hold what it should.
    fn loss(&self, operand: &Operand) -> Result<()> {
        let Some(error) = operand.storage.lost.get() else { return Ok(()) };
        // The first to hear of it takes it from the device's account, too.
        self.check()?;
        Err(error.clone())
    }

    /// Records the copy of a part to the host.
    fn copy_out(&self, operand: &Operand, at: u64, size: u64) -> Result<Piece> {
        allows(&operand.storage, wgpu::BufferUsages::COPY_SRC, "reading a tensor over an app's buffer")?;
        let padded = padded(size);
        let room = if padded <= KEPT_BYTES { padded.next_power_of_two() } else { padded };
        let kept = {
            let mut kept = lock(&self.0.staging);
            kept.iter().position(|b| b.size() == room).map(|i| kept.swap_remove(i))
        };
        let staging = match kept {
            Some(staging) => staging,
            None => {
                let (staging, error) = self.0.scoped(|| {
                    self.0.device.create_buffer(&wgpu::BufferDescriptor {
                        label: Some("rambutan download"),
                        size: room,
                        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                        mapped_at_creation: false,
                    })
                });
                if let Some(e) = error {
                    return Err(Error::Device(e.to_string()));
                }
                staging
            }
        };
        let mut stream = self.stream();
        let encoder = stream.encoder(&self.0);
        if size > 0 {
            encoder.copy_buffer_to_buffer(&operand.storage.buffer, operand.offset + at, &staging, 0, padded);
        }
        let epoch = lock(&self.0.pool).epoch;
        Ok(Piece { gpu: self.clone(), staging, size, epoch, index: None, state: Arc::default() })
    }
}

/// What is copied: whole words.
fn padded(size: u64) -> u64 {
    size.next_multiple_of(4).max(4)
}

/// Ours have all usages; an app's buffer has those that it was given.
fn allows(storage: &Storage, usage: wgpu::BufferUsages, what: &str) -> Result<()> {
    let given = storage.buffer.usage();
    if !storage.adopted || given.contains(usage) {
        return Ok(());
    }
    Err(Error::Data { what: what.into(), expected: format!("usage {usage:?}"), got: format!("{given:?}") })
}
