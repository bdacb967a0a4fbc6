//! Element-wise ops with broadcasting.

use crate::testing::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
