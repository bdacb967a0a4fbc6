// What every canvas draws on.
struct Corner { @builtin(position) position: vec4f, @location(0) part: vec2f }

@vertex
fn corner(@builtin(vertex_index) i: u32) -> Corner {
    // One triangle that covers the viewport; `part` runs from its top left to its bottom right.
    let at = vec2f(f32(i & 1u), f32(i >> 1u)) * 2.0;
    return Corner(vec4f(at.x * 2.0 - 1.0, 1.0 - at.y * 2.0, 0.0, 1.0), at);
}
