//! RMSNorm of x · SiLU(z), gate first.

use crate::testing::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
