//! The training mixture.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::Fact;
use super::{Chain, setting};
use crate::data::DataError;

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
    /// Share of the other facts laid across a border of two chunks, states running on: what is asked is in one chunk then,
    /// the answer in the next.
    pub crossing: f64,
    /// Whether chunks whose only facts and questions are named count as fact-free for the other sequences of a group:
    /// their names are other names, so they are the hardest of honest distractors. Facts cut by a border stay out of the
    /// others' sight: nothing in a second half of digits says whose it is.
    pub share_named: bool,
    /// Share of the facts that a near-identical one stands beside, as [`Fact::twin`] draws it, to be asked for too.
    pub twins: f64,
    /// Share of the facts stated and asked for in other words than the published ones, as [`Fact::reworded`] has them.
    pub reworded: f64,
    /// Share of the crops in which one question asks for two named facts, where there are two.
    pub multi: f64,
    /// Share of the crops in which variables are to be tracked, as [`Chain`] draws them.
    pub variables: f64,
    /// Fewest steps from the variable asked for to its number; 0 states the number at once.
    pub hops_min: usize,
    /// Most such steps.
    pub hops_max: usize,
    /// Weight of the answers' mean cross entropy beside the text's.
    pub answer_weight: f64,
    /// Share of the crops from the generator rather than the corpus; without a corpus, all of them.
    pub prose: f64,
    /// Share of the generated crops that are code, logs, tables or other languages rather than English prose.
    pub formats: f64,
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
            crossing: 0.0,
            share_named: false,
            twins: 0.0,
            reworded: 0.0,
            multi: 0.0,
            variables: 0.0,
            hops_min: Chain::HOPS,
            hops_max: Chain::HOPS,
            answer_weight: 1.0,
            prose: 0.5,
            formats: 0.0,
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
            ("tasks.crossing", self.crossing),
            ("tasks.twins", self.twins),
            ("tasks.reworded", self.reworded),
            ("tasks.multi", self.multi),
            ("tasks.variables", self.variables),
            ("tasks.prose", self.prose),
            ("tasks.formats", self.formats),
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
            ("tasks.hops_min", 0, self.hops_min, self.hops_max.min(8)),
        ];
        for (field, least, low, high) in spans {
            if low < least || low > high {
                return Err(setting(field, low, format!("{least} to {high}, the setting's maximum")));
            }
        }
        for (field, value, most) in [
            ("tasks.facts_max", self.facts_max, 1000),
            ("tasks.digits_max", self.digits_max, 64),
            ("tasks.hops_max", self.hops_max, 8),
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
