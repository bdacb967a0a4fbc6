// uses: lib/grid.wgsl
// variants: elem=f16
// dlandmark[c] = scale · Σ ds · q over the slots that selected c, in ascending order. One workgroup a (sequence, head,
// chunk); an invocation owns a dim.
alias elem = f32;
const WG: u32 = 64u;
struct Params { lists: u32, slots: u32, r: u32, heads: u32, chunks: u32, scale: f32 }

@group(0) @binding(0) var<uniform> params: Params;                    // lists: sequences · heads · chunks
@group(0) @binding(1) var<storage, read> dscores: array<f32>;         // (sequences, tokens, heads, slots)
@group(0) @binding(2) var<storage, read> q: array<elem>;              // (sequences, tokens, heads, r)
@group(0) @binding(3) var<storage, read> order: array<u32>;           // slots by list
@group(0) @binding(4) var<storage, read> starts: array<u32>;          // (lists + 1)
@group(0) @binding(5) var<storage, read_write> dlandmarks: array<elem>; // (sequences, chunks, heads, r)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let list = row_of(group);
    if list >= params.lists { return; }
    let chunk = list % params.chunks;
    let h = (list / params.chunks) % params.heads;
    let b = list / params.chunks / params.heads;
    for (var c = lane; c < params.r; c += WG) {
        var sum = 0.0;
        for (var i = starts[list]; i < starts[list + 1u]; i++) {
            let slot = order[i];
            sum += dscores[slot] * f32(q[(slot / params.slots) * params.r + c]);
        }
        dlandmarks[((b * params.chunks + chunk) * params.heads + h) * params.r + c] = elem(sum * params.scale);
    }
}
