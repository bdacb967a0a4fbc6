// uses: lib/reduce.wgsl
// variants: elem=f16 WG=64 | WG=32
// softmax.wgsl without a mask, for rows of at most 4 · WG quads, held in registers: x is read and raised once, a lane's
// loads are under way together. One workgroup a row.
alias elem = f32;
const WG: u32 = 256u;
struct Params { rows: u32, quads: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<elem>>;        // (rows, quads)
@group(0) @binding(2) var<storage, read_write> y: array<vec4<elem>>;  // (rows, quads)

fn x_at(row: u32, q: u32) -> vec4f {
    let v = vec4f(x[row * params.quads + min(q, params.quads - 1u)]);
    return select(vec4f(-3.0e38), v, q < params.quads);
}

fn power(q: u32, v: vec4f, largest: f32) -> vec4f { return select(vec4f(), exp(v - largest), q < params.quads); }

fn put(row: u32, q: u32, v: vec4f) {
    if q < params.quads { y[row * params.quads + q] = vec4<elem>(v); }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let x0 = x_at(row, lane);
    let x1 = x_at(row, lane + WG);
    let x2 = x_at(row, lane + 2u * WG);
    let x3 = x_at(row, lane + 3u * WG);
    let m = max(max(x0, x1), max(x2, x3));
    let largest = workgroup_max(max(max(m.x, m.y), max(m.z, m.w)), lane);
    let e0 = power(lane, x0, largest);
    let e1 = power(lane + WG, x1, largest);
    let e2 = power(lane + 2u * WG, x2, largest);
    let e3 = power(lane + 3u * WG, x3, largest);
    let sum = workgroup_sum(dot((e0 + e1) + (e2 + e3), vec4f(1.0)), lane);
    put(row, lane, e0 / sum);
    put(row, lane + WG, e1 / sum);
    put(row, lane + 2u * WG, e2 / sum);
    put(row, lane + 3u * WG, e3 / sum);
}
