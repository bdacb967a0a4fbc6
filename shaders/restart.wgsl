// uses: lib/grid.wgsl
// y[b, i] = x[b, i] where sequence b goes on: its last id before equals its first id now; else 0.
const WG: u32 = 256u;
struct Params { size: u32, before_tokens: u32, tokens: u32, count: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // (batches, size)
@group(0) @binding(2) var<storage, read> before: array<u32>;          // (batches, before_tokens)
@group(0) @binding(3) var<storage, read> segment: array<u32>;         // (batches, tokens)
@group(0) @binding(4) var<storage, read_write> y: array<f32>;         // (batches, size)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i >= params.count { return; }
    let b = i / params.size;
    let same = before[(b + 1u) * params.before_tokens - 1u] == segment[b * params.tokens];
    y[i] = select(0.0, x[i], same);
}
