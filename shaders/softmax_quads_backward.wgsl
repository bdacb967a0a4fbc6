// uses: lib/reduce.wgsl
// variants: elem=f16 WG=64 | WG=32
// softmax_backward.wgsl for rows of at most 4 · WG quads, held in registers: dy and y are read once. One workgroup a row.
alias elem = f32;
const WG: u32 = 256u;
struct Params { rows: u32, quads: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<vec4<elem>>;        // (rows, quads)
@group(0) @binding(2) var<storage, read> y: array<vec4<elem>>;         // (rows, quads)
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<elem>>;  // (rows, quads)

// Four columns of dy and y; beyond the row dy counts as 0.
struct Quad { d: vec4f, y: vec4f }

fn quad_at(row: u32, q: u32) -> Quad {
    let i = row * params.quads + min(q, params.quads - 1u);
    return Quad(select(vec4f(), vec4f(dy[i]), q < params.quads), vec4f(y[i]));
}

fn put(row: u32, q: u32, v: vec4f) {
    if q < params.quads { dx[row * params.quads + q] = vec4<elem>(v); }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let k0 = quad_at(row, lane);
    let k1 = quad_at(row, lane + WG);
    let k2 = quad_at(row, lane + 2u * WG);
    let k3 = quad_at(row, lane + 3u * WG);
    let total = workgroup_sum(dot(k0.d, k0.y) + dot(k1.d, k1.y) + dot(k2.d, k2.y) + dot(k3.d, k3.y), lane);
    put(row, lane, k0.y * (k0.d - total));
    put(row, lane + WG, k1.y * (k1.d - total));
    put(row, lane + 2u * WG, k2.y * (k2.d - total));
    put(row, lane + 3u * WG, k3.y * (k3.d - total));
}
