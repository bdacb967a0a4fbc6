// uses: lib/product4.wgsl, lib/product_direct.wgsl
// variants: A_BY_K=0 | B_BY_K=0 | A_BY_K=0 B_BY_K=0 | a_unit=elem A_WIDTH=1 b_unit=elem_b B_WIDTH=1 | A_BY_K=0 B_BY_K=0 a_unit=elem A_WIDTH=1 b_unit=elem_b B_WIDTH=1 | elem=f16 | elem_b=f16 | elem=f16 elem_b=f16 elem_out=f16
// The product of matmul.wgsl for CPUs that offer no subgroups, as browsers' software adapters: like matmul_direct.wgsl
// straight from storage, but an invocation loads all it needs and computes 8 × 8 of the result. A load, from workgroup
// memory too, costs there what a dozen products do, and arrays that loops index are loads.
alias elem = f32;
alias elem_b = f32;
alias elem_out = f32;
// What one load takes: four elements where rows hold a multiple of four, else one (WIDTH = 1).
alias a_unit = vec4<elem>;
alias b_unit = vec4<elem_b>;
const A_WIDTH: u32 = 4u;
const B_WIDTH: u32 = 4u;
// Along which axis elements are neighbours.
const A_BY_K: u32 = 1u;
const B_BY_K: u32 = 1u;
const WG: u32 = 8u;
struct Params {
    m: u32, n: u32, k: u32, piece: u32,
    a_m: u32, a_k: u32, a_z: u32,
    b_k: u32, b_n: u32, b_z: u32,
    a_0: u32, b_0: u32, c_0: u32, c_z: u32, has_bias: u32, accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<a_unit>;
@group(0) @binding(2) var<storage, read> b: array<b_unit>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;            // (n)
@group(0) @binding(4) var<storage, read_write> c: array<elem_out>;    // (z, m, n)

// Four rows of the left operand from m on, four k each.
fn left_of(k: u32, last: u32, m: u32, start: u32) -> mat4x4f {
    let end = params.m - 1u;
    if A_BY_K == 1u {
        let live = vec4u(k, k + 1u, k + 2u, k + 3u) < vec4u(last);
        return mat4x4f(
            select(vec4f(0.0), a_four(start + min(m, end) * params.a_m, k, params.k - 1u), live),
            select(vec4f(0.0), a_four(start + min(m + 1u, end) * params.a_m, k, params.k - 1u), live),
            select(vec4f(0.0), a_four(start + min(m + 2u, end) * params.a_m, k, params.k - 1u), live),
            select(vec4f(0.0), a_four(start + min(m + 3u, end) * params.a_m, k, params.k - 1u), live));
    }
    return transpose(mat4x4f(
        a_four(start + k * params.a_k, m, end),
        select(vec4f(0.0), a_four(start + min(k + 1u, last - 1u) * params.a_k, m, end), k + 1u < last),
        select(vec4f(0.0), a_four(start + min(k + 2u, last - 1u) * params.a_k, m, end), k + 2u < last),
        select(vec4f(0.0), a_four(start + min(k + 3u, last - 1u) * params.a_k, m, end), k + 3u < last)));
}

fn bias_of(n0: u32) -> vec4f {
    if params.has_bias == 0u { return vec4f(0.0); }
    let end = params.n - 1u;
    return vec4f(bias[min(n0, end)], bias[min(n0 + 1u, end)], bias[min(n0 + 2u, end)], bias[min(n0 + 3u, end)]);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let m0 = group.y * 8u;
    let n0 = (group.x * WG + lane) * 8u;
    if n0 >= params.n { return; }
    let z = group.z;
    // A batch has strides along z and sums all of k; a piece has none.
    let first = select(0u, z * params.piece, params.a_z == 0u);
    let last = min(first + params.piece, params.k);
    let a_start = params.a_0 + z * params.a_z;
    let b_start = params.b_0 + z * params.b_z;
    let c_start = params.c_0 + z * params.c_z + n0;
    var s00: mat4x4f; var s01: mat4x4f; var s10: mat4x4f; var s11: mat4x4f;
    if params.accumulate != 0u {
        s00 = stored_rows(c_start, m0, n0);
        s01 = stored_rows(c_start + 4u, m0, n0 + 4u);
        s10 = stored_rows(c_start, m0 + 4u, n0);
        s11 = stored_rows(c_start + 4u, m0 + 4u, n0 + 4u);
    }
    for (var k = first; k < last; k += 4u) {
        let l0 = left_of(k, last, m0, a_start);
        let l1 = left_of(k, last, m0 + 4u, a_start);
        let r0 = right_of(k, last, n0, b_start);
        s00 = add_product(s00, l0, r0);
        s10 = add_product(s10, l1, r0);
        let r1 = right_of(k, last, n0 + 4u, b_start);
        s01 = add_product(s01, l0, r1);
        s11 = add_product(s11, l1, r1);
    }
    let plus0 = bias_of(n0);
    let plus1 = bias_of(n0 + 4u);
    store_rows(c_start, m0, n0, s00, plus0);
    store_rows(c_start + 4u, m0, n0 + 4u, s01, plus1);
    store_rows(c_start, m0 + 4u, n0, s10, plus0);
    store_rows(c_start + 4u, m0 + 4u, n0 + 4u, s11, plus1);
}
