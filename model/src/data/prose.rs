//! An endless stream of English-like text from a small grammar and the project's own word lists.
//!
//! Documents of many kinds follow each other: tales with dialogue, essays, letters, recipes, diaries, tables,
//! dictionaries, minutes, instructions, verse. Each has a cast of invented names, a tense, a line width and a
//! stretch of every word list that it prefers, so that it keeps to a subject. Now and then come runs of digits and
//! lines with `|` that look like facts and are none: a reader must not fall for them.

use super::TextStream;
use super::phrases::*;
use super::words::*;
use crate::rng::Rng;

/// A deterministic generator of English-like ASCII text.
///
/// ```
/// use rambutan_model::data::{Prose, TextStream};
/// let (mut whole, mut parts) = ([0; 100], [0; 100]);
/// Prose::new(7).fill(&mut whole);
/// let mut prose = Prose::new(7);
/// prose.fill(&mut parts[..33]);
/// prose.fill(&mut parts[33..]);
/// assert_eq!(whole, parts);
/// ```
#[derive(Clone, Debug)]
pub struct Prose {
    rng: Rng,
    out: Vec<u8>,
    read: usize,
    doc: Doc,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Tale,
    Essay,
    Letter,
    Recipe,
    Table,
    Diary,
    Dictionary,
    Minutes,
    Notes,
    Verse,
    Steps,
}

/// What stays the same within a document.
#[derive(Clone, Debug)]
struct Doc {
    kind: Kind,
    /// Paragraphs still to come; the opening comes while `opened` is false.
    left: usize,
    opened: bool,
    past: bool,
    /// Lines are wrapped here; 0 leaves a paragraph on one line.
    width: usize,
    /// Where this document's favourite words begin, as a share of each list.
    stretch: usize,
    /// How strongly it favours them.
    focused: bool,
    /// People and, last, two places.
    names: Vec<(String, bool)>,
    counter: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Base,
    Third,
    Past,
    Participle,
    Ing,
}

impl TextStream for Prose {
    fn written(&mut self) -> (&mut Vec<u8>, &mut usize) {
        (&mut self.out, &mut self.read)
    }

    fn write(&mut self) {
        self.piece();
    }
}

impl Prose {
    /// The stream of a seed; equal seeds give equal streams.
    pub fn new(seed: u64) -> Self {
        Self::from_rng(Rng::from_parts(&[seed, 0x0070_726f_7365]))
    }

    /// A stream of a domain of its own, which training never draws from: for examinations.
    pub fn held(seed: u64) -> Self {
        Self::from_rng(Rng::from_parts(&[seed, 0x0070_726f_7365, 0x6865_6c64]))
    }

    /// A stream that begins somewhere inside a document, as a crop of a longer text does.
    pub fn inside(seed: u64) -> Self {
        let mut prose = Self::new(seed);
        prose.doc.opened = true;
        prose.piece();
        prose.read = prose.rng.below(prose.out.len());
        prose
    }

    fn from_rng(rng: Rng) -> Self {
        let doc = Doc {
            kind: Kind::Tale,
            left: 0,
            opened: false,
            past: true,
            width: 0,
            stretch: 0,
            focused: false,
            names: Vec::new(),
            counter: 0,
        };
        let mut prose = Self { rng, out: Vec::with_capacity(8192), read: 0, doc };
        prose.begin_document();
        prose
    }

    // ---- documents

    fn begin_document(&mut self) {
        use Kind::*;
        let kind = match self.rng.below(100) {
            0..30 => Tale,
            30..54 => Essay,
            54..60 => Letter,
            60..65 => Recipe,
            65..70 => Table,
            70..77 => Diary,
            77..83 => Dictionary,
            83..88 => Minutes,
            88..93 => Notes,
            93..96 => Verse,
            _ => Steps,
        };
        let people = self.rng.range(3, 7);
        let mut names = Vec::with_capacity(people + 2);
        for i in 0..people + 2 {
            let female = self.rng.chance(0.5);
            let start = self.out.len();
            if i < people {
                self.person();
            } else {
                self.place_name();
            }
            names.push((String::from_utf8_lossy(&self.out[start..]).into_owned(), female));
            self.out.truncate(start);
        }
        self.doc = Doc {
            kind,
            left: self.rng.range(3, 14),
            opened: false,
            past: self.rng.chance(if kind == Essay { 0.35 } else { 0.8 }),
            width: if self.rng.chance(0.6) { self.rng.range(56, 80) } else { 0 },
            stretch: self.rng.below(1 << 16),
            focused: self.rng.chance(0.6),
            names,
            counter: self.rng.range(1, 40),
        };
    }

    /// Writes the next paragraph, heading, table or letter's part.
    fn piece(&mut self) {
        if !self.doc.opened {
            self.doc.opened = true;
            self.opening();
            return;
        }
        if self.doc.left == 0 {
            self.closing();
            self.begin_document();
            return;
        }
        self.doc.left -= 1;
        let start = self.out.len();
        match self.doc.kind {
            Kind::Tale => match self.rng.below(10) {
                0..5 => self.paragraph(3, 8),
                5..9 => self.dialogue(),
                _ => self.odd_piece(),
            },
            Kind::Essay => match self.rng.below(12) {
                0..9 => self.paragraph(3, 9),
                9 => self.heading(),
                10 => self.bullets(),
                _ => self.odd_piece(),
            },
            Kind::Letter => self.paragraph(2, 6),
            Kind::Recipe => self.recipe(),
            Kind::Table => match self.rng.below(3) {
                0 => self.paragraph(1, 4),
                _ => self.table(),
            },
            Kind::Diary => self.diary(),
            Kind::Dictionary => self.entry(),
            Kind::Minutes => self.minutes(),
            Kind::Notes => self.notes(),
            Kind::Verse => self.stanza(),
            Kind::Steps => self.steps(),
        }
        self.wrap(start);
        self.w("\n\n");
    }

    fn opening(&mut self) {
        let start = self.out.len();
        match self.doc.kind {
            Kind::Letter => {
                self.name();
                self.w(", ");
                self.date();
                self.w("\n\n");
                self.one(DEAR);
                self.name();
                self.w(",\n\n");
            }
            Kind::Recipe => {
                self.title();
                self.w("\n\n");
                for _ in 0..self.rng.range(3, 9) {
                    let number = self.rng.range(1, 12);
                    self.number(number);
                    self.w(" ");
                    self.listed(&UNIT);
                    self.w(" of ");
                    self.listed(&INGREDIENT);
                    self.w("\n");
                }
                self.w("\n");
            }
            _ => {
                if self.rng.chance(0.3) {
                    self.roman_heading();
                }
                self.title();
                if self.rng.chance(0.3) {
                    self.w("\nby ");
                    self.person();
                }
                self.w("\n\n");
            }
        }
        debug_assert!(self.out.len() > start);
    }

    fn closing(&mut self) {
        match self.doc.kind {
            Kind::Letter => {
                self.one(YOURS);
                self.w(",\n");
                self.name();
                if self.rng.chance(0.3) {
                    self.w("\n\nP.S. ");
                    self.sentence();
                }
            }
            _ => {
                self.one(&["* * *", "-----", "The End.", "_______________", "", "***", "END", "~", "====="]);
            }
        }
        self.w("\n\n\n");
    }

    /// A heading, list, quotation or distractor between paragraphs.
    fn odd_piece(&mut self) {
        match self.rng.below(5) {
            0 => self.bullets(),
            1 => self.distractor(),
            2 => self.heading(),
            3 => {
                self.w("    ");
                self.sentence();
                self.w(" -- ");
                self.name();
            }
            _ => self.stanza(),
        }
    }

    fn paragraph(&mut self, low: usize, high: usize) {
        for i in 0..self.rng.range(low, high) {
            if i > 0 {
                self.w(" ");
            }
            if self.rng.chance(0.015) {
                self.distractor();
            } else {
                self.sentence();
            }
        }
    }

    fn dialogue(&mut self) {
        for i in 0..self.rng.range(2, 6) {
            if i > 0 {
                self.w("\n\n");
            }
            self.w("\"");
            if self.rng.chance(0.5) {
                self.one(INTERJECTION);
                let mark = *self.rng.pick(&["! ", ". ", ", ", "? ", ". "]);
                self.w(mark);
                if mark == ", " {
                    self.name();
                    self.w(". ");
                }
            }
            let tag = self.rng.below(4);
            self.sentence();
            if tag > 0 && self.out.last() == Some(&b'.') {
                self.out.pop();
                self.w(",");
            }
            self.w("\"");
            if tag > 0 {
                self.w(" ");
                let form = if self.doc.past { Form::Past } else { Form::Third };
                if tag == 1 {
                    self.verb_from(&SPEECH, form);
                    self.w(" ");
                    self.subject_person();
                } else {
                    self.subject_person();
                    self.w(" ");
                    self.verb_from(&SPEECH, form);
                }
                if self.rng.chance(0.4) {
                    self.w(" ");
                    self.adverb();
                }
                self.w(".");
                if self.rng.chance(0.3) {
                    self.w(" ");
                    self.sentence();
                }
            }
        }
    }

    fn bullets(&mut self) {
        let mark = *self.rng.pick(&["- ", "* ", "  o ", "+ ", "#. ", "(#) ", "#) "]);
        for i in 1..=self.rng.range(3, 7) {
            for byte in mark.bytes() {
                if byte == b'#' {
                    self.number(i);
                } else {
                    self.out.push(byte);
                }
            }
            match self.rng.below(3) {
                0 => self.sentence(),
                1 => {
                    self.noun_phrase(1);
                    self.w(";");
                }
                _ => {
                    self.noun_phrase(0);
                    self.w(", ");
                    self.quantity();
                }
            }
            self.w("\n");
        }
        self.out.pop();
    }

    fn recipe(&mut self) {
        for i in 0..self.rng.range(3, 6) {
            if i > 0 {
                self.w(" ");
            }
            let start = self.out.len();
            self.verb_from(&COOKING, Form::Base);
            self.w(" the ");
            self.listed(&INGREDIENT);
            if self.rng.chance(0.5) {
                self.w(" and the ");
                self.listed(&INGREDIENT);
            }
            match self.rng.below(5) {
                0 => {
                    self.w(" for ");
                    let number = self.rng.range(2, 90);
                    self.number(number);
                    self.w(" minutes");
                }
                1 => {
                    self.w(" until they are ");
                    self.adjective();
                }
                2 => {
                    self.w(" with ");
                    self.quantity_of(&INGREDIENT);
                }
                3 => {
                    self.w(", then ");
                    self.verb_from(&COOKING, Form::Base);
                    self.w(" ");
                    self.adverb();
                }
                _ => {
                    self.w(" in a ");
                    self.adjective();
                    self.w(" ");
                    let pot =
                        *self.rng.pick(&["pan", "pot", "bowl", "oven", "saucepan", "dish", "kettle", "tin"]);
                    self.w(pot);
                }
            }
            self.w(".");
            self.capital(start);
        }
        if self.rng.chance(0.3) {
            self.w(" ");
            self.sentence();
        }
    }

    fn table(&mut self) {
        let columns = self.rng.range(2, 5);
        let kinds: [usize; 5] = std::array::from_fn(|_| self.rng.below(6));
        let (left, middle, right) = *self.rng.pick(&[
            ("| ", " | ", " |"),
            ("", " | ", ""),
            ("|", "|", "|"),
            ("", "\t", ""),
            ("", ", ", ""),
            ("  ", "  ", ""),
        ]);
        for _ in 0..self.rng.range(3, 9) {
            self.w(left);
            for (i, kind) in kinds[..columns].iter().enumerate() {
                if i > 0 {
                    self.w(middle);
                }
                match kind {
                    0 => self.name(),
                    1 => self.digits(1, 8),
                    2 => self.adjective(),
                    3 => self.noun(&THINGS, false),
                    4 => self.quantity(),
                    _ => self.date(),
                }
            }
            self.w(right);
            self.w("\n");
        }
        self.out.pop();
    }

    fn diary(&mut self) {
        if self.rng.chance(0.5) {
            self.listed(&WEEKDAY);
            self.w(", ");
        }
        self.date();
        if self.rng.chance(0.3) {
            self.w(", ");
            self.time();
        }
        self.one(&[". ", ": ", " -- ", "\n", ".--"]);
        self.paragraph(2, 6);
    }

    fn entry(&mut self) {
        let start = self.out.len();
        if self.rng.chance(0.4) {
            self.invented();
        } else if self.rng.chance(0.5) {
            self.noun(&THINGS, false);
        } else {
            self.adjective();
        }
        self.capital(start);
        let class =
            *self.rng.pick(&[", n. ", ", a. ", " (n.) ", ", v. t. ", " \\n.\\ ", ", adv. ", " [Obs.] "]);
        self.w(class);
        for i in 1..=self.rng.range(1, 4) {
            self.number(i);
            self.w(". ");
            let start = self.out.len();
            match self.rng.below(3) {
                0 => {
                    self.noun_phrase(2);
                    self.w(".");
                }
                1 => {
                    self.w("to ");
                    self.verb_from(&TRANSITIVE, Form::Base);
                    self.w(" ");
                    self.object(1);
                    self.w("; to ");
                    self.verb_from(&INTRANSITIVE, Form::Base);
                    self.w(".");
                }
                _ => self.sentence(),
            }
            self.capital(start);
            if self.rng.chance(0.3) {
                self.w(" --");
                self.person();
                self.w(".");
            }
            self.w(" ");
        }
        self.out.pop();
    }

    fn minutes(&mut self) {
        for i in 0..self.rng.range(2, 5) {
            if i > 0 {
                self.w("\n");
            }
            let start = self.out.len();
            self.name();
            if self.rng.chance(0.4) {
                self.out[start..].make_ascii_uppercase();
            }
            if self.rng.chance(0.3) {
                self.w(" (");
                self.adverb();
                self.w(")");
            }
            self.w(": ");
            for i in 0..self.rng.range(1, 3) {
                if i > 0 {
                    self.w(" ");
                }
                self.sentence();
            }
        }
    }

    fn notes(&mut self) {
        match self.rng.below(4) {
            0 => self.distractor(),
            1 => self.paragraph(1, 3),
            _ => {
                for i in 0..self.rng.range(2, 6) {
                    if i > 0 {
                        self.w("\n");
                    }
                    let start = self.out.len();
                    self.noun(&IDEAS, false);
                    if let Some(before) = self.out.strip_suffix(b"passkey") {
                        self.out.truncate(before.len());
                        self.w(NO_PASSKEY);
                    }
                    self.capital(start);
                    self.one(&[": ", " = ", " - ", ":\t", " no. ", ".... "]);
                    match self.rng.below(5) {
                        0 => self.digits(2, 9),
                        1 => self.name(),
                        2 => self.date(),
                        3 => self.quantity(),
                        _ => _ = self.noun_phrase(1),
                    }
                }
            }
        }
    }

    fn stanza(&mut self) {
        for i in 0..self.rng.range(2, 6) {
            if i > 0 {
                self.w("\n");
            }
            self.w(if i % 2 == 1 { "  " } else { "" });
            let start = self.out.len();
            match self.rng.below(3) {
                0 => {
                    let open = *self
                        .rng
                        .pick(&["O ", "And ", "But ", "Where ", "There ", "Then ", "Sing, ", "For "]);
                    self.w(open);
                    self.clause(0);
                }
                1 => {
                    self.noun_phrase(0);
                    self.preposition();
                    self.object(0);
                }
                _ => self.clause(0),
            }
            self.capital(start);
            self.one(&[",", ";", ".", "", "!", ","]);
        }
    }

    fn steps(&mut self) {
        self.doc.counter += 1;
        if self.rng.chance(0.7) {
            let number = self.doc.counter;
            self.number(number);
            self.w(". ");
        }
        for i in 0..self.rng.range(1, 4) {
            if i > 0 {
                self.w(" ");
            }
            self.imperative();
        }
    }

    fn heading(&mut self) {
        if self.rng.chance(0.5) {
            self.doc.counter += 1;
            let (a, b) = (self.doc.counter / 8 + 1, self.doc.counter % 8 + 1);
            self.number(a);
            self.w(".");
            self.number(b);
            self.w(" ");
        } else {
            self.either(0.5, "## ", "");
        }
        self.title();
    }

    fn roman_heading(&mut self) {
        const ROMAN: [(&str, usize); 6] = [("L", 50), ("XL", 40), ("X", 10), ("V", 5), ("IV", 4), ("I", 1)];
        let word =
            *self.rng.pick(&["CHAPTER ", "Chapter ", "Part ", "BOOK ", "Section ", "Canto ", "Letter "]);
        self.w(word);
        let mut n = self.doc.counter.clamp(1, 60);
        // 9 reads VIIII, as on many clocks.
        for (numeral, value) in ROMAN {
            while n >= value {
                n -= value;
                self.w(numeral);
            }
        }
        self.w("\n\n");
    }

    fn title(&mut self) {
        let start = self.out.len();
        match self.rng.below(6) {
            0 => {
                self.one(ABOUT);
                self.noun_phrase(0);
            }
            1 => {
                self.noun_phrase(0);
                self.w(" and ");
                self.noun_phrase(0);
            }
            2 => {
                self.name();
                self.w("'s ");
                self.adjective();
                self.w(" ");
                self.noun(&THINGS, true);
            }
            3 => self.clause(0),
            4 if self.doc.kind == Kind::Recipe => {
                self.adjective();
                self.w(" ");
                self.listed(&INGREDIENT);
                self.w(" ");
                self.listed(&DISH);
            }
            _ => {
                self.w("The ");
                self.adjective();
                self.w(" ");
                self.noun(&PEOPLE, false);
                self.w(" of ");
                self.name();
            }
        }
        match self.rng.below(4) {
            0 => self.out[start..].make_ascii_uppercase(),
            1 => {
                let mut first = true;
                for byte in &mut self.out[start..] {
                    if first {
                        byte.make_ascii_uppercase();
                    }
                    first = *byte == b' ';
                }
            }
            _ => self.capital(start),
        }
    }

    /// Digits and bars that are no fact: another shape, another noun, no question ever asked.
    fn distractor(&mut self) {
        match self.rng.below(11) {
            0 => {
                self.w("|");
                self.digits(2, 9);
                self.w("|");
            }
            1 => {
                self.w("|The ");
                self.listed(&MEASURE);
                self.w(" of ");
                self.plain_name();
                self.w(" is:");
                if self.rng.chance(0.5) {
                    self.digits(1, 8);
                } else {
                    self.adjective();
                }
                self.w("|");
            }
            2 => {
                self.w("Ref. ");
                self.digits(3, 8);
                self.w("|");
                self.digits(1, 3);
                self.w(".");
            }
            3 => {
                self.w("What is the ");
                self.listed(&MEASURE);
                self.w(" of ");
                self.plain_name();
                self.w("? It is: ");
                self.adjective();
                self.w(".");
            }
            4 => {
                self.w("Telephone ");
                self.digits(2, 4);
                self.w("-");
                self.digits(4, 6);
                self.w(", ask for ");
                self.name();
                self.w(".");
            }
            5 => {
                self.w("The ");
                self.one(&["code", "passkey", "key", "pin", "number", "secret", "password"]);
                self.w(" of ");
                self.plain_name();
                self.one(&[
                    " is unknown.",
                    " was lost.",
                    " has been changed.",
                    " means nothing to me.",
                    " is written elsewhere.",
                    " was never told.",
                ]);
            }
            6 => {
                self.w("Lot ");
                self.digits(1, 3);
                self.w(" | serial ");
                self.digits(5, 9);
                self.w(" | ");
                self.noun(&THINGS, false);
            }
            7 => {
                self.w("|");
                self.noun_phrase(0);
                self.w("|");
                self.adjective();
                self.w("|");
                self.digits(1, 6);
                self.w("|");
            }
            8 => {
                for i in 0..self.rng.range(3, 12) {
                    if i > 0 {
                        self.w(" ");
                    }
                    self.digits(1, 6);
                }
                self.w(".");
            }
            9 => {
                self.one(&[" + ", " - ", " x ", " / "]);
                self.digits(1, 5);
                self.digits(1, 4);
                self.w(" = ");
                self.digits(2, 7);
                self.w(".");
            }
            _ => {
                self.w("||");
                self.name();
                self.w("||");
                self.digits(4, 4);
                self.w(":");
                self.digits(2, 5);
                self.w("|");
            }
        }
    }

    // ---- sentences

    fn sentence(&mut self) {
        let start = self.out.len();
        let mut end = ".";
        match self.rng.below(40) {
            0..10 => self.clause(2),
            10..16 => {
                self.clause(1);
                self.one(JOIN);
                self.clause(1);
            }
            16..20 => {
                self.one(OPEN);
                self.clause(0);
                self.w(", ");
                self.clause(1);
            }
            20..24 => {
                self.one(ADJUNCT);
                self.either(0.8, ", ", " ");
                self.clause(1);
            }
            24 | 25 => {
                self.one(THAT);
                self.clause(1);
            }
            26 => {
                self.one(ASK);
                self.clause(0);
                end = "?";
            }
            27 => {
                self.imperative();
                end = "";
            }
            28 => {
                self.w(if self.doc.past { "there was " } else { "there is " });
                self.singular(1);
                self.preposition();
                self.object(0);
            }
            29 => {
                self.noun_phrase(0);
                self.w(", ");
                self.noun_phrase(0);
                self.either(0.7, ", and ", " and ");
                self.noun_phrase(0);
                self.w(" ");
                self.predicate(true, 1);
            }
            30 => {
                self.w("the ");
                self.adjective();
                self.w(" ");
                self.noun(&IDEAS, false);
                self.w(if self.doc.past { " was more " } else { " is more " });
                self.adjective();
                self.w(" than ");
                self.object(1);
            }
            31 => {
                self.preposition();
                self.out.remove(start);
                self.object(1);
                self.w(", ");
                self.clause(1);
            }
            32 => {
                self.verb_from(&TRANSITIVE, Form::Ing);
                self.w(" ");
                self.object(0);
                self.w(", ");
                self.subject_person();
                self.w(" ");
                self.predicate(false, 1);
            }
            33 => {
                self.clause(0);
                self.w(" (");
                if self.rng.chance(0.5) {
                    self.clause(0);
                } else {
                    self.noun_phrase(1);
                }
                self.w(")");
            }
            34 => {
                self.w("in ");
                self.year();
                self.w(", ");
                self.clause(1);
            }
            35 => {
                self.w("neither ");
                self.noun_phrase(0);
                self.w(" nor ");
                self.noun_phrase(0);
                self.w(" ");
                self.one(MODAL);
                self.verb_from(&TRANSITIVE, Form::Base);
                self.w(" ");
                self.object(1);
            }
            36 => {
                self.w("what ");
                self.adjective_phrase();
                self.w(" ");
                self.noun(&THINGS, true);
                end = "!";
            }
            37 => {
                self.subject_person();
                self.w(" ");
                let form = self.tense(false);
                self.verb_from(&MENTAL, form);
                self.w(" that ");
                self.clause(1);
            }
            38 => {
                let size = self.rng.range(1, 3);
                for _ in 0..size {
                    self.adjective();
                    self.w(", ");
                }
                self.adjective();
                self.w(": ");
                self.clause(1);
            }
            _ => {
                self.noun_phrase(1);
                end = if self.rng.chance(0.3) { "..." } else { "." };
            }
        }
        if end == "." && self.rng.chance(0.03) {
            end = "!";
        }
        self.w(end);
        self.capital(start);
    }

    fn imperative(&mut self) {
        let start = self.out.len();
        match self.rng.below(4) {
            0 => self.w("do not "),
            1 => self.w("always "),
            2 => {
                self.w("to ");
                self.verb_from(&TRANSITIVE, Form::Base);
                self.w(" ");
                self.object(0);
                self.w(", ");
            }
            _ => {}
        }
        self.verb_from(&TRANSITIVE, Form::Base);
        self.w(" ");
        self.object(1);
        if self.rng.chance(0.5) {
            self.preposition();
            self.object(0);
        }
        self.w(".");
        self.capital(start);
    }

    fn clause(&mut self, depth: usize) {
        let plural = self.noun_phrase(depth);
        self.w(" ");
        self.predicate(plural, depth);
    }

    fn tense(&mut self, plural: bool) -> Form {
        match (self.doc.past, plural) {
            (true, _) => Form::Past,
            (false, true) => Form::Base,
            (false, false) => Form::Third,
        }
    }

    fn predicate(&mut self, plural: bool, depth: usize) {
        if self.rng.chance(0.1) {
            self.listed(&OFTEN);
            self.w(" ");
        }
        let finite = self.tense(plural);
        match self.rng.below(24) {
            0..8 => {
                self.verb_from(&TRANSITIVE, finite);
                self.w(" ");
                self.object(depth.saturating_sub(1));
            }
            8..12 => {
                self.verb_from(&INTRANSITIVE, finite);
                if self.rng.chance(0.4) {
                    self.w(" ");
                    self.adverb();
                }
            }
            12..16 => {
                self.copula(plural);
                self.adjective_phrase();
                if self.rng.chance(0.2) {
                    self.w(" and ");
                    self.adjective();
                }
            }
            16 => {
                self.copula(plural);
                self.singular(depth.saturating_sub(1));
            }
            17 | 18 => {
                self.one(MODAL);
                self.verb_from(&TRANSITIVE, Form::Base);
                self.w(" ");
                self.object(depth.saturating_sub(1));
            }
            19 => {
                self.w(match (self.doc.past, plural) {
                    (true, _) => "had ",
                    (false, true) => "have ",
                    (false, false) => "has ",
                });
                self.verb_from(&TRANSITIVE, Form::Participle);
                self.w(" ");
                self.object(depth.saturating_sub(1));
            }
            20 => {
                self.be(plural);
                self.verb_from(&TRANSITIVE, Form::Participle);
                if self.rng.chance(0.5) {
                    self.w(" by ");
                    self.object(depth.saturating_sub(1));
                }
            }
            21 => {
                self.be(plural);
                self.verb_from(&INTRANSITIVE, Form::Ing);
            }
            22 => {
                self.verb_from(
                    &["begin+:began:begun", "try", "hope", "want", "refuse", "learn", "fail", "manage"],
                    finite,
                );
                self.w(" to ");
                self.verb_from(&TRANSITIVE, Form::Base);
                self.w(" ");
                self.object(depth.saturating_sub(1));
            }
            _ => {
                self.verb_from(
                    &[
                        "give:gave:given",
                        "bring:brought:brought",
                        "offer",
                        "sell:sold:sold",
                        "lend:lent:lent",
                    ],
                    finite,
                );
                self.w(" ");
                self.object(0);
                self.w(" to ");
                self.name();
            }
        }
        if depth > 0 && self.rng.chance(0.35) {
            self.preposition();
            self.object(depth - 1);
        }
    }

    fn be(&mut self, plural: bool) {
        self.w(match (self.doc.past, plural) {
            (true, true) => "were ",
            (true, false) => "was ",
            (false, true) => "are ",
            (false, false) => "is ",
        });
    }

    fn copula(&mut self, plural: bool) {
        if plural {
            self.be(true);
        } else {
            self.one(if self.doc.past { COPULA_PAST } else { COPULA_NOW });
        }
    }

    /// Writes who or what; true if plural.
    fn noun_phrase(&mut self, depth: usize) -> bool {
        match self.rng.below(32) {
            0..10 => {
                self.singular(depth);
                false
            }
            10..16 => {
                let some = *self.rng.pick(SOME);
                if self.rng.chance(0.6) {
                    self.w(some);
                }
                if self.rng.chance(0.4) {
                    self.adjective();
                    self.w(" ");
                }
                self.any_noun(true);
                true
            }
            16..19 => {
                self.name();
                false
            }
            19 | 20 => self.pronoun(),
            21..24 => {
                if self.rng.chance(0.4) {
                    self.adjective();
                    self.w(" ");
                } else if self.rng.chance(0.3) {
                    self.w("the ");
                }
                self.listed(&MASS);
                false
            }
            24 => {
                self.name();
                self.w("'s ");
                if self.rng.chance(0.4) {
                    self.adjective();
                    self.w(" ");
                }
                let plural = self.rng.chance(0.3);
                self.any_noun(plural);
                plural
            }
            25 | 26 => {
                self.count();
                self.w(" ");
                self.any_noun(true);
                true
            }
            27 if depth > 0 => {
                self.noun_phrase(0);
                self.w(" and ");
                self.noun_phrase(0);
                true
            }
            28 if depth > 0 => {
                self.w("the ");
                self.any_noun(false);
                self.w(" that ");
                self.noun_phrase(0);
                self.w(" ");
                let form = if self.doc.past { Form::Past } else { Form::Base };
                self.verb_from(&TRANSITIVE, form);
                false
            }
            29 if depth > 0 => {
                self.w("the ");
                self.noun(&PEOPLE, false);
                self.w(" who ");
                self.predicate(false, depth - 1);
                false
            }
            30 => {
                self.w("the ");
                self.listed(&ORDINAL);
                self.w(" ");
                self.any_noun(false);
                false
            }
            _ => {
                self.verb_from(&TRANSITIVE, Form::Ing);
                self.w(" ");
                self.singular(0);
                false
            }
        }
    }

    /// A noun phrase after a verb or preposition.
    fn object(&mut self, depth: usize) {
        let start = self.out.len();
        self.noun_phrase(depth);
        let object = match &self.out[start..] {
            b"he" => "him",
            b"she" => "her",
            b"they" => "them",
            b"we" => "us",
            _ => return,
        };
        self.out.truncate(start);
        self.w(object);
    }

    fn singular(&mut self, depth: usize) {
        let mut one = *self.rng.pick(ONE);
        let indefinite = one.ends_with(" a ") || one == "a ";
        if indefinite {
            one = one.trim_end();
        }
        self.w(one);
        let article = self.out.len();
        if indefinite {
            self.w(" ");
        }
        let start = self.out.len();
        match self.rng.below(10) {
            0..4 => {}
            4..8 => {
                self.adjective();
                self.w(" ");
            }
            8 => {
                self.adjective();
                self.either(0.7, ", ", " and ");
                self.adjective();
                self.w(" ");
            }
            _ => {
                self.adjective_phrase();
                self.w(" ");
            }
        }
        if self.rng.chance(0.06) {
            self.noun(&THINGS, false);
            self.w("-");
        }
        self.any_noun(false);
        if indefinite && matches!(self.out[start], b'a' | b'e' | b'i' | b'o' | b'u') {
            self.out.insert(article, b'n');
        }
        if depth > 0 && self.rng.chance(0.3) {
            if self.rng.chance(0.5) {
                self.w(" of ");
            } else {
                self.preposition();
            }
            self.noun_phrase(depth - 1);
        }
    }

    fn pronoun(&mut self) -> bool {
        let (word, plural) = *self.rng.pick(&[
            ("he", false),
            ("she", false),
            ("it", false),
            ("they", true),
            ("we", true),
            ("you", true),
        ]);
        self.w(word);
        plural
    }

    fn subject_person(&mut self) {
        match self.rng.below(4) {
            0 => self.w("he"),
            1 => self.w("she"),
            2 => {
                self.w("the ");
                self.noun(&PEOPLE, false);
            }
            _ => self.name(),
        }
    }

    // ---- words

    #[inline]
    fn w(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// One of these, all equally likely.
    fn one(&mut self, list: &[&str]) {
        let word = *self.rng.pick(list);
        self.w(word);
    }

    fn either(&mut self, p: f64, one: &str, other: &str) {
        let word = if self.rng.chance(p) { one } else { other };
        self.w(word);
    }

    /// A word of the list, more often from the document's stretch of it.
    fn favoured<'a>(&mut self, list: &[&'a str]) -> &'a str {
        let bits = self.rng.next_u64();
        let u = bits >> 40;
        let mut skew = (u * u) >> 24;
        if self.doc.focused {
            skew = (skew * u) >> 24;
        }
        let at = ((skew as usize * list.len()) >> 24) + ((self.doc.stretch * list.len()) >> 16);
        list[if at < list.len() { at } else { at - list.len() }]
    }

    fn listed(&mut self, list: &[&str]) {
        let word = self.favoured(list);
        for part in word.split('-') {
            self.w(part);
            self.w(" ");
        }
        self.out.pop();
    }

    fn any_noun(&mut self, plural: bool) {
        match self.rng.below(20) {
            0..8 => self.noun(&THINGS, plural),
            8..12 => self.noun(&IDEAS, plural),
            12..16 => self.noun(&PEOPLE, plural),
            16..19 => self.noun(&PLACES, plural),
            _ => {
                self.invented();
                self.w(if plural { "s" } else { "" });
            }
        }
    }

    fn noun(&mut self, list: &[&str], plural: bool) {
        let entry = self.favoured(list);
        let (singular, irregular) = entry.split_once(':').map_or((entry, None), |(s, p)| (s, Some(p)));
        match irregular {
            Some(irregular) if plural => self.w(irregular),
            _ => {
                self.w(singular);
                if plural {
                    self.add_s(singular);
                }
            }
        }
    }

    /// The s of plurals and third persons, after `word` has been written.
    fn add_s(&mut self, word: &str) {
        let b = word.as_bytes();
        let (last, before) = (b[b.len() - 1], b[b.len().saturating_sub(2)]);
        match last {
            b's' | b'x' | b'z' => self.w("es"),
            b'h' if matches!(before, b'c' | b's') => self.w("es"),
            b'o' if word == "go" || word == "echo" => self.w("es"),
            b'y' if !matches!(before, b'a' | b'e' | b'o' | b'u') => {
                self.out.pop();
                self.w("ies");
            }
            _ => self.w("s"),
        }
    }

    fn verb_from(&mut self, list: &[&str], form: Form) {
        let entry = self.favoured(list);
        let mut parts = entry.split(':');
        let base = parts.next().unwrap_or(entry);
        let (base, doubled) = base.strip_suffix('+').map_or((base, false), |b| (b, true));
        let (past, participle) = (parts.next(), parts.next());
        match (form, past, participle) {
            (Form::Past, Some(past), _) => return self.w(past),
            (Form::Participle, _, Some(participle)) => return self.w(participle),
            _ => self.w(base),
        }
        let b = base.as_bytes();
        let (last, before) = (b[b.len() - 1], b[b.len().saturating_sub(2)]);
        match form {
            Form::Base => {}
            Form::Third => self.add_s(base),
            Form::Past | Form::Participle => match last {
                b'e' => self.w("d"),
                b'y' if !matches!(before, b'a' | b'e' | b'o' | b'u') => {
                    self.out.pop();
                    self.w("ied");
                }
                _ => {
                    if doubled {
                        self.out.push(last);
                    }
                    self.w("ed");
                }
            },
            Form::Ing => {
                if last == b'e' && !matches!(before, b'e' | b'y' | b'o') {
                    self.out.pop();
                    if before == b'i' {
                        self.out.pop();
                        self.out.push(b'y');
                    }
                } else if doubled {
                    self.out.push(last);
                }
                self.w("ing");
            }
        }
    }

    fn adjective(&mut self) {
        match self.rng.below(40) {
            0..16 => self.listed(&LOOKS),
            16..33 => self.listed(&TRAITS),
            33 => {
                self.noun(&THINGS, false);
                self.w("-like");
            }
            34 => {
                self.w("un");
                self.verb_from(&TRANSITIVE, Form::Participle);
            }
            35 => {
                self.w("well-");
                self.verb_from(&TRANSITIVE, Form::Participle);
            }
            36 => {
                self.noun(&THINGS, false);
                self.w("less");
            }
            37 => self.verb_from(&INTRANSITIVE, Form::Ing),
            38 => {
                self.listed(&LOOKS);
                self.w("-");
                self.noun(&["eye", "hair", "hand", "face", "heart", "wing", "leaf", "roof", "tooth"], false);
                self.w("ed");
            }
            _ => self.verb_from(&TRANSITIVE, Form::Participle),
        }
    }

    fn adjective_phrase(&mut self) {
        if self.rng.chance(0.4) {
            self.one(DEGREE);
        }
        self.adjective();
    }

    fn adverb(&mut self) {
        if self.rng.chance(0.4) {
            return self.listed(&MANNER);
        }
        let word = self.favoured(&TRAITS);
        self.w(word);
        if word.ends_with("ic") {
            self.w("al");
        } else if word.ends_with("le") {
            self.out.pop();
            self.out.push(b'y');
            return;
        } else if word.ends_with('y') {
            self.out.pop();
            self.w("i");
        }
        self.w("ly");
    }

    fn preposition(&mut self) {
        self.w(" ");
        self.one(&PREPOSITION);
        self.w(" ");
    }

    fn syllable(&mut self) {
        let (onset, vowel) = (*self.rng.pick(&ONSET), *self.rng.pick(&VOWEL));
        self.w(onset);
        self.w(vowel);
        if self.rng.chance(0.45) {
            self.one(&CODA);
        }
    }

    fn invented(&mut self) {
        for _ in 0..self.rng.range(2, 3) {
            self.syllable();
        }
    }

    /// A name built from open syllables, as the names in facts are.
    fn plain_name(&mut self) {
        let start = self.out.len();
        for _ in 0..self.rng.range(2, 4) {
            let consonant = *self.rng.pick(b"bcdfghjklmnprstvwz");
            let vowel = *self.rng.pick(b"aeiou");
            self.out.extend_from_slice(&[consonant, vowel]);
        }
        self.capital(start);
    }

    fn person(&mut self) {
        let given = *self.rng.pick(&GIVEN);
        match self.rng.below(5) {
            0 => self.w(given),
            1 => self.plain_name(),
            n => {
                if n == 2 {
                    let initial = b'A' + self.rng.below(26) as u8;
                    self.out.extend_from_slice(&[initial, b'.']);
                } else {
                    self.w(given);
                }
                self.w(" ");
                let start = self.out.len();
                self.syllable();
                if self.rng.chance(0.7) {
                    self.one(&SURNAME_END);
                }
                self.capital(start);
            }
        }
    }

    fn place_name(&mut self) {
        let start = self.out.len();
        self.syllable();
        self.one(&PLACE_END);
        self.capital(start);
    }

    /// Someone or some place of this document, seldom anyone else.
    fn name(&mut self) {
        if self.rng.chance(0.12) {
            return self.person();
        }
        let i = self.rng.below(self.doc.names.len());
        let (name, female) = &self.doc.names[i];
        // Full names are mostly shortened after all.
        let title = if *female { "Mrs. " } else { "Mr. " };
        let short = match (name.split_once(' '), self.rng.below(6)) {
            (Some((_, last)), 0) => {
                self.out.extend_from_slice(title.as_bytes());
                last
            }
            (Some((first, _)), 1..4) if !first.ends_with('.') => first,
            (Some((_, last)), 4) => last,
            _ => name,
        };
        self.out.extend_from_slice(short.as_bytes());
    }

    // ---- numbers

    fn number(&mut self, n: usize) {
        let mut digits = [0; 20];
        let (mut at, mut n) = (digits.len(), n);
        loop {
            at -= 1;
            digits[at] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[at..]);
    }

    fn digits(&mut self, low: usize, high: usize) {
        for _ in 0..self.rng.range(low, high) {
            let digit = b'0' + self.rng.below(10) as u8;
            self.out.push(digit);
        }
    }

    /// A number in words or digits, small ones more often.
    fn count(&mut self) {
        match self.rng.below(8) {
            0..3 => {
                let n = self.rng.range(2, 19);
                self.w(SMALL_NUMBER[n]);
            }
            3 => {
                let (tens, ones) = (self.rng.range(2, 9), self.rng.below(10));
                self.w(TENS[tens]);
                if ones > 0 {
                    self.w("-");
                    self.w(SMALL_NUMBER[ones]);
                }
            }
            4 => {
                let n = self.rng.range(2, 9);
                self.w(SMALL_NUMBER[n]);
                self.either(0.5, " hundred", " thousand");
            }
            5 => {
                let n = self.rng.range(1, 999);
                self.number(n);
                self.w(",");
                self.digits(3, 3);
            }
            _ => {
                let n = self.rng.range(2, 400);
                self.number(n);
            }
        }
    }

    fn quantity(&mut self) {
        self.count();
        if self.rng.chance(0.2) {
            self.w(" and a half");
        }
        self.w(" ");
        self.listed(&UNIT);
    }

    fn quantity_of(&mut self, list: &[&str]) {
        self.quantity();
        self.w(" of ");
        self.listed(list);
    }

    fn year(&mut self) {
        let year = self.rng.range(1066, 2040);
        self.number(year);
    }

    fn date(&mut self) {
        let day = self.rng.range(1, 28);
        match self.rng.below(5) {
            0 => {
                self.number(day);
                self.w(" ");
                self.listed(&MONTH);
                self.w(" ");
                self.year();
            }
            1 => {
                self.listed(&MONTH);
                self.w(" ");
                self.number(day);
                self.w(match day {
                    1 | 21 => "st",
                    2 | 22 => "nd",
                    3 | 23 => "rd",
                    _ => "th",
                });
            }
            2 => {
                self.listed(&MONTH);
                self.w(" ");
                self.number(day);
                self.w(", ");
                self.year();
            }
            3 => {
                self.year();
                let month = self.rng.range(1, 12);
                self.w(if month < 10 { "-0" } else { "-" });
                self.number(month);
                self.w(if day < 10 { "-0" } else { "-" });
                self.number(day);
            }
            _ => {
                let month = self.rng.range(1, 12);
                self.number(day);
                self.w("/");
                self.number(month);
                self.w("/");
                self.digits(2, 2);
            }
        }
    }

    fn time(&mut self) {
        let (hour, minute) = (self.rng.range(1, 12), self.rng.range(10, 59));
        self.number(hour);
        self.either(0.5, ":", ".");
        self.number(minute);
        self.either(0.5, " a.m.", " p.m.");
    }

    // ---- layout

    fn capital(&mut self, start: usize) {
        if let Some(first) = self.out[start..].iter_mut().find(|b| b.is_ascii_alphanumeric()) {
            first.make_ascii_uppercase();
        }
    }

    /// Breaks lines of what was written since `start` at the document's width.
    fn wrap(&mut self, start: usize) {
        if self.doc.width == 0 {
            return;
        }
        let (mut column, mut space) = (0, None);
        for i in start..self.out.len() {
            match self.out[i] {
                b'\n' => (column, space) = (0, None),
                byte => {
                    if byte == b' ' && column > 0 {
                        space = Some(i);
                    }
                    column += 1;
                    if column > self.doc.width
                        && let Some(at) = space.take()
                    {
                        self.out[at] = b'\n';
                        column = i - at;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn count(text: &[u8], needle: &str) -> usize {
        text.windows(needle.len()).filter(|w| *w == needle.as_bytes()).count()
    }

    #[test]
    fn same_seed_same_text_in_any_portions() {
        let whole = Prose::new(11).text(100_000);
        let mut parts = Vec::new();
        let (mut prose, mut rng) = (Prose::new(11), Rng::new(1));
        while parts.len() < whole.len() {
            let n = rng.range(0, 700).min(whole.len() - parts.len());
            parts.extend(prose.text(n));
        }
        assert_eq!(whole, parts);
        assert_ne!(whole, Prose::new(12).text(100_000));
        assert_ne!(Prose::inside(11).text(100), Prose::inside(12).text(100));
    }

    #[test]
    fn ascii_and_free_of_facts() {
        let text = Prose::new(0).text(6_000_000);
        for (i, &byte) in text.iter().enumerate() {
            assert!(matches!(byte, b'\n' | b'\t' | 32..127), "byte {byte} at {i}");
        }
        for fact in ["|The passkey is", "What is the passkey"] {
            assert_eq!(count(&text, fact), 0, "{fact}");
        }
        for noun in ["passkey", "code", "number", "key", "pin", "secret"] {
            assert_eq!(count(&text, &format!("|The {noun} of")), 0);
            assert_eq!(count(&text, &format!("|What is the {noun}")), 0);
        }
    }

    #[test]
    fn distractors_come_now_and_then() {
        let text = Prose::new(1).text(6_000_000);
        let bars = count(&text, "|");
        assert!((3_000..120_000).contains(&bars), "{bars} bars");
        assert!(count(&text, "|The ") > 20 && count(&text, "The passkey of") > 5);
        let mut runs = 0;
        for run in text.split(|b| !b.is_ascii_digit()) {
            runs += usize::from((5..=8).contains(&run.len()));
        }
        assert!((1_200..60_000).contains(&runs), "{runs} runs of 5 to 8 digits");
    }

    #[test]
    fn varied_like_a_language() {
        let text = Prose::new(2).text(1_000_000);
        let grams: HashSet<&[u8]> = text.windows(8).collect();
        let share = grams.len() as f64 / text.len() as f64;
        assert!(share > 0.35 && share < 0.9, "{share} of all 8-grams are distinct");
        let long: HashSet<&[u8]> = text.windows(40).collect();
        let share = long.len() as f64 / text.len() as f64;
        assert!(share > 0.98, "{share} of all 40-grams are distinct");
        let words: HashSet<&[u8]> = text.split(|b| !b.is_ascii_alphabetic()).collect();
        assert!(words.len() > 8_000, "{} words", words.len());
        let mut histogram = [0f64; 256];
        text.iter().for_each(|&b| histogram[b as usize] += 1.0);
        let n = text.len() as f64;
        let entropy: f64 = histogram.iter().filter(|c| **c > 0.0).map(|c| -c / n * (c / n).log2()).sum();
        assert!((4.0..4.9).contains(&entropy), "{entropy} bits a byte");
    }

    #[test]
    fn streams_of_neighbouring_seeds_share_little() {
        let (a, b) = (Prose::new(5).text(300_000), Prose::new(6).text(300_000));
        let grams: HashSet<&[u8]> = a.windows(24).collect();
        let shared = b.windows(24).filter(|w| grams.contains(w)).count();
        assert!(shared < 3_000, "{shared} shared 24-grams");
    }

    #[test]
    fn words_are_inflected() {
        let mut prose = Prose::new(0);
        let mut form = |verb: &str, form| {
            prose.out.clear();
            prose.verb_from(&[verb], form);
            String::from_utf8(prose.out.clone()).unwrap()
        };
        assert_eq!(form("stop+", Form::Past), "stopped");
        assert_eq!(form("carry", Form::Third), "carries");
        assert_eq!(form("carry", Form::Past), "carried");
        assert_eq!(form("write:wrote:written", Form::Participle), "written");
        assert_eq!(form("write:wrote:written", Form::Ing), "writing");
        assert_eq!(form("run+:ran:run", Form::Ing), "running");
        assert_eq!(form("lie:lay:lain", Form::Ing), "lying");
        assert_eq!(form("see:saw:seen", Form::Ing), "seeing");
        assert_eq!(form("catch:caught:caught", Form::Third), "catches");
        let mut noun = |noun: &str| {
            prose.out.clear();
            prose.noun(&[noun], true);
            String::from_utf8(prose.out.clone()).unwrap()
        };
        assert_eq!(noun("child:children"), "children");
        assert_eq!(noun("city"), "cities");
        assert_eq!(noun("monkey"), "monkeys");
        assert_eq!(noun("church"), "churches");
    }

    #[test]
    fn lines_are_wrapped() {
        let mut prose = Prose::new(3);
        prose.doc.width = 60;
        prose.out.clear();
        prose.paragraph(8, 8);
        prose.wrap(0);
        let text = String::from_utf8(prose.out.clone()).unwrap();
        assert!(text.lines().count() > 3 && text.lines().all(|l| l.len() <= 60), "{text}");
    }
}
