//! The model as a whole, against a trained checkpoint and the logits of an f64 forward pass.

use std::path::{Path, PathBuf};

use rambutan_engine::{DType, Tensor, no_grad, ops, testing};
use rambutan_model::{
    Checkpoint, Config, Ramba,
    chunking::Memory,
    config::TokenMixer,
    ramba::{Brought, Options, Pass, Sharing},
};

/// A folder beside a developer's checkout; a stranger's clone has none, and then this passes with a note.
fn recipe() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/recipe");
    let found = folder.join("weights.safetensors").exists();
    if !found {
        println!("no recipe folder: nothing to compare with");
    }
    found.then_some(folder)
}

/// The worst error of the logits of recorded texts, relative to the largest logit of each.
fn recorded_logits(folder: &Path, half: bool) -> f64 {
    let checkpoint = Checkpoint::open(folder.join("weights.safetensors")).expect("the checkpoint reads");
    let gpu = testing::gpu();
    let options = Options { half, ..Options::default() };
    let model = Ramba::with(&gpu, &checkpoint, options).expect("it uploads");
    let bytes = std::fs::read(folder.join("sample.safetensors")).expect("the sample reads");
    let sample = safetensors::SafeTensors::deserialize(&bytes).expect("it parses");
    let words = |name: &str| -> Option<Vec<[u8; 4]>> {
        let view = sample.tensor(name).ok()?;
        Some(view.data().chunks_exact(4).map(|b| b.try_into().expect("four bytes")).collect())
    };
    let mut all = 0.0f64;
    for text in 0.. {
        let Some(ids) = words(&format!("{text}.input_ids")) else { break };
        let ids: Vec<u32> = ids.into_iter().map(u32::from_le_bytes).collect();
        let logits: Vec<f64> = words(&format!("{text}.logits_last96"))
            .expect("logits")
            .into_iter()
            .map(|b| f32::from_le_bytes(b).into())
            .collect();
        let tokens = ids.len();
        let ids = Tensor::from_slice(&gpu, &ids, [1, tokens]).expect("ids fill their shape");
        let got = no_grad(|| {
            let segment = model.regular_segments(1, tokens, 0).expect("segments upload");
            model.forward(&ids, segment.as_ref(), &Sharing::default())
        });
        let got = read(&got);
        let last = &got[got.len() - logits.len()..];
        let largest = logits.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let worst = last.iter().zip(&logits).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / largest;
        println!("text {text}: {tokens} tokens, worst error {worst:.1e}, norm {:.1e}", error(last, &logits));
        all = all.max(worst);
    }
    all
}

#[test]
fn trained_weights_give_the_recorded_logits() {
    let Some(folder) = recipe() else { return };
    let worst = recorded_logits(&folder, false);
    // What f32 leaves of a whole model: elsewhere measured as 2e-6, ten times that is allowed.
    assert!(worst < 2e-5, "{worst:.1e} of the largest logit");
}

#[test]
fn trained_weights_give_the_recorded_logits_in_half_precision() {
    let (Some(folder), true) = (recipe(), half()) else { return };
    let worst = recorded_logits(&folder, true);
    // A rounding to f16 is off by 2⁻¹¹ at most, 3e-4 on average. A logit sees some ten in a row and the sums over layers
    // of others: 1e-3 if they are independent, as measured; five times that is allowed.
    assert!(worst < 5e-3, "{worst:.1e} of the largest logit");
}

/// Whether the adapter has f16; where it has not, half precision passes with a note.
fn half() -> bool {
    let found = testing::gpu().capabilities().f16;
    if !found {
        println!("no f16: no half precision to test");
    }
    found
}

fn read(x: &Tensor) -> Vec<f64> {
    testing::read(x).expect("it reads").data
}

/// ‖a − b‖ / ‖b‖.
fn error(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "as many numbers");
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// A model with everything in it, small. Each token selects all chunks it sees: with fewer slots, scores that lie close
/// could choose other chunks in another precision, and that is no error.
fn small() -> Checkpoint {
    let config = Config::from_json(
        r#"{"model_type": "ramba", "vocab_size": 97, "hidden_size": 64, "expand": 2, "head_dim": 16, "num_heads": 8,
        "state_size": 16, "n_groups": 1, "conv_kernel": 4, "num_lower_layers": 1, "num_upper_layers": 2,
        "num_upper_groups": 1, "num_mamba_per_gca": 1, "chunk_size": 16, "encoder_layers": 1, "num_attention_heads": 4,
        "encoder_num_attention_heads": 4, "encoder_num_key_value_heads": 2, "encoder_intermediate_size": 96,
        "num_kv_heads": 2, "attention_head_dim": 16, "retrieval_dim": 32, "chunk_topk": 8, "enable_qk_norm": true,
        "enable_lmk_norm": true, "segment_size": 64, "segment_at_inference": true, "initializer_range": 0.1}"#,
    )
    .expect("the configuration is valid");
    Checkpoint::initial(config, 5).expect("it is drawn")
}

const BATCH: usize = 2;
const TOKENS: usize = 128;

fn ids() -> Vec<u32> {
    let mut draw = testing::Draw::new(3);
    (0..BATCH * TOKENS).map(|_| draw.below(97) as u32).collect()
}

/// The slope of the loss along each parameter's own gradient is that gradient's length: with a window of attention as the
/// token mixer, states that restart, and memory above it or none.
#[test]
fn gradients_of_the_window_mixer_are_slopes() {
    let gpu = testing::gpu();
    for (window, hsa) in [(40, true), (1000, false)] {
        let mut checkpoint = small();
        let config = Config {
            token_mixer: TokenMixer::Window,
            window_size: window,
            window_kv_heads: 2,
            enable_hsa: hsa,
            ..checkpoint.config
        };
        checkpoint = Checkpoint::initial(config, 6).expect("it is drawn");
        let ids = ids();
        let targets: Vec<u32> = (0..ids.len()).map(|i| ids[(i * 7 + 1) % ids.len()]).collect();
        let segment: Vec<u32> = (0..ids.len()).map(|i| (i % TOKENS / 30) as u32 % 2).collect();
        let loss = |checkpoint: &Checkpoint, trained: bool| {
            let model = Ramba::new(&gpu, checkpoint, trained).expect("it uploads");
            let [ids, targets, segment] = [&ids, &targets, &segment]
                .map(|v| Tensor::from_slice(&gpu, v, [BATCH, TOKENS]).expect("they fill"));
            let weights = Tensor::full(&gpu, [BATCH, TOKENS], DType::F32, 1.0 / (BATCH * TOKENS) as f64);
            let loss = model.loss(&ids, Some(&segment), &Sharing::default(), &targets, &weights, None).total;
            (model, loss)
        };
        let (model, at) = loss(&checkpoint, true);
        at.backward_from(&Tensor::full(&gpu, [1], DType::F32, 1.0));
        let mut mixers = 0;
        for (name, parameter) in
            model.parameters().iter().filter(|(name, _)| name.starts_with("backbone.layers.0."))
        {
            let gradient = read(&parameter.grad().unwrap_or_else(|| panic!("{name} got no gradient")));
            let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
            // A change of the loss that f32 tells apart, and that is still straight.
            let h = 5e-3 / length;
            let [up, down] = [h, -h].map(|h| {
                let mut moved = checkpoint.clone();
                let data = &mut moved.tensors.get_mut(name).expect("it is there").data;
                for (value, g) in data.iter_mut().zip(&gradient) {
                    *value += (h * g / length) as f32;
                }
                read(&loss(&moved, false).1)[0]
            });
            let slope = (up - down) / (2.0 * h);
            println!("window {window}: {name}: {slope:.6} and {length:.6}");
            assert!((slope - length).abs() < 3e-3 * length, "{name}: {slope} and {length}");
            mixers += 1;
        }
        assert_eq!(mixers, 3, "a norm and two matrices");
    }
}

/// One step, forward and backward from a loss scale: logits, then each parameter's gradient, unscaled.
fn step(half: bool, scale: f64) -> Vec<(String, Vec<f64>)> {
    let gpu = testing::gpu();
    let model = Ramba::with(&gpu, &small(), Options { trained: true, half }).expect("it uploads");
    let ids = ids();
    let targets: Vec<u32> = (0..ids.len()).map(|i| ids[(i + 1) % ids.len()]).collect();
    let [ids, targets] =
        [ids, targets].map(|v| Tensor::from_slice(&gpu, &v, [BATCH, TOKENS]).expect("they fill"));
    let weights = Tensor::full(&gpu, [BATCH, TOKENS], DType::F32, 1.0 / (BATCH * TOKENS) as f64);
    let logits = no_grad(|| model.forward(&ids, None, &Sharing::default()));
    let loss = model.loss(&ids, None, &Sharing::default(), &targets, &weights, None).total;
    loss.backward_from(&Tensor::full(&gpu, [1], DType::F32, scale));
    let mut all = vec![("logits".to_owned(), read(&logits))];
    all.extend(model.parameters().iter().map(|(name, p)| {
        let grad = read(&p.grad().unwrap_or_else(|| panic!("{name} got no gradient")));
        (name.to_owned(), grad.into_iter().map(|g| g / scale).collect())
    }));
    all
}

#[test]
fn half_precision_gives_the_gradients_of_single() {
    if !half() {
        return;
    }
    let single = step(false, 1.0);
    for scale in [10, 16].map(|power| 2f64.powi(power)) {
        for ((name, got), (_, expected)) in step(true, scale).iter().zip(&single) {
            let error = error(got, expected);
            println!("scale {scale}: {name}: {error:.1e}");
            // Forward and back some fifty roundings to f16, 3e-4 each on average: 2e-3 if they are independent, as measured.
            assert!(error < 1e-2, "{name} at a loss scale of {scale}: {error:.1e}");
        }
    }
}

#[test]
fn a_step_in_half_precision_is_the_same_twice() {
    if half() {
        let bits = |v: &[f64]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        for ((name, a), (_, b)) in step(true, 1024.0).iter().zip(&step(true, 1024.0)) {
            assert!(bits(a) == bits(b), "{name} differs between two runs");
        }
    }
}

#[test]
fn half_precision_reads_and_continues_as_it_goes_forward() {
    if !half() {
        return;
    }
    let gpu = testing::gpu();
    let model =
        Ramba::with(&gpu, &small(), Options { half: true, ..Options::default() }).expect("it uploads");
    let ids = ids();
    let upload = |ids: &[u32], rows: usize| {
        Tensor::from_slice(&gpu, ids, [rows, ids.len() / rows]).expect("they fill")
    };
    no_grad(|| {
        let segment = model.regular_segments(1, TOKENS, 0).expect("segments upload");
        let whole = read(&model.forward(&upload(&ids[..TOKENS], 1), segment.as_ref(), &Sharing::default()));
        // The first segment from memory, the second behind it.
        let memory = model.remember_segments(&upload(&ids[..64], 1), 0);
        assert_eq!(memory.k.dtype(), DType::F16, "memory is kept in half precision");
        let (mut cache, after) = (model.cache_at(64), upload(&ids[64..TOKENS], 1));
        let mut passage = model.set_out(&cache, &after, TOKENS - 64, false);
        let (landmarks, mut brought) = ([memory.landmarks.clone().into()], None);
        let logits = loop {
            match model.pass(&mut passage, &mut cache, &landmarks, brought.take()) {
                Pass::Over(selected) => break read(&selected.logits),
                Pass::Seeks => unreachable!("it goes alone"),
                Pass::Wants(indices) => {
                    let all = [Some(&memory), cache.memory()];
                    let [k, v] = [|m: &Memory| m.k.clone(), |m: &Memory| m.v.clone()].map(|pick| {
                        let pages = all.iter().flatten().map(|m| pick(m));
                        let pages: Vec<Tensor> = pages.map(|x| x.reshape(&x.shape()[1..])).collect();
                        let pages: Vec<&Tensor> = pages.iter().collect();
                        ops::gather_chunks(&pages, &indices, small().config.chunk_size)
                    });
                    brought = Some(Brought { k, v });
                }
            }
        };
        let behind = error(&logits, &whole[whole.len() - logits.len()..]);
        // The same without restarts, in uneven parts down to single tokens.
        let whole = read(&model.forward(&upload(&ids[..TOKENS], 1), None, &Sharing::default()));
        let (mut cache, mut first, mut logits) = (model.cache(), 0, Vec::new());
        for tokens in [50, 1, 1, 46, 30] {
            logits.extend(read(&model.extend(&mut cache, &upload(&ids[first..first + tokens], 1), None)));
            first += tokens;
        }
        let extended = error(&logits, &whole);
        println!("behind memory {behind:.1e}, in parts {extended:.1e}");
        // Sums in another order round some activations to a neighbour in f16.
        assert!(behind < 2e-3 && extended < 2e-3, "behind memory {behind:.1e}, in parts {extended:.1e}");
    });
}

/// A sequence's logits are the same bits alone, in company, and whatever the company says.
#[test]
fn logits_do_not_depend_on_the_batch() {
    let gpu = testing::gpu();
    for half in [false, half()] {
        let model = Ramba::with(&gpu, &small(), Options { trained: false, half }).expect("it uploads");
        let tokens = 150;
        let text = |seed: u32| (0..tokens as u32).map(move |t| (t * (7 + seed) + seed * 31) % 97);
        let logits = |seeds: &[u32]| {
            let ids: Vec<u32> = seeds.iter().flat_map(|&s| text(s)).collect();
            let ids = Tensor::from_slice(&gpu, &ids, [seeds.len(), tokens]).expect("ids fill their shape");
            read(&no_grad(|| model.forward(&ids, None, &Sharing::default())))
        };
        let (alone, size) = (logits(&[1]), tokens * 97);
        for (company, place) in [(&[1, 2][..], 0), (&[2, 3, 1], 2), (&[5, 1, 5, 4, 6, 2, 9], 1)] {
            let all = logits(company);
            assert!(
                all[place * size..][..size] == alone,
                "sequence {place} of {} in half {half}",
                company.len()
            );
        }
    }
}
