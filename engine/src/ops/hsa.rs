//! Hierarchical aggregation over selected chunks.

use crate::testing::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
