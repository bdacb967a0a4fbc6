// variants: A_BY_K=0 | B_BY_K=0 TN=64 | A_BY_K=0 B_BY_K=0 | TN=64 WHOLE=1 | ACCUMULATE=1 BIAS=1 | elem=f16 | elem_b=f16 WHOLE=1 | elem=f16 elem_b=f16 elem_out=f16
// The product of matmul.wgsl in tiles of 64 × TN: an invocation computes 8 rows and 8 columns, or 4 where TN is 64, in
// quads. Lines of a, b and c hold multiples of four elements. Both operands' tiles lie by k, so that a step's four loads
// feed 64 multiply-adds; two of STEP k alternate, written out, so that no index hangs on which: while one is multiplied,
// the next is loaded, and a step needs one barrier. 12.5 KiB of workgroup memory: four workgroups share a multiprocessor.
alias elem = f32;
alias elem_b = f32;
alias elem_out = f32;
const A_BY_K: u32 = 1u;
const B_BY_K: u32 = 1u;
const TM: u32 = 64u;
const TN: u32 = 128u;
const WHOLE: u32 = 0u;                                                // 1: m and n are of whole tiles, pieces of two steps
const ACCUMULATE: u32 = 0u;                                           // 1: c is added to
const BIAS: u32 = 0u;
const STEP: u32 = 8u;
const QUADS: u32 = STEP / 4u;
const WIDE: u32 = 16u;                                                // invocations across
const HIGH: u32 = 8u;
const WG: u32 = WIDE * HIGH;
const R: u32 = TM / HIGH / 4u;                                        // quads of rows an invocation
const C: u32 = TN / WIDE / 4u;                                        // quads of columns
// A quad more than a line of k holds, where lines of the operand go along k: then what is turned meets different banks.
const A_STRIDE: u32 = TM / 4u + A_BY_K;
const B_STRIDE: u32 = TN / 4u + B_BY_K;
const A_LINE: u32 = select(TM / 4u, QUADS, A_BY_K == 1u);             // quads a line of the operand
const B_LINE: u32 = select(TN / 4u, QUADS, B_BY_K == 1u);
const A_PARTS: u32 = TM * QUADS / WG;                                 // quads a lane loads
const B_PARTS: u32 = TN * QUADS / WG;
const A_HOP: u32 = WG / A_LINE;                                       // lines from one of them to the next
const B_HOP: u32 = WG / B_LINE;
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

var<workgroup> a_tile: array<vec4f, 2u * STEP * A_STRIDE>;            // (buffer, k, quad of rows)
var<workgroup> b_tile: array<vec4f, 2u * STEP * B_STRIDE>;            // (buffer, k, quad of columns)

// Loads are never skipped, so that none waits behind a branch.
fn a_next(at: u32, inside: bool) -> vec4f {
    if WHOLE == 1u { return vec4f(a[at]); }
    return select(vec4f(), vec4f(a[select(0u, at, inside)]), inside);
}

fn b_next(at: u32, inside: bool) -> vec4f {
    if WHOLE == 1u { return vec4f(b[at]); }
    return select(vec4f(), vec4f(b[select(0u, at, inside)]), inside);
}

// The v-th quad of a tile.
fn put_a(buffer: u32, v: u32, e: vec4f) {
    if A_BY_K == 1u {
        let line = v / QUADS;
        let at = (buffer * STEP + v % QUADS * 4u) * A_STRIDE + line / 4u;
        a_tile[at][line % 4u] = e.x;
        a_tile[at + A_STRIDE][line % 4u] = e.y;
        a_tile[at + 2u * A_STRIDE][line % 4u] = e.z;
        a_tile[at + 3u * A_STRIDE][line % 4u] = e.w;
    } else {
        a_tile[(buffer * STEP + v / A_LINE) * A_STRIDE + v % A_LINE] = e;
    }
}

fn put_b(buffer: u32, v: u32, e: vec4f) {
    if B_BY_K == 1u {
        let line = v / QUADS;
        let at = (buffer * STEP + v % QUADS * 4u) * B_STRIDE + line / 4u;
        b_tile[at][line % 4u] = e.x;
        b_tile[at + B_STRIDE][line % 4u] = e.y;
        b_tile[at + 2u * B_STRIDE][line % 4u] = e.z;
        b_tile[at + 3u * B_STRIDE][line % 4u] = e.w;
    } else {
        b_tile[(buffer * STEP + v / B_LINE) * B_STRIDE + v % B_LINE] = e;
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let m0 = group.y * TM;
    let n0 = group.x * TN;
    let z = group.z;
    // A batch has strides along z and sums all of k; a piece has none.
    let first = select(0u, z * params.piece, params.a_z == 0u);
    let last = min(first + params.piece, params.k);
    let c_start = params.c_0 + z * params.c_z;
    // 32 neighbours take 4 × 8 quads: they read the fewest lines.
    let x = lane % 8u + lane / 32u % (WIDE / 8u) * 8u;
    let y = lane / 8u % 4u + lane / (4u * WIDE) * 4u;
    // A lane's first quad of each tile, and how far apart those after it lie.
    let a_m = m0 + select(lane % A_LINE * 4u, lane / A_LINE, A_BY_K == 1u);
    let b_n = n0 + select(lane % B_LINE * 4u, lane / B_LINE, B_BY_K == 1u);
    var a_k = first + select(lane / A_LINE, lane % A_LINE * 4u, A_BY_K == 1u);
    var b_k = first + select(lane / B_LINE, lane % B_LINE * 4u, B_BY_K == 1u);
    var a_at = (params.a_0 + z * params.a_z + a_m * params.a_m + a_k * params.a_k) / 4u;
    var b_at = (params.b_0 + z * params.b_z + b_n * params.b_n + b_k * params.b_k) / 4u;
    let a_hop = A_HOP * select(params.a_k, params.a_m, A_BY_K == 1u) / 4u;
    let b_hop = B_HOP * select(params.b_k, params.b_n, B_BY_K == 1u) / 4u;
    let a_step = STEP * params.a_k / 4u;
    let b_step = STEP * params.b_k / 4u;
    var sum: array<vec4f, 4u * R * C>;
    if ACCUMULATE == 1u {
        for (var i = 0u; i < 4u * R; i++) { // unroll
            for (var j = 0u; j < C; j++) { // unroll
                let m = m0 + 4u * (y + i / 4u * HIGH) + i % 4u;
                let n = n0 + 4u * (x + j * WIDE);
                if m < params.m && n < params.n { sum[i * C + j] = vec4f(c[(c_start + m * params.n + n) / 4u]); }
            }
        }
    }
    var next_a: array<vec4f, A_PARTS>;
    var next_b: array<vec4f, B_PARTS>;
    for (var i = 0u; i < A_PARTS; i++) { // unroll
        let inside = a_m + A_BY_K * i * A_HOP < params.m && a_k + (1u - A_BY_K) * i * A_HOP < last;
        put_a(0u, lane + i * WG, a_next(a_at + i * a_hop, inside));
    }
    for (var i = 0u; i < B_PARTS; i++) { // unroll
        let inside = b_n + B_BY_K * i * B_HOP < params.n && b_k + (1u - B_BY_K) * i * B_HOP < last;
        put_b(0u, lane + i * WG, b_next(b_at + i * b_hop, inside));
    }
    workgroupBarrier();
    let steps = (params.piece + STEP - 1u) / STEP;
    for (var step = 0u; step < steps; step += 2u) {
        for (var full = 0u; full < 2u; full++) { // unroll
            // The last step loads its own once more, and nothing of it is used; one more of zeros makes steps even.
            let on = select(0u, 1u, step + full + 1u < steps);
            a_at += on * a_step;
            b_at += on * b_step;
            a_k += STEP;
            b_k += STEP;
            for (var i = 0u; i < A_PARTS; i++) { // unroll
                let inside = a_m + A_BY_K * i * A_HOP < params.m && a_k + (1u - A_BY_K) * i * A_HOP < last;
                next_a[i] = a_next(a_at + i * a_hop, inside);
            }
            for (var i = 0u; i < B_PARTS; i++) { // unroll
                let inside = b_n + B_BY_K * i * B_HOP < params.n && b_k + (1u - B_BY_K) * i * B_HOP < last;
                next_b[i] = b_next(b_at + i * b_hop, inside);
            }
            for (var k = 0u; k < STEP; k++) { // unroll
                var l = array<vec4f, R>();
                var r = array<vec4f, C>();
                for (var i = 0u; i < R; i++) { l[i] = a_tile[(full * STEP + k) * A_STRIDE + y + i * HIGH]; } // unroll
                for (var j = 0u; j < C; j++) { r[j] = b_tile[(full * STEP + k) * B_STRIDE + x + j * WIDE]; } // unroll
                for (var i = 0u; i < 4u * R; i++) { // unroll
                    for (var j = 0u; j < C; j++) { // unroll
                        sum[i * C + j] = fma(vec4f(l[i / 4u][i % 4u]), r[j], sum[i * C + j]);
                    }
                }
            }
            for (var i = 0u; i < A_PARTS; i++) { put_a(1u - full, lane + i * WG, next_a[i]); } // unroll
            for (var i = 0u; i < B_PARTS; i++) { put_b(1u - full, lane + i * WG, next_b[i]); } // unroll
            workgroupBarrier();
        }
    }
    for (var j = 0u; j < C; j++) { // unroll
        let n = n0 + 4u * (x + j * WIDE);
        if WHOLE == 1u || n < params.n {
            var plus = vec4f();
            if BIAS == 1u { plus = vec4f(bias[n], bias[n + 1u], bias[n + 2u], bias[n + 3u]); }
            for (var i = 0u; i < 4u * R; i++) { // unroll
                let m = m0 + 4u * (y + i / 4u * HIGH) + i % 4u;
                if WHOLE == 1u || m < params.m { c[(c_start + m * params.n + n) / 4u] = vec4<elem_out>(sum[i * C + j] + plus); }
            }
        }
    }
}
