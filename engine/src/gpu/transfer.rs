//! Uploads and downloads. The asynchronous path waits for nothing by itself: where blocking is impossible, the event
//! loop completes it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use super::{Gpu, Operand, Storage, lock};
use crate::{Error, Result};

/// Downloads go through mappable buffers of at most this size.
const STAGING: u64 = 64 << 20;

#[derive(Default)]
struct Mapping {
    result: Option<Result<(), wgpu::BufferAsyncError>>,
    waker: Option<Waker>,
}

/// Completes when the buffer is mapped.
struct Mapped {
    device: wgpu::Device,
    state: Arc<Mutex<Mapping>>,
}

impl Future for Mapped {
    type Output = Result<(), wgpu::BufferAsyncError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Natively nobody else drives the device; in a browser this does nothing and the event loop does.
        #[cfg(not(target_arch = "wasm32"))]
        let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
        #[cfg(target_arch = "wasm32")]
        let _ = &self.device;
        let mut state = lock(&self.state);
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
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
    pub(crate) fn overwrite(&self, operand: &Operand, bytes: &[u8]) {
        self.submit();
        self.write(&operand.storage, operand.offset, bytes);
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
    }

    /// Reads bytes of a buffer once all work recorded so far is done.
    pub(crate) async fn download(&self, operand: &Operand) -> Result<Vec<u8>> {
        self.0.reads.fetch_add(1, Ordering::Relaxed);
        if let Some(error) = &operand.storage.refused {
            // The first to hear of it takes it from the device's account, too.
            self.check()?;
            return Err(error.clone());
        }
        let mut bytes = Vec::with_capacity(operand.size as usize);
        let mut at = 0;
        while at < operand.size {
            let size = (operand.size - at).min(STAGING);
            let padded = size.next_multiple_of(4);
            let (staging, error) = self.0.scoped(|| {
                self.0.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("download"),
                    size: padded,
                    usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                })
            });
            if let Some(e) = error {
                return Err(Error::Device(e.to_string()));
            }
            {
                let mut stream = self.stream();
                let source = &operand.storage.buffer;
                stream.encoder(&self.0).copy_buffer_to_buffer(
                    source,
                    operand.offset + at,
                    &staging,
                    0,
                    padded,
                );
                stream.flush(&self.0);
                stream.waits();
            }
            self.check()?;
            let state = Arc::new(Mutex::new(Mapping::default()));
            let filled = state.clone();
            staging.map_async(wgpu::MapMode::Read, .., move |result| {
                let mut state = lock(&filled);
                state.result = Some(result);
                if let Some(waker) = state.waker.take() {
                    waker.wake();
                }
            });
            Mapped { device: self.0.device.clone(), state }
                .await
                .map_err(|e| Error::Device(e.to_string()))?;
            self.check()?;
            let view = staging.get_mapped_range(..).map_err(|e| Error::Device(e.to_string()))?;
            bytes.extend_from_slice(&view[..size as usize]);
            drop(view);
            staging.unmap();
            at += size;
        }
        self.check()?;
        Ok(bytes)
    }
}
