//! Pictures without fonts or displays: rectangles, lines and letters of five by seven points, written as PNG.

use std::{io::Cursor, path::Path};

use image::{ImageFormat, Rgb, RgbImage};
use rambutan_model::checkpoint::write_atomically;

use crate::problem::Problem;

/// Red, green, blue.
pub type Color = [u8; 3];

pub const WHITE: Color = [255, 255, 255];
pub const INK: Color = [32, 36, 44];
pub const FAINT: Color = [206, 210, 216];

/// A picture being drawn; what lies outside is cut off.
pub struct Canvas(RgbImage);

impl Canvas {
    /// All white.
    pub fn new(width: u32, height: u32) -> Canvas {
        Canvas(RgbImage::from_pixel(width, height, Rgb(WHITE)))
    }

    fn point(&mut self, x: i32, y: i32, color: Color) {
        if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
            && x < self.0.width()
            && y < self.0.height()
        {
            self.0.put_pixel(x, y, Rgb(color));
        }
    }

    /// A filled rectangle.
    pub fn fill(&mut self, x: i32, y: i32, width: i32, height: i32, color: Color) {
        for dy in 0..height {
            for dx in 0..width {
                self.point(x + dx, y + dy, color);
            }
        }
    }

    /// A line two points wide.
    pub fn line(&mut self, from: (i32, i32), to: (i32, i32), color: Color) {
        let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).max(1);
        for i in 0..=steps {
            let at = |a: i32, b: i32| a + ((b - a) as i64 * i64::from(i) / i64::from(steps)) as i32;
            self.fill(at(from.0, to.0), at(from.1, to.1), 2, 2, color);
        }
    }

    /// Letters `scale` points wide a dot, their upper left corner at (x, y). What has no glyph is a gap.
    pub fn text(&mut self, x: i32, y: i32, scale: i32, text: &str, color: Color) {
        for (i, letter) in text.chars().enumerate() {
            let glyph = GLYPHS.iter().find(|g| char::from(g.0) == letter);
            for (row, bits) in glyph.map_or([0; 7], |g| g.1).into_iter().enumerate() {
                for column in (0..5).filter(|c| bits >> (4 - c) & 1 == 1) {
                    let x = x + (i as i32 * 6 + column) * scale;
                    self.fill(x, y + row as i32 * scale, scale, scale, color);
                }
            }
        }
    }

    /// [`Canvas::text`], centred on x.
    pub fn centred(&mut self, x: i32, y: i32, scale: i32, text: &str, color: Color) {
        self.text(x - text_width(text, scale) / 2, y, scale, text, color);
    }

    /// [`Canvas::text`], ending at x.
    pub fn right(&mut self, x: i32, y: i32, scale: i32, text: &str, color: Color) {
        self.text(x - text_width(text, scale), y, scale, text, color);
    }

    /// Writes it as PNG: wholly or not at all.
    pub fn save(&self, path: &Path) -> Result<(), Problem> {
        let failed = |e: &dyn std::fmt::Display| {
            let hint = "name a folder that can be written to, with some room left";
            Problem::input(format!("cannot write {}: {e}", path.display()), hint)
        };
        let mut bytes = Cursor::new(Vec::new());
        self.0.write_to(&mut bytes, ImageFormat::Png).map_err(|e| failed(&e))?;
        write_atomically(path, |writer| writer.write_all(bytes.get_ref())).map_err(|e| failed(&e))
    }
}

/// Points that a text is wide.
pub fn text_width(text: &str, scale: i32) -> i32 {
    (text.chars().count() as i32 * 6 - 1).max(0) * scale
}

/// From red over pale yellow to green, for shares from 0 to 1.
pub fn share_color(share: f64) -> Color {
    const STOPS: [[f64; 3]; 5] = [
        [165.0, 15.0, 40.0],
        [244.0, 109.0, 67.0],
        [254.0, 224.0, 139.0],
        [140.0, 200.0, 100.0],
        [20.0, 130.0, 70.0],
    ];
    let at = share.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let i = (at as usize).min(STOPS.len() - 2);
    std::array::from_fn(|c| (STOPS[i][c] + (STOPS[i + 1][c] - STOPS[i][c]) * (at - i as f64)).round() as u8)
}

/// A table of shares: (a column's name, its shares from the first row down). What is no number leaves its cell empty.
pub struct HeatMap<'a> {
    pub title: &'a str,
    pub subtitle: &'a str,
    pub columns: &'a [(String, Vec<f64>)],
    pub rows: &'a [String],
    pub across: &'a str,
    pub down: &'a str,
}

impl HeatMap<'_> {
    pub fn draw(&self) -> Canvas {
        const CELL: (i32, i32) = (92, 40);
        const LEFT: i32 = 110;
        const TOP: i32 = 96;
        let (columns, rows) = (self.columns.len() as i32, self.rows.len() as i32);
        let (width, height) = (columns * CELL.0, rows * CELL.1);
        let whole = (LEFT + width + 120)
            .max(LEFT + text_width(self.title, 2))
            .max(LEFT + text_width(self.subtitle, 1));
        let mut canvas = Canvas::new((whole + 20) as u32, (TOP + height + 70) as u32);
        canvas.text(LEFT, 22, 2, self.title, INK);
        canvas.text(LEFT, 48, 1, self.subtitle, INK);
        for (x, (name, shares)) in self.columns.iter().enumerate() {
            let left = LEFT + x as i32 * CELL.0;
            for (y, &share) in shares.iter().enumerate() {
                let top = TOP + y as i32 * CELL.1;
                if share.is_nan() {
                    canvas.fill(left + 1, top + 1, CELL.0 - 2, CELL.1 - 2, FAINT);
                    continue;
                }
                canvas.fill(left + 1, top + 1, CELL.0 - 2, CELL.1 - 2, share_color(share));
                let dark = (0.3..0.8).contains(&share);
                let label = format!("{:.0}%", share * 100.0);
                canvas.centred(
                    left + CELL.0 / 2,
                    top + CELL.1 / 2 - 7,
                    2,
                    &label,
                    if dark { INK } else { WHITE },
                );
            }
            canvas.centred(left + CELL.0 / 2, TOP + height + 10, 2, name, INK);
        }
        for (y, name) in self.rows.iter().enumerate() {
            canvas.right(LEFT - 10, TOP + y as i32 * CELL.1 + CELL.1 / 2 - 7, 2, name, INK);
        }
        canvas.right(LEFT - 10, TOP - 20, 1, self.down, INK);
        canvas.centred(LEFT + width / 2, TOP + height + 42, 2, self.across, INK);
        // The scale.
        let (left, steps) = (LEFT + width + 24, 64);
        for step in 0..steps {
            let (from, to) = (height * step / steps, height * (step + 1) / steps);
            let share = 1.0 - f64::from(step) / f64::from(steps - 1);
            canvas.fill(left, TOP + from, 16, to - from, share_color(share));
        }
        for (share, label) in [(0.0, "100%"), (0.5, "50%"), (1.0, "0%")] {
            let y = TOP + (f64::from(height - 1) * share) as i32;
            canvas.fill(left + 16, y, 6, 1, FAINT);
            canvas.text(left + 26, y - 3, 1, label, INK);
        }
        canvas
    }
}

/// One quantity over the steps of a run.
pub struct Curve {
    pub name: String,
    /// (step, value), by step.
    pub points: Vec<(f64, f64)>,
    /// Whether the axis is logarithmic.
    pub log: bool,
}

/// Curves under each other, over the same steps.
pub fn curves(title: &str, curves: &[Curve]) -> Canvas {
    const LEFT: i32 = 110;
    const WIDTH: i32 = 640;
    const HEIGHT: i32 = 150;
    const GAP: i32 = 46;
    let mut canvas =
        Canvas::new((LEFT + WIDTH + 40) as u32, (80 + curves.len() as i32 * (HEIGHT + GAP)) as u32);
    canvas.text(LEFT, 22, 2, title, INK);
    let last = curves.iter().flat_map(|c| c.points.last()).fold(1.0f64, |m, p| m.max(p.0));
    for (i, curve) in curves.iter().enumerate() {
        let top = 70 + i as i32 * (HEIGHT + GAP);
        let value = |v: f64| if curve.log { v.max(1e-6).log10() } else { v };
        let drawn = || curve.points.iter().map(|p| value(p.1)).filter(|v| v.is_finite());
        let (low, high) = (drawn().fold(f64::MAX, f64::min), drawn().fold(f64::MIN, f64::max));
        canvas.text(LEFT, top - 14, 1, &curve.name, INK);
        canvas.fill(LEFT, top + HEIGHT, WIDTH, 1, INK);
        canvas.fill(LEFT, top, 1, HEIGHT, INK);
        if low > high {
            continue;
        }
        let span = (high - low).max(1e-9);
        let place = |p: &(f64, f64)| {
            let across = LEFT + (p.0 / last * f64::from(WIDTH)) as i32;
            (across, top + HEIGHT - 1 - ((value(p.1) - low) / span * f64::from(HEIGHT - 2)) as i32)
        };
        for share in [0.0, 0.5, 1.0] {
            let (y, v) = (top + HEIGHT - 1 - (share * f64::from(HEIGHT - 2)) as i32, low + share * span);
            canvas.fill(LEFT + 1, y, WIDTH, 1, FAINT);
            let v = if curve.log { 10f64.powf(v) } else { v };
            let digits = if v.abs() < 100.0 { 4 } else { 0 };
            canvas.right(LEFT - 8, y - 3, 1, &format!("{v:.digits$}"), INK);
        }
        for pair in curve.points.windows(2).filter(|w| w.iter().all(|p| value(p.1).is_finite())) {
            canvas.line(place(&pair[0]), place(&pair[1]), [34, 94, 168]);
        }
        if let [one] = curve.points.as_slice() {
            let (x, y) = place(one);
            canvas.fill(x - 1, y - 1, 3, 3, [34, 94, 168]);
        }
        canvas.text(LEFT, top + HEIGHT + 6, 1, "0", INK);
        canvas.right(LEFT + WIDTH, top + HEIGHT + 6, 1, &format!("step {last:.0}"), INK);
    }
    canvas
}

/// Rows from above, the leftmost dot in the highest of five bits.
#[rustfmt::skip]
const GLYPHS: &[(u8, [u8; 7])] = &[
    (b'%', [24, 25, 2, 4, 8, 19, 3]), (b'(', [2, 4, 8, 8, 8, 4, 2]),
    (b')', [8, 4, 2, 2, 2, 4, 8]), (b'+', [0, 4, 4, 31, 4, 4, 0]),
    (b',', [0, 0, 0, 0, 12, 4, 8]), (b'-', [0, 0, 0, 31, 0, 0, 0]),
    (b'.', [0, 0, 0, 0, 0, 12, 12]), (b'/', [0, 1, 2, 4, 8, 16, 0]),
    (b'0', [14, 17, 19, 21, 25, 17, 14]), (b'1', [4, 12, 4, 4, 4, 4, 14]),
    (b'2', [14, 17, 1, 2, 4, 8, 31]), (b'3', [31, 2, 4, 2, 1, 17, 14]),
    (b'4', [2, 6, 10, 18, 31, 2, 2]), (b'5', [31, 16, 30, 1, 1, 17, 14]),
    (b'6', [6, 8, 16, 30, 17, 17, 14]), (b'7', [31, 1, 2, 4, 8, 8, 8]),
    (b'8', [14, 17, 17, 14, 17, 17, 14]), (b'9', [14, 17, 17, 15, 1, 2, 12]),
    (b':', [0, 12, 12, 0, 12, 12, 0]), (b'=', [0, 0, 31, 0, 31, 0, 0]),
    (b'A', [14, 17, 17, 31, 17, 17, 17]), (b'B', [30, 17, 17, 30, 17, 17, 30]),
    (b'C', [14, 17, 16, 16, 16, 17, 14]), (b'D', [28, 18, 17, 17, 17, 18, 28]),
    (b'E', [31, 16, 16, 30, 16, 16, 31]), (b'F', [31, 16, 16, 30, 16, 16, 16]),
    (b'G', [14, 17, 16, 23, 17, 17, 15]), (b'H', [17, 17, 17, 31, 17, 17, 17]),
    (b'I', [14, 4, 4, 4, 4, 4, 14]), (b'J', [7, 2, 2, 2, 2, 18, 12]),
    (b'K', [17, 18, 20, 24, 20, 18, 17]), (b'L', [16, 16, 16, 16, 16, 16, 31]),
    (b'M', [17, 27, 21, 21, 17, 17, 17]), (b'N', [17, 17, 25, 21, 19, 17, 17]),
    (b'O', [14, 17, 17, 17, 17, 17, 14]), (b'P', [30, 17, 17, 30, 16, 16, 16]),
    (b'Q', [14, 17, 17, 17, 21, 18, 13]), (b'R', [30, 17, 17, 30, 20, 18, 17]),
    (b'S', [15, 16, 16, 14, 1, 1, 30]), (b'T', [31, 4, 4, 4, 4, 4, 4]),
    (b'U', [17, 17, 17, 17, 17, 17, 14]), (b'V', [17, 17, 17, 17, 17, 10, 4]),
    (b'W', [17, 17, 17, 21, 21, 21, 10]), (b'X', [17, 17, 10, 4, 10, 17, 17]),
    (b'Y', [17, 17, 17, 10, 4, 4, 4]), (b'Z', [31, 1, 2, 4, 8, 16, 31]),
    (b'_', [0, 0, 0, 0, 0, 0, 31]), (b'a', [0, 0, 14, 1, 15, 17, 15]),
    (b'b', [16, 16, 22, 25, 17, 17, 30]), (b'c', [0, 0, 14, 16, 16, 17, 14]),
    (b'd', [1, 1, 13, 19, 17, 17, 15]), (b'e', [0, 0, 14, 17, 31, 16, 14]),
    (b'f', [6, 9, 8, 28, 8, 8, 8]), (b'g', [0, 15, 17, 17, 15, 1, 14]),
    (b'h', [16, 16, 22, 25, 17, 17, 17]), (b'i', [4, 0, 12, 4, 4, 4, 14]),
    (b'j', [2, 0, 6, 2, 2, 18, 12]), (b'k', [16, 16, 18, 20, 24, 20, 18]),
    (b'l', [12, 4, 4, 4, 4, 4, 14]), (b'm', [0, 0, 26, 21, 21, 17, 17]),
    (b'n', [0, 0, 22, 25, 17, 17, 17]), (b'o', [0, 0, 14, 17, 17, 17, 14]),
    (b'p', [0, 0, 30, 17, 30, 16, 16]), (b'q', [0, 0, 13, 19, 15, 1, 1]),
    (b'r', [0, 0, 22, 25, 16, 16, 16]), (b's', [0, 0, 14, 16, 14, 1, 30]),
    (b't', [8, 8, 28, 8, 8, 9, 6]), (b'u', [0, 0, 17, 17, 17, 19, 13]),
    (b'v', [0, 0, 17, 17, 17, 10, 4]), (b'w', [0, 0, 17, 17, 21, 21, 10]),
    (b'x', [0, 0, 17, 10, 4, 10, 17]), (b'y', [0, 0, 17, 17, 15, 1, 14]),
    (b'z', [0, 0, 31, 2, 4, 8, 31]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_drawn_where_it_is_asked_for_and_cut_at_the_edge() {
        let mut canvas = Canvas::new(40, 20);
        canvas.text(2, 3, 1, "I-", INK);
        let dots: Vec<_> = canvas.0.enumerate_pixels().filter(|p| p.2.0 == INK).map(|p| (p.0, p.1)).collect();
        assert_eq!(dots.len(), 11 + 5);
        assert!(dots.contains(&(3, 3)) && dots.contains(&(8, 6)));
        canvas.text(-50, -50, 9, "outside", INK);
        canvas.text(38, 18, 9, "edge", INK);
        assert_eq!((text_width("abc", 2), text_width("", 3)), (34, 0));
    }

    #[test]
    fn curves_fall_where_their_values_do() {
        let curve = Curve { name: "loss".into(), points: vec![(0.0, 4.0), (10.0, 1.0)], log: false };
        let canvas = curves("a run", &[curve]);
        let blue = |x: u32, y: u32| *canvas.0.get_pixel(x, y) == Rgb([34, 94, 168]);
        let row = |x: u32| (0..canvas.0.height()).find(|&y| blue(x, y)).expect("the curve is there");
        assert!(row(115) < row(400) && row(400) < row(745), "from upper left to lower right");
        assert!(curves("nothing yet", &[]).0.height() > 0);
    }

    #[test]
    fn shares_go_from_red_to_green() {
        assert_eq!((share_color(0.0), share_color(-1.0)), ([165, 15, 40], [165, 15, 40]));
        assert_eq!((share_color(1.0), share_color(2.0)), ([20, 130, 70], [20, 130, 70]));
        assert_eq!(share_color(0.5), [254, 224, 139]);
    }

    #[test]
    fn a_heat_map_shows_each_cell_in_its_color() {
        let columns = [("4 K".to_owned(), vec![0.0, 1.0]), ("8 K".to_owned(), vec![1.0, 0.0])];
        let rows = ["0".to_owned(), "50".to_owned()];
        let map =
            HeatMap { title: "t", subtitle: "s", columns: &columns, rows: &rows, across: "a", down: "d" }
                .draw();
        let at = |x: u32, y: u32| map.0.get_pixel(110 + 92 * x + 3, 96 + 40 * y + 3).0;
        assert_eq!([at(0, 0), at(0, 1), at(1, 0), at(1, 1)], [0.0, 1.0, 1.0, 0.0].map(share_color));
        let path = std::env::temp_dir().join(format!("rambutan-map-{}.png", std::process::id()));
        map.save(&path).expect("it writes");
        let read = image::open(&path).expect("it is a picture").to_rgb8();
        std::fs::remove_file(&path).expect("it is there");
        assert_eq!(read, map.0);
        assert!(map.save(Path::new("/no/such/folder/x.png")).is_err());
    }
}
