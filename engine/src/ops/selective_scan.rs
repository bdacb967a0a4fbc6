//! Mamba-1's selective scan.

use crate::testing::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
