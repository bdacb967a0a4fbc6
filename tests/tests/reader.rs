//! Reading by segments against one forward pass with the same restarts.

use pollster::block_on;
use rambutan_engine::{Gpu, GpuOptions, Tensor, no_grad, ops, testing};
use rambutan_model::{
    Checkpoint, Error, Ramba,
    chunking::Memory,
    generate::{Generator, Sampling},
    ramba::{Brought, Options, Pass, Sharing},
    reader::{Reader, States},
    rng::Rng,
    tasks::{FactKind, Haystack, Needle},
    tokens::Tokenizer,
};
use rambutan_tests::small::config;

const SEGMENT: usize = 64;
const CHUNK: usize = 16;

fn model(gpu: &Gpu, changes: &str) -> Ramba {
    let checkpoint = Checkpoint::initial(config(changes), 7).expect("it is valid");
    Ramba::new(gpu, &checkpoint, false).expect("it uploads")
}

fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| rng.below(256) as u8).collect()
}

/// The logits after each byte of `question`, by one pass over everything.
fn whole(model: &Ramba, text: &[u8], question: &[u8]) -> Vec<f32> {
    let all = [text, question].concat();
    let ids: Vec<u32> = all.iter().map(|&b| b.into()).collect();
    let base = text.len() / SEGMENT;
    let segment: Vec<u32> = (0..all.len()).map(|t| (t / SEGMENT).min(base) as u32).collect();
    let upload = |x: &[u32]| Tensor::from_slice(model.gpu(), x, [1, x.len()]).expect("it fills its shape");
    let logits = no_grad(|| model.forward(&upload(&ids), Some(&upload(&segment)), &Sharing::default()));
    let logits = logits.to_vec::<f32>().expect("the device works");
    logits[logits.len() - question.len() * 256..].to_vec()
}

fn read<'m>(model: &'m Ramba, parts: &[&[u8]]) -> Reader<'m> {
    let mut reader = Reader::new(model).expect("it has segments");
    for part in parts {
        reader.read(*part, |_| {}).expect("it reads");
    }
    reader
}

fn logits(reader: &Reader<'_>, question: &[u8]) -> Vec<f32> {
    pollster::block_on(reader.logits(question)).expect("the device works")
}

#[track_caller]
fn close(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let worst = got.iter().zip(expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(worst <= 1e-5 * largest, "{what}: {worst:.1e} of {largest:.1e}");
}

#[test]
fn reading_equals_one_forward_pass() {
    let gpu = testing::gpu();
    for changes in [
        "",
        r#""num_upper_groups": 2"#,
        r#""enable_softmax": true, "enable_softmax1": true, "enable_lmk_norm": true, "enable_qk_norm": true"#,
        r#""mask_slide_window": true, "slide_window": 40"#,
        r#""encoder_layers": 0, "singlehead_retrieval": true"#,
        r#""token_mixer": "window", "window_size": 50"#,
        r#""token_mixer": "window", "window_size": 1000, "window_kv_heads": 2"#,
    ] {
        let model = model(&gpu, changes);
        // Text lengths on and off the borders of chunks and segments, shorter than either, and none at all.
        for (text, question) in
            [(0, 5), (3, 4), (20, 9), (64, 1), (128, 70), (191, 33), (1000, 23), (1024, 200)]
        {
            let (text, question) = (bytes(text as u64, text), bytes(99, question));
            let reader = read(&model, &[&text]);
            let what = format!("{changes} {} + {}", text.len(), question.len());
            close(&logits(&reader, &question), &whole(&model, &text, &question), &what);
        }
    }
}

/// The last rows of x (1, rows, heads, channels), all but `dropped`: (1, rows, heads, channels).
fn behind(x: &Tensor, dropped: usize) -> Tensor {
    let [_, rows, heads, channels]: [usize; 4] = x.axes();
    let width = heads * channels;
    let flat = x.reshape([1, x.len()]);
    let kept = rows - dropped;
    ops::split_columns(&flat, &[dropped * width, kept * width])
        .swap_remove(1)
        .reshape([1, kept, heads, channels])
}

/// The logits after each byte of `question`, part by part: each segment's memory from a pass of its own that begins an overlap
/// of whole chunks before it, and the text's end from states that such a pass leaves.
fn in_parts(model: &Ramba, text: &[u8], question: &[u8]) -> Vec<f32> {
    let overlap = model.config.segment_overlap;
    let upload = |bytes: &[u8]| {
        let ids: Vec<u32> = bytes.iter().map(|&b| b.into()).collect();
        Tensor::from_slice(model.gpu(), &ids, [1, ids.len()]).expect("it fills its shape")
    };
    let base = text.len() / SEGMENT * SEGMENT;
    let before = |start: usize| start.saturating_sub(overlap);
    no_grad(|| {
        let segment = |start: usize| {
            let mut cache = model.cache();
            model.extend(&mut cache, &upload(&text[before(start)..start + SEGMENT]), None);
            let (Memory { k, v, landmarks }, dropped) =
                (cache.memory().expect("whole chunks").clone(), start - before(start));
            Memory {
                k: behind(&k, dropped),
                v: behind(&v, dropped),
                landmarks: behind(&landmarks, dropped / CHUNK),
            }
        };
        let all: Vec<Memory> = (0..base).step_by(SEGMENT).map(segment).collect();
        let mut cache = model.cache_at(base);
        if text.len() > base && base > 0 {
            let mut lead = model.cache();
            model.extend(&mut lead, &upload(&text[before(base)..base]), None);
            let lower = model.config.num_lower_layers;
            cache.states[..lower].clone_from_slice(&lead.states[..lower]);
        }
        let tail = upload(&[&text[base..], question].concat());
        let mut passage = model.set_out(&cache, &tail, question.len(), false);
        let landmarks: Vec<ops::Landmarks> = all.iter().map(|m| m.landmarks.clone().into()).collect();
        let mut brought = None;
        loop {
            match model.pass(&mut passage, &mut cache, &landmarks, brought.take()) {
                Pass::Over(said) => return said.logits.to_vec::<f32>().expect("the device works"),
                Pass::Seeks => unreachable!("it goes alone"),
                Pass::Wants(indices) => {
                    let gather = |pick: fn(&Memory) -> &Tensor| {
                        let pages = all.iter().chain(cache.memory()).map(pick);
                        let pages: Vec<Tensor> = pages.map(|x| x.reshape(&x.shape()[1..])).collect();
                        ops::gather_chunks(&pages.iter().collect::<Vec<_>>(), &indices, CHUNK)
                    };
                    brought = Some(Brought { k: gather(|m| &m.k), v: gather(|m| &m.v) });
                }
            }
        }
    })
}

#[test]
fn segments_are_read_with_what_is_in_front_of_them() {
    let gpu = testing::gpu();
    for changes in [
        r#""segment_overlap": 16"#,
        r#""segment_overlap": 64, "num_lower_layers": 2"#,
        r#""segment_overlap": 32, "num_upper_groups": 2, "encoder_layers": 0"#,
        r#""segment_overlap": 32, "token_mixer": "window", "window_size": 50, "num_lower_layers": 2"#,
    ] {
        let model = model(&gpu, changes);
        for (text, question) in [(0, 5), (20, 9), (64, 3), (65, 3), (128, 70), (191, 33), (1000, 23)] {
            let (text, question) = (bytes(text as u64, text), bytes(99, question));
            let what = format!("{changes} {} + {}", text.len(), question.len());
            close(&logits(&read(&model, &[&text]), &question), &in_parts(&model, &text, &question), &what);
        }
    }
}

/// An overlap need not be of whole chunks. What it leaves is states alone, the same in any batch.
#[test]
fn a_segment_knows_what_came_before_and_holds_its_own_chunks() {
    let gpu = testing::gpu();
    for mixer in ["", r#", "token_mixer": "window", "window_size": 50"#] {
        for overlap in [1, 20, 64] {
            let model = model(&gpu, &format!("\"segment_overlap\": {overlap}{mixer}"));
            let text: Vec<u32> = bytes(5, 3 * SEGMENT).into_iter().map(u32::from).collect();
            let upload = |ids: &[u32], rows: usize| {
                Tensor::from_slice(&gpu, ids, [rows, ids.len() / rows]).expect("they fill")
            };
            let numbers = |m: &Memory| {
                let all = [&m.k, &m.v, &m.landmarks];
                all.map(|x| x.to_vec::<f32>().expect("the device works"))
            };
            let row = |start: usize| &text[start - overlap..start + SEGMENT];
            let alone = |ids: &[u32], overlap| {
                numbers(&no_grad(|| model.remember_segments(&upload(ids, 1), overlap)))
            };
            let both =
                no_grad(|| model.remember_segments(&upload(&[row(64), row(128)].concat(), 2), overlap));
            let expected = [alone(row(64), overlap), alone(row(128), overlap)];
            for (i, all) in numbers(&both).iter().enumerate() {
                assert_eq!(*all, [&expected[0][i][..], &expected[1][i]].concat(), "{overlap} {mixer}");
            }
            assert_eq!(both.landmarks.shape()[..2], [2, SEGMENT / CHUNK]);
            // From the states that the tokens in front leave, token by token or not.
            for pieces in [1, 7, SEGMENT] {
                let mut cache = model.cache_at(64);
                no_grad(|| {
                    for piece in text[64 - overlap..64].chunks(pieces) {
                        model.lead_in(&mut cache, &upload(piece, 1));
                    }
                    for piece in text[64..128].chunks(pieces) {
                        model.remember_further(&mut cache, &upload(piece, 1));
                    }
                });
                assert_eq!(cache.position, 128);
                for (got, expected) in numbers(cache.memory().expect("chunks")).iter().zip(&expected[0]) {
                    close(got, expected, &format!("{overlap} {mixer} in pieces of {pieces}"));
                }
            }
            // It is not what a segment alone leaves.
            assert_ne!(alone(&text[64..128], 0), expected[0], "{overlap} {mixer}");
        }
    }
}

#[test]
fn what_an_overlap_reaches_is_read_again() {
    let gpu = testing::gpu();
    let [plain, model] = ["", r#""segment_overlap": 20"#].map(|changes| model(&gpu, changes));
    let (text, question) = (bytes(11, 64 * 9 + 37), bytes(12, 30));
    let reader = read(&model, &[&text]);
    for (range, expected) in [
        (5..9, 0..64),
        (40..44, 0..64),
        (44..45, 0..128),
        (63..64, 0..128),
        (64..65, 44..128),
        (120..200, 44..256),
        (500..513, 428..576),
        (560..561, 492..613),
        (576..577, 556..613),
        (612..613, 556..613),
        (0..613, 0..613),
    ] {
        assert_eq!(reader.stretch(range.clone()), expected, "{range:?}");
    }
    assert_eq!(read(&plain, &[&text]).stretch(63..64), 0..64);
    // A text of one segment has nothing in front of anything.
    for length in [0, 10, 64] {
        let text = &text[..length];
        let [a, b] = [&plain, &model].map(|m| logits(&read(m, &[text]), &question));
        assert_eq!(a, b, "{length} bytes");
    }
    // What was read before is needed to read on.
    let mut beginning = reader.prefix(128);
    beginning.read(b"", |_| {}).expect("nothing is read");
    let before = logits(&beginning, &question);
    assert!(matches!(beginning.read(b"more", |_| {}), Err(Error::Setting { .. })));
    assert_eq!((beginning.len(), logits(&beginning, &question)), (128, before));
    let mut all = reader.prefix(0);
    all.read(&text, |_| {}).expect("nothing was before");
    assert_eq!(logits(&all, &question), logits(&reader, &question));
    let mut whole = read(&model, &[&text[..576]]).prefix(576);
    whole.read(&text[576..], |_| {}).expect("all of it is known");
    assert_eq!(logits(&whole, &question), logits(&reader, &question));
}

/// Without memory there are no segments: states go through all of the text.
#[test]
fn without_memory_a_text_goes_through_whole() {
    let gpu = testing::gpu();
    for changes in ["", r#", "token_mixer": "window", "window_size": 20"#] {
        let model = model(&gpu, &format!("\"enable_hsa\": false{changes}"));
        let (text, question) = (bytes(1, 300), bytes(2, 30));
        let reader = read(&model, &[&text[..100], &text[100..]]);
        assert_eq!(reader.len(), 300);
        let all: Vec<u32> = [&text[..], &question].concat().into_iter().map(u32::from).collect();
        let ids = Tensor::from_slice(&gpu, &all, [1, all.len()]).expect("it fills its shape");
        let logits_ =
            no_grad(|| model.forward(&ids, None, &Sharing::default())).to_vec::<f32>().expect("it reads");
        close(&logits(&reader, &question), &logits_[300 * 256..], changes);
        let answer = pollster::block_on(reader.ask(&question, b"|", 3)).expect("the device works");
        assert!(answer.selected.is_empty(), "nothing was there to look into");
    }
}

/// Mamba-2 alone, and attention to all tokens: a text goes through once, in pieces, and any number of questions follow.
#[test]
fn states_carry_a_text_in_any_pieces() {
    let gpu = testing::gpu();
    for changes in [
        "",
        r#", "token_mixer": "window", "window_size": 20"#,
        r#", "token_mixer": "window", "window_size": 1048576, "window_kv_heads": 2"#,
    ] {
        let model = model(&gpu, &format!("\"enable_hsa\": false{changes}"));
        let (text, question) = (bytes(1, 700), bytes(2, 30));
        let said = |text: &[u8]| {
            let reader = read(&model, &[text]);
            pollster::block_on(reader.ask(&question, b"", 4)).expect("the device works").text
        };
        let (expected, beginning) = (said(&text), said(&text[..300]));
        for piece in [1000, 256, 61] {
            let mut states = States::new(&model).expect("it has no memory").with_piece(piece);
            states.read(&text[..300]).expect("it reads");
            let mut others = states.clone();
            others.read(&text[300..]).expect("it reads");
            assert_eq!((states.len(), others.len()), (300, 700));
            for (states, expected) in [(&states, &beginning), (&others, &expected), (&states, &beginning)] {
                let examine = |expected: &[u8]| {
                    pollster::block_on(states.examine(&question, expected)).expect("the device works")
                };
                assert_eq!(examine(expected), *expected, "{changes} in pieces of {piece}");
                let wrong = [&expected[..2], &[expected[2] ^ 1, 7]].concat();
                assert_eq!(examine(&wrong), expected[..3], "up to the first that differs");
            }
        }
    }
    assert!(States::new(&model(&gpu, "")).is_err(), "a model with a memory");
}

#[test]
fn a_thousand_chunks_are_told_apart() {
    let gpu = testing::gpu();
    let model = model(&gpu, "");
    let (text, question) = (bytes(1, 20_001), bytes(2, 40));
    let reader = read(&model, &[&text]);
    close(&logits(&reader, &question), &whole(&model, &text, &question), "20001 + 40");
}

#[test]
fn pages_no_larger_than_a_binding_read_the_same() {
    let options = GpuOptions { max_binding: Some(1 << 16), ..GpuOptions::from_env() };
    let small = model(&Gpu::new(options).expect("an adapter"), "");
    // Sixteen segments a page, fewer than a batch, and the last page is short.
    let (text, question) = (bytes(1, 3333), bytes(2, 30));
    let mut reader = read(&small, &[&text]);
    let whole = model(&testing::gpu(), "");
    let expected = logits(&read(&whole, &[&text]), &question);
    close(&logits(&reader, &question), &expected, "pages");
    close(
        &logits(&read(&small, &[&text[..1000], &text[1000..]]).prefix(3328), &question),
        &logits(&read(&whole, &[&text[..3328]]), &question),
        "two reads and a prefix",
    );
    // Across the border of two pages.
    let mut changed = text.clone();
    changed[1000..1050].copy_from_slice(&bytes(3, 50));
    let stretch = reader.stretch(1000..1050);
    reader.replace(stretch.start, &changed[stretch]).expect("it reads");
    close(&logits(&reader, &question), &logits(&read(&whole, &[&changed]), &question), "replaced");
}

#[test]
fn in_half_precision_it_is_the_same_pass_too() {
    let gpu = testing::gpu();
    if !gpu.capabilities().f16 {
        println!("no f16 here: nothing to compute in it");
        return;
    }
    let checkpoint = Checkpoint::initial(config(""), 7).expect("it is valid");
    let options = Options { half: true, ..Options::default() };
    let half = Ramba::with(&gpu, &checkpoint, options).expect("it uploads");
    let (text, question) = (bytes(1, 1000), bytes(2, 30));
    let mut reader = read(&half, &[&text]);
    assert_eq!(2 * reader.bytes_per_token(), read(&model(&gpu, ""), &[]).bytes_per_token());
    let got = logits(&reader, &question);
    let expected = whole(&half, &text, &question);
    let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let worst = got.iter().zip(&expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    // A few roundings to eleven bits.
    assert!(worst <= 5e-3 * largest, "{worst:.1e} of {largest:.1e}");
    let saved = reader.replace(64, &bytes(3, 192)).expect("it reads");
    assert_ne!(logits(&reader, &question), got);
    reader.restore(saved);
    assert_eq!(logits(&reader, &question), got);
}

#[test]
fn memory_matters_and_can_be_switched_off() {
    let gpu = testing::gpu();
    let mut model = model(&gpu, "");
    let (text, other, question) = (bytes(1, 640), bytes(2, 640), bytes(3, 20));
    let [a, b] = [&text, &other].map(|t| logits(&read(&model, &[t]), &question));
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(apart(&a, &b) > 1e-3, "what was read changes the answer");
    model.hsa = false;
    let [a, b] = [&text, &other].map(|t| logits(&read(&model, &[t]), &question));
    assert_eq!(a, b, "without HSA it cannot");
    close(&a, &whole(&model, &text, &question), "the whole pass without HSA");
}

#[test]
fn any_split_of_a_text_reads_the_same() {
    let gpu = testing::gpu();
    for changes in ["", r#""segment_overlap": 20"#, r#""segment_overlap": 64"#] {
        let model = model(&gpu, changes);
        let (text, question) = (bytes(5, 700), bytes(6, 30));
        let expected = logits(&read(&model, &[&text]), &question);
        let mut rng = Rng::new(8);
        for _ in 0..6 {
            let (a, b) = (rng.below(700), rng.below(700));
            let (a, b) = (a.min(b), a.max(b));
            let reader = read(&model, &[&text[..a], &text[a..b], &text[b..]]);
            assert_eq!(reader.len(), 700);
            assert_eq!(logits(&reader, &question), expected, "{changes} split at {a} and {b}");
        }
    }
}

#[test]
fn replaced_segments_read_as_if_written_so_and_come_back() {
    let gpu = testing::gpu();
    for overlap in [0, 16, 20, 64] {
        let model = model(&gpu, &format!("\"segment_overlap\": {overlap}"));
        let (text, question) = (bytes(11, 64 * 9 + 37), bytes(12, 30));
        let mut reader = read(&model, &[&text]);
        let before = logits(&reader, &question);
        // Within a segment, at its end, across a border, at the last border, into the remainder, within it, the end,
        // everything.
        for range in [5..9, 60..64, 60..70, 120..200, 572..574, 560..590, 580..600, 600..613, 0..613] {
            let mut changed = text.clone();
            changed[range.clone()].copy_from_slice(&bytes(13, range.len()));
            let stretch = reader.stretch(range.clone());
            let saved = reader.replace(stretch.start, &changed[stretch]).expect("it reads");
            let got = logits(&reader, &question);
            let what = format!("{range:?}, overlapping by {overlap}");
            if overlap == 0 {
                close(&got, &whole(&model, &changed, &question), &what);
            }
            assert_eq!(got, logits(&read(&model, &[&changed]), &question), "{what}");
            assert_ne!(got, before, "{what} changes something");
            reader.restore(saved);
            assert_eq!(logits(&reader, &question), before, "{what} is back");
        }
    }
}

#[test]
fn the_memory_of_a_beginning_is_the_beginning_of_memory() {
    let gpu = testing::gpu();
    let (text, question) = (bytes(21, 640), bytes(22, 30));
    let overlapping = model(&gpu, r#""segment_overlap": 20"#);
    let model = model(&gpu, "");
    for model in [&overlapping, &model] {
        let reader = read(model, &[&text[..300], &text[300..]]);
        for tokens in [0, 64, 256, 320, 640] {
            let expected = logits(&read(model, &[&text[..tokens]]), &question);
            assert_eq!(logits(&reader.prefix(tokens), &question), expected, "{tokens} tokens");
        }
    }
    let mut reader = read(&model, &[&text[..300], &text[300..]]);
    // It shares the buffers: what changes here changes there.
    let prefix = reader.prefix(128);
    let before = logits(&prefix, &question);
    let saved = reader.replace(64, &bytes(23, 64)).expect("it reads");
    assert_ne!(logits(&prefix, &question), before);
    reader.restore(saved);
    assert_eq!(logits(&prefix, &question), before);
}

#[test]
fn answers_are_greedy_and_examined_in_one_pass() {
    let gpu = testing::gpu();
    let model = model(&gpu, "");
    let text = bytes(31, 400);
    let reader = read(&model, &[&text]);
    let question = b"what now?";
    let answer = pollster::block_on(reader.ask(question, b"", 24)).expect("it answers");
    assert_eq!(answer.text.len(), 24);
    // The definition: the most probable byte after everything so far, again and again.
    let mut said = question.to_vec();
    for &byte in &answer.text {
        let row = whole(&model, &text, &said);
        let row = &row[row.len() - 256..];
        let best = (0..256).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        assert_eq!(best, usize::from(byte));
        said.push(byte);
    }
    let right = pollster::block_on(reader.examine(question, &answer.text)).expect("it answers");
    assert_eq!(right, answer);
    let mut wrong = answer.text.clone();
    wrong[5] ^= 1;
    let until = pollster::block_on(reader.examine(question, &wrong)).expect("it answers");
    assert_eq!(until.text, answer.text[..6], "up to the first token that differs");
    let stop = &answer.text[3..5];
    let stopped = pollster::block_on(reader.ask(question, stop, 24)).expect("it answers");
    let at = answer.text.windows(2).position(|w| w == stop).expect("it is there");
    assert_eq!(stopped.text, answer.text[..at + 2]);
    // Weights are means over two heads of sticks of length one.
    let sum: f32 = answer.selected.iter().map(|s| s.1).sum();
    assert!(sum > 0.0 && sum <= 1.0 + 1e-5, "{sum}");
    assert!(answer.selected.windows(2).all(|w| w[0].0 > w[1].0), "newest first");
    assert!(answer.selected.iter().all(|s| s.0 < (400 + question.len()) / CHUNK));
}

#[test]
fn a_text_that_does_not_fit_says_how_much_does() {
    // A device of its own: the cap must not disturb other tests.
    let open =
        |max_memory| Gpu::new(GpuOptions { max_memory, ..GpuOptions::from_env() }).expect("an adapter");
    let free = open(None);
    let text = bytes(41, 64 * 1024);
    let unlimited = model(&free, "");
    let new = |model| Reader::new(model).expect("it has segments").with_batch(1024);
    let mut reader = new(&unlimited);
    reader.read(&text, |_| {}).expect("without a cap it fits");
    let gpu = open(Some(free.memory().in_use - (1 << 20)));
    let model = model(&gpu, "");
    let mut reader = new(&model);
    let short = bytes(42, 200);
    reader.read(&short, |_| {}).expect("a short text fits");
    let before = logits(&reader, b"?");
    let error = reader.read(&text, |_| {}).expect_err("the long one does not");
    let Error::TextTooLong { tokens, fit, .. } = error else { panic!("{error}") };
    assert!(
        tokens >= text.len() - SEGMENT && fit < tokens && fit.is_multiple_of(SEGMENT),
        "{fit} of {tokens}"
    );
    assert_eq!((reader.len(), logits(&reader, b"?")), (200, before), "nothing of it counts as read");
    reader.read(&text[..fit / 2], |_| {}).expect("half of what fits does fit");
}

#[test]
fn what_cannot_be_read_is_said() {
    let gpu = testing::gpu();
    for changes in
        [r#""segment_size": -1, "segment_at_inference": false"#, r#""segment_at_inference": false"#]
    {
        assert!(matches!(Reader::new(&model(&gpu, changes)), Err(Error::NotSegmented)));
    }
    let more = model(&gpu, r#""vocab_size": 300"#);
    assert!(matches!(Reader::new(&more), Err(Error::Setting { .. })));
    let model = model(&gpu, "");
    let reader = Reader::new(&model).expect("it has segments");
    assert!(reader.is_empty());
    assert!(matches!(pollster::block_on(reader.ask(b"", b"|", 4)), Err(Error::Empty)));
    assert!(matches!(pollster::block_on(reader.examine(b"", b"1|")), Err(Error::Empty)));
}

/// The weights beside the model crate do what they are for; with HSA switched off they do not.
#[test]
fn shipped_weights_find_facts() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/weights/passkey.safetensors");
    let checkpoint = Checkpoint::open(path).expect("the shipped weights read");
    let mut model = Ramba::new(&testing::gpu(), &checkpoint, false).expect("they upload");
    let mut hay = Haystack::prose(1, 6000).expect("a text");
    let needles =
        hay.plant(&[FactKind::Named, FactKind::Plain, FactKind::Named], 1).expect("room for three facts");
    for hsa in [true, false] {
        model.hsa = hsa;
        let mut reader = Reader::new(&model).expect("it reads by segments");
        reader.read(hay.text(), |_| ()).expect("it fits");
        let right = |needle: &&Needle| {
            let question = needle.fact.question.as_bytes();
            let answer = block_on(reader.ask(question, b"|", 12)).expect("an answer");
            needle.fact.is_answered_by(&answer.text)
        };
        let found = needles.iter().filter(right).count();
        assert_eq!(found, if hsa { 3 } else { 0 }, "facts found with HSA {hsa}");
    }
}

/// What is under way when the device is lost is an error, however often it is asked for.
#[test]
fn generation_without_a_device_is_an_error() {
    let gpu = Gpu::new(GpuOptions::from_env()).unwrap_or_else(|e| panic!("{e}"));
    let model = model(&gpu, "");
    let mut generator =
        Generator::new(&model, &[1, 2, 3], 256, Sampling::default()).expect("there is a device");
    block_on(generator.next()).expect("there is a device");
    gpu.device().destroy();
    let results: Vec<_> = (0..4).map(|_| block_on(generator.next())).collect();
    assert!(results[1..].iter().all(Result::is_err), "{results:?}");
}

/// At temperature 0 what follows a prompt is what a reader answers, whose text is the prompt.
#[test]
fn generation_goes_on_as_answers_do() {
    let gpu = testing::gpu();
    let [plain, model] = ["", r#""segment_overlap": 20"#].map(|changes| model(&gpu, changes));
    for (model, length) in [(&plain, 5), (&plain, 200), (&model, 200)] {
        let text = bytes(51, length);
        let answer = block_on(read(model, &[&text]).ask(b"so:", b"", 6)).expect("it answers");
        let prompt: Vec<u32> = text.iter().chain(b"so:").map(|&b| b.into()).collect();
        let draw = |sampling: Sampling| -> Vec<u32> {
            let mut generator = Generator::new(model, &prompt, 256, sampling).expect("a prompt");
            (0..6).map(|_| block_on(generator.next()).expect("it goes on")).collect()
        };
        let greedy = Sampling::default();
        assert_eq!(Tokenizer::Bytes.decode(&draw(greedy)), answer.text, "{length} bytes");
        let warm = Sampling { temperature: 1.0, top_p: 0.9, seed: 4 };
        assert_eq!(draw(warm), draw(warm), "equal seeds");
        assert_ne!(draw(warm), draw(Sampling { seed: 5, ..warm }));
        // So few probabilities leave the most probable token alone.
        assert_eq!(draw(Sampling { top_p: 1e-6, ..warm }), draw(greedy));
    }
    // Tokens from the limit on are never drawn, whoever draws.
    let prompt: Vec<u32> = bytes(52, 100).into_iter().map(u32::from).collect();
    let by_host = Sampling { temperature: 1.0, top_p: 1e-6, seed: 0 };
    for limit in [1, 3, 50] {
        let [device, host] = [Sampling::default(), by_host].map(|sampling| -> Vec<u32> {
            let mut generator = Generator::new(&model, &prompt, limit, sampling).expect("a prompt");
            (0..6).map(|_| block_on(generator.next()).expect("it goes on")).collect()
        });
        assert_eq!(device, host, "of {limit}");
        assert!(device.iter().all(|t| (*t as usize) < limit), "{device:?}");
    }
    let error = |prompt: &[u32]| Generator::new(&model, prompt, 256, Sampling::default()).err();
    assert!(matches!(error(&[]), Some(Error::Empty)));
    assert!(matches!(error(&[256]), Some(Error::Setting { .. })));
}
