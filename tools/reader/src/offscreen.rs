//! The same frames without a window: rendered into a texture through egui-wgpu while a text is read and asked about.

use std::time::Instant;

use eframe::{
    egui,
    egui_wgpu::{Renderer, RendererOptions, ScreenDescriptor, wgpu},
};
use rambutan_engine::Gpu;
use rambutan_model::{
    data,
    tasks::{FactKind, Haystack},
};

use crate::{Arguments, canvas, heat, said, save, script::Frames, session::Session, ui::Ui};

const SIZE: [u32; 2] = [1280, 800];
const FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba8Unorm;

/// A renderer and its target.
struct Screen {
    device: wgpu::Device,
    queue: wgpu::Queue,
    context: egui::Context,
    renderer: Renderer,
    target: wgpu::Texture,
    begun: Instant,
}

impl Screen {
    fn new(device: wgpu::Device, queue: wgpu::Queue) -> Screen {
        let mut renderer = Renderer::new(&device, FORMAT, RendererOptions::default());
        renderer.callback_resources.insert(canvas::Canvas::new(&device, FORMAT, heat::SHADER));
        let target = device.create_texture(&wgpu::TextureDescriptor {
            label: Some("screen"),
            size: wgpu::Extent3d { width: SIZE[0], height: SIZE[1], depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: FORMAT,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
            view_formats: &[],
        });
        let context = egui::Context::default();
        Screen { device, queue, context, renderer, target, begun: Instant::now() }
    }

    /// One frame, from its beginning to the last of its pixels.
    fn frame(&mut self, ui: &mut Ui) -> Result<f64, String> {
        let begin = Instant::now();
        let screen = egui::vec2(SIZE[0] as f32, SIZE[1] as f32);
        let input = egui::RawInput {
            screen_rect: Some(egui::Rect::from_min_size(egui::Pos2::ZERO, screen)),
            time: Some(self.begun.elapsed().as_secs_f64()),
            ..Default::default()
        };
        let mut output = self.context.run_ui(input, |root| ui.frame(root));
        let jobs = self.context.tessellate(output.shapes, output.pixels_per_point);
        let set = std::mem::take(&mut output.textures_delta.set);
        let free = std::mem::take(&mut output.textures_delta.free);
        for (id, deltas) in &set {
            for delta in deltas {
                self.renderer.update_texture(&self.device, &self.queue, *id, delta);
            }
        }
        let screen = ScreenDescriptor { size_in_pixels: SIZE, pixels_per_point: output.pixels_per_point };
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut commands =
            self.renderer.update_buffers(&self.device, &self.queue, &mut encoder, &jobs, &screen);
        let view = self.target.create_view(&Default::default());
        let mut pass = encoder
            .begin_render_pass(&wgpu::RenderPassDescriptor {
                label: Some("egui"),
                color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                    view: &view,
                    depth_slice: None,
                    resolve_target: None,
                    ops: wgpu::Operations::default(),
                })],
                ..Default::default()
            })
            .forget_lifetime();
        self.renderer.render(&mut pass, &jobs, &screen);
        drop(pass);
        commands.push(encoder.finish());
        let submitted = self.queue.submit(commands);
        for id in &free {
            self.renderer.free_texture(id);
        }
        // What a screen does: the next frame begins when this one is seen.
        let wait = wgpu::PollType::Wait { submission_index: Some(submitted), timeout: None };
        self.device.poll(wait).map_err(|e| e.to_string())?;
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Frames for as long as there is work.
    fn frames(&mut self, ui: &mut Ui) -> Result<Frames, String> {
        let mut frames = Frames::default();
        while ui.session.is_busy() {
            frames.push(self.frame(ui)?);
        }
        ui.session.problem.take().map_or(Ok(frames), Err)
    }

    /// The latest frame's pixels, RGB.
    fn pixels(&self) -> Result<Vec<u8>, String> {
        let row = SIZE[0] * 4; // a multiple of 256, as copies ask
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("screenshot"),
            size: u64::from(row * SIZE[1]),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_texture_to_buffer(
            self.target.as_image_copy(),
            wgpu::TexelCopyBufferInfo {
                buffer: &buffer,
                layout: wgpu::TexelCopyBufferLayout {
                    offset: 0,
                    bytes_per_row: Some(row),
                    rows_per_image: None,
                },
            },
            self.target.size(),
        );
        self.queue.submit([encoder.finish()]);
        buffer.map_async(wgpu::MapMode::Read, .., |_| {});
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| e.to_string())?;
        let view = buffer.get_mapped_range(..).map_err(|e| e.to_string())?;
        Ok(view.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect())
    }
}

/// Warms up, reads a text, asks for a fact in it, and prints the frames' times of all three as JSON.
pub fn run(arguments: &Arguments) -> Result<(), String> {
    // Before a device is opened and kernels compile: ending then needs nobody to wait for.
    let given = arguments.file.as_ref().map(|file| data::read_bytes(file)).transpose();
    let given = given.map_err(|e| e.to_string())?;
    let options = canvas::options();
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::all();
    let instance = wgpu::Instance::new(descriptor);
    let preference = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = pollster::block_on(instance.request_adapter(&preference)).map_err(|e| e.to_string())?;
    let device = pollster::block_on(adapter.request_device(&options.descriptor(&adapter)));
    let (device, queue) = device.map_err(|e| e.to_string())?;
    let gpu = Gpu::from_device(&adapter, device.clone(), queue.clone(), &options);
    let mut screen = Screen::new(device, queue);
    let mut ui = Ui::new(Session::new(&gpu, &arguments.checkpoint()).map_err(|e| e.to_string())?);

    let default = if gpu.capabilities().cpu { 1 << 15 } else { 1 << 20 };
    let (text, question, expected) = match given {
        Some(text) => (text, None, None),
        None => {
            let mut hay =
                Haystack::prose(1, arguments.tokens.unwrap_or(default)).map_err(|e| e.to_string())?;
            let facts = hay.plant(&[FactKind::Named], 1).map_err(|e| e.to_string())?;
            let fact = &facts[0].fact;
            (hay.text(), Some(fact.question.clone()), Some(fact.answer.clone()))
        }
    };
    // Fonts are laid out once.
    screen.frame(&mut ui)?;
    let begin = Instant::now();
    let frames = screen.frames(&mut ui)?;
    let (seconds, kernels) = (begin.elapsed().as_secs_f64(), ui.session.kernels());
    println!("{{\"warm_s\": {seconds:.3}, \"kernels\": {kernels}, {}}}", frames.json());
    ui.session.load(text);
    let frames = screen.frames(&mut ui)?;
    let (tokens, seconds) = ui.session.read.unwrap_or_default();
    println!(
        "{{\"device\": {:?}, \"read\": {tokens}, \"tokens_per_s\": {:.0}, \"device_bytes\": {}, \"kernels\": {}, {}}}",
        ui.session.device(),
        tokens as f64 / seconds,
        ui.session.memory(),
        ui.session.kernels(),
        frames.json()
    );
    if let Some(question) = question {
        ui.session.ask(&question);
        let frames = screen.frames(&mut ui)?;
        screen.frame(&mut ui)?;
        println!("{{\"kernels\": {}, {}}}", ui.session.kernels(), frames.json());
        println!("{}", said(&ui, 1.0));
        let said = ui.session.said();
        if let Some(expected) = expected.filter(|e| e.trim_end_matches('|') != said) {
            return Err(format!("{question} was answered by `{said}`, expected `{expected}`"));
        }
    }
    if let Some(path) = &arguments.screenshot {
        save(path, SIZE.map(|n| n as usize), &screen.pixels()?)?;
    }
    Ok(())
}
