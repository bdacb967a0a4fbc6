// uses: lib/grid.wgsl, lib/eights.wgsl
// variants: HALF=1
// dlandmark[c] = scale · its pieces' sums, in order. An invocation owns a unit of a landmark.
const WG: u32 = 256u;
struct Params { count: u32, units: u32, heads: u32, chunks: u32, scale: f32 }

@group(0) @binding(0) var<uniform> params: Params;                    // count = sequences · chunks · heads · units
@group(0) @binding(1) var<storage, read> piece_starts: array<u32>;    // (sequences · heads · chunks + 1)
@group(0) @binding(2) var<storage, read> partial: array<vec4f>;       // (pieces, units, UNIT elements)
@group(0) @binding(3) var<storage, read_write> dlandmarks: array<vec4u>; // (sequences, chunks, heads, units)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i >= params.count { return; }
    let unit = i % params.units;
    let h = (i / params.units) % params.heads;
    let chunk = (i / params.units / params.heads) % params.chunks;
    let b = i / params.units / params.heads / params.chunks;
    let list = (b * params.heads + h) * params.chunks + chunk;
    var x = vec4f();
    var y = vec4f();
    for (var piece = piece_starts[list]; piece < piece_starts[list + 1u]; piece++) {
        let at = (piece * params.units + unit) * (UNIT / 4u);
        x += partial[at];
        if HALF == 1u { y += partial[at + 1u]; }
    }
    dlandmarks[i] = words_of(Eight(x * params.scale, y * params.scale));
}
