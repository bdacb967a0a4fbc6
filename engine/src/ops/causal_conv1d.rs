//! Causal depthwise convolution with SiLU.

use crate::testing::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
