// The picture, what the network makes of it, and under both the losses so far, as powers of ten.
struct Params { side: u32, steps: u32, unused: vec2u }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> picture: array<f32>;      // (side · side, 3)
@group(0) @binding(2) var<storage, read> prediction: array<f32>;   // the same
@group(0) @binding(3) var<storage, read> losses: array<f32>;       // a ring

@fragment
fn colour(corner: Corner) -> @location(0) vec4f {
    let split = 0.8;
    if corner.part.y < split {
        let at = vec2u(fract(corner.part * vec2f(2.0, 1.0 / split)) * f32(params.side));
        let i = (at.y * params.side + at.x) * 3u;
        if corner.part.x < 0.5 { return vec4f(picture[i], picture[i + 1u], picture[i + 2u], 1.0); }
        return vec4f(prediction[i], prediction[i + 1u], prediction[i + 2u], 1.0);
    }
    // From 1 down to 1e-4, oldest at the left.
    let kept = min(params.steps, arrayLength(&losses));
    let column = u32(corner.part.x * f32(arrayLength(&losses)));
    let height = (1.0 - corner.part.y) / (1.0 - split);
    let line = abs(fract(height * 4.0 + 0.5) - 0.5) < 0.02;
    let ground = select(vec3f(0.05, 0.05, 0.06), vec3f(0.16, 0.16, 0.18), line);
    if column >= kept { return vec4f(ground, 1.0); }
    let loss = losses[(params.steps - kept + column) % arrayLength(&losses)];
    let top = 1.0 + log2(max(loss, 1e-9)) / log2(10.0) / 4.0;
    return vec4f(select(ground, vec3f(0.95, 0.45, 0.15), height < top), 1.0);
}
