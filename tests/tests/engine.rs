//! The engine from outside: devices, streams, memory, errors, the graph, and kernels of one's own.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
};

use rambutan_engine::{
    DType, Error, Gpu, GpuOptions, Tensor, checkpoint,
    gpu::{Launch, Profile, Purpose, with_purpose},
    no_grad, ops,
    reference::Array,
    tensor::{ParameterSpec, Parameters},
    testing::{self, Case, Dim, Input},
    wgpu,
};

/// A device of the test's own, so that counters and faults are its alone.
fn own() -> Gpu {
    with(GpuOptions::from_env())
}

fn with(options: GpuOptions) -> Gpu {
    Gpu::new(GpuOptions { checked: true, ..options }).unwrap_or_else(|e| panic!("{e}"))
}

fn floats(gpu: &Gpu, data: &[f32]) -> Tensor {
    Tensor::from_slice(gpu, data, [data.len()]).expect("the data fills its shape")
}

fn values(x: &Tensor) -> Vec<f32> {
    x.to_vec().unwrap_or_else(|e| panic!("{e}"))
}

fn panic_text(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it panics");
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).expect("a panic with words")
}

#[test]
fn two_devices_live_side_by_side() {
    let (a, b) = (own(), own());
    assert!(a != b);
    let (x, y) = (floats(&a, &[1.0, 2.0]), floats(&b, &[3.0, 4.0]));
    let (x2, y2) = (ops::scale(&x, 10.0), ops::scale(&y, 100.0));
    assert_eq!((values(&y2), values(&x2)), (vec![300.0, 400.0], vec![10.0, 20.0]));
    let text = panic_text(|| drop(ops::add(&x, &y)));
    assert!(text.contains("lives on another device"), "{text}");
    // One going away leaves the other alone.
    drop((a, x, x2));
    assert_eq!(values(&ops::scale(&y, 2.0)), [6.0, 8.0]);
}

/// An adapter and device opened by somebody else.
fn somebodys() -> (wgpu::Adapter, wgpu::Device, wgpu::Queue) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let adapter = adapters.into_iter().next().expect("an adapter");
    let device = adapter.request_device(&wgpu::DeviceDescriptor::default());
    let (device, queue) = pollster::block_on(device).expect("a device");
    (adapter, device, queue)
}

#[test]
fn a_device_of_ones_own_is_shared_in_order() {
    let (adapter, device, queue) = somebodys();
    let heard = Arc::new(AtomicU32::new(0));
    let counter = heard.clone();
    device.on_uncaptured_error(Arc::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    let gpu = Gpu::from_device(&adapter, device.clone(), queue.clone(), &GpuOptions::default());

    // What is recorded, the owner's write, and what is recorded after it happen in that order.
    let x = floats(&gpu, &[1.0, 2.0, 3.0, 4.0]);
    let before = ops::scale(&x, 10.0);
    gpu.submit();
    queue.write_buffer(&x.buffer(), x.buffer().offset(), bytes(&[5.0, 6.0, 7.0, 8.0]));
    let after = ops::scale(&x, 10.0);
    assert_eq!(values(&before), [10.0, 20.0, 30.0, 40.0]);
    assert_eq!(values(&after), [50.0, 60.0, 70.0, 80.0]);

    // The owner reads a tensor's buffer in a submit of its own.
    let target = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 16,
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let y = ops::scale(&x, 0.5);
    gpu.submit();
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encoder.copy_buffer_to_buffer(&y.buffer(), y.buffer().offset(), &target, 0, 16);
    queue.submit([encoder.finish()]);
    target.map_async(wgpu::MapMode::Read, .., |result| result.expect("the buffer maps"));
    device.poll(wgpu::PollType::wait_indefinitely()).expect("the device works");
    assert_eq!(target.get_mapped_range(..).expect("mapped")[..], *bytes(&[2.5, 3.0, 3.5, 4.0]));

    // The engine's mistakes are the engine's to report, the owner's still reach the owner's handler.
    Launch::source("broken", "this is no WGSL").write(&x).groups(1);
    assert!(matches!(x.to_vec::<f32>(), Err(Error::Kernel { .. })));
    assert_eq!(heard.load(Ordering::Relaxed), 0, "the engine's error reached the owner's handler");
    drop(device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 16,
        usage: wgpu::BufferUsages::empty(),
        mapped_at_creation: false,
    }));
    assert_eq!(heard.load(Ordering::Relaxed), 1, "the owner's handler is still installed");
    assert_eq!(values(&after), [50.0, 60.0, 70.0, 80.0]);
}

fn bytes(x: &[f32; 4]) -> &[u8] {
    // SAFETY: floats are plain bytes.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), 16) }
}

#[test]
fn reads_are_futures() {
    let gpu = own();
    let (x, y) = (floats(&gpu, &[1.0, 2.0]), floats(&gpu, &[3.0]));
    // No executor of any kind: polled until ready.
    let mut read = pin!(x.read::<f32>());
    let mut context = Context::from_waker(Waker::noop());
    let got = (0..1000).find_map(|_| match read.as_mut().poll(&mut context) {
        Poll::Ready(got) => Some(got),
        Poll::Pending => None,
    });
    assert_eq!(got.expect("it completes").expect("it reads"), [1.0, 2.0]);
    // Two reads under way at once, begun in one order and finished in the other.
    let two = async {
        let mut first = pin!(x.read::<f32>());
        let early = std::future::poll_fn(|c| Poll::Ready(first.as_mut().poll(c))).await;
        let second = y.read::<f32>().await;
        let first = match early {
            Poll::Ready(first) => first,
            Poll::Pending => first.await,
        };
        (first, second)
    };
    let (first, second) = pollster::block_on(two);
    assert_eq!((first.expect("reads"), second.expect("reads")), (vec![1.0, 2.0], vec![3.0]));
    assert!(matches!(x.to_vec::<u32>(), Err(Error::Data { .. })), "another element type is an error");
}

/// Whichever thread polls the device hears of all that is done: no read misses its own.
#[test]
fn reads_of_many_threads_all_come() {
    let gpu = own();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let gpu = &gpu;
            scope.spawn(move || {
                for i in 0..200 {
                    let x = floats(gpu, &[thread as f32, i as f32]);
                    assert_eq!(values(&ops::scale(&x, 2.0)), [2.0 * thread as f32, 2.0 * i as f32]);
                }
            });
        }
    });
}

/// A small language model without time: enough to touch arenas, lists, partial sums and uploads.
struct Small {
    gpu: Gpu,
    parameters: Parameters,
}

impl Small {
    fn new(gpu: &Gpu) -> Small {
        let spec = |name: &str, shape: &[usize]| ParameterSpec {
            name: name.into(),
            shape: shape.into(),
            decay: shape.len() > 1,
            values: (0..shape.iter().product()).map(|i| ((i * 37 % 101) as f32 - 50.0) / 100.0).collect(),
        };
        let specs = vec![spec("embeddings", &[32, 24]), spec("norm", &[24]), spec("head", &[32, 24])];
        Small { gpu: gpu.clone(), parameters: Parameters::new(gpu, specs, true).expect("values fill shapes") }
    }

    fn loss(&self, step: usize) -> Tensor {
        let get = |name| self.parameters.get(name).expect("it exists");
        let ids: Vec<u32> = (0..40).map(|i| ((i * 7 + step) % 32) as u32).collect();
        let ids = Tensor::from_slice(&self.gpu, &ids, [40]).expect("40 ids");
        let x = ops::embedding(get("embeddings"), &ids);
        let y = ops::rms_norm(&ops::add(&x, &ops::silu(&x)), get("norm"), 1e-5);
        let weights = Tensor::full(&self.gpu, [40], DType::F32, 0.025);
        ops::cross_entropy(&ops::linear(&y, get("head"), None), &ids, &weights).0
    }

    fn gradients(&self) -> Vec<Vec<f32>> {
        self.parameters.gradients().expect("they are trained").into_iter().map(values).collect()
    }
}

#[test]
fn nothing_grows_over_steps() {
    let gpu = own();
    let small = Small::new(&gpu);
    let mut seen = Vec::new();
    // A submit takes whole steps and a part of one, which part depends on where the last wait was: with up to 192 launches a
    // submit, and two steps that differ, 384 go by behind a wait before all have been met.
    for step in 0..900 {
        if step % 2 == 0 {
            small.parameters.zero_gradients();
        }
        small.loss(step).backward();
        if [99, 499, 899].contains(&step) {
            gpu.wait().expect("the device works");
            let (c, m) = (gpu.counters(), gpu.memory());
            seen.push((c.buffers, c.pipelines, c.bind_groups, m.in_use, m.peak, m.reserved));
        }
    }
    println!("buffers, pipelines, bind groups, bytes in use, peak, reserved: {seen:?}");
    assert_eq!(seen[1], seen[2], "something grew");
    assert_eq!(gpu.counters().reads, 0, "a step waits for nothing");
}

#[test]
fn gradients_add_up() {
    let gpu = own();
    let small = Small::new(&gpu);
    small.parameters.zero_gradients();
    small.loss(3).backward();
    let once = small.gradients();
    assert!(once.iter().flatten().any(|g| *g != 0.0));
    small.loss(3).backward();
    let twice = small.gradients();
    let doubled: Vec<Vec<f32>> = once.iter().map(|a| a.iter().map(|g| 2.0 * g).collect()).collect();
    assert_eq!(twice, doubled, "the same gradient twice is exactly its double");
    // And for leaves without an arena.
    let x = floats(&gpu, &[1.0, -2.0]).requires_grad();
    for times in 1..=3 {
        ops::scale(&x, 5.0).backward_from(&floats(&gpu, &[1.0, 2.0]));
        assert_eq!(values(&x.grad().expect("a gradient")), [5.0 * times as f32, 10.0 * times as f32]);
    }
    x.clear_grad();
    assert!(x.grad().is_none());
}

#[test]
fn no_grad_and_detach_cut_the_graph() {
    let gpu = own();
    let x = floats(&gpu, &[2.0, 3.0]).requires_grad();
    let seed = floats(&gpu, &[1.0, 1.0]);
    let quiet = no_grad(|| {
        assert!(!x.needs_grad());
        ops::mul(&x, &x)
    });
    assert!(!quiet.needs_grad() && x.needs_grad());
    // d(x² · stop(x)) = 2x · x, not 3x².
    ops::mul(&ops::mul(&x, &x), &x.detach()).backward_from(&seed);
    assert_eq!(values(&x.grad().expect("a gradient")), [8.0, 18.0]);
    // A panic inside leaves the graph on.
    let _ = panic_text(|| no_grad(|| panic!("in between")));
    assert!(x.needs_grad());
    let y = ops::scale(&x, 2.0);
    y.backward_from(&seed);
    let text = panic_text(|| y.backward_from(&seed));
    assert!(text.contains("run the forward pass again"), "{text}");
}

#[test]
fn checkpoints_recompute_the_same() {
    let gpu = own();
    let data: Vec<f32> = (0..60).map(|i| (i as f32 * 0.37).sin()).collect();
    let run = |recompute: bool| {
        let leaf = |shape: [usize; 2]| {
            let n = shape[0] * shape[1];
            Tensor::from_slice(&gpu, &data[..n], shape).expect("it fills its shape").requires_grad()
        };
        let (x, weight) = (leaf([6, 10]), leaf([5, 10]));
        let captured = weight.clone();
        let block = move |i: &[Tensor]| ops::silu(&ops::linear(&ops::softplus(&i[0]), &captured, None));
        let y = if recompute { checkpoint(&[&x], block) } else { block(std::slice::from_ref(&x)) };
        let z = ops::mul(&y, &y);
        z.backward_from(&Tensor::full(&gpu, [6, 5], DType::F32, 0.5));
        let grad = |t: &Tensor| values(&t.grad().expect("a gradient"));
        (values(&z), grad(&x), grad(&weight))
    };
    assert_eq!(run(true), run(false), "bit for bit");
}

const CUBE: &str = "// y = x³
struct Params { count: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < params.count { y[id.x] = x[id.x] * x[id.x] * x[id.x]; }
}
";

const CUBE_BACKWARD: &str = "// dx = 3 · x² · dy
struct Params { count: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < params.count { dx[id.x] = 3.0 * x[id.x] * x[id.x] * dy[id.x]; }
}
";

/// An op of a user's own, through the door that ours use.
fn cube(x: &Tensor, backward: &'static str) -> Tensor {
    let (y, count) = (x.like(), x.len());
    Launch::source("cube", CUBE).param("count", count).read(x).write(&y).groups(count.div_ceil(64));
    let x_ = x.detach();
    y.with_grad(&[x], move |dy| {
        let dx = x_.like();
        let launch = Launch::source("cube_backward", backward).param("count", count);
        launch.read(&x_).read(dy).write(&dx).groups(count.div_ceil(64));
        [dx]
    })
}

fn cube_case() -> Case {
    Case {
        dims: vec![Dim::range("count", 1, 500)],
        inputs: |s, draw| vec![Input::new("x", draw.uniform(&[s["count"]], -2.0, 2.0)).grad()],
        run: |_, i| vec![cube(&i[0], CUBE_BACKWARD)],
        reference: |_, i: &[Array]| vec![i[0].map(|v| v * v * v)],
        error: |_| 8.0,
        ..Case::new("cube")
    }
}

#[test]
fn a_kernel_of_ones_own_is_an_op() {
    let gpu = own();
    let case = cube_case();
    for seed in 0..6 {
        let sizes = case.draw(seed);
        testing::check(&gpu, &case, &sizes, seed).unwrap_or_else(|e| panic!("{e}"));
        testing::check_gradients(&gpu, &case, &sizes, seed).unwrap_or_else(|e| panic!("{e}"));
        testing::check_determinism(&gpu, &case, &sizes, seed).unwrap_or_else(|e| panic!("{e}"));
    }
    // Wrong mathematics fails the checks, forward and backward.
    let squares = Case { reference: |_, i| vec![i[0].map(|v| v * v)], ..cube_case() };
    assert!(testing::check(&gpu, &squares, &squares.exactly(vec![40]), 1).is_err());
    // A text that differs under the same name is another kernel.
    const WRONG: &str = "// dx = x² · dy
struct Params { count: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < params.count { dx[id.x] = x[id.x] * x[id.x] * dy[id.x]; }
}
";
    let wrong = Case { run: |_, i| vec![cube(&i[0], WRONG)], ..cube_case() };
    assert!(testing::check(&gpu, &wrong, &wrong.exactly(vec![40]), 1).is_ok());
    assert!(testing::check_gradients(&gpu, &wrong, &wrong.exactly(vec![40]), 1).is_err());
}

#[test]
fn launches_that_disagree_with_their_kernel_panic() {
    let gpu = own();
    let (x, y) = (floats(&gpu, &[1.0]), floats(&gpu, &[1.0]));
    let cases: [(&str, Box<dyn FnOnce()>); 5] = [
        (
            "declares struct Params { count: u32 }, the launch gives { n: u32 }",
            Box::new(|| Launch::source("cube", CUBE).param("n", 1u32).read(&x).write(&y).groups(1)),
        ),
        (
            "the launch gives { count: f32 }",
            Box::new(|| Launch::source("cube", CUBE).param("count", 1.0f32).read(&x).write(&y).groups(1)),
        ),
        (
            "declares `x` as read, the launch gives it as written",
            Box::new(|| Launch::source("cube", CUBE).param("count", 1u32).write(&x).read(&y).groups(1)),
        ),
        (
            "binds [x] -> [y], the launch gives 0 -> 1",
            Box::new(|| Launch::source("cube", CUBE).param("count", 1u32).write(&y).groups(1)),
        ),
        (
            "writes `y` to the buffer that it reads `x` from",
            Box::new(|| Launch::source("cube", CUBE).param("count", 1u32).read(&x).write(&x).groups(1)),
        ),
    ];
    for (words, launch) in cases {
        let text = panic_text(launch);
        assert!(text.contains("kernel `cube`") && text.contains(words), "{text}");
    }
}

#[test]
fn a_missing_library_is_named() {
    let gpu = own();
    let (x, text) = (floats(&gpu, &[1.0]), CUBE.replace("id.x < params.count", "row_of(id) < params.count"));
    let y = x.like();
    Launch::source("cube", &text).param("count", 1u32).read(&x).write(&y).groups(1);
    let error = y.to_vec::<f32>().expect_err("nothing declares row_of").to_string();
    assert!(error.contains("kernel `cube`") && error.contains("// uses: lib/grid.wgsl"), "{error}");
}

#[test]
fn wrong_gradients_name_their_op() {
    let gpu = own();
    let x = floats(&gpu, &[1.0, 2.0]).requires_grad();
    let backward = |grads: fn(&Tensor) -> Vec<Option<Tensor>>| {
        let inner = ops::scale(&x, 2.0);
        let y = inner.detach().with_grad(&[&inner], grads);
        panic_text(move || y.backward_from(&y.detach()))
    };
    let none = backward(|_| Vec::new());
    assert!(none.contains("engine.rs") && none.contains("0 gradients for 1 inputs"), "{none}");
    let short = backward(|dy| vec![Some(ops::sum(dy))]);
    assert!(short.contains("engine.rs") && short.contains("gradient 0 is f32 [1]"), "{short}");
}

#[test]
fn kernels_are_replaced_and_come_back() {
    let (gpu, other) = (own(), own());
    let x = floats(&gpu, &[1.0, 2.0]);
    assert_eq!(values(&ops::scale(&x, 3.0)), [3.0, 6.0]);
    let text = rambutan_shaders::kernel("elementwise").expect("it exists");
    let louder = text.replace("return a * params.factor;", "return a * params.factor + 100.0;");
    gpu.replace_kernel("elementwise", Some(&louder)).expect("it exists");
    assert_eq!(values(&ops::scale(&x, 3.0)), [103.0, 106.0]);
    assert_eq!(values(&ops::scale(&floats(&other, &[1.0]), 3.0)), [3.0], "another device keeps ours");
    gpu.replace_kernel("elementwise", Some("no WGSL at all")).expect("it exists");
    let y = ops::scale(&x, 3.0);
    assert!(matches!(y.to_vec::<f32>(), Err(Error::Kernel { .. })));
    gpu.replace_kernel("elementwise", None).expect("it exists");
    assert_eq!(values(&ops::scale(&x, 3.0)), [3.0, 6.0]);
    assert!(matches!(gpu.replace_kernel("nothing", None), Err(Error::Kernel { .. })));
}

#[test]
fn what_a_failed_launch_should_have_written_reads_as_its_error() {
    let gpu = own();
    let (x, other) = (floats(&gpu, &[1.0, 2.0]), floats(&gpu, &[4.0]));
    gpu.replace_kernel("elementwise", Some("no WGSL at all")).expect("it exists");
    let y = ops::scale(&x, 3.0);
    gpu.replace_kernel("elementwise", None).expect("it exists");
    // Whoever reads first, here of what has nothing to do with it, hears of the failure; then the device works on.
    assert!(matches!(other.to_vec::<f32>(), Err(Error::Kernel { .. })));
    assert_eq!(values(&other), [4.0]);
    // What should have been written tells it again and again, to other threads, too, and so does what came of it.
    let (z, mut slow) = (ops::sum(&ops::scale(&y, 2.0)), y.download::<f32>().expect("it begins"));
    for lost in [&y, &z, &y.detach(), &z] {
        let read = std::thread::scope(|s| s.spawn(|| lost.to_vec::<f32>()).join().expect("no panic"));
        assert!(matches!(read, Err(Error::Kernel { ref stem, .. }) if stem == "elementwise"), "{read:?}");
    }
    assert!(matches!(slow.try_take(), Err(Error::Kernel { .. })));
    assert_eq!(values(&ops::scale(&x, 3.0)), [3.0, 6.0], "what it read is as it was");
    // The buffer itself is sound, and what uses it next holds what it should.
    drop((y, z, slow));
    for _ in 0..4 {
        assert_eq!(values(&ops::scale(&x, 5.0)), [5.0, 10.0]);
    }
}

#[test]
fn a_read_waits_for_its_own_copy_alone() {
    let gpu = own();
    let x = floats(&gpu, &[1.0, 2.0]);
    let mut first = ops::scale(&x, 3.0).download::<f32>().expect("it begins");
    gpu.submit();
    // Work for a tenth of a second at least on a CPU, and on a GPU for longer than a read takes.
    let (side, times) = if gpu.capabilities().cpu { (1024, 1) } else { (4096, 20) };
    let matrix = Tensor::full(&gpu, [side, side], DType::F32, 0.5);
    let products: Vec<Tensor> = (0..times).map(|_| ops::matmul(&matrix, &matrix, false, false)).collect();
    let later = gpu.ticket();
    assert_eq!(pollster::block_on(&mut first).expect("it is there"), [3.0, 6.0]);
    assert!(!gpu.is_done(&later), "it waited for what was submitted later");
    drop(products);
    // More of them than submits are remembered, the oldest last.
    let reads: Vec<_> = (0..100)
        .map(|i| {
            let read = ops::scale(&x, i as f32).download::<f32>().expect("it begins");
            gpu.submit();
            read
        })
        .collect();
    for (i, read) in reads.into_iter().enumerate().rev() {
        assert_eq!(pollster::block_on(read).expect("it is there"), [i as f32, 2.0 * i as f32]);
    }
}

#[test]
fn too_large_is_an_error_and_the_engine_survives() {
    let gpu = own();
    let x = floats(&gpu, &[1.0, 2.0]);
    let elements = usize::try_from(gpu.capabilities().max_buffer / 4 + 1).expect("64 bits");
    let huge = Tensor::empty(&gpu, [elements], DType::F32);
    let error = ops::scale(&x, 2.0).to_vec::<f32>().expect_err("a tensor beyond the adapter's limit");
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    for _ in 0..2 {
        huge.to_vec::<f32>().expect_err("a tensor that is not there reads as an error, every time");
    }
    drop(huge);
    assert_eq!(values(&ops::scale(&x, 2.0)), [2.0, 4.0]);

    // An operand beyond a binding, by a kernel that is not cut into pages.
    let gpu = with(GpuOptions { max_binding: Some(65536), ..GpuOptions::from_env() });
    let long = Tensor::zeros(&gpu, [20_000], DType::F32);
    let y = cube(&long, CUBE_BACKWARD);
    let error = y.to_vec::<f32>().expect_err("an operand beyond the binding");
    assert!(matches!(error, Error::TooLarge { asked: 80_000, limit: 65536, .. }), "{error}");
    // An op that is cut into pages takes it.
    assert_eq!(values(&ops::softplus(&long))[19_999], 2f32.ln());
}

/// Memory that is refused (here by a cap, elsewhere by the device) says so at each read; what was there stays.
#[test]
fn out_of_memory_is_an_error_and_the_engine_survives() {
    let gpu = with(GpuOptions { max_memory: Some(1 << 20), ..GpuOptions::from_env() });
    let x = floats(&gpu, &[1.0, 2.0]);
    let most = Tensor::empty(&gpu, [1 << 20], DType::F32);
    let error = ops::scale(&x, 2.0).to_vec::<f32>().expect_err("more than the cap");
    assert!(matches!(error, Error::OutOfMemory { asked: 4_194_304, .. }), "{error}");
    for _ in 0..2 {
        assert!(matches!(most.to_vec::<f32>(), Err(Error::OutOfMemory { .. })));
    }
    drop(most);
    assert_eq!(values(&ops::scale(&x, 2.0)), [2.0, 4.0]);
    let memory = gpu.memory();
    assert!(
        memory.peak <= 1 << 20 && memory.in_use <= memory.reserved,
        "what was refused takes nothing: {memory:?}"
    );
}

#[test]
fn a_lost_device_is_an_error() {
    let gpu = own();
    let x = floats(&gpu, &[1.0, 2.0]);
    assert_eq!(values(&x), [1.0, 2.0]);
    gpu.device().destroy();
    for _ in 0..2 {
        let y = ops::scale(&x, 2.0);
        let error = y.to_vec::<f32>().expect_err("the device is gone");
        assert!(matches!(error, Error::Device(_)), "{error:?}");
        // So are uploads, and whatever is allocated.
        let z = Tensor::from_slice(&gpu, &[1.0f32], [1]).expect("the data fills its shape");
        assert!(ops::scale(&z, 2.0).to_vec::<f32>().is_err());
        // Nothing is left to report, and waiting does not hang.
        let _ = gpu.wait();
        assert!(gpu.check().is_ok());
    }
    drop((x, gpu));
    assert_eq!(values(&floats(&own(), &[5.0])), [5.0], "a new device works");
}

#[test]
fn the_profiler_names_kernels() {
    let gpu = own();
    if !gpu.profile(Profile::Kernels) {
        println!("{} has no timestamps", gpu.capabilities().name);
        return;
    }
    let small = Small::new(&gpu);
    small.loss(0).backward();
    let times = gpu.kernel_times().expect("the device works");
    // Whichever of an op's kernels fits the adapter.
    let named = |start: &str| {
        times.iter().find(|t| t.stem.starts_with(start)).unwrap_or_else(|| panic!("no {start} in {times:?}"))
    };
    for stem in ["embedding", "rms_norm", "cross_entropy"] {
        let time = named(stem);
        assert!(time.dispatches > 0 && time.nanoseconds >= 0.0 && time.widest >= 1, "{time:?}");
    }
    assert!(times.iter().any(|t| t.stem.starts_with("matmul")), "whichever fits the adapter: {times:?}");
    assert!(times.iter().map(|t| t.nanoseconds).sum::<f64>() > 0.0);
    assert!(times.is_sorted_by(|a, b| a.nanoseconds >= b.nanoseconds));
    assert!(gpu.kernel_times().expect("the device works").is_empty(), "each time is told once");
    gpu.profile(Profile::Off);
    small.loss(1).backward();
    assert!(gpu.kernel_times().expect("the device works").is_empty());
}

#[test]
fn memory_is_accounted_by_purpose() {
    let gpu = own();
    let of = |purpose: Purpose| {
        let report = gpu.memory();
        let found = report.by_purpose.iter().find(|p| p.0 == purpose).map(|p| (p.1, p.2));
        found.expect("every purpose is listed")
    };
    const MIB: u64 = 1 << 20;
    let tensor = |purpose| with_purpose(purpose, || Tensor::zeros(&gpu, [MIB as usize / 4], DType::F32));
    let (a, b) = (tensor(Purpose::Memory), tensor(Purpose::Memory));
    assert_eq!(of(Purpose::Memory), (2 * MIB, 2 * MIB));
    drop(b);
    assert_eq!(of(Purpose::Memory), (MIB, 2 * MIB), "the peak stays");
    let c = tensor(Purpose::Moments);
    assert_eq!((of(Purpose::Moments), of(Purpose::Activations).0), ((MIB, MIB), 0));
    let report = gpu.memory();
    assert_eq!(
        (report.in_use, report.peak, report.reserved),
        (2 * MIB, 2 * MIB, 2 * MIB),
        "a buffer is reused"
    );
    drop((a, c));
    gpu.reset_peaks();
    assert_eq!((gpu.memory().in_use, gpu.memory().peak, of(Purpose::Memory)), (0, 0, (0, 0)));
    gpu.trim();
    assert_eq!(gpu.memory().reserved, 0, "nothing is kept");
    assert_eq!(values(&ops::scale(&floats(&gpu, &[1.0]), 2.0)), [2.0], "and all goes on");
}

/// Ops that walk along whole sequences take a batch in parts where it exceeds a binding: to the bit the same results.
#[test]
fn batches_beyond_a_binding_change_nothing() {
    let whole = own();
    let capped = with(GpuOptions { max_binding: Some(65536), ..GpuOptions::from_env() });
    let cases = ops::cases();
    let sizes: [(&str, &[usize]); 6] = [
        ("causal_conv1d", &[6, 140, 80, 4, 1, 1, 1]),
        ("ssd_scan", &[6, 190, 2, 2, 10, 17, 1, 1, 1]),
        ("ssd_step", &[7, 3, 2, 30, 60, 1]),
        ("selective_scan", &[5, 20, 70, 2, 16, 1]),
        ("select", &[4, 66, 70, 2, 17, 8, 2, 37, 0, 3, 3]),
        ("hsa", &[8, 12, 16, 2, 16, 2, 16, 3, 0, 1]),
    ];
    for (stem, sizes) in sizes {
        let case = cases.iter().find(|c| c.stem == stem).unwrap_or_else(|| panic!("no case {stem}"));
        let sizes = case.exactly(sizes.to_vec());
        let run = |gpu: &Gpu| {
            let before = gpu.counters().dispatches;
            let inputs = (case.inputs)(&sizes, &mut testing::Draw::new(5));
            let tensors: Vec<Tensor> = inputs.iter().map(|i| i.tensor(gpu)).collect();
            let outputs: Vec<Array> = (case.run)(&sizes, &tensors)
                .iter()
                .map(|y| testing::read(y).unwrap_or_else(|e| panic!("{stem}: {e}")))
                .collect();
            (outputs, gpu.counters().dispatches - before)
        };
        let ((a, once), (b, parts)) = (run(&whole), run(&capped));
        assert!(parts > once, "{stem}: {parts} dispatches in parts, {once} without");
        assert!(a == b, "{stem}: results depend on the binding's limit");
        testing::check_gradients(&capped, case, &sizes, 5).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn compiled_pipelines_are_kept_between_devices() {
    let folder = std::env::temp_dir().join(format!("rambutan-cache-{}", std::process::id()));
    let options = || GpuOptions { cache: Some(folder.clone()), ..GpuOptions::from_env() };
    let double = || {
        let gpu = with(options());
        let cached = gpu.device().features().contains(wgpu::Features::PIPELINE_CACHE);
        assert_eq!(values(&ops::scale(&floats(&gpu, &[1.5, -2.0]), 2.0)), [3.0, -4.0]);
        cached
    };
    if !double() {
        println!("skipped: this backend hands out no pipelines");
        return;
    }
    let file =
        std::fs::read_dir(&folder).expect("a folder").next().expect("a file").expect("its entry").path();
    let kept = std::fs::read(&file).expect("readable");
    assert!(kept.len() > 16, "{} bytes", kept.len());
    // What is damaged or cut short is compiled anew, and replaced.
    let damaged = [&kept[..kept.len() - 1], &[kept[kept.len() - 1] ^ 1]].concat();
    for bytes in [&damaged[..], &kept[..kept.len() / 2], b"", b"no cache at all, but long enough"] {
        std::fs::write(&file, bytes).expect("writable");
        assert!(double());
        assert_ne!(std::fs::read(&file).expect("readable"), bytes);
    }
    // An app need not end to keep them.
    std::fs::remove_file(&file).expect("removable");
    let gpu = with(options());
    assert_eq!(values(&ops::scale(&floats(&gpu, &[1.5, -2.0]), 2.0)), [3.0, -4.0]);
    assert!(!file.exists());
    gpu.keep_pipelines();
    assert!(std::fs::read(&file).expect("a file").len() > 16);
    drop(gpu);
    assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 1, "nothing half written stays");
    std::fs::remove_dir_all(&folder).expect("removable");
}
