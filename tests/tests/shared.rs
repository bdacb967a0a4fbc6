//! A device shared with an app: buffers both ways, the order of things, and what stays the app's.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rambutan_engine::{
    DType, Error, Gpu, GpuOptions, Tensor,
    gpu::Launch,
    ops,
    wgpu::{self, BufferUsages as Usage},
};

/// An app with a device of its own and handlers of its own.
struct App {
    adapter: wgpu::Adapter,
    device: wgpu::Device,
    queue: wgpu::Queue,
    uncaptured: Arc<Mutex<Vec<String>>>,
    lost: Arc<AtomicU32>,
}

impl App {
    fn open() -> App {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
        let adapter = adapters.into_iter().next().expect("an adapter");
        let device = adapter.request_device(&GpuOptions::default().descriptor(&adapter));
        let (device, queue) = pollster::block_on(device).expect("a device");
        let (uncaptured, lost): (Arc<Mutex<Vec<String>>>, Arc<AtomicU32>) = Default::default();
        let (errors, losses) = (uncaptured.clone(), lost.clone());
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            errors.lock().expect("no panic").push(e.to_string());
        }));
        device.set_device_lost_callback(move |_, _| {
            losses.fetch_add(1, Ordering::Relaxed);
        });
        App { adapter, device, queue, uncaptured, lost }
    }

    fn gpu(&self) -> Gpu {
        Gpu::from_device(&self.adapter, self.device.clone(), self.queue.clone(), &GpuOptions::default())
    }

    fn buffer(&self, size: u64, usage: Usage) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("the app's"),
            size,
            usage,
            mapped_at_creation: false,
        })
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
    }

    /// A mapped buffer's floats.
    fn read(&self, buffer: &wgpu::Buffer) -> Vec<f32> {
        buffer.map_async(wgpu::MapMode::Read, .., |result| result.expect("the buffer maps"));
        self.device.poll(wgpu::PollType::wait_indefinitely()).expect("the device works");
        let view = buffer.get_mapped_range(..).expect("mapped");
        view.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect()
    }

    fn errors(&self) -> Vec<String> {
        std::mem::take(&mut self.uncaptured.lock().expect("no panic"))
    }
}

fn bytes(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.to_vec().expect("the device works")
}

/// A render pass that draws the sum of four floats into the one pixel of a target.
struct Painter {
    pipeline: wgpu::RenderPipeline,
    target: wgpu::Texture,
}

impl Painter {
    fn new(app: &App) -> Painter {
        let module = app.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(
                "@group(0) @binding(0) var<storage, read> x: array<vec4f>;
                 @vertex fn corner(@builtin(vertex_index) i: u32) -> @builtin(position) vec4f {
                     return vec4f(f32(i & 1u) * 4.0 - 1.0, f32(i >> 1u) * 4.0 - 1.0, 0.0, 1.0);
                 }
                 @fragment fn pixel() -> @location(0) f32 { return dot(x[0], vec4f(1.0)); }"
                    .into(),
            ),
        });
        let format = wgpu::TextureFormat::R32Float;
        let pipeline = app.device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: None,
            layout: None,
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: Some("corner"),
                compilation_options: Default::default(),
                buffers: &[],
            },
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: Some("pixel"),
                compilation_options: Default::default(),
                targets: &[Some(format.into())],
            }),
            primitive: Default::default(),
            depth_stencil: None,
            multisample: Default::default(),
            multiview_mask: None,
            cache: None,
        });
        let target = app.device.create_texture(&wgpu::TextureDescriptor {
            label: None,
            size: wgpu::Extent3d::default(),
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
            view_formats: &[],
        });
        Painter { pipeline, target }
    }

    /// Draws `x`, and copies the pixel to float `at` of `log`.
    fn draw(&self, app: &App, x: &Tensor, log: &wgpu::Buffer, at: u64) {
        // Held until what reads it is submitted.
        let shared = x.buffer();
        let group = app.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &self.pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: shared.binding().expect("four floats") }],
        });
        let view = self.target.create_view(&Default::default());
        let mut encoder = app.encoder();
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view: &view,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations::default(),
            })],
            ..Default::default()
        });
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.draw(0..3, 0..1);
        drop(pass);
        encoder.copy_texture_to_buffer(
            self.target.as_image_copy(),
            wgpu::TexelCopyBufferInfo {
                buffer: log,
                layout: wgpu::TexelCopyBufferLayout { offset: 4 * at, ..Default::default() },
            },
            wgpu::Extent3d::default(),
        );
        app.queue.submit([encoder.finish()]);
    }
}

fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Write in the app, compute in ours, read in the app's render pass, all in one frame.
#[test]
fn ten_thousand_frames_without_growth_or_stale_data() {
    const FRAMES: u64 = 10_000;
    let app = App::open();
    let (gpu, painter) = (app.gpu(), Painter::new(&app));
    let offset = 256;
    let given = app.buffer(offset + 16, Usage::STORAGE | Usage::COPY_DST);
    let log = app.buffer(4 * FRAMES, Usage::COPY_DST | Usage::MAP_READ);
    let from = app.buffer(16 * FRAMES, Usage::COPY_SRC | Usage::COPY_DST);
    let input = |frame: u64| [0.0, 1.0, 2.0, 3.0].map(|v| frame as f32 + v);
    app.queue.write_buffer(&from, 0, &bytes(&(0..FRAMES).flat_map(input).collect::<Vec<_>>()));
    let adopt = || Tensor::from_buffer(&gpu, &given, offset, DType::F32, [4]).expect("it fits");
    let kept = adopt();
    let finished = Arc::new(AtomicU32::new(0));
    let mut warm = None;
    for frame in 0..FRAMES {
        // The app writes: from the host, or in a submit of its own.
        if frame % 3 == 0 {
            app.queue.write_buffer(&given, offset, &bytes(&input(frame)));
        } else {
            let mut encoder = app.encoder();
            encoder.copy_buffer_to_buffer(&from, 16 * frame, &given, offset, 16);
            app.queue.submit([encoder.finish()]);
        }
        // Ours computes: over one tensor, or over one of this frame alone.
        let x = if frame % 2 == 0 { kept.clone() } else { adopt() };
        let y = ops::add(&ops::scale(&x, 2.0), &x);
        gpu.submit();
        // The app draws.
        painter.draw(&app, &y, &log, frame);
        let counter = finished.clone();
        app.queue.on_submitted_work_done(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        if frame == 500 {
            warm = Some((gpu.counters(), gpu.memory().reserved, resident()));
        }
        // What a window's vertical sync does: frames do not pile up.
        if frame % 100 == 99 {
            app.device.poll(wgpu::PollType::wait_indefinitely()).expect("the device works");
        }
    }
    let drawn = app.read(&log);
    for (frame, got) in drawn.iter().enumerate() {
        assert_eq!(*got, 3.0 * input(frame as u64).iter().sum::<f32>(), "frame {frame}");
    }
    let (counters, reserved, memory) = warm.expect("there were 500 frames");
    let now = gpu.counters();
    assert_eq!((now.buffers, now.pipelines, now.reads), (counters.buffers, counters.pipelines, 0));
    assert_eq!(now.bind_groups, counters.bind_groups, "a buffer that some tensor keeps has its bind groups");
    assert_eq!(gpu.memory().reserved, reserved);
    if let (Some(before), Some(after)) = (memory, resident()) {
        assert!(after < before + (16 << 10), "{before} KiB grew to {after}");
    }
    assert_eq!(finished.load(Ordering::Relaxed), FRAMES as u32, "every callback of the app's came");
    gpu.check().expect("nothing went wrong");
    assert_eq!(app.errors(), [""; 0]);
}

#[test]
fn a_tensor_over_an_apps_buffer_is_checked() {
    let app = App::open();
    let gpu = app.gpu();
    let alignment = gpu.capabilities().storage_alignment;
    let buffer = app.buffer(4 * alignment, Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST);
    let data = |result: Result<Tensor, Error>| match result {
        Err(error @ Error::Data { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let at = |offset, count: usize| Tensor::from_buffer(&gpu, &buffer, offset, DType::F32, [count]);
    let count = alignment as usize;
    assert!(at(0, count).is_ok() && at(3 * alignment, count / 4).is_ok() && at(4 * alignment, 0).is_ok());
    for (offset, count) in
        [(0, count + 1), (alignment, count), (4 * alignment, 1), (u64::MAX / alignment * alignment, 1)]
    {
        let text = data(at(offset, count));
        assert!(
            text.contains("its size: expected at least") && text.ends_with(&(4 * alignment).to_string()),
            "{text}"
        );
    }
    let text = data(at(4, 1));
    assert!(text.contains(&format!("its offset: expected a multiple of {alignment}")), "{text}");
    let text = data(Tensor::from_buffer(&gpu, &app.buffer(64, Usage::COPY_SRC), 0, DType::F32, [4]));
    assert!(text.contains("its usage: expected STORAGE") && text.contains("COPY_SRC"), "{text}");

    // Half a word at the end: kernels bind whole ones.
    let odd = app.buffer(alignment + 8, Usage::STORAGE);
    assert!(Tensor::from_buffer(&gpu, &odd, alignment, DType::F16, [3]).is_ok());
    assert!(Tensor::from_buffer(&gpu, &odd, alignment, DType::F16, [5]).is_err());

    // What it was not created for is said when it is asked for.
    let bare = Tensor::from_buffer(&gpu, &odd, 0, DType::F32, [2]).expect("STORAGE is enough to compute");
    let text = bare.to_vec::<f32>().expect_err("no COPY_SRC").to_string();
    assert!(text.contains("expected usage BufferUsages(COPY_SRC)"), "{text}");
    assert!(bare.write(&[1.0f32, 2.0]).expect_err("no COPY_DST").to_string().contains("COPY_DST"));
    assert_eq!(values(&ops::scale(&bare, 1.0)), [0.0, 0.0], "and it computes");

    // Another device's is refused by the device, at the next read, and reaches nobody else.
    let other = App::open();
    let foreign = Tensor::from_buffer(&gpu, &other.buffer(64, Usage::STORAGE), 0, DType::F32, [4])
        .expect("it looks fine");
    assert!(matches!(
        ops::scale(&foreign, 2.0).to_vec::<f32>(),
        Err(Error::Kernel { .. } | Error::Device(_))
    ));
    assert_eq!((app.errors(), other.errors()), (Vec::new(), Vec::new()));
}

#[test]
fn buffers_are_shared_both_ways() {
    let app = App::open();
    let gpu = app.gpu();
    let alignment = gpu.capabilities().storage_alignment;
    let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
    let buffer = app.buffer(2 * alignment, usage);
    let adopt = |offset| Tensor::from_buffer(&gpu, &buffer, offset, DType::F32, [4]).expect("it fits");
    let (a, b) = (adopt(0), adopt(alignment));
    // The app's buffer is no memory of the pool's.
    let before = gpu.memory().in_use;
    a.write(&[1.0f32, 2.0, 3.0, 4.0]).expect("COPY_DST");
    assert_eq!(gpu.memory().in_use, before);
    // A kernel of ours writes into it where it is told to.
    b.fill(7.0);
    gpu.submit();
    let target = app.buffer(2 * alignment, Usage::COPY_DST | Usage::MAP_READ);
    let mut encoder = app.encoder();
    encoder.copy_buffer_to_buffer(&buffer, 0, &target, 0, 2 * alignment);
    app.queue.submit([encoder.finish()]);
    let all = app.read(&target);
    assert_eq!((&all[..4], &all[alignment as usize / 4..][..4]), (&[1.0, 2.0, 3.0, 4.0][..], &[7.0; 4][..]));
    // Gradients flow to it, and it is no place to add them up in.
    let x = a.requires_grad();
    let y = ops::mul(&x, &x);
    let seed = adopt(alignment);
    y.backward_from(&seed);
    assert_eq!(values(&x.grad().expect("a leaf")), [14.0, 28.0, 42.0, 56.0]);
    assert_eq!(values(&b), [7.0; 4]);
    // Two tensors over one buffer are known to share it.
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Launch::source(
            "copied",
            "@group(0) @binding(0) var<storage, read> x: array<f32>;
             @group(0) @binding(1) var<storage, read_write> y: array<f32>;
             @compute @workgroup_size(4) fn main(@builtin(local_invocation_index) i: u32) { y[i] = x[i]; }",
        )
        .read(&a)
        .write(&b)
        .groups(1);
    }));
    assert!(panic.is_err(), "a kernel reads and writes one buffer");
    assert_eq!(app.errors(), [""; 0]);
}

/// On software Vulkan, where a device's memory is the process's.
#[test]
fn an_apps_buffer_goes_with_its_last_user() {
    let app = App::open();
    let gpu = app.gpu();
    let mut before = None;
    for i in 0..100 {
        let buffer = app.buffer(16 << 20, Usage::STORAGE);
        let x = Tensor::from_buffer(&gpu, &buffer, 0, DType::F32, [4 << 20]).expect("it fits");
        x.fill(f64::from(i));
        drop((x, buffer));
        gpu.wait().expect("the device works");
        before = before.or(resident());
    }
    if let (Some(before), Some(after)) = (before, resident()) {
        assert!(after < before + (400 << 10), "{before} KiB grew to {after}");
    }
}

#[test]
fn a_guard_keeps_what_it_guards() {
    let app = App::open();
    let gpu = app.gpu();
    let x = Tensor::from_slice(&gpu, &[1.0f32, 2.0, 3.0, 4.0], [4]).expect("it fills its shape");
    let y = ops::scale(&x, 10.0);
    let guard = y.buffer();
    let in_use = gpu.memory().in_use;
    drop(y);
    assert_eq!(gpu.memory().in_use, in_use, "it is still in use");
    // Whatever is recorded meanwhile goes elsewhere.
    let others: Vec<Tensor> = (0..50).map(|i| ops::scale(&x, i as f32)).collect();
    assert!(others.iter().all(|o| *o.buffer() != *guard));
    gpu.submit();
    let target = app.buffer(16, Usage::COPY_DST | Usage::MAP_READ);
    let mut encoder = app.encoder();
    encoder.copy_buffer_to_buffer(&guard, guard.offset(), &target, 0, guard.size());
    app.queue.submit([encoder.finish()]);
    let buffer = (*guard).clone();
    drop(guard);
    // Submitted is enough: what takes its place now comes later.
    let next = ops::scale(&x, -1.0);
    assert!(*next.buffer() == buffer, "it is handed out again");
    gpu.submit();
    assert_eq!(app.read(&target), [10.0, 20.0, 30.0, 40.0]);
    assert_eq!(values(&next), [-1.0, -2.0, -3.0, -4.0]);
    // A view's guard says where the view lies.
    let rows = Tensor::from_slice(&gpu, &[0.0f32; 256], [2, 128]).expect("it fills its shape");
    let view = rows.view_rows(1..2).expect("512 bytes align");
    assert_eq!((view.buffer().offset(), view.buffer().size()), (512, 512));
}

#[test]
fn handlers_stay_the_apps() {
    let app = App::open();
    let gpu = app.gpu();
    let x = Tensor::from_slice(&gpu, &[1.0f32, 2.0], [2]).expect("it fills its shape");
    // Every kind of mistake of ours: a kernel that does not compile, one that binds too much, a tensor that is too large.
    let lost = x.like();
    Launch::source("broken", "this is no WGSL").write(&lost).groups(1);
    assert!(matches!(lost.to_vec::<f32>(), Err(Error::Kernel { .. })));
    let many: String =
        (0..200).map(|i| format!("@group(0) @binding({i}) var<storage, read> x{i}: array<f32>;\n")).collect();
    let text = format!("{many}@compute @workgroup_size(1) fn main() {{ _ = x0[0]; _ = x199[0]; }}");
    let inputs: Vec<Tensor> = (0..200).map(|_| x.like()).collect();
    inputs.iter().fold(Launch::source("many", &text), |launch, x| launch.read(x)).groups(1);
    let error = gpu.wait().expect_err("no adapter binds 200 buffers");
    assert!(matches!(error, Error::Kernel { .. } | Error::Device(_)), "{error}");
    drop(Tensor::empty(&gpu, [1 << 45], DType::F32));
    assert!(gpu.check().is_err());
    assert_eq!(app.errors(), [""; 0], "none of them is the app's to hear of");

    // The app's own reach it, and not us; within its scopes they reach those, ours do not.
    drop(app.buffer(16, Usage::empty()));
    assert_eq!(app.errors().len(), 1);
    gpu.wait().expect("it was not ours");
    let scope = app.device.push_error_scope(wgpu::ErrorFilter::Validation);
    Launch::source("broken", "nor is this").write(&x.like()).groups(1);
    assert!(gpu.check().is_err());
    assert!(pollster::block_on(scope.pop()).is_none(), "ours is no error of the app's scope");
    let scope = app.device.push_error_scope(wgpu::ErrorFilter::Validation);
    drop(app.buffer(16, Usage::empty()));
    let _ = ops::scale(&x, 2.0);
    gpu.submit();
    assert!(pollster::block_on(scope.pop()).is_some(), "the app's scope is the innermost again");
    assert_eq!((app.errors().len(), values(&ops::scale(&x, 3.0))), (0, vec![3.0, 6.0]));

    // What the device is told while it is lost.
    assert_eq!(app.lost.load(Ordering::Relaxed), 0);
    app.device.destroy();
    for _ in 0..100 {
        let _ = app.device.poll(wgpu::PollType::Poll);
        if app.lost.load(Ordering::Relaxed) > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(app.lost.load(Ordering::Relaxed), 1, "the app hears that its device is lost");
    assert!(ops::scale(&x, 2.0).to_vec::<f32>().is_err(), "and reads are errors");
    let y = gpu.defer(|| ops::scale(&x, 2.0));
    for _ in 0..10 {
        let _ = gpu.advance(Duration::from_millis(1));
    }
    assert!(gpu.is_idle() || y.to_vec::<f32>().is_err());
    assert_eq!(app.errors(), [""; 0]);
}

#[test]
fn slices_do_not_hold_up_frames() {
    let app = App::open();
    let (gpu, painter) = (app.gpu(), Painter::new(&app));
    let log = app.buffer(4 * 200, Usage::COPY_DST | Usage::MAP_READ);
    let x = Tensor::from_slice(&gpu, &[1.0f32; 1 << 16], [1 << 16]).expect("it fills its shape");
    let heavy = gpu.defer(|| (0..400).fold(x.clone(), |y, _| ops::add(&y, &x)));
    let shown = Tensor::from_slice(&gpu, &[1.0f32, 2.0, 3.0, 4.0], [4]).expect("it fills its shape");
    let mut frames = 0;
    while !gpu.advance(Duration::from_micros(200)).expect("the device works") && frames < 200 {
        // The app's frames go between the slices.
        painter.draw(&app, &shown, &log, frames);
        frames += 1;
    }
    assert!(frames > 3, "{frames} frames while it works");
    assert!(app.read(&log)[..frames as usize].iter().all(|v| *v == 10.0));
    assert_eq!(values(&heavy)[77], 401.0);
    assert_eq!(app.errors(), [""; 0]);
}
