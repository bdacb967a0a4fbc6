//! Stick-breaking and softmax weights of selected chunks.

use crate::testing::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
