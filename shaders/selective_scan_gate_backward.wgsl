// uses: lib/reduce.wgsl
// dy = dout·silu(z), dz = dout·(y + skip·u)·silu'(z), and Σ dy·u over each row for dskip. One workgroup a row (b, d).
const WG: u32 = 256u;
struct Params { rows: u32, channels: u32, tokens: u32, has_skip: u32, has_z: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dout: array<f32>;              // (B, D, L)
@group(0) @binding(2) var<storage, read> y: array<f32>;                 // (B, D, L)
@group(0) @binding(3) var<storage, read> u: array<f32>;                 // (B, D, L)
@group(0) @binding(4) var<storage, read> skip: array<f32>;              // (D)
@group(0) @binding(5) var<storage, read> z: array<f32>;                 // (B, D, L)
@group(0) @binding(6) var<storage, read_write> dy: array<f32>;          // (B, D, L)
@group(0) @binding(7) var<storage, read_write> dz: array<f32>;          // (B, D, L)
@group(0) @binding(8) var<storage, read_write> dskip: array<f32>;       // (B, D)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let first = row * params.tokens;
    var factor = 0.0;
    if params.has_skip != 0u { factor = skip[row % params.channels]; }
    var sum = 0.0;
    for (var t = lane; t < params.tokens; t += WG) {
        let i = first + t;
        var g = dout[i];
        if params.has_z != 0u {
            let gate = z[i];
            let e = exp(-abs(gate));
            let s = select(1.0, e, gate < 0.0) / (1.0 + e);
            dz[i] = g * (y[i] + factor * u[i]) * s * (1.0 + gate * (1.0 - s));
            g *= gate * s;
        }
        dy[i] = g;
        sum += g * u[i];
    }
    sum = workgroup_sum(sum, lane);
    if lane == 0u { dskip[row] = sum; }
}
