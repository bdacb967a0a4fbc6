//! Our times beside others': what `rambutan bench --json` prints, the JSON of peers.py (PyTorch, Triton) and of burn's
//! benchmarks, row by row.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde_json::Value;

use crate::problem::Problem;

/// Files that differ by more than this were not of one run.
const ONE_RUN: u64 = 3600;

/// The peers, in the order of the table's columns.
const PEERS: [&str; 2] = ["torch", "burn"];

/// What one file of a peer holds.
struct Peer {
    kind: &'static str,
    /// Its name for people, with versions where the file says them.
    name: String,
    file: String,
    device: Option<String>,
    /// When the file was written, in seconds since 1970.
    written: u64,
    /// (name|shape|dtype, milliseconds).
    times: Vec<(String, f64)>,
}

/// Times of others.
pub struct Comparison {
    peers: Vec<Peer>,
}

/// Rows by how they stand.
#[derive(Default)]
struct Standing {
    timed: usize,
    met: usize,
    wrong: usize,
    /// Those with a time of torch's, of them slower than half as much again; the same of burn's, of them slower.
    torch: (usize, usize),
    burn: (usize, usize),
}

impl Comparison {
    /// Reads the peers' files.
    pub fn open(files: &[PathBuf]) -> Result<Comparison, Problem> {
        Ok(Comparison { peers: files.iter().map(|f| Peer::open(f)).collect::<Result<_, _>>()? })
    }

    /// The best time that a peer of this kind has for a row.
    fn best(&self, kind: &str, row: &Value) -> Option<f64> {
        let wanted = row["peers"][kind].as_str().filter(|w| !w.is_empty())?;
        let times = self.peers.iter().filter(|p| p.kind == kind).flat_map(|p| &p.times);
        times.filter(|(name, _)| name == wanted).map(|(_, ms)| *ms).min_by(f64::total_cmp)
    }

    /// A table in Markdown with a line for each row, behind what the files say of themselves.
    pub fn table(&self, lines: &[Value]) -> Result<String, Problem> {
        let rows: Vec<&Value> = lines.iter().filter(|l| l["row"].is_string()).collect();
        let Some(first) = rows.first() else {
            let hint = "`rambutan bench anchors --json` prints them; others than rows have no goals";
            return Err(Problem::input("no rows to compare", hint));
        };
        let mut text = self.origins(first);
        text.push_str(
            "\n| row | ours, ms | torch | × | burn | × | goal | met | floor | share | host | checked |\n",
        );
        text.push_str("|---|---|---|---|---|---|---|---|---|---|---|---|\n");
        let mut standing = Standing::default();
        for row in rows {
            let name = row["row"].as_str().unwrap_or_default();
            if let Some(why) = ["skipped", "wrong"].into_iter().find(|k| row[*k].is_string()) {
                standing.wrong += usize::from(why == "wrong");
                let said = row[why].as_str().unwrap_or_default().replace('|', "/");
                let _ = writeln!(text, "| {name} | {why}: {said} ||||||||||| ");
                continue;
            }
            let Some(ours) = row["ms"].as_f64() else {
                let hint = "expected what `rambutan bench anchors --json` printed";
                return Err(Problem::input(format!("row {name}: no ms"), hint));
            };
            let goal = row["goal_ms"].as_f64();
            let met = goal.map(|g| ours <= g);
            standing.timed += usize::from(goal.is_some());
            standing.met += usize::from(met == Some(true));
            let [torch, burn] = PEERS.map(|kind| self.best(kind, row));
            for (theirs, count, most) in [(torch, &mut standing.torch, 1.5), (burn, &mut standing.burn, 1.0)]
            {
                if let Some(theirs) = theirs {
                    count.0 += 1;
                    count.1 += usize::from(ours > most * theirs);
                }
            }
            let beside = |theirs: Option<f64>| {
                theirs.map_or("|".into(), |t| format!("{} | {:.2}", milliseconds(t), ours / t))
            };
            let share = row["share"].as_f64().map_or(String::new(), |s| format!("{:.0} %", s * 100.0));
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {} | {} | {share} | {} | {} |",
                milliseconds(ours),
                beside(torch),
                beside(burn),
                goal.map_or(String::new(), |g| g.to_string()),
                met.map_or("", |m| if m { "yes" } else { "no" }),
                row["floor_ms"].as_f64().map_or(String::new(), milliseconds),
                row["host_ms"].as_f64().map_or(String::new(), milliseconds),
                row["checked"].as_str().unwrap_or("no"),
            );
        }
        let Standing { timed, met, wrong, torch, burn } = standing;
        let _ = writeln!(
            text,
            "\n{met} of {timed} rows at goal; slower than burn: {} of {}; slower than 1.5 × torch: {} of {}; wrong: {wrong}.",
            burn.1, burn.0, torch.1, torch.0
        );
        Ok(text)
    }

    /// Where the figures come from, and whether they may be held against each other.
    fn origins(&self, ours: &Value) -> String {
        let say = |key: &str| ours[key].as_str().unwrap_or("?").to_owned();
        let (device, time) = (say("device"), ours["time"].as_u64().unwrap_or(0));
        let mut text = format!(
            "Ours: {device}, {}, {}, {}, timed {} UTC. Goals are for an NVIDIA H200 and are not scaled. ×: ours over theirs.\n",
            say("backend"),
            say("driver"),
            say("clock"),
            date_and_time(time)
        );
        if let Some(launch) = ours["launch_ms"].as_f64() {
            let _ = writeln!(text, "A launch that has next to nothing to do: {:.1} µs.", launch * 1e3);
        }
        for peer in &self.peers {
            let card = match &peer.device {
                Some(d) if *d == device => "the same kind of card".into(),
                Some(d) => format!("another card ({d}): ratios say little"),
                None => "it does not say on which card".into(),
            };
            let apart = peer.written.abs_diff(time);
            let when = if apart <= ONE_RUN {
                format!("within {} minutes of ours", apart.div_ceil(60).max(1))
            } else {
                "not in the same run as ours".into()
            };
            let _ = writeln!(
                text,
                "{}: {}, from {}, written {} UTC, {when}; {card}.",
                if peer.kind == "torch" { "Torch" } else { "Burn" },
                peer.name,
                peer.file,
                date_and_time(peer.written),
            );
        }
        text
    }

    /// Appends the comparison to `folder/<device>/<date>-anchors.md` → the file.
    pub fn record(&self, folder: &Path, lines: &[Value], text: &str) -> Result<PathBuf, Problem> {
        let ours = lines.iter().find(|l| l["row"].is_string()).unwrap_or(&Value::Null);
        let time = ours["time"].as_u64().unwrap_or(0);
        let folder = folder.join(slug(ours["device"].as_str().unwrap_or("unknown")));
        let stamp = date_and_time(time);
        let path = folder.join(format!("{}-anchors.md", &stamp[..10]));
        let failed = |e: std::io::Error| {
            Problem::input(
                format!("cannot write {}: {e}", path.display()),
                "choose another folder with --record",
            )
        };
        fs::create_dir_all(&folder).map_err(failed)?;
        let mut all = match fs::read_to_string(&path) {
            Ok(before) => before + "\n",
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                format!("# Anchors, {}\n\nWritten by `rambutan bench --compare --record`.\n\n", &stamp[..10])
            }
            Err(e) => return Err(failed(e)),
        };
        let _ = write!(all, "## {} UTC\n\n{text}", &stamp[11..]);
        fs::write(&path, all).map_err(failed)?;
        Ok(path)
    }
}

impl Peer {
    fn open(path: &Path) -> Result<Peer, Problem> {
        let bad = |what: String| {
            Problem::input(
                format!("{}: {what}", path.display()),
                "expected the JSON that peers.py writes, or a list of a burn benchmark's results",
            )
        };
        let bytes = fs::read(path).map_err(|e| bad(e.to_string()))?;
        let json: Value = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        let results = json.as_array().or_else(|| json["results"].as_array());
        let results = results.ok_or_else(|| bad("no list of results".into()))?;
        let mut times = Vec::new();
        for (i, result) in results.iter().enumerate() {
            let part = |key: &str| {
                let found = result[key].as_str().map(str::to_owned);
                found.ok_or_else(|| bad(format!("result {i} has no {key}")))
            };
            let name = [part("name")?, part("shape")?, part("dtype")?].join("|");
            // Device time, where both are there: ours is.
            let ms = ["ms_median", "device_ms", "median_ms"].iter().find_map(|k| result[*k].as_f64());
            let ms = ms.filter(|ms| *ms > 0.0);
            times.push((name, ms.ok_or_else(|| bad(format!("result {i} has no time above 0")))?));
        }
        if times.is_empty() {
            return Err(bad("no results".into()));
        }
        let backend = results[0]["backend"].as_str();
        let version = |key: &str| json[key].as_str().map(|v| format!(" {v}")).unwrap_or_default();
        let written = fs::metadata(path).and_then(|m| m.modified()).ok();
        Ok(Peer {
            kind: if backend.is_some() { "burn" } else { "torch" },
            name: match backend {
                Some(backend) => backend.split('/').next().unwrap_or(backend).to_owned(),
                None => format!("torch{}, Triton{}", version("torch"), version("triton")),
            },
            file: path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
            device: json["device"].as_str().map(str::to_owned),
            written: written.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_secs()),
            times,
        })
    }
}

/// The lines that an earlier `rambutan bench --json` printed.
pub fn earlier(path: &Path) -> Result<Vec<Value>, Problem> {
    let bad = |what: String| {
        Problem::input(
            format!("{}: {what}", path.display()),
            "expected what `rambutan bench anchors --json` printed",
        )
    };
    let text = fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    lines.map(|(i, l)| serde_json::from_str(l).map_err(|e| bad(format!("line {}: {e}", i + 1)))).collect()
}

/// Three digits that count.
fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{ms:.4}"),
        ms if ms < 100.0 => format!("{ms:.2}"),
        ms => format!("{ms:.0}"),
    }
}

/// A device's name as a folder's: without what drivers add in brackets.
fn slug(device: &str) -> String {
    let name = device.split(" (").next().unwrap_or(device).to_lowercase();
    let parts = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|p| !p.is_empty());
    parts.collect::<Vec<_>>().join("-")
}

/// `2026-11-24 23:40` of seconds since 1970 (Hinnant 2021, "chrono-compatible low-level date algorithms").
fn date_and_time(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * march + 2) / 5 + 1, if march < 10 { march + 3 } else { march - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00"),
            (951_782_399, "2000-02-28 23:59"),
            (951_868_800, "2000-03-01 00:00"),
            (4_107_542_399, "2100-02-28 23:59"),
        ] {
            assert_eq!(date_and_time(seconds), text);
        }
    }

    #[test]
    fn folders() {
        assert_eq!(slug("NVIDIA H100 80GB HBM3"), "nvidia-h100-80gb-hbm3");
        assert_eq!(slug("llvmpipe (LLVM 15.0.6, 256 bits)"), "llvmpipe");
    }
}
