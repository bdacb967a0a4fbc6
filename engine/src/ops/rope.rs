//! Rotary position embedding.

use crate::testing::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
