//! Decoding is the full forward pass, however a text is cut: any prefill, any pieces, token by token, with restarts at
//! any place and several texts at once.

use rambutan_engine::{
    Gpu, Tensor, no_grad, ops,
    testing::{self, Draw},
};
use rambutan_model::{
    Checkpoint, Config, Ramba,
    config::ParameterKind,
    ramba::{Cache, Sharing},
};
use rambutan_tests::golden::read;
use serde_json::{Value, json};

/// Small models, one for each way that options can matter to a cache. Chunks are short, so that short texts have many.
fn configs() -> Vec<(&'static str, Config)> {
    let config = |name, keys: Value| {
        let mut all = json!({
            "vocab_size": 31, "hidden_size": 32, "head_dim": 16, "state_size": 8, "num_lower_layers": 1,
            "num_upper_layers": 2, "num_attention_heads": 4, "num_kv_heads": 2, "chunk_size": 8, "chunk_topk": 2,
        });
        all.as_object_mut().expect("an object").extend(keys.as_object().expect("an object").clone());
        (name, Config::from_json(&all.to_string()).unwrap_or_else(|e| panic!("{name}: {e}")))
    };
    vec![
        config("plain", json!({})),
        config(
            "encoder, groups, softmax",
            json!({
                "encoder_layers": 1, "encoder_intermediate": 32, "num_upper_groups": 2, "enable_softmax": true,
                "enable_pos_decay": true, "enable_qk_norm": true, "singlehead_retrieval": true,
                "tie_word_embeddings": true,
            }),
        ),
        config(
            "window, landmark norms, off by one",
            json!({
                "mask_slide_window": true, "slide_window": 11, "enable_lmk_norm": true, "enable_softmax1": true,
                "num_mamba_per_gca": 2, "chunk_topk": 5,
            }),
        ),
        config(
            "window of a chunk less one, state groups",
            json!({
                "mask_slide_window": true, "slide_window": 7, "n_groups": 2, "gated_norm_groups": 2,
                "conv_kernel": 3, "time_step_limit": [0.01, 0.5],
            }),
        ),
        config(
            "attention over a window",
            json!({"token_mixer": "window", "window_size": 11, "window_kv_heads": 2, "chunk_topk": 3}),
        ),
        config(
            "full attention, no memory",
            json!({"token_mixer": "window", "window_size": 1000, "enable_hsa": false}),
        ),
        config("no memory", json!({"enable_hsa": false})),
    ]
}

/// Weights as they are after training: nothing is neutral, and what is retrieved matters.
fn model(gpu: &Gpu, config: &Config, seed: u64, trained: bool) -> Ramba {
    let mut checkpoint = Checkpoint::initial(config.clone(), seed).expect("the configuration is valid");
    let mut draw = Draw::new(seed);
    for spec in config.parameters() {
        let tensor = checkpoint.tensors.get_mut(&spec.name).expect("every parameter is there");
        let spread = match spec.kind {
            ParameterKind::Matrix => 1.5 / (spec.shape[1] as f64).sqrt(),
            ParameterKind::Embedding | ParameterKind::Cls => 1.0,
            _ => 0.2,
        };
        for v in &mut tensor.data {
            *v += (spread * draw.gauss()) as f32;
        }
    }
    Ramba::new(gpu, &checkpoint, trained).expect("it uploads")
}

/// Random ids (batch, tokens), and segment numbers that change at random places, of each text its own.
fn text(model: &Ramba, draw: &mut Draw, batch: usize, tokens: usize) -> (Vec<u32>, Vec<u32>) {
    let ids = (0..batch * tokens).map(|_| draw.below(model.config.vocab_size) as u32).collect();
    let mut segment = 0;
    let mut next = |i: usize| {
        // Numbers need not grow, only differ.
        segment = if i.is_multiple_of(tokens) { 3 } else { (segment + u32::from(draw.below(9) == 0)) % 4 };
        segment
    };
    (ids, (0..batch * tokens).map(&mut next).collect())
}

/// Columns `from..to` of rows of `tokens` numbers, on the device.
fn columns(gpu: &Gpu, rows: &[u32], tokens: usize, from: usize, to: usize) -> Tensor {
    let part: Vec<u32> = rows.chunks(tokens).flat_map(|row| row[from..to].to_vec()).collect();
    Tensor::from_slice(gpu, &part, [rows.len() / tokens, to - from]).expect("as many numbers as places")
}

/// The logits (batch, tokens, vocabulary) of a text read in pieces that end at `cuts`.
fn decoded(
    model: &Ramba,
    ids: &[u32],
    segment: Option<&[u32]>,
    tokens: usize,
    cuts: &[usize],
) -> (Tensor, Cache) {
    let mut cache = model.cache();
    let batch = ids.len() / tokens;
    let mut from = 0;
    let mut parts = Vec::new();
    for &to in cuts {
        let part = |rows: &[u32]| columns(model.gpu(), rows, tokens, from, to);
        let logits = model.extend(&mut cache, &part(ids), segment.map(part).as_ref());
        parts.push(logits.reshape([batch, logits.len() / batch]));
        from = to;
    }
    (ops::concat_columns(&parts.iter().collect::<Vec<_>>()), cache)
}

/// The largest difference, relative to the largest value.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (read(a).expect("it reads"), read(b).expect("it reads"));
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    a.iter().zip(&b).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / largest
}

/// What f32 leaves of a whole model is 2·10⁻⁶ of the largest logit; ten times that is allowed, as for golden files.
const ALLOWED: f64 = 2e-5;

#[test]
fn any_split_gives_the_full_forward_pass() {
    let gpu = testing::gpu();
    let mut draw = Draw::new(11);
    for (i, (name, config)) in configs().into_iter().enumerate() {
        let model = model(&gpu, &config, i as u64, false);
        for (batch, restarts) in [(1, false), (3, true), (2, false), (1, true)] {
            let tokens = 20 + draw.below(45);
            let (ids, segment) = text(&model, &mut draw, batch, tokens);
            let segment = restarts.then_some(segment.as_slice());
            let whole = |rows: &[u32]| columns(&gpu, rows, tokens, 0, tokens);
            // Long pieces first, then short ones, then single tokens.
            let mut cuts: Vec<usize> = Vec::new();
            let mut at = draw.below(tokens / 2);
            while at < tokens {
                if at > 0 {
                    cuts.push(at);
                }
                at += if at < tokens * 2 / 3 { 1 + draw.below(5) } else { 1 };
            }
            cuts.push(tokens);
            no_grad(|| {
                let full = model.forward(&whole(&ids), segment.map(whole).as_ref(), &Sharing::default());
                let (pieces, cache) = decoded(&model, &ids, segment, tokens, &cuts);
                let error = difference(&pieces, &full);
                println!("{name}: {batch} × {tokens} tokens in {} pieces: {error:.1e}", cuts.len());
                assert!(error < ALLOWED, "{name}, restarts {restarts}: {error:.1e} with cuts at {cuts:?}");
                // What is carried on is that of one call too.
                let (_, once) = decoded(&model, &ids, segment, tokens, &[tokens]);
                assert_eq!((cache.position, once.position), (tokens, tokens));
                for (a, b) in cache.states.iter().zip(&once.states) {
                    let (a, b) = (a.as_ref().expect("it has read"), b.as_ref().expect("it has read"));
                    let pairs = a.tensors().into_iter().zip(b.tensors());
                    let error = pairs.map(|(a, b)| difference(a, b)).fold(0.0, f64::max);
                    assert!(error < ALLOWED, "{name}: states differ by {error:.1e} with cuts at {cuts:?}");
                }
            });
        }
    }
}

/// Every length of prefill, around all edges of chunks, convolution and window.
#[test]
fn any_prefill_gives_the_full_forward_pass() {
    let gpu = testing::gpu();
    let mut draw = Draw::new(12);
    let (tokens, batch) = (19, 2);
    for (i, (name, config)) in configs().into_iter().enumerate() {
        let model = model(&gpu, &config, 100 + i as u64, false);
        let (ids, segment) = text(&model, &mut draw, batch, tokens);
        let whole = |rows: &[u32]| columns(&gpu, rows, tokens, 0, tokens);
        no_grad(|| {
            let full = model.forward(&whole(&ids), Some(&whole(&segment)), &Sharing::default());
            for prefill in 1..tokens {
                // The rest at once where it is two tokens, else token by token.
                let rest = if tokens - prefill == 2 { tokens } else { prefill + 1 };
                let cuts: Vec<usize> = std::iter::once(prefill).chain(rest..=tokens).collect();
                let error = difference(&decoded(&model, &ids, Some(&segment), tokens, &cuts).0, &full);
                assert!(error < ALLOWED, "{name}: {error:.1e} after a prefill of {prefill}");
            }
        });
    }
}

/// A restart forgets states, not memory: what a text says after one depends on its past through chunks alone.
#[test]
fn a_restart_between_calls_is_a_restart() {
    let gpu = testing::gpu();
    let mut draw = Draw::new(13);
    let (_, config) = configs().remove(0);
    let model = model(&gpu, &config, 7, false);
    let (ids, _) = text(&model, &mut draw, 1, 6);
    no_grad(|| {
        // Fewer tokens than a chunk: with a restart nothing of them is left.
        let alone = decoded(&model, &ids[3..], None, 3, &[3]).0;
        let vocabulary = config.vocab_size;
        let last = |logits: &Tensor| ops::split_columns(logits, &[3 * vocabulary, 3 * vocabulary]).remove(1);
        let restarted = decoded(&model, &ids, Some(&[1, 1, 1, 2, 2, 2]), 6, &[3, 4, 6]).0;
        assert!(difference(&last(&restarted), &alone) < ALLOWED);
        let continued = decoded(&model, &ids, Some(&[1; 6]), 6, &[3, 4, 6]).0;
        assert!(difference(&last(&continued), &alone) > 1e-3, "without a restart the past is felt");
    });
}

/// Token by token, a text's logits have the same bits alone and in company.
#[test]
fn a_text_is_decoded_alike_in_any_company() {
    let gpu = testing::gpu();
    let mut draw = Draw::new(14);
    let (tokens, batch) = (19, 3);
    for (i, (name, config)) in configs().into_iter().enumerate() {
        let model = model(&gpu, &config, 200 + i as u64, false);
        let (ids, _) = text(&model, &mut draw, batch, tokens);
        let cuts: Vec<usize> = (1..=tokens).collect();
        no_grad(|| {
            let bits = |ids: &[u32]| -> Vec<u32> {
                let logits = decoded(&model, ids, None, tokens, &cuts).0.to_vec::<f32>().expect("it reads");
                logits.into_iter().map(f32::to_bits).collect()
            };
            let together = bits(&ids);
            let alone: Vec<u32> = ids.chunks(tokens).flat_map(bits).collect();
            assert!(together == alone, "{name}");
        });
    }
}

/// One token with gradients goes through the scan: its parameters learn.
#[test]
fn single_tokens_train() {
    let gpu = testing::gpu();
    let (_, config) = configs().remove(0);
    let model = model(&gpu, &config, 9, true);
    let ids = Tensor::from_slice(&gpu, &[5u32, 9], [2, 1]).expect("two ids");
    let logits = model.forward(&ids, None, &Sharing::default());
    let plain = no_grad(|| model.forward(&ids, None, &Sharing::default()));
    assert!(difference(&plain, &logits) < ALLOWED);
    let seed: Vec<f32> = (0..logits.len()).map(|i| (i % 7) as f32 - 3.0).collect();
    let seed = Tensor::from_slice(&gpu, &seed, logits.shape()).expect("as many numbers as logits");
    logits.backward_from(&seed);
    let moved = |name: &str| {
        let grad = model.parameters().get(name).and_then(Tensor::grad).expect("it is trained");
        read(&grad).expect("it reads").iter().any(|v| *v != 0.0)
    };
    assert!(moved("backbone.layers.0.mixer.dt_bias") && moved("backbone.layers.0.mixer.in_proj.weight"));
}
