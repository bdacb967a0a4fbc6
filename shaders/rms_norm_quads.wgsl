// uses: lib/reduce.wgsl
// variants: elem=f16 WG=64 | elem_out=f16 WG=128 | elem=f16 elem_out=f16 WG=32 ROWS=8 | ROWS=8 WG=32
// rms_norm.wgsl for rows of at most 4 · WG quads, held in registers: x is read once, a lane's loads are under way together.
// ROWS rows a workgroup, one after another: of short rows a workgroup each would be more than a device starts in time.
alias elem = f32;
alias elem_out = f32;
const WG: u32 = 256u;
const ROWS: u32 = 1u;
struct Params { rows: u32, quads: u32, eps: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<elem>>;              // (rows, quads)
@group(0) @binding(2) var<storage, read> weight: array<vec4f>;              // (quads)
@group(0) @binding(3) var<storage, read_write> y: array<vec4<elem_out>>;    // (rows, quads)
@group(0) @binding(4) var<storage, read_write> rstd: array<f32>;            // (rows), saved for the backward pass

// Loads are never skipped, so that none waits for another; those beyond the row repeat its last quad.
fn x_at(row: u32, q: u32) -> vec4f {
    let v = vec4f(x[row * params.quads + min(q, params.quads - 1u)]);
    return select(vec4f(), v, q < params.quads);
}

fn weight_at(q: u32) -> vec4f { return weight[min(q, params.quads - 1u)]; }

fn put(row: u32, q: u32, v: vec4f) {
    if q < params.quads { y[row * params.quads + q] = vec4<elem_out>(v); }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = row_of(group) * ROWS;
    if first >= params.rows { return; }            // uniform: whole workgroups leave
    let w0 = weight_at(lane);
    let w1 = weight_at(lane + WG);
    let w2 = weight_at(lane + 2u * WG);
    let w3 = weight_at(lane + 3u * WG);
    var x0 = x_at(first, lane);
    var x1 = x_at(first, lane + WG);
    var x2 = x_at(first, lane + 2u * WG);
    var x3 = x_at(first, lane + 3u * WG);
    let last = min(first + ROWS, params.rows) - 1u;
    for (var row = first; row <= last; row++) {
        // The next row is under way while this one is summed; the last is loaded once more.
        let next = min(row + 1u, last);
        let y0 = x_at(next, lane);
        let y1 = x_at(next, lane + WG);
        let y2 = x_at(next, lane + 2u * WG);
        let y3 = x_at(next, lane + 3u * WG);
        let square = dot(x0, x0) + dot(x1, x1) + dot(x2, x2) + dot(x3, x3);
        let r = inverseSqrt(workgroup_sum(square, lane) / f32(4u * params.quads) + params.eps);
        if lane == 0u { rstd[row] = r; }
        put(row, lane, x0 * r * w0);
        put(row, lane + WG, x1 * r * w1);
        put(row, lane + 2u * WG, x2 * r * w2);
        put(row, lane + 3u * WG, x3 * r * w3);
        x0 = y0;
        x1 = y1;
        x2 = y2;
        x3 = y3;
    }
}
