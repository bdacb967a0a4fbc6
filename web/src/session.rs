//! One visit: a model on the browser's GPU, a text, its memory, questions.

use std::{cell::RefCell, rc::Rc, time::Duration};

use rambutan_engine::{Gpu, GpuOptions};
use rambutan_model::{
    Checkpoint, Ramba,
    data::{Prose, TextStream},
    ramba::Options,
    reader::{Asking, Reader, Reading},
    tasks::{self, FactKind, Haystack, Needle},
};
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use crate::thrown;

/// The longest answer, in tokens.
const LONGEST: usize = 64;

/// A model, a text and its memory. The page may call while a promise of it is pending: what that works on is then not
/// here, and comes back unless another text has come.
#[wasm_bindgen]
pub struct Session {
    model: &'static Ramba,
    visit: RefCell<Visit>,
}

/// All that goes with one text.
#[derive(Default)]
struct Visit {
    number: u32,
    prose: Option<Prose>,
    text: Vec<u8>,
    reading: Option<(Reader<'static>, Reading<'static>)>,
    reader: Option<Rc<Reader<'static>>>,
}

#[wasm_bindgen]
impl Session {
    /// Opens the browser's GPU and uploads the checkpoint whose file holds `weights`.
    pub async fn open(weights: Vec<u8>) -> Result<Session, JsError> {
        let checkpoint = Checkpoint::from_bytes(&weights).map_err(thrown)?;
        let gpu = Gpu::request(GpuOptions::default()).await.map_err(thrown)?;
        let model = Ramba::with(&gpu, &checkpoint, Options::default()).map_err(thrown)?;
        // A page opens one, and its readers borrow it for as long as it is there.
        Ok(Session { model: Box::leak(Box::new(model)), visit: RefCell::default() })
    }

    fn gpu(&self) -> &Gpu {
        self.model.gpu()
    }

    /// The adapter and the model, as JSON.
    pub fn about(&self) -> Result<String, JsError> {
        let c = self.gpu().capabilities();
        let bytes_per_token = Reader::new(self.model).map_err(thrown)?.bytes_per_token();
        let about = json!({
            "adapter": c.name, "software": c.cpu, "f16": c.f16, "storage_buffers": c.storage_buffers,
            "invocations": c.invocations, "max_binding": c.max_binding, "max_buffer": c.max_buffer,
            "parameters": self.model.config.parameter_count(), "chunk": self.model.config.chunk_size,
            "bytes_per_token": bytes_per_token,
        });
        Ok(about.to_string())
    }

    /// Takes a text in place of the one before.
    pub fn take(&self, text: Vec<u8>) {
        self.forget().text = text;
    }

    /// Begins to write a text of its own in place of the one before, see [`Session::write`].
    pub fn begin(&self, seed: u32) {
        self.forget().prose = Some(Prose::held(seed.into()));
    }

    /// Writes the text's next `length` bytes.
    pub fn write(&self, length: usize) {
        let Visit { prose, text, .. } = &mut *self.visit.borrow_mut();
        if let Some(prose) = prose {
            text.extend(prose.text(length));
        }
    }

    /// Hides so many facts in the text, and tells them, as JSON.
    pub fn hide(&self, facts: usize, seed: u32) -> Result<String, JsError> {
        let text = &mut self.visit.borrow_mut().text;
        let mut hay = Haystack::new(std::mem::take(text)).map_err(thrown)?;
        let mut kinds = vec![FactKind::Named; facts];
        if let Some(middle) = kinds.get_mut(facts / 2) {
            *middle = FactKind::Plain;
        }
        let needles = hay.plant(&kinds, seed.into());
        *text = hay.text();
        let needles: Vec<Value> = needles.map_err(thrown)?.iter().map(fact).collect();
        Ok(Value::from(needles).to_string())
    }

    /// A new, empty visit.
    fn forget(&self) -> std::cell::RefMut<'_, Visit> {
        let mut visit = self.visit.borrow_mut();
        *visit = Visit { number: visit.number + 1, ..Visit::default() };
        self.gpu().trim();
        visit
    }

    /// Tokens of the text.
    pub fn tokens(&self) -> usize {
        self.visit.borrow().text.len()
    }

    /// Reads on in a slice of about so many milliseconds, and tells how many tokens are read once the GPU is through
    /// with it.
    pub async fn step(&self, budget: f64) -> Result<usize, JsError> {
        let (number, (mut reader, mut reading)) = {
            let mut visit = self.visit.borrow_mut();
            let under_way = match visit.reading.take() {
                Some(pair) => pair,
                None => {
                    let reader = Reader::new(self.model).map_err(thrown)?;
                    let reading = reader.start(visit.text.clone());
                    (reader, reading)
                }
            };
            (visit.number, under_way)
        };
        let far = reading.step(&mut reader, Duration::from_secs_f64(budget / 1e3)).map_err(thrown)?;
        self.gpu().turn().await;
        let mut visit = self.visit.borrow_mut();
        if visit.number == number {
            if far.is_done() {
                visit.reader = Some(Rc::new(reader));
            } else {
                visit.reading = Some((reader, reading));
            }
        }
        Ok(far.done)
    }

    /// Bytes that tensors and pools hold on the device.
    pub fn device_bytes(&self) -> f64 {
        self.gpu().memory().reserved as f64
    }

    /// Answers a question in slices of about `budget` milliseconds; `said` hears the answer's beginning as it grows.
    pub async fn ask(&self, question: &str, budget: f64, said: js_sys::Function) -> Result<Said, JsError> {
        let reader = self.visit.borrow().reader.clone();
        let reader = reader.ok_or_else(|| JsError::new("no text is read yet"))?;
        let prompt = tasks::prompt(question);
        let (question, stop) = (prompt.as_bytes(), tasks::STOP.as_bytes());
        let asking = reader.asking(question, stop, LONGEST).map_err(thrown)?.scored();
        let (mut scores, mut heard) = (None, 0);
        let progress = |asking: &Asking| {
            // Those of the first token: what it was that the question looked for.
            if scores.is_none() {
                scores = asking.scores().cloned();
            }
            let text = &asking.answer().text;
            if text.len() > heard {
                heard = text.len();
                // A listener that throws is its own problem.
                let _ = said.call1(&JsValue::NULL, &String::from_utf8_lossy(text).into_owned().into());
            }
        };
        let budget = Duration::from_secs_f64(budget / 1e3);
        let answer = reader.ask_in_slices(asking, budget, progress).await.map_err(thrown)?;
        let chunk = self.model.config.chunk_size;
        let tokens = reader.len();
        let mut scores = match scores {
            Some(scores) => scores.read::<f32>().await.map_err(thrown)?,
            None => Vec::new(),
        };
        // Those of the question itself are no places.
        scores.truncate(tokens / chunk);
        let mut places: Vec<(usize, f32)> =
            answer.selected.iter().copied().filter(|(c, w)| c * chunk < tokens && *w > 0.0).collect();
        places.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let said = String::from_utf8_lossy(&answer.text);
        let places: Vec<Value> = places
            .iter()
            .map(|&(c, weight)| {
                json!({
                    "chunk": c, "offset": c * chunk, "weight": weight,
                    "excerpt": self.excerpt(c * chunk, chunk),
                })
            })
            .collect();
        let answer = json!({
            "answer": said.strip_suffix(tasks::STOP).unwrap_or(&said), "complete": said.ends_with(tasks::STOP),
            "prompt": prompt, "places": places,
        });
        Ok(Said { answer: answer.to_string(), scores })
    }

    /// Bytes of the text as people read them.
    pub fn excerpt(&self, offset: usize, length: usize) -> String {
        let text = &self.visit.borrow().text;
        let end = offset.saturating_add(length).min(text.len());
        String::from_utf8_lossy(&text[offset.min(end)..end]).into_owned()
    }
}

/// What was said.
#[wasm_bindgen]
pub struct Said {
    answer: String,
    scores: Vec<f32>,
}

#[wasm_bindgen]
impl Said {
    /// The answer and the places that its first token looked into, the weightiest first, as JSON.
    #[wasm_bindgen(getter)]
    pub fn answer(&self) -> String {
        self.answer.clone()
    }

    /// How each whole chunk of the text scores at the question's last token.
    #[wasm_bindgen(getter)]
    pub fn scores(&self) -> Vec<f32> {
        self.scores.clone()
    }
}

fn fact(needle: &Needle) -> Value {
    json!({
        "position": needle.position, "text": needle.fact.text, "question": needle.fact.question,
        "answer": needle.fact.answer.strip_suffix(tasks::STOP),
    })
}
