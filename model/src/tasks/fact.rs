//! Facts and the grammar of statements, questions and answers: the one that training draws from and examinations ask in.

use serde::{Deserialize, Serialize};

use super::{STOP, setting};
use crate::{data::DataError, rng::Rng};

pub(super) const NOUNS: [&str; 6] = ["passkey", "code", "number", "key", "pin", "secret"];
pub(super) const PLAIN: &str = "|The passkey is:";
const CONSONANTS: &[u8] = b"bcdfghjklmnprstvwz";
const VOWELS: &[u8] = b"aeiou";

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
    /// What it is about, (`code`, `Rivaze`); None of a plain one.
    pub of: Option<(String, String)>,
}

impl Fact {
    /// Draws a fact with `digits.0` to `digits.1` digits.
    pub fn draw(kind: FactKind, digits: (usize, usize), rng: &mut Rng) -> Self {
        let digits = number(digits, rng);
        let of = match kind {
            FactKind::Plain => None,
            FactKind::Named => Some(((*rng.pick(&NOUNS)).to_owned(), name((2, 4), rng))),
        };
        Self::new(of, digits)
    }

    fn new(of: Option<(String, String)>, digits: String) -> Self {
        let (text, question) = match &of {
            None => (format!("{PLAIN}{digits}|"), "|What is the passkey? The passkey is:".to_owned()),
            Some((noun, name)) => (
                format!("|The {noun} of {name} is:{digits}|"),
                format!("|What is the {noun} of {name}? It is:"),
            ),
        };
        let kind = if of.is_none() { FactKind::Plain } else { FactKind::Named };
        Self { kind, text, question, answer: digits + STOP, of }
    }

    /// A fact that is almost this one: the same noun with a similar name, or the same name with another noun, and in
    /// half of the cases digits of which one differs or two have changed places. Beside a plain fact, which is alone of
    /// its kind, the passkey of somebody.
    #[must_use]
    pub fn twin(&self, digits: (usize, usize), rng: &mut Rng) -> Fact {
        let of = match &self.of {
            None => ("passkey".to_owned(), name((2, 4), rng)),
            Some((noun, name)) if rng.chance(0.5) => (noun.clone(), similar(name, rng)),
            Some((noun, name)) => {
                let others: Vec<&str> = NOUNS.into_iter().filter(|other| other != noun).collect();
                ((*rng.pick(&others)).to_owned(), name.clone())
            }
        };
        let own = self.digits();
        let digits = if rng.chance(0.5) { alike(own, rng) } else { number(digits, rng) };
        Self::new(Some(of), digits)
    }

    /// The same fact, stated and asked for in other words than the published ones.
    #[must_use]
    pub fn reworded(&self, rng: &mut Rng) -> Fact {
        let digits = self.digits();
        let (text, question) = match &self.of {
            None => (
                match rng.below(5) {
                    0 => format!("|Passkey: {digits}|"),
                    1 => format!(" The passkey is {digits}."),
                    2 => format!("|{digits} is the passkey|"),
                    3 => format!("\npasskey={digits}\n"),
                    _ => self.text.clone(),
                },
                match rng.below(3) {
                    0 => "|Tell me the passkey. It is:".to_owned(),
                    1 => "|Which passkey was given? It is:".to_owned(),
                    _ => self.question.clone(),
                },
            ),
            Some((noun, name)) => (
                match rng.below(6) {
                    0 => format!("|{name}'s {noun} is {digits}|"),
                    1 => format!(" The {noun} of {name} is {digits}."),
                    2 => format!(" {name} has the {noun} {digits}."),
                    3 => format!("|{digits} is the {noun} of {name}|"),
                    4 => format!("\n{noun}[{name}]={digits}\n"),
                    _ => self.text.clone(),
                },
                match rng.below(3) {
                    0 => format!("|What is {name}'s {noun}? It is:"),
                    1 => format!("|Which {noun} does {name} have? It is:"),
                    _ => self.question.clone(),
                },
            ),
        };
        Fact { text, question, ..self.clone() }
    }

    /// The answer without its stop.
    pub fn digits(&self) -> &str {
        self.answer.strip_suffix(STOP).unwrap_or(&self.answer)
    }

    /// What would make a second answer to the question: the published statement up to its digits, `|The passkey is:`.
    pub fn stem(&self) -> String {
        match &self.of {
            None => PLAIN.to_owned(),
            Some((noun, name)) => format!("|The {noun} of {name} is:"),
        }
    }

    /// Whether a generated text is the expected answer, to the last digit and the stop.
    pub fn is_answered_by(&self, generated: &[u8]) -> bool {
        generated == self.answer.as_bytes()
    }
}

/// Whether a text begins with the plain fact in other words than the published ones, as [`Fact::reworded`] or lines of
/// settings have it: `Passkey: 48213`, `passkey=48213`, `passkey is 48213`, `48213 is the passkey`.
pub(super) fn states_plain(text: &[u8]) -> bool {
    /// As few digits as training's facts have, less one: a shorter number is a poor rival.
    const DIGITS: usize = 4;
    let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    if text.first().is_some_and(u8::is_ascii_digit) {
        return digits(text) >= DIGITS && text[digits(text)..].starts_with(b" is the passkey");
    }
    let Some((noun, rest)) = text.split_at_checked(b"passkey".len()) else { return false };
    if !noun.eq_ignore_ascii_case(b"passkey") {
        return false;
    }
    let sign = rest.iter().take_while(|b| b" :=\t\"'".contains(b)).count();
    let (sign, said) = rest.split_at(sign);
    match said.strip_prefix(b"is ") {
        Some(said) if sign == b" " => digits(said) >= DIGITS,
        _ => sign.iter().any(|b| b":=".contains(b)) && digits(said) >= DIGITS,
    }
}

/// One question for two named facts and its answer: `|What are the code of Rivaze and the pin of Tobuki? They are:`,
/// `7731942 and 48213|`. None where one of the two has no name.
pub fn both(first: &Fact, second: &Fact) -> Option<(String, String)> {
    let ((noun, name), (other, whose)) = (first.of.as_ref()?, second.of.as_ref()?);
    let question = format!("|What are the {noun} of {name} and the {other} of {whose}? They are:");
    Some((question, format!("{} and {}", first.digits(), second.answer)))
}

/// Variables of which one holds a number and each other one the variable before it.
///
/// RULER asks for all variables that hold a number; here the last one's value is asked for, and the answer spells the way
/// to it, `Rimuvo = Kato = 48213|`: the number cannot be known without finding each statement in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// `|VAR Kato = 48213|`, `|VAR Rimuvo = Kato|`, `|VAR Selate = Rimuvo|`.
    pub statements: Vec<String>,
    /// `|What is the value of VAR Selate? It is:`.
    pub question: String,
    /// `Rimuvo = Kato = 48213|`.
    pub answer: String,
}

impl Chain {
    /// Chains drawn into a text or a trial.
    pub const COUNT: usize = 2;
    /// Steps from the variable asked for to the one that holds the number, in RULER's task.
    pub const HOPS: usize = 2;
    /// Between the values that an answer spells.
    pub(super) const THEN: &'static str = " = ";

    /// [`Chain::COUNT`] chains of `hops` hops, no variable in two of them.
    pub fn draw(hops: usize, digits: (usize, usize), rng: &mut Rng) -> [Chain; Chain::COUNT] {
        let mut names: Vec<String> = Vec::new();
        while names.len() < Self::COUNT * (hops + 1) {
            let drawn = name((3, 4), rng);
            if !names.contains(&drawn) {
                names.push(drawn);
            }
        }
        std::array::from_fn(|i| Self::new(&names[i * (hops + 1)..][..=hops], &number(digits, rng)))
    }

    /// What statement `i` gives its variable.
    pub(super) fn value(&self, i: usize) -> &str {
        self.statements[i].trim_matches('|').rsplit(' ').next().unwrap_or_default()
    }

    fn new(names: &[String], digits: &str) -> Chain {
        let values = std::iter::once(digits).chain(names.iter().map(String::as_str));
        let statements = names.iter().zip(values).map(|(n, value)| format!("|VAR {n} = {value}|")).collect();
        let (last, before) = names.split_last().expect("a chain has variables");
        let way: String = before.iter().rev().map(|name| format!("{name}{}", Self::THEN)).collect();
        Chain {
            statements,
            question: format!("|What is the value of VAR {last}? It is:"),
            answer: format!("{way}{digits}{STOP}"),
        }
    }
}

/// A question as people write it in the form that the model was trained on: `What is the passkey?` becomes
/// `|What is the passkey? The passkey is:`, what asks for several ends in `They are:` and others in `It is:`. What begins
/// with `|` is taken as it is.
pub fn prompt(question: &str) -> String {
    let question = question.trim();
    if question.starts_with('|') {
        return question.to_owned();
    }
    let question = question.trim_end_matches('?').trim_end();
    let lower = question.to_ascii_lowercase();
    let subject = match lower.as_str() {
        "what is the passkey" => "The passkey is",
        _ if lower.starts_with("what are ") => "They are",
        _ => "It is",
    };
    format!("|{question}? {subject}:")
}

fn number(digits: (usize, usize), rng: &mut Rng) -> String {
    (0..rng.range(digits.0, digits.1)).map(|_| char::from(b'0' + rng.below(10) as u8)).collect()
}

/// So many open syllables.
fn name(syllables: (usize, usize), rng: &mut Rng) -> String {
    let mut name = String::with_capacity(8);
    for _ in 0..rng.range(syllables.0, syllables.1) {
        name.push(char::from(*rng.pick(CONSONANTS)));
        name.push(char::from(*rng.pick(VOWELS)));
    }
    name[..1].make_ascii_uppercase();
    name
}

/// Another one of the `all`.
fn other(all: &[u8], than: u8, rng: &mut Rng) -> u8 {
    let at = all.iter().position(|&b| b == than).map_or(0, |i| i + 1 + rng.below(all.len() - 1));
    all[at % all.len()]
}

/// A name with another letter, one syllable more or less, or two syllables changed.
fn similar(name: &str, rng: &mut Rng) -> String {
    let mut letters = name.to_ascii_lowercase().into_bytes();
    let syllables = letters.len() / 2;
    match rng.below(5) {
        0 if syllables > 2 => letters.truncate(2 * syllables - 2),
        1 if syllables < 4 => letters.extend([*rng.pick(CONSONANTS), *rng.pick(VOWELS)]),
        2 if letters[..2] != letters[2..4] => {
            let (first, rest) = letters.split_at_mut(2);
            first.swap_with_slice(&mut rest[..2]);
        }
        _ => {
            let at = rng.below(letters.len());
            letters[at] = other(if at.is_multiple_of(2) { CONSONANTS } else { VOWELS }, letters[at], rng);
        }
    }
    letters[0].make_ascii_uppercase();
    letters.into_iter().map(char::from).collect()
}

/// Digits of which one is another, or two neighbours have changed places.
fn alike(digits: &str, rng: &mut Rng) -> String {
    let mut out = digits.as_bytes().to_vec();
    let at = rng.below(out.len());
    if at > 0 && out[at] != out[at - 1] && rng.chance(0.5) {
        out.swap(at - 1, at);
    } else {
        out[at] = other(b"0123456789", out[at], rng);
    }
    out.into_iter().map(char::from).collect()
}
