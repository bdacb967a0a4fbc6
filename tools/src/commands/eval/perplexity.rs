//! `rambutan eval perplexity`.

use rambutan_engine::Gpu;
use rambutan_model::{Ramba, reader::Reader};
use serde_json::json;

use super::Setup;
use crate::{
    Device,
    problem::{Problem, print, print_json},
    reading,
};

/// Measures how well text is foretold after contexts of several lengths
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rambutan eval perplexity --lengths 4096,65536\n  rambutan eval perplexity --text book.txt --lengths 1024,4096,16384 --trials 8 --json\n  rambutan eval perplexity --no-hsa --lengths 4096\n\nThe same bytes are foretold at every length, the --last of stretches spread over the text; what changes is how much was\nread before them. nats: mean cross entropy of a byte; perplexity: its exponential. A text that is too short is refused:\nrepeated in pieces it would foretell itself."
)]
pub(super) struct Perplexity {
    #[command(flatten)]
    setup: Setup,
    /// Bytes foretold at the end of each stretch
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..=65536))]
    last: u32,
}

impl Perplexity {
    pub(super) fn run(&self, device: &Device) -> Result<(), Problem> {
        let (setup, last) = (&self.setup, self.last as usize);
        let longest = setup.lengths.iter().max().map_or(0, |&l| l as usize);
        if let Some(short) = setup.lengths.iter().find(|&&l| l <= u64::from(self.last)) {
            return Err(Problem::input(
                format!("--lengths {short}: nothing stands before the last {last} bytes"),
                "choose longer lengths or a smaller --last",
            ));
        }
        let (text, gpu, model, _) = setup.open(device)?;
        // Room for stretches that do not foretell the same bytes.
        let trials = setup.trials as usize;
        let need = longest + (trials - 1) * last;
        let text = match text {
            Some(text) if text.len() < need => {
                return Err(Problem::input(
                    format!(
                        "the text has {} bytes; {trials} stretches up to {longest} need {need}",
                        text.len()
                    ),
                    "give a longer --text, or fewer --trials or shorter --lengths",
                ));
            }
            Some(text) => text,
            None => setup.hay(None, (4 * need).min(need + (64 << 20)))?.text(),
        };
        if !setup.json {
            let c = gpu.capabilities();
            print(&format!(
                "{} · {}\n\n{:>12} {:>7} {:>8} {:>11}\n",
                c.name, c.backend, "length", "trials", "nats", "perplexity"
            ))?;
        }
        for &length in &setup.lengths {
            let bar = reading::bar("reading", trials);
            let mut sum = 0.0;
            for trial in 0..trials {
                // The ends are spread over all places that leave the longest context before them.
                let free = text.len() - longest;
                let end = longest + if trials > 1 { free * trial / (trials - 1) } else { free };
                sum += nats(&model, &text[end - length as usize..end], last)?;
                bar.inc(1);
            }
            bar.finish_and_clear();
            self.report(&gpu, length, sum / trials as f64)?;
        }
        Ok(())
    }

    fn report(&self, gpu: &Gpu, length: u64, nats: f64) -> Result<(), Problem> {
        let (setup, c) = (&self.setup, gpu.capabilities());
        if setup.json {
            return print_json(&json!({
                "length": length, "trials": setup.trials, "last": self.last, "nats": nats, "perplexity": nats.exp(),
                "device": c.name, "backend": c.backend, "seed": setup.seed, "hsa": !setup.no_hsa,
                "random": setup.random, "half": setup.weights.half,
            }));
        }
        print(&format!("{length:>12} {:>7} {nats:>8.4} {:>11.3}\n", setup.trials, nats.exp()))
    }
}

/// Mean cross entropy of the last bytes of `text` after all before them, in nats.
fn nats(model: &Ramba, text: &[u8], last: usize) -> Result<f64, Problem> {
    let (context, foretold) = text.split_at(text.len() - last);
    // The first of them is foretold by the byte before.
    let (context, before) = context.split_at(context.len() - 1);
    let mut reader = Reader::new(model)?;
    reader.read(context, |_| ())?;
    let fed = [before, &foretold[..last - 1]].concat();
    let logits = pollster::block_on(reader.logits(&fed))?;
    let rows = logits.chunks(model.config.vocab_size);
    Ok(rows.zip(foretold).map(|(row, &byte)| cross_entropy(row, byte)).sum::<f64>() / last as f64)
}

fn cross_entropy(logits: &[f32], byte: u8) -> f64 {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - most).exp()).sum();
    sum.ln() - f64::from(logits[usize::from(byte)] - most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_is_that_of_the_softmax() {
        let mut logits = [0.0; 256];
        assert!((cross_entropy(&logits, 7) - 256f64.ln()).abs() < 1e-12);
        logits[7] = 100.0;
        assert!(cross_entropy(&logits, 7) < 1e-12 && (cross_entropy(&logits, 8) - 100.0).abs() < 1e-9);
        // p = 1/2, where two share everything.
        logits = [-1e30; 256];
        (logits[1], logits[2]) = (5.0, 5.0);
        assert!((cross_entropy(&logits, 1) - 2f64.ln()).abs() < 1e-6);
    }
}
