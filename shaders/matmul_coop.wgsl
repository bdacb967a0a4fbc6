// uses: lib/product_next.wgsl
// variants: STEP=32 BUFFERS=1 | STEP=32 STAGE=2 | STAGE=1 | A_BY_K=0 | B_BY_K=0 | A_BY_K=0 B_BY_K=0 elem_out=f32 | elem_b=f32
// The product of matmul.wgsl on cooperative matrices, 16-bit operands and sums in f32: a workgroup of four subgroups of
// 32 computes 128 × 128, each subgroup 64 × 64 in 4 × 4 matrices of 16 × 16. Tiles of STEP k are staged as 16-bit floats
// (f32 weights are rounded there), zeros outside of the operands; with two buffers one is filled while the other is
// multiplied. Sums leave through workgroup memory. Lines of a, b and c hold multiples of four elements.
alias elem = f16;
alias elem_b = f16;
alias elem_out = f16;
alias four = vec4<f16>;
const A_BY_K: u32 = 1u;
const B_BY_K: u32 = 1u;
const STEP: u32 = 16u;                                                // or 32
const BUFFERS: u32 = 2u;                                              // or 1
const STAGE: u32 = 4u;                                                // matrices a subgroup stores at once: 1, 2, 4
const QUADS: u32 = STEP / 4u;
// Eight elements more than a line of k, or of the tile, holds: then its parts meet different banks. In fours.
const K_STRIDE: u32 = QUADS + 2u;
const LINE_STRIDE: u32 = 34u;
const BUFFER: u32 = 128u * K_STRIDE;
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

var<workgroup> a_tile: array<four, BUFFERS * BUFFER>;                 // (row, quad of k), or (k, quad of rows)
var<workgroup> b_tile: array<four, BUFFERS * BUFFER>;                 // (column, quad of k), or (k, quad of columns)
var<workgroup> stage: array<f32, 4u * 256u * STAGE>;                  // (subgroup, 16, 16 · STAGE)

fn put_a(v: u32, buffer: u32, value: four) {
    var at = v / 32u * LINE_STRIDE + v % 32u;
    if A_BY_K == 1u { at = v / QUADS * K_STRIDE + v % QUADS; }
    a_tile[buffer + at] = value;
}

fn put_b(v: u32, buffer: u32, value: four) {
    var at = v / 32u * LINE_STRIDE + v % 32u;
    if B_BY_K == 1u { at = v / QUADS * K_STRIDE + v % QUADS; }
    b_tile[buffer + at] = value;
}

// What one invocation loads of 128 × 16.
struct Fours { x: four, y: four, z: four, w: four }

fn a_fours(v: u32, m0: u32, k0: u32, last: u32, start: u32) -> Fours {
    return Fours(a_next(v, m0, k0, last, start), a_next(v + 128u, m0, k0, last, start),
                 a_next(v + 256u, m0, k0, last, start), a_next(v + 384u, m0, k0, last, start));
}

fn b_fours(v: u32, n0: u32, k0: u32, last: u32, start: u32) -> Fours {
    return Fours(b_next(v, n0, k0, last, start), b_next(v + 128u, n0, k0, last, start),
                 b_next(v + 256u, n0, k0, last, start), b_next(v + 384u, n0, k0, last, start));
}

fn put_fours(v: u32, buffer: u32, l: Fours, r: Fours) {
    put_a(v, buffer, l.x);
    put_a(v + 128u, buffer, l.y);
    put_a(v + 256u, buffer, l.z);
    put_a(v + 384u, buffer, l.w);
    put_b(v, buffer, r.x);
    put_b(v + 128u, buffer, r.y);
    put_b(v + 256u, buffer, r.z);
    put_b(v + 384u, buffer, r.w);
}

// Rows m … m + 15 of the left tile, k … k + 15.
fn left(m: u32, k: u32, buffer: u32) -> coop_mat16x16<f16, A> {
    if A_BY_K == 1u {
        let at = buffer + m * K_STRIDE + k / 4u;
        return coopLoadT<coop_mat16x16<f16, A>>(&a_tile[at], K_STRIDE);
    }
    let at = buffer + k * LINE_STRIDE + m / 4u;
    return coopLoad<coop_mat16x16<f16, A>>(&a_tile[at], LINE_STRIDE);
}

// k … k + 15 of the right tile, columns n … n + 15.
fn right(n: u32, k: u32, buffer: u32) -> coop_mat16x16<f16, B> {
    if B_BY_K == 1u {
        let at = buffer + n * K_STRIDE + k / 4u;
        return coopLoad<coop_mat16x16<f16, B>>(&b_tile[at], K_STRIDE);
    }
    let at = buffer + k * LINE_STRIDE + n / 4u;
    return coopLoadT<coop_mat16x16<f16, B>>(&b_tile[at], LINE_STRIDE);
}

// Stores a subgroup's STAGE matrices from row m and column n of the result on, once all have written theirs to `stage`.
fn unstage(m: u32, n: u32, start: u32, subgroup: u32, lane: u32) {
    workgroupBarrier();
    for (var i = lane; i < 64u * STAGE; i += 32u) {
        let row = m + i / (4u * STAGE);
        let column = n + i % (4u * STAGE) * 4u;
        if row < params.m && column < params.n {
            let at = subgroup * 256u * STAGE + i * 4u;
            var v = vec4f(stage[at], stage[at + 1u], stage[at + 2u], stage[at + 3u]);
            if params.has_bias != 0u {
                v += vec4f(bias[column], bias[column + 1u], bias[column + 2u], bias[column + 3u]);
            }
            c[(start + row * params.n + column) / 4u] = vec4<elem_out>(v);
        }
    }
    workgroupBarrier();
}

// A row of four matrices.
fn store(m: u32, n: u32, start: u32, subgroup: u32, lane: u32, c0: coop_mat16x16<f32, C>, c1: coop_mat16x16<f32, C>,
         c2: coop_mat16x16<f32, C>, c3: coop_mat16x16<f32, C>) {
    let stride = 16u * STAGE;
    let at0 = subgroup * 256u * STAGE;
    let at1 = at0 + 1u % STAGE * 16u;
    let at2 = at0 + 2u % STAGE * 16u;
    let at3 = at0 + 3u % STAGE * 16u;
    coopStoreT(c0, &stage[at0], stride);
    if STAGE == 1u { unstage(m, n, start, subgroup, lane); }
    coopStoreT(c1, &stage[at1], stride);
    if STAGE == 1u { unstage(m, n + 16u, start, subgroup, lane); }
    if STAGE == 2u { unstage(m, n, start, subgroup, lane); }
    coopStoreT(c2, &stage[at2], stride);
    if STAGE == 1u { unstage(m, n + 32u, start, subgroup, lane); }
    coopStoreT(c3, &stage[at3], stride);
    unstage(m, n + 64u - 16u * STAGE, start, subgroup, lane);
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let m0 = group.y * 128u;
    let n0 = group.x * 128u;
    let z = group.z;
    // A batch has strides along z and sums all of k; a piece has none.
    let first = select(0u, z * params.piece, params.a_z == 0u);
    let last = min(first + params.piece, params.k);
    let a_start = params.a_0 + z * params.a_z;
    let b_start = params.b_0 + z * params.b_z;
    let rows = subgroup / 2u * 64u;
    let columns = subgroup % 2u * 64u;
    var c00: coop_mat16x16<f32, C>; var c01: coop_mat16x16<f32, C>;
    var c02: coop_mat16x16<f32, C>; var c03: coop_mat16x16<f32, C>;
    var c10: coop_mat16x16<f32, C>; var c11: coop_mat16x16<f32, C>;
    var c12: coop_mat16x16<f32, C>; var c13: coop_mat16x16<f32, C>;
    var c20: coop_mat16x16<f32, C>; var c21: coop_mat16x16<f32, C>;
    var c22: coop_mat16x16<f32, C>; var c23: coop_mat16x16<f32, C>;
    var c30: coop_mat16x16<f32, C>; var c31: coop_mat16x16<f32, C>;
    var c32: coop_mat16x16<f32, C>; var c33: coop_mat16x16<f32, C>;
    put_fours(index, 0u, a_fours(index, m0, first, last, a_start), b_fours(index, n0, first, last, b_start));
    if STEP == 32u {
        let v = index + 512u;
        put_fours(v, 0u, a_fours(v, m0, first, last, a_start), b_fours(v, n0, first, last, b_start));
    }
    workgroupBarrier();
    let steps = (params.piece + STEP - 1u) / STEP;
    for (var step = 0u; step < steps; step++) {
        let next = first + (step + 1u) * STEP;
        let l0 = a_fours(index, m0, next, last, a_start);
        let r0 = b_fours(index, n0, next, last, b_start);
        var l1: Fours;
        var r1: Fours;
        if STEP == 32u {
            l1 = a_fours(index + 512u, m0, next, last, a_start);
            r1 = b_fours(index + 512u, n0, next, last, b_start);
        }
        let full = step % BUFFERS * BUFFER;
        for (var k = 0u; k < STEP; k += 16u) {
            let a0 = left(rows, k, full);
            let a1 = left(rows + 16u, k, full);
            let a2 = left(rows + 32u, k, full);
            let a3 = left(rows + 48u, k, full);
            let b0 = right(columns + 0u, k, full);
            c00 = coopMultiplyAdd(a0, b0, c00);
            c10 = coopMultiplyAdd(a1, b0, c10);
            c20 = coopMultiplyAdd(a2, b0, c20);
            c30 = coopMultiplyAdd(a3, b0, c30);
            let b1 = right(columns + 16u, k, full);
            c01 = coopMultiplyAdd(a0, b1, c01);
            c11 = coopMultiplyAdd(a1, b1, c11);
            c21 = coopMultiplyAdd(a2, b1, c21);
            c31 = coopMultiplyAdd(a3, b1, c31);
            let b2 = right(columns + 32u, k, full);
            c02 = coopMultiplyAdd(a0, b2, c02);
            c12 = coopMultiplyAdd(a1, b2, c12);
            c22 = coopMultiplyAdd(a2, b2, c22);
            c32 = coopMultiplyAdd(a3, b2, c32);
            let b3 = right(columns + 48u, k, full);
            c03 = coopMultiplyAdd(a0, b3, c03);
            c13 = coopMultiplyAdd(a1, b3, c13);
            c23 = coopMultiplyAdd(a2, b3, c23);
            c33 = coopMultiplyAdd(a3, b3, c33);
        }
        // One buffer is filled once all have read it.
        if BUFFERS == 1u { workgroupBarrier(); }
        let empty = (step + 1u) % BUFFERS * BUFFER;
        put_fours(index, empty, l0, r0);
        if STEP == 32u { put_fours(index + 512u, empty, l1, r1); }
        workgroupBarrier();
    }
    let m = m0 + rows;
    let n = n0 + columns;
    let c_start = params.c_0 + z * params.c_z;
    store(m + 0u, n, c_start, subgroup, lane, c00, c01, c02, c03);
    store(m + 16u, n, c_start, subgroup, lane, c10, c11, c12, c13);
    store(m + 32u, n, c_start, subgroup, lane, c20, c21, c22, c23);
    store(m + 48u, n, c_start, subgroup, lane, c30, c31, c32, c33);
}
