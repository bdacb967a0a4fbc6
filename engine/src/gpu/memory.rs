//! Buffers by size class, reused as soon as their last handle drops, and the accounts of who uses how much.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, OnceLock, Weak},
};

use super::{Capabilities, Gpu, Inner, lock};
use crate::Error;

/// What memory is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Results of ops and what their backward passes keep.
    #[default]
    Activations,
    /// Weights.
    Parameters,
    /// Gradients of weights.
    Gradients,
    /// Optimizer state.
    Moments,
    /// Keys, values and landmarks of texts.
    Memory,
    /// Buffers on their way to or from the host.
    Transfers,
}

const PURPOSES: usize = 6;

/// Bytes in use, and the most that were, by purpose.
#[derive(Clone, Debug, Default)]
pub struct MemoryReport {
    /// (purpose, bytes in use, peak).
    pub by_purpose: Vec<(Purpose, u64, u64)>,
    /// Bytes in use now.
    pub in_use: u64,
    /// The most bytes in use at one time.
    pub peak: u64,
    /// Bytes of all buffers, pooled ones included.
    pub reserved: u64,
}

impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self
            .by_purpose
            .iter()
            .filter(|p| p.1 > 0)
            .map(|(p, now, _)| format!("{} MiB {}", now >> 20, format!("{p:?}").to_lowercase()))
            .collect();
        f.write_str(&if parts.is_empty() { "nothing".into() } else { parts.join(", ") })
    }
}

thread_local! {
    static PURPOSE: Cell<Purpose> = const { Cell::new(Purpose::Activations) };
}

/// Accounts what `f` allocates on this thread under `purpose`.
pub fn with_purpose<T>(purpose: Purpose, f: impl FnOnce() -> T) -> T {
    struct Restore(Purpose);
    impl Drop for Restore {
        fn drop(&mut self) {
            PURPOSE.set(self.0);
        }
    }
    let _restore = Restore(PURPOSE.replace(purpose));
    f()
}

/// A buffer on loan from the pool; it goes back when the last handle drops.
pub struct Storage {
    gpu: Weak<Inner>,
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) id: u64,
    class: u64,
    purpose: Purpose,
    /// Why it does not hold what it should: the device refused it, or a launch that should have written it failed.
    pub(crate) lost: OnceLock<Error>,
    /// The device refused the buffer: it takes no memory and must never be handed out again.
    refused: bool,
    /// An app's own buffer, which the pool has no part in.
    pub(crate) adopted: bool,
}

impl Storage {
    pub(super) fn adopted(gpu: &Gpu, buffer: wgpu::Buffer, id: u64) -> Storage {
        let (gpu, purpose) = (Arc::downgrade(&gpu.0), Purpose::default());
        Storage { gpu, buffer, id, class: 0, purpose, lost: OnceLock::new(), refused: false, adopted: true }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let Some(inner) = self.gpu.upgrade() else { return };
        let mut pool = lock(&inner.pool);
        if self.adopted {
            return pool.release(&self.buffer);
        }
        if !self.refused {
            pool.account(self.purpose, -(self.class as i64));
            let free = Free { buffer: self.buffer.clone(), epoch: pool.epoch };
            pool.free.entry(self.class).or_default().insert(self.id, free);
        }
    }
}

struct Free {
    buffer: wgpu::Buffer,
    /// The command buffer that was being recorded when the buffer came back.
    epoch: u64,
}

pub(crate) struct Pool {
    /// By size class, then by id: the lowest goes out first, so that steps which repeat meet the same buffers, and with
    /// them the same bind groups.
    free: BTreeMap<u64, BTreeMap<u64, Free>>,
    /// Apps' buffers under tensors: their numbers, and how many storages share each.
    adopted: HashMap<wgpu::Buffer, (u64, usize)>,
    /// Numbers of those that no tensor uses any longer: bind groups must not keep them alive.
    pub stale: Vec<u64>,
    in_use: [u64; PURPOSES],
    peaks: [u64; PURPOSES],
    total_peak: u64,
    reserved: u64,
    max_buffer: u64,
    max_memory: u64,
    /// Command buffers recorded, and submitted; the stream counts them. They differ by what is kept back.
    pub epoch: u64,
    pub submitted: u64,
    pub created: u64,
}

/// Eight classes between powers of two: at most an eighth is wasted, and shapes that repeat find their buffer again.
fn size_class(bytes: u64) -> u64 {
    let bytes = bytes.max(256);
    let step = (bytes.next_power_of_two() / 16).max(256);
    bytes.div_ceil(step) * step
}

impl Pool {
    pub fn new(capabilities: &Capabilities) -> Pool {
        Pool {
            free: BTreeMap::new(),
            adopted: HashMap::new(),
            stale: Vec::new(),
            in_use: [0; PURPOSES],
            peaks: [0; PURPOSES],
            total_peak: 0,
            reserved: 0,
            max_buffer: capabilities.max_buffer,
            max_memory: capabilities.max_memory.unwrap_or(u64::MAX),
            epoch: 0,
            submitted: 0,
            created: 0,
        }
    }

    fn account(&mut self, purpose: Purpose, bytes: i64) {
        let i = purpose as usize;
        self.in_use[i] = self.in_use[i].saturating_add_signed(bytes);
        self.peaks[i] = self.peaks[i].max(self.in_use[i]);
        self.total_peak = self.total_peak.max(self.in_use.iter().sum());
    }

    /// The number of an app's buffer: one buffer has one number, so that two tensors over it are known to share it.
    pub fn adopt(&mut self, buffer: &wgpu::Buffer, new: impl FnOnce() -> u64) -> u64 {
        let entry = self.adopted.entry(buffer.clone()).or_insert_with(|| (new(), 0));
        entry.1 += 1;
        entry.0
    }

    fn release(&mut self, buffer: &wgpu::Buffer) {
        if let Some((id, count)) = self.adopted.get_mut(buffer) {
            *count -= 1;
            if *count == 0 {
                self.stale.push(*id);
                self.adopted.remove(buffer);
            }
        }
    }

    pub fn report(&self) -> MemoryReport {
        use Purpose::*;
        MemoryReport {
            by_purpose: [Activations, Parameters, Gradients, Moments, Memory, Transfers]
                .map(|p| (p, self.in_use[p as usize], self.peaks[p as usize]))
                .to_vec(),
            in_use: self.in_use.iter().sum(),
            peak: self.total_peak,
            reserved: self.reserved,
        }
    }

    pub fn reset_peaks(&mut self) {
        self.peaks = self.in_use;
        self.total_peak = self.in_use.iter().sum();
    }

    pub fn trim(&mut self) {
        for (class, buffers) in std::mem::take(&mut self.free) {
            self.reserved -= class * buffers.len() as u64;
            if cfg!(target_arch = "wasm32") {
                // A browser frees what is dropped only when it collects garbage.
                buffers.values().for_each(|free| free.buffer.destroy());
            }
        }
    }
}

impl Gpu {
    /// A buffer of at least `bytes`, with undefined contents. `unrecorded` asks for one that no recorded but
    /// unsubmitted work uses, so that a queue write may precede that work.
    ///
    /// A failure is kept and surfaces at the next read, and at every read of the buffer returned, which holds nothing.
    pub(crate) fn allocate(&self, bytes: u64, unrecorded: bool) -> Arc<Storage> {
        let class = size_class(bytes);
        let purpose = PURPOSE.get();
        let found = {
            let mut pool = lock(&self.0.pool);
            let submitted = pool.submitted;
            let found = pool.free.get_mut(&class).and_then(|free| {
                let fits = |f: &Free| !unrecorded || f.epoch < submitted;
                let id = free.iter().find(|(_, f)| fits(f)).map(|(id, _)| *id)?;
                free.remove_entry(&id)
            });
            if found.is_some() {
                pool.account(purpose, class as i64);
            }
            found
        };
        let (buffer, id, refused) = match found {
            Some((id, free)) => (free.buffer, id, None),
            None => {
                let (buffer, refused) = self.create(class, bytes, purpose);
                (buffer, self.0.id(), refused)
            }
        };
        #[cfg(not(target_arch = "wasm32"))]
        self.note(|| super::Event::Taken { buffer: id });
        Arc::new(Storage {
            gpu: Arc::downgrade(&self.0),
            buffer,
            id,
            class,
            purpose,
            refused: refused.is_some(),
            lost: refused.map_or_else(OnceLock::new, OnceLock::from),
            adopted: false,
        })
    }

    /// A new buffer, and why it is none where the device refused.
    fn create(&self, class: u64, bytes: u64, purpose: Purpose) -> (wgpu::Buffer, Option<Error>) {
        let (limit, most) = {
            let pool = lock(&self.0.pool);
            (pool.max_buffer, pool.max_memory)
        };
        let size = class.min(limit.max(bytes)) / 4 * 4;
        let over = || lock(&self.0.pool).reserved.saturating_add(class) > most;
        let attempt = || {
            self.0.scoped(|| {
                self.0.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("rambutan tensor"),
                    // Beyond the user's cap nothing is taken; four bytes stand for the buffer that is not to be.
                    size: if over() { 4 } else { size },
                    usage: wgpu::BufferUsages::STORAGE
                        | wgpu::BufferUsages::COPY_SRC
                        | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                })
            })
        };
        if size > limit {
            self.0.fail(Error::TooLarge { what: format!("a tensor for {purpose:?}"), asked: bytes, limit });
        }
        let (mut buffer, mut error) = attempt();
        if matches!(error, Some(wgpu::Error::OutOfMemory { .. })) || over() {
            // What the pool holds unused may be enough, once the device has let go of it.
            self.submit();
            self.trim();
            #[cfg(not(target_arch = "wasm32"))]
            {
                let last = self.stream().submitted();
                self.wait_index(&last, None);
            }
            (buffer, error) = attempt();
        }
        let out_of_memory = || Error::OutOfMemory {
            asked: bytes,
            purpose: format!("{purpose:?}").to_lowercase(),
            in_use: self.memory().to_string(),
        };
        let failure = match error {
            None if over() => Some(out_of_memory()),
            None => {
                let mut pool = lock(&self.0.pool);
                pool.reserved += class;
                pool.created += 1;
                pool.account(purpose, class as i64);
                None
            }
            Some(wgpu::Error::OutOfMemory { .. }) => Some(out_of_memory()),
            Some(e) => Some(Error::Device(e.to_string())),
        };
        if let Some(failure) = &failure {
            self.0.fail(failure.clone());
        }
        (buffer, failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_their_bytes_and_waste_little() {
        for bytes in [1u64, 256, 257, 4096, 4097, 100_000, 1 << 20, (1 << 20) + 1, 3_000_000_000] {
            let class = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(256));
            assert!(class <= bytes.max(256) + (bytes / 8).max(256), "{bytes} -> {class}");
        }
    }
}
