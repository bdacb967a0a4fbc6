//! For one session of measuring: candidates that an environment variable chooses.

/// The numbers that the variable holds, with commas between them. None where it is not set.
pub(crate) fn lab<const N: usize>(name: &str, otherwise: [usize; N]) -> Option<[usize; N]> {
    let text = std::env::var(name).ok()?;
    let mut values = otherwise;
    for (value, word) in values.iter_mut().zip(text.split(',')) {
        *value = word.trim().parse().unwrap_or_else(|_| panic!("{name}: `{word}` is no number"));
    }
    Some(values)
}

/// With RAMBUTAN_LAB_CONST: quads of a row as a kernel's constant, and whether so many workgroups are `whole` and not folded.
pub(crate) fn shapes(quads: usize, whole: bool, groups: usize) -> (usize, u32) {
    match lab("RAMBUTAN_LAB_CONST", [1]) {
        Some([1]) => (quads, u32::from(whole && groups <= 32768)),
        _ => (0, 0),
    }
}
