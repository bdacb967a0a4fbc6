//! Mamba-2's recurrence, one token at a time.

use crate::testing::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
