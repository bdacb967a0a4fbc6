//! The GPU: adapter choice, memory, kernels and the command stream. The only module that uses wgpu.
//!
//! Work is recorded eagerly into one open compute pass and submitted on a budget or at a read. Buffers are pooled
//! and reused as soon as their last handle drops: the queue's order makes it safe. Nothing waits but reads.

mod adapter;
mod barrier;
mod cache;
mod capabilities;
#[cfg(not(target_arch = "wasm32"))]
mod capture;
mod launch;
mod memory;
mod pace;
mod profiler;
pub mod shared;
mod stream;
mod transfer;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

pub use adapter::{AdapterSummary, GpuOptions, adapters};
pub use capabilities::Capabilities;
#[cfg(not(target_arch = "wasm32"))]
pub use capture::{Binding, Dispatch, Event};
pub(crate) use launch::GRID_WIDTH;
pub use launch::{Groups, Launch, Operand, Word};
pub use memory::{MemoryReport, Purpose, Storage, with_purpose};
pub use pace::Ticket;
pub use profiler::{KernelTime, Profile};
pub use stream::Counters;
pub use transfer::Download;
pub use wgpu::Buffer;

/// The clock; a browser has another one than the standard library.
#[cfg(not(target_arch = "wasm32"))]
pub use std::time::Instant;
#[cfg(target_arch = "wasm32")]
pub use web_time::Instant;

use crate::{Error, Result};

/// A device with its queue, buffer pool, pipelines and open command stream. Clones share it; two may coexist.
#[derive(Clone)]
pub struct Gpu(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub capabilities: Capabilities,
    pub checked: bool,
    pub pool: Mutex<memory::Pool>,
    pub stream: Mutex<stream::Stream>,
    pub pipelines: Mutex<launch::Pipelines>,
    /// Where pipelines are kept between runs, if anywhere.
    pub cache: Option<cache::Cache>,
    pub fault: Arc<Mutex<Option<Error>>>,
    /// Mappable buffers that no download uses at the moment.
    pub staging: Mutex<Vec<wgpu::Buffer>>,
    pub next_id: AtomicU64,
    pub reads: AtomicU64,
    /// What happens to memory, where somebody wants to know: see [`Gpu::capture`].
    #[cfg(not(target_arch = "wasm32"))]
    pub captured: Mutex<Option<Vec<Event>>>,
    /// Error scopes that are closed but not yet resolved: a browser resolves them later.
    scopes: Mutex<Vec<Scope>>,
}

/// What a closed error scope will tell.
type Scope = Pin<Box<dyn Future<Output = Option<wgpu::Error>> + Send>>;

impl Gpu {
    /// Chooses an adapter and opens it, waiting for it. See [`Gpu::request`] where waiting is impossible.
    ///
    /// # Errors
    /// No adapter fits, or it opens no device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new(options: GpuOptions) -> Result<Gpu> {
        pollster::block_on(Gpu::request(options))
    }

    /// Chooses an adapter and opens it.
    ///
    /// # Errors
    /// No adapter fits, or it opens no device.
    pub async fn request(options: GpuOptions) -> Result<Gpu> {
        let adapter = adapter::choose(&options).await?;
        let (device, queue) = adapter::open(&adapter, &options).await?;
        let gpu = Gpu::assemble(&adapter, device, queue, &options);
        let fault = gpu.0.fault.clone();
        gpu.0.device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            record(&fault, Error::Device(e.to_string()))
        }));
        let fault = gpu.0.fault.clone();
        gpu.0.device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                record(&fault, Error::Device(format!("device lost: {message}")));
            }
        });
        Ok(gpu)
    }

    /// The engine on a device that belongs to somebody else, such as a renderer. What the device was opened with is what
    /// the engine uses: [`GpuOptions::descriptor`] of the same options has all that it can. [`shared`] says in what order
    /// things happen, and what stays the app's. Keep one for as long as the device lives: it holds pipelines and pooled
    /// buffers.
    pub fn from_device(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: &GpuOptions,
    ) -> Gpu {
        Gpu::assemble(adapter, device, queue, options)
    }

    fn assemble(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: &GpuOptions,
    ) -> Gpu {
        let capabilities = Capabilities::of(adapter, &device, options);
        let stream = stream::Stream::new(&device, &queue, &capabilities);
        Gpu(Arc::new(Inner {
            pool: Mutex::new(memory::Pool::new(&capabilities)),
            stream: Mutex::new(stream),
            pipelines: Mutex::default(),
            cache: options.cache.as_deref().and_then(|folder| cache::Cache::open(folder, adapter, &device)),
            checked: options.checked,
            fault: Arc::default(),
            staging: Mutex::default(),
            next_id: AtomicU64::new(1),
            reads: AtomicU64::new(0),
            #[cfg(not(target_arch = "wasm32"))]
            captured: Mutex::default(),
            scopes: Mutex::default(),
            device,
            queue,
            capabilities,
        }))
    }

    /// Launches `text` wherever an op launches our kernel `shaders/<stem>.wgsl`, from now on and on this device alone;
    /// None brings ours back. The text declares the same parameters and bindings, and the constants that the op sets;
    /// it may use our libraries. It is how a kernel is tuned or tried inside the ops that need it, and how the tests
    /// plant defects. One that does not compile surfaces as an error at the next read.
    ///
    /// # Errors
    /// No kernel has this stem.
    pub fn replace_kernel(&self, stem: &str, text: Option<&str>) -> Result<()> {
        rambutan_shaders::kernel(stem)
            .map_err(|e| Error::Kernel { stem: stem.into(), reason: e.to_string() })?;
        lock(&self.0.pipelines).replace(stem, text);
        Ok(())
    }

    /// What the adapter can do, as far as this engine may use it.
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// The device, to share buffers with.
    pub fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    /// The queue, in whose order work happens: see [`shared`].
    pub fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    /// Submits all recorded work without waiting for it.
    pub fn submit(&self) {
        self.stream().flush(&self.0);
    }

    /// Waits until the work that `ticket` stands for is done, and no longer: what was submitted since goes on. So a
    /// producer stays one step ahead of the device and not a thousand.
    ///
    /// # Errors
    /// Whatever went wrong on the device since the last read.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait_for(&self, ticket: &Ticket) -> Result<()> {
        self.wait_index(&ticket.index, None);
        self.check()
    }

    /// Waits for one submit, and no longer than `timeout`.
    #[cfg(not(target_arch = "wasm32"))]
    fn wait_index(&self, index: &Option<wgpu::SubmissionIndex>, timeout: Option<std::time::Duration>) {
        let Some(index) = index else { return };
        let wait = wgpu::PollType::Wait { submission_index: Some(index.clone()), timeout };
        match self.0.device.poll(wait) {
            Ok(_) | Err(wgpu::PollError::Timeout) => {}
            Err(e) => record(&self.0.fault, Error::Device(e.to_string())),
        }
    }

    /// Submits all recorded work and waits for it.
    ///
    /// # Errors
    /// Whatever went wrong on the device since the last read.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(&self) -> Result<()> {
        {
            let mut stream = self.stream();
            stream.flush(&self.0);
            stream.waits();
        }
        if let Err(e) = self.0.device.poll(wgpu::PollType::wait_indefinitely()) {
            record(&self.0.fault, Error::Device(e.to_string()));
        }
        self.check()
    }

    /// The first error since the last call, if any.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> Result<()> {
        self.0.settle();
        lock(&self.0.fault).take().map_or(Ok(()), Err)
    }

    /// Work done so far: dispatches, submits, reads, pipelines, buffers.
    pub fn counters(&self) -> Counters {
        let stream = self.stream().counters;
        Counters {
            reads: self.0.reads.load(Ordering::Relaxed),
            pipelines: lock(&self.0.pipelines).len() as u64,
            buffers: lock(&self.0.pool).created,
            ..stream
        }
    }

    /// The kernels compiled so far: (stem, variant), sorted. What ops chose for this adapter.
    pub fn kernels(&self) -> Vec<(&'static str, String)> {
        lock(&self.0.pipelines).names()
    }

    /// Writes the pipelines compiled so far to the folder of [`GpuOptions::cache`]. The last clone's end does so too, but an
    /// app may end without it.
    pub fn keep_pipelines(&self) {
        if let Some(cache) = &self.0.cache {
            cache.keep();
        }
    }

    /// Bytes in use and their peaks, by purpose.
    pub fn memory(&self) -> MemoryReport {
        lock(&self.0.pool).report()
    }

    /// Forgets peaks, so that the next report shows those from here on.
    pub fn reset_peaks(&self) {
        lock(&self.0.pool).reset_peaks();
    }

    /// Gives all pooled, unused buffers back to the driver.
    pub fn trim(&self) {
        // What a browser destroys must not be in work that is yet to be submitted.
        if cfg!(target_arch = "wasm32") {
            self.submit();
        }
        self.stream().forget_bind_groups();
        lock(&self.0.pool).trim();
        lock(&self.0.staging).drain(..).for_each(|b| b.destroy());
    }

    /// Starts or stops timing with GPU timestamps. Returns whether the adapter can.
    pub fn profile(&self, what: Profile) -> bool {
        self.stream().profile(&self.0, what)
    }

    /// GPU time since the last call, by kernel stem, the longest first; with [`Profile::Runs`] that of whole passes, by the stem
    /// that each begins with. Waits for the work recorded so far.
    ///
    /// # Errors
    /// Whatever went wrong on the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn kernel_times(&self) -> Result<Vec<KernelTime>> {
        self.wait()?;
        Ok(self.stream().kernel_times(&self.0))
    }

    pub(crate) fn stream(&self) -> MutexGuard<'_, stream::Stream> {
        lock(&self.0.stream)
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.0.capabilities.name)
    }
}

impl PartialEq for Gpu {
    fn eq(&self, other: &Gpu) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Inner {
    pub fn id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs `f`, which calls the device, and returns the error that the device reports for it. In a browser a scope
    /// resolves later and keeps the error from the device's own handler, which is the one to hear it there.
    pub fn scoped<T>(&self, f: impl FnOnce() -> T) -> (T, Option<wgpu::Error>) {
        if cfg!(target_arch = "wasm32") {
            return (f(), None);
        }
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let value = f();
        let mut first = None;
        for scope in [internal, memory, validation] {
            let mut pop: Scope = Box::pin(scope.pop());
            match pop.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(e)) => {
                    first.get_or_insert(e);
                }
                Poll::Ready(None) => {}
                Poll::Pending => lock(&self.scopes).push(pop),
            }
        }
        (value, first)
    }

    /// Hears what error scopes had to tell that were not resolved when they were closed.
    fn settle(&self) {
        let mut context = Context::from_waker(Waker::noop());
        lock(&self.scopes).retain_mut(|scope| match scope.as_mut().poll(&mut context) {
            Poll::Ready(error) => {
                if let Some(e) = error {
                    record(&self.fault, Error::Device(e.to_string()));
                }
                false
            }
            Poll::Pending => true,
        });
    }

    pub fn fail(&self, error: Error) {
        record(&self.fault, error);
    }
}

/// Keeps the first error: later ones are mostly its consequences.
fn record(fault: &Mutex<Option<Error>>, error: Error) {
    lock(fault).get_or_insert(error);
}

/// A poisoned lock means that another thread panicked; the data behind ours stays consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
