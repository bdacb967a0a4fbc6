//! The kernels as they should be: nothing is found.

use kernels::*;

#[test]
fn prefix_sum_holds() {
    prefix_sum(PREFIX_SUM).check();
}

#[test]
fn convolution_holds() {
    convolution(CONVOLUTION, CONVOLUTION_BACKWARD).check();
}

#[test]
fn bitonic_sort_holds() {
    bitonic_sort(BITONIC_SORT).check();
}

#[test]
fn histogram_holds() {
    histogram(HISTOGRAM).check();
}

#[test]
fn transpose_holds() {
    transpose(TRANSPOSE).check();
}
