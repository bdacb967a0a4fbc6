//! GPU time from timestamps around passes. A pass's first stamp stands behind what its first kernel waits for, its last one
//! behind the last kernel: between two stamps within a pass there would be a barrier before each kernel, too, which takes as
//! long as many kernels do.

#[cfg(not(target_arch = "wasm32"))]
use std::collections::BTreeMap;
use std::sync::Arc;

/// What timestamps are taken around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Nothing.
    Off,
    /// Every kernel: each is a pass of its own.
    Kernels,
    /// All that is recorded between two waits or copies, with what its kernels wait for in between.
    Runs,
}

/// GPU time of one kernel stem.
#[derive(Clone, Debug)]
pub struct KernelTime {
    /// The kernel's stem.
    pub stem: &'static str,
    /// Dispatches timed.
    pub dispatches: u64,
    /// Their summed time in nanoseconds.
    pub nanoseconds: f64,
    /// Workgroups of the largest.
    pub widest: u64,
}

/// Timestamps of one query set: wgpu allows 4096 a set.
const QUERIES: u32 = 4096;

struct Batch {
    queries: Arc<wgpu::QuerySet>,
    /// A pass each: the stem that it begins with, how many dispatches it has, and workgroups of the largest.
    passes: Vec<(&'static str, u64, u64)>,
    mapped: Option<wgpu::Buffer>,
}

pub(super) struct Profiler {
    /// Whether every kernel is a pass of its own.
    pub each: bool,
    open: Vec<Batch>,
    resolved: Vec<Batch>,
}

impl Profiler {
    pub fn new(each: bool) -> Profiler {
        Profiler { each, open: Vec::new(), resolved: Vec::new() }
    }

    /// Where the two stamps of a pass go that begins with a kernel: a query set, and the first of two places in it.
    pub fn begin(&mut self, device: &wgpu::Device, stem: &'static str) -> (Arc<wgpu::QuerySet>, u32) {
        if self.open.last().is_none_or(|b| b.passes.len() as u32 * 2 + 2 > QUERIES) {
            let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("rambutan profiler"),
                ty: wgpu::QueryType::Timestamp,
                count: QUERIES,
            });
            self.open.push(Batch { queries: Arc::new(queries), passes: Vec::new(), mapped: None });
        }
        let batch = self.open.last_mut().expect("one is open");
        batch.passes.push((stem, 0, 0));
        (batch.queries.clone(), batch.passes.len() as u32 * 2 - 2)
    }

    /// A dispatch of so many workgroups in the pass that began last.
    pub fn count(&mut self, groups: u64) {
        if let Some((_, dispatches, widest)) = self.open.last_mut().and_then(|b| b.passes.last_mut()) {
            *dispatches += 1;
            *widest = groups.max(*widest);
        }
    }

    /// Copies the timestamps of this submit to where the host can read them.
    pub fn resolve(&mut self, device: &wgpu::Device, encoder: &mut wgpu::CommandEncoder) {
        for mut batch in self.open.drain(..) {
            let size = batch.passes.len() as u64 * 16;
            let buffer = |usage| {
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("rambutan profiler"),
                    size,
                    usage,
                    mapped_at_creation: false,
                })
            };
            let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
            let mapped = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
            encoder.resolve_query_set(&batch.queries, 0..batch.passes.len() as u32 * 2, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, &mapped, 0, size);
            batch.mapped = Some(mapped);
            self.resolved.push(batch);
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub fn collect(&mut self, device: &wgpu::Device, period: f32) -> Vec<KernelTime> {
        let mut times: BTreeMap<&'static str, KernelTime> = BTreeMap::new();
        for batch in self.resolved.drain(..) {
            let Some(buffer) = batch.mapped else { continue };
            buffer.map_async(wgpu::MapMode::Read, .., |_| {});
            let _ = device.poll(wgpu::PollType::wait_indefinitely());
            let Ok(view) = buffer.get_mapped_range(..) else { continue };
            let ticks: Vec<u64> =
                view.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes"))).collect();
            for (&(stem, dispatches, widest), pair) in batch.passes.iter().zip(ticks.chunks_exact(2)) {
                let none = KernelTime { stem, dispatches: 0, nanoseconds: 0.0, widest: 0 };
                let time = times.entry(stem).or_insert(none);
                time.dispatches += dispatches;
                time.widest = time.widest.max(widest);
                time.nanoseconds += pair[1].saturating_sub(pair[0]) as f64 * f64::from(period);
            }
        }
        let mut times: Vec<_> = times.into_values().collect();
        times.sort_by(|a, b| b.nanoseconds.total_cmp(&a.nanoseconds));
        times
    }
}
