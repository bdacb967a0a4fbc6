// uses: lib/reduce.wgsl
// variants: elem=f16 WG=64 | elem_out=f16 WG=128 | elem=f16 elem_out=f16 WG=32
// rms_norm_backward.wgsl for rows of at most 4 · WG quads: dy and x are read once, and a lane adds up dweight of its own
// columns, in the rows' order, as it goes. One workgroup a block of ROWS rows.
alias elem = f32;
alias elem_out = f32;
const WG: u32 = 256u;
const ROWS: u32 = 16u;
struct Params { rows: u32, quads: u32, first_block: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<vec4<elem_out>>;         // (rows, quads)
@group(0) @binding(2) var<storage, read> x: array<vec4<elem>>;              // (rows, quads)
@group(0) @binding(3) var<storage, read> weight: array<vec4f>;              // (quads)
@group(0) @binding(4) var<storage, read> rstd: array<f32>;                  // (rows)
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<elem>>;       // (rows, quads)
@group(0) @binding(6) var<storage, read_write> dweight: array<vec4f>;       // (⌈rows / ROWS⌉, quads)

fn x_at(row: u32, q: u32) -> vec4f {
    let v = vec4f(x[row * params.quads + min(q, params.quads - 1u)]);
    return select(vec4f(), v, q < params.quads);
}

fn dy_at(row: u32, q: u32) -> vec4f {
    let v = vec4f(dy[row * params.quads + min(q, params.quads - 1u)]);
    return select(vec4f(), v, q < params.quads);
}

fn weight_at(q: u32) -> vec4f { return weight[min(q, params.quads - 1u)]; }

fn put(row: u32, q: u32, v: vec4f) {
    if q < params.quads { dx[row * params.quads + q] = vec4<elem>(v); }
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
        let x0 = x_at(row, lane);
        let x1 = x_at(row, lane + WG);
        let x2 = x_at(row, lane + 2u * WG);
        let x3 = x_at(row, lane + 3u * WG);
        let d0 = dy_at(row, lane);
        let d1 = dy_at(row, lane + WG);
        let d2 = dy_at(row, lane + 2u * WG);
        let d3 = dy_at(row, lane + 3u * WG);
        let r = rstd[row];
        let part = dot(d0 * w0, x0) + dot(d1 * w1, x1) + dot(d2 * w2, x2) + dot(d3 * w3, x3);
        let mean = workgroup_sum(part, lane) * r * r / f32(4u * params.quads);
        put(row, lane, r * (d0 * w0 - x0 * mean));
        put(row, lane + WG, r * (d1 * w1 - x1 * mean));
        put(row, lane + 2u * WG, r * (d2 * w2 - x2 * mean));
        put(row, lane + 3u * WG, r * (d3 * w3 - x3 * mean));
        s0 += d0 * x0 * r;
        s1 += d1 * x1 * r;
        s2 += d2 * x2 * r;
        s3 += d3 * x3 * r;
    }
    put_sum(block, lane, s0);
    put_sum(block, lane + WG, s1);
    put_sum(block, lane + 2u * WG, s2);
    put_sum(block, lane + 3u * WG, s3);
}
