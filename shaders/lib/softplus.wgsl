// One number, or four.
alias real = f32;

// ln(1 + e) for 0 ≤ e ≤ 1 as 2 artanh(e / (2 + e)): ln(1 + e) itself loses what 1 + e rounds away.
fn log_1p(e: real) -> real {
    let s = e / (2.0 + e);
    let q = s * s;
    let tail = q * (1.0 / 9.0 + q * (1.0 / 11.0 + q * (1.0 / 13.0 + q / 15.0)));
    return 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (0.2 + q * (1.0 / 7.0 + tail))));
}

// ln(1 + exp(x)), to f32's rounding for small and large x alike.
fn softplus(x: real) -> real { return max(x, real(0.0)) + log_1p(exp(-abs(x))); }
