// uses: lib/grid.wgsl, lib/quads.wgsl
// What causal_conv1d_quads and its backward pass share. Of a token's `x_stride` quads the channels begin at `x_start`.

fn place_of(token: u32, c: u32) -> u32 { return token * params.x_stride + params.x_start + c; }

const SEGMENTS: u32 = 1u;                                             // 0: one segment, and no test for its end

// Less than −80 makes no difference to u · sigmoid(u).
fn sigmoid(u: vec4f) -> vec4f { return 1.0 / (1.0 + exp(min(-u, vec4f(80.0)))); }

fn segment_of(token: u32) -> u32 {
    if SEGMENTS == 0u { return 0u; }
    return segment[token];
}

// The inputs of channels 4c … 4c + 3 at `back` tokens before t, where a block begins: at the first the initial state's.
fn before(b: u32, t: u32, back: u32, c: u32) -> vec4f {
    if t > 0u { return quad_of(x[place_of(b * params.tokens + t - back, c)]); }
    if params.has_initial == 0u { return vec4f(0.0); }
    let at = (b * params.channels + 4u * c) * KEPT + 3u - back;
    return vec4f(initial[at], initial[at + KEPT], initial[at + 2u * KEPT], initial[at + 3u * KEPT]);
}
