// Σ of `count` values of a column of `x`, from `first` on and `step` apart, in ascending order.
fn column_sum(first: u32, step: u32, count: u32) -> real {
    var sum = real();
    var at = first;
    var left = count;
    while left >= 8u {
        // Eight loads under way together.
        let x0 = real(x[at]);
        let x1 = real(x[at + step]);
        let x2 = real(x[at + 2u * step]);
        let x3 = real(x[at + 3u * step]);
        let x4 = real(x[at + 4u * step]);
        let x5 = real(x[at + 5u * step]);
        let x6 = real(x[at + 6u * step]);
        let x7 = real(x[at + 7u * step]);
        sum = sum + x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7;
        at += 8u * step;
        left -= 8u;
    }
    while left > 0u {
        sum += real(x[at]);
        at += step;
        left--;
    }
    return sum;
}
