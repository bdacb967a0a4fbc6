// uses: lib/grid.wgsl, lib/bytes.wgsl
// variants: elem=vec4<f16>
// out[slot, s, h, i] = numbers[c, s, h, i] · scales[c, h], c = indices[slot] − first, for the slots whose chunk lies in this
// page; the others stay as they are. A workgroup writes one chunk.
alias elem = vec4<f32>;
const WG: u32 = 256u;
struct Params { slots: u32, first: u32, skipped: u32, chunks: u32, size: u32, heads: u32, units: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> indices: array<u32>;         // (slots)
@group(0) @binding(2) var<storage, read> numbers: array<u32>;         // (chunks, S, heads, units): chunks first .. first + chunks
@group(0) @binding(3) var<storage, read> scales: array<f32>;          // (skipped + chunks + …, heads)
@group(0) @binding(4) var<storage, read_write> out: array<elem>;      // (slots, S, heads, units)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let slot = row_of(group);
    if slot >= params.slots { return; }
    let chunk = indices[slot];
    if chunk < params.first || chunk - params.first >= params.chunks { return; }
    let c = chunk - params.first;
    for (var i = lane; i < params.size; i += WG) {
        let scale = scales[(params.skipped + c) * params.heads + i / params.units % params.heads];
        out[slot * params.size + i] = elem(bytes_of(numbers[c * params.size + i]) * scale);
    }
}
