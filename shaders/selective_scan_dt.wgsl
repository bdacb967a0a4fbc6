// uses: lib/grid.wgsl, lib/softplus.wgsl
// packed = (u, dt) with dt = softplus(delta + bias): one buffer, since the passes that follow bind many.
const WG: u32 = 256u;
struct Params { count: u32, channels: u32, tokens: u32, has_bias: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> u: array<f32>;                 // (B, D, L)
@group(0) @binding(2) var<storage, read> delta: array<f32>;             // (B, D, L)
@group(0) @binding(3) var<storage, read> bias: array<f32>;              // (D)
@group(0) @binding(4) var<storage, read_write> packed: array<f32>;      // (2, B, D, L)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i >= params.count { return; }
    var x = delta[i];
    if params.has_bias != 0u { x += bias[i / params.tokens % params.channels]; }
    packed[i] = u[i];
    packed[params.count + i] = softplus(x);
}
