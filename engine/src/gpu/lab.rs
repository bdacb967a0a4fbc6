//! For one session of measuring: candidates that an environment variable chooses.

/// The number that the variable holds.
pub(crate) fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| {
        text.trim().parse().unwrap_or_else(|_| panic!("{name}: `{text}` is no number"))
    })
}
