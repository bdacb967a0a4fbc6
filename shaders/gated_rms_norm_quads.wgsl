// uses: lib/reduce.wgsl, lib/quads.wgsl
// variants: HALF=1 words=vec2<u32> WG=64 | WG=32
// gated_rms_norm.wgsl for groups of at most 4 · WG quads, held in registers: x and z are read once, a lane's loads are
// under way together. One workgroup a row and group.
const WG: u32 = 256u;
struct Params { rows: u32, quads: u32, groups: u32, z_stride: u32, z_start: u32, eps: f32 }

@group(0) @binding(0) var<uniform> params: Params;                    // quads: of one group
@group(0) @binding(1) var<storage, read> x: array<words>;             // (rows, groups, quads)
@group(0) @binding(2) var<storage, read> z: array<words>;             // (rows, z_stride): from z_start on, in quads
@group(0) @binding(3) var<storage, read> weight: array<vec4f>;        // (groups, quads)
@group(0) @binding(4) var<storage, read_write> y: array<words>;       // (rows, groups, quads)
@group(0) @binding(5) var<storage, read_write> rstd: array<f32>;      // (rows, groups), saved for the backward pass

fn gated(row: u32, q: u32) -> vec4f {
    let c = min(q, params.quads - 1u);
    let i = row * params.quads + c;
    let v = quad_of(z[row / params.groups * params.z_stride + params.z_start + row % params.groups * params.quads + c]);
    let g = quad_of(x[i]) * v * (1.0 / (1.0 + exp(min(-v, vec4f(80.0)))));
    return select(vec4f(), g, q < params.quads);
}

fn weight_at(part: u32, q: u32) -> vec4f { return weight[part * params.quads + min(q, params.quads - 1u)]; }

fn put(row: u32, q: u32, v: vec4f) {
    if q < params.quads { y[row * params.quads + q] = words_of(v); }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);                       // of (rows · groups)
    if row >= params.rows * params.groups { return; }
    let part = row % params.groups;
    let g0 = gated(row, lane);
    let g1 = gated(row, lane + WG);
    let g2 = gated(row, lane + 2u * WG);
    let g3 = gated(row, lane + 3u * WG);
    let w0 = weight_at(part, lane);
    let w1 = weight_at(part, lane + WG);
    let w2 = weight_at(part, lane + 2u * WG);
    let w3 = weight_at(part, lane + 3u * WG);
    let square = dot(g0, g0) + dot(g1, g1) + dot(g2, g2) + dot(g3, g3);
    let r = inverseSqrt(workgroup_sum(square, lane) / f32(4u * params.quads) + params.eps);
    if lane == 0u { rstd[row] = r; }
    put(row, lane, g0 * r * w0);
    put(row, lane + WG, g1 * r * w1);
    put(row, lane + 2u * WG, g2 * r * w2);
    put(row, lane + 3u * WG, g3 * r * w3);
}
