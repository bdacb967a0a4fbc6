// uses: lib/grid.wgsl
// out = (y + skip·u)·silu(z)
const WG: u32 = 256u;
struct Params { count: u32, channels: u32, tokens: u32, has_skip: u32, has_z: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> y: array<f32>;             // (B, D, L)
@group(0) @binding(2) var<storage, read> u: array<f32>;             // (B, D, L)
@group(0) @binding(3) var<storage, read> skip: array<f32>;          // (D)
@group(0) @binding(4) var<storage, read> z: array<f32>;             // (B, D, L)
@group(0) @binding(5) var<storage, read_write> out: array<f32>;     // (B, D, L)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i >= params.count { return; }
    var v = y[i];
    if params.has_skip != 0u { v += skip[i / params.tokens % params.channels] * u[i]; }
    if params.has_z != 0u {
        let gate = z[i];
        let e = exp(-abs(gate));
        v *= gate * select(1.0, e, gate < 0.0) / (1.0 + e);
    }
    out[i] = v;
}
