//! `rambutan eval memory`: what the memory of a text takes, by how it is kept and how long the text is.

use std::time::Instant;

use rambutan_engine::{Gpu, gpu::Purpose};
use rambutan_model::{
    Error, Ramba,
    reader::{Answer, Keeping, Landmarks, Placement, Reader},
    tasks::{FactKind, Haystack, STOP},
};
use serde_json::json;

use crate::{
    Device,
    problem::{Problem, print, print_json},
    reading::{self, MAX_TOKENS, Weights, landmarks_in, short, tokens},
};

/// The longest answer, in tokens.
const LONGEST: usize = 16;

/// Reads texts and asks for facts in them, for each way to keep their memory, and prints what the engine counts
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan eval memory --lengths 4096,65536\n  rambutan eval memory --lengths 1048576 --places text --landmarks float,int8 --half --json\n  rambutan eval memory --lengths 4096 --computed 1073741824\n\ntext: bytes of its keys, values and landmarks. reading, asking: the most bytes on the device that tensors held at a time,\nweights included. taken: bytes of all the device's buffers after reading, those kept for reuse included. Software adapters'\ndevice memory is the host's. as floats: of the chunks that the first token of each answer selects, those that landmarks in\nfloats select too, which must be among --landmarks, before others. Rows of --computed are multiplied out from bytes a token,\nand say so."
)]
pub(super) struct Memory {
    #[command(flatten)]
    weights: Weights,
    /// Lengths of the text in tokens
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "4096,65536",
        value_parser = clap::value_parser!(u64).range(1024..=MAX_TOKENS))]
    lengths: Vec<u64>,
    /// Lengths whose bytes are computed, not measured
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1024..=1 << 40))]
    computed: Vec<u64>,
    /// Where keys and values are kept
    #[arg(long, value_name = "PLACE,…", value_delimiter = ',', default_value = "device,host,text,int8")]
    places: Vec<Placement>,
    /// How landmarks are kept
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', default_value = "float,int8")]
    landmarks: Vec<Landmarks>,
    /// Facts to hide and ask for
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    facts: u32,
    /// Draws other facts, places and text
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Prints a line of JSON for each row
    #[arg(long)]
    json: bool,
}

impl Memory {
    pub(super) fn run(&self, device: &Device) -> Result<(), Problem> {
        let checkpoint = self.weights.open()?;
        let gpu = device.open()?;
        let model = self.weights.upload(&gpu, &checkpoint)?;
        let mut warm = Reader::new(&model)?;
        let batch = warm.batch().min(self.lengths.iter().max().map_or(0, |&l| l as usize));
        reading::warm_up(&mut warm, &gpu, batch)?;
        drop(warm);
        if !self.json {
            let c = gpu.capabilities();
            print(&format!("{} · {} · MiB\n\n", c.name, c.backend))?;
            let columns = [
                "tokens",
                "keys, values",
                "landmarks",
                "text, device",
                "text, host",
                "reading",
                "taken",
                "asking",
                "tokens/s",
                "s a question",
                "found",
                "as floats",
            ];
            print(&format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len())))?;
        }
        for &length in &self.lengths {
            let mut hay = Haystack::prose(self.seed, length as usize)?;
            let mut kinds = vec![FactKind::Named; self.facts as usize];
            kinds[self.facts as usize / 2] = FactKind::Plain;
            let needles = hay.plant(&kinds, self.seed)?;
            // What landmarks in floats select.
            let mut exact: Option<Vec<Answer>> = None;
            for keeping in self.ways() {
                gpu.trim();
                gpu.reset_peaks();
                let mut reader = Reader::placed(&model, keeping)?;
                let time = match reading::read(&mut reader, &gpu, hay.text()) {
                    Err(Error::TextTooLong { fit, .. }) => {
                        self.too_long(&model, &reader, length, fit)?;
                        continue;
                    }
                    time => time?.as_secs_f64(),
                };
                let (read, taken) = (gpu.memory().peak, gpu.memory().reserved);
                gpu.reset_peaks();
                let begin = Instant::now();
                let answer = |question: &str| {
                    pollster::block_on(reader.ask(question.as_bytes(), STOP.as_bytes(), LONGEST))
                };
                let answers: Vec<Answer> =
                    needles.iter().map(|n| answer(&n.fact.question)).collect::<Result<_, _>>()?;
                let found =
                    needles.iter().zip(&answers).filter(|(n, a)| n.fact.is_answered_by(&a.text)).count();
                let each = begin.elapsed().as_secs_f64() / needles.len() as f64;
                let asked = gpu.memory().peak;
                let (device, host) = (text_on(&gpu), reader.bytes_of(reader.len())[1]);
                let selected: usize = answers.iter().map(|a| a.selected.len()).sum();
                let same = exact.as_ref().map(|exact| alike(exact, &answers));
                if keeping.landmarks == Landmarks::Float {
                    exact.get_or_insert(answers);
                }
                if self.json {
                    print_json(&json!({
                        "tokens": length, "memory_in": keeping.values.name(), "landmarks": landmarks_in(&reader, &model),
                        "measured": true, "text_device_bytes": device, "text_host_bytes": host,
                        "reading_peak_device_bytes": read, "taken_device_bytes": taken, "asking_peak_device_bytes": asked,
                        "tokens_per_s": length as f64 / time, "seconds_per_question": each, "found": found,
                        "asked": needles.len(), "selected": selected, "selected_as_floats": same,
                        "device": gpu.capabilities().name, "half": self.weights.half,
                    }))?;
                    continue;
                }
                let parts = [
                    tokens(length as usize),
                    keeping.values.name().into(),
                    landmarks_in(&reader, &model).into(),
                    mib(device),
                    mib(host as u64),
                    mib(read),
                    mib(taken),
                    mib(asked),
                    short(length as f64 / time),
                    format!("{each:.2}"),
                    format!("{found} of {}", needles.len()),
                    same.map_or_else(String::new, |same| format!("{same} of {selected}")),
                ];
                print(&format!("| {} |\n", parts.join(" | ")))?;
            }
        }
        for &length in &self.computed {
            for keeping in self.ways() {
                let reader = Reader::placed(&model, keeping)?;
                let [device, host] = reader.bytes_of(length as usize);
                if self.json {
                    print_json(&json!({
                        "tokens": length, "memory_in": keeping.values.name(), "landmarks": landmarks_in(&reader, &model),
                        "measured": false, "text_device_bytes": device, "text_host_bytes": host,
                        "half": self.weights.half,
                    }))?;
                    continue;
                }
                print(&format!(
                    "| {}, computed | {} | {} | {} | {} | | | | | | | |\n",
                    tokens(length as usize),
                    keeping.values,
                    landmarks_in(&reader, &model),
                    mib(device as u64),
                    mib(host as u64)
                ))?;
            }
        }
        Ok(())
    }

    /// All that was asked for.
    fn ways(&self) -> impl Iterator<Item = Keeping> + '_ {
        let of = |&landmarks| self.places.iter().map(move |&values| Keeping { values, landmarks });
        self.landmarks.iter().flat_map(of)
    }

    /// A row of what the device has no room for.
    fn too_long(&self, model: &Ramba, reader: &Reader<'_>, length: u64, fit: usize) -> Result<(), Problem> {
        let Keeping { values, .. } = reader.keeping();
        let landmarks = landmarks_in(reader, model);
        if self.json {
            return print_json(&json!({
                "tokens": length, "memory_in": values.name(), "landmarks": landmarks, "measured": true, "fit": fit,
            }));
        }
        let row =
            format!("| {} | {values} | {landmarks} | no room | | | | | | | | |\n", tokens(length as usize));
        print(&row)
    }
}

/// Chunks that both selected, question by question.
fn alike(exact: &[Answer], answers: &[Answer]) -> usize {
    let both = |(exact, answer): (&Answer, &Answer)| {
        answer
            .selected
            .iter()
            .filter(|(chunk, _)| exact.selected.iter().any(|(other, _)| other == chunk))
            .count()
    };
    exact.iter().zip(answers).map(both).sum()
}

/// Bytes of texts that the device holds.
fn text_on(gpu: &Gpu) -> u64 {
    gpu.memory().by_purpose.iter().filter(|p| p.0 == Purpose::Memory).map(|p| p.1).sum()
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}
