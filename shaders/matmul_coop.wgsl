// uses: lib/four.wgsl
// variants: TM=128 TN=128 WM=64 WN=64 | TM=64 TN=128 WM=64 WN=64 A_BY_K=0 | B_BY_K=0 STEP=64 | A_BY_K=0 B_BY_K=0 elem_out=f32 | WIDE_B=1 BIAS=1 | TM=128 TN=128 WM=64 WN=64 WHOLE=1 | STEP=64 WHOLE=1
// The product of matmul.wgsl on cooperative matrices, 16-bit operands and sums in f32: a workgroup computes TM × TN, each
// subgroup of 32 takes WM × WN of it in matrices of 16 × 16. Tiles of STEP k are staged as 16-bit floats (f32 weights are
// rounded there), zeros outside of the operands, while the next are under way into registers. Operands are read 16 bytes
// at a time, as words: 16-bit vectors would come in pieces. Lines of a, b and c hold multiples of eight elements.
// 128 × 128 take 24 KiB of workgroup memory: with more, fewer workgroups share a multiprocessor. What is loaded is stored
// in the same round of the loop: carried over into the next, it would be moved from register to register first. Where m
// and n hold a tile, WHOLE moves the last ones back inside; they store what the tiles before them leave.
alias elem_out = f16;
const WIDE_B: u32 = 0u;                                               // 1: b is f32
const A_BY_K: u32 = 1u;
const B_BY_K: u32 = 1u;
const TM: u32 = 64u;
const TN: u32 = 64u;
const WM: u32 = 32u;
const WN: u32 = 32u;
const WIDE: u32 = TN / WN;                                            // subgroups along n
const WG: u32 = TM / WM * WIDE * 32u;
const STEP: u32 = 32u;
const WHOLE: u32 = 0u;                                                // 1: no tile reaches beyond m, n or a piece
const BIAS: u32 = 0u;
const BAND: u32 = 8u;                                                 // rows of tiles whose operands share the cache
// Eight elements more than a line of k, or of the tile, holds: then its parts meet different banks. In eights.
const K_STRIDE: u32 = STEP / 8u + 1u;
const A_STRIDE: u32 = select(TM / 8u + 1u, K_STRIDE, A_BY_K == 1u);
const B_STRIDE: u32 = select(TN / 8u + 1u, K_STRIDE, B_BY_K == 1u);
const A_LINES: u32 = select(STEP, TM, A_BY_K == 1u);
const B_LINES: u32 = select(STEP, TN, B_BY_K == 1u);
const A_LINE: u32 = TM * STEP / 8u / A_LINES;                         // eights a line
const B_LINE: u32 = TN * STEP / 8u / B_LINES;
const A_PARTS: u32 = TM * STEP / 8u / WG;                             // eights a lane loads
const B_PARTS: u32 = TN * STEP / 8u / WG;
const A_HOP: u32 = WG / A_LINE;                                       // lines from one of them to the next
const B_HOP: u32 = WG / B_LINE;
const MM: u32 = WM / 16u;
const NN: u32 = WN / 16u;
struct Params {
    m: u32, n: u32, k: u32, piece: u32,
    a_m: u32, a_k: u32, a_z: u32,
    b_k: u32, b_n: u32, b_z: u32,
    a_0: u32, b_0: u32, c_0: u32, c_z: u32, has_bias: u32, accumulate: u32,
}
// Eight elements: f16, or four f32 and four more.
struct Eight { x: vec4u, y: vec4u }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4u>;             // f16
@group(0) @binding(2) var<storage, read> b: array<vec4u>;             // f16, or f32
@group(0) @binding(3) var<storage, read> bias: array<f32>;            // (n)
@group(0) @binding(4) var<storage, read_write> c: array<vec4<elem_out>>; // (z, m, n)

var<workgroup> a_tile: array<vec4<f16>, 2u * A_LINES * A_STRIDE>;     // (row, k), or (k, row)
var<workgroup> b_tile: array<vec4<f16>, 2u * B_LINES * B_STRIDE>;     // (column, k), or (k, column)
var<workgroup> stage: array<vec4f, WG / 32u * 64u>;                   // a matrix a subgroup

// Loads are never skipped, so that none waits behind a branch.
fn a_next(at: u32, inside: bool) -> vec4u {
    if WHOLE == 1u { return a[at]; }
    return select(vec4u(), a[select(0u, at, inside)], inside);
}

fn b_next(at: u32, inside: bool) -> Eight {
    if WHOLE == 1u && WIDE_B == 0u { return Eight(b[at], vec4u()); }
    let near = select(0u, at, inside);
    if WIDE_B == 1u { return Eight(select(vec4u(), b[near], inside), select(vec4u(), b[near + 1u], inside)); }
    return Eight(select(vec4u(), b[near], inside), vec4u());
}

// The line of a tile that the v-th eight belongs to, and its place there. Eight neighbours store together: of lines of four
// eights, which lie five apart, they take two that are four lines apart, and meet different banks.
fn spot(v: u32, line: u32) -> vec2u {
    if line == 4u { return vec2u(v / 32u * 8u + v / 8u % 4u + v / 4u % 2u * 4u, v % 4u); }
    return vec2u(v / line, v % line);
}

fn put_a(v: u32, x: vec4u) {
    let to = spot(v, A_LINE);
    let at = 2u * (to.x * A_STRIDE + to.y);
    a_tile[at] = four(x.xy);
    a_tile[at + 1u] = four(x.zw);
}

fn put_b(v: u32, e: Eight) {
    let to = spot(v, B_LINE);
    let at = 2u * (to.x * B_STRIDE + to.y);
    if WIDE_B == 1u {
        b_tile[at] = vec4<f16>(bitcast<vec4f>(e.x));
        b_tile[at + 1u] = vec4<f16>(bitcast<vec4f>(e.y));
    } else {
        b_tile[at] = four(e.x.xy);
        b_tile[at + 1u] = four(e.x.zw);
    }
}

// Rows m … m + 15 of the left tile, k … k + 15.
fn left(m: u32, k: u32) -> coop_mat16x16<f16, A> {
    if A_BY_K == 1u {
        let at = 2u * (m * A_STRIDE + k / 8u);
        return coopLoadT<coop_mat16x16<f16, A>>(&a_tile[at], 2u * A_STRIDE);
    }
    let at = 2u * (k * A_STRIDE + m / 8u);
    return coopLoad<coop_mat16x16<f16, A>>(&a_tile[at], 2u * A_STRIDE);
}

// k … k + 15 of the right tile, columns n … n + 15.
fn right(n: u32, k: u32) -> coop_mat16x16<f16, B> {
    if B_BY_K == 1u {
        let at = 2u * (n * B_STRIDE + k / 8u);
        return coopLoad<coop_mat16x16<f16, B>>(&b_tile[at], 2u * B_STRIDE);
    }
    let at = 2u * (k * B_STRIDE + n / 8u);
    return coopLoadT<coop_mat16x16<f16, B>>(&b_tile[at], 2u * B_STRIDE);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    // Bands of BAND rows of tiles, column after column.
    let wide = (params.n + TN - 1u) / TN;
    let high = (params.m + TM - 1u) / TM;
    let place = group.y * wide + group.x;
    let top = place / (BAND * wide) * BAND;
    let height = min(high - top, BAND);
    let own_m = (top + place % (BAND * wide) % height) * TM;
    let own_n = place % (BAND * wide) / height * TN;
    let m0 = select(own_m, min(own_m, params.m - TM), WHOLE == 1u);
    let n0 = select(own_n, min(own_n, params.n - TN), WHOLE == 1u);
    let z = group.z;
    // A batch has strides along z and sums all of k; a piece has none.
    let first = select(0u, z * params.piece, params.a_z == 0u);
    let last = min(first + params.piece, params.k);
    let row = subgroup / WIDE * WM;
    let column = subgroup % WIDE * WN;
    // A lane's first eight of each tile, and how far apart those after it lie. In vectors.
    let b_eight = 8u - 4u * WIDE_B;
    let a_to = spot(index, A_LINE);
    let b_to = spot(index, B_LINE);
    let a_m = m0 + select(a_to.y * 8u, a_to.x, A_BY_K == 1u);
    let b_n = n0 + select(b_to.y * 8u, b_to.x, B_BY_K == 1u);
    var a_k = first + select(a_to.x, a_to.y * 8u, A_BY_K == 1u);
    var b_k = first + select(b_to.x, b_to.y * 8u, B_BY_K == 1u);
    var a_at = (params.a_0 + z * params.a_z + a_m * params.a_m + a_k * params.a_k) / 8u;
    var b_at = (params.b_0 + z * params.b_z + b_n * params.b_n + b_k * params.b_k) / b_eight;
    let a_hop = A_HOP * select(params.a_k, params.a_m, A_BY_K == 1u) / 8u;
    let b_hop = B_HOP * select(params.b_k, params.b_n, B_BY_K == 1u) / b_eight;
    let a_step = STEP * params.a_k / 8u;
    let b_step = STEP * params.b_k / b_eight;
    var sum: array<coop_mat16x16<f32, C>, MM * NN>;
    var next_a: array<vec4u, A_PARTS>;
    var next_b: array<Eight, B_PARTS>;
    for (var i = 0u; i < A_PARTS; i++) { // unroll
        let inside = a_m + A_BY_K * i * A_HOP < params.m && a_k + (1u - A_BY_K) * i * A_HOP < last;
        next_a[i] = a_next(a_at + i * a_hop, inside);
    }
    for (var i = 0u; i < B_PARTS; i++) { // unroll
        let inside = b_n + B_BY_K * i * B_HOP < params.n && b_k + (1u - B_BY_K) * i * B_HOP < last;
        next_b[i] = b_next(b_at + i * b_hop, inside);
    }
    for (var i = 0u; i < A_PARTS; i++) { put_a(index + i * WG, next_a[i]); } // unroll
    for (var i = 0u; i < B_PARTS; i++) { put_b(index + i * WG, next_b[i]); } // unroll
    let steps = (params.piece + STEP - 1u) / STEP;
    for (var step = 0u; step < steps; step++) {
        workgroupBarrier();
        // The last step loads its own once more: nothing of it is used.
        let on = select(0u, 1u, step + 1u < steps);
        a_at += on * a_step;
        b_at += on * b_step;
        a_k += on * STEP;
        b_k += on * STEP;
        for (var i = 0u; i < A_PARTS; i++) { // unroll
            let inside = a_m + A_BY_K * i * A_HOP < params.m && a_k + (1u - A_BY_K) * i * A_HOP < last;
            next_a[i] = a_next(a_at + i * a_hop, inside);
        }
        for (var i = 0u; i < B_PARTS; i++) { // unroll
            let inside = b_n + B_BY_K * i * B_HOP < params.n && b_k + (1u - B_BY_K) * i * B_HOP < last;
            next_b[i] = b_next(b_at + i * b_hop, inside);
        }
        // Written out, this loop takes a fifth longer: more matrices wait in registers.
        for (var k = 0u; k < STEP; k += 16u) {
            var l: array<coop_mat16x16<f16, A>, MM>;
            for (var i = 0u; i < MM; i++) { l[i] = left(row + i * 16u, k); } // unroll
            for (var j = 0u; j < NN; j++) { // unroll
                let r = right(column + j * 16u, k);
                for (var i = 0u; i < MM; i++) { // unroll
                    sum[i * NN + j] = coopMultiplyAdd(l[i], r, sum[i * NN + j]);
                }
            }
        }
        workgroupBarrier();
        for (var i = 0u; i < A_PARTS; i++) { put_a(index + i * WG, next_a[i]); } // unroll
        for (var i = 0u; i < B_PARTS; i++) { put_b(index + i * WG, next_b[i]); } // unroll
    }
    let to = subgroup * 64u;
    // A lane takes four columns of two rows of each matrix: four of them store 32 bytes of a row or more at once.
    let m = m0 + row + lane / 4u;
    let n = n0 + column + lane % 4u * 4u;
    let c_at = (params.c_0 + z * params.c_z + m * params.n + n) / 4u;
    for (var i = 0u; i < MM; i++) { // unroll
        for (var j = 0u; j < NN; j++) { // unroll
            coopStoreT(sum[i * NN + j], &stage[to], 4u);
            workgroupBarrier();
            for (var half = 0u; half < 2u; half++) { // unroll
                let line = m + i * 16u + half * 8u;
                let own = line >= own_m && n + j * 16u >= own_n;
                if own && line < params.m && n + j * 16u < params.n {
                    var v = stage[to + half * 32u + lane];
                    if BIAS == 1u {
                        let from_ = n + j * 16u;
                        v += vec4f(bias[from_], bias[from_ + 1u], bias[from_ + 2u], bias[from_ + 3u]);
                    }
                    c[c_at + (4u * i + 2u * half) * params.n + j * 4u] = vec4<elem_out>(v);
                }
            }
            workgroupBarrier();
        }
    }
}
