//! Loops written out. A `for` whose line ends in `// unroll` becomes its body once for each value of its counter, a
//! literal there: drivers keep arrays of cooperative matrices in registers only where every index is one.

use std::collections::HashMap;

use crate::{Error, has_word};

/// `text` with its marked loops written out; lines keep their numbers.
pub(crate) fn unroll(text: String) -> Result<String, Error> {
    if !text.lines().any(is_marked) {
        return Ok(text);
    }
    let mut constants = HashMap::new();
    // Module scope is order-free: what an expression lacks may be declared below it.
    loop {
        let known = constants.len();
        for line in text.lines().filter_map(|l| l.strip_prefix("const ")) {
            let Some((head, value)) = code(line).split_once('=') else { continue };
            let name = head.split([':', ' ']).next().unwrap_or("");
            if let Some(value) = Evaluator::of(value.trim().trim_end_matches(';'), &constants) {
                constants.insert(name.to_owned(), value);
            }
        }
        if constants.len() == known {
            break;
        }
    }
    let lines: Vec<&str> = text.lines().collect();
    let mut out = written_out(&lines, &constants)?;
    out.push('\n');
    Ok(out)
}

fn is_marked(line: &str) -> bool {
    line.trim_end().ends_with("// unroll")
}

fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or("")
}

fn written_out(lines: &[&str], constants: &HashMap<String, i64>) -> Result<String, Error> {
    let mut out: Vec<String> = Vec::with_capacity(lines.len());
    let mut at = 0;
    while at < lines.len() {
        if !is_marked(lines[at]) {
            out.push(lines[at].to_owned());
            at += 1;
            continue;
        }
        let fail = || Error::Unroll(lines[at].trim().to_owned());
        let (counter, values) = counted(lines[at], constants).ok_or_else(fail)?;
        let mut depth = 0;
        let mut end = at;
        loop {
            let line = code(lines.get(end).ok_or_else(fail)?);
            depth += line.matches('{').count() as i64 - line.matches('}').count() as i64;
            if depth == 0 {
                break;
            }
            end += 1;
        }
        // The body between the braces, on as many lines as the loop had.
        let first = code(lines[at]).split_once('{').ok_or_else(fail)?.1;
        let body: Vec<&str> = if end == at {
            vec![first.rsplit_once('}').ok_or_else(fail)?.0]
        } else {
            let last = code(lines[end]).rsplit_once('}').ok_or_else(fail)?.0;
            std::iter::once(first).chain(lines[at + 1..end].iter().copied()).chain([last]).collect()
        };
        let mut tail = String::new();
        for (i, value) in values.iter().enumerate() {
            let with: Vec<String> = body.iter().map(|l| with_literal(l, &counter, *value)).collect();
            let with: Vec<&str> = with.iter().map(String::as_str).collect();
            let text = format!("{{ {} }}", written_out(&with, constants)?);
            if i == 0 {
                out.extend(text.lines().map(str::to_owned));
            } else {
                tail.push(' ');
                tail.push_str(&text.lines().map(code).collect::<Vec<_>>().join(" "));
            }
        }
        if values.is_empty() {
            out.extend(body.iter().map(|_| String::new()));
        }
        if let Some(last) = out.last_mut() {
            last.push_str(&tail);
        }
        at = end + 1;
    }
    Ok(out.join("\n"))
}

/// `for (var i = 0u; i < N; i++)` as the counter's name and its values.
fn counted(line: &str, constants: &HashMap<String, i64>) -> Option<(String, Vec<i64>)> {
    let head = code(line).trim().strip_prefix("for (var ")?.split_once(") {")?.0;
    let mut parts = head.split(';').map(str::trim);
    let (name, from) = parts.next()?.split_once(" = ")?;
    let (tested, to) = parts.next()?.split_once(" < ")?;
    let step = parts.next()?.strip_prefix(name)?.trim();
    let step = match step.strip_prefix("+= ") {
        Some(step) => Evaluator::of(step, constants)?,
        None => i64::from(step == "++"),
    };
    let (from, to) = (Evaluator::of(from, constants)?, Evaluator::of(to, constants)?);
    (tested == name && step > 0)
        .then(|| (name.to_owned(), (from..to).step_by(usize::try_from(step).unwrap_or(1)).collect()))
}

fn with_literal(line: &str, name: &str, value: i64) -> String {
    if !has_word(line, name) {
        return line.to_owned();
    }
    let mut out = String::with_capacity(line.len());
    let mut word = String::new();
    let part = |c: char| c.is_alphanumeric() || c == '_';
    for c in line.chars().chain(['\n']) {
        if part(c) {
            word.push(c);
            continue;
        }
        // A member of that name is another thing.
        if word == name && !out.ends_with('.') {
            out.push_str(&format!("{value}u"))
        } else {
            out.push_str(&word)
        }
        word.clear();
        if c != '\n' {
            out.push(c);
        }
    }
    out
}

/// Constant expressions of whole numbers, as WGSL has them.
struct Evaluator<'a> {
    text: &'a [u8],
    at: usize,
    constants: &'a HashMap<String, i64>,
}

impl<'a> Evaluator<'a> {
    fn of(text: &'a str, constants: &'a HashMap<String, i64>) -> Option<i64> {
        let mut e = Evaluator { text: text.trim().as_bytes(), at: 0, constants };
        let value = e.compared()?;
        (e.at == e.text.len()).then_some(value)
    }

    fn eat(&mut self, token: &str) -> bool {
        while self.text.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        let found = self.text[self.at..].starts_with(token.as_bytes());
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn compared(&mut self) -> Option<i64> {
        let left = self.sum()?;
        for (token, test) in [
            ("==", i64::eq as fn(&i64, &i64) -> bool),
            ("!=", i64::ne),
            (">=", i64::ge),
            ("<=", i64::le),
            ("<", i64::lt),
            (">", i64::gt),
        ] {
            if self.eat(token) {
                return Some(i64::from(test(&left, &self.sum()?)));
            }
        }
        Some(left)
    }

    fn sum(&mut self) -> Option<i64> {
        let mut value = self.product()?;
        loop {
            if self.eat("+") {
                value += self.product()?;
            } else if self.eat("-") {
                value -= self.product()?;
            } else {
                return Some(value);
            }
        }
    }

    fn product(&mut self) -> Option<i64> {
        let mut value = self.atom()?;
        loop {
            if self.eat("*") {
                value = value.checked_mul(self.atom()?)?;
            } else if self.eat("/") {
                value = value.checked_div(self.atom()?)?;
            } else if self.eat("%") {
                value = value.checked_rem(self.atom()?)?;
            } else {
                return Some(value);
            }
        }
    }

    fn atom(&mut self) -> Option<i64> {
        if self.eat("(") {
            let value = self.compared()?;
            return self.eat(")").then_some(value);
        }
        let rest = &self.text[self.at..];
        let len = rest.iter().take_while(|c| c.is_ascii_alphanumeric() || **c == b'_').count();
        let word = std::str::from_utf8(&rest[..len]).ok()?;
        self.at += len;
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return word.trim_end_matches('u').parse().ok();
        }
        if !self.eat("(") {
            return self.constants.get(word).copied();
        }
        let mut arguments = vec![self.compared()?];
        while self.eat(",") {
            arguments.push(self.compared()?);
        }
        match (word, arguments.as_slice(), self.eat(")")) {
            ("min", [a, b], true) => Some(*a.min(b)),
            ("max", [a, b], true) => Some(*a.max(b)),
            ("select", [a, b, test], true) => Some(if *test != 0 { *b } else { *a }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_loops_are_written_out_on_their_lines() {
        let text = "const N: u32 = select(M, 7u, M == 3u);\nconst M: u32 = 4u / 2u;\nfn f() {\n    for (var i = 0u; i < N; i++) { // unroll\n        // once each\n        for (var j = i; j < 2u; j += 1u) { a[i] += b.i[j]; } // unroll\n    }\n    for (var i = 0u; i < N; i++) { c[i] = 0.0; }\n}\n";
        let out = unroll(text.into()).unwrap();
        assert_eq!(out.lines().count(), text.lines().count());
        let flat: String =
            out.lines().map(code).collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            flat.contains("{ { a[0u] += b.i[0u]; } { a[0u] += b.i[1u]; } } { { a[1u] += b.i[1u]; } }"),
            "{flat}"
        );
        assert_eq!(out.lines().nth(7), text.lines().nth(7));
    }

    #[test]
    fn a_loop_without_known_bounds_is_named() {
        let text = "fn f() {\n    for (var i = 0u; i < params.n; i++) { a[i] = 0.0; } // unroll\n}\n";
        assert!(matches!(unroll(text.into()), Err(Error::Unroll(line)) if line.starts_with("for (var i")));
    }
}
