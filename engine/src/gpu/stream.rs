//! The command stream: one open compute pass, submitted on a budget or at a read.

use std::{collections::VecDeque, num::NonZeroU64};

use rustc_hash::FxHashMap;

use super::{
    Capabilities, Inner, launch, lock,
    pace::Pace,
    profiler::{Profile, Profiler},
};
use crate::Error;

/// Work done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Kernels dispatched.
    pub dispatches: u64,
    /// Command buffers submitted.
    pub submits: u64,
    /// Reads from the device.
    pub reads: u64,
    /// Writes to the device.
    pub writes: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
    /// Buffers created.
    pub buffers: u64,
    /// Bind groups created.
    pub bind_groups: u64,
}

/// Bytes of the uniform ring: all parameters of one submit. Queue order lets the next submit overwrite them.
const UNIFORM_BYTES: usize = 1 << 18;
/// The size of every parameter binding: 64 words.
pub(super) const PARAMS_BYTES: u64 = 256;
/// Dispatches of the first submit after a wait.
const FIRST: usize = 16;
/// Submits that are remembered: a read waits for its own, or for a later one where that is too long ago.
const REMEMBERED: usize = 64;
/// Bind groups kept; past that all are forgotten, since a step that repeats needs far fewer.
const BIND_GROUPS: usize = 8192;

pub(crate) struct Stream {
    encoder: Option<wgpu::CommandEncoder>,
    pass: Option<wgpu::ComputePass<'static>>,
    uniforms: Vec<u8>,
    uniform_buffer: wgpu::Buffer,
    uniform_stride: usize,
    bind_groups: FxHashMap<BindKey, wgpu::BindGroup>,
    /// Dispatches since the last submit, and how many start one: few when the device has nothing to do, then twice as
    /// many each time, up to `most`.
    pending: usize,
    budget: usize,
    most: usize,
    /// Recorded but kept back, in order: see [`super::Gpu::defer`].
    held: VecDeque<Held>,
    pub pace: Pace,
    profiler: Option<Profiler>,
    /// The latest submits, each with how many there were up to it.
    submits: VecDeque<(u64, wgpu::SubmissionIndex)>,
    pub counters: Counters,
}

/// A closed command buffer with the parameters that its dispatches read.
struct Held {
    commands: wgpu::CommandBuffer,
    uniforms: Vec<u8>,
    dispatches: usize,
}

#[derive(PartialEq, Eq, Hash)]
pub(crate) struct BindKey {
    pub layout: u32,
    /// (buffer id, offset, size).
    pub operands: Vec<(u64, u64, u64)>,
}

/// One binding of a dispatch.
pub(crate) struct Bound<'a> {
    pub id: u64,
    pub buffer: &'a wgpu::Buffer,
    pub offset: u64,
    pub size: u64,
}

impl Stream {
    pub fn new(device: &wgpu::Device, _queue: &wgpu::Queue, capabilities: &Capabilities) -> Stream {
        Stream {
            encoder: None,
            pass: None,
            uniforms: Vec::with_capacity(UNIFORM_BYTES),
            uniform_buffer: device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("rambutan params"),
                size: UNIFORM_BYTES as u64 + PARAMS_BYTES,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }),
            uniform_stride: (capabilities.uniform_alignment as usize).max(16),
            bind_groups: FxHashMap::default(),
            pending: 0,
            budget: FIRST,
            // A software adapter needs milliseconds a dispatch: short submits keep the machine responsive.
            most: if capabilities.cpu { FIRST } else { 192 },
            held: VecDeque::new(),
            pace: Pace::new(capabilities),
            profiler: None,
            submits: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Records one dispatch.
    pub fn dispatch(
        &mut self,
        inner: &Inner,
        stem: &'static str,
        pipeline: &launch::Pipeline,
        params: &[u8],
        operands: &[Bound<'_>],
        groups: [u32; 3],
    ) -> Result<(), Error> {
        let most = if self.pace.deferring { self.pace.grain().min(self.most) } else { self.budget };
        if self.pending >= most || self.uniforms.len() + PARAMS_BYTES as usize > UNIFORM_BYTES {
            if self.pace.deferring { self.seal(inner) } else { self.flush(inner) }
        }
        let key = BindKey {
            layout: pipeline.layout.id,
            operands: operands.iter().map(|o| (o.id, o.offset, o.size)).collect(),
        };
        if self.bind_groups.len() >= BIND_GROUPS {
            self.bind_groups.clear();
        }
        let group = match self.bind_groups.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                self.counters.bind_groups += 1;
                let (group, error) =
                    inner.scoped(|| bind(&inner.device, pipeline, &self.uniform_buffer, operands));
                if let Some(e) = error {
                    return Err(Error::Kernel { stem: stem.into(), reason: e.to_string() });
                }
                entry.insert(group)
            }
        };
        let offset = self.uniforms.len();
        self.uniforms.extend_from_slice(params);
        let end = self.uniforms.len().next_multiple_of(self.uniform_stride);
        self.uniforms.resize(end, 0);
        let encoder = self.encoder.get_or_insert_with(|| encoder(inner));
        let mut timer = self.profiler.as_mut();
        if timer.as_ref().is_some_and(|t| t.each) {
            self.pass = None;
        }
        let pass = self.pass.get_or_insert_with(|| {
            let stamps = timer.as_mut().map(|t| t.begin(&inner.device, stem));
            let writes = stamps.as_ref().map(|(queries, first)| wgpu::ComputePassTimestampWrites {
                query_set: queries,
                beginning_of_pass_write_index: Some(*first),
                end_of_pass_write_index: Some(*first + 1),
            });
            encoder
                .begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: Some("rambutan"),
                    timestamp_writes: writes,
                })
                .forget_lifetime()
        });
        if let Some(timer) = timer {
            timer.count(groups.map(u64::from).iter().product());
        }
        pass.set_pipeline(&pipeline.pipeline);
        if pipeline.layout.has_params {
            pass.set_bind_group(0, &*group, &[offset as u32]);
        } else {
            pass.set_bind_group(0, &*group, &[]);
        }
        pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
        self.pending += 1;
        self.counters.dispatches += 1;
        Ok(())
    }

    /// The encoder, with the pass closed: for copies.
    pub fn encoder(&mut self, inner: &Inner) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        self.pending += 1;
        self.encoder.get_or_insert_with(|| encoder(inner))
    }

    /// Submits what is recorded, what was kept back first. Waits for nothing.
    pub fn flush(&mut self, inner: &Inner) {
        let stale = std::mem::take(&mut lock(&inner.pool).stale);
        if !stale.is_empty() {
            self.bind_groups.retain(|key, _| !key.operands.iter().any(|o| stale.contains(&o.0)));
        }
        while self.submit_held(inner).is_some() {}
        let dispatches = self.pending;
        let Some(commands) = self.close(inner) else { return };
        let uniforms = std::mem::take(&mut self.uniforms);
        self.submit(inner, Held { commands, uniforms, dispatches });
    }

    /// Closes what is recorded and keeps it back.
    pub fn seal(&mut self, inner: &Inner) {
        let dispatches = self.pending;
        if let Some(commands) = self.close(inner) {
            let uniforms = self.uniforms.clone();
            self.uniforms.clear();
            self.held.push_back(Held { commands, uniforms, dispatches });
        }
    }

    /// Dispatches of the command buffer that is next to be submitted, of those kept back.
    pub fn next_held(&self) -> Option<usize> {
        self.held.front().map(|h| h.dispatches)
    }

    /// Submits the first of what was kept back: its dispatches.
    pub fn submit_held(&mut self, inner: &Inner) -> Option<usize> {
        let held = self.held.pop_front()?;
        let dispatches = held.dispatches;
        self.submit(inner, held);
        Some(dispatches)
    }

    fn close(&mut self, inner: &Inner) -> Option<wgpu::CommandBuffer> {
        self.pass = None;
        let mut encoder = self.encoder.take()?;
        if let Some(profiler) = &mut self.profiler {
            profiler.resolve(&inner.device, &mut encoder);
        }
        self.pending = 0;
        lock(&inner.pool).epoch += 1;
        let (commands, error) = inner.scoped(|| encoder.finish());
        if let Some(e) = error {
            inner.fail(Error::Device(e.to_string()));
        }
        Some(commands)
    }

    fn submit(&mut self, inner: &Inner, held: Held) {
        let Held { commands, mut uniforms, .. } = held;
        let (submitted, error) = inner.scoped(|| {
            if !uniforms.is_empty() {
                inner.queue.write_buffer(&self.uniform_buffer, 0, &uniforms);
            }
            inner.queue.submit([commands])
        });
        if let Some(e) = error {
            inner.fail(Error::Device(e.to_string()));
        }
        // The ring keeps its room.
        uniforms.clear();
        if self.uniforms.capacity() < uniforms.capacity() && self.uniforms.is_empty() {
            self.uniforms = uniforms;
        }
        self.budget = (2 * self.budget).min(self.most);
        self.counters.submits += 1;
        let count = {
            let mut pool = lock(&inner.pool);
            pool.submitted += 1;
            pool.submitted
        };
        if self.submits.len() == REMEMBERED {
            self.submits.pop_front();
        }
        self.submits.push_back((count, submitted));
        // Lets wgpu recycle what finished submits used.
        let _ = inner.device.poll(wgpu::PollType::Poll);
    }

    /// The latest submit.
    pub fn submitted(&self) -> Option<wgpu::SubmissionIndex> {
        self.submits.back().map(|(_, index)| index.clone())
    }

    /// The submit of the command buffer `epoch`, counted from 0; None as long as that is kept back or recorded.
    pub fn submit_of(&self, epoch: u64) -> Option<wgpu::SubmissionIndex> {
        self.submits.iter().find(|(count, _)| *count > epoch).map(|(_, index)| index.clone())
    }

    /// The host waits for the device: then it will have nothing to do.
    pub fn waits(&mut self) {
        self.budget = FIRST;
    }

    pub fn forget_bind_groups(&mut self) {
        self.bind_groups.clear();
    }

    pub fn profile(&mut self, inner: &Inner, what: Profile) -> bool {
        self.flush(inner);
        let able = inner.capabilities.timestamps;
        self.profiler = (what != Profile::Off && able).then(|| Profiler::new(what == Profile::Kernels));
        able
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub fn kernel_times(&mut self, inner: &Inner) -> Vec<super::KernelTime> {
        let period = inner.queue.get_timestamp_period();
        self.profiler.as_mut().map_or_else(Vec::new, |p| p.collect(&inner.device, period))
    }
}

fn encoder(inner: &Inner) -> wgpu::CommandEncoder {
    inner.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("rambutan") })
}

fn bind(
    device: &wgpu::Device,
    pipeline: &launch::Pipeline,
    uniforms: &wgpu::Buffer,
    operands: &[Bound<'_>],
) -> wgpu::BindGroup {
    let params = pipeline.layout.has_params.then(|| wgpu::BindGroupEntry {
        binding: 0,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: uniforms,
            offset: 0,
            size: NonZeroU64::new(PARAMS_BYTES),
        }),
    });
    let storage = pipeline.layout.storage.iter().zip(operands).map(|(&binding, o)| wgpu::BindGroupEntry {
        binding,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: o.buffer,
            offset: o.offset,
            size: NonZeroU64::new(o.size),
        }),
    });
    device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("rambutan"),
        layout: &pipeline.layout.group,
        entries: &params.into_iter().chain(storage).collect::<Vec<_>>(),
    })
}
