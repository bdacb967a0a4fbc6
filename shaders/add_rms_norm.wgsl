// uses: lib/reduce.wgsl
// variants: elem_y=f16 elem_out=f16 WG=64 | elem_y=f16 elem_out=f16 WG=32 ROWS=8
// s = x + y and rms_norm_quads.wgsl of s in one walk, rows of at most 4 · WG quads held in registers. ROWS rows a workgroup,
// one after another.
alias elem_y = f32;
alias elem_out = f32;
const WG: u32 = 256u;
const ROWS: u32 = 1u;
struct Params { rows: u32, quads: u32, eps: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;                   // (rows, quads)
@group(0) @binding(2) var<storage, read> y: array<vec4<elem_y>>;            // (rows, quads)
@group(0) @binding(3) var<storage, read> weight: array<vec4f>;              // (quads)
@group(0) @binding(4) var<storage, read_write> s: array<vec4f>;             // (rows, quads)
@group(0) @binding(5) var<storage, read_write> h: array<vec4<elem_out>>;    // (rows, quads)
@group(0) @binding(6) var<storage, read_write> rstd: array<f32>;            // (rows), saved for the backward pass

// Loads are never skipped, so that none waits for another; those beyond the row repeat its last quad.
fn sum_at(row: u32, q: u32) -> vec4f {
    let i = row * params.quads + min(q, params.quads - 1u);
    return select(vec4f(), x[i] + vec4f(y[i]), q < params.quads);
}

fn weight_at(q: u32) -> vec4f { return weight[min(q, params.quads - 1u)]; }

fn put(row: u32, q: u32, v: vec4f, scaled: vec4f) {
    if q >= params.quads { return; }
    s[row * params.quads + q] = v;
    h[row * params.quads + q] = vec4<elem_out>(scaled);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = row_of(group) * ROWS;
    if first >= params.rows { return; }            // uniform: whole workgroups leave
    let w0 = weight_at(lane);
    let w1 = weight_at(lane + WG);
    let w2 = weight_at(lane + 2u * WG);
    let w3 = weight_at(lane + 3u * WG);
    var x0 = sum_at(first, lane);
    var x1 = sum_at(first, lane + WG);
    var x2 = sum_at(first, lane + 2u * WG);
    var x3 = sum_at(first, lane + 3u * WG);
    let last = min(first + ROWS, params.rows) - 1u;
    for (var row = first; row <= last; row++) {
        // The next row is under way while this one is summed; the last is loaded once more.
        let next = min(row + 1u, last);
        let y0 = sum_at(next, lane);
        let y1 = sum_at(next, lane + WG);
        let y2 = sum_at(next, lane + 2u * WG);
        let y3 = sum_at(next, lane + 3u * WG);
        let square = dot(x0, x0) + dot(x1, x1) + dot(x2, x2) + dot(x3, x3);
        let r = inverseSqrt(workgroup_sum(square, lane) / f32(4u * params.quads) + params.eps);
        if lane == 0u { rstd[row] = r; }
        put(row, lane, x0, x0 * r * w0);
        put(row, lane + WG, x1, x1 * r * w1);
        put(row, lane + 2u * WG, x2, x2 * r * w2);
        put(row, lane + 3u * WG, x3, x3 * r * w3);
        x0 = y0;
        x1 = y1;
        x2 = y2;
        x3 = y3;
    }
}
