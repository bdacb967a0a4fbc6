// uses: lib/reduce.wgsl
// ddelta = ddt·σ(delta + bias), and its sum over each row for dbias. One workgroup a row (b, d).
const WG: u32 = 256u;
struct Params { rows: u32, channels: u32, tokens: u32, has_bias: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dpacked: array<f32>;           // (2, B, D, L)
@group(0) @binding(2) var<storage, read> delta: array<f32>;             // (B, D, L)
@group(0) @binding(3) var<storage, read> bias: array<f32>;              // (D)
@group(0) @binding(4) var<storage, read_write> ddelta: array<f32>;      // (B, D, L)
@group(0) @binding(5) var<storage, read_write> dbias: array<f32>;       // (B, D)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let first = row * params.tokens;
    let count = params.rows * params.tokens;
    var shift = 0.0;
    if params.has_bias != 0u { shift = bias[row % params.channels]; }
    var sum = 0.0;
    for (var t = lane; t < params.tokens; t += WG) {
        let x = delta[first + t] + shift;
        let e = exp(-abs(x));
        let g = dpacked[count + first + t] * select(1.0, e, x < 0.0) / (1.0 + e);
        ddelta[first + t] = g;
        sum += g;
    }
    sum = workgroup_sum(sum, lane);
    if lane == 0u { dbias[row] = sum; }
}
