//! Cross entropy that never stores probabilities.

use crate::testing::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
