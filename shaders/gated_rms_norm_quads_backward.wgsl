// uses: lib/reduce.wgsl, lib/quads.wgsl
// variants: HALF=1 words=vec2<u32> WG=64 | WG=32
// gated_rms_norm_backward.wgsl for groups of at most 4 · WG quads: dy, x and z are read once, and a lane adds up dweight
// of its own columns, in the rows' order, as it goes. One workgroup a block of ROWS rows and group.
const WG: u32 = 256u;
const ROWS: u32 = 16u;
struct Params { rows: u32, quads: u32, groups: u32, z_stride: u32, z_start: u32, first_block: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // quads: of one group
@group(0) @binding(1) var<storage, read> dy: array<words>;            // (rows, groups, quads)
@group(0) @binding(2) var<storage, read> x: array<words>;             // (rows, groups, quads)
@group(0) @binding(3) var<storage, read> z: array<words>;             // (rows, z_stride): from z_start on, in quads
@group(0) @binding(4) var<storage, read> weight: array<vec4f>;        // (groups, quads)
@group(0) @binding(5) var<storage, read> rstd: array<f32>;            // (rows, groups)
@group(0) @binding(6) var<storage, read_write> dx: array<words>;      // (rows, groups, quads)
@group(0) @binding(7) var<storage, read_write> dz: array<words>;      // as z
@group(0) @binding(8) var<storage, read_write> dweight: array<vec4f>; // (⌈rows / ROWS⌉, groups, quads)

// Four columns of dy, x and z on their way; those beyond the group repeat its last.
struct Loaded { d: words, u: words, v: words }

fn load(row: u32, z_at: u32, q: u32) -> Loaded {
    let c = min(q, params.quads - 1u);
    let i = row * params.quads + c;
    return Loaded(dy[i], x[i], z[z_at + c]);
}

// And as numbers, with the sigmoid of z; beyond the group dy counts as 0.
struct Quad { d: vec4f, u: vec4f, v: vec4f, s: vec4f }

fn quad(k: Loaded, q: u32) -> Quad {
    let v = quad_of(k.v);
    let s = 1.0 / (1.0 + exp(min(-v, vec4f(80.0))));
    return Quad(select(vec4f(), quad_of(k.d), q < params.quads), quad_of(k.u), v, s);
}

fn gated(k: Quad) -> vec4f { return k.u * k.v * k.s; }

fn weight_at(part: u32, q: u32) -> vec4f { return weight[part * params.quads + min(q, params.quads - 1u)]; }

fn put(row: u32, z_at: u32, q: u32, k: Quad, w: vec4f, r: f32, mean: f32) {
    if q >= params.quads { return; }
    let dg = r * (k.d * w - gated(k) * mean) * k.s;
    dx[row * params.quads + q] = words_of(dg * k.v);
    dz[z_at + q] = words_of(dg * k.u * (1.0 + k.v * (1.0 - k.s)));
}

fn put_sum(block: u32, part: u32, q: u32, v: vec4f) {
    if q < params.quads { dweight[((params.first_block + block) * params.groups + part) * params.quads + q] = v; }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let block = row_of(group) / params.groups;
    let part = row_of(group) % params.groups;
    let first = block * ROWS;
    if first >= params.rows { return; }
    let w0 = weight_at(part, lane);
    let w1 = weight_at(part, lane + WG);
    let w2 = weight_at(part, lane + 2u * WG);
    let w3 = weight_at(part, lane + 3u * WG);
    var s0 = vec4f();
    var s1 = vec4f();
    var s2 = vec4f();
    var s3 = vec4f();
    let last = min(first + ROWS, params.rows) - 1u;
    let z_from = params.z_start + part * params.quads;
    for (var whole = first; whole <= last; whole++) {
        let row = whole * params.groups + part;
        let z_at = whole * params.z_stride + z_from;
        let n0 = load(row, z_at, lane);
        let n1 = load(row, z_at, lane + WG);
        let n2 = load(row, z_at, lane + 2u * WG);
        let n3 = load(row, z_at, lane + 3u * WG);
        let k0 = quad(n0, lane);
        let k1 = quad(n1, lane + WG);
        let k2 = quad(n2, lane + 2u * WG);
        let k3 = quad(n3, lane + 3u * WG);
        let r = rstd[row];
        let g0 = k0.d * gated(k0);
        let g1 = k1.d * gated(k1);
        let g2 = k2.d * gated(k2);
        let g3 = k3.d * gated(k3);
        let total = workgroup_sum(dot(g0, w0) + dot(g1, w1) + dot(g2, w2) + dot(g3, w3), lane);
        let mean = total * r * r / f32(4u * params.quads);
        s0 += g0 * r;
        s1 += g1 * r;
        s2 += g2 * r;
        s3 += g3 * r;
        put(row, z_at, lane, k0, w0, r, mean);
        put(row, z_at, lane + WG, k1, w1, r, mean);
        put(row, z_at, lane + 2u * WG, k2, w2, r, mean);
        put(row, z_at, lane + 3u * WG, k3, w3, r, mean);
    }
    put_sum(block, part, lane, s0);
    put_sum(block, part, lane + WG, s1);
    put_sum(block, part, lane + 2u * WG, s2);
    put_sum(block, part, lane + 3u * WG, s3);
}
