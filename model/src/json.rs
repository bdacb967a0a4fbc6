//! JSON from strangers: objects whose keys must be unique, and text made fit to show in an error.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

/// An object's entries, sorted by key; a key that stands twice is an error, where plain serde keeps the last.
pub(crate) struct UniqueMap<T>(pub Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for UniqueMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = UniqueMap<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value = map
                        .next_value()
                        .map_err(|e| A::Error::custom(format_args!("{}: {e}", shown(&key))))?;
                    entries.push((key, value));
                }
                entries.sort_by(|a: &(String, T), b| a.0.cmp(&b.0));
                if let Some(pair) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                    return Err(A::Error::custom(format_args!("{} stands twice", shown(&pair[0].0))));
                }
                Ok(UniqueMap(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// Text from a file, quoted, escaped and cut: it may hold terminal escapes or be a megabyte long.
pub(crate) fn shown(text: &str) -> String {
    const LIMIT: usize = 120;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A parser's complaint, which may quote the text at any length: cut, and without what a terminal would obey.
pub(crate) fn complaint(error: &serde_json::Error) -> String {
    const LIMIT: usize = 300;
    let text: String = error
        .to_string()
        .chars()
        .take(LIMIT + 1)
        .flat_map(|c| match c {
            c if c.is_control() => c.escape_default().collect::<Vec<_>>(),
            c => vec![c],
        })
        .collect();
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}… (line {}, column {})", &text[..end], error.line(), error.column()),
        None => text,
    }
}

/// The number of single-character edits between two names (Levenshtein).
pub(crate) fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
