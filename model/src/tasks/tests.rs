use std::{collections::BTreeSet, ops::Range, sync::Arc};

use super::{
    fact::{NOUNS, PLAIN},
    *,
};
use crate::{
    data::{Corpus, DataError, Formats, Prose, TextStream},
    rng::Rng,
};

fn sampler(mix: TaskMix) -> Sampler {
    Sampler::new(mix, None, 42).unwrap()
}

/// Statements and questions in a text: (start, end, what).
fn find(text: &[u8], head: &str) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    for start in 0..text.len() {
        if text[start..].starts_with(head.as_bytes()) {
            let end = text[start + 1..].iter().position(|&b| b == b'|').map_or(text.len(), |n| start + n + 2);
            out.push(start..end);
        }
    }
    out
}

fn answer_runs(sample: &Sample) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (at, _) in sample.answer.iter().enumerate().filter(|(_, a)| **a) {
        match runs.last_mut() {
            Some(run) if run.end == at => run.end += 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

/// The question's beginning and the answer, for each answer of a sample.
fn questions(sample: &Sample) -> Vec<(usize, Range<usize>)> {
    answer_runs(sample)
        .into_iter()
        .map(|run| {
            let start = sample.ids[..run.start].iter().rposition(|&b| b == b'|').unwrap();
            (start, run)
        })
        .collect()
}

#[test]
fn facts_have_the_published_form() {
    let mut rng = Rng::new(0);
    let mut lengths = BTreeSet::new();
    for _ in 0..500 {
        let fact = Fact::draw(FactKind::Plain, (5, 8), &mut rng);
        let digits = fact.answer.strip_suffix('|').unwrap();
        assert!((5..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()));
        assert_eq!(fact.text, format!("|The passkey is:{digits}|"));
        assert_eq!(fact.question, "|What is the passkey? The passkey is:");
        assert_eq!(fact.stem(), "|The passkey is:");
        assert!(fact.is_answered_by(fact.answer.as_bytes()) && !fact.is_answered_by(digits.as_bytes()));
        lengths.insert(digits.len());
        let fact = Fact::draw(FactKind::Named, (5, 8), &mut rng);
        let of = fact.text.strip_prefix("|The ").unwrap().split(" is:").next().unwrap();
        let (noun, name) = of.split_once(" of ").unwrap();
        assert!(
            NOUNS.contains(&noun)
                && [4, 6, 8].contains(&name.len())
                && name.as_bytes()[0].is_ascii_uppercase()
        );
        assert_eq!(fact.question, format!("|What is the {noun} of {name}? It is:"));
        assert_eq!(fact.text, format!("|The {noun} of {name} is:{}", fact.answer));
    }
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [5, 6, 7, 8]);
}

/// FNV-1a over what a batch feeds the model.
fn digest(mix: &TaskMix) -> u64 {
    let batch = sampler(mix.clone()).batch(7, 16, 4096).unwrap();
    let weights = batch.weights.iter().map(|w| w.to_bits());
    let all = batch.ids.iter().copied().chain(batch.segment).chain(batch.clean).chain(weights);
    all.fold(0xcbf2_9ce4_8422_2325, |h, word| (h ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn plans_of_earlier_weights_draw_what_they_drew() {
    let passkey = TaskMix { border: 0.05, lead_max: 400, prose: 0.4, ..TaskMix::default() };
    let hard = TaskMix { named: 0.75, facts_min: 2, facts_max: 10, share_named: true, ..passkey.clone() };
    let border = TaskMix { named: 0.7, border: 0.3, ..hard.clone() };
    assert_eq!(
        [passkey, hard, border].map(|mix| digest(&mix)),
        [0xe26a_f20f_9cbc_cce4, 0x3378_d05e_c438_3231, 0x05e6_0b0c_05f4_c84e]
    );
}

#[test]
fn samples_depend_on_seed_step_and_index_alone() {
    let sampler = sampler(TaskMix::default());
    let sample = sampler.sample(5, 3, 1024).unwrap();
    sampler.batch(6, 2, 1024).unwrap();
    assert_eq!(sample, sampler.sample(5, 3, 1024).unwrap());
    assert_ne!(sample, sampler.sample(5, 4, 1024).unwrap());
    assert_ne!(sample, sampler.sample(6, 3, 1024).unwrap());
    let other = Sampler::new(TaskMix::default(), None, 43).unwrap();
    assert_ne!(sample, other.sample(5, 3, 1024).unwrap());
    let batch = sampler.batch(5, 4, 1024).unwrap();
    let ids: Vec<u32> = sample.ids.iter().map(|&b| u32::from(b)).collect();
    assert_eq!(batch.ids[3 * 1024..], ids);
}

#[test]
fn every_answer_follows_its_question_and_its_fact() {
    for length in [1024, 4096] {
        let sampler = sampler(TaskMix::default());
        let (mut asked, mut plain, mut named) = (0, 0, 0);
        for index in 0..200 {
            let sample = sampler.sample(0, index, length).unwrap();
            let facts = find(&sample.ids, PLAIN);
            assert!(facts.len() <= 1, "a crop has at most one plain fact");
            for (start, run) in questions(&sample) {
                let question = std::str::from_utf8(&sample.ids[start..run.start]).unwrap();
                let answer = std::str::from_utf8(&sample.ids[run.clone()]).unwrap();
                let stem = if question == "|What is the passkey? The passkey is:" {
                    plain += 1;
                    PLAIN.to_owned()
                } else {
                    named += 1;
                    let of =
                        question.strip_prefix("|What is the ").unwrap().strip_suffix("? It is:").unwrap();
                    format!("|The {of} is:")
                };
                let fact = find(&sample.ids, &stem);
                assert_eq!(fact.len(), 1, "{stem}");
                assert_eq!(&sample.ids[fact[0].clone()], format!("{stem}{answer}").as_bytes());
                assert!(start >= fact[0].end + 130, "the gap is kept");
                asked += 1;
            }
        }
        assert!(asked > 400 && plain > 100 && named > 200, "{length}: {asked} {plain} {named}");
    }
}

#[test]
fn restarts_never_cut_a_question_and_often_begin_it() {
    let sampler = sampler(TaskMix { facts_min: 6, facts_max: 12, ..TaskMix::default() });
    let (mut all, mut exact, mut near, mut inside_facts) = (0.0, 0.0, 0.0, 0);
    for index in 0..300 {
        let sample = sampler.sample(1, index, 4096).unwrap();
        assert_eq!(sample.segment[0], 0);
        let steps: Vec<u32> = sample.segment.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(steps.iter().all(|&s| s <= 1));
        for (start, run) in questions(&sample) {
            let s = &sample.segment;
            assert_eq!(s[start], s[run.end - 1], "a restart inside a question");
            all += 1.0;
            exact += f64::from(u8::from(s[start] != s[start - 1]));
            near += f64::from(u8::from(s[start] != s[start - 181]));
        }
        for fact in find(&sample.ids, PLAIN) {
            inside_facts += usize::from(sample.segment[fact.start] != sample.segment[fact.end - 1]);
        }
    }
    assert!((exact / all - 0.6_f64).abs() < 0.05, "{}", exact / all);
    // A lead's restart can fall to a later question that takes its place.
    assert!(near / all > 0.97, "{}", near / all);
    assert!(inside_facts > 0, "facts may be cut");
    let still = Sampler::new(TaskMix { restarts: false, ..TaskMix::default() }, None, 0).unwrap();
    assert!(still.sample(0, 0, 4096).unwrap().segment.iter().all(|&s| s == 0));
}

#[test]
fn random_restarts_keep_their_distance() {
    let sampler = sampler(TaskMix { facts_min: 0, facts_max: 0, ..TaskMix::default() });
    for index in 0..100 {
        let sample = sampler.sample(0, index, 4096).unwrap();
        assert!(!sample.answer.contains(&true) && !sample.clean.contains(&false));
        let mut cuts: Vec<usize> =
            (1..4096).filter(|&t| sample.segment[t] != sample.segment[t - 1]).collect();
        cuts.insert(0, 0);
        assert!(cuts.windows(2).all(|w| (192..=768).contains(&(w[1] - w[0]))), "{cuts:?}");
        assert!(4096 - cuts[cuts.len() - 1] <= 768);
    }
}

#[test]
fn border_facts_are_cut_exactly_at_a_chunk() {
    let mix = TaskMix { border: 1.0, named: 0.0, facts_max: 1, ..TaskMix::default() };
    for index in 0..100 {
        let sample = sampler(mix.clone()).sample(0, index, 4096).unwrap();
        let fact = &find(&sample.ids, PLAIN)[0];
        let border = fact.end / 64 * 64;
        assert!(fact.start < border && border < fact.end, "{fact:?}");
        assert_ne!(sample.segment[border], sample.segment[border - 1]);
    }
}

#[test]
fn crossing_facts_lie_in_two_chunks_with_no_restart_there() {
    let restarts = |crossing: f64| {
        let mix = TaskMix { crossing, named: 0.0, facts_max: 1, restarts: true, ..TaskMix::default() };
        let sampler = sampler(mix);
        let cut = |index: usize| {
            let sample = sampler.sample(0, index, 4096).unwrap();
            let fact = &find(&sample.ids, PLAIN)[0];
            let border = fact.end / 64 * 64;
            (fact.start < border && border < fact.end)
                .then(|| sample.segment[border] != sample.segment[border - 1])
        };
        (0..200).filter_map(cut).fold([0, 0], |[all, cut], c| [all + 1, cut + usize::from(c)])
    };
    let [all, cut] = restarts(1.0);
    assert_eq!(all, 200);
    // Those that fall there by chance.
    assert!(cut < 10, "{cut} restarts");
    assert!(restarts(0.0)[0] < 150);
}

#[test]
fn clean_chunks_are_those_without_facts_and_questions() {
    for (chunk, share_named) in [(32, false), (64, false), (64, true)] {
        let sampler = sampler(TaskMix { chunk, share_named, ..TaskMix::default() });
        for index in 0..100 {
            let sample = sampler.sample(2, index, 4096).unwrap();
            let mut dirty = vec![false; 4096];
            let mut heads = vec![PLAIN.to_owned()];
            if !share_named {
                heads.extend(NOUNS.iter().map(|noun| format!("|The {noun} of ")));
            }
            for span in heads.iter().flat_map(|head| find(&sample.ids, head)) {
                dirty[span].fill(true);
            }
            for (start, run) in questions(&sample) {
                let named = sample.ids[start..run.end].windows(4).any(|w| w == b" of ");
                if !(share_named && named) {
                    dirty[start..run.end].fill(true);
                }
            }
            let expected: Vec<bool> = dirty.chunks(chunk).map(|c| !c.contains(&true)).collect();
            assert_eq!(sample.clean, expected);
        }
    }
}

#[test]
fn named_facts_are_shared_unless_a_border_cuts_them() {
    for (border, shared) in [(0.0, true), (1.0, false)] {
        let mix = TaskMix { named: 1.0, share_named: true, border, ..TaskMix::default() };
        let sampler = sampler(mix);
        for index in 0..50 {
            let sample = sampler.sample(3, index, 4096).unwrap();
            let facts: Vec<_> =
                NOUNS.iter().flat_map(|noun| find(&sample.ids, &format!("|The {noun} of "))).collect();
            assert!(!facts.is_empty());
            for fact in facts {
                let chunks = &sample.clean[fact.start / 64..(fact.end - 1) / 64 + 1];
                assert!(chunks.iter().all(|clean| *clean == shared), "{fact:?}: {chunks:?}");
            }
        }
    }
}

#[test]
fn weights_are_the_two_means() {
    let sampler = sampler(TaskMix { answer_weight: 1.5, ..TaskMix::default() });
    let (sequences, length) = (4, 1024);
    let batch = sampler.batch(9, sequences, length).unwrap();
    assert_eq!((batch.step, batch.sequences, batch.length), (9, 4, 1024));
    assert_eq!(batch.clean.len(), sequences * length / 64);
    // Any cross entropies: the definition of the recipe against the weights.
    let mut rng = Rng::new(0);
    let ce: Vec<f64> = (0..sequences * length).map(|_| rng.float() * 6.0).collect();
    let (mut text, mut answers) = ((0.0, 0.0), (0.0, 0.0));
    for row in 0..sequences {
        let sample = sampler.sample(9, row, length).unwrap();
        for t in 0..length - 1 {
            let at = row * length + t;
            assert_eq!(batch.targets[at], u32::from(sample.ids[t + 1]));
            let mean = if sample.answer[t + 1] { &mut answers } else { &mut text };
            *mean = (mean.0 + ce[at], mean.1 + 1.0);
        }
        let last = row * length + length - 1;
        assert_eq!((batch.weights[last], batch.answer_weights[last]), (0.0, 0.0));
        assert_eq!(batch.segment[row * length..][..length], sample.segment);
    }
    assert!(answers.1 > 0.0);
    let sum = |w: &[f32]| w.iter().zip(&ce).map(|(&w, ce)| f64::from(w) * ce).sum::<f64>();
    assert!((sum(&batch.answer_weights) - answers.0 / answers.1).abs() < 1e-5);
    let loss = text.0 / text.1 + 1.5 * answers.0 / answers.1;
    assert!((sum(&batch.weights) - loss).abs() < 1e-5);
    let plain = Sampler::new(TaskMix { facts_min: 0, facts_max: 0, ..TaskMix::default() }, None, 0).unwrap();
    let batch = plain.batch(0, 2, 64).unwrap();
    assert!((batch.weights.iter().map(|&w| f64::from(w)).sum::<f64>() - 1.0).abs() < 1e-5);
}

#[test]
fn corpus_and_generator_are_mixed() {
    let corpus = Arc::new(Corpus::from_text("x", &[b'#'; 5000], 0.1).unwrap());
    let sampler =
        |prose| Sampler::new(TaskMix { prose, ..TaskMix::default() }, Some(corpus.clone()), 0).unwrap();
    let from_corpus = |prose| {
        let sampler = sampler(prose);
        (0..200).filter(|&i| sampler.sample(0, i, 256).unwrap().ids.contains(&b'#')).count()
    };
    // Headings have a few of that sign too.
    assert!(from_corpus(1.0) < 20 && from_corpus(0.0) == 200 && (70..130).contains(&from_corpus(0.5)));
    assert!(matches!(
        sampler(0.5).batch(0, 1, 8192),
        Err(DataError::TooShort { have: 4500, need: 8192, .. })
    ));
    assert!(sampler(1.0).batch(0, 1, 8192).is_ok());
    assert!(sampler(0.0).batch(0, 1, 4480).is_ok());
}

#[test]
fn senseless_settings_are_refused() {
    let ok = TaskMix::default;
    for mix in [
        TaskMix { named: 1.5, ..ok() },
        TaskMix { prose: f64::NAN, ..ok() },
        TaskMix { answer_weight: f64::INFINITY, ..ok() },
        TaskMix { facts_min: 7, ..ok() },
        TaskMix { digits_min: 0, ..ok() },
        TaskMix { digits_max: usize::MAX, ..ok() },
        TaskMix { cut_min: 0, ..ok() },
        TaskMix { cut_max: usize::MAX, ..ok() },
        TaskMix { question_gap: usize::MAX, ..ok() },
        TaskMix { chunk: 0, ..ok() },
    ] {
        assert!(matches!(Sampler::new(mix.clone(), None, 0), Err(DataError::Setting { .. })), "{mix:?}");
    }
    let sampler = sampler(ok());
    for (sequences, length) in [(0, 1024), (1, 0), (1, 64), (1, 1000)] {
        assert!(matches!(sampler.batch(0, sequences, length), Err(DataError::Setting { .. })));
    }
    assert!(sampler.batch(0, 1, 256).is_ok());
    assert!(serde_json::from_str::<TaskMix>(r#"{"namd": 0.5}"#).is_err());
    assert_eq!(serde_json::from_str::<TaskMix>(r#"{"named": 0.5}"#).unwrap(), ok());
}

#[test]
fn extreme_settings_still_give_whole_samples() {
    for mix in [
        TaskMix { digits_max: 64, digits_min: 64, facts_max: 30, ..TaskMix::default() },
        TaskMix { tail: 0, question_gap: 0, lead_max: 4000, border: 0.5, ..TaskMix::default() },
        TaskMix { tail: 100_000, short_crop: 0, ..TaskMix::default() },
        TaskMix { chunk: 1, border: 1.0, ..TaskMix::default() },
        TaskMix { tries: 0, cut_min: 1, cut_max: 1, ..TaskMix::default() },
    ] {
        for length in [256, 1024] {
            let batch = sampler(mix.clone()).batch(0, 50, length).unwrap();
            assert_eq!(batch.ids.len(), 50 * length);
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
#[test]
fn prefetched_batches_equal_those_drawn_directly() {
    let sampler = Arc::new(sampler(TaskMix::default()));
    let plan = |step| (step < 12).then_some(if step < 8 { (4, 256) } else { (1, 1024) });
    for threads in [1, 3, 16] {
        let batches: Vec<Batch> =
            Prefetch::new(sampler.clone(), 5, threads, 2, plan).collect::<Result<_, _>>().unwrap();
        let direct: Vec<Batch> = (5..12)
            .map(|step| {
                let (sequences, length) = plan(step).unwrap();
                sampler.batch(step, sequences, length).unwrap()
            })
            .collect();
        assert!(batches == direct, "{threads} threads");
    }
    // Dropped while the workers are blocked.
    let mut endless = Prefetch::new(sampler, 0, 2, 1, |_| Some((1, 256)));
    assert_eq!(endless.next().unwrap().unwrap().step, 0);
}

#[cfg(not(target_arch = "wasm32"))]
#[test]
fn a_worker_error_or_panic_is_handed_on() {
    let sampler = Arc::new(sampler(TaskMix::default()));
    let plan = |step| if step == 3 { panic!("planned") } else { Some((1, 256)) };
    let mut batches = Prefetch::new(sampler.clone(), 0, 2, 1, plan);
    for _ in 0..3 {
        assert!(batches.next().unwrap().is_ok());
    }
    assert!(matches!(batches.next(), Some(Err(DataError::Worker { message })) if message == "planned"));
    assert!(batches.next().is_none());
    let mut batches = Prefetch::new(sampler, 0, 2, 1, |_| Some((1, 100)));
    assert!(matches!(batches.next(), Some(Err(DataError::Setting { .. }))));
    assert!(batches.next().is_none());
}

#[test]
fn trials_are_uniform_and_deterministic() {
    let hay = Haystack::prose(3, 1 << 16).unwrap();
    for kind in FactKind::ALL {
        let needles = hay.trials(kind, 200, 1).unwrap();
        assert_eq!(needles, hay.trials(kind, 200, 1).unwrap());
        assert_ne!(needles, hay.trials(kind, 200, 2).unwrap());
        let room = hay.len() / 200 + 64;
        for (i, needle) in needles.iter().enumerate() {
            assert_eq!(needle.fact.kind, kind);
            assert!(needle.span().end <= hay.len());
            assert!(needle.position.abs_diff(i * hay.len() / 200) <= room);
        }
        assert!(needles[199].depth(hay.len()) > 0.99 && needles[0].depth(hay.len()) < 0.01);
        let cut = |size| needles.iter().filter(|n| n.is_cut_by(size)).count();
        assert!((40..160).contains(&cut(64)) && (1..40).contains(&cut(512)), "{} {}", cut(64), cut(512));
    }
    assert!(matches!(hay.trials(FactKind::Plain, 0, 0), Err(DataError::Setting { .. })));
    let tiny = Haystack::new(b"short".to_vec()).unwrap();
    assert!(matches!(tiny.trials(FactKind::Plain, 1, 0), Err(DataError::TooShort { .. })));
}

#[test]
fn a_needle_shows_only_in_its_place() {
    let hay = Haystack::prose(3, 2048).unwrap();
    let needle = Needle { position: 500, ..hay.trials(FactKind::Plain, 1, 0).unwrap().remove(0) };
    assert_eq!((needle.blocks(512), needle.blocks(64)), (0..2, 7..9));
    let mut text = hay.text();
    text[needle.span()].copy_from_slice(needle.fact.text.as_bytes());
    for range in [0..2048, 0..512, 512..1024, 505..510, 0..500, 1024..2048, 7..7] {
        assert_eq!(hay.with(&needle, range.clone()), text[range]);
    }
}

#[test]
fn a_plain_needle_stands_alone() {
    let text = [&[b'x'; 100][..], b"|The passkey is:12345|", &[b'y'; 100]].concat();
    let mut hay = Haystack::new(text).unwrap();
    let expected = |e| matches!(e, Err(DataError::Occupied { offset: 100, .. }));
    assert!(expected(hay.trials(FactKind::Plain, 5, 0)) && hay.trials(FactKind::Named, 5, 0).is_ok());
    assert!(expected(hay.plant(&[FactKind::Plain], 0)));
    assert!(hay.plant(&[FactKind::Plain, FactKind::Plain], 0).is_err() && hay.plant(&[], 0).is_err());
    // In other words it has as many answers.
    let trials = |said: &str| {
        let text = [&[b'x'; 100][..], said.as_bytes(), &[b'y'; 100]].concat();
        Haystack::new(text).unwrap().trials(FactKind::Plain, 5, 0)
    };
    let stated = [
        "Passkey: 61058",
        "PASSKEY = 61058",
        "\npasskey=61058\n",
        " passkey is 6105.",
        "61058 is the passkey",
        "\"passkey\": \"6105\"",
    ];
    for said in stated {
        let Err(DataError::Occupied { found, offset }) = trials(said) else { panic!("{said}") };
        assert!(found.starts_with(&said[offset - 100..].trim_end()[..9]), "{said}: {found}");
    }
    for said in [
        "the passkey. 61058 5",
        "Passkey: 610",
        "passkey is lost",
        "passkey",
        "61058 is the key",
        "Passkey: A 61058",
    ] {
        assert!(trials(said).is_ok(), "{said}");
    }
}

#[test]
fn generated_text_answers_no_plain_question() {
    for hay in [Haystack::prose(0, 1 << 24), Haystack::formats(0, 1 << 22)] {
        assert!(hay.unwrap().trials(FactKind::Plain, 1, 0).is_ok());
    }
}

#[test]
fn planted_needles_are_all_there_once() {
    use FactKind::*;
    let mut hay = Haystack::prose(8, 8000).unwrap();
    let needles = hay.plant(&[Named, Plain, Named, Named, Named], 7).unwrap();
    for needle in &needles {
        assert_eq!(&hay.text()[needle.span()], needle.fact.text.as_bytes());
        assert_eq!(find(&hay.text(), &needle.fact.stem()).len(), 1);
    }
    assert!(needles.windows(2).all(|w| w[0].span().end <= w[1].position));
    // A second plain fact would make the question ambiguous.
    assert!(matches!(hay.plant(&[Plain], 1), Err(DataError::Occupied { .. })));
    let mut tiny = Haystack::new(vec![b'x'; 60]).unwrap();
    assert!(matches!(tiny.plant(&[Named; 3], 0), Err(DataError::TooShort { .. })));
}

#[test]
fn a_short_text_is_continued_with_its_own_pieces() {
    let text = Prose::new(4).text(1000);
    let hay = Haystack::from_text(&text, 5000, 0).unwrap();
    assert_eq!((hay.len(), &hay.text()[..1000]), (5000, &text[..]));
    assert_eq!(Haystack::from_text(&text, 10, 0).unwrap().text(), &text[..10]);
    assert!(Haystack::from_text(b"", 10, 0).is_err() && Haystack::from_text(&text, 0, 0).is_err());
    let mut rng = Rng::new(0);
    for _ in 0..100 {
        let lead = hay.lead(300, &mut rng);
        assert!(lead.len() <= 300);
        assert!(lead.is_empty() || hay.text().windows(lead.len()).any(|w| w == lead));
    }
}

#[test]
fn any_part_of_any_text_is_that_part() {
    let long = 100_000;
    let book = Prose::new(4).text(20_000);
    let hays = [
        (Haystack::prose(3, long).unwrap(), Prose::held(3).text(long)),
        (Haystack::formats(3, long).unwrap(), Formats::held(3).text(long)),
        (Haystack::new(book.clone()).unwrap(), book.clone()),
    ];
    let pieces = Haystack::from_text(&book, long, 5).unwrap();
    let mut rng = Rng::new(1);
    for (hay, text) in hays.into_iter().chain([(pieces.clone(), pieces.text())]) {
        assert!(hay.text() == text);
        for _ in 0..40 {
            let from = rng.below(text.len() + 1);
            let to = rng.range(from, text.len());
            assert!(hay.bytes(from..to) == text[from..to], "{from}..{to}");
        }
        let part = hay.prefix(5000).unwrap();
        assert!(part.text() == text[..5000] && part.bytes(4990..5000) == text[4990..5000]);
        let mut planted = hay.clone();
        let needle = planted.plant(&[FactKind::Named], 3).unwrap().remove(0);
        let mut changed = text.clone();
        changed[needle.span()].copy_from_slice(needle.fact.text.as_bytes());
        assert!(planted.text() == changed && hay.text() == text);
        let mut read = vec![0; 30];
        planted.source().fill(needle.position + 3, &mut read).unwrap();
        assert!(read == changed[needle.position + 3..][..30]);
    }
    assert!(Haystack::prose(3, 0).is_err() && pieces.prefix(0).is_err());
}

/// A question has one answer: what the text states, or speaks of in other words, is not asked for.
#[test]
fn no_needle_is_about_what_the_text_speaks_of() {
    let hay = Haystack::prose(11, 1 << 16).unwrap();
    for needle in hay.trials(FactKind::Named, 30, 4).unwrap() {
        let (noun, name) = needle.fact.of.clone().unwrap();
        for said in [
            format!("|The {noun} of {name} is:123|"),
            format!("The {noun} of {name} was lost."),
            format!("the {noun} of {name}'s brother"),
        ] {
            // Across a border of the pieces that texts are looked through in, too.
            for at in [10_000, (1 << 20) - 7] {
                let mut text = vec![b' '; (1 << 20) + 1000];
                text[at..at + said.len()].copy_from_slice(said.as_bytes());
                let other = Haystack::new(text).unwrap();
                assert!(
                    other.stated(&needle.fact.stem()).is_some_and(|found| found.abs_diff(at) < 5),
                    "{said}"
                );
                let free = |stem: String| other.stated(&stem).is_none();
                assert!(free(format!("|The {noun} of {name}ra is:")) && free("|The passkey is:".into()));
            }
        }
    }
}

#[test]
fn questions_take_the_form_of_training() {
    let mut rng = Rng::new(0);
    for kind in FactKind::ALL {
        let fact = Fact::draw(kind, (5, 8), &mut rng);
        let plain = fact.question[1..].split_inclusive('?').next().unwrap();
        assert_eq!(prompt(plain), fact.question);
        assert_eq!(prompt(&format!(" {} ", plain.trim_end_matches('?'))), fact.question);
        assert_eq!(prompt(&fact.question), fact.question);
    }
}

#[test]
fn kinds_have_names() {
    for kind in FactKind::ALL {
        assert_eq!(kind.to_string().parse::<FactKind>().unwrap(), kind);
    }
    assert!("both".parse::<FactKind>().is_err());
}

#[test]
fn twins_are_almost_the_same_and_never_the_same() {
    let mut rng = Rng::new(1);
    let distance = |a: &str, b: &str| {
        // Letters changed, or all that is there once and not twice.
        let same = a.bytes().zip(b.bytes()).filter(|(a, b)| a.eq_ignore_ascii_case(b)).count();
        a.len().max(b.len()) - same
    };
    let (mut names, mut nouns, mut digits) = (0, 0, 0);
    for i in 0..2000 {
        let fact = Fact::draw(FactKind::ALL[i % 2], (5, 8), &mut rng);
        let twin = fact.twin((5, 8), &mut rng);
        assert_ne!(fact.question, twin.question);
        assert_eq!(twin.text, format!("{}{}", twin.stem(), twin.answer));
        digits += usize::from(
            fact.digits().len() == twin.digits().len() && distance(fact.digits(), twin.digits()) <= 2,
        );
        let (Some((noun, name)), Some((other, whose))) = (&fact.of, &twin.of) else {
            assert_eq!(twin.of.as_ref().map(|of| of.0.as_str()), Some("passkey"));
            continue;
        };
        if noun == other {
            assert!(name != whose && distance(name, whose) <= 4, "{name} {whose}");
            names += 1;
        } else {
            assert_eq!(name, whose);
            nouns += 1;
        }
    }
    assert!(names > 400 && nouns > 400 && (900..1200).contains(&digits), "{names} {nouns} {digits}");
}

#[test]
fn other_words_say_the_same() {
    let mut rng = Rng::new(2);
    for kind in FactKind::ALL {
        let (mut statements, mut questions) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..300 {
            let fact = Fact::draw(kind, (6, 6), &mut rng);
            let said = fact.reworded(&mut rng);
            assert_eq!((&said.answer, &said.of, said.stem()), (&fact.answer, &fact.of, fact.stem()));
            assert!(
                said.text.contains(fact.digits())
                    && said.question.starts_with('|')
                    && said.question.ends_with(':')
            );
            let (noun, name) = fact.of.clone().unwrap_or(("passkey".into(), "passkey".into()));
            for part in [&noun, &name] {
                assert!(said.text.to_lowercase().contains(&part.to_lowercase()), "{}", said.text);
                assert!(said.question.contains(part), "{}", said.question);
            }
            let form = |text: &str| text.replace(fact.digits(), "#").replace(&name, "N").replace(&noun, "n");
            statements.insert(form(&said.text));
            questions.insert(form(&said.question));
        }
        assert!(statements.len() >= 5 && questions.len() == 3, "{statements:?} {questions:?}");
    }
}

/// What follows `= ` in the statement about a variable.
fn value<'a>(statements: &[&'a str], name: &str) -> Option<&'a str> {
    let head = format!("|VAR {name} = ");
    let mut found = statements.iter().filter_map(|s| s.strip_prefix(head.as_str())?.strip_suffix('|'));
    found.next().filter(|_| found.next().is_none())
}

#[test]
fn variables_need_their_hops() {
    let mut rng = Rng::new(3);
    for hops in (0..200).map(|i| i % 3) {
        let chains = Chain::draw(hops, (5, 8), &mut rng);
        let all: Vec<&str> = chains.iter().flat_map(|c| c.statements.iter().map(String::as_str)).collect();
        assert_eq!(all.len(), 2 * (hops + 1));
        for chain in &chains {
            let asked = chain.question.strip_prefix("|What is the value of VAR ").unwrap();
            let mut name = asked.strip_suffix("? It is:").unwrap();
            let mut way = Vec::new();
            while let Some(next) = value(&all, name) {
                way.push(next);
                name = next;
            }
            assert_eq!(way.len(), hops + 1, "the variables, then the number");
            assert_eq!(format!("{}|", way.join(" = ")), chain.answer);
            assert!(name.bytes().all(|b| b.is_ascii_digit()));
            if hops < Chain::HOPS {
                continue;
            }
            // No statement holds both the variable asked for and the number, or reaches the number in one hop.
            assert!(
                all.iter()
                    .all(|s| !(s.contains(asked.strip_suffix("? It is:").unwrap()) && s.contains(name)))
            );
            let first = &way[0];
            assert!(all.iter().all(|s| !(s.contains(*first) && s.contains(name))));
        }
    }
}

#[test]
fn harder_crops_hold_what_they_ask_for() {
    let mix = TaskMix {
        named: 0.8,
        facts_min: 2,
        twins: 0.5,
        reworded: 0.5,
        multi: 1.0,
        variables: 1.0,
        formats: 0.5,
        border: 0.1,
        share_named: true,
        ..TaskMix::default()
    };
    let (mut multi, mut tracked, mut reworded) = (0, 0, 0);
    for index in 0..200 {
        let sample = sampler(mix.clone()).sample(4, index, 4096).unwrap();
        for (start, run) in questions(&sample) {
            let question = std::str::from_utf8(&sample.ids[start..run.start]).unwrap();
            let answer = std::str::from_utf8(&sample.ids[run.clone()]).unwrap().strip_suffix('|').unwrap();
            assert_eq!(sample.segment[start], sample.segment[run.end - 1], "a restart inside a question");
            let before = String::from_utf8_lossy(&sample.ids[..start]).into_owned();
            if let Some(asked) = question.strip_prefix("|What are the ") {
                let pairs = asked.strip_suffix("? They are:").unwrap().split(" and the ");
                for (pair, digits) in pairs.zip(answer.split(" and ")) {
                    let (noun, name) = pair.split_once(" of ").unwrap();
                    let stated = before.match_indices(digits).any(|(at, _)| {
                        let near = &before.as_bytes()[at.saturating_sub(40)..(at + 48).min(before.len())];
                        let near = String::from_utf8_lossy(near).into_owned();
                        near.contains(noun) && near.contains(name)
                    });
                    assert!(stated, "{question} {answer}");
                }
                multi += 1;
            } else if let Some(asked) = question.strip_prefix("|What is the value of VAR ") {
                let mut name = asked.strip_suffix("? It is:").unwrap();
                for next in answer.split(" = ") {
                    assert!(before.contains(&format!("|VAR {name} = {next}|")), "{question} {answer}");
                    name = next;
                }
                tracked += 1;
            } else {
                assert!(before.contains(answer), "{question} {answer}");
                reworded += usize::from(!before.contains(&format!(" is:{answer}|")));
            }
        }
    }
    assert!(multi > 150 && tracked > 250 && reworded > 100, "{multi} {tracked} {reworded}");
}

#[test]
fn trials_of_every_task_ask_for_what_stands_in_the_text() {
    let hay = Haystack::prose(5, 1 << 14).unwrap();
    for task in Task::ALL {
        let trials = hay.ruler(task, 50, 1).unwrap();
        assert_eq!(trials, hay.ruler(task, 50, 1).unwrap());
        assert_ne!(trials, hay.ruler(task, 50, 2).unwrap());
        assert_eq!(task.name().parse::<Task>().unwrap(), task);
        let count = match task {
            Task::Passkey | Task::Named | Task::Reworded => 1,
            Task::Similar | Task::MultiQuery | Task::Variables => 6,
            Task::OneHop => 4,
        };
        for (i, trial) in trials.iter().enumerate() {
            assert_eq!(trial.statements.len(), count);
            let mut spans: Vec<_> = (0..count).map(|s| trial.span(s)).collect();
            assert!(spans[trial.first].start.abs_diff(i * hay.len() / 50) <= hay.len() / 50 + 64);
            // Together in the text, none over another.
            let all = trial.statements.iter().map(|(at, text)| (*at, text.as_str()));
            let text = hay.with_all(all, 0..hay.len());
            for (at, statement) in &trial.statements {
                assert_eq!(&text[*at..at + statement.len()], statement.as_bytes());
            }
            spans.sort_by_key(|s| s.start);
            assert!(spans.windows(2).all(|w| w[0].end <= w[1].start));
            let first = &trial.statements[trial.first].1;
            let begin = trial.answer.split([' ', '|']).next().unwrap();
            assert!(first.contains(begin), "{first} {}", trial.answer);
            if task == Task::Similar {
                let alone = trial.statements.iter().filter(|(_, text)| text.ends_with(&trial.answer)).count();
                assert!(alone >= 1 && trial.statements.iter().all(|(_, text)| text.starts_with("|The ")));
            }
        }
    }
    assert!(matches!("poems".parse::<Task>(), Err(DataError::Setting { .. })));
    assert!(matches!(hay.ruler(Task::Named, 0, 0), Err(DataError::Setting { .. })));
    let tiny = Haystack::new(vec![b'x'; 200]).unwrap();
    assert!(matches!(tiny.ruler(Task::Variables, 1, 0), Err(DataError::TooShort { .. })));
    let stated = Haystack::new([&[b'x'; 500][..], b"|The passkey is:12345|"].concat()).unwrap();
    assert!(matches!(stated.ruler(Task::Passkey, 1, 0), Err(DataError::Occupied { offset: 500, .. })));
    assert_ne!(Haystack::formats(1, 500).unwrap().text(), Formats::new(1).text(500));
}

fn every_task() -> TaskMix {
    TaskMix {
        named: 0.8,
        twins: 0.3,
        reworded: 0.3,
        multi: 0.5,
        variables: 0.5,
        hops_min: 0,
        ..TaskMix::default()
    }
}

#[test]
fn evidence_is_where_an_answer_was_stated() {
    let (mut parted, mut whole) = (0, 0);
    for (restarts, length) in [(true, 4096), (false, 4096), (true, 1024)] {
        let sampler = sampler(TaskMix { restarts, ..every_task() });
        for index in 0..100 {
            let sample = sampler.sample(2, index, length).unwrap();
            for Evidence { token, source, statement } in &sample.evidence {
                assert_eq!(sample.ids[*token], sample.ids[*source]);
                assert!(sample.answer[*token] && statement.contains(source) && statement.end + 130 <= *token);
                assert_eq!(sample.segment[statement.start], sample.segment[*source], "nothing parts them");
                let text = std::str::from_utf8(&sample.ids[statement.clone()]).unwrap();
                assert!([b'|', b' ', b'\n'].contains(&sample.ids[statement.start]), "{text}");
                // Digits that come first are told where the rest of the statement lies in their chunk, too.
                let cut = (source / 64 + 1) * 64;
                let named = text.trim_end_matches('|').len() + statement.start <= cut;
                assert!(named || !text[1..].starts_with(|c: char| c.is_ascii_digit()), "{text} cut at {cut}");
            }
            assert!(sample.evidence.windows(2).all(|two| two[0].token < two[1].token));
            // Digits are values, whatever else an answer says.
            let digits = (0..length).filter(|&t| sample.answer[t] && sample.ids[t].is_ascii_digit());
            for token in digits {
                match sample.evidence.binary_search_by_key(&token, |e| e.token) {
                    Ok(_) => whole += 1,
                    Err(_) => {
                        let digit = |t: &usize| sample.ids[*t].is_ascii_digit();
                        let begin = (0..token).rev().take_while(digit).last().unwrap_or(token);
                        let end = (token..length).take_while(digit).last().unwrap_or(token);
                        let run = String::from_utf8(sample.ids[begin..=end].to_vec()).unwrap();
                        let first = !find(&sample.ids, &format!("{run} is the ")).is_empty();
                        assert!(restarts || first, "{run} without evidence, and nothing restarts");
                        parted += 1;
                    }
                }
            }
        }
    }
    assert!(whole > 10 * parted && parted > 0, "{whole} {parted}");
}

#[test]
fn chunks_are_unasked_where_no_question_lies() {
    let sampler = sampler(every_task());
    for index in 0..100 {
        let sample = sampler.sample(3, index, 4096).unwrap();
        let asked: BTreeSet<usize> = questions(&sample)
            .into_iter()
            .flat_map(|(start, run)| start / 64..(run.end - 1) / 64 + 1)
            .collect();
        for (chunk, unasked) in sample.unasked.iter().enumerate() {
            assert_eq!(*unasked, !asked.contains(&chunk), "chunk {chunk} of {index}");
        }
    }
}

#[test]
fn a_batch_counts_evidence_through_its_rows() {
    let (sequences, length) = (5, 4096);
    let batch = sampler(every_task()).batch(4, sequences, length).unwrap();
    assert_eq!(batch.evidence_tokens.len(), sequences * Batch::EVIDENCE);
    let mut sum = 0.0;
    for (at, (&token, told)) in batch.evidence_tokens.iter().zip(&batch.evidence_chunks).enumerate() {
        let weight = batch.evidence_weights[at];
        sum += weight;
        assert_eq!(weight == 0.0, token == u32::MAX);
        if token == u32::MAX {
            continue;
        }
        let row = at / Batch::EVIDENCE;
        assert_eq!(token as usize / length, row);
        assert!(batch.answer_weights[token as usize] > 0.0, "a token that an answer's follows");
        let [chunk, first, last] = told.map(|chunk| chunk as usize);
        assert!((row * 64..=chunk).contains(&first) && (chunk..(row + 1) * 64).contains(&last));
        let said = batch.ids[token as usize + 1];
        assert!(batch.ids[64 * chunk..64 * (chunk + 1)].contains(&said), "what follows is in the chunk");
    }
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    // Answers of which there are more are thinned out over the whole row.
    let many = sampler(TaskMix { facts_min: 12, facts_max: 12, ..every_task() }).batch(0, 1, length).unwrap();
    assert!(many.evidence_tokens.iter().all(|&token| token != u32::MAX));
    assert!(many.evidence_tokens.windows(2).all(|two| two[0] < two[1]));
}
