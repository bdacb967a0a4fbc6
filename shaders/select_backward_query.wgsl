// uses: lib/grid.wgsl
// variants: elem=f16
// dq[t] = scale · Σ_i ds[t, i] · landmark[index[t, i]] over the slots that hold a chunk, in order.
alias elem = f32;
const WG: u32 = 64u;
const NONE: f32 = -3.0e38;
struct Params { rows: u32, slots: u32, r: u32, heads: u32, tokens: u32, chunks: u32, scale: f32 }

@group(0) @binding(0) var<uniform> params: Params;                    // rows: (sequences of landmarks, tokens, heads)
@group(0) @binding(1) var<storage, read> dscores: array<f32>;         // (rows, slots)
@group(0) @binding(2) var<storage, read> scores: array<f32>;          // (rows, slots)
@group(0) @binding(3) var<storage, read> indices: array<u32>;         // (rows, slots)
@group(0) @binding(4) var<storage, read> landmarks: array<elem>;      // (sequences, chunks, heads, r)
@group(0) @binding(5) var<storage, read_write> dq: array<elem>;       // (rows, r)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let h = row % params.heads;
    let b = row / params.heads / params.tokens;
    for (var c = lane; c < params.r; c += WG) {
        var sum = 0.0;
        for (var i = 0u; i < params.slots; i++) {
            let at = row * params.slots + i;
            if scores[at] > NONE {
                let chunk = (b * params.chunks + indices[at]) * params.heads + h;
                sum += dscores[at] * f32(landmarks[chunk * params.r + c]);
            }
        }
        dq[row * params.r + c] = elem(sum * params.scale);
    }
}
