//! Rows of a table by index.

use crate::testing::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
