//! A small network learns a picture while it is drawn: every frame takes steps of AdamW, and draws the picture, what the
//! network makes of it and the losses so far straight from their tensors' buffers. Nothing is read back for that.
//!
//!     cargo run --release --example learn          # --frames N closes it after so many, --screenshot FILE keeps the last
//!
//! The network maps a place to a colour, by Fourier features of the place (Tancik et al. 2020, arXiv 2006.10739).

#[path = "../src/canvas.rs"]
mod canvas;

use std::{
    f32::consts::TAU,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use canvas::Canvas;
use eframe::{CreationContext, NativeOptions, Renderer, egui};
use rambutan_engine::{
    DType, Gpu, Tensor,
    gpu::Download,
    ops,
    optim::{AdamW, AdamWOptions},
    tensor::{ParameterSpec, Parameters},
    testing::Draw,
};

type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Frequencies of the features.
const FREQUENCIES: usize = 64;
/// Neurons of a hidden layer.
const HIDDEN: usize = 64;
/// Losses that are kept.
const HISTORY: usize = 512;

/// What is learnt: a rambutan, for x and y from −1 to 1.
fn picture(x: f32, y: f32) -> [f32; 3] {
    let mix = |a: [f32; 3], b: [f32; 3], t: f32| [0, 1, 2].map(|i| a[i] + (b[i] - a[i]) * t.clamp(0.0, 1.0));
    let ground = mix([0.16, 0.27, 0.20], [0.05, 0.10, 0.09], x.hypot(y - 0.2) / 1.3);
    let (r, angle) = (x.hypot(y), y.atan2(x));
    // Rings of hairs bend as they leave the fruit, and thin out.
    let hairs = [(0.46, 23.0, 0.9), (0.40, 19.0, -0.7)].iter().fold(ground, |under, (root, count, bend)| {
        let out = (r - root) / 0.46;
        let across = ((angle + bend * out * out) / TAU * count).rem_euclid(1.0) - 0.5;
        let hair = mix([0.75, 0.10, 0.12], [0.93, 0.80, 0.30], out);
        let inside = (0.30 * (1.0 - out) - across.abs()) * 12.0;
        mix(under, hair, if out > 0.0 { inside } else { 0.0 })
    });
    let height = (0.25 - r * r).max(0.0).sqrt();
    let light = (0.5 * height - 0.3 * x - 0.4 * y + 0.12) / 0.4;
    let dimple = 0.5 + 0.5 * (26.0 * x / (0.3 + height)).sin() * (26.0 * y / (0.3 + height)).sin();
    let skin = mix([0.35, 0.02, 0.08], [0.97, 0.33, 0.25], light * (0.7 + 0.3 * dimple));
    mix(hairs, skin, (0.5 - r) * 40.0)
}

struct Learner {
    gpu: Gpu,
    features: Tensor,
    picture: Tensor,
    parameters: Parameters,
    optimizer: AdamW,
    prediction: Tensor,
    loss: Tensor,
    losses: Tensor,
    steps: usize,
}

impl Learner {
    fn new(gpu: &Gpu) -> Result<Learner, Problem> {
        let side = if gpu.capabilities().cpu { 96 } else { 256 };
        let at = |i: usize| 2.0 * (i as f32 + 0.5) / side as f32 - 1.0;
        let places: Vec<[f32; 2]> = (0..side * side).map(|i| [at(i % side), at(i / side)]).collect();
        let mut draw = Draw::new(7);
        let waves = draw.uniform(&[FREQUENCIES, 2], -5.0, 5.0).data;
        let phase = |p: &[f32; 2], w: &[f64]| TAU * (p[0] * w[0] as f32 + p[1] * w[1] as f32);
        let wave = |p| waves.chunks(2).flat_map(move |w| [phase(p, w).sin(), phase(p, w).cos()]);
        let features: Vec<f32> = places.iter().flat_map(wave).collect();
        let colours: Vec<f32> = places.iter().flat_map(|p| picture(p[0], p[1])).collect();
        let mut specs = Vec::new();
        for (i, [n, k]) in [[HIDDEN, 2 * FREQUENCIES], [HIDDEN, HIDDEN], [3, HIDDEN]].into_iter().enumerate()
        {
            let most = (6.0 / k as f64).sqrt();
            let weight = draw.uniform(&[n, k], -most, most).data.iter().map(|v| *v as f32).collect();
            let spec = |name: &str, shape, values| ParameterSpec {
                name: format!("{name}{i}"),
                shape,
                decay: false,
                values,
            };
            specs.extend([spec("weight", vec![n, k], weight), spec("bias", vec![n], vec![0.0; n])]);
        }
        let parameters = Parameters::new(gpu, specs, true)?;
        Ok(Learner {
            gpu: gpu.clone(),
            features: Tensor::from_slice(gpu, &features, [side * side, 2 * FREQUENCIES])?,
            picture: Tensor::from_slice(gpu, &colours, [side * side, 3])?,
            optimizer: AdamW::new(&parameters, AdamWOptions::default()),
            parameters,
            prediction: Tensor::zeros(gpu, [side * side, 3], DType::F32),
            loss: Tensor::zeros(gpu, [1], DType::F32),
            losses: Tensor::zeros(gpu, [HISTORY], DType::F32),
            steps: 0,
        })
    }

    /// One step: forward, backward, AdamW.
    fn step(&mut self) {
        let parameter =
            |name: &str, i: usize| self.parameters.get(&format!("{name}{i}")).expect("it was made above");
        let layer = |x: &Tensor, i| ops::linear(x, parameter("weight", i), Some(parameter("bias", i)));
        let hidden = ops::silu(&layer(&ops::silu(&layer(&self.features, 0)), 1));
        let y = ops::sigmoid(&layer(&hidden, 2));
        let error = ops::add(&y, &ops::scale(&self.picture, -1.0));
        let loss = ops::scale(&ops::sum(&ops::mul(&error, &error)), 1.0 / y.len() as f32);
        loss.backward();
        self.optimizer.step(&self.parameters, 0.01 / (1.0 + self.steps as f32 / 400.0));
        (self.prediction, self.loss) = (y.detach(), loss.detach());
        ops::write_slice(&self.losses, self.steps % HISTORY, &self.loss);
        self.steps += 1;
    }

    /// What must not grow: bytes and buffers.
    fn held(&self) -> [u64; 2] {
        [self.gpu.memory().reserved, self.gpu.counters().buffers]
    }
}

/// Learns for as long as it is open, or for so many frames.
struct Window {
    learner: Learner,
    frames: usize,
    loss: f32,
    coming: Option<Download<f32>>,
    arguments: Arguments,
    shot: Arc<Mutex<Option<Arc<egui::ColorImage>>>>,
}

impl eframe::App for Window {
    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        let learner = &mut self.learner;
        (0..if learner.gpu.capabilities().cpu { 1 } else { 4 }).for_each(|_| learner.step());
        // Before the pass that draws what it computes: the queue's order is all there is to it.
        learner.gpu.submit();
        // The number comes some frames later, whenever it is there.
        let coming = self.coming.get_or_insert_with(|| self.learner.loss.download().expect("a float"));
        if let Some(loss) = coming.try_take().expect("the device works") {
            (self.loss, self.coming) = (loss[0], None);
        }
        let mut place = egui::Rect::NOTHING;
        egui::CentralPanel::default().show(ui, |ui| {
            let Learner { steps, gpu, .. } = &self.learner;
            let name = &gpu.capabilities().name;
            ui.label(format!("step {steps}, mean squared error {:.5}, on {name}", self.loss));
            place = ui.allocate_exact_size(ui.available_size(), egui::Sense::hover()).0;
            let tensors = [&self.learner.picture, &self.learner.prediction, &self.learner.losses];
            let side = self.learner.picture.shape()[0].isqrt() as u32;
            canvas::show(ui, place, [side, *steps as u32, 0, 0], tensors.map(Tensor::buffer).into());
        });
        ui.ctx().request_repaint();
        self.frames += 1;
        let half = self.arguments.frames.is_some_and(|n| self.frames == n.div_ceil(2));
        if half || self.arguments.frames == Some(self.frames) {
            let ([bytes, buffers], r) = (self.learner.held(), place * ui.ctx().pixels_per_point());
            println!(
                "{{\"steps\": {}, \"loss\": {}, \"bytes\": {bytes}, \"buffers\": {buffers}, \
                 \"x\": {}, \"y\": {}, \"width\": {}, \"height\": {}}}",
                self.learner.steps,
                self.loss,
                r.min.x,
                r.min.y,
                r.width(),
                r.height()
            );
        }
        if self.arguments.frames == Some(self.frames) {
            let shot = self.shot.clone();
            let taken =
                egui::ScreenshotCallback::new(move |image| *shot.lock().expect("no panic") = Some(image));
            ui.ctx().send_viewport_cmd(egui::ViewportCommand::Screenshot(taken));
        }
        if let Some(image) = self.shot.lock().expect("no panic").take() {
            let rgb: Vec<u8> = image.pixels.iter().flat_map(|p| [p.r(), p.g(), p.b()]).collect();
            if let Some(path) = &self.arguments.screenshot {
                let [width, height] = image.size.map(|n| n as u32);
                image::save_buffer(path, &rgb, width, height, image::ColorType::Rgb8)
                    .expect("the screenshot is saved");
            }
            ui.ctx().send_viewport_cmd(egui::ViewportCommand::Close);
        }
    }
}

#[derive(Default)]
struct Arguments {
    frames: Option<usize>,
    screenshot: Option<PathBuf>,
}

fn main() -> Result<(), Problem> {
    let (mut arguments, mut words) = (Arguments::default(), std::env::args().skip(1));
    while let Some(word) = words.next() {
        match (word.as_str(), words.next()) {
            ("--frames", Some(n)) => arguments.frames = Some(n.parse()?),
            ("--screenshot", Some(path)) => arguments.screenshot = Some(path.into()),
            _ => return Err(format!("`{word}`: expected --frames N or --screenshot FILE").into()),
        }
    }
    let options = NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_inner_size([900.0, 600.0])
            .with_title("Rambutan learns"),
        renderer: Renderer::Wgpu,
        wgpu_options: canvas::setup(),
        ..Default::default()
    };
    let open = move |cc: &CreationContext<'_>| -> Result<Box<dyn eframe::App>, Problem> {
        let state = cc.wgpu_render_state.as_ref().ok_or("eframe runs without wgpu")?;
        let canvas = Canvas::new(&state.device, state.target_format, include_str!("learn.wgsl"));
        state.renderer.write().callback_resources.insert(canvas);
        let gpu =
            Gpu::from_device(&state.adapter, state.device.clone(), state.queue.clone(), &canvas::options());
        let learner = Learner::new(&gpu)?;
        Ok(Box::new(Window {
            learner,
            arguments,
            frames: 0,
            loss: f32::NAN,
            coming: None,
            shot: Arc::default(),
        }))
    };
    eframe::run_native("rambutan-learn", options, Box::new(open)).map_err(|e| e.to_string().into())
}
