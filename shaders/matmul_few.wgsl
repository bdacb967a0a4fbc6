// uses: lib/product_next.wgsl
// variants: elem=f16 | elem_b=f16 | elem=f16 elem_b=f16 elem_out=f16
// The product of matmul.wgsl for few rows, both operands along k in lines of multiples of four elements: b is read once,
// so all that counts is how much of it is on its way. A workgroup computes 8 × 16 from tiles of 128 k, an invocation one
// sum; the next tile is loaded into registers meanwhile.
alias elem = f32;
alias elem_b = f32;
alias elem_out = f32;
alias four = vec4f;
const A_BY_K: u32 = 1u;
const B_BY_K: u32 = 1u;
const QUADS: u32 = 32u;
// Lines are one apart more than they need, so that neighbours meet different banks.
const STRIDE: u32 = QUADS + 1u;
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
@group(0) @binding(4) var<storage, read_write> c: array<elem_out>;    // (z, m, n)

var<workgroup> a_tile: array<vec4f, 8u * STRIDE>;                     // (row, quad of k)
var<workgroup> b_tile: array<vec4f, 16u * STRIDE>;                    // (column, quad of k)

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let m0 = group.y * 8u;
    let n0 = group.x * 16u;
    let z = group.z;
    let a_start = params.a_0 + z * params.a_z;
    let b_start = params.b_0 + z * params.b_z;
    // Half of the invocations only load.
    let row = lane / 16u;
    let column = lane % 16u;
    let put = lane / QUADS * STRIDE + lane % QUADS;
    var a_new = a_next(lane, m0, 0u, params.k, a_start);
    var b_new = b_next(lane, n0, 0u, params.k, b_start);
    var b_more = b_next(lane + 256u, n0, 0u, params.k, b_start);
    var sum = 0.0;
    for (var k = 0u; k < params.k; k += 4u * QUADS) {
        a_tile[put] = a_new;
        b_tile[put] = b_new;
        b_tile[put + 8u * STRIDE] = b_more;
        workgroupBarrier();
        a_new = a_next(lane, m0, k + 4u * QUADS, params.k, a_start);
        b_new = b_next(lane, n0, k + 4u * QUADS, params.k, b_start);
        b_more = b_next(lane + 256u, n0, k + 4u * QUADS, params.k, b_start);
        if row < 8u && m0 + row < params.m {
            for (var quad = 0u; quad < QUADS; quad++) {
                let l = a_tile[row * STRIDE + quad];
                let r = b_tile[column * STRIDE + quad];
                sum = fma(l.w, r.w, fma(l.z, r.z, fma(l.y, r.y, fma(l.x, r.x, sum))));
            }
        }
        workgroupBarrier();
    }
    let m = m0 + row;
    let n = n0 + column;
    if row < 8u && m < params.m && n < params.n {
        if params.has_bias != 0u { sum += bias[n]; }
        c[params.c_0 + z * params.c_z + m * params.n + n] = elem_out(sum);
    }
}
