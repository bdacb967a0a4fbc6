//! `rambutan bench crossover`: how long a text must be before hierarchical sparse attention, with the selection that it
//! needs, takes less time than causal attention over all of it.

use rambutan_engine::{Gpu, ops, testing::Case};
use serde_json::Value;

use super::bench::{Bench, Work};
use crate::{
    picture::{Canvas, Color, FAINT, INK, text_width},
    problem::{Problem, print},
};

/// Tokens of one sequence. All with 16 query heads on one key-value head of 64 dims; chunks of 64 tokens, 8 of them
/// selected in 1024 dims.
const LENGTHS: [usize; 7] = [1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16];

/// Attention, HSA, selection; the first that all run here.
const CASES: [[&str; 3]; 3] = [
    ["window_attention.coop", "hsa.random", "select.weights.f16"],
    ["window_attention.f16", "hsa.random", "select.weights.f16"],
    ["window_attention", "hsa", "select.weights"],
];

/// Milliseconds at one length, forward and backward; none where a size was skipped or wrong.
struct Times {
    tokens: usize,
    attention: [Option<f64>; 2],
    sparse: [Option<f64>; 2],
}

/// Times all three at each length; with `--out`, draws what they take.
pub fn run(bench: &Bench, work: &mut Work<'_>, all: &[Case]) -> Result<(), Problem> {
    let named = |stem: &str| all.iter().find(|c| c.stem == stem).expect("the case is listed");
    let runs = |stems: &&[&str; 3]| stems.iter().all(|s| named(s).runs(work.gpu));
    let stems = CASES.iter().find(runs).expect("the last runs everywhere");
    let mut timed = bench.clone();
    timed.max_mib = usize::MAX;
    for &tokens in lengths(work.gpu) {
        for (stem, sizes) in stems.iter().zip(sizes(tokens)) {
            let case = named(stem);
            // Some lengths are rows, too.
            if passes(&work.lines, case, &sizes).is_none() {
                timed.op(work, case, &sizes)?;
                work.gpu.trim();
            }
        }
    }
    show(bench, &table(&work.lines, all, stems), &work.gpu.capabilities().name)
}

/// The same from what an earlier `--json` printed.
pub fn again(bench: &Bench, lines: &[Value]) -> Result<(), Problem> {
    let all = ops::cases();
    let stems = CASES.iter().find(|stems| lines.iter().any(|l| l["op"] == stems[0]));
    let stems = stems.ok_or_else(|| {
        Problem::input(
            "--results holds no attention over all tokens",
            "write it with `rambutan bench crossover --json`",
        )
    })?;
    let device = lines.iter().find_map(|l| l["device"].as_str()).unwrap_or("an unnamed device");
    show(bench, &table(lines, &all, stems), device)
}

/// Of attention, HSA and selection.
fn sizes(tokens: usize) -> [Vec<usize>; 3] {
    [
        vec![1, tokens, tokens, 16, 1, 64],
        vec![1, tokens, 16, 1, 64, tokens / 64, 64, 8, 1, 0],
        vec![1, tokens, tokens / 64, 1024, 8, 64, 0],
    ]
}

/// Milliseconds forward and backward, where this was timed.
fn passes(lines: &[Value], case: &Case, sizes: &[usize]) -> Option<[Option<f64>; 2]> {
    let at = case.exactly(sizes.to_vec()).to_string();
    let line =
        lines.iter().find(|l| l["op"] == case.stem && l["sizes"] == at && l["forward_ms"].is_number())?;
    Some(["forward_ms", "backward_ms"].map(|pass| line[pass].as_f64()))
}

/// The lengths that something was timed at.
fn table(lines: &[Value], all: &[Case], stems: &[&str; 3]) -> Vec<Times> {
    let named = |stem: &str| all.iter().find(|c| c.stem == stem).expect("the case is listed");
    let at = |tokens: usize| {
        let [attention, hsa, selection] =
            std::array::from_fn(|i| passes(lines, named(stems[i]), &sizes(tokens)[i]));
        let none = [None; 2];
        let (hsa, selection) = (hsa.unwrap_or(none), selection.unwrap_or(none));
        let sparse = [0, 1].map(|pass| Some(hsa[pass]? + selection[pass]?));
        Times { tokens, attention: attention.unwrap_or(none), sparse }
    };
    let timed = |t: &Times| t.attention.iter().chain(&t.sparse).any(Option::is_some);
    LENGTHS.map(at).into_iter().filter(timed).collect()
}

fn show(bench: &Bench, table: &[Times], device: &str) -> Result<(), Problem> {
    let say = |text: &str| if bench.json { Ok(()) } else { print(text) };
    say(&text(table))?;
    let Some(folder) = &bench.out else { return Ok(()) };
    std::fs::create_dir_all(folder).map_err(|e| {
        let message = format!("cannot write to --out {}: {e}", folder.display());
        Problem::input(message, "name a folder that can be written to, with some room left")
    })?;
    let path = folder.join("crossover.png");
    draw(table, device).save(&path)?;
    say(&format!("drawn in {}\n", path.display()))
}

/// A CPU would take hours for all of them.
fn lengths(gpu: &Gpu) -> &'static [usize] {
    if gpu.capabilities().cpu { &LENGTHS[..2] } else { &LENGTHS }
}

fn text(table: &[Times]) -> String {
    let ms = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.3}"));
    let mut text = format!(
        "\n{:>8} {:>13} {:>13} {:>7} {:>13} {:>13} {:>7}   ms, and how many times as long attention takes\n",
        "tokens", "attention", "HSA", "×", "backward", "HSA", "×"
    );
    for Times { tokens, attention, sparse } in table {
        text += &format!("{tokens:>8}");
        for (full, sparse) in attention.iter().zip(sparse) {
            let ratio = full.zip(*sparse).map_or("-".into(), |(a, b)| format!("{:.2}", a / b));
            text += &format!(" {:>13} {:>13} {ratio:>7}", ms(*full), ms(*sparse));
        }
        text.push('\n');
    }
    text + "HSA: with selection; both read the whole text\n"
}

const ATTENTION: Color = [200, 60, 50];
const SPARSE: Color = [34, 94, 168];

/// Forward and backward beside each other, both axes logarithmic.
fn draw(table: &[Times], device: &str) -> Canvas {
    const LEFT: i32 = 90;
    const TOP: i32 = 100;
    const SIZE: (i32, i32) = (360, 320);
    const GAP: i32 = 90;
    let title = "Causal attention and HSA with selection";
    let width = (LEFT + 2 * SIZE.0 + GAP + 40).max(LEFT + text_width(title, 2) + 20);
    let mut canvas = Canvas::new(width as u32, (TOP + SIZE.1 + 60) as u32);
    canvas.text(LEFT, 22, 2, title, INK);
    canvas.text(LEFT, 48, 1, &format!("{device}, ms by tokens of one sequence"), INK);
    canvas.text(LEFT, 64, 1, "attention", ATTENTION);
    canvas.text(LEFT + 80, 64, 1, "HSA", SPARSE);
    let all = || table.iter().flat_map(|t| t.attention.iter().chain(&t.sparse)).flatten();
    let low = all().fold(f64::MAX, |m, v| m.min(*v)).log10().floor();
    let high = all().fold(f64::MIN_POSITIVE, |m, v| m.max(*v)).log10().ceil();
    let (Some(first), Some(last), true) = (table.first(), table.last(), low <= high) else { return canvas };
    let (start, octaves) = (first.tokens.ilog2(), (last.tokens.ilog2() - first.tokens.ilog2()).max(1));
    for (pass, name) in ["forward", "backward"].into_iter().enumerate() {
        let left = LEFT + pass as i32 * (SIZE.0 + GAP);
        let across = |tokens: usize| left + (tokens.ilog2() - start) as i32 * SIZE.0 / octaves as i32;
        let down =
            |ms: f64| TOP + SIZE.1 - ((ms.log10() - low) / (high - low).max(1.0) * f64::from(SIZE.1)) as i32;
        canvas.text(left, TOP - 14, 1, name, INK);
        for power in low as i32..=high as i32 {
            let ms = 10f64.powi(power);
            canvas.fill(left, down(ms), SIZE.0, 1, FAINT);
            canvas.right(left - 8, down(ms) - 3, 1, &format!("{ms}"), INK);
        }
        canvas.fill(left, TOP, 1, SIZE.1, INK);
        for t in table {
            canvas.centred(across(t.tokens), TOP + SIZE.1 + 10, 1, &format!("{} K", t.tokens >> 10), INK);
        }
        let mut line = |color: Color, ms: &dyn Fn(&Times) -> Option<f64>| {
            let points: Vec<_> =
                table.iter().filter_map(|t| Some((across(t.tokens), down(ms(t)?)))).collect();
            points.windows(2).for_each(|w| canvas.line(w[0], w[1], color));
            points.iter().for_each(|(x, y)| canvas.fill(x - 2, y - 2, 6, 6, color));
        };
        line(ATTENTION, &|t| t.attention[pass]);
        line(SPARSE, &|t| t.sparse[pass]);
    }
    canvas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_who_takes_longer() {
        let at =
            |tokens, a: f64, b: f64| Times { tokens, attention: [Some(a), None], sparse: [Some(b), Some(b)] };
        let table = [at(1024, 0.5, 1.0), at(2048, 3.0, 1.5)];
        let text = text(&table);
        let rows: Vec<Vec<&str>> = text.lines().skip(2).map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["1024", "0.500", "1.000", "0.50", "-", "1.000", "-"]);
        assert_eq!(rows[1], ["2048", "3.000", "1.500", "2.00", "-", "1.500", "-"]);
        let path = std::env::temp_dir().join(format!("rambutan-crossover-{}.png", std::process::id()));
        draw(&table, "a device").save(&path).expect("it writes");
        let picture = image::open(&path).expect("it is a picture").to_rgb8();
        std::fs::remove_file(&path).expect("it is there");
        let count = |color: Color| picture.pixels().filter(|p| p.0 == color).count();
        assert!(count(ATTENTION) > 300 && count(SPARSE) > 600, "{} {}", count(ATTENTION), count(SPARSE));
        assert!(count(FAINT) > 1000 && draw(&[], "none").save(&path).is_ok());
        std::fs::remove_file(&path).expect("it is there");
    }
}
