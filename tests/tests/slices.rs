//! Work in slices: the same results as at once, whatever the budget, and nothing else is held up or disturbed.

use std::time::Duration;

use pollster::block_on;
use rambutan_engine::{Gpu, GpuOptions, Tensor, ops};
use rambutan_model::{
    Checkpoint, Ramba,
    reader::{Answer, Reader},
    rng::Rng,
};
use rambutan_tests::small::config;

const BUDGETS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(2), Duration::from_secs(60)];

/// A device of its own: what one test keeps back is not for another to submit.
fn gpu() -> Gpu {
    Gpu::new(GpuOptions { checked: true, ..GpuOptions::from_env() }).expect("an adapter")
}

fn model(gpu: &Gpu) -> Ramba {
    let config = config(r#""singlehead_retrieval": true"#);
    let checkpoint = Checkpoint::initial(config, 7).expect("it is valid");
    Ramba::new(gpu, &checkpoint, false).expect("it uploads")
}

fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| rng.below(256) as u8).collect()
}

fn logits(reader: &Reader<'_>) -> Vec<f32> {
    block_on(reader.logits(b"and so?")).expect("the device works")
}

fn at_once<'m>(model: &'m Ramba, text: &[u8]) -> Reader<'m> {
    let mut reader = Reader::new(model).expect("it has segments");
    reader.read(text, |_| {}).expect("it fits");
    reader
}

fn values(x: &Tensor) -> Vec<f32> {
    x.to_vec().expect("the device works")
}

#[test]
fn what_is_kept_back_runs_in_order_and_not_before() {
    let gpu = gpu();
    let floats = |x: &[f32]| Tensor::from_slice(&gpu, x, [x.len()]).expect("it fills its shape");
    let x = floats(&[1.0, 2.0]);
    gpu.submit();
    let submits = gpu.counters().submits;
    let y = gpu.defer(|| (0..100).fold(x.clone(), |y, _| ops::scale(&y, 1.01)));
    assert_eq!(gpu.counters().submits, submits, "nothing is submitted");
    // Uploads take effect before what is kept back, and so must go where none of it reads: it frees many buffers.
    let uploads: Vec<Tensor> = (0..200).map(|i| floats(&[i as f32, -1.0])).collect();
    let mut calls = 0;
    while !gpu.advance(Duration::ZERO).expect("the device works") {
        calls += 1;
    }
    assert!(calls > 1, "it comes in parts");
    let expected = |v: f32| (0..100).fold(v, |v, _| v * 1.01);
    assert_eq!(values(&y), [expected(1.0), expected(2.0)]);
    for (i, upload) in uploads.iter().enumerate() {
        assert_eq!(values(upload), [i as f32, -1.0]);
    }
    // A read submits all of it, and what is recorded later comes after it.
    let y = gpu.defer(|| ops::scale(&x, 2.0));
    let z = ops::scale(&y, 10.0);
    assert_eq!(values(&z), [20.0, 40.0]);
    assert!(gpu.advance(Duration::ZERO).expect("the device works"), "nothing is left");
    // So does a later write to what it reads.
    let y = gpu.defer(|| ops::scale(&x, 3.0));
    x.write(&[5.0f32, 6.0]).expect("it fits");
    assert_eq!((values(&y), values(&x)), (vec![3.0, 6.0], vec![5.0, 6.0]));
}

#[test]
fn a_download_comes_without_waiting() {
    let gpu = gpu();
    let x = Tensor::from_slice(&gpu, &[1.0f32, 2.0], [2]).expect("it fills its shape");
    let mut download = gpu.defer(|| ops::scale(&x, 2.0).download::<f32>()).expect("it records");
    assert_eq!(download.try_take().expect("the device works"), None, "its copy is not submitted");
    let got = loop {
        gpu.advance(Duration::from_millis(1)).expect("the device works");
        if let Some(got) = download.try_take().expect("the device works") {
            break got;
        }
    };
    assert_eq!(got, [2.0, 4.0]);
    // Awaited, it submits by itself.
    let download = gpu.defer(|| ops::scale(&x, 3.0).download::<f32>()).expect("it records");
    assert_eq!(block_on(download).expect("the device works"), [3.0, 6.0]);
    assert!(x.download::<u32>().is_err(), "the type is checked");
    let ticket = gpu.ticket();
    while !gpu.is_done(&ticket) {
        std::thread::yield_now();
    }
}

#[test]
fn a_text_read_in_slices_is_the_text_read_at_once() {
    let gpu = gpu();
    let model = model(&gpu);
    for (first, length) in [(0, 0), (0, 63), (0, 64), (30, 30), (30, 34), (100, 1000), (64, 4096)] {
        let (first, text) = (bytes(1, first), bytes(2, length));
        let expected = logits(&at_once(&model, &[&first[..], &text].concat()));
        for budget in BUDGETS {
            let mut reader = at_once(&model, &first);
            let mut reading = reader.start(&text[..]);
            let mut heard = Vec::new();
            while heard.last() != Some(&text.len()) {
                let progress = reading.step(&mut reader, budget).expect("it reads");
                assert_eq!(progress.total, text.len());
                assert_eq!(progress.is_done(), progress.done == text.len());
                heard.push(progress.done);
            }
            assert!(heard.is_sorted(), "{heard:?}");
            assert!(
                budget > Duration::ZERO || length < 1000 || heard.len() > 10,
                "slices are short: {heard:?}"
            );
            assert_eq!(reader.len(), first.len() + text.len());
            assert_eq!(logits(&reader), expected, "{} + {length} in {budget:?}", first.len());
        }
        let mut reader = at_once(&model, &first);
        let mut last = None;
        block_on(reader.read_in_slices(&text, BUDGETS[1], |p| last = Some(p))).expect("it reads");
        assert!(last.expect("it hears").is_done());
        assert_eq!(logits(&reader), expected, "awaited");
    }
}

#[test]
fn a_reading_can_be_left_and_asked_beside() {
    let gpu = gpu();
    let model = model(&gpu);
    let (first, text) = (bytes(3, 500), bytes(4, 3000));
    let mut reader = at_once(&model, &first);
    let before = logits(&reader);
    let in_use = gpu.memory().in_use;
    for steps in [0, 1, 5, 20] {
        let mut reading = reader.start(text.clone());
        for _ in 0..steps {
            reading.step(&mut reader, Duration::ZERO).expect("it reads");
        }
        assert_eq!(logits(&reader), before, "the memory is as it was, while {steps} steps are done");
        reading.step(&mut reader, Duration::ZERO).expect("it reads on");
        drop(reading);
        assert_eq!((reader.len(), logits(&reader)), (500, before.clone()), "and once it is left");
        assert_eq!(gpu.memory().in_use, in_use, "nothing of it stays");
    }
    // Two at once: questions about what was read before, in the midst of reading.
    let alone = block_on(reader.ask(b"what now?", b"", 8)).expect("it answers");
    let mut reading = reader.start(&text[..]);
    let mut asking = reader.asking(b"what now?", b"", 8).expect("a question");
    while !asking.step(&reader, Duration::from_micros(500)).expect("it answers") {
        reading.step(&mut reader, Duration::from_micros(500)).expect("it reads");
    }
    assert_eq!(*asking.answer(), alone);
    while !reading.step(&mut reader, BUDGETS[1]).expect("it reads").is_done() {}
    assert_eq!(logits(&reader), logits(&at_once(&model, &[first, text].concat())));
}

#[test]
#[should_panic(expected = "other ones than the 500 when this reading began")]
fn a_reading_goes_on_where_it_began() {
    let gpu = gpu();
    let model = model(&gpu);
    let mut reader = at_once(&model, &bytes(3, 500));
    let mut reading = reader.start(bytes(4, 500));
    reader.read(b"more", |_| {}).expect("it reads");
    let _ = reading.step(&mut reader, Duration::ZERO);
}

#[test]
fn an_answer_in_slices_is_the_answer() {
    let gpu = gpu();
    let model = model(&gpu);
    for length in [3, 500, 64 * 40] {
        let reader = at_once(&model, &bytes(5, length));
        let expected = block_on(reader.ask(b"what now?", b"", 12)).expect("it answers");
        for budget in BUDGETS {
            let mut asking = reader.asking(b"what now?", b"", 12).expect("a question").scored();
            let mut said = 0;
            while !asking.step(&reader, budget).expect("it answers") {
                let now = asking.answer().text.len();
                assert!(now >= said && expected.text.starts_with(&asking.answer().text));
                said = now;
            }
            assert!(asking.is_done());
            assert_eq!(*asking.answer(), expected, "{length} in {budget:?}");
        }
        let asking = reader.asking(b"what now?", &expected.text[3..5], 12).expect("a question");
        let stopped: Answer = block_on(reader.ask_in_slices(asking, BUDGETS[1], |_| {})).expect("it answers");
        let whole = block_on(reader.ask(b"what now?", &expected.text[3..5], 12)).expect("it answers");
        assert_eq!(stopped, whole);
    }
}

#[test]
fn every_chunk_has_a_score_and_the_best_are_selected() {
    let gpu = gpu();
    let model = model(&gpu);
    let text = bytes(6, 64 * 30 + 40);
    let reader = at_once(&model, &text);
    let question = b"what of it?";
    let scores = block_on(reader.scores(question)).expect("it answers").expect("there are chunks");
    assert_eq!(
        scores.shape(),
        [(text.len() + question.len()) / 16],
        "each complete chunk, the question's own too"
    );
    let numbers = values(&scores);
    let selected = block_on(reader.ask(question, b"", 1)).expect("it answers").selected;
    let mut best: Vec<usize> = (0..numbers.len()).collect();
    best.sort_by(|a, b| numbers[*b].total_cmp(&numbers[*a]));
    best.truncate(4);
    best.sort_by(|a, b| b.cmp(a));
    assert_eq!(best, selected.iter().map(|s| s.0).collect::<Vec<_>>());
    // Stick-breaking, newest first: each takes the sigmoid's share of what is left.
    let mut left = 1.0;
    for (chunk, weight) in selected {
        let share = left / (1.0 + (-numbers[chunk]).exp());
        assert!((share - weight).abs() < 1e-5, "chunk {chunk}: {share} {weight}");
        left -= share;
    }
    // While an answer is being said, those of the latest token are at hand.
    let mut asking = reader.asking(question, b"", 2).expect("a question").scored();
    assert!(asking.scores().is_none());
    while asking.answer().text.is_empty() {
        asking.step(&reader, Duration::ZERO).expect("it answers");
    }
    assert_eq!(values(asking.scores().expect("asked for")), numbers);
    while !asking.step(&reader, Duration::ZERO).expect("it answers") {}
    assert_eq!(values(asking.first_scores().expect("asked for")), numbers);
    let said = [&question[..], &asking.answer().text[..1]].concat();
    let later = values(&block_on(reader.scores(&said)).expect("it answers").expect("there are chunks"));
    assert_eq!(later.len(), values(asking.scores().expect("asked for")).len());
    for (a, b) in values(asking.scores().expect("asked for")).iter().zip(&later) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    // No chunks, no scores.
    let short = at_once(&model, b"abc");
    assert!(block_on(short.scores(b"?")).expect("it answers").is_none());
}
