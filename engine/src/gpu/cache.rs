//! Compiled pipelines between runs, where the backend can hand them out (Vulkan): a file an adapter, written when asked to
//! and when the device is given up. A file that is damaged, or of another driver, is as good as none.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

pub(crate) struct Cache {
    pub pipelines: wgpu::PipelineCache,
    file: PathBuf,
    /// Whether something was compiled that the file may lack.
    pub grown: AtomicBool,
}

/// The data's length and hash, eight bytes each: a driver takes what it is given.
const HEADER: usize = 16;

fn header(data: &[u8]) -> [u8; HEADER] {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&(data.len() as u64).to_le_bytes());
    header[8..].copy_from_slice(&hasher.finish().to_le_bytes());
    header
}

fn load(file: &Path) -> Option<Vec<u8>> {
    let mut data = std::fs::read(file).ok()?;
    let rest = (data.len() > HEADER).then(|| data.split_off(HEADER))?;
    (data == header(&rest)).then_some(rest)
}

impl Cache {
    /// The cache in `folder` of a device that was opened for it.
    pub fn open(folder: &Path, adapter: &wgpu::Adapter, device: &wgpu::Device) -> Option<Cache> {
        let key = wgpu::util::pipeline_cache_key(&adapter.get_info())?;
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let file = folder.join(key);
        let data = load(&file);
        let descriptor =
            wgpu::PipelineCacheDescriptor { label: Some("rambutan"), data: data.as_deref(), fallback: true };
        // SAFETY: the data is what `get_data` gave, as the hash before it shows; wgpu and the driver check whose it is.
        let pipelines = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(Cache { pipelines, file, grown: AtomicBool::new(false) })
    }

    /// Writes the file where it may lack something.
    pub fn keep(&self) {
        if self.grown.swap(false, Ordering::Relaxed) {
            self.save();
        }
    }

    /// Writes the file, whole or not at all. Where that fails the next run compiles again.
    fn save(&self) -> Option<()> {
        let data = self.pipelines.get_data()?;
        let own = self.file.with_extension(std::process::id().to_string());
        std::fs::create_dir_all(self.file.parent()?).ok()?;
        std::fs::write(&own, [&header(&data)[..], &data].concat()).ok()?;
        std::fs::rename(&own, &self.file).ok()
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.keep();
    }
}
