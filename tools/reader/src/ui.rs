//! The window's contents: the same with a window and without one.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use eframe::egui;

use crate::{
    heat::{self, Grid},
    session::Session,
};

/// What a frame gives to reading and answering, at least; where drawing takes longer, as long as that.
const BUDGET: Duration = Duration::from_millis(6);
/// And at most.
const MOST: Duration = Duration::from_millis(50);

/// All that the window shows and takes.
pub struct Ui {
    /// The text and the model.
    pub session: Session,
    path: String,
    question: String,
    last: Option<Instant>,
    /// Where the heat map was drawn last, in points.
    pub map: Option<(egui::Rect, Grid)>,
}

impl Ui {
    /// Nothing opened yet.
    pub fn new(session: Session) -> Ui {
        Ui { session, path: String::new(), question: String::new(), last: None, map: None }
    }

    /// One frame: some work, then what there is to see.
    pub fn frame(&mut self, ui: &mut egui::Ui) {
        let now = Instant::now();
        let frame = self.last.map_or(BUDGET, |last| now - last);
        self.last = Some(now);
        self.session.step((frame / 2).clamp(BUDGET, MOST));
        let dropped = ui.ctx().input(|i| i.raw.dropped_files.first().map(|f| f.path().to_owned()));
        if let Some(path) = dropped {
            self.path = path.display().to_string();
            self.session.open(&path);
        }
        egui::CentralPanel::default().show(ui, |ui| self.contents(ui));
        if self.session.is_busy() {
            ui.ctx().request_repaint();
        }
    }

    fn contents(&mut self, ui: &mut egui::Ui) {
        ui.horizontal(|ui| {
            ui.label("Text");
            let field =
                egui::TextEdit::singleline(&mut self.path).hint_text("a file's path, or drop a file here");
            let entered = ui.add_sized([ui.available_width() - 130.0, 20.0], field).lost_focus()
                && ui.input(|i| i.key_pressed(egui::Key::Enter));
            if ui.button("Open").clicked() || entered {
                self.session.open(&PathBuf::from(&self.path));
            }
            let reading = self.session.progress().is_some();
            if ui.add_enabled(reading, egui::Button::new("Cancel")).clicked() {
                self.session.cancel();
            }
        });
        self.reading(ui);
        ui.add_space(6.0);
        ui.horizontal(|ui| {
            ui.label("Question");
            let field =
                egui::TextEdit::singleline(&mut self.question).hint_text("What is the code of Rivaze?");
            let entered = ui.add_sized([ui.available_width() - 60.0, 20.0], field).lost_focus()
                && ui.input(|i| i.key_pressed(egui::Key::Enter));
            let ready = !self.session.is_busy() && !self.question.trim().is_empty();
            if ui.add_enabled(ready, egui::Button::new("Ask")).clicked() || (entered && ready) {
                self.session.ask(&self.question.clone());
            }
        });
        if let Some(problem) = &self.session.problem {
            ui.colored_label(ui.visuals().error_fg_color, problem);
        }
        if !self.session.asked.is_empty() {
            self.answer(ui);
        }
        ui.add_space(6.0);
        self.heat(ui);
    }

    fn reading(&self, ui: &mut egui::Ui) {
        let memory = format!("{} MiB on {}", self.session.memory() >> 20, self.session.device());
        let (part, text) = match (self.session.progress(), self.session.read) {
            (Some((progress, rate)), _) if self.session.warming().is_none() => (
                progress.done as f32 / progress.total.max(1) as f32,
                format!("{} of {} tokens, {} a second, {memory}", progress.done, progress.total, rate as u64),
            ),
            (None, Some((tokens, seconds))) => (
                1.0,
                format!("{tokens} tokens read, {} a second, {memory}", (tokens as f64 / seconds) as u64),
            ),
            _ => match self.session.warming() {
                Some(since) => (0.0, format!("warming up for {:.1} s, {memory}", since.as_secs_f64())),
                None => (0.0, format!("nothing read yet, {memory}")),
            },
        };
        ui.add(egui::ProgressBar::new(part).desired_height(18.0).text(text));
    }

    fn answer(&self, ui: &mut egui::Ui) {
        ui.horizontal(|ui| {
            ui.strong(self.session.asked.as_str());
            ui.heading(self.session.said().escape_debug().to_string());
        });
        egui::Grid::new("places").striped(true).num_columns(3).show(ui, |ui| {
            for place in self.session.places() {
                ui.label(format!("byte {}", place.offset));
                ui.label(format!("{:.3}", place.weight));
                ui.monospace(place.excerpt);
                ui.end_row();
            }
        });
    }

    fn heat(&mut self, ui: &mut egui::Ui) {
        self.map = None;
        let Some(scores) = self.session.scores() else { return };
        let warming = self.session.warming().is_some();
        let chunks = if warming { 1 } else { self.session.chunks().min(scores.len()) };
        if chunks == 0 {
            return;
        }
        if !warming {
            let chunk = self.session.chunk();
            ui.label(format!("{chunks} chunks of {chunk} tokens, from the text's start, by score"));
        }
        let (rect, response) = ui.allocate_exact_size(ui.available_size(), egui::Sense::hover());
        if rect.width() < 8.0 || rect.height() < 8.0 {
            return;
        }
        let grid = Grid::new(chunks, rect.size());
        heat::show(ui, rect, scores.buffer(), grid);
        for place in self.session.places() {
            let cell = grid.cell(rect, place.offset / self.session.chunk());
            let stroke = egui::Stroke::new(1.0, egui::Color32::from_rgb(120, 220, 255));
            ui.painter().rect_stroke(cell.expand(1.5), 0.0, stroke, egui::StrokeKind::Outside);
        }
        let moved = ui.input(|i| i.pointer.time_since_last_movement() < 5.0);
        if let Some(chunk) = response.hover_pos().filter(|_| moved).and_then(|p| grid.at(rect, p)) {
            let text = format!("byte {}: {}", chunk * self.session.chunk(), self.session.excerpt(chunk));
            response.on_hover_text(text);
        }
        self.map = Some((rect, grid));
    }
}
