//! The heat map: scores drawn straight from the tensor's buffer.

use eframe::egui;
use rambutan_engine::gpu::shared::SharedBuffer;

use crate::canvas;

/// What draws it, for [`canvas::Canvas`].
pub const SHADER: &str = include_str!("heat.wgsl");

/// Chunks in rows, from the text's start at the top left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Cells a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// Chunks.
    pub chunks: usize,
}

impl Grid {
    /// Cells about as high as wide, in a rectangle of this size.
    pub fn new(chunks: usize, size: egui::Vec2) -> Grid {
        let aspect = f64::from((size.x / size.y.max(1.0)).max(0.01));
        let columns = ((chunks as f64 * aspect).sqrt().ceil() as usize).clamp(1, chunks.max(1));
        Grid { columns, rows: chunks.div_ceil(columns).max(1), chunks }
    }

    /// Where a chunk is drawn.
    pub fn cell(&self, rect: egui::Rect, chunk: usize) -> egui::Rect {
        let size = rect.size() / egui::vec2(self.columns as f32, self.rows as f32);
        let at = egui::vec2((chunk % self.columns) as f32, (chunk / self.columns) as f32);
        egui::Rect::from_min_size(rect.min + at * size, size)
    }

    /// The chunk that is drawn at a point.
    pub fn at(&self, rect: egui::Rect, point: egui::Pos2) -> Option<usize> {
        let part = (point - rect.min) / rect.size();
        let inside = |v: f32| (0.0..1.0).contains(&v);
        let chunk =
            (part.y * self.rows as f32) as usize * self.columns + (part.x * self.columns as f32) as usize;
        (inside(part.x) && inside(part.y) && chunk < self.chunks).then_some(chunk)
    }
}

/// Draws the first `grid.chunks` of `scores` into `rect`.
pub fn show(ui: &egui::Ui, rect: egui::Rect, scores: SharedBuffer, grid: Grid) {
    let words = [grid.columns, grid.rows, grid.chunks, 0].map(|n| n as u32);
    canvas::show(ui, rect, words, vec![scores]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_and_points_agree() {
        let rect = egui::Rect::from_min_size(egui::pos2(10.0, 20.0), egui::vec2(300.0, 100.0));
        for chunks in [1, 2, 7, 100, 1025] {
            let grid = Grid::new(chunks, rect.size());
            assert!(
                grid.columns * grid.rows >= chunks && grid.columns * (grid.rows - 1) < chunks,
                "{grid:?}"
            );
            for chunk in 0..chunks {
                assert_eq!(grid.at(rect, grid.cell(rect, chunk).center()), Some(chunk));
            }
            assert_eq!(grid.at(rect, egui::pos2(9.0, 25.0)), None);
        }
    }
}
