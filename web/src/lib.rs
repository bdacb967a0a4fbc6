//! The demo as a page. JavaScript holds the controls and the clock (web/page/app.js); here is what it drives: a text,
//! its memory on the browser's GPU, questions, and the Cases of every op. Nothing waits: what the GPU is yet to finish
//! is a promise, and long work is cut into steps that the page takes between its frames.
#![cfg(target_arch = "wasm32")]

mod selfcheck;
mod session;

use wasm_bindgen::prelude::*;

pub use selfcheck::{Selfcheck, ops};
pub use session::Session;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn console_error(text: &str);
}

/// A panic would say `unreachable executed`: what was meant goes to the console first.
#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|panic| console_error(&panic.to_string())));
}

fn thrown(error: impl std::fmt::Display) -> JsError {
    JsError::new(&error.to_string())
}
