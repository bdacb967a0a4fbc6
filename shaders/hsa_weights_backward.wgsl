// uses: lib/grid.wgsl
// dweight[t, h, i] = Σ D_i over the query heads that share the selection, in ascending order.
const WG: u32 = 256u;
struct Params { count: u32, slots: u32, heads: u32, share: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> stats: array<vec2f>;         // (batches, tokens, slots, heads of the selection, share): lse, D_i
@group(0) @binding(2) var<storage, read_write> dweights: array<f32>;  // (batches, tokens, heads of the selection, slots)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i >= params.count { return; }
    let row = i / params.slots;
    let first = ((row / params.heads * params.slots + i % params.slots) * params.heads + row % params.heads) * params.share;
    var sum = 0.0;
    for (var g = 0u; g < params.share; g++) { sum += stats[first + g].y; }
    dweights[i] = sum;
}
