//! Scores of tokens against landmarks and the best K chunks, in one streaming pass.

use crate::testing::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
