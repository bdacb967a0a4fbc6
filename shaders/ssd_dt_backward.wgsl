// uses: lib/grid.wgsl, lib/softplus.wgsl
// variants: elem=f16
// Through the clamp and the softplus: draw = ddt · σ(raw + dt_bias) where the clamp lets it pass, else 0. An invocation
// takes ROWS tokens of a head and leaves a partial sum of draw, which is dt_bias's gradient, and of dA_log and dD.
alias elem = f32;
const WG: u32 = 64u;
const ROWS: u32 = 16u;
const AHEAD: u32 = 8u;                                                // rows under way
struct Params { rows: u32, heads: u32, stride: u32, start: u32, low: f32, high: f32 }

@group(0) @binding(0) var<uniform> params: Params;                    // rows = batches · tokens
@group(0) @binding(1) var<storage, read> side: array<vec4f>;          // (rows, heads): ddt, dA_log, x · dy
@group(0) @binding(2) var<storage, read> raw: array<elem>;            // (rows, stride), heads from start on
@group(0) @binding(3) var<storage, read> dt_bias: array<f32>;         // (heads)
@group(0) @binding(4) var<storage, read_write> d_raw: array<elem>;    // as raw
@group(0) @binding(5) var<storage, read_write> sums: array<f32>;      // (⌈rows / ROWS⌉, 3, heads): of d_raw, dA_log, dD

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    let h = i % params.heads;
    let block = i / params.heads;
    let first = block * ROWS;
    if first >= params.rows { return; }
    let bias = dt_bias[h];
    var sum = vec3f();
    for (var r0 = first; r0 < first + ROWS; r0 += AHEAD) {
        // All loads before the first store, which they might not pass.
        var sides = array<vec4f, AHEAD>();
        var raws = array<elem, AHEAD>();
        for (var j = 0u; j < AHEAD; j++) { // unroll
            let row = min(r0 + j, params.rows - 1u);
            sides[j] = side[row * params.heads + h];
            raws[j] = raw[row * params.stride + params.start + h];
        }
        for (var j = 0u; j < AHEAD; j++) { // unroll
            let row = r0 + j;
            let v = f32(raws[j]) + bias;
            let e = exp(-abs(v));
            let dt = max(v, 0.0) + log_1p(e);
            let sigmoid = select(e, 1.0, v >= 0.0) / (1.0 + e);
            let d = select(0.0, sides[j].x * sigmoid, dt >= params.low && dt <= params.high);
            if row < params.rows {
                d_raw[row * params.stride + params.start + h] = elem(d);
                sum += vec3f(d, sides[j].yz);
            }
        }
    }
    let to = block * 3u * params.heads + h;
    sums[to] = sum.x;
    sums[to + params.heads] = sum.y;
    sums[to + 2u * params.heads] = sum.z;
}
