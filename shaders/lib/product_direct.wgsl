// Operands of a matrix product straight from storage, and its result back, four elements at a time: outside of them loads
// repeat what is inside, and nothing is stored. The kernel declares a, b and c, their units and params.
fn a_unit_at(at: u32) -> vec4f { return vec4f(vec4<elem>(a[at])); }
fn b_unit_at(at: u32) -> vec4f { return vec4f(vec4<elem_b>(b[at])); }

// Elements i … i + 3 of the line that starts at `start`; past `last` the last one repeats.
fn a_four(start: u32, i: u32, last: u32) -> vec4f {
    if A_WIDTH == 4u { return a_unit_at((start + min(i, last - 3u)) >> 2u); }
    return vec4f(a_unit_at(start + min(i, last)).x, a_unit_at(start + min(i + 1u, last)).x,
                 a_unit_at(start + min(i + 2u, last)).x, a_unit_at(start + min(i + 3u, last)).x);
}

fn b_four(start: u32, i: u32, last: u32) -> vec4f {
    if B_WIDTH == 4u { return b_unit_at((start + min(i, last - 3u)) >> 2u); }
    return vec4f(b_unit_at(start + min(i, last)).x, b_unit_at(start + min(i + 1u, last)).x,
                 b_unit_at(start + min(i + 2u, last)).x, b_unit_at(start + min(i + 3u, last)).x);
}

// Four rows of the right operand, four columns from n0 on.
fn right_of(k: u32, last: u32, n0: u32, start: u32) -> mat4x4f {
    var r: mat4x4f;
    let end = params.n - 1u;
    if B_BY_K == 1u {
        r = transpose(mat4x4f(b_four(start + min(n0, end) * params.b_n, k, params.k - 1u),
                              b_four(start + min(n0 + 1u, end) * params.b_n, k, params.k - 1u),
                              b_four(start + min(n0 + 2u, end) * params.b_n, k, params.k - 1u),
                              b_four(start + min(n0 + 3u, end) * params.b_n, k, params.k - 1u)));
    } else {
        r = mat4x4f(b_four(start + min(k, last - 1u) * params.b_k, n0, end),
                    b_four(start + min(k + 1u, last - 1u) * params.b_k, n0, end),
                    b_four(start + min(k + 2u, last - 1u) * params.b_k, n0, end),
                    b_four(start + min(k + 3u, last - 1u) * params.b_k, n0, end));
    }
    return mat4x4f(r[0], select(vec4f(0.0), r[1], k + 1u < last), select(vec4f(0.0), r[2], k + 2u < last),
                   select(vec4f(0.0), r[3], k + 3u < last));
}

fn stored(at: u32, m: u32, n0: u32) -> vec4f {
    var v = vec4f(0.0);
    if m < params.m {
        if n0 < params.n { v.x = f32(c[at]); }
        if n0 + 1u < params.n { v.y = f32(c[at + 1u]); }
        if n0 + 2u < params.n { v.z = f32(c[at + 2u]); }
        if n0 + 3u < params.n { v.w = f32(c[at + 3u]); }
    }
    return v;
}

fn stored_rows(at: u32, m: u32, n0: u32) -> mat4x4f {
    let n = params.n;
    return mat4x4f(stored(at + m * n, m, n0), stored(at + (m + 1u) * n, m + 1u, n0),
                   stored(at + (m + 2u) * n, m + 2u, n0), stored(at + (m + 3u) * n, m + 3u, n0));
}

fn store(at: u32, m: u32, n0: u32, v: vec4f) {
    if m >= params.m { return; }
    if n0 < params.n { c[at] = elem_out(v.x); }
    if n0 + 1u < params.n { c[at + 1u] = elem_out(v.y); }
    if n0 + 2u < params.n { c[at + 2u] = elem_out(v.z); }
    if n0 + 3u < params.n { c[at + 3u] = elem_out(v.w); }
}

fn store_rows(at: u32, m: u32, n0: u32, s: mat4x4f, plus: vec4f) {
    let n = params.n;
    store(at + m * n, m, n0, s[0] + plus);
    store(at + (m + 1u) * n, m + 1u, n0, s[1] + plus);
    store(at + (m + 2u) * n, m + 2u, n0, s[2] + plus);
    store(at + (m + 3u) * n, m + 3u, n0, s[3] + plus);
}
