//! Which adapter, and how it is opened.

use super::Capabilities;
use crate::{Error, Result};

/// How to choose and open an adapter.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// A part of the adapter's name, or its index in [`adapters`]; None for the most capable.
    pub adapter: Option<String>,
    /// `vulkan`, `metal`, `dx12` or `gl`; None for all.
    pub backend: Option<String>,
    /// WebGPU's default limits and no optional feature, whatever the adapter offers.
    pub portable: bool,
    /// Caps the bytes of one storage binding below the adapter's, to exercise paging.
    pub max_binding: Option<u64>,
    /// Caps the bytes of all buffers together, to leave room for others or to see what happens.
    pub max_memory: Option<u64>,
    /// Caps the bytes of workgroup memory below the adapter's, to exercise smaller tiles.
    pub workgroup_memory: Option<u32>,
    /// Leaves 16-bit floats, subgroups, their barriers or cooperative matrices unused: `f16`, `subgroups`, `barriers`, `coop`.
    pub without: Vec<String>,
    /// A folder that keeps compiled pipelines from run to run, where the backend can (Vulkan); None compiles anew.
    pub cache: Option<std::path::PathBuf>,
    /// Compiles kernels with bounds checks. Off is faster; tests keep it on.
    pub checked: bool,
}

impl GpuOptions {
    /// How to open a device of `adapter` so that the engine has all it can use there: for apps that open their own, and
    /// may ask for more.
    pub fn descriptor(&self, adapter: &wgpu::Adapter) -> wgpu::DeviceDescriptor<'static> {
        let mut descriptor = wgpu::DeviceDescriptor { label: Some("rambutan"), ..Default::default() };
        descriptor.required_features = Capabilities::features(adapter, self);
        if descriptor.required_features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            // SAFETY: the variants that use the experimental feature are held against the reference like all others.
            descriptor.experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        if !self.portable {
            descriptor.required_limits = adapter.limits();
        }
        descriptor
    }

    /// From `RAMBUTAN_ADAPTER`, `RAMBUTAN_BACKEND`, `RAMBUTAN_PORTABLE`, `RAMBUTAN_MAX_BINDING`,
    /// `RAMBUTAN_MAX_MEMORY`, `RAMBUTAN_WORKGROUP_MEMORY`, `RAMBUTAN_WITHOUT` (a list with commas), `RAMBUTAN_CACHE` and
    /// `RAMBUTAN_CHECKED`.
    pub fn from_env() -> GpuOptions {
        let text = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let flag = |name: &str| text(name).is_some_and(|v| v != "0");
        GpuOptions {
            adapter: text("RAMBUTAN_ADAPTER"),
            backend: text("RAMBUTAN_BACKEND"),
            portable: flag("RAMBUTAN_PORTABLE"),
            max_binding: text("RAMBUTAN_MAX_BINDING").and_then(|v| v.parse().ok()),
            max_memory: text("RAMBUTAN_MAX_MEMORY").and_then(|v| v.parse().ok()),
            workgroup_memory: text("RAMBUTAN_WORKGROUP_MEMORY").and_then(|v| v.parse().ok()),
            without: text("RAMBUTAN_WITHOUT")
                .map_or_else(Vec::new, |v| v.split(',').map(str::to_owned).collect()),
            cache: text("RAMBUTAN_CACHE").map(Into::into),
            checked: flag("RAMBUTAN_CHECKED"),
        }
    }

    /// The same, with compiled pipelines kept in the user's cache folder, for programs. `RAMBUTAN_CACHE` names another
    /// folder, or none where it is empty.
    #[must_use]
    pub fn with_user_cache(self) -> GpuOptions {
        let path =
            |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(std::path::PathBuf::from);
        let folder = match std::env::var_os("RAMBUTAN_CACHE") {
            Some(_) => path("RAMBUTAN_CACHE"),
            None if cfg!(windows) => path("LOCALAPPDATA").map(|f| f.join("rambutan")),
            None => path("XDG_CACHE_HOME")
                .or_else(|| path("HOME").map(|home| home.join(".cache")))
                .map(|f| f.join("rambutan")),
        };
        GpuOptions { cache: folder, ..self }
    }
}

/// One adapter of this machine.
#[derive(Clone, Debug)]
pub struct AdapterSummary {
    /// Its index, as [`GpuOptions::adapter`] takes it.
    pub index: usize,
    /// wgpu's description.
    pub info: wgpu::AdapterInfo,
    /// Its features.
    pub features: wgpu::Features,
    /// Its limits.
    pub limits: wgpu::Limits,
}

fn backends(options: &GpuOptions) -> Result<wgpu::Backends> {
    Ok(match options.backend.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None => wgpu::Backends::all(),
        Some("vulkan") => wgpu::Backends::VULKAN,
        Some("metal") => wgpu::Backends::METAL,
        Some("dx12") => wgpu::Backends::DX12,
        Some("gl") => wgpu::Backends::GL,
        Some("webgpu") => wgpu::Backends::BROWSER_WEBGPU,
        Some(other) => {
            return Err(Error::NoAdapter {
                wanted: format!("backend `{other}`"),
                found: "backends vulkan, metal, dx12, gl, webgpu".into(),
            });
        }
    })
}

fn instance(options: &GpuOptions) -> Result<wgpu::Instance> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends(options)?;
    Ok(wgpu::Instance::new(descriptor))
}

/// More capable devices first; the order of enumeration breaks ties.
fn rank(info: &wgpu::AdapterInfo) -> u32 {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    // The same GPU through OpenGL lacks much of what it has through Vulkan.
    kind * 2 + u32::from(info.backend == wgpu::Backend::Gl)
}

async fn enumerate(options: &GpuOptions) -> Result<Vec<wgpu::Adapter>> {
    let instance = instance(options)?;
    let mut all = instance.enumerate_adapters(backends(options)?).await;
    if all.is_empty() && cfg!(target_arch = "wasm32") {
        all.extend(instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await.ok());
    }
    all.retain(|a| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    all.sort_by_key(|a| rank(&a.get_info()));
    Ok(all)
}

/// All adapters that can compute, the one chosen by default first.
///
/// # Errors
/// An unknown backend name.
pub async fn adapters(options: &GpuOptions) -> Result<Vec<AdapterSummary>> {
    let all = enumerate(options).await?;
    let summary = |(index, a): (usize, wgpu::Adapter)| AdapterSummary {
        index,
        info: a.get_info(),
        features: a.features(),
        limits: a.limits(),
    };
    Ok(all.into_iter().enumerate().map(summary).collect())
}

pub(super) async fn choose(options: &GpuOptions) -> Result<wgpu::Adapter> {
    let mut all = enumerate(options).await?;
    let names: Vec<_> = all.iter().map(|a| a.get_info().name).collect();
    let position = match &options.adapter {
        None => (!all.is_empty()).then_some(0),
        Some(wanted) => match wanted.parse::<usize>() {
            Ok(index) => (index < all.len()).then_some(index),
            Err(_) => names.iter().position(|n| n.to_lowercase().contains(&wanted.to_lowercase())),
        },
    };
    position.map(|i| all.swap_remove(i)).ok_or_else(|| Error::NoAdapter {
        wanted: match (&options.adapter, &options.backend) {
            (Some(a), Some(b)) => format!("adapter `{a}` on backend `{b}`"),
            (Some(a), None) => format!("adapter `{a}`"),
            (None, Some(b)) => format!("backend `{b}`"),
            (None, None) => "the request for any adapter that can compute".into(),
        },
        found: if names.is_empty() { "none".into() } else { names.join(", ") },
    })
}

pub(super) async fn open(
    adapter: &wgpu::Adapter,
    options: &GpuOptions,
) -> Result<(wgpu::Device, wgpu::Queue)> {
    adapter
        .request_device(&options.descriptor(adapter))
        .await
        .map_err(|e| Error::NoDevice { adapter: adapter.get_info().name, reason: e.to_string() })
}
