//! Kernels on a device, with traps around them.

use std::{cell::RefCell, collections::BTreeMap, fmt};

use rambutan_engine::{testing, wgpu};

use crate::program::Program;

/// The device that kernels run on.
#[derive(Clone)]
pub struct Device {
    device: wgpu::Device,
    queue: wgpu::Queue,
    name: String,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.name)
    }
}

impl Device {
    /// A device of yours. Nothing about it is changed; it is waited for.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Device {
        let name = device.adapter_info().name;
        Device { device: device.clone(), queue: queue.clone(), name }
    }

    /// The device of this process's tests: the best adapter, or that which `RAMBUTAN_ADAPTER` and `RAMBUTAN_BACKEND` name.
    ///
    /// # Panics
    /// Where there is no adapter: software Vulkan (Mesa's lavapipe) does.
    pub fn open() -> Device {
        let gpu = testing::gpu();
        Device::new(gpu.device(), gpu.queue())
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the device was opened with.
    pub fn limits(&self) -> wgpu::Limits {
        self.device.limits()
    }

    /// Invocations of its smallest subgroups, where it was opened with any.
    pub(crate) fn subgroup(&self) -> Option<u32> {
        let has = self.device.features().contains(wgpu::Features::SUBGROUP);
        has.then(|| self.device.adapter_info().subgroup_min_size)
    }

    fn scoped<T>(&self, f: impl FnOnce() -> T) -> Result<T, String> {
        let scopes =
            [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal]
                .map(|filter| self.device.push_error_scope(filter));
        let value = f();
        let mut first = None;
        for scope in scopes.into_iter().rev() {
            first = pollster::block_on(scope.pop()).or(first);
        }
        first.map_or(Ok(value), |e| Err(e.to_string()))
    }

    /// Compiles a program: with workgroup memory zeroed, or left as it is.
    fn pipeline(&self, source: &str, zeroed: bool) -> Result<wgpu::ComputePipeline, String> {
        self.scoped(|| {
            let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: None,
                source: wgpu::ShaderSource::Wgsl(source.into()),
            });
            self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: None,
                module: &module,
                entry_point: None,
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: zeroed,
                    ..Default::default()
                },
                cache: None,
            })
        })
    }
}

/// What stands where nothing is, in one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traps {
    /// Fills outputs, scratch and guards.
    pub poison: u32,
    /// Words beyond the end of every buffer, inside of its binding.
    pub guard: usize,
    /// Workgroup memory is not zeroed but filled, where the device lets it be.
    pub dirty: bool,
}

impl Traps {
    pub const PLAIN: Traps = Traps { poison: 0x7FC0_BEEF, guard: 0, dirty: false };
    /// Others in every bit.
    pub const OTHER: Traps = Traps { poison: 0x803F_4110, guard: 0, dirty: false };
}

/// A dispatch: what every variable holds; none for what is only written.
pub(crate) struct Dispatch {
    /// By variable of the program: bytes, or how many where nothing is given.
    pub buffers: Vec<Result<Vec<u8>, usize>>,
    pub workgroups: [u32; 3],
}

/// A program compiled for a device.
pub(crate) struct Compiled<'a> {
    device: &'a Device,
    program: &'a Program,
    zeroed: wgpu::ComputePipeline,
    /// Compiled when it is first asked for.
    dirty: RefCell<Option<(wgpu::ComputePipeline, wgpu::ComputePipeline)>>,
}

/// Fills as much workgroup memory as every device has.
const FILL: &str = "
var<workgroup> all: array<u32, 4096>;
@group(0) @binding(0) var<storage, read_write> sink: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) group: vec3u) {
    for (var i = lane; i < 4096u; i += 64u) { all[i] = 0x7FC0BEEFu ^ sink[0]; }
    workgroupBarrier();
    if all[(lane * 61u + group.x) % 4096u] == 1u { sink[1] = 1u; }
}";

impl<'a> Compiled<'a> {
    pub fn new(device: &'a Device, program: &'a Program) -> Result<Compiled<'a>, String> {
        let zeroed = device.pipeline(&program.source, true)?;
        Ok(Compiled { device, program, zeroed, dirty: RefCell::default() })
    }

    /// Runs it; the bytes of every variable afterwards, guards included.
    pub fn run(&self, dispatch: &Dispatch, traps: Traps) -> Result<Vec<Vec<u8>>, String> {
        let Device { device, queue, .. } = self.device;
        if traps.dirty && self.dirty.borrow().is_none() {
            let pair =
                (self.device.pipeline(FILL, false)?, self.device.pipeline(&self.program.source, false)?);
            *self.dirty.borrow_mut() = Some(pair);
        }
        let dirty = self.dirty.borrow();
        let dirty = dirty.as_ref().filter(|_| traps.dirty);
        let make = |contents: &[u8], uniform: bool| {
            let usage = if uniform { wgpu::BufferUsages::UNIFORM } else { wgpu::BufferUsages::STORAGE };
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: contents.len() as u64,
                usage: usage | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            queue.write_buffer(&buffer, 0, contents);
            buffer
        };
        self.device.scoped(|| {
            let poison = |bytes: usize| traps.poison.to_le_bytes().repeat(bytes.div_ceil(4));
            let buffers: Vec<(wgpu::Buffer, usize)> = self
                .program
                .variables
                .iter()
                .zip(&dispatch.buffers)
                .map(|(variable, contents)| {
                    let mut bytes = match contents {
                        Ok(bytes) => bytes.clone(),
                        Err(size) => poison(*size),
                    };
                    if !variable.uniform && variable.capacity().is_none() {
                        bytes.extend(poison(4 * traps.guard));
                    }
                    (make(&bytes, variable.uniform), bytes.len())
                })
                .collect();
            let pipeline = dirty.map_or(&self.zeroed, |(_, kernel)| kernel);
            let mut groups: BTreeMap<u32, Vec<wgpu::BindGroupEntry<'_>>> = BTreeMap::new();
            for (variable, (buffer, _)) in self.program.variables.iter().zip(&buffers) {
                let entry =
                    wgpu::BindGroupEntry { binding: variable.binding, resource: buffer.as_entire_binding() };
                groups.entry(variable.group).or_default().push(entry);
            }
            let bind = |pipeline: &wgpu::ComputePipeline,
                        group: u32,
                        entries: &[wgpu::BindGroupEntry<'_>]| {
                let layout = pipeline.get_bind_group_layout(group);
                device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries })
            };
            let bound: Vec<_> = groups.iter().map(|(g, entries)| (*g, bind(pipeline, *g, entries))).collect();
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                if let Some((fill, _)) = dirty {
                    let sink = make(&(traps.poison ^ Traps::PLAIN.poison).to_le_bytes().repeat(2), false);
                    let entry = wgpu::BindGroupEntry { binding: 0, resource: sink.as_entire_binding() };
                    pass.set_pipeline(fill);
                    pass.set_bind_group(0, &bind(fill, 0, &[entry]), &[]);
                    pass.dispatch_workgroups(64, 1, 1);
                }
                pass.set_pipeline(pipeline);
                for (group, bound) in &bound {
                    pass.set_bind_group(*group, bound, &[]);
                }
                let [x, y, z] = dispatch.workgroups;
                pass.dispatch_workgroups(x, y, z);
            }
            // One read for all.
            let total: usize = buffers.iter().map(|b| b.1).sum();
            let staging = device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: total as u64,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let mut at = 0;
            for (buffer, size) in &buffers {
                encoder.copy_buffer_to_buffer(buffer, 0, &staging, at, *size as u64);
                at += *size as u64;
            }
            queue.submit([encoder.finish()]);
            let slice = staging.slice(..);
            let (send, receive) = std::sync::mpsc::channel();
            slice.map_async(wgpu::MapMode::Read, move |r| drop(send.send(r)));
            device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| e.to_string())?;
            receive.recv().map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            let bytes = slice.get_mapped_range().map_err(|e| e.to_string())?;
            let mut rest = &bytes[..];
            let mut all = Vec::new();
            for (_, size) in &buffers {
                let (one, after) = rest.split_at(*size);
                all.push(one.to_vec());
                rest = after;
            }
            Ok(all)
        })?
    }
}
