// variants: A_BY_K=0 | B_BY_K=0 | A_BY_K=0 B_BY_K=0 | elem=f16 | elem_b=f16 | elem=f16 elem_out=f16 | elem=f16 elem_b=f16 elem_out=f16
// c[z, m, n] = Σ_k a[z, m, k] · b[z, k, n] (+ bias[n]) (+ c[z, m, n]), summed over k in ascending order.
// Operands are addressed by strides, so transposed ones are read in place. z counts batches, or pieces of k: piece z
// sums k from z·piece on and has a result of its own.
// A workgroup computes a 64 × 64 tile, an invocation 4 × 4 of it; tiles of 16 k are staged in workgroup memory (8 KiB).
alias elem = f32;
alias elem_b = f32;
alias elem_out = f32;
// Along which axis neighbouring invocations read: the one with stride 1.
const A_BY_K: u32 = 1u;
const B_BY_K: u32 = 1u;
const TILE: u32 = 64u;
const STEP: u32 = 16u;
struct Params {
    m: u32, n: u32, k: u32, piece: u32,
    a_m: u32, a_k: u32, a_z: u32,
    b_k: u32, b_n: u32, b_z: u32,
    a_0: u32, b_0: u32, c_0: u32, c_z: u32, has_bias: u32, accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<elem>;
@group(0) @binding(2) var<storage, read> b: array<elem_b>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;            // (n)
@group(0) @binding(4) var<storage, read_write> c: array<elem_out>;    // (z, m, n)

var<workgroup> a_tile: array<f32, 1024>;                              // (STEP, TILE)
var<workgroup> b_tile: array<f32, 1024>;                              // (STEP, TILE)

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let m0 = group.y * TILE;
    let n0 = group.x * TILE;
    let z = group.z;
    // A batch has strides along z and sums all of k; a piece has none.
    let first = select(0u, z * params.piece, params.a_z == 0u);
    let last = min(first + params.piece, params.k);
    let row = (lane / 16u) * 4u;
    let column = (lane % 16u) * 4u;
    // Rows and columns of the result are independent: what lies outside is computed from zeros and not stored.
    var sum: array<vec4f, 4>;
    if params.accumulate != 0u {
        for (var i = 0u; i < 4u; i++) {
            for (var j = 0u; j < 4u; j++) {
                if m0 + row + i < params.m && n0 + column + j < params.n {
                    sum[i][j] = f32(c[params.c_0 + z * params.c_z + (m0 + row + i) * params.n + n0 + column + j]);
                }
            }
        }
    }
    let a_start = params.a_0 + z * params.a_z;
    let b_start = params.b_0 + z * params.b_z;
    let steps = (params.piece + STEP - 1u) / STEP;
    for (var step = 0u; step < steps; step++) {
        let k0 = first + step * STEP;
        for (var i = 0u; i < 4u; i++) {
            let at = lane + i * 256u;
            var m = at % TILE;
            var k = at / TILE;
            if A_BY_K == 1u { m = at / STEP; k = at % STEP; }
            var v = 0.0;
            if m0 + m < params.m && k0 + k < last {
                v = f32(a[a_start + (m0 + m) * params.a_m + (k0 + k) * params.a_k]);
            }
            a_tile[k * TILE + m] = v;
            var n = at % TILE;
            k = at / TILE;
            if B_BY_K == 1u { n = at / STEP; k = at % STEP; }
            v = 0.0;
            if n0 + n < params.n && k0 + k < last {
                v = f32(b[b_start + (k0 + k) * params.b_k + (n0 + n) * params.b_n]);
            }
            b_tile[k * TILE + n] = v;
        }
        workgroupBarrier();
        for (var k = 0u; k < STEP; k++) {
            let at = k * TILE;
            let right = vec4f(b_tile[at + column], b_tile[at + column + 1u], b_tile[at + column + 2u], b_tile[at + column + 3u]);
            sum[0] = fma(vec4f(a_tile[at + row]), right, sum[0]);
            sum[1] = fma(vec4f(a_tile[at + row + 1u]), right, sum[1]);
            sum[2] = fma(vec4f(a_tile[at + row + 2u]), right, sum[2]);
            sum[3] = fma(vec4f(a_tile[at + row + 3u]), right, sum[3]);
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            if m0 + row + i < params.m && n0 + column + j < params.n {
                var v = sum[i][j];
                if params.has_bias != 0u { v += bias[n0 + column + j]; }
                c[params.c_0 + z * params.c_z + (m0 + row + i) * params.n + n0 + column + j] = elem_out(v);
            }
        }
    }
}
