//! What recording costs the host: a training step of a small model, its optimizer with it, from the first call to the
//! last submit. Nothing waits for the device inside what is timed; software Vulkan works on the same cores, so that times
//! there are upper bounds.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use rambutan_engine::{
    DType, Gpu, GpuOptions, Tensor, no_grad,
    optim::{AdamW, AdamWOptions},
};
use rambutan_model::{Checkpoint, Config, Ramba, ramba::Sharing};

/// The small model's layers, so narrow that any device is soon done with them: recording does not depend on widths.
fn narrow() -> Config {
    Config {
        hidden_size: 32,
        head_dim: 16,
        num_heads: 4,
        state_size: 16,
        chunk_size: 16,
        encoder_intermediate_size: 32,
        attention_head_dim: 16,
        num_attention_heads: 2,
        retrieval_dim: 16,
        segment_size: Some(64),
        ..Config::small()
    }
}

/// Times `record` alone, which submits, without the wait behind it.
fn recording(c: &mut Criterion, name: &str, gpu: &Gpu, record: &mut dyn FnMut()) {
    let mut once = || {
        let begin = Instant::now();
        record();
        let time = begin.elapsed();
        gpu.wait().expect("the device works");
        time
    };
    // The first ones compile kernels and fill the pool.
    for _ in 0..4 {
        once();
    }
    c.bench_function(name, |b| b.iter_custom(|count| (0..count).map(|_| once()).sum::<Duration>()));
}

fn step(c: &mut Criterion) {
    let gpu = match Gpu::new(GpuOptions::from_env()) {
        Ok(gpu) => gpu,
        Err(e) => return println!("recording: skipped, {e}"),
    };
    let config = narrow();
    config.validate().expect("a narrow model is one");
    let checkpoint = Checkpoint::initial(config, 1).expect("a valid configuration");
    let model = Ramba::new(&gpu, &checkpoint, true).expect("a small model fits");
    let mut optimizer = AdamW::new(model.parameters(), AdamWOptions::default());
    let words: Vec<u32> = (0..128).map(|i| i % 97).collect();
    let ids = Tensor::from_slice(&gpu, &words, [1, 128]).expect("it fills its shape");
    let weights = Tensor::full(&gpu, [1, 128], DType::F32, 1.0 / 128.0);
    let mut record = || {
        let loss = model.loss(&ids, None, &Sharing::default(), &ids, &weights, None).total;
        loss.backward();
        optimizer.step(model.parameters(), 1e-3);
        gpu.submit();
    };
    recording(c, "recording/training_step", &gpu, &mut record);
    // A token of a model that writes, of the published one's layers.
    let config = Config {
        vocab_size: 256,
        hidden_size: 32,
        head_dim: 16,
        num_heads: 4,
        state_size: 16,
        chunk_size: 16,
        encoder_intermediate_size: 32,
        attention_head_dim: 16,
        num_attention_heads: 2,
        encoder_num_attention_heads: 2,
        encoder_num_key_value_heads: 2,
        retrieval_dim: 16,
        segment_size: None,
        ..Config::ramba_370m()
    };
    config.validate().expect("a narrow model is one");
    let checkpoint = Checkpoint::initial(config, 1).expect("a valid configuration");
    let model = Ramba::new(&gpu, &checkpoint, false).expect("a narrow model fits");
    let mut cache = model.cache();
    no_grad(|| {
        let prompt = Tensor::from_slice(&gpu, &words[..64], [1, 64]).expect("it fills its shape");
        model.extend_to_last(&mut cache, &prompt, None);
        let word = Tensor::from_slice(&gpu, &words[..1], [1, 1]).expect("it fills its shape");
        let mut record = || {
            drop(model.extend_to_last(&mut cache, &word, None));
            gpu.submit();
        };
        recording(c, "recording/token", &gpu, &mut record);
    });
    // What every op does on the way: other shapes over the same elements, rows of them.
    let x = Tensor::zeros(&gpu, [64, 128, 16], DType::F32);
    c.bench_function("shapes/reshape_and_view", |b| {
        b.iter(|| {
            let y = black_box(&x).reshape([64 * 128, 16]);
            (y.rows_by_last(), y.view_rows(64..128).map(|v| v.len()))
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = step
}
criterion_main!(benches);
