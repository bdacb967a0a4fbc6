//! What kernels may count on: variants are chosen from these, never from a vendor's name.

use super::GpuOptions;

/// Features and limits that decide which variant of a kernel runs.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// The adapter's name.
    pub name: String,
    /// Its backend, in wgpu's words.
    pub backend: String,
    /// Its driver and version.
    pub driver: String,
    /// Software rendering: threads are cores and workgroup memory is plain memory.
    pub cpu: bool,
    /// 16-bit floats in shaders and storage.
    pub f16: bool,
    /// Subgroup sizes (smallest, largest), where subgroup operations exist.
    pub subgroups: Option<(u32, u32)>,
    /// Cooperative matrices 16×16×16, f16 × f16 → f32.
    pub coop: bool,
    /// Barriers of a subgroup alone.
    pub subgroup_barriers: bool,
    /// Timestamps around passes.
    pub timestamps: bool,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Invocations a workgroup.
    pub invocations: u32,
    /// Bytes of one storage binding.
    pub max_binding: u64,
    /// Bytes of one buffer.
    pub max_buffer: u64,
    /// Bytes of all buffers together, where the user set a cap, or the adapter is a CPU.
    pub max_memory: Option<u64>,
    /// Storage buffers a kernel may bind.
    pub storage_buffers: u32,
    /// Alignment of a storage binding's offset.
    pub storage_alignment: u64,
    /// Alignment of a uniform binding's offset.
    pub uniform_alignment: u64,
    /// Nanoseconds a timestamp tick.
    pub timestamp_period: f32,
}

impl Capabilities {
    /// Whether subgroups are the vectors of a CPU, of eight lanes at least. What costs there is a load or a store,
    /// whatever its address, and a barrier, which switches between a workgroup's subgroups.
    pub fn cpu_vectors(&self) -> bool {
        self.cpu && self.subgroups.is_some_and(|(least, _)| least >= 8)
    }

    /// Whether a workgroup may be summed by its subgroups, of eight lanes at least. Not every browser that has subgroups
    /// tells which of a workgroup one is.
    pub fn counts_subgroups(&self) -> bool {
        !cfg!(target_arch = "wasm32") && self.subgroups.is_some_and(|(least, _)| least >= 8)
    }

    /// Lanes that share the reduction of a row: on a CPU's vectors those of one, since barriers would cost many times
    /// what the sums do.
    pub fn row_lanes(&self) -> usize {
        if self.cpu_vectors() { 8 } else { 256 }
    }

    /// The features to open the adapter with.
    pub(super) fn features(adapter: &wgpu::Adapter, options: &GpuOptions) -> wgpu::Features {
        let mut wanted = wgpu::Features::TIMESTAMP_QUERY;
        if options.cache.is_some() {
            wanted |= wgpu::Features::PIPELINE_CACHE;
        }
        if !options.portable {
            for (name, feature) in [
                ("f16", wgpu::Features::SHADER_F16),
                ("subgroups", wgpu::Features::SUBGROUP),
                ("barriers", wgpu::Features::SUBGROUP_BARRIER),
                ("coop", wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
            ] {
                if !options.without.iter().any(|w| w == name) {
                    wanted |= feature;
                }
            }
        }
        wanted & adapter.features()
    }

    pub(super) fn of(adapter: &wgpu::Adapter, device: &wgpu::Device, options: &GpuOptions) -> Capabilities {
        let (info, features, limits) = (adapter.get_info(), device.features(), device.limits());
        let coop = features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)
            && adapter.cooperative_matrix_properties().iter().any(|p| {
                (p.m_size, p.n_size, p.k_size) == (16, 16, 16)
                    && p.ab_type == wgpu::CooperativeScalarType::F16
                    && p.cr_type == wgpu::CooperativeScalarType::F32
            });
        let cap = |limit: u64, cap: Option<u64>| cap.map_or(limit, |c| c.min(limit));
        // Sizes are counted in usize, which has 32 bits in a browser.
        let countable = |limit: u64| limit.min(usize::MAX as u64 / 256 * 256);
        let f16 = features.contains(wgpu::Features::SHADER_F16);
        let cpu = info.device_type == wgpu::DeviceType::Cpu;
        Capabilities {
            name: info.name,
            backend: info.backend.to_string(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            cpu,
            f16,
            subgroups: features
                .contains(wgpu::Features::SUBGROUP)
                .then_some((info.subgroup_min_size, info.subgroup_max_size)),
            coop: coop && f16,
            subgroup_barriers: !cfg!(target_arch = "wasm32")
                && features.contains(wgpu::Features::SUBGROUP_BARRIER),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            workgroup_memory: cap(
                limits.max_compute_workgroup_storage_size.into(),
                options.workgroup_memory.map(u64::from),
            ) as u32,
            invocations: limits.max_compute_invocations_per_workgroup,
            max_binding: cap(countable(limits.max_storage_buffer_binding_size), options.max_binding),
            max_buffer: countable(limits.max_buffer_size),
            max_memory: options.max_memory.or_else(|| if cpu { host_memory() } else { None }),
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            // Kernels load 16 bytes at once, wherever a binding starts.
            storage_alignment: limits.min_storage_buffer_offset_alignment.max(16).into(),
            uniform_alignment: limits.min_uniform_buffer_offset_alignment.into(),
            timestamp_period: 1.0,
        }
    }
}

/// Most of the memory that is free on this machine, where it tells. Software Vulkan promises more than there is, and the
/// system then ends whoever uses it.
fn host_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some((kib << 10) / 10 * 9)
}
