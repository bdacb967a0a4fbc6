//! Rectangles that a fragment shader fills straight from tensors' buffers, in the renderer's own pass.

use std::sync::Arc;

use eframe::{
    egui,
    egui_wgpu::{
        self, CallbackResources, CallbackTrait, ScreenDescriptor, WgpuConfiguration, WgpuSetup,
        WgpuSetupCreateNew, wgpu,
    },
};
use rambutan_engine::{GpuOptions, gpu::shared::SharedBuffer};

/// How the device is opened and used: compiled pipelines stay in the user's cache folder.
pub fn options() -> GpuOptions {
    GpuOptions::from_env().with_user_cache()
}

/// How eframe opens its device, so that the engine has all it can use there.
pub fn setup() -> WgpuConfiguration {
    let mut new = WgpuSetupCreateNew::without_display_handle();
    new.device_descriptor = Arc::new(|adapter| options().descriptor(adapter));
    WgpuConfiguration { wgpu_setup: WgpuSetup::CreateNew(new), ..WgpuConfiguration::default() }
}

/// The pipeline, made once and kept among the renderer's resources.
pub struct Canvas {
    pipeline: wgpu::RenderPipeline,
    params: wgpu::Buffer,
    group: Option<wgpu::BindGroup>,
}

impl Canvas {
    /// For targets of `format`. The shader has a fragment stage that takes a `Corner` of canvas.wgsl, a uniform of four words
    /// in binding 0, and the buffers from binding 1 on.
    pub fn new(device: &wgpu::Device, format: wgpu::TextureFormat, wgsl: &str) -> Canvas {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("canvas"),
            source: wgpu::ShaderSource::Wgsl([wgsl, include_str!("canvas.wgsl")].concat().into()),
        });
        let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some("canvas"),
            layout: None,
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: None,
                compilation_options: Default::default(),
                buffers: &[],
            },
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: None,
                compilation_options: Default::default(),
                targets: &[Some(format.into())],
            }),
            primitive: Default::default(),
            depth_stencil: None,
            multisample: Default::default(),
            multiview_mask: None,
            cache: None,
        });
        let params = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("canvas"),
            size: 16,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Canvas { pipeline, params, group: None }
    }
}

/// What one frame draws.
struct Paint {
    words: [u32; 4],
    /// Held until egui has submitted what draws them.
    buffers: Vec<SharedBuffer>,
}

impl CallbackTrait for Paint {
    fn prepare(
        &self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        _: &ScreenDescriptor,
        _: &mut wgpu::CommandEncoder,
        resources: &mut CallbackResources,
    ) -> Vec<wgpu::CommandBuffer> {
        let Some(canvas) = resources.get_mut::<Canvas>() else { return Vec::new() };
        let Some(buffers) = self.buffers.iter().map(|b| b.binding()).collect::<Option<Vec<_>>>() else {
            return Vec::new();
        };
        queue.write_buffer(&canvas.params, 0, &self.words.map(u32::to_le_bytes).concat());
        let resources = std::iter::once(canvas.params.as_entire_binding()).chain(buffers);
        let entry = |(binding, resource)| wgpu::BindGroupEntry { binding, resource };
        canvas.group = Some(device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("canvas"),
            layout: &canvas.pipeline.get_bind_group_layout(0),
            entries: &(0..).zip(resources).map(entry).collect::<Vec<_>>(),
        }));
        Vec::new()
    }

    fn paint(
        &self,
        _: egui::PaintCallbackInfo,
        pass: &mut wgpu::RenderPass<'static>,
        resources: &CallbackResources,
    ) {
        let Some(canvas) = resources.get::<Canvas>() else { return };
        let Some(group) = &canvas.group else { return };
        // egui has set the viewport to the rectangle.
        pass.set_pipeline(&canvas.pipeline);
        pass.set_bind_group(0, group, &[]);
        pass.draw(0..3, 0..1);
    }
}

/// Draws into `rect`; a frame draws one.
pub fn show(ui: &egui::Ui, rect: egui::Rect, words: [u32; 4], buffers: Vec<SharedBuffer>) {
    ui.painter().add(egui_wgpu::Callback::new_paint_callback(rect, Paint { words, buffers }));
}
