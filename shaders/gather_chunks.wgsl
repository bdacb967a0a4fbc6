// uses: lib/grid.wgsl
// variants: elem=f16
// out[slot, :] = page[indices[slot] − first, :] for the slots whose chunk lies in this page; the others stay as they are.
// A workgroup copies one chunk.
alias elem = f32;
const WG: u32 = 256u;
struct Params { slots: u32, first: u32, chunks: u32, size: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> indices: array<u32>;         // (slots)
@group(0) @binding(2) var<storage, read> page: array<elem>;           // (chunks, size): chunks first .. first + chunks
@group(0) @binding(3) var<storage, read_write> out: array<elem>;      // (slots, size)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let slot = row_of(group);
    if slot >= params.slots { return; }
    let chunk = indices[slot];
    if chunk < params.first || chunk - params.first >= params.chunks { return; }
    let source = (chunk - params.first) * params.size;
    for (var i = lane; i < params.size; i += WG) { out[slot * params.size + i] = page[source + i]; }
}
