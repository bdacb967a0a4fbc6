//! One visit: a model on the browser's GPU, a text, its memory, questions.

use rambutan_engine::{Gpu, GpuOptions};
use rambutan_model::{
    Checkpoint, Ramba,
    data::Prose,
    ramba::Options,
    reader::Reader,
    tasks::{self, FactKind, Haystack, Needle},
};
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use crate::thrown;

/// The longest answer, in tokens.
const LONGEST: usize = 64;

/// A model, a text and its memory.
#[wasm_bindgen]
pub struct Session {
    model: &'static Ramba,
    prose: Option<Prose>,
    text: Vec<u8>,
    reader: Option<Reader<'static>>,
    read: usize,
}

#[wasm_bindgen]
impl Session {
    /// Opens the browser's GPU and uploads the checkpoint whose file holds `weights`.
    pub async fn open(weights: Vec<u8>) -> Result<Session, JsError> {
        let checkpoint = Checkpoint::from_bytes(&weights).map_err(thrown)?;
        let gpu = Gpu::request(GpuOptions::default()).await.map_err(thrown)?;
        let model = Ramba::with(&gpu, &checkpoint, Options::default()).map_err(thrown)?;
        // A page opens one, and its readers borrow it for as long as it is there.
        let model = Box::leak(Box::new(model));
        Ok(Session { model, prose: None, text: Vec::new(), reader: None, read: 0 })
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
            "parameters": self.model.parameters().len(), "chunk": self.model.config.chunk_size,
            "bytes_per_token": bytes_per_token,
        });
        Ok(about.to_string())
    }

    /// Takes a text.
    pub fn take(&mut self, text: Vec<u8>) {
        self.forget();
        self.text = text;
    }

    /// Forgets text and memory, and begins to write a text of its own, see [`Session::write`].
    pub fn begin(&mut self, seed: u32) {
        self.forget();
        self.prose = Some(Prose::held(seed.into()));
    }

    /// Writes the text's next `length` bytes.
    pub fn write(&mut self, length: usize) {
        if let Some(prose) = &mut self.prose {
            self.text.extend(prose.text(length));
        }
    }

    /// Hides so many facts in the text, and tells them, as JSON.
    pub fn hide(&mut self, facts: usize, seed: u32) -> Result<String, JsError> {
        let mut hay = Haystack::new(std::mem::take(&mut self.text)).map_err(thrown)?;
        let mut kinds = vec![FactKind::Named; facts];
        if let Some(middle) = kinds.get_mut(facts / 2) {
            *middle = FactKind::Plain;
        }
        let needles = hay.plant(&kinds, seed.into());
        self.text = hay.text().to_vec();
        let needles: Vec<Value> = needles.map_err(thrown)?.iter().map(fact).collect();
        Ok(Value::from(needles).to_string())
    }

    fn forget(&mut self) {
        (self.prose, self.reader, self.read) = (None, None, 0);
        self.text = Vec::new();
        self.gpu().trim();
    }

    /// Tokens of the text.
    pub fn tokens(&self) -> usize {
        self.text.len()
    }

    /// Reads on for about so many milliseconds, and tells how many tokens are read.
    pub async fn step(&mut self, _budget: f64) -> Result<usize, JsError> {
        if self.reader.is_none() {
            self.reader = Some(Reader::new(self.model).map_err(thrown)?.with_batch(2048));
        }
        let reader = self.reader.as_mut().expect("made above");
        let piece = &self.text[self.read..(self.read + 8192).min(self.text.len())];
        reader.read(piece, |_| {}).map_err(thrown)?;
        self.read += piece.len();
        Ok(self.read)
    }

    /// Bytes that tensors and pools hold on the device.
    pub fn device_bytes(&self) -> f64 {
        self.gpu().memory().reserved as f64
    }

    /// Answers a question, as JSON: the answer and the places that its first token looked into, the weightiest first.
    pub async fn ask(&self, question: &str) -> Result<String, JsError> {
        let reader = self.reader.as_ref().ok_or_else(|| JsError::new("nothing was read yet"))?;
        let prompt = tasks::prompt(question);
        let answer = reader.ask(prompt.as_bytes(), tasks::STOP.as_bytes(), LONGEST).await.map_err(thrown)?;
        let said = String::from_utf8_lossy(&answer.text);
        let chunk = self.model.config.chunk_size;
        let mut places: Vec<(usize, f32)> = answer
            .selected
            .iter()
            .copied()
            .filter(|(c, w)| c * chunk < self.text.len() && *w > 0.0)
            .collect();
        places.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let places: Vec<Value> = places
            .iter()
            .map(|&(c, weight)| {
                json!({ "chunk": c, "offset": c * chunk, "weight": weight, "excerpt": self.excerpt(c * chunk, chunk) })
            })
            .collect();
        let answer = json!({
            "answer": said.strip_suffix(tasks::STOP).unwrap_or(&said), "complete": said.ends_with(tasks::STOP),
            "prompt": prompt, "places": places,
        });
        Ok(answer.to_string())
    }

    /// Bytes of the text as people read them.
    pub fn excerpt(&self, offset: usize, length: usize) -> String {
        let end = offset.saturating_add(length).min(self.text.len());
        String::from_utf8_lossy(&self.text[offset.min(end)..end]).into_owned()
    }
}

fn fact(needle: &Needle) -> Value {
    json!({
        "position": needle.position, "text": needle.fact.text, "question": needle.fact.question,
        "answer": needle.fact.answer.strip_suffix(tasks::STOP),
    })
}
