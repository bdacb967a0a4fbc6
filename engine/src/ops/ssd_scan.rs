//! Mamba-2's chunked scan.

use crate::testing::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
