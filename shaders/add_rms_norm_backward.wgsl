// uses: lib/reduce.wgsl
// variants: elem_y=f16 elem_out=f16 WG=64 | elem_y=f16 elem_out=f16 WG=32
// dx = ds + the gradient that rms_norm_quads_backward.wgsl gives s, dy the same in y's type; dweight as there: a lane adds
// up its own columns, in the rows' order. One workgroup a block of ROWS rows.
alias elem_y = f32;
alias elem_out = f32;
const WG: u32 = 256u;
const ROWS: u32 = 16u;
struct Params { rows: u32, quads: u32, first_block: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dh: array<vec4<elem_out>>;         // (rows, quads)
@group(0) @binding(2) var<storage, read> ds: array<vec4f>;                  // (rows, quads)
@group(0) @binding(3) var<storage, read> s: array<vec4f>;                   // (rows, quads)
@group(0) @binding(4) var<storage, read> weight: array<vec4f>;              // (quads)
@group(0) @binding(5) var<storage, read> rstd: array<f32>;                  // (rows)
@group(0) @binding(6) var<storage, read_write> dx: array<vec4f>;            // (rows, quads)
@group(0) @binding(7) var<storage, read_write> dy: array<vec4<elem_y>>;     // (rows, quads)
@group(0) @binding(8) var<storage, read_write> dweight: array<vec4f>;       // (⌈rows / ROWS⌉, quads)

// Four columns of s, dh and ds; beyond the row they count as 0.
struct Quad { x: vec4f, d: vec4f, on: vec4f }

fn quad_at(row: u32, q: u32) -> Quad {
    let i = row * params.quads + min(q, params.quads - 1u);
    let inside = q < params.quads;
    return Quad(select(vec4f(), s[i], inside), select(vec4f(), vec4f(dh[i]), inside), ds[i]);
}

fn weight_at(q: u32) -> vec4f { return weight[min(q, params.quads - 1u)]; }

fn put(row: u32, q: u32, k: Quad, w: vec4f, r: f32, mean: f32) {
    if q >= params.quads { return; }
    let v = k.on + r * (k.d * w - k.x * mean);
    dx[row * params.quads + q] = v;
    dy[row * params.quads + q] = vec4<elem_y>(v);
}

fn put_sum(block: u32, q: u32, v: vec4f) {
    if q < params.quads { dweight[(params.first_block + block) * params.quads + q] = v; }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let block = row_of(group);
    let first = block * ROWS;
    if first >= params.rows { return; }
    let w0 = weight_at(lane);
    let w1 = weight_at(lane + WG);
    let w2 = weight_at(lane + 2u * WG);
    let w3 = weight_at(lane + 3u * WG);
    var s0 = vec4f();
    var s1 = vec4f();
    var s2 = vec4f();
    var s3 = vec4f();
    for (var row = first; row < min(first + ROWS, params.rows); row++) {
        let k0 = quad_at(row, lane);
        let k1 = quad_at(row, lane + WG);
        let k2 = quad_at(row, lane + 2u * WG);
        let k3 = quad_at(row, lane + 3u * WG);
        let r = rstd[row];
        let part = dot(k0.d * w0, k0.x) + dot(k1.d * w1, k1.x) + dot(k2.d * w2, k2.x) + dot(k3.d * w3, k3.x);
        let mean = workgroup_sum(part, lane) * r * r / f32(4u * params.quads);
        put(row, lane, k0, w0, r, mean);
        put(row, lane + WG, k1, w1, r, mean);
        put(row, lane + 2u * WG, k2, w2, r, mean);
        put(row, lane + 3u * WG, k3, w3, r, mean);
        s0 += k0.d * k0.x * r;
        s1 += k1.d * k1.x * r;
        s2 += k2.d * k2.x * r;
        s3 += k3.d * k3.x * r;
    }
    put_sum(block, lane, s0);
    put_sum(block, lane + WG, s1);
    put_sum(block, lane + 2u * WG, s2);
    put_sum(block, lane + 3u * WG, s3);
}
