//! A text, how far it is read, a question and its answer: what the window shows, without a window.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rambutan_engine::{DType, Gpu, Tensor};
use rambutan_model::{
    Checkpoint, Error, Ramba, data,
    ramba::Options,
    reader::{Answer, Asking, Progress, Reader, Reading},
    tasks,
};

/// The longest answer, in tokens.
const LONGEST: usize = 32;
/// Places shown, at most.
const PLACES: usize = 6;

/// What the first text and the first question need is compiled on a thread of the app's own, between whose launches frames
/// are drawn: a driver may take longer for one kernel than a frame has, and for all of them seconds.
struct Warming {
    thread: JoinHandle<Result<(), Error>>,
    stop: Arc<AtomicBool>,
    begun: Instant,
}

/// How long it may take to begin with: a GPU that is slow needs no kernels for large batches.
const WARMING: Duration = Duration::from_secs(3);
/// Tokens of a long text: batches have doubled up to the largest, and the scores of its chunks fill a device.
const LONG: usize = 1 << 21;

impl Warming {
    fn start(model: &'static Ramba) -> Warming {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = thread::spawn(move || warm(model, &told));
        Warming { thread, stop, begun: Instant::now() }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(warming) = self.warming.take() {
            warming.stop.store(true, Ordering::Relaxed);
            let _ = warming.thread.join();
        }
    }
}

/// Reads and asks as the window will, in slices: about a text of spaces, short and then long enough for what large batches
/// and many chunks take; questions of all lengths.
fn warm(model: &'static Ramba, stop: &AtomicBool) -> Result<(), Error> {
    let (gpu, budget, begun) = (model.gpu(), Duration::from_millis(4), Instant::now());
    let stopped = || stop.load(Ordering::Relaxed);
    let ask = |reader: &Reader<'_>, length: usize| -> Result<(), Error> {
        let mut asking = reader.asking(&vec![b' '; length], &[], 2)?.scored();
        while !stopped() && !asking.step(reader, budget)? {}
        Ok(())
    };
    let mut reader = Reader::new(model)?;
    let segment = reader.segment();
    let mut reading = reader.start(vec![b' '; segment]);
    while !stopped() && !reading.step(&mut reader, budget)?.is_done() {}
    // A CPU's kernels are the same for all sizes beyond a lone token's.
    let most = if gpu.capabilities().cpu { 2 } else { segment };
    for length in (0..).map(|i| 1 << i).take_while(|n| *n <= most && !stopped()) {
        ask(&reader, length)?;
    }
    if !gpu.capabilities().cpu {
        let mut reading = reader.start(vec![b' '; LONG]);
        while begun.elapsed() < WARMING && !stopped() {
            match reading.step(&mut reader, budget) {
                Ok(progress) if !progress.is_done() => {}
                // A device with too little memory for this text needs none of it.
                Ok(_) | Err(Error::TextTooLong { .. }) => break,
                Err(e) => return Err(e),
            }
        }
        ask(&reader, 1)?;
    }
    drop(reader);
    gpu.trim();
    gpu.keep_pipelines();
    Ok(())
}

/// A text that is being read.
struct Task {
    reading: Reading<'static>,
    begun: Option<Instant>,
    progress: Progress,
}

/// A chunk that the model looked into.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where it begins in the text.
    pub offset: usize,
    /// How much it counted.
    pub weight: f32,
    /// What stands there.
    pub excerpt: String,
}

/// One model, one text, one question at a time.
pub struct Session {
    gpu: Gpu,
    model: &'static Ramba,
    reader: Reader<'static>,
    text: Vec<u8>,
    warming: Option<Warming>,
    /// A score, drawn while the window warms up: then what draws scores is compiled, too.
    blank: Tensor,
    task: Option<Task>,
    /// Tokens and seconds of the latest text.
    pub read: Option<(usize, f64)>,
    asking: Option<Asking>,
    /// The question that is being answered or was.
    pub asked: String,
    /// What was said, as far as it is.
    pub answer: Answer,
    /// The scores of all chunks at the first token of the answer, and at the latest.
    first: Option<Tensor>,
    latest: Option<Tensor>,
    /// What went wrong.
    pub problem: Option<String>,
}

impl Session {
    /// Uploads the weights, which stay for as long as the program runs, and begins to warm up.
    pub fn new(gpu: &Gpu, checkpoint: &Path) -> Result<Session, Error> {
        let checkpoint = Checkpoint::open(checkpoint)?;
        let options =
            Options { half: gpu.capabilities().f16 && !gpu.capabilities().cpu, ..Options::default() };
        let model: &'static Ramba = Box::leak(Box::new(Ramba::with(gpu, &checkpoint, options)?));
        // Too low to be seen.
        let blank = Tensor::full(gpu, [1], DType::F32, -100.0);
        gpu.submit();
        Ok(Session {
            gpu: gpu.clone(),
            blank,
            model,
            reader: Reader::new(model)?,
            text: Vec::new(),
            warming: Some(Warming::start(model)),
            task: None,
            read: None,
            asking: None,
            asked: String::new(),
            answer: Answer::default(),
            first: None,
            latest: None,
            problem: None,
        })
    }

    /// Forgets the text before and begins to read this one.
    pub fn load(&mut self, text: Vec<u8>) {
        self.cancel();
        self.asking = None;
        (self.read, self.answer, self.problem) = (None, Answer::default(), None);
        (self.first, self.latest) = (None, None);
        self.asked.clear();
        match Reader::new(self.model) {
            Ok(reader) => self.reader = reader,
            Err(e) => return self.problem = Some(e.to_string()),
        }
        self.text = text;
        let reading = self.reader.start(self.text.clone());
        let progress = reading.progress();
        self.task = Some(Task { reading, begun: None, progress });
    }

    /// Opens a file.
    pub fn open(&mut self, path: &Path) {
        match data::read_bytes(path) {
            Ok(text) if text.is_empty() => self.problem = Some(format!("{} is empty", path.display())),
            Ok(text) => self.load(text),
            Err(e) => self.problem = Some(e.to_string()),
        }
    }

    /// Stops reading; nothing of the text is in memory then.
    pub fn cancel(&mut self) {
        if self.task.take().is_some() {
            self.text.clear();
        }
    }

    /// Asks about the text.
    pub fn ask(&mut self, question: &str) {
        self.problem = None;
        let prompt = tasks::prompt(question);
        match self.reader.asking(prompt.as_bytes(), tasks::STOP.as_bytes(), LONGEST) {
            Ok(asking) => self.asking = Some(asking.scored()),
            Err(e) => return self.problem = Some(e.to_string()),
        }
        self.asked = question.to_owned();
        self.answer = Answer::default();
        (self.first, self.latest) = (None, None);
    }

    /// Whether there is work for [`Session::step`].
    pub fn is_busy(&self) -> bool {
        self.warming.is_some() || self.task.is_some() || self.asking.is_some()
    }

    /// For how long kernels have been compiling, as long as they do; what was asked for begins afterwards.
    pub fn warming(&self) -> Option<Duration> {
        self.warming.as_ref().map(|w| w.begun.elapsed())
    }

    /// Kernels compiled so far. Waits for the one that is being compiled.
    pub fn kernels(&self) -> usize {
        self.gpu.counters().pipelines as usize
    }

    /// Reads or answers on for about `budget`.
    pub fn step(&mut self, budget: Duration) {
        if let Err(e) = self.try_step(budget) {
            (self.task, self.asking) = (None, None);
            self.problem = Some(e.to_string());
        }
    }

    fn try_step(&mut self, budget: Duration) -> Result<(), Error> {
        if self.warming.as_ref().is_some_and(|w| !w.thread.is_finished()) {
            return Ok(());
        }
        if let Some(warming) = self.warming.take() {
            // A panic there is one here.
            warming.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        if let Some(task) = &mut self.task {
            let begun = *task.begun.get_or_insert_with(Instant::now);
            task.progress = task.reading.step(&mut self.reader, budget)?;
            if task.progress.is_done() {
                self.read = Some((task.progress.total, begun.elapsed().as_secs_f64()));
                self.task = None;
            }
        } else if let Some(asking) = &mut self.asking {
            let done = asking.step(&self.reader, budget)?;
            self.answer = asking.answer().clone();
            self.latest = asking.scores().cloned();
            self.first = asking.first_scores().cloned();
            if done {
                self.asking = None;
            }
        }
        Ok(())
    }

    /// The scores of all chunks, for drawing: while an answer is being said those of its latest token, then of its first,
    /// as [`Session::places`] has them; while warming up a blank one.
    pub fn scores(&self) -> Option<&Tensor> {
        if self.warming.is_some() {
            return Some(&self.blank);
        }
        if self.asking.is_some() { self.latest.as_ref() } else { self.first.as_ref() }
    }

    /// How far the text is read, and tokens a second.
    pub fn progress(&self) -> Option<(Progress, f64)> {
        let task = self.task.as_ref()?;
        let seconds = task.begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        Some((task.progress, task.progress.done as f64 / seconds.max(1e-9)))
    }

    /// Bytes of device memory in use.
    pub fn memory(&self) -> u64 {
        self.gpu.memory().in_use
    }

    /// The adapter.
    pub fn device(&self) -> &str {
        &self.gpu.capabilities().name
    }

    /// Tokens a chunk.
    pub fn chunk(&self) -> usize {
        self.model.config.chunk_size
    }

    /// Chunks of the text; scores beyond them are the question's own.
    pub fn chunks(&self) -> usize {
        self.text.len().div_ceil(self.chunk())
    }

    /// What was said so far, without what ends it.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.answer.text).trim_end_matches(tasks::STOP).to_owned()
    }

    /// What stands in a chunk.
    pub fn excerpt(&self, chunk: usize) -> String {
        let (start, size) = (chunk * self.chunk(), self.chunk());
        let end = (start + size).min(self.text.len());
        let text = String::from_utf8_lossy(&self.text[start.min(end)..end]);
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    /// Where the model looked at the first token of the answer, the weightiest first.
    pub fn places(&self) -> Vec<Place> {
        let mut chunks: Vec<(usize, f32)> =
            self.answer.selected.iter().copied().filter(|(c, w)| *c < self.chunks() && *w > 0.005).collect();
        chunks.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        chunks.truncate(PLACES);
        let place = |(c, weight)| Place { offset: c * self.chunk(), weight, excerpt: self.excerpt(c) };
        chunks.into_iter().map(place).collect()
    }
}
