// Four elements at a time of the operands of a matrix product, zeros outside of them. The v-th of a tile of 128 lines:
// (line, quad of k) where a line's neighbours go along k, else (k, quad of lines). The kernel declares `four`, QUADS (of
// k a tile), A_BY_K, B_BY_K and the operands.
fn a_next(v: u32, m0: u32, k0: u32, last: u32, start: u32) -> four {
    if A_BY_K == 1u {
        let m = m0 + v / QUADS;
        let k = k0 + v % QUADS * 4u;
        if m < params.m && k < last { return four(a[(start + m * params.a_m + k) / 4u]); }
    } else {
        let m = m0 + v % 32u * 4u;
        let k = k0 + v / 32u;
        if m < params.m && k < last { return four(a[(start + k * params.a_k + m) / 4u]); }
    }
    return four();
}

fn b_next(v: u32, n0: u32, k0: u32, last: u32, start: u32) -> four {
    if B_BY_K == 1u {
        let n = n0 + v / QUADS;
        let k = k0 + v % QUADS * 4u;
        if n < params.n && k < last { return four(b[(start + n * params.b_n + k) / 4u]); }
    } else {
        let n = n0 + v % 32u * 4u;
        let k = k0 + v / 32u;
        if n < params.n && k < last { return four(b[(start + k * params.b_k + n) / 4u]); }
    }
    return four();
}
