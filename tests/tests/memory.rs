//! Where a text's memory is kept changes what it takes, not what is answered.

use std::{
    fs,
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Barrier, Mutex},
    time::Duration,
};

use pollster::block_on;
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use rambutan_engine::{
    Gpu, GpuOptions, Tensor,
    ops::{self, Visibility},
    testing,
};
use rambutan_model::{
    Checkpoint, Error, Ramba,
    ramba::Options,
    ranks::Ranks,
    reader::{
        Keeping, Landmarks, Placement, Reader, Source, TextFile,
        file::{self, Manner, MemoryError, MemoryFile, Written},
    },
    rng::Rng,
};
use rambutan_tests::{Folder, small::config};

const SEGMENT: usize = 64;
/// The places that change no bit.
const EXACT: [Placement; 2] = [Placement::Host, Placement::Text];

fn model(gpu: &Gpu, changes: &str, half: bool) -> Ramba {
    let checkpoint = Checkpoint::initial(config(changes), 7).expect("it is valid");
    Ramba::with(gpu, &checkpoint, Options { half, ..Options::default() }).expect("it uploads")
}

fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| rng.below(256) as u8).collect()
}

fn read<'m>(model: &'m Ramba, keeping: impl Into<Keeping>, parts: &[&[u8]]) -> Reader<'m> {
    let keeping = keeping.into();
    // Three segments at once, so that chunks come in several batches.
    let mut reader = Reader::placed(model, keeping).expect("it has segments").with_batch(3 * SEGMENT);
    for part in parts {
        reader.read(*part, |_| {}).expect("it reads");
    }
    assert_eq!(reader.keeping(), keeping);
    reader
}

fn logits(reader: &Reader<'_>, question: &[u8]) -> Vec<f32> {
    block_on(reader.logits(question)).expect("the device works")
}

#[test]
fn answers_are_the_same_bits_wherever_memory_is_kept() {
    let gpu = testing::gpu();
    for (half, changes) in [
        (false, ""),
        (gpu.capabilities().f16, ""),
        (false, r#""num_upper_groups": 2"#),
        (false, r#""mask_slide_window": true, "slide_window": 40, "enable_softmax": true"#),
        (false, r#""encoder_layers": 0, "singlehead_retrieval": true"#),
        (false, r#""segment_overlap": 20, "num_lower_layers": 2"#),
    ] {
        let model = model(&gpu, changes, half);
        for (first, length, question) in [(0, 3, 4), (0, 64, 9), (20, 300, 70), (64, 1999, 5), (1, 1024, 200)]
        {
            let (first, text, question) =
                (bytes(9, first), bytes(length as u64, length), bytes(99, question));
            let parts = [&first[..], &text, &first];
            let device = read(&model, Placement::Device, &parts);
            let expected = logits(&device, &question);
            let said = block_on(device.ask(&question, b"", 6)).expect("it answers");
            for placement in EXACT {
                let reader = read(&model, placement, &parts);
                let what = format!("{placement} {changes} {length} + {}", question.len());
                assert!(logits(&reader, &question) == expected, "{what}");
                assert_eq!(block_on(reader.ask(&question, b"", 6)).expect("it answers"), said, "{what}");
                let examined = block_on(reader.examine(&question, &said.text)).expect("it answers");
                assert_eq!(examined.text, said.text, "{what}");
                assert!(reader.bytes_per_token() < device.bytes_per_token(), "{what}");
            }
        }
    }
}

#[test]
fn what_is_changed_is_changed_wherever_it_is_kept() {
    changed_everywhere("");
}

#[test]
fn so_it_is_where_segments_overlap() {
    changed_everywhere(r#""segment_overlap": 20"#);
}

fn changed_everywhere(changes: &str) {
    let gpu = testing::gpu();
    let model = model(&gpu, changes, false);
    let (text, question) = (bytes(11, SEGMENT * 9 + 37), bytes(12, 30));
    let mut device = read(&model, Placement::Device, &[&text[..100], &text[100..]]);
    for placement in EXACT.into_iter().chain([Placement::Int8]) {
        let mut reader = read(&model, placement, &[&text[..100], &text[100..]]);
        let before = logits(&reader, &question);
        // At the end of a segment, too, which the next one is read with; that of another one stays as it is.
        for range in [5..9, 60..70, 186..190, 120..200, 560..590, 600..613, 0..613] {
            let mut changed = text.clone();
            changed[range.clone()].copy_from_slice(&bytes(13, range.len()));
            let stretch = reader.stretch(range.clone());
            let put = |reader: &mut Reader<'_>| {
                reader.replace(stretch.start, &changed[stretch.clone()]).expect("it reads")
            };
            let (saved, there) = (put(&mut reader), put(&mut device));
            let got = logits(&reader, &question);
            let anew = logits(&read(&model, placement, &[&changed]), &question);
            assert!(got == anew, "{placement} {range:?}, and read anew");
            let same = got == logits(&device, &question) || placement == Placement::Int8;
            assert!(same, "{placement} {range:?}");
            assert!(got != before, "{placement} {range:?} changes something");
            let prefix = reader.prefix(128);
            let beginning = logits(&read(&model, placement, &[&changed[..128]]), &question);
            assert!(logits(&prefix, &question) == beginning, "{placement} {range:?}: its beginning");
            reader.restore(saved);
            device.restore(there);
            assert!(logits(&reader, &question) == before, "{placement} {range:?} is back");
            assert!(
                logits(&prefix, &question) == logits(&device.prefix(128), &question)
                    || placement == Placement::Int8
            );
        }
    }
}

#[test]
fn slices_read_and_answer_the_same_wherever_memory_is_kept() {
    // A device of its own: what this keeps back is not for another test to submit.
    let gpu = Gpu::new(GpuOptions { checked: true, ..GpuOptions::from_env() }).expect("an adapter");
    let model = model(&gpu, r#""segment_overlap": 20"#, false);
    let (first, text) = (bytes(1, 100), bytes(2, 1500));
    let expected = read(&model, Placement::Device, &[&first, &text]);
    let expected = block_on(expected.ask(b"what now?", b"", 6)).expect("it answers");
    for placement in EXACT {
        for budget in [Duration::ZERO, Duration::from_millis(3), Duration::from_secs(60)] {
            let mut reader = read(&model, placement, &[&first]);
            let mut left = reader.start(&text);
            left.step(&mut reader, Duration::ZERO).expect("it reads");
            drop(left);
            let mut reading = reader.start(text.clone());
            while !reading.step(&mut reader, budget).expect("it reads").is_done() {}
            let mut asking = reader.asking(b"what now?", b"", 6).expect("a question").scored();
            while !asking.step(&reader, budget).expect("it answers") {}
            assert_eq!(*asking.answer(), expected, "{placement} in {budget:?}");
        }
        let mut reader = read(&model, placement, &[&first]);
        block_on(reader.read_in_slices(&text, Duration::from_millis(2), |_| {})).expect("it reads");
        assert_eq!(block_on(reader.ask(b"what now?", b"", 6)).expect("it answers"), expected, "{placement}");
    }
}

#[test]
fn questions_asked_together_are_answered_as_alone() {
    let gpu = testing::gpu();
    for (changes, lengths) in [
        ("", [40, 64, 999]),
        (r#""num_upper_groups": 2, "enable_lmk_norm": true, "segment_overlap": 20"#, [0, 700, 128]),
        (r#""mask_slide_window": true, "slide_window": 40"#, [30, 700, 128]),
    ] {
        let model = model(&gpu, changes, false);
        for length in lengths {
            let text = bytes(length as u64, length);
            let questions = [bytes(1, 20), bytes(2, 1), bytes(3, 70), bytes(1, 20)];
            for placement in [Placement::Device, Placement::Text] {
                let reader = read(&model, placement, &[&text]);
                // An end that some meet before others.
                let long = block_on(reader.ask(&questions[0], b"", 9)).expect("it answers").text;
                let stop = &long[4..5];
                let alone =
                    questions.each_ref().map(|q| block_on(reader.ask(q, stop, 9)).expect("it answers"));
                let all: Vec<&[u8]> = questions.iter().map(Vec::as_slice).collect();
                let together = block_on(reader.ask_all(&all, stop, 9)).expect("they are answered");
                assert_eq!(together, alone, "{placement} {changes} {length}");
            }
        }
        let reader = read(&model, Placement::Device, &[]);
        assert_eq!(block_on(reader.ask_all(&[], b"", 9)).expect("nothing is asked"), []);
    }
}

/// The bound that [`Placement::Int8`] states, and what it makes of logits.
#[test]
fn eight_bits_are_off_by_half_a_scale_at_most() {
    let gpu = testing::gpu();
    let (chunk, heads, channels) = (16, 2, 8);
    let mut rng = Rng::new(5);
    let x: Vec<f32> = (0..9 * chunk * heads * channels)
        .map(|i| (rng.float() - 0.5) as f32 * 10f32.powi((i / 700) as i32 - 2))
        .collect();
    let x_ = Tensor::from_slice(&gpu, &x, [9 * chunk, heads, channels]).expect("it fills");
    let indices = Tensor::from_slice(&gpu, &(0..9u32).collect::<Vec<_>>(), [9]).expect("it fills");
    let out = x_.like();
    ops::gather_quantized_into(&out, &[ops::quantize_chunks(&x_, chunk)], &indices, chunk);
    let got = out.to_vec::<f32>().expect("the device works");
    for group in 0..9 * heads {
        let (c, h) = (group / heads, group % heads);
        let all =
            (0..chunk * channels).map(|i| ((c * chunk + i / channels) * heads + h) * channels + i % channels);
        let all: Vec<usize> = all.collect();
        let largest = all.iter().fold(0.0f32, |m, &i| m.max(x[i].abs()));
        let worst = all.iter().fold(0.0f32, |m, &i| m.max((x[i] - got[i]).abs()));
        assert!(worst <= largest / 254.0 * 1.001 && worst > 0.0, "chunk {c} head {h}: {worst} of {largest}");
    }
    let model = model(&gpu, "", false);
    let (text, question) = (bytes(1, 2000), bytes(2, 30));
    let [exact, eight] = [Placement::Device, Placement::Int8].map(|p| read(&model, p, &[&text]));
    assert!(3 * eight.bytes_per_token() < 2 * exact.bytes_per_token());
    let (exact, eight) = (logits(&exact, &question), logits(&eight, &question));
    let largest = exact.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let worst = exact.iter().zip(&eight).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    println!("logits differ by {:.1e} of the largest", worst / largest);
    assert!(worst > 0.0 && worst < 3e-2 * largest, "{worst} of {largest}");
    let odd = r#""attention_head_dim": 6"#;
    let odd = Checkpoint::initial(config(odd), 7).map(|c| Ramba::new(&gpu, &c, false).expect("it uploads"));
    if let Ok(odd) = odd {
        assert!(matches!(Reader::placed(&odd, Placement::Int8), Err(Error::Setting { .. })));
    }
}

/// All that is done with a memory, with landmarks in eight bits: the same bits wherever keys and values are, in whatever
/// parts it is read, replaced, put back, as a prefix, in company, in a file that is written in parts.
#[test]
fn landmarks_in_eight_bits_are_one_memory() {
    let gpu = testing::gpu();
    let folder = Folder::new("landmarks");
    for (half, changes) in [
        (false, ""),
        (gpu.capabilities().f16, r#""num_upper_groups": 2, "enable_lmk_norm": true, "segment_overlap": 20"#),
        (false, r#""mask_slide_window": true, "slide_window": 40"#),
    ] {
        let model = model(&gpu, changes, half);
        let keep = |values| Keeping { values, landmarks: Landmarks::Int8 };
        let (text, question) = (bytes(11, SEGMENT * 21 + 37), bytes(12, 30));
        let parts = [&text[..100], &text[100..]];
        let device = read(&model, keep(Placement::Device), &parts);
        let expected = logits(&device, &question);
        let said = block_on(device.ask(&question, b"", 6)).expect("it answers");
        let floats = read(&model, Placement::Device, &parts);
        assert!(device.bytes_per_token() < floats.bytes_per_token());
        assert!(logits(&floats, &question) != expected, "{changes}: they are rounded");
        let scores = block_on(device.scores(&question)).expect("it scores").expect("there are chunks");
        let exact = block_on(floats.scores(&question)).expect("it scores").expect("there are chunks");
        let [scores, exact] = [scores, exact].map(|s| s.to_vec::<f32>().expect("the device works"));
        let largest = exact.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let worst = exact.iter().zip(&scores).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst > 0.0 && worst < 2e-2 * largest, "{changes}: scores off by {worst} of {largest}");
        let company = [&question[..], &question[..9]];
        let alone = company.map(|q| block_on(device.ask(q, b"", 4)).expect("it answers"));
        fs::write(folder.path("text"), &text).expect("it writes");
        for placement in [Placement::Device, Placement::Host, Placement::Text] {
            let what = format!("{placement} {changes}");
            let mut reader = read(&model, keep(placement), &[&text[..700], &text[700..]]);
            assert!(logits(&reader, &question) == expected, "{what}");
            assert_eq!(block_on(reader.ask(&question, b"", 6)).expect("it answers"), said, "{what}");
            let together = block_on(reader.ask_all(&company, b"", 4)).expect("they are answered");
            assert_eq!(together, alone, "{what}");
            let mut changed = text.clone();
            changed[120..200].copy_from_slice(&bytes(13, 80));
            let stretch = reader.stretch(120..200);
            let saved = reader.replace(stretch.start, &changed[stretch]).expect("it reads");
            let other = read(&model, keep(Placement::Device), &[&changed]);
            assert!(logits(&reader, &question) == logits(&other, &question), "{what}: replaced");
            assert!(
                logits(&reader.prefix(256), &question) == logits(&other.prefix(256), &question),
                "{what}: its beginning"
            );
            reader.restore(saved);
            assert!(logits(&reader, &question) == expected, "{what}: put back");
            if placement == Placement::Device {
                continue;
            }
            let [whole, parts] = ["whole", "parts"].map(|name| folder.path(&format!("{name}-{placement}")));
            for (memory, pages) in [(&whole, usize::MAX), (&parts, 2), (&parts, 4), (&parts, usize::MAX)] {
                write(&model, &folder.path("text"), memory, keep(placement), pages).expect("it reads");
            }
            assert!(held(&whole) == held(&parts), "{what}: byte for byte");
            let opened = open(&model, &whole).expect("it opens");
            assert_eq!(opened.keeping(), keep(placement));
            assert!(logits(&opened, &question) == expected, "{what}: in a file");
            [whole, parts].iter().for_each(|path| fs::remove_file(path).expect("it goes"));
        }
    }
}

/// What is left open is chosen by what is known to fit, the exact before the rounded.
#[test]
fn what_fits_is_known_before_anything_is_read() {
    let options = GpuOptions { max_memory: Some(64 << 20), ..GpuOptions::from_env() };
    let gpu = Gpu::new(options).expect("an adapter");
    let model = model(&gpu, "", false);
    let keep = |values, landmarks| Keeping { values, landmarks };
    let (float, int8) = (Landmarks::Float, Landmarks::Int8);
    let [all, landmarks] = [Placement::Device, Placement::Text]
        .map(|p| Reader::placed(&model, p).expect("it has segments").bytes_of(1 << 20)[0] >> 10);
    let room = (64 << 20) - gpu.memory().in_use as usize;
    let fitting = |kib: usize, values, landmarks| {
        let tokens = (room / kib) << 10;
        Keeping::fitting(&model, tokens, values, landmarks).expect("it has segments")
    };
    let (device, text) = (Placement::Device, Placement::Text);
    assert_eq!(
        fitting(all + 1, None, None),
        [keep(device, float), keep(text, float), keep(text, int8)],
        "all of it"
    );
    assert_eq!(fitting(landmarks + 1, None, None), [keep(text, float), keep(text, int8)], "landmarks");
    assert_eq!(fitting(landmarks - 1, None, None), [keep(text, int8)], "not even these");
    assert_eq!(fitting(landmarks - 1, None, Some(float)), [keep(text, float)], "as was asked");
    assert_eq!(fitting(all + 1, None, Some(int8)), [keep(device, int8), keep(text, int8)]);
    let host = Placement::Host;
    assert_eq!(fitting(landmarks + 1, Some(host), None), [keep(host, float), keep(host, int8)]);
    assert_eq!(fitting(landmarks - 1, Some(host), None), [keep(host, int8)]);
}

/// Scores of small integers, of which many are equal, and all are exact; or any scores. Landmarks in floats or in eight bits.
#[test]
fn paging_never_changes_a_selection() {
    let gpu = testing::gpu();
    let flags = [any::<bool>(), any::<bool>(), any::<bool>()];
    let strategy = (1usize..9, 1usize..4, 1usize..9, vec(1usize..200, 1..7), any::<u64>(), flags);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() });
    let result = runner.run(&strategy, |(tokens, heads, k, cuts, seed, [window, eight, exact])| {
        let (r, chunk, chunks) = (8, 16, cuts.iter().sum::<usize>());
        let mut rng = Rng::new(seed);
        let mut draw = |n: usize| -> Vec<f32> {
            let number =
                |rng: &mut Rng| if exact { rng.below(3) as f32 - 1.0 } else { rng.float() as f32 - 0.5 };
            (0..n).map(|_| number(&mut rng)).collect()
        };
        let q = draw(tokens * heads * r);
        let landmarks = draw(chunks * heads * r);
        let q = Tensor::from_slice(&gpu, &q, [1, tokens, heads, r]).expect("it fills");
        let page = |first: usize, n: usize| {
            let row = heads * r;
            let page = Tensor::from_slice(&gpu, &landmarks[first * row..(first + n) * row], [1, n, heads, r]);
            let page = page.expect("it fills");
            match (eight, exact) {
                (false, _) => page.into(),
                (true, false) => ops::quantize_landmarks(&page),
                // The numbers as they are, eight of sixteen, and a scale of 1.
                (true, true) => {
                    let rows = landmarks[first * row..(first + n) * row].chunks(r);
                    let byte = |v: f32| u32::from(v as i8 as u8);
                    let word = |four: &[f32]| four.iter().rev().fold(0, |w, v| w << 8 | byte(*v));
                    let words: Vec<u32> = rows.flat_map(|l| [word(&l[..4]), word(&l[4..]), 0, 0]).collect();
                    let numbers = Tensor::from_slice(&gpu, &words, [1, n, heads, 4]).expect("it fills");
                    let scales = Tensor::full(&gpu, [1, n, heads, 1], page.dtype(), 1.0);
                    ops::Landmarks::Bytes { numbers, scales }
                }
            }
        };
        // From none to all of the chunks are visible.
        let first_position = (seed % (chunks as u64 + 2)) as usize * chunk;
        let visibility = Visibility { chunk, first_position, window: window.then_some(40), group: None };
        let of = |pages: &[ops::Landmarks]| {
            let (scores, indices) = ops::select_pages(&q, pages, k, &visibility);
            (scores.to_vec::<f32>().expect("it works"), indices.to_vec::<u32>().expect("it works"))
        };
        let whole = of(&[page(0, chunks)]);
        let mut first = 0;
        let pages: Vec<ops::Landmarks> = cuts.iter().map(|n| (page(first, *n), first += n).0).collect();
        prop_assert_eq!(&of(&pages), &whole, "cuts {:?}", cuts);
        // In company: the first pages for all tokens and two others', the rest for these alone.
        let seen = if window { 0 } else { first_position / chunk };
        let mut begin = 0;
        let (before, behind): (Vec<&ops::Landmarks>, Vec<&ops::Landmarks>) = pages.iter().partition(|page| {
            begin += page.chunks();
            begin <= seen
        });
        let [before, behind] = [before, behind].map(|pages| pages.into_iter().cloned().collect::<Vec<_>>());
        if before.iter().map(ops::Landmarks::chunks).sum::<usize>() >= k {
            let company = Tensor::zeros(&gpu, [1, 2 * heads * r], q.dtype());
            let all = ops::concat_columns(&[&company, &q.reshape([1, q.len()])]);
            let begun = ops::select_begun(&all.reshape([1, tokens + 2, heads, r]), &before, k);
            let (scores, indices) = ops::select_further(&q, begun.tokens(2, tokens), &behind, &visibility);
            let together =
                (scores.to_vec::<f32>().expect("it works"), indices.to_vec::<u32>().expect("it works"));
            prop_assert_eq!(&together, &whole, "cuts {:?} in company", cuts);
        }
        if !exact {
            return Ok(());
        }
        // By definition: the best scores, the newer chunk first among equal ones, the newest first in the list.
        let scale = 1.0 / (r as f32).sqrt();
        let values = q.to_vec::<f32>().expect("it works");
        for t in 0..tokens {
            for h in 0..heads {
                let row = &values[(t * heads + h) * r..][..r];
                let visible = |c: &usize| match visibility.window {
                    Some(window) => c * chunk + window <= first_position + t,
                    None => (c + 1) * chunk <= first_position + t,
                };
                let mut all: Vec<(i32, usize)> = (0..chunks)
                    .filter(visible)
                    .map(|c| {
                        let l = &landmarks[(c * heads + h) * r..][..r];
                        (row.iter().zip(l).map(|(a, b)| (a * b) as i32).sum(), c)
                    })
                    .collect();
                all.sort_by(|a, b| b.cmp(a));
                all.truncate(k.min(chunks));
                all.sort_by_key(|a| std::cmp::Reverse(a.1));
                let slots = k.min(chunks);
                let got = &whole.1[(t * heads + h) * slots..][..all.len()];
                let expected: Vec<u32> = all.iter().map(|a| a.1 as u32).collect();
                prop_assert_eq!(got, &expected[..], "token {} head {}", t, h);
                for (score, (sum, _)) in whole.0[(t * heads + h) * slots..].iter().zip(&all) {
                    prop_assert!((score - *sum as f32 * scale).abs() < 1e-5);
                }
            }
        }
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
}

/// Reads a text into a file in pages of four segments; `pages` may be read before it stops.
fn write(
    model: &Ramba,
    text: &str,
    memory: &str,
    keeps: impl Into<Keeping>,
    pages: usize,
) -> Result<Written, Error> {
    let manner = Manner { keeps: keeps.into(), page: 4 * SEGMENT, interval: Duration::ZERO };
    let text = TextFile::open(Path::new(text)).expect("it is there");
    let mut left = pages;
    file::write(model, "some weights", &text, Path::new(memory), manner, |_| {
        left = left.saturating_sub(1);
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

fn open<'m>(model: &'m Ramba, memory: &str) -> Result<Reader<'m>, Error> {
    MemoryFile::open(Path::new(memory))?.reader(model, "some weights", None)
}

/// What a memory file holds, but for how often it was committed.
fn held(memory: &str) -> (Vec<u8>, Vec<u8>) {
    let bytes = fs::read(memory).expect("it reads");
    (bytes[..4096].to_vec(), bytes[12288..].to_vec())
}

#[test]
fn a_memory_in_a_file_is_the_memory() {
    let gpu = testing::gpu();
    let folder = Folder::new("file");
    for (half, changes) in
        [(false, ""), (gpu.capabilities().f16, r#""num_upper_groups": 2, "segment_overlap": 20"#)]
    {
        let model = model(&gpu, changes, half);
        for length in [3, SEGMENT, 4 * SEGMENT, 13 * SEGMENT + 21] {
            let (text, question) = (bytes(length as u64, length), bytes(3, 20));
            let expected = logits(&read(&model, Placement::Device, &[&text]), &question);
            fs::write(folder.path("text"), &text).expect("it writes");
            for keeps in EXACT {
                let memory = folder.path(&format!("{keeps}.mem"));
                let _ = fs::remove_file(&memory);
                let written =
                    write(&model, &folder.path("text"), &memory, keeps, usize::MAX).expect("it reads");
                assert_eq!(written, Written { tokens: length, kept: 0, complete: true });
                let mut reader = open(&model, &memory).expect("it opens");
                assert_eq!((reader.len(), reader.placement()), (length, keeps));
                assert!(logits(&reader, &question) == expected, "{keeps} {length} {changes}");
                // It reads on.
                let more = bytes(4, 150);
                reader.read(&more, |_| {}).expect("it reads");
                let all = read(&model, Placement::Device, &[&text, &more]);
                assert!(logits(&reader, &question) == logits(&all, &question), "{keeps} {length} {changes}");
                // Once more there is nothing to do, and nothing is done.
                let before = fs::read(&memory).expect("it reads");
                let again =
                    write(&model, &folder.path("text"), &memory, keeps, usize::MAX).expect("it reads");
                assert_eq!(again.kept, length / SEGMENT * SEGMENT);
                assert!(fs::read(&memory).expect("it reads") == before, "{keeps} {length}");
                // What lies behind the last commit does not count.
                fs::write(&memory, [&before[..], b"PAGE torn"].concat()).expect("it writes");
                assert!(logits(&open(&model, &memory).expect("it opens"), &question) == expected);
                write(&model, &folder.path("text"), &memory, keeps, usize::MAX).expect("it reads");
                assert!(fs::read(&memory).expect("it reads") == before, "{keeps} {length}: the torn end");
            }
        }
    }
}

#[test]
fn reading_goes_on_where_it_stopped() {
    goes_on("");
}

#[test]
fn so_it_does_where_segments_overlap() {
    goes_on(r#""segment_overlap": 20"#);
}

fn goes_on(changes: &str) {
    let gpu = testing::gpu();
    let folder = Folder::new(if changes.is_empty() { "continued" } else { "continued-overlap" });
    let model = model(&gpu, changes, false);
    let (text, question) = (bytes(1, 30 * SEGMENT + 9), bytes(3, 20));
    fs::write(folder.path("text"), &text).expect("it writes");
    for keeps in EXACT {
        let [whole, parts] = ["whole", "parts"].map(|name| folder.path(&format!("{name}-{keeps}")));
        write(&model, &folder.path("text"), &whole, keeps, usize::MAX).expect("it reads");
        let mut kept = 0;
        loop {
            // One page more than before each time.
            let pages = kept / (4 * SEGMENT) + 1;
            let written = write(&model, &folder.path("text"), &parts, keeps, pages).expect("it reads");
            assert_eq!(written.kept, kept.min(text.len() / SEGMENT * SEGMENT));
            if written.complete {
                break;
            }
            kept = pages * 4 * SEGMENT;
            let (tokens, size) = MemoryFile::open(Path::new(&parts)).expect("it opens").tokens();
            assert_eq!((tokens, size), (kept.min(30 * SEGMENT), text.len()));
            // What is there is the memory of a beginning.
            let beginning = logits(&read(&model, Placement::Device, &[&text[..tokens]]), &question);
            assert!(
                logits(&open(&model, &parts).expect("it opens"), &question) == beginning,
                "{keeps} {kept}"
            );
            if pages == 8 {
                // All of its pages were read when it stopped.
                break;
            }
        }
        write(&model, &folder.path("text"), &parts, keeps, usize::MAX).expect("it reads");
        assert!(held(&whole) == held(&parts), "{keeps}: byte for byte");
    }
}

#[test]
fn only_what_changed_is_read_again() {
    let gpu = testing::gpu();
    let folder = Folder::new("edited");
    let question = bytes(3, 20);
    let first = bytes(1, 10 * SEGMENT + 9);
    let all = [0, 20].map(|overlap| EXACT.map(|keeps| (overlap, keeps)));
    for (overlap, keeps) in all.concat() {
        let model = model(&gpu, &format!("\"segment_overlap\": {overlap}"), false);
        let _ = fs::remove_file(folder.path(&format!("{keeps}.mem")));
        let (path, memory) = (folder.path("text"), folder.path(&format!("{keeps}.mem")));
        let mut text = first.clone();
        fs::write(&path, &text).expect("it writes");
        write(&model, &path, &memory, keeps, usize::MAX).expect("it reads");
        let step = |text: &[u8], fresh: usize| {
            fs::write(&path, text).expect("it writes");
            let written = write(&model, &path, &memory, keeps, usize::MAX).expect("it reads");
            let whole = text.len() / SEGMENT;
            assert_eq!(
                written,
                Written { tokens: text.len(), kept: (whole - fresh) * SEGMENT, complete: true }
            );
            let expected = logits(&read(&model, Placement::Device, &[text]), &question);
            assert!(
                logits(&open(&model, &memory).expect("it opens"), &question) == expected,
                "{keeps} {fresh}"
            );
        };
        // One segment, its end, which the next is read with where they overlap, two across a border, the last whole one's end,
        // the text's end alone, more text, much more, less, none of it the same.
        text[100] ^= 1;
        step(&text, 1);
        text[125] ^= 1;
        step(&text, 1 + overlap.min(1));
        text[5 * SEGMENT - 1..=5 * SEGMENT].copy_from_slice(b"!!");
        step(&text, 2);
        text[10 * SEGMENT - 3] ^= 1;
        step(&text, 1);
        *text.last_mut().expect("a text") ^= 1;
        step(&text, 0);
        text.extend(bytes(7, SEGMENT));
        step(&text, 1);
        text.extend(bytes(8, 9 * SEGMENT));
        step(&text, 9);
        text.truncate(6 * SEGMENT + 1);
        step(&text, 0);
        step(&bytes(9, 12 * SEGMENT), 12);
    }
}

#[test]
fn a_memory_that_cannot_be_used_says_why() {
    let gpu = testing::gpu();
    let (model, folder) = (model(&gpu, "", false), Folder::new("unusable"));
    let (text, path) = (bytes(1, 9 * SEGMENT + 9), folder.path("text"));
    fs::write(&path, &text).expect("it writes");
    let memories = EXACT.map(|keeps| {
        let memory = folder.path(&format!("{keeps}.mem"));
        write(&model, &path, &memory, keeps, usize::MAX).expect("it reads");
        (memory, keeps)
    });
    for (memory, keeps) in &memories {
        let sound = fs::read(memory).expect("it reads");
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = sound.clone();
            change(&mut bytes);
            fs::write(folder.path("changed"), bytes).expect("it writes");
            let reader = open(&model, &folder.path("changed"));
            // Keys and values are looked at when they are needed.
            reader.and_then(|r| block_on(r.ask(b"what of all of it?", b"", 1))).map(|_| ())
        };
        with(&|_| {}).expect("as it was it can be asked");
        let error = with(&|b| b[0] = b'?').expect_err("no magic");
        assert!(matches!(error, Error::Memory(MemoryError::Foreign { .. })), "{error}");
        let error = with(&|b| b[8] = 1).expect_err("another version");
        assert!(matches!(error, Error::Memory(MemoryError::Version { found: 1, .. })), "{error}");
        let error = with(&|b| b.truncate(b.len() - 1)).expect_err("cut off");
        assert!(matches!(error, Error::Memory(MemoryError::Cut { .. })), "{error}");
        let error = with(&|b| b.truncate(100)).expect_err("cut off");
        assert!(matches!(error, Error::Memory(MemoryError::Cut { .. })), "{error}");
        // Any byte of the log that counts: the first page begins behind the tail, at a multiple of 64.
        let page = sound.windows(4).position(|w| w == b"PAGE").expect("a page");
        for at in [20, page + 5, page + 64 + 3, page + 64 + 4 * 16 + 1] {
            let error = with(&|b| b[at] ^= 16).expect_err("a bit is wrong");
            assert!(matches!(error, Error::Memory(MemoryError::Damaged { .. })), "byte {at}: {error}");
        }
        // One commit of two is enough.
        let mut once = 0;
        for slot in [4096, 8192] {
            once += usize::from(with(&|b| b[slot + 9] ^= 1).is_ok());
        }
        assert!(once >= 1, "the older commit counts less");
        assert!(
            with(&|b| (b[4096 + 9], b[8192 + 9]) = (0xee, 0xee)).is_err(),
            "without commits nothing does"
        );
        if *keeps == Placement::Host {
            let error =
                with(&|b| b[page + 64 + 4 * (16 + 4 * 2 * 16 * 4)..].fill(7)).expect_err("values are wrong");
            assert!(matches!(error, Error::Memory(MemoryError::Damaged { .. })), "{error}");
        }
        let int8 = Keeping { values: *keeps, landmarks: Landmarks::Int8 };
        let error = write(&model, &path, memory, int8, 9).expect_err("landmarks are kept otherwise");
        assert!(matches!(error, Error::Memory(MemoryError::Other { .. })), "{error}");
        let error = MemoryFile::open(Path::new(memory)).and_then(|m| m.reader(&model, "others", None)).err();
        assert!(matches!(error, Some(Error::Memory(MemoryError::Other { .. }))));
        let other = config(r#""segment_size": 128"#);
        let other = Checkpoint::initial(other, 7).expect("it is valid");
        let other = Ramba::new(&gpu, &other, false).expect("it uploads");
        assert!(matches!(open(&other, memory).err(), Some(Error::Memory(MemoryError::Other { .. }))));
        let error = write(&other, &path, memory, *keeps, 9).expect_err("made with others");
        assert!(matches!(error, Error::Memory(MemoryError::Other { .. })), "{error}");
        let other = Checkpoint::initial(config(r#""segment_overlap": 20"#), 7).expect("it is valid");
        let other = Ramba::new(&gpu, &other, false).expect("it uploads");
        let error = open(&other, memory).err().expect("it was read otherwise").to_string();
        assert!(error.contains("segments that overlap by 0 tokens, and this is"), "{error}");
        let busy = fs::File::open(memory).expect("it opens");
        busy.lock().expect("it locks");
        let error = write(&model, &path, memory, *keeps, 9).expect_err("somebody writes");
        assert!(matches!(error, Error::Memory(MemoryError::Busy { .. })), "{error}");
        drop(busy);
        assert!(fs::read(memory).expect("it reads") == sound, "nothing was written");
    }
    // Without the text, or with another one.
    let (memory, _) = &memories[1];
    let ask = || open(&model, memory).and_then(|r| block_on(r.ask(b"what of all of it?", b"", 1)));
    fs::write(&path, &text[..300]).expect("it writes");
    assert!(matches!(ask().err(), Some(Error::Memory(MemoryError::TextCut { needed: 585, found: 300, .. }))));
    fs::write(&path, bytes(2, text.len())).expect("it writes");
    assert!(matches!(ask().err(), Some(Error::Memory(MemoryError::TextChanged { .. }))));
    fs::remove_file(&path).expect("it goes");
    assert!(matches!(ask().err(), Some(Error::Data(_))));
    let moved = folder.path("moved");
    fs::write(&moved, &text).expect("it writes");
    let moved: Arc<TextFile> = Arc::new(TextFile::open(Path::new(&moved)).expect("it opens"));
    assert_eq!(moved.size(), text.len());
    let reader =
        MemoryFile::open(Path::new(memory)).and_then(|m| m.reader(&model, "some weights", Some(moved)));
    block_on(reader.expect("it opens").ask(b"what?", b"", 1)).expect("it answers");
}

/// A file from before there were overlaps says nothing of any.
#[test]
fn a_memory_of_the_version_before_is_read() {
    let gpu = testing::gpu();
    let (plain, folder) = (model(&gpu, "", false), Folder::new("before"));
    let (mut text, question, path) = (bytes(1, 9 * SEGMENT + 9), bytes(3, 20), folder.path("text"));
    fs::write(&path, &text).expect("it writes");
    let memory = folder.path("memory");
    write(&plain, &path, &memory, Placement::Host, usize::MAX).expect("it reads");
    let mut bytes = fs::read(&memory).expect("it reads");
    let length = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes")) as usize;
    let about = String::from_utf8(bytes[16..16 + length].to_vec()).expect("JSON");
    let older = about.replace(r#","overlap":0"#, "");
    assert_ne!(older, about);
    bytes[8..12].copy_from_slice(&2u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&(older.len() as u32).to_le_bytes());
    bytes[16..4092].fill(0);
    bytes[16..16 + older.len()].copy_from_slice(older.as_bytes());
    let crc = bytes[..4092].iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 > 0 { 0xedb8_8320 } else { 0 })
    });
    bytes[4092..4096].copy_from_slice(&(!crc).to_le_bytes());
    fs::write(&memory, bytes).expect("it writes");
    let expected = logits(&read(&plain, Placement::Device, &[&text]), &question);
    assert!(logits(&open(&plain, &memory).expect("it opens"), &question) == expected);
    text[100] ^= 1;
    fs::write(&path, &text).expect("it writes");
    let written = write(&plain, &path, &memory, Placement::Host, usize::MAX).expect("it reads");
    assert_eq!(written.kept, 8 * SEGMENT);
    let expected = logits(&read(&plain, Placement::Device, &[&text]), &question);
    assert!(logits(&open(&plain, &memory).expect("it opens"), &question) == expected);
}

/// Ranks that are threads of this process.
struct Threads {
    said: Vec<Mutex<Vec<u8>>>,
    together: Barrier,
}

struct OneOf<'a>(usize, &'a Threads);

impl Ranks for OneOf<'_> {
    fn rank(&self) -> usize {
        self.0
    }
    fn size(&self) -> usize {
        self.1.said.len()
    }
    fn local(&self) -> usize {
        self.0
    }
    fn gather(&self, mine: &[u8]) -> Vec<Vec<u8>> {
        let Threads { said, together } = self.1;
        *said[self.0].lock().expect("nobody panics") = mine.to_vec();
        together.wait();
        let all = said.iter().map(|said| said.lock().expect("nobody panics").clone()).collect();
        together.wait();
        all
    }
    fn broadcast(&self, bytes: Vec<u8>) -> Vec<u8> {
        self.gather(&bytes).swap_remove(0)
    }
    fn exchange(&self, _: &[f32], _: &[usize]) -> Vec<f32> {
        unreachable!("nothing is trained")
    }
    fn join(&self, _: &[f32], _: &[usize]) -> Vec<f32> {
        unreachable!("nothing is trained")
    }
    fn abort(&self, code: u8) -> ! {
        std::process::exit(code.into())
    }
}

/// Segments are dealt to ranks, and what is in front of each with them.
#[test]
fn ranks_read_replace_and_answer_as_one_does() {
    let gpu = testing::gpu();
    let (text, question) = (bytes(11, SEGMENT * 7 + 37), bytes(12, 9));
    for overlap in [0, 20] {
        let model = model(&gpu, &format!("\"segment_overlap\": {overlap}"), false);
        // What one does, and each of several.
        let done = |mut reader: Reader<'_>| {
            let mut heard = Vec::new();
            for part in [&text[..30], &text[30..200], &text[200..200], &text[200..]] {
                reader.read(part, |_| {}).expect("it reads");
                heard.push(logits(&reader, &question));
            }
            for range in [5..9, 120..128, 180..300, 440..450, 470..485] {
                let mut changed = text.clone();
                changed[range.clone()].copy_from_slice(&bytes(13, range.len()));
                let stretch = reader.stretch(range);
                let saved = reader.replace(stretch.start, &changed[stretch]).expect("it reads");
                heard.push(logits(&reader, &question));
                reader.restore(saved);
            }
            heard.push(logits(&reader.prefix(256), &question));
            heard.push(logits(&reader, &question));
            heard
        };
        let one = done(Reader::new(&model).expect("it has segments"));
        for (size, placement) in [(2, Placement::Device), (3, Placement::Text), (2, Placement::Host)] {
            let threads =
                Threads { said: (0..size).map(|_| Mutex::default()).collect(), together: Barrier::new(size) };
            let heard: Vec<_> = std::thread::scope(|scope| {
                let start = |rank| {
                    let (threads, model, done) = (&threads, &model, &done);
                    scope.spawn(move || {
                        let ranks = OneOf(rank, threads);
                        done(Reader::over(model, placement, &ranks).expect("it has segments"))
                    })
                };
                let all: Vec<_> = (0..size).map(start).collect();
                all.into_iter().map(|rank| rank.join().expect("it goes through")).collect()
            });
            for (rank, heard) in heard.iter().enumerate() {
                assert!(*heard == one, "rank {rank} of {size}, {placement}, overlapping by {overlap}");
            }
        }
    }
}
