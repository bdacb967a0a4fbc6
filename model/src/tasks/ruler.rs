//! Examinations in the manner of RULER (Hsieh et al. 2024, arXiv 2404.06654): one needle, many alike, several asked for at
//! once, variables to track.

use std::{ops::Range, str::FromStr};

use super::{
    Chain, EXAMINATION, Fact, FactKind, Haystack, Needle, TaskMix, fact::both, sampler::is_free, setting,
};
use crate::{data::DataError, rng::Rng};

/// What a trial asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// One plain fact.
    Passkey,
    /// One named fact.
    Named,
    /// One named fact beside five that are almost the same, as [`Fact::twin`] draws them.
    Similar,
    /// One fact, plain or named, stated and asked for in other words.
    Reworded,
    /// Two of six named facts in one question.
    MultiQuery,
    /// The value of a variable at the end of one of two chains, [`Chain`].
    Variables,
    /// The same with chains of one hop.
    OneHop,
}

/// Statements, the number of the one that the answer begins with, question and answer.
type Drawn = (Vec<String>, usize, String, String);

/// Statements of the tasks that have several.
const STATEMENTS: usize = 6;

impl Task {
    /// Every task, in the order of reports.
    pub const ALL: [Task; 7] = [
        Task::Passkey,
        Task::Named,
        Task::Similar,
        Task::Reworded,
        Task::MultiQuery,
        Task::Variables,
        Task::OneHop,
    ];

    /// The task's word on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Task::Passkey => "passkey",
            Task::Named => "named",
            Task::Similar => "similar",
            Task::Reworded => "reworded",
            Task::MultiQuery => "multi-query",
            Task::Variables => "variables",
            Task::OneHop => "one-hop",
        }
    }

    fn draw(self, rng: &mut Rng) -> Drawn {
        let defaults = TaskMix::default();
        let digits = (defaults.digits_min, defaults.digits_max);
        let named = |rng: &mut Rng| Fact::draw(FactKind::Named, digits, rng);
        let mut facts = match self {
            Task::Passkey => vec![Fact::draw(FactKind::Plain, digits, rng)],
            Task::Reworded => {
                let kind = *rng.pick(&FactKind::ALL);
                vec![Fact::draw(kind, digits, rng).reworded(rng)]
            }
            Task::Named | Task::Similar | Task::MultiQuery => vec![named(rng)],
            Task::Variables | Task::OneHop => {
                let hops = if self == Task::OneHop { 1 } else { Chain::HOPS };
                let chains = Chain::draw(hops, digits, rng);
                let [asked, _] = &chains;
                let (question, answer) = (asked.question.clone(), asked.answer.clone());
                return (chains.into_iter().flat_map(|c| c.statements).collect(), hops, question, answer);
            }
        };
        while matches!(self, Task::Similar | Task::MultiQuery) && facts.len() < STATEMENTS {
            let next = if self == Task::Similar { facts[0].twin(digits, rng) } else { named(rng) };
            if facts.iter().all(|fact| fact.of != next.of) {
                facts.push(next);
            }
        }
        let (mut question, mut answer) = (facts[0].question.clone(), facts[0].answer.clone());
        if let Task::MultiQuery = self
            && let Some(asked) = both(&facts[0], &facts[1])
        {
            (question, answer) = asked;
        }
        (facts.into_iter().map(|f| f.text).collect(), 0, question, answer)
    }
}

impl FromStr for Task {
    type Err = DataError;
    fn from_str(word: &str) -> Result<Self, DataError> {
        Self::ALL.into_iter().find(|task| task.name() == word).ok_or_else(|| {
            setting("the task", word, Self::ALL.map(|task| format!("`{}`", task.name())).join(", "))
        })
    }
}

/// Statements hidden in a text, a question, and what must follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Where each statement's first byte stands, and its text; none over another.
    pub statements: Vec<(usize, String)>,
    /// The statement that the answer begins with.
    pub first: usize,
    /// What is asked.
    pub question: String,
    /// What must follow, up to and with [`STOP`](super::STOP).
    pub answer: String,
}

impl Trial {
    /// The bytes that a statement covers.
    pub fn span(&self, statement: usize) -> Range<usize> {
        let (position, text) = &self.statements[statement];
        *position..position + text.len()
    }

    /// Where the first of its statements begins.
    pub fn begin(&self) -> usize {
        self.statements.iter().map(|(position, _)| *position).min().unwrap_or(0)
    }
}

impl From<&Needle> for Trial {
    fn from(needle: &Needle) -> Trial {
        let Fact { text, question, answer, .. } = needle.fact.clone();
        Trial { statements: vec![(needle.position, text)], first: 0, question, answer }
    }
}

impl Haystack {
    /// Trials of a task: the statement that the answer begins with at uniform depth, one for each of as many equal
    /// stretches of the text, all others anywhere.
    ///
    /// # Errors
    /// No trial is asked for, or the text is too short for the statements, or it already states what would be a second
    /// answer.
    pub fn ruler(&self, task: Task, trials: usize, seed: u64) -> Result<Vec<Trial>, DataError> {
        if trials == 0 {
            return Err(setting("the number of trials", 0, "at least 1"));
        }
        (0..trials)
            .map(|trial| {
                let parts = [EXAMINATION, seed, self.len() as u64, 1000 + task as u64, trial as u64];
                let rng = &mut Rng::from_parts(&parts);
                let (texts, first, question, answer) = self.unstated(task, rng)?;
                if texts.len() > 1 {
                    // Three times the room, so that wherever some stand there is a place for the next.
                    self.room(3 * texts.iter().map(String::len).sum::<usize>())?;
                }
                let room = self.room(texts[first].len())?;
                let at = (trial as f64 + rng.float()) / trials as f64 * room as f64;
                let at = (at as usize).min(room - 1);
                let mut used: Vec<Range<usize>> = vec![at..at + texts[first].len()];
                let mut statements = Vec::with_capacity(texts.len());
                for (i, text) in texts.into_iter().enumerate() {
                    let place = if i == first {
                        at
                    } else {
                        loop {
                            let place = rng.below(self.len() - text.len() + 1);
                            if is_free(&used, place, text.len()) {
                                used.push(place..place + text.len());
                                break place;
                            }
                        }
                    };
                    statements.push((place, text));
                }
                Ok(Trial { statements, first, question, answer })
            })
            .collect()
    }

    /// Draws until the text states nothing of it: names can be drawn anew, the plain statement has but one form.
    fn unstated(&self, task: Task, rng: &mut Rng) -> Result<Drawn, DataError> {
        let mut taken = None;
        for _ in 0..100 {
            let drawn = task.draw(rng);
            let stems = drawn.0.iter().filter_map(|text| Some(&text[..=text.find(':')?]));
            taken = stems.filter_map(|stem| self.stated(stem)).next();
            if taken.is_none() {
                return Ok(drawn);
            }
        }
        Err(self.occupied(taken.unwrap_or_default()))
    }
}
