// uses: lib/grid.wgsl
// key[slot] = (sequence · heads + head) · chunks + index, or the largest u32 where the slot is empty.
const WG: u32 = 256u;
const NONE: f32 = -3.0e38;
struct Params { count: u32, tokens: u32, heads: u32, slots: u32, chunks: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<f32>;          // (sequences, tokens, heads, slots)
@group(0) @binding(2) var<storage, read> indices: array<u32>;         // the same
@group(0) @binding(3) var<storage, read_write> keys: array<u32>;      // the same

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i >= params.count { return; }
    let h = (i / params.slots) % params.heads;
    let b = i / params.slots / params.heads / params.tokens;
    keys[i] = select(0xffffffffu, (b * params.heads + h) * params.chunks + indices[i], scores[i] > NONE);
}
