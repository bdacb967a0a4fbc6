//! The app as a user meets it, by script: a window under Xvfb, a text with a known fact, a question, and what is shown.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rambutan_model::tasks::{FactKind, Haystack, Needle};

const PROGRAM: &str = env!("CARGO_BIN_EXE_rambutan-reader");

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("rambutan-reader-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.0.join(name), bytes).expect("it writes");
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A display that nobody looks at.
struct Display(Child, String);

impl Display {
    fn open() -> Option<Display> {
        // Tests run side by side.
        static OPENED: AtomicU32 = AtomicU32::new(0);
        let number = 90 + std::process::id() % 1000 * 10 + OPENED.fetch_add(1, Ordering::Relaxed);
        let name = format!(":{number}");
        let screen = ["-screen", "0", "1280x800x24", "-nolisten", "tcp"];
        let child = Command::new("Xvfb").arg(&name).args(screen).stderr(Stdio::null()).spawn().ok()?;
        for _ in 0..100 {
            if Path::new(&format!("/tmp/.X11-unix/X{number}")).exists() {
                return Some(Display(child, name));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        None
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The value of `"key": value` in a line of JSON, from its first occurrence on.
fn field<'a>(line: &'a str, key: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!("\"{key}\": ")).unwrap_or_else(|| panic!("no {key} in {line}"));
    match rest.strip_prefix('"') {
        Some(text) => text.split('"').next().expect("a string"),
        None => rest.split([',', '}', ']']).next().expect("a number"),
    }
}

fn number(line: &str, key: &str) -> f64 {
    field(line, key).parse().unwrap_or_else(|_| panic!("{key} of {line} is no number"))
}

fn text() -> (Haystack, Vec<Needle>) {
    let mut hay = Haystack::prose(5, 12_000).expect("a text");
    let needles = hay.plant(&[FactKind::Named, FactKind::Named], 5).expect("room for two facts");
    (hay, needles)
}

#[test]
fn a_window_reads_answers_and_draws() {
    let Some(display) = Display::open() else {
        println!("SKIPPED: no Xvfb: install xvfb, or run ./tools/reader/check");
        assert!(std::env::var_os("RAMBUTAN_NEED_DISPLAY").is_none(), "a display is asked for");
        return;
    };
    let folder = Folder::new("window");
    let (hay, needles) = text();
    let file = folder.write("text.txt", hay.text());
    let shot = folder.0.join("shot.png");
    let mut script = format!("open {}\n", file.display());
    for needle in &needles {
        script += &format!("ask {}\n", needle.fact.question);
    }
    script += &format!("screenshot {}\nexit\n", shot.display());
    let script = folder.write("script.txt", script);
    let output = Command::new(PROGRAM)
        .arg("--script")
        .arg(&script)
        .env("DISPLAY", &display.1)
        .env_remove("WAYLAND_DISPLAY")
        .output()
        .expect("the program runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 1 + needles.len(), "{out}");
    println!("{out}");

    // All of it was read, in slices: the window drew many frames meanwhile.
    assert_eq!(number(lines[0], "read") as usize, hay.text().len());
    assert!(number(lines[0], "frames") > 10.0, "{}", lines[0]);
    for (line, needle) in lines[1..].iter().zip(&needles) {
        assert_eq!(field(line, "answer"), needle.fact.answer.trim_end_matches('|'), "{line}");
        // The first place is where the fact stands.
        let (offset, chunk) = (number(line, "offset") as usize, number(line, "chunk") as usize);
        let fact = needle.position..needle.position + needle.fact.text.len();
        assert!(offset < fact.end && offset + chunk > fact.start, "{offset} for a fact at {fact:?}: {line}");
    }

    // The screenshot shows the last question's map: its brightest cell is the chunk with the highest score.
    let last = lines[lines.len() - 1];
    let map = last.split_once("\"map\": ").expect("a map").1;
    let [x, y, width, height, columns, rows, chunks] =
        ["x", "y", "width", "height", "columns", "rows", "chunks"].map(|k| number(map, k));
    let image = image::open(&shot).expect("the screenshot is a PNG").to_rgb8();
    let light = |chunk: usize| {
        let column = (chunk % columns as usize) as f64 + 0.5;
        let row = (chunk / columns as usize) as f64 + 0.5;
        let at = [x + column / columns * width, y + row / rows * height].map(|v| v as u32);
        image.get_pixel(at[0], at[1]).0.iter().map(|&v| u32::from(v)).sum::<u32>()
    };
    let place = number(last, "offset") as usize / number(last, "chunk") as usize;
    let mut lights: Vec<u32> = (0..chunks as usize).map(light).collect();
    let shown = lights[place];
    lights.sort_unstable();
    assert!(shown >= lights[lights.len() - 1 - lights.len() / 50], "{shown} among the brightest: {lights:?}");
    let median = lights[lights.len() / 2];
    assert!(shown > median + 60, "{shown} stands out of {median}");
    if let Some(to) = std::env::var_os("RAMBUTAN_SCREENSHOT") {
        fs::copy(&shot, to).expect("the screenshot is kept");
    }
}

/// The window of `examples/learn.rs`, closed after so many frames: the lines that it printed at half of them and at the
/// end, and how far apart the halves of what it showed are, of 255: what is learnt, and what the network makes of it.
fn learn(display: &Display, frames: usize, shot: &Path) -> ([String; 2], f64) {
    let program = Path::new(PROGRAM).with_file_name("examples").join("learn");
    let output = Command::new(program)
        .args(["--frames", &frames.to_string(), "--screenshot"])
        .arg(shot)
        .env("DISPLAY", &display.1)
        .env_remove("WAYLAND_DISPLAY")
        .output()
        .expect("the example runs: `cargo test` builds it");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    println!("{out}");
    let lines: Vec<&str> = out.lines().collect();
    let [half, end] = lines[..] else { panic!("two lines: {out}") };
    let [x, y, width, height] = ["x", "y", "width", "height"].map(|k| number(end, k) as u32);
    let image = image::open(shot).expect("the screenshot is a PNG").to_rgb8();
    let (mut sum, mut count) = (0, 0);
    // The pictures take four fifths of the height.
    for row in y + 2..y + height * 4 / 5 - 2 {
        for column in x + 2..x + width / 2 - 2 {
            let (a, b) = (image.get_pixel(column, row).0, image.get_pixel(column + width / 2, row).0);
            sum += a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(b))).sum::<u64>();
            count += 3;
        }
    }
    ([half.to_owned(), end.to_owned()], sum as f64 / count as f64)
}

#[test]
fn a_network_learns_while_it_is_drawn() {
    let Some(display) = Display::open() else {
        println!("SKIPPED: no Xvfb: install xvfb, or run ./tools/reader/check");
        assert!(std::env::var_os("RAMBUTAN_NEED_DISPLAY").is_none(), "a display is asked for");
        return;
    };
    let folder = Folder::new("learn");
    let shot = folder.0.join("shot.png");
    let (_, apart) = learn(&display, 4, &shot);
    let ([half, end], close) = learn(&display, 200, &shot);
    let [before, after] = [&half, &end].map(|line| number(line, "loss"));
    assert!(after < 0.01 && after < before, "{half}\n{end}");
    // It is drawn as it is learnt.
    assert!(apart > 20.0 && close < apart / 3.0, "{apart} apart at first, {close} at last");
    for what in ["bytes", "buffers"] {
        assert_eq!(number(&half, what), number(&end, what), "{what} between\n{half}\n{end}");
    }
    if let Some(to) = std::env::var_os("RAMBUTAN_LEARN_SCREENSHOT") {
        fs::copy(&shot, to).expect("the screenshot is kept");
    }
}

#[test]
fn without_a_window_the_same_frames_are_drawn() {
    let folder = Folder::new("offscreen");
    let shot = folder.0.join("shot.png");
    let output = Command::new(PROGRAM)
        .args(["--offscreen", "--tokens", "4096", "--screenshot"])
        .arg(&shot)
        .output()
        .expect("the program runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    println!("{out}");
    let lines: Vec<&str> = out.lines().collect();
    let [warm, read, asked, _] = lines[..] else { panic!("four lines: {out}") };
    assert_eq!(number(read, "read"), 4096.0);
    assert!(number(read, "frames") > 5.0 && number(read, "p95_ms") > 0.0, "{read}");
    // Nothing is compiled while somebody waits.
    for line in [read, asked] {
        assert_eq!(number(line, "kernels"), number(warm, "kernels"), "{out}");
    }
    let image = image::open(&shot).expect("a PNG").to_rgb8();
    let colours: std::collections::HashSet<_> = image.pixels().map(|p| p.0).collect();
    assert!(colours.len() > 50, "{} colours", colours.len());
}

#[test]
fn what_cannot_be_done_is_said() {
    let folder = Folder::new("errors");
    let script = folder.write("script.txt", "say hello\n");
    for (arguments, expected) in [
        (vec!["--no-such"], "unknown argument `--no-such`"),
        (vec!["--tokens", "7"], "--tokens 7: expected 1024 to 67108864"),
        (vec!["--script"], "--script needs a value"),
        (vec!["--script", script.to_str().expect("UTF-8")], "line 1: `say hello`"),
        (vec!["--offscreen", "no such file"], "no such file"),
        (vec!["--offscreen", "--checkpoint", script.to_str().expect("UTF-8")], "checkpoint"),
    ] {
        let output = Command::new(PROGRAM).args(&arguments).output().expect("the program runs");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {err}");
        assert!(err.starts_with("error: ") && err.contains(expected), "{arguments:?}: {err}");
    }
}
