//! What the host does alone: shapes of a model, checkpoints, texts.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rambutan_model::{
    Checkpoint, Config,
    checkpoint::Precision,
    data::{Prose, TextStream},
};

/// Names, shapes and roles of all parameters, and the layers they belong to.
fn shapes(c: &mut Criterion) {
    let config = Config::ramba_370m();
    let json = config.to_json();
    c.bench_function("shapes/370m_parameters", |b| b.iter(|| black_box(&config).parameters()));
    c.bench_function("shapes/370m_configuration", |b| {
        b.iter(|| Config::from_json(black_box(&json)).expect("it was valid"));
    });
}

/// The small model's 3.2 million parameters, from bytes in memory.
fn checkpoints(c: &mut Criterion) {
    let checkpoint = Checkpoint::initial(Config::small(), 1).expect("a valid configuration");
    let mut group = c.benchmark_group("checkpoint");
    for (name, precision) in [("f32", Precision::F32), ("f16", Precision::F16)] {
        let bytes = checkpoint.to_bytes(precision).expect("it fits memory");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("read_{name}"), |b| {
            b.iter(|| Checkpoint::from_bytes(black_box(&bytes)).expect("it was written whole"));
        });
    }
    group.finish();
}

/// The texts that training and evaluation hide facts in.
fn texts(c: &mut Criterion) {
    let mut group = c.benchmark_group("prose");
    let length = 1 << 20;
    group.throughput(Throughput::Bytes(length as u64));
    group.bench_function("1MiB", |b| b.iter(|| Prose::new(black_box(7)).text(length)));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = shapes, checkpoints, texts
}
criterion_main!(benches);
