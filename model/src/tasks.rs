//! What the model is trained and examined on: facts hidden in text, and questions about them.
//!
//! A fact is `|The passkey is:48213|` (plain) or `|The code of Rivaze is:7731942|` (named); its question comes
//! later and is answered by the digits and the closing bar. [`Sampler`] draws training batches: sample i of step s
//! depends on (seed, s, i) alone, so a run is resumed by its step number and batches can be built ahead in any
//! number of threads ([`Prefetch`]). [`Haystack`] and [`Needle`] are the examination.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::data::{Corpus, DataError, Prose};
use crate::rng::Rng;

/// Greedy answers end with this.
pub const STOP: &str = "|";

const NOUNS: [&str; 6] = ["passkey", "code", "number", "key", "pin", "secret"];
const PLAIN: &str = "|The passkey is:";

/// Random streams that must never meet: each begins with a number of its own.
const TRAINING: u64 = 1;
const EXAMINATION: u64 = 2;
const PIECES: u64 = 3;

/// The kinds of fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FactKind {
    /// `|The passkey is:48213|`, alone of its kind in a text.
    Plain,
    /// `|The code of Rivaze is:7731942|`, with an invented name.
    Named,
}

impl FactKind {
    /// Every kind, in the order of reports.
    pub const ALL: [FactKind; 2] = [FactKind::Plain, FactKind::Named];

    /// The kind's word on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            FactKind::Plain => "plain",
            FactKind::Named => "named",
        }
    }
}

impl std::fmt::Display for FactKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for FactKind {
    type Err = DataError;
    fn from_str(word: &str) -> Result<Self, DataError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == word)
            .ok_or_else(|| setting("the kind of fact", word, "`plain` or `named`"))
    }
}

/// A statement, the question about it, and the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Its kind.
    pub kind: FactKind,
    /// What stands in the text, `|The passkey is:48213|`.
    pub text: String,
    /// What is asked, `|What is the passkey? The passkey is:`.
    pub question: String,
    /// What must follow, `48213|`, up to and with [`STOP`].
    pub answer: String,
}

impl Fact {
    /// Draws a fact with `digits.0` to `digits.1` digits.
    pub fn draw(kind: FactKind, digits: (usize, usize), rng: &mut Rng) -> Self {
        let answer: String =
            (0..rng.range(digits.0, digits.1)).map(|_| char::from(b'0' + rng.below(10) as u8)).collect();
        let (text, question) = match kind {
            FactKind::Plain => {
                (format!("{PLAIN}{answer}|"), "|What is the passkey? The passkey is:".to_owned())
            }
            FactKind::Named => {
                let (noun, name) = (*rng.pick(&NOUNS), name(rng));
                (
                    format!("|The {noun} of {name} is:{answer}|"),
                    format!("|What is the {noun} of {name}? It is:"),
                )
            }
        };
        Self { kind, text, question, answer: answer + STOP }
    }

    /// The statement up to its digits, `|The passkey is:`.
    pub fn stem(&self) -> &str {
        &self.text[..self.text.len() - self.answer.len()]
    }

    /// Whether a generated text is the expected answer, to the last digit and the stop.
    pub fn is_answered_by(&self, generated: &[u8]) -> bool {
        generated == self.answer.as_bytes()
    }
}

/// A question as people write it in the form that the model was trained on: `What is the passkey?` becomes
/// `|What is the passkey? The passkey is:`, others end in `It is:`. What begins with `|` is taken as it is.
pub fn prompt(question: &str) -> String {
    let question = question.trim();
    if question.starts_with('|') {
        return question.to_owned();
    }
    let question = question.trim_end_matches('?').trim_end();
    let plain = question.eq_ignore_ascii_case("what is the passkey");
    format!("|{question}? {} is:", if plain { "The passkey" } else { "It" })
}

/// Two to four open syllables.
fn name(rng: &mut Rng) -> String {
    let mut name = String::with_capacity(8);
    for _ in 0..rng.range(2, 4) {
        name.push(char::from(*rng.pick(b"bcdfghjklmnprstvwz")));
        name.push(char::from(*rng.pick(b"aeiou")));
    }
    name[..1].make_ascii_uppercase();
    name
}

fn setting(field: &'static str, value: impl ToString, expected: impl Into<String>) -> DataError {
    DataError::Setting { field, value: value.to_string(), expected: expected.into() }
}

/// The training mixture; the defaults are the recipe that works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskMix {
    /// Share of the facts that are named.
    pub named: f64,
    /// Least number of facts a crop.
    pub facts_min: usize,
    /// Most facts a crop; 0 trains on plain text alone.
    pub facts_max: usize,
    /// Fewest digits of an answer.
    pub digits_min: usize,
    /// Most digits of an answer.
    pub digits_max: usize,
    /// Questions tried for each fact; one that finds no free place is left out.
    pub questions: usize,
    /// Least distance from a fact's end to its question, in tokens.
    pub question_gap: usize,
    /// Places tried for a fact before it is left out.
    pub tries: usize,
    /// In crops up to this length facts stand in the first half.
    pub short_crop: usize,
    /// In longer crops no fact begins in this many last tokens.
    pub tail: usize,
    /// Whether states restart within a crop at all.
    pub restarts: bool,
    /// Least distance between two random restarts.
    pub cut_min: usize,
    /// Greatest distance between two random restarts.
    pub cut_max: usize,
    /// Probability that states restart exactly where a question begins.
    pub question_restart: f64,
    /// Otherwise they restart up to this many tokens before it.
    pub lead_max: usize,
    /// Share of the facts laid across a border of two chunks with a restart exactly there, as happens to one needle
    /// in twenty when a text is read in segments.
    pub border: f64,
    /// Whether chunks whose only facts and questions are named count as fact-free for the other sequences of a group:
    /// their names are other names, so they are the hardest of honest distractors. Facts cut by a border stay out of the
    /// others' sight: nothing in a second half of digits says whose it is.
    pub share_named: bool,
    /// Weight of the answers' mean cross entropy beside the text's.
    pub answer_weight: f64,
    /// Share of the crops from the generator rather than the corpus; without a corpus, all of them.
    pub prose: f64,
    /// Tokens a chunk, for the flags of fact-free chunks.
    pub chunk: usize,
}

impl Default for TaskMix {
    fn default() -> Self {
        Self {
            named: 0.5,
            facts_min: 1,
            facts_max: 6,
            digits_min: 5,
            digits_max: 8,
            questions: 2,
            question_gap: 130,
            tries: 20,
            short_crop: 1024,
            tail: 600,
            restarts: true,
            cut_min: 192,
            cut_max: 768,
            question_restart: 0.6,
            lead_max: 180,
            border: 0.0,
            share_named: false,
            answer_weight: 1.0,
            prose: 0.5,
            chunk: 64,
        }
    }
}

impl TaskMix {
    /// Refuses values that make no sense.
    pub fn check(&self) -> Result<(), DataError> {
        let shares = [
            ("tasks.named", self.named),
            ("tasks.question_restart", self.question_restart),
            ("tasks.border", self.border),
            ("tasks.prose", self.prose),
        ];
        for (field, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                return Err(setting(field, value, "a share from 0 to 1"));
            }
        }
        if !(self.answer_weight.is_finite() && self.answer_weight >= 0.0) {
            return Err(setting("tasks.answer_weight", self.answer_weight, "a finite number, 0 or more"));
        }
        let spans = [
            ("tasks.facts_min", 0, self.facts_min, self.facts_max.min(1000)),
            ("tasks.digits_min", 1, self.digits_min, self.digits_max.min(64)),
            ("tasks.cut_min", 1, self.cut_min, self.cut_max),
        ];
        for (field, least, low, high) in spans {
            if low < least || low > high {
                return Err(setting(field, low, format!("{least} to {high}, the setting's maximum")));
            }
        }
        for (field, value, most) in [
            ("tasks.facts_max", self.facts_max, 1000),
            ("tasks.digits_max", self.digits_max, 64),
            ("tasks.questions", self.questions, 1000),
            ("tasks.tries", self.tries, 1_000_000),
            ("tasks.question_gap", self.question_gap, u32::MAX as usize),
            ("tasks.cut_max", self.cut_max, u32::MAX as usize),
            ("tasks.lead_max", self.lead_max, u32::MAX as usize),
            ("tasks.tail", self.tail, u32::MAX as usize),
        ] {
            if value > most {
                return Err(setting(field, value, format!("at most {most}")));
            }
        }
        if self.chunk == 0 {
            return Err(setting("tasks.chunk", 0, "at least 1"));
        }
        Ok(())
    }
}

/// One training sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The bytes.
    pub ids: Vec<u8>,
    /// Whether the position is part of an answer.
    pub answer: Vec<bool>,
    /// How many restarts lie at or before the position; states never pass between different numbers.
    pub segment: Vec<u32>,
    /// A flag for each full chunk: no part of a fact or a question is in it that others must not see.
    pub clean: Vec<bool>,
}

/// Sequences of one training step, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The step it was drawn for.
    pub step: u64,
    /// Rows.
    pub sequences: usize,
    /// Tokens a row.
    pub length: usize,
    /// `sequences × length` tokens.
    pub ids: Vec<u32>,
    /// The token that follows each; 0 at a row's end, where all weights are 0.
    pub targets: Vec<u32>,
    /// Σ weight · cross entropy is the loss: the text's mean + `answer_weight` × the answers' mean over the batch.
    pub weights: Vec<f32>,
    /// Σ weight · cross entropy is the answers' mean over the batch, for reports.
    pub answer_weights: Vec<f32>,
    /// Restart number of each token, from 0 in each row.
    pub segment: Vec<u32>,
    /// `sequences × (length / chunk)` flags: 1 where other sequences may see the chunk.
    pub clean: Vec<u32>,
}

/// Draws training samples and batches.
#[derive(Clone, Debug)]
pub struct Sampler {
    mix: TaskMix,
    seed: u64,
    corpus: Option<Arc<Corpus>>,
}

impl Sampler {
    /// A sampler over the corpus (its training part) and the generator, as the mixture says.
    pub fn new(mix: TaskMix, corpus: Option<Arc<Corpus>>, seed: u64) -> Result<Self, DataError> {
        mix.check()?;
        Ok(Self { mix, seed, corpus })
    }

    /// The mixture.
    pub fn mix(&self) -> &TaskMix {
        &self.mix
    }

    fn check(&self, length: usize) -> Result<(), DataError> {
        // Room for the longest fact, a gap, and its question.
        if length < 2 || (self.mix.facts_max > 0 && length < 256) {
            return Err(setting("the training length", length, "at least 256 tokens (2 without facts)"));
        }
        if !length.is_multiple_of(self.mix.chunk) {
            return Err(setting("the training length", length, format!("a multiple of {}", self.mix.chunk)));
        }
        match &self.corpus {
            Some(corpus) if self.mix.prose < 1.0 && corpus.train().len() < length => {
                Err(DataError::TooShort {
                    what: "the training text",
                    have: corpus.train().len(),
                    need: length,
                })
            }
            _ => Ok(()),
        }
    }

    /// Sample `index` of `step`: the same for the same seed, whatever was drawn before.
    pub fn sample(&self, step: u64, index: usize, length: usize) -> Result<Sample, DataError> {
        self.check(length)?;
        Ok(self.draw(step, index, length))
    }

    fn draw(&self, step: u64, index: usize, length: usize) -> Sample {
        let mix = &self.mix;
        let rng = &mut Rng::from_parts(&[TRAINING, self.seed, step, index as u64]);
        let mut ids = vec![0; length];
        match &self.corpus {
            Some(corpus) if !rng.chance(mix.prose) => {
                let start = rng.below(corpus.train().len() - length + 1);
                ids.copy_from_slice(&corpus.train()[start..start + length]);
            }
            _ => Prose::inside(rng.next_u64()).fill(&mut ids),
        }
        let mut cuts = BTreeSet::new();
        let mut at = rng.range(mix.cut_min, mix.cut_max);
        while at < length {
            cuts.insert(at);
            at += rng.range(mix.cut_min, mix.cut_max);
        }
        // Where facts and questions stand; of those, where the questions do, and what others must not see.
        let mut used: Vec<Range<usize>> = Vec::new();
        let mut own: Vec<Range<usize>> = Vec::new();
        let mut asked: Vec<Range<usize>> = Vec::new();
        let mut answer = vec![false; length];
        for fact in self.facts(rng) {
            let mut shared = mix.share_named && fact.kind == FactKind::Named;
            let n = fact.text.len();
            let limit = if length <= mix.short_crop { length / 2 } else { length.saturating_sub(mix.tail) };
            let limit = limit.min((length + 1).saturating_sub(n));
            let mut place = None;
            for _ in 0..mix.tries {
                if limit == 0 {
                    break;
                }
                let (start, border) = if n > 1 && limit > mix.chunk + n && rng.chance(mix.border) {
                    let border = mix.chunk * rng.range(n.div_ceil(mix.chunk), (limit - 1) / mix.chunk);
                    (border - rng.range(1, n - 1), Some(border))
                } else {
                    (rng.below(limit), None)
                };
                if is_free(&used, start, n) {
                    place = Some(start..start + n);
                    cuts.extend(border);
                    shared &= border.is_none();
                    break;
                }
            }
            let Some(place) = place else { continue };
            ids[place.clone()].copy_from_slice(fact.text.as_bytes());
            used.push(place.clone());
            if !shared {
                own.push(place.clone());
            }
            let (question, n) = (fact.question.len(), fact.question.len() + fact.answer.len());
            for _ in 0..mix.questions {
                let low = place.end + mix.question_gap;
                if low + n >= length {
                    continue;
                }
                let start = rng.range(low, length - n);
                if !is_free(&used, start, n) {
                    continue;
                }
                ids[start..start + question].copy_from_slice(fact.question.as_bytes());
                ids[start + question..start + n].copy_from_slice(fact.answer.as_bytes());
                answer[start + question..start + n].fill(true);
                cuts.retain(|&cut| cut <= start || cut >= start + n);
                let mut cut = start;
                if !rng.chance(mix.question_restart) {
                    cut = start.saturating_sub(rng.range(0, mix.lead_max));
                    // Another question in the lead stays whole: the restart moves behind it.
                    cut = asked.iter().find(|q| q.start < cut && cut < q.end).map_or(cut, |q| q.end);
                }
                cuts.insert(cut);
                used.push(start..start + n);
                asked.push(start..start + n);
                if !shared {
                    own.push(start..start + n);
                }
            }
        }
        let mut segment = vec![0; length];
        if mix.restarts {
            cuts.remove(&0);
            let mut from = 0;
            for (number, to) in cuts.into_iter().chain([length]).enumerate() {
                segment[from..to].fill(number as u32);
                from = to;
            }
        }
        let mut clean = vec![true; length / mix.chunk];
        for span in own {
            clean[span.start / mix.chunk..(span.end - 1) / mix.chunk + 1].fill(false);
        }
        Sample { ids, answer, segment, clean }
    }

    /// A crop's facts: no two with the same question, the plain one (at most one) last.
    fn facts(&self, rng: &mut Rng) -> Vec<Fact> {
        let mut facts: Vec<Fact> = Vec::new();
        let mut plain = None;
        for _ in 0..rng.range(self.mix.facts_min, self.mix.facts_max) {
            let kind = if rng.chance(self.mix.named) { FactKind::Named } else { FactKind::Plain };
            let fact = Fact::draw(kind, (self.mix.digits_min, self.mix.digits_max), rng);
            match kind {
                FactKind::Plain => plain = plain.or(Some(fact)),
                FactKind::Named if facts.iter().all(|other| other.question != fact.question) => {
                    facts.push(fact)
                }
                FactKind::Named => {}
            }
        }
        facts.extend(plain);
        facts
    }

    /// The batch of a step: `sequences` rows of `length` tokens.
    pub fn batch(&self, step: u64, sequences: usize, length: usize) -> Result<Batch, DataError> {
        self.check(length)?;
        if sequences == 0 {
            return Err(setting("the number of sequences", 0, "at least 1"));
        }
        let total = sequences * length;
        let mut batch = Batch {
            step,
            sequences,
            length,
            ids: Vec::with_capacity(total),
            targets: Vec::with_capacity(total),
            weights: vec![0.0; total],
            answer_weights: vec![0.0; total],
            segment: Vec::with_capacity(total),
            clean: Vec::with_capacity(total / self.mix.chunk),
        };
        // Whether the token that follows is part of an answer; nothing follows a row's last.
        let mut follows: Vec<Option<bool>> = Vec::with_capacity(total);
        for index in 0..sequences {
            let sample = self.draw(step, index, length);
            batch.ids.extend(sample.ids.iter().map(|&id| u32::from(id)));
            batch.targets.extend(sample.ids[1..].iter().map(|&id| u32::from(id)));
            batch.targets.push(0);
            batch.segment.extend(sample.segment);
            batch.clean.extend(sample.clean.into_iter().map(u32::from));
            follows.extend(sample.answer[1..].iter().map(|&a| Some(a)));
            follows.push(None);
        }
        let answers = follows.iter().filter(|f| **f == Some(true)).count();
        let texts = total - sequences - answers;
        for (at, follows) in follows.into_iter().enumerate() {
            match follows {
                Some(true) => {
                    batch.answer_weights[at] = (1.0 / answers as f64) as f32;
                    batch.weights[at] = (self.mix.answer_weight / answers as f64) as f32;
                }
                Some(false) => batch.weights[at] = (1.0 / texts as f64) as f32,
                None => {}
            }
        }
        Ok(batch)
    }
}

fn is_free(used: &[Range<usize>], start: usize, n: usize) -> bool {
    used.iter().all(|u| start + n <= u.start || start >= u.end)
}

#[cfg(not(target_arch = "wasm32"))]
pub use prefetch::Prefetch;

#[cfg(not(target_arch = "wasm32"))]
mod prefetch {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, sync_channel};
    use std::thread::JoinHandle;

    use super::{Batch, Sampler};
    use crate::data::DataError;

    struct Worker {
        batches: Receiver<Result<Batch, DataError>>,
        thread: Option<JoinHandle<()>>,
    }

    /// Builds batches ahead in threads of its own and hands them out in order.
    ///
    /// Worker w of n builds steps w, w + n, …, so order and content do not depend on timing. Dropping it stops and
    /// joins the threads.
    pub struct Prefetch {
        workers: Vec<Worker>,
        turn: usize,
        ended: bool,
    }

    impl Prefetch {
        /// Starts `threads` workers at `first_step`, each up to `ahead` batches ahead. `plan` gives a step's
        /// (sequences, length), and `None` after the last step.
        pub fn new<P>(sampler: Arc<Sampler>, first_step: u64, threads: usize, ahead: usize, plan: P) -> Self
        where
            P: Fn(u64) -> Option<(usize, usize)> + Send + Sync + 'static,
        {
            let (threads, plan) = (threads.max(1), Arc::new(plan));
            let workers = (0..threads as u64)
                .map(|first| {
                    let (sender, batches) = sync_channel(ahead);
                    let (sampler, plan) = (sampler.clone(), plan.clone());
                    let thread = std::thread::spawn(move || {
                        let mut step = first_step + first;
                        while let Some((sequences, length)) = plan(step) {
                            let batch = sampler.batch(step, sequences, length);
                            let failed = batch.is_err();
                            // The receiver goes away when nobody wants more.
                            if sender.send(batch).is_err() || failed {
                                return;
                            }
                            step += threads as u64;
                        }
                    });
                    Worker { batches, thread: Some(thread) }
                })
                .collect();
            Self { workers, turn: 0, ended: false }
        }

        /// The next step's batch; `None` after the plan's last step or after an error.
        pub fn next_batch(&mut self) -> Option<Result<Batch, DataError>> {
            if self.ended {
                return None;
            }
            let count = self.workers.len();
            let worker = &mut self.workers[self.turn % count];
            self.turn += 1;
            match worker.batches.recv() {
                Ok(Ok(batch)) => Some(Ok(batch)),
                Ok(Err(error)) => {
                    self.ended = true;
                    Some(Err(error))
                }
                Err(_) => {
                    self.ended = true;
                    let panic = worker.thread.take()?.join().err()?;
                    let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
                        (Some(text), _) => (*text).to_owned(),
                        (_, Some(text)) => text.clone(),
                        _ => "no message".to_owned(),
                    };
                    Some(Err(DataError::Worker { message }))
                }
            }
        }
    }

    impl Iterator for Prefetch {
        type Item = Result<Batch, DataError>;
        fn next(&mut self) -> Option<Self::Item> {
            self.next_batch()
        }
    }

    impl Drop for Prefetch {
        fn drop(&mut self) {
            for Worker { batches, thread } in self.workers.drain(..) {
                drop(batches);
                if let Some(thread) = thread {
                    // A panic has been printed by the thread itself; there is nobody left to hand it to.
                    let _ = thread.join();
                }
            }
        }
    }
}

/// A fact and where it is hidden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needle {
    /// The fact.
    pub fact: Fact,
    /// Where its first byte stands in the text.
    pub position: usize,
}

impl Needle {
    /// The bytes it covers.
    pub fn span(&self) -> Range<usize> {
        self.position..self.position + self.fact.text.len()
    }

    /// The blocks of `size` tokens (chunks, or segments) it touches.
    pub fn blocks(&self, size: usize) -> Range<usize> {
        self.position / size..(self.span().end - 1) / size + 1
    }

    /// Whether a border of blocks of `size` tokens cuts it.
    pub fn is_cut_by(&self, size: usize) -> bool {
        self.blocks(size).len() > 1
    }

    /// Where it stands in a text of `length` tokens, from 0 to 1.
    pub fn depth(&self, length: usize) -> f64 {
        self.position as f64 / length.saturating_sub(self.fact.text.len()).max(1) as f64
    }
}

/// A text to hide needles in.
///
/// The text itself stays as it is: [`Haystack::with`] gives a stretch of it as it reads with a needle, so that one
/// text serves many trials, each with one needle. [`Haystack::plant`] writes several needles for good.
#[derive(Clone, Debug)]
pub struct Haystack {
    text: Vec<u8>,
    /// Where `|The ` stands, the beginning of every statement.
    statements: Vec<usize>,
}

impl Haystack {
    /// A text as it is. Refuses an empty text.
    pub fn new(text: Vec<u8>) -> Result<Self, DataError> {
        if text.is_empty() {
            return Err(DataError::Empty { name: "to search".to_owned() });
        }
        let statements = text
            .iter()
            .enumerate()
            .filter(|&(at, &byte)| byte == b'|' && text[at..].starts_with(b"|The "))
            .map(|(at, _)| at)
            .collect();
        Ok(Self { text, statements })
    }

    /// Generated text that training never draws.
    pub fn prose(seed: u64, length: usize) -> Result<Self, DataError> {
        Self::new(Prose::held(seed).text(length))
    }

    /// `length` bytes of a text: its beginning, or, if it is shorter, all of it and then pieces of up to 64 KiB from
    /// anywhere in it.
    pub fn from_text(text: &[u8], length: usize, seed: u64) -> Result<Self, DataError> {
        if text.is_empty() {
            return Err(DataError::Empty { name: "to search".to_owned() });
        }
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(&text[..text.len().min(length)]);
        let mut rng = Rng::from_parts(&[PIECES, seed]);
        while out.len() < length {
            let n = text.len().min(1 << 16).min(length - out.len());
            let start = rng.below(text.len() - n + 1);
            out.extend_from_slice(&text[start..start + n]);
        }
        Self::new(out)
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Its length in tokens.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Never: an empty text is refused.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Where the text already states the fact's stem (such as `|The passkey is:`).
    fn stated(&self, stem: &str) -> Option<usize> {
        self.statements.iter().copied().find(|&at| self.text[at..].starts_with(stem.as_bytes()))
    }

    fn room(&self, n: usize) -> Result<usize, DataError> {
        if self.text.len() < n {
            return Err(DataError::TooShort {
                what: "the text to hide a fact in",
                have: self.text.len(),
                need: n,
            });
        }
        Ok(self.text.len() - n + 1)
    }

    fn draw(&self, kind: FactKind, others: &[Needle], rng: &mut Rng) -> Result<Fact, DataError> {
        let defaults = TaskMix::default();
        loop {
            let fact = Fact::draw(kind, (defaults.digits_min, defaults.digits_max), rng);
            let stated = self.stated(fact.stem());
            if stated.is_none() && others.iter().all(|other| other.fact.stem() != fact.stem()) {
                return Ok(fact);
            }
            // A name can be drawn anew, the plain statement has but one form.
            if let (FactKind::Plain, Some(offset)) = (kind, stated) {
                return Err(DataError::Occupied { found: fact.stem().to_owned(), offset });
            }
        }
    }

    /// One needle for each of `trials` equal stretches of the text, uniform within its stretch: together at uniform
    /// depth, on and off the borders of chunks and segments. One needle a trial: each stands alone in the text.
    pub fn trials(&self, kind: FactKind, trials: usize, seed: u64) -> Result<Vec<Needle>, DataError> {
        if trials == 0 {
            return Err(setting("the number of trials", 0, "at least 1"));
        }
        (0..trials)
            .map(|trial| {
                let parts = [EXAMINATION, seed, self.text.len() as u64, kind as u64, trial as u64];
                let rng = &mut Rng::from_parts(&parts);
                let fact = self.draw(kind, &[], rng)?;
                let room = self.room(fact.text.len())?;
                let at = (trial as f64 + rng.float()) / trials as f64 * room as f64;
                Ok(Needle { fact, position: (at as usize).min(room - 1) })
            })
            .collect()
    }

    /// Writes `count` needles into the text for good, at depths spread over it: at most one plain, none over another.
    pub fn plant(&mut self, kinds: &[FactKind], seed: u64) -> Result<Vec<Needle>, DataError> {
        if kinds.is_empty() {
            return Err(setting("the number of facts", 0, "at least 1"));
        }
        if kinds.iter().filter(|kind| **kind == FactKind::Plain).count() > 1 {
            return Err(setting(
                "the number of plain facts",
                "more than 1",
                "at most 1, as all have the same question",
            ));
        }
        let rng = &mut Rng::from_parts(&[EXAMINATION, seed, self.text.len() as u64, u64::MAX]);
        let stretch = self.text.len() / kinds.len();
        let mut needles: Vec<Needle> = Vec::with_capacity(kinds.len());
        for (i, &kind) in kinds.iter().enumerate() {
            let fact = self.draw(kind, &needles, rng)?;
            let n = fact.text.len();
            if stretch < n {
                let need = kinds.len() * n;
                return Err(DataError::TooShort {
                    what: "the text to hide facts in",
                    have: self.text.len(),
                    need,
                });
            }
            let position = i * stretch + rng.below(stretch - n + 1);
            needles.push(Needle { fact, position });
        }
        for needle in &needles {
            self.text[needle.span()].copy_from_slice(needle.fact.text.as_bytes());
        }
        *self = Self::new(std::mem::take(&mut self.text))?;
        Ok(needles)
    }

    /// The bytes of `range` as they read with the needle in place.
    #[track_caller]
    pub fn with(&self, needle: &Needle, range: Range<usize>) -> Vec<u8> {
        let mut out = self.text[range.clone()].to_vec();
        let span = needle.span();
        let (from, to) = (span.start.max(range.start), span.end.min(range.end));
        if from < to {
            out[from - range.start..to - range.start]
                .copy_from_slice(&needle.fact.text.as_bytes()[from - span.start..to - span.start]);
        }
        out
    }

    /// Up to `most` bytes from anywhere in the text, to stand between a restart and a question.
    pub fn lead(&self, most: usize, rng: &mut Rng) -> &[u8] {
        let n = rng.range(0, most.min(self.text.len()));
        let start = rng.below(self.text.len() - n + 1);
        &self.text[start..start + n]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(mix: TaskMix) -> Sampler {
        Sampler::new(mix, None, 42).unwrap()
    }

    /// Statements and questions in a text: (start, end, what).
    fn find(text: &[u8], head: &str) -> Vec<Range<usize>> {
        let mut out = Vec::new();
        for start in 0..text.len() {
            if text[start..].starts_with(head.as_bytes()) {
                let end =
                    text[start + 1..].iter().position(|&b| b == b'|').map_or(text.len(), |n| start + n + 2);
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
        let plain =
            Sampler::new(TaskMix { facts_min: 0, facts_max: 0, ..TaskMix::default() }, None, 0).unwrap();
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
        let mut text = hay.text().to_vec();
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
    }

    #[test]
    fn planted_needles_are_all_there_once() {
        use FactKind::*;
        let mut hay = Haystack::prose(8, 8000).unwrap();
        let needles = hay.plant(&[Named, Plain, Named, Named, Named], 7).unwrap();
        for needle in &needles {
            assert_eq!(&hay.text()[needle.span()], needle.fact.text.as_bytes());
            assert_eq!(find(hay.text(), needle.fact.stem()).len(), 1);
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
}
