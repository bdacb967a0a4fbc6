// uses: lib/grid.wgsl
// key[slot] = the list of its chunk: (batch[, head]) · chunks + index; the largest u32 where the weight is 0.
const WG: u32 = 256u;
struct Params { count: u32, tokens: u32, slots: u32, heads: u32, chunks: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // heads: those of the selection
@group(0) @binding(1) var<storage, read> indices: array<u32>;         // (batches, tokens, heads, slots)
@group(0) @binding(2) var<storage, read> weights: array<f32>;         // the same
@group(0) @binding(3) var<storage, read_write> keys: array<u32>;      // the same

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i >= params.count { return; }
    let h = (i / params.slots) % params.heads;
    let b = i / params.slots / params.heads / params.tokens;
    keys[i] = select(0xffffffffu, (b * params.heads + h) * params.chunks + indices[i], weights[i] != 0.0);
}
