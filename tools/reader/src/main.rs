//! A window on Rambutan: open a text, watch it being read, ask, see the answer and where it came from.
//!
//! The engine runs on eframe's own device, between its frames, and the heat map is drawn from the engine's buffer.

mod canvas;
mod heat;
mod offscreen;
mod script;
mod session;
mod ui;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Instant,
};

use eframe::egui;
use rambutan_engine::Gpu;

use script::{Command, Frames};
use session::Session;
use ui::Ui;

const HELP: &str = "\
Usage: rambutan-reader [FILE] [OPTIONS]

  FILE               the text to open
  --checkpoint FILE  the weights [default: the shipped model/weights/passkey.safetensors]
  --script FILE      runs the file's lines (open PATH, ask QUESTION, screenshot PATH, exit) and prints what is shown
  --offscreen        without a window: draws into a texture while a text is read, and prints the frames' times
  --tokens N         with --offscreen: the length of a generated text [default: 1048576 on a GPU, 32768 on a CPU]
  --screenshot FILE  with --offscreen: saves the last frame as a PNG
";

/// What the command line says.
#[derive(Default)]
struct Arguments {
    file: Option<PathBuf>,
    checkpoint: Option<PathBuf>,
    script: Option<PathBuf>,
    offscreen: bool,
    tokens: Option<usize>,
    screenshot: Option<PathBuf>,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut arguments = Arguments::default();
        while let Some(word) = given.next() {
            let mut value = || given.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--checkpoint" => arguments.checkpoint = Some(value()?.into()),
                "--script" => arguments.script = Some(value()?.into()),
                "--screenshot" => arguments.screenshot = Some(value()?.into()),
                "--offscreen" => arguments.offscreen = true,
                "--tokens" => {
                    let text = value()?;
                    let tokens = text.parse().ok().filter(|n| (1024..=1 << 26).contains(n));
                    arguments.tokens =
                        Some(tokens.ok_or(format!("--tokens {text}: expected 1024 to 67108864"))?);
                }
                "--help" | "-h" => return Err(String::new()),
                other if !other.starts_with('-') && arguments.file.is_none() => {
                    arguments.file = Some(other.into())
                }
                other => return Err(format!("unknown argument `{other}`")),
            }
        }
        Ok(arguments)
    }

    fn checkpoint(&self) -> PathBuf {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../model/weights/passkey.safetensors");
        self.checkpoint.clone().unwrap_or(shipped)
    }
}

/// The window.
struct Window {
    ui: Ui,
    script: Option<VecDeque<Command>>,
    /// The command under way, and what a screenshot waits for.
    current: Option<Command>,
    shot: Arc<Mutex<Option<Arc<egui::ColorImage>>>>,
    last: Option<Instant>,
    frames: Frames,
    failed: Arc<Mutex<Option<String>>>,
}

impl eframe::App for Window {
    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        // Frames that follow each other without a pause: those while there is work.
        let now = Instant::now();
        let working = self.ui.session.is_busy() && self.ui.session.warming().is_none();
        if let (Some(last), true) = (self.last, working) {
            self.frames.push((now - last).as_secs_f64());
        }
        self.last = Some(now);
        self.ui.frame(ui);
        if self.script.is_some() {
            self.go_on(ui.ctx());
            ui.ctx().request_repaint();
        }
    }
}

impl Window {
    /// Ends the command under way if it is done, and begins the next.
    fn go_on(&mut self, ctx: &egui::Context) {
        if let Some(problem) = self.ui.session.problem.take() {
            return self.end(ctx, Some(problem));
        }
        if self.ui.session.is_busy() {
            return;
        }
        match self.current.take() {
            Some(Command::Open(_)) => {
                let (tokens, seconds) = self.ui.session.read.unwrap_or_default();
                let memory = self.ui.session.memory();
                println!(
                    "{{\"read\": {tokens}, \"seconds\": {seconds:.3}, \"device_bytes\": {memory}, {}}}",
                    self.frames.json()
                );
                self.frames = Frames::default();
            }
            Some(Command::Ask(_)) => println!("{}", said(&self.ui, ctx.pixels_per_point())),
            Some(Command::Screenshot(path)) => {
                let Some(image) = self.shot.lock().ok().and_then(|mut shot| shot.take()) else {
                    self.current = Some(Command::Screenshot(path));
                    return;
                };
                let bytes: Vec<u8> = image.pixels.iter().flat_map(|p| [p.r(), p.g(), p.b()]).collect();
                if let Err(problem) = save(&path, image.size, &bytes) {
                    return self.end(ctx, Some(problem));
                }
            }
            Some(Command::Exit) | None => {}
        }
        let Some(next) = self.script.as_mut().and_then(VecDeque::pop_front) else {
            return self.end(ctx, None);
        };
        match &next {
            Command::Open(path) => self.ui.session.open(path),
            Command::Ask(question) => self.ui.session.ask(question),
            Command::Screenshot(_) => {
                let shot = self.shot.clone();
                let callback = egui::ScreenshotCallback::new(move |image| {
                    if let Ok(mut shot) = shot.lock() {
                        *shot = Some(image);
                    }
                });
                ctx.send_viewport_cmd(egui::ViewportCommand::Screenshot(callback));
            }
            Command::Exit => return self.end(ctx, None),
        }
        self.current = Some(next);
    }

    fn end(&mut self, ctx: &egui::Context, problem: Option<String>) {
        if let (Some(problem), Ok(mut failed)) = (problem, self.failed.lock()) {
            *failed = Some(problem);
        }
        self.script = Some(VecDeque::new());
        ctx.send_viewport_cmd(egui::ViewportCommand::Close);
    }
}

/// Text as JSON.
fn json(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' => "\\\"".into(),
        '\\' => "\\\\".into(),
        c if c.is_control() => format!("\\u{:04x}", c as u32),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

/// What the window shows of an answer, and where the map lies in pixels, as JSON.
fn said(ui: &Ui, pixels_per_point: f32) -> String {
    let places = ui.session.places().into_iter().map(|p| {
        format!(
            "{{\"offset\": {}, \"weight\": {:.4}, \"excerpt\": {}}}",
            p.offset,
            p.weight,
            json(&p.excerpt)
        )
    });
    let map = ui.map.map_or("null".into(), |(rect, grid)| {
        let r = rect * pixels_per_point;
        format!(
            "{{\"x\": {}, \"y\": {}, \"width\": {}, \"height\": {}, \"columns\": {}, \"rows\": {}, \"chunks\": {}}}",
            r.min.x,
            r.min.y,
            r.width(),
            r.height(),
            grid.columns,
            grid.rows,
            grid.chunks
        )
    });
    format!(
        "{{\"question\": {}, \"answer\": {}, \"places\": [{}], \"chunk\": {}, \"map\": {map}}}",
        json(&ui.session.asked),
        json(&ui.session.said()),
        places.collect::<Vec<_>>().join(", "),
        ui.session.chunk()
    )
}

/// Writes RGB as a PNG.
fn save(path: &Path, [width, height]: [usize; 2], rgb: &[u8]) -> Result<(), String> {
    let size = |n: usize| u32::try_from(n).map_err(|e| e.to_string());
    image::save_buffer(path, rgb, size(width)?, size(height)?, image::ColorType::Rgb8)
        .map_err(|e| format!("cannot write {}: {e}", path.display()))
}

fn windowed(arguments: &Arguments) -> Result<(), String> {
    let script = match &arguments.script {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            Some(script::parse(&text).map_err(|e| format!("{}: {e}", path.display()))?)
        }
    };
    let failed = Arc::new(Mutex::new(None));
    let options = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default().with_inner_size([900.0, 640.0]).with_title("Rambutan"),
        renderer: eframe::Renderer::Wgpu,
        wgpu_options: canvas::setup(),
        ..Default::default()
    };
    let (checkpoint, file, told) = (arguments.checkpoint(), arguments.file.clone(), failed.clone());
    let run = eframe::run_native(
        "rambutan-reader",
        options,
        Box::new(move |cc| {
            let state = cc.wgpu_render_state.as_ref().ok_or("eframe runs without wgpu")?;
            let gpu = Gpu::from_device(
                &state.adapter,
                state.device.clone(),
                state.queue.clone(),
                &canvas::options(),
            );
            let canvas = canvas::Canvas::new(&state.device, state.target_format, heat::SHADER);
            state.renderer.write().callback_resources.insert(canvas);
            let mut session = Session::new(&gpu, &checkpoint)?;
            if let Some(file) = file {
                session.open(&file);
            }
            let ui = Ui::new(session);
            Ok(Box::new(Window {
                ui,
                script,
                current: None,
                shot: Arc::default(),
                last: None,
                frames: Frames::default(),
                failed: told,
            }))
        }),
    );
    run.map_err(|e| e.to_string())?;
    let problem = failed.lock().map_err(|e| e.to_string())?.take();
    problem.map_or(Ok(()), Err)
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) if problem.is_empty() => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("error: {problem}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let result = if arguments.offscreen { offscreen::run(&arguments) } else { windowed(&arguments) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(2)
        }
    }
}
