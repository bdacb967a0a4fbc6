// uses: lib/product4.wgsl, lib/product_next.wgsl
// variants: A_BY_K=0 | B_BY_K=0 | A_BY_K=0 B_BY_K=0 | STEP=16 | A_BY_K=0 B_BY_K=0 STEP=16 | elem=f16 | elem_b=f16 | elem=f16 elem_b=f16 elem_out=f16
// The product of matmul.wgsl in tiles of 128 × 128: an invocation computes 8 × 8, in four blocks of 4 × 4. Lines of a, b
// and c hold multiples of four elements. Two buffers of STEP k alternate: while one is multiplied, the next is loaded,
// and a step needs one barrier. 16 KiB of workgroup memory at STEP = 8, 32 KiB at 16.
alias elem = f32;
alias elem_b = f32;
alias elem_out = f32;
alias four = vec4f;
const A_BY_K: u32 = 1u;
const B_BY_K: u32 = 1u;
const STEP: u32 = 8u;
const QUADS: u32 = STEP / 4u;
const BUFFER: u32 = STEP * 32u;
struct Params {
    m: u32, n: u32, k: u32, piece: u32,
    a_m: u32, a_k: u32, a_z: u32,
    b_k: u32, b_n: u32, b_z: u32,
    a_0: u32, b_0: u32, c_0: u32, c_z: u32, has_bias: u32, accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<elem>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<elem_b>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;            // (n)
@group(0) @binding(4) var<storage, read_write> c: array<vec4<elem_out>>; // (z, m, n)

var<workgroup> a_tile: array<vec4f, 2u * BUFFER>;                     // by_k(row, quad of k) or (k, quad of rows)
var<workgroup> b_tile: array<vec4f, 2u * BUFFER>;                     // by_k(column, quad of k) or (k, quad of columns)

// Where four k of a line (row or column) lie: neighbours that write, and those that read every fourth line, meet
// different banks.
fn by_k(line: u32, quad: u32) -> u32 {
    let j = line % 4u;
    return quad * 128u + j * 32u + ((line / 4u) ^ ((j * QUADS + quad) % 8u));
}

fn put_a(v: u32, buffer: u32, value: vec4f) {
    var at = v;
    if A_BY_K == 1u { at = by_k(v / QUADS, v % QUADS); }
    a_tile[buffer + at] = value;
}

fn put_b(v: u32, buffer: u32, value: vec4f) {
    var at = v;
    if B_BY_K == 1u { at = by_k(v / QUADS, v % QUADS); }
    b_tile[buffer + at] = value;
}

// Rows 4y … 4y + 3 of the left tile, four k.
fn left(y: u32, quad: u32, buffer: u32) -> mat4x4f {
    if A_BY_K == 1u {
        return mat4x4f(a_tile[buffer + by_k(4u * y, quad)], a_tile[buffer + by_k(4u * y + 1u, quad)],
                       a_tile[buffer + by_k(4u * y + 2u, quad)], a_tile[buffer + by_k(4u * y + 3u, quad)]);
    }
    let at = buffer + quad * 128u + y;
    return transpose(mat4x4f(a_tile[at], a_tile[at + 32u], a_tile[at + 64u], a_tile[at + 96u]));
}

// Four k of the right tile, columns 4x … 4x + 3.
fn right(x: u32, quad: u32, buffer: u32) -> mat4x4f {
    if B_BY_K == 1u {
        return transpose(mat4x4f(b_tile[buffer + by_k(4u * x, quad)], b_tile[buffer + by_k(4u * x + 1u, quad)],
                                 b_tile[buffer + by_k(4u * x + 2u, quad)], b_tile[buffer + by_k(4u * x + 3u, quad)]));
    }
    let at = buffer + quad * 128u + x;
    return mat4x4f(b_tile[at], b_tile[at + 32u], b_tile[at + 64u], b_tile[at + 96u]);
}

fn stored(m: u32, n: u32, start: u32) -> vec4f {
    if m < params.m && n < params.n { return vec4f(c[(start + m * params.n + n) / 4u]); }
    return vec4f(0.0);
}

fn stored_rows(m: u32, n: u32, start: u32) -> mat4x4f {
    return mat4x4f(stored(m, n, start), stored(m + 1u, n, start), stored(m + 2u, n, start), stored(m + 3u, n, start));
}

fn store(m: u32, n: u32, start: u32, v: vec4f) {
    if m < params.m { c[(start + m * params.n + n) / 4u] = vec4<elem_out>(v); }
}

fn store_rows(m: u32, n: u32, start: u32, s: mat4x4f) {
    if n >= params.n { return; }
    var plus = vec4f(0.0);
    if params.has_bias != 0u { plus = vec4f(bias[n], bias[n + 1u], bias[n + 2u], bias[n + 3u]); }
    store(m, n, start, s[0] + plus);
    store(m + 1u, n, start, s[1] + plus);
    store(m + 2u, n, start, s[2] + plus);
    store(m + 3u, n, start, s[3] + plus);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let m0 = group.y * 128u;
    let n0 = group.x * 128u;
    let z = group.z;
    // A batch has strides along z and sums all of k; a piece has none.
    let first = select(0u, z * params.piece, params.a_z == 0u);
    let last = min(first + params.piece, params.k);
    let a_start = params.a_0 + z * params.a_z;
    let b_start = params.b_0 + z * params.b_z;
    let c_start = params.c_0 + z * params.c_z;
    // 32 neighbours take 4 × 8 blocks: they read the fewest lines.
    let x = lane % 8u + lane / 32u % 2u * 8u;
    let y = lane / 8u % 4u + lane / 64u * 4u;
    let m = m0 + 4u * y;
    let n = n0 + 4u * x;
    var s00: mat4x4f; var s01: mat4x4f; var s10: mat4x4f; var s11: mat4x4f;
    if params.accumulate != 0u {
        s00 = stored_rows(m, n, c_start);
        s01 = stored_rows(m, n + 64u, c_start);
        s10 = stored_rows(m + 64u, n, c_start);
        s11 = stored_rows(m + 64u, n + 64u, c_start);
    }
    put_a(lane, 0u, a_next(lane, m0, first, last, a_start));
    put_b(lane, 0u, b_next(lane, n0, first, last, b_start));
    if STEP == 16u {
        put_a(lane + 256u, 0u, a_next(lane + 256u, m0, first, last, a_start));
        put_b(lane + 256u, 0u, b_next(lane + 256u, n0, first, last, b_start));
    }
    workgroupBarrier();
    let steps = (params.piece + STEP - 1u) / STEP;
    for (var step = 0u; step < steps; step++) {
        let k = first + (step + 1u) * STEP;
        let a0 = a_next(lane, m0, k, last, a_start);
        let b0 = b_next(lane, n0, k, last, b_start);
        var a1 = vec4f(0.0);
        var b1 = vec4f(0.0);
        if STEP == 16u {
            a1 = a_next(lane + 256u, m0, k, last, a_start);
            b1 = b_next(lane + 256u, n0, k, last, b_start);
        }
        let full = step % 2u * BUFFER;
        for (var quad = 0u; quad < QUADS; quad++) {
            let l0 = left(y, quad, full);
            let l1 = left(y + 16u, quad, full);
            let r0 = right(x, quad, full);
            s00 = add_product(s00, l0, r0);
            s10 = add_product(s10, l1, r0);
            let r1 = right(x + 16u, quad, full);
            s01 = add_product(s01, l0, r1);
            s11 = add_product(s11, l1, r1);
        }
        let empty = BUFFER - full;
        put_a(lane, empty, a0);
        put_b(lane, empty, b0);
        if STEP == 16u {
            put_a(lane + 256u, empty, a1);
            put_b(lane + 256u, empty, b1);
        }
        workgroupBarrier();
    }
    store_rows(m, n, c_start, s00);
    store_rows(m, n + 64u, c_start, s01);
    store_rows(m + 64u, n, c_start, s10);
    store_rows(m + 64u, n + 64u, c_start, s11);
}
