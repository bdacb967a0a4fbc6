// A cell a chunk: its score as a colour, bright from 0 on, where a chunk takes half of the stick, and half as bright every
// 8 below.
struct Params { columns: u32, rows: u32, chunks: u32, unused: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<f32>;   // (chunks)

@fragment
fn colour(corner: Corner) -> @location(0) vec4f {
    let column = min(u32(corner.part.x * f32(params.columns)), params.columns - 1u);
    let row = min(u32(corner.part.y * f32(params.rows)), params.rows - 1u);
    let chunk = row * params.columns + column;
    if chunk >= params.chunks || chunk >= arrayLength(&scores) { return vec4f(0.05, 0.05, 0.06, 1.0); }
    let share = exp2(clamp(scores[chunk], -80.0, 0.0) / 8.0);
    // Black, violet, orange, pale yellow.
    let low = mix(vec3f(0.06, 0.05, 0.14), vec3f(0.45, 0.10, 0.45), clamp(share * 3.0, 0.0, 1.0));
    let mid = mix(low, vec3f(0.95, 0.45, 0.15), clamp(share * 3.0 - 1.0, 0.0, 1.0));
    return vec4f(mix(mid, vec3f(1.0, 0.97, 0.75), clamp(share * 3.0 - 2.0, 0.0, 1.0)), 1.0);
}
