// uses: lib/grid.wgsl, lib/eights.wgsl
// variants: HALF=1
// dq[t] = scale · Σ_i ds[t, i] · landmark[index[t, i]] over the slots that hold a chunk, in order. An invocation owns a
// unit of a row; empty slots weigh 0.
const WG: u32 = 256u;
const NONE: f32 = -3.0e38;
struct Params { count: u32, units: u32, slots: u32, heads: u32, tokens: u32, chunks: u32, scale: f32 }

@group(0) @binding(0) var<uniform> params: Params;                    // count: rows · units
@group(0) @binding(1) var<storage, read> dscores: array<f32>;         // (rows, slots)
@group(0) @binding(2) var<storage, read> scores: array<f32>;          // (rows, slots): (sequences, tokens, heads)
@group(0) @binding(3) var<storage, read> indices: array<u32>;         // (rows, slots)
@group(0) @binding(4) var<storage, read> landmarks: array<vec4u>;     // (sequences, chunks, heads, units)
@group(0) @binding(5) var<storage, read_write> dq: array<vec4u>;      // (rows, units)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i >= params.count { return; }
    let row = i / params.units;
    let h = row % params.heads;
    let b = row / params.heads / params.tokens;
    let last = (row + 1u) * params.slots - 1u;
    var x = vec4f();
    var y = vec4f();
    // Four loads under way: none waits for a branch, those beyond the last slot repeat it.
    for (var first = row * params.slots; first <= last; first += 4u) {
        var ds = array<f32, 4>();
        var words = array<vec4u, 4>();
        for (var j = 0u; j < 4u; j++) { // unroll
            let at = min(first + j, last);
            ds[j] = select(0.0, dscores[at], first + j <= last && scores[at] > NONE);
            words[j] = landmarks[((b * params.chunks + indices[at]) * params.heads + h) * params.units + i % params.units];
        }
        for (var j = 0u; j < 4u; j++) { // unroll
            let landmark = eight_of(words[j]);
            x = fma(vec4f(ds[j]), landmark.x, x);
            y = fma(vec4f(ds[j]), landmark.y, y);
        }
    }
    dq[i] = words_of(Eight(x * params.scale, y * params.scale));
}
