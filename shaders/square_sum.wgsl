// uses: lib/reduce.wgsl
// sums[first_block + b] = Σ x² over block b of BLOCK elements: the way to a norm, in a fixed order.
// A block that holds anything infinite or not a number sums to OVERFLOW, which no sum of finite squares is told from:
// either way the norm is of no use.
const WG: u32 = 256u;
const BLOCK: u32 = 16384u;
const OVERFLOW: f32 = 3.0e38;
struct Params { count: u32, first_block: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;             // (count / 4)
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;      // (all blocks)

// Compilers may assume that floats are finite: the bits tell.
fn finite(v: vec4f) -> bool { return all((bitcast<vec4u>(v) & vec4u(0x7f800000u)) != vec4u(0x7f800000u)); }

fn x_at(i: u32) -> vec4f {
    return select(vec4f(), x[min(i, params.count / 4u - 1u)], i * 4u < params.count);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let block = row_of(group);
    if block * BLOCK >= params.count { return; }
    var sum = 0.0;
    var whole = true;
    for (var k = 0u; k < BLOCK / 4u; k += 4u * WG) {
        let i = block * (BLOCK / 4u) + k + lane;
        let v0 = x_at(i);
        let v1 = x_at(i + WG);
        let v2 = x_at(i + 2u * WG);
        let v3 = x_at(i + 3u * WG);
        whole = whole && finite(v0) && finite(v1) && finite(v2) && finite(v3);
        sum += (dot(v0, v0) + dot(v1, v1)) + (dot(v2, v2) + dot(v3, v3));
    }
    whole = whole && finite(vec4f(sum));
    let worst = workgroup_max(select(1.0, 0.0, whole), lane);
    let total = workgroup_sum(select(0.0, sum, whole), lane);
    if lane == 0u { sums[params.first_block + block] = select(OVERFLOW, min(total, OVERFLOW), worst == 0.0); }
}
