// uses: lib/grid.wgsl
// du = skip·dy
const WG: u32 = 256u;
struct Params { count: u32, channels: u32, tokens: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;            // (B, D, L)
@group(0) @binding(2) var<storage, read> skip: array<f32>;          // (D)
@group(0) @binding(3) var<storage, read_write> du: array<f32>;      // (B, D, L)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i < params.count { du[i] = skip[i / params.tokens % params.channels] * dy[i]; }
}
