//! Training sequences and batches.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use super::{Chain, Fact, FactKind, TRAINING, TaskMix, fact::both, setting};
use crate::{
    data::{Corpus, DataError, Formats, Prose, TextStream},
    rng::Rng,
};

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
    /// A flag for each full chunk: no part of a question or its answer is in it.
    pub unasked: Vec<bool>,
    /// Where the answers' values stand, in their order, but for what a restart parts from the beginning of its statement,
    /// and for what the end of its chunk parts from the name that follows.
    pub evidence: Vec<Evidence>,
}

/// Where in its sequence a token of an answer's value was stated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The answer's token.
    pub token: usize,
    /// The token of the statement that it repeats.
    pub source: usize,
    /// The statement.
    pub statement: Range<usize>,
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
    /// As many flags: 1 where no question and no answer lies in the chunk.
    pub unasked: Vec<u32>,
    /// `sequences × `[`Batch::EVIDENCE`] tokens that answers' tokens follow, counted through the batch; u32::MAX behind the
    /// last of a sequence. Of more answers some are left out, evenly.
    pub evidence_tokens: Vec<u32>,
    /// For each the chunk where what follows is stated, and the first and last chunk of that statement, counted through the
    /// batch.
    pub evidence_chunks: Vec<[u32; 3]>,
    /// One over their number, 0 behind the last of a sequence.
    pub evidence_weights: Vec<f32>,
}

impl Batch {
    /// Tokens of answers a sequence whose evidence is given.
    pub const EVIDENCE: usize = 32;
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
        let mut crop = Crop::new(mix, self.text(length, rng), rng);
        // What is rarest and longest finds its places first.
        if mix.variables > 0.0 && rng.chance(mix.variables) {
            self.variables(&mut crop, rng);
        }
        let multi = mix.multi > 0.0 && rng.chance(mix.multi);
        let mut stated: Vec<(Fact, Placed)> = Vec::new();
        for fact in self.facts(rng) {
            let shared = mix.share_named && fact.kind == FactKind::Named;
            let Some(place) = crop.state(&fact.text, shared, rng) else { continue };
            if !multi {
                crop.ask_of(&fact, &place, rng);
            }
            stated.push((fact, place));
        }
        if multi {
            self.both(&mut crop, &stated, rng);
            for (fact, place) in &stated {
                crop.ask_of(fact, place, rng);
            }
        }
        crop.finish()
    }

    fn text(&self, length: usize, rng: &mut Rng) -> Vec<u8> {
        let mut ids = vec![0; length];
        match &self.corpus {
            Some(corpus) if !rng.chance(self.mix.prose) => {
                let start = rng.below(corpus.train().len() - length + 1);
                ids.copy_from_slice(&corpus.train()[start..start + length]);
            }
            _ if self.mix.formats > 0.0 && rng.chance(self.mix.formats) => {
                Formats::inside(rng.next_u64()).fill(&mut ids);
            }
            _ => Prose::inside(rng.next_u64()).fill(&mut ids),
        }
        ids
    }

    /// Asks for two named facts at once, where there are two.
    fn both(&self, crop: &mut Crop<'_>, stated: &[(Fact, Placed)], rng: &mut Rng) {
        let mut named: Vec<_> = stated.iter().filter(|(fact, _)| fact.kind == FactKind::Named).collect();
        for _ in 0..self.mix.questions {
            rng.shuffle(&mut named);
            let [(first, a), (second, b), ..] = named[..] else { return };
            if let Some((question, answer)) = both(first, second) {
                let behind = answer.len() - second.answer.len();
                let told = [(0, first.digits(), a), (behind, second.digits(), b)];
                crop.ask(&question, &answer, &told, rng);
            }
        }
    }

    /// Chains stand in the crop in any order; one of which a statement finds no place is not asked for.
    fn variables(&self, crop: &mut Crop<'_>, rng: &mut Rng) {
        let mix = &self.mix;
        // What always has the most hops draws nothing for it.
        let hops =
            if mix.hops_min < mix.hops_max { rng.range(mix.hops_min, mix.hops_max) } else { mix.hops_max };
        for chain in Chain::draw(hops, (mix.digits_min, mix.digits_max), rng) {
            let places: Vec<Option<Placed>> =
                chain.statements.iter().map(|said| crop.state(said, mix.share_named, rng)).collect();
            let Some(places) = places.into_iter().collect::<Option<Vec<_>>>() else { continue };
            // The answer spells the statements' values, the last one's first.
            let mut told = Vec::new();
            let mut from = 0;
            for (i, place) in places.iter().enumerate().rev() {
                let value = chain.value(i);
                told.push((from, value, place));
                from += value.len() + Chain::THEN.len();
            }
            for _ in 0..mix.questions {
                crop.ask(&chain.question, &chain.answer, &told, rng);
            }
        }
    }

    /// A crop's facts: no two with the same question, the plain one (at most one) last.
    fn facts(&self, rng: &mut Rng) -> Vec<Fact> {
        let mix = &self.mix;
        let digits = (mix.digits_min, mix.digits_max);
        let mut facts: Vec<Fact> = Vec::new();
        let mut plain = None;
        let add = |facts: &mut Vec<Fact>, fact: Fact| {
            if facts.iter().all(|other| other.of != fact.of) {
                facts.push(fact);
            }
        };
        for _ in 0..rng.range(mix.facts_min, mix.facts_max) {
            let kind = if rng.chance(mix.named) { FactKind::Named } else { FactKind::Plain };
            let fact = Fact::draw(kind, digits, rng);
            match kind {
                FactKind::Plain => plain = plain.or(Some(fact)),
                FactKind::Named => add(&mut facts, fact),
            }
        }
        if mix.twins > 0.0 {
            for fact in facts.clone().iter().chain(&plain) {
                if rng.chance(mix.twins) {
                    add(&mut facts, fact.twin(digits, rng));
                }
            }
            // Neither always comes first.
            rng.shuffle(&mut facts);
        }
        facts.extend(plain);
        if mix.reworded > 0.0 {
            for fact in &mut facts {
                if rng.chance(mix.reworded) {
                    *fact = fact.reworded(rng);
                }
            }
        }
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
            unasked: Vec::with_capacity(total / self.mix.chunk),
            evidence_tokens: vec![u32::MAX; sequences * Batch::EVIDENCE],
            evidence_chunks: vec![[0; 3]; sequences * Batch::EVIDENCE],
            evidence_weights: vec![0.0; sequences * Batch::EVIDENCE],
        };
        let mut evidences = 0;
        // Whether the token that follows is part of an answer; nothing follows a row's last.
        let mut follows: Vec<Option<bool>> = Vec::with_capacity(total);
        for index in 0..sequences {
            let sample = self.draw(step, index, length);
            batch.ids.extend(sample.ids.iter().map(|&id| u32::from(id)));
            batch.targets.extend(sample.ids[1..].iter().map(|&id| u32::from(id)));
            batch.targets.push(0);
            batch.segment.extend(sample.segment);
            batch.clean.extend(sample.clean.into_iter().map(u32::from));
            batch.unasked.extend(sample.unasked.into_iter().map(u32::from));
            let n = sample.evidence.len().min(Batch::EVIDENCE);
            for i in 0..n {
                let Evidence { token, source, statement } = &sample.evidence[i * sample.evidence.len() / n];
                let (at, chunks) = (index * Batch::EVIDENCE + i, index * (length / self.mix.chunk));
                let chunk = |token: usize| (chunks + token / self.mix.chunk) as u32;
                batch.evidence_tokens[at] = (index * length + token - 1) as u32;
                batch.evidence_chunks[at] = [*source, statement.start, statement.end - 1].map(chunk);
            }
            evidences += n;
            follows.extend(sample.answer[1..].iter().map(|&a| Some(a)));
            follows.push(None);
        }
        for (weight, &token) in batch.evidence_weights.iter_mut().zip(&batch.evidence_tokens) {
            *weight = if token == u32::MAX { 0.0 } else { 1.0 / evidences as f32 };
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

/// Where a statement stands, and whether others may see it.
#[derive(Clone)]
struct Placed {
    at: Range<usize>,
    shared: bool,
}

/// A crop while statements and questions are laid into it.
struct Crop<'a> {
    mix: &'a TaskMix,
    ids: Vec<u8>,
    answer: Vec<bool>,
    /// Where states restart.
    cuts: BTreeSet<usize>,
    /// Where facts and questions stand; of those, where the questions do, and what others must not see.
    used: Vec<Range<usize>>,
    asked: Vec<Range<usize>>,
    own: Vec<Range<usize>>,
    evidence: Vec<Evidence>,
}

impl<'a> Crop<'a> {
    fn new(mix: &'a TaskMix, ids: Vec<u8>, rng: &mut Rng) -> Crop<'a> {
        let mut cuts = BTreeSet::new();
        let mut at = rng.range(mix.cut_min, mix.cut_max);
        while at < ids.len() {
            cuts.insert(at);
            at += rng.range(mix.cut_min, mix.cut_max);
        }
        let answer = vec![false; ids.len()];
        Crop {
            mix,
            ids,
            answer,
            cuts,
            used: Vec::new(),
            asked: Vec::new(),
            own: Vec::new(),
            evidence: Vec::new(),
        }
    }

    /// Writes a statement somewhere, cut by a border or not; None where no free place was found.
    fn state(&mut self, text: &str, mut shared: bool, rng: &mut Rng) -> Option<Placed> {
        let (mix, length, n) = (self.mix, self.ids.len(), text.len());
        let limit = if length <= mix.short_crop { length / 2 } else { length.saturating_sub(mix.tail) };
        let limit = limit.min((length + 1).saturating_sub(n));
        for _ in 0..mix.tries {
            if limit == 0 {
                break;
            }
            let (mut start, mut restart) = (None, None);
            if n > 1 && limit > mix.chunk + n {
                let restarts = rng.chance(mix.border);
                // A share of 0 draws nothing.
                if restarts || (mix.crossing > 0.0 && rng.chance(mix.crossing)) {
                    let border = mix.chunk * rng.range(n.div_ceil(mix.chunk), (limit - 1) / mix.chunk);
                    start = Some(border - rng.range(1, n - 1));
                    restart = restarts.then_some(border);
                }
            }
            let start = start.unwrap_or_else(|| rng.below(limit));
            if is_free(&self.used, start, n) {
                self.cuts.extend(restart);
                shared &= restart.is_none();
                let place = start..start + n;
                self.ids[place.clone()].copy_from_slice(text.as_bytes());
                self.used.push(place.clone());
                if !shared {
                    self.own.push(place.clone());
                }
                return Some(Placed { at: place, shared });
            }
        }
        None
    }

    /// Asks for a fact as often as the mixture says.
    fn ask_of(&mut self, fact: &Fact, place: &Placed, rng: &mut Rng) {
        for _ in 0..self.mix.questions {
            self.ask(&fact.question, &fact.answer, &[(0, fact.digits(), place)], rng);
        }
    }

    /// Writes a question and its answer somewhere behind what it asks for, where the one place tried is free. `told`: what
    /// from where on in the answer repeats which statement.
    fn ask(&mut self, question: &str, answer: &str, told: &[(usize, &str, &Placed)], rng: &mut Rng) {
        let (mix, length) = (self.mix, self.ids.len());
        let n = question.len() + answer.len();
        let low = told.iter().map(|(.., place)| place.at.end).max().unwrap_or(0) + mix.question_gap;
        if low + n >= length {
            return;
        }
        let start = rng.range(low, length - n);
        if !is_free(&self.used, start, n) {
            return;
        }
        let (place, said) = (start..start + n, start + question.len()..start + n);
        self.ids[start..said.start].copy_from_slice(question.as_bytes());
        self.ids[said.clone()].copy_from_slice(answer.as_bytes());
        self.answer[said.clone()].fill(true);
        self.cuts.retain(|&cut| cut <= place.start || cut >= place.end);
        let mut cut = start;
        if !rng.chance(mix.question_restart) {
            cut = start.saturating_sub(rng.range(0, mix.lead_max));
            // Another question in the lead stays whole: the restart moves behind it.
            cut = self.asked.iter().find(|q| q.start < cut && cut < q.end).map_or(cut, |q| q.end);
        }
        self.cuts.insert(cut);
        self.used.push(place.clone());
        self.asked.push(place.clone());
        if told.iter().any(|(.., place)| !place.shared) {
            self.own.push(place);
        }
        for &(from, value, statement) in told {
            let stated = &self.ids[statement.at.clone()];
            let Some(first) = stated.windows(value.len()).rposition(|w| w == value.as_bytes()) else {
                continue;
            };
            // What says whose the value is may come behind it, and must not come in another chunk: nothing in the value's
            // own chunk tells it then.
            let behind = &stated[first + value.len()..];
            let known = behind
                .iter()
                .rposition(u8::is_ascii_alphanumeric)
                .map_or(0, |last| (statement.at.start + first + value.len() + last) / mix.chunk);
            let told = |i: usize| Evidence {
                token: said.start + from + i,
                source: statement.at.start + first + i,
                statement: statement.at.clone(),
            };
            self.evidence.extend((0..value.len()).map(told).filter(|e| known <= e.source / mix.chunk));
        }
    }

    fn finish(mut self) -> Sample {
        let (mix, length) = (self.mix, self.ids.len());
        let mut segment = vec![0; length];
        if mix.restarts {
            // Behind a restart nothing may say what the statement is about.
            let cuts = &self.cuts;
            self.evidence.retain(|e| cuts.range(e.statement.start + 1..=e.source).next().is_none());
            self.cuts.remove(&0);
            let mut from = 0;
            for (number, to) in self.cuts.into_iter().chain([length]).enumerate() {
                segment[from..to].fill(number as u32);
                from = to;
            }
        }
        let mut clean = vec![true; length / mix.chunk];
        for span in self.own {
            clean[span.start / mix.chunk..(span.end - 1) / mix.chunk + 1].fill(false);
        }
        let mut unasked = vec![true; length / mix.chunk];
        for span in &self.asked {
            unasked[span.start / mix.chunk..(span.end - 1) / mix.chunk + 1].fill(false);
        }
        self.evidence.sort_by_key(|e| e.token);
        Sample { ids: self.ids, answer: self.answer, segment, clean, unasked, evidence: self.evidence }
    }
}

/// Whether nothing of `used` overlaps the `n` bytes from `start` on.
pub(super) fn is_free(used: &[Range<usize>], start: usize, n: usize) -> bool {
    used.iter().all(|u| start + n <= u.start || start >= u.end)
}
