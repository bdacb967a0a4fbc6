//! Bidirectional softmax attention inside a chunk.

use crate::testing::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
