// uses: lib/product4.wgsl, lib/product_direct.wgsl
// variants: A_BY_K=0 | B_BY_K=0 | A_BY_K=0 B_BY_K=0 | a_unit=elem A_WIDTH=1 b_unit=elem_b B_WIDTH=1 | A_BY_K=0 B_BY_K=0 a_unit=elem A_WIDTH=1 b_unit=elem_b B_WIDTH=1 | ROWS=8 | elem=f16 | elem_b=f16 | elem=f16 elem_b=f16 elem_out=f16
// The product of matmul.wgsl for adapters that are CPUs: straight from storage, without workgroup memory and barriers.
// Loads are what costs there, each lane's by itself. So an invocation computes ROWS × 4 of the result from loads of
// four elements, and the left operand, which all of a workgroup share, is loaded once: each of eight lanes loads a
// part, and subgroupBroadcast hands it to the others. Written out, since compilers keep arrays that loops index in
// memory. Subgroups have at least eight lanes.
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
const ROWS: u32 = 32u;                                                // or 8
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

// Rows 8i … 8i + 7 of the left operand, four k from k on: lanes 0 … 3 have the first four rows, 4 … 7 the others. A lane
// has one row by k, or one k by rows.
fn left_of(i: u32, k: u32, last: u32, m0: u32, start: u32, lane: u32) -> vec4f {
    if A_BY_K == 1u {
        let row = min(m0 + 8u * i + lane % 8u, params.m - 1u);
        let live = vec4u(k, k + 1u, k + 2u, k + 3u) < vec4u(last);
        return select(vec4f(0.0), a_four(start + row * params.a_m, k, params.k - 1u), live);
    }
    let own = k + lane % 4u;
    let four = a_four(start + min(own, last - 1u) * params.a_k, m0 + 8u * i + lane % 8u / 4u * 4u, params.m - 1u);
    return select(vec4f(0.0), four, own < last);
}

// s + four rows of the left operand · four of the right one, in the order of k.
fn low(s: mat4x4f, l: vec4f, r: mat4x4f) -> mat4x4f {
    let c0 = vec4f(subgroupBroadcast(l.x, 0u), subgroupBroadcast(l.y, 0u),
                   subgroupBroadcast(l.z, 0u), subgroupBroadcast(l.w, 0u));
    let c1 = vec4f(subgroupBroadcast(l.x, 1u), subgroupBroadcast(l.y, 1u),
                   subgroupBroadcast(l.z, 1u), subgroupBroadcast(l.w, 1u));
    let c2 = vec4f(subgroupBroadcast(l.x, 2u), subgroupBroadcast(l.y, 2u),
                   subgroupBroadcast(l.z, 2u), subgroupBroadcast(l.w, 2u));
    let c3 = vec4f(subgroupBroadcast(l.x, 3u), subgroupBroadcast(l.y, 3u),
                   subgroupBroadcast(l.z, 3u), subgroupBroadcast(l.w, 3u));
    return add(s, mat4x4f(c0, c1, c2, c3), r);
}

fn high(s: mat4x4f, l: vec4f, r: mat4x4f) -> mat4x4f {
    let c0 = vec4f(subgroupBroadcast(l.x, 4u), subgroupBroadcast(l.y, 4u),
                   subgroupBroadcast(l.z, 4u), subgroupBroadcast(l.w, 4u));
    let c1 = vec4f(subgroupBroadcast(l.x, 5u), subgroupBroadcast(l.y, 5u),
                   subgroupBroadcast(l.z, 5u), subgroupBroadcast(l.w, 5u));
    let c2 = vec4f(subgroupBroadcast(l.x, 6u), subgroupBroadcast(l.y, 6u),
                   subgroupBroadcast(l.z, 6u), subgroupBroadcast(l.w, 6u));
    let c3 = vec4f(subgroupBroadcast(l.x, 7u), subgroupBroadcast(l.y, 7u),
                   subgroupBroadcast(l.z, 7u), subgroupBroadcast(l.w, 7u));
    return add(s, mat4x4f(c0, c1, c2, c3), r);
}

// By rows the lanes have a k each.
fn add(s: mat4x4f, lanes: mat4x4f, r: mat4x4f) -> mat4x4f {
    if A_BY_K == 1u { return add_product(s, lanes, r); }
    return add_product(s, transpose(lanes), r);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32,
        @builtin(subgroup_invocation_id) sub_lane: u32) {
    let m0 = group.y * ROWS;
    let n0 = (group.x * WG + lane) * 4u;
    let z = group.z;
    // A batch has strides along z and sums all of k; a piece has none.
    let first = select(0u, z * params.piece, params.a_z == 0u);
    let last = min(first + params.piece, params.k);
    let a_start = params.a_0 + z * params.a_z;
    let b_start = params.b_0 + z * params.b_z;
    let c_start = params.c_0 + z * params.c_z + n0;
    var s0: mat4x4f; var s1: mat4x4f; var s2: mat4x4f; var s3: mat4x4f;
    var s4: mat4x4f; var s5: mat4x4f; var s6: mat4x4f; var s7: mat4x4f;
    if params.accumulate != 0u {
        s0 = stored_rows(c_start, m0, n0);
        s1 = stored_rows(c_start, m0 + 4u, n0);
        if ROWS > 8u {
            s2 = stored_rows(c_start, m0 + 8u, n0);
            s3 = stored_rows(c_start, m0 + 12u, n0);
            s4 = stored_rows(c_start, m0 + 16u, n0);
            s5 = stored_rows(c_start, m0 + 20u, n0);
            s6 = stored_rows(c_start, m0 + 24u, n0);
            s7 = stored_rows(c_start, m0 + 28u, n0);
        }
    }
    for (var k = first; k < last; k += 4u) {
        let r = right_of(k, last, n0, b_start);
        let l0 = left_of(0u, k, last, m0, a_start, sub_lane);
        s0 = low(s0, l0, r);
        s1 = high(s1, l0, r);
        if ROWS > 8u {
            let l1 = left_of(1u, k, last, m0, a_start, sub_lane);
            s2 = low(s2, l1, r);
            s3 = high(s3, l1, r);
            let l2 = left_of(2u, k, last, m0, a_start, sub_lane);
            s4 = low(s4, l2, r);
            s5 = high(s5, l2, r);
            let l3 = left_of(3u, k, last, m0, a_start, sub_lane);
            s6 = low(s6, l3, r);
            s7 = high(s7, l3, r);
        }
    }
    var plus = vec4f(0.0);
    if params.has_bias != 0u {
        let end = params.n - 1u;
        plus = vec4f(bias[min(n0, end)], bias[min(n0 + 1u, end)], bias[min(n0 + 2u, end)], bias[min(n0 + 3u, end)]);
    }
    store_rows(c_start, m0, n0, s0, plus);
    store_rows(c_start, m0 + 4u, n0, s1, plus);
    if ROWS > 8u {
        store_rows(c_start, m0 + 8u, n0, s2, plus);
        store_rows(c_start, m0 + 12u, n0, s3, plus);
        store_rows(c_start, m0 + 16u, n0, s4, plus);
        store_rows(c_start, m0 + 20u, n0, s5, plus);
        store_rows(c_start, m0 + 24u, n0, s6, plus);
        store_rows(c_start, m0 + 28u, n0, s7, plus);
    }
}
