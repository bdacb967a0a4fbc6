// uses: lib/conv_quads_backward.wgsl
// variants: HALF=1 words=vec2<u32> SEGMENTS=0 | WG=32 | STATES=1
// Gradients of causal_conv1d_quads.wgsl from all parts of dy at once, where an adapter binds ten buffers: a part of few
// channels takes as long as one of many.
struct Params {
    batches: u32, tokens: u32, channels: u32, x_stride: u32, x_start: u32, first: u32, fours: u32, second: u32, third: u32,
    blocks: u32, has_initial: u32, has_final: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // blocks = ⌈tokens / BLOCK⌉; second, third: in quads
@group(0) @binding(1) var<storage, read> dy: array<words>;            // (batches, tokens, second)
@group(0) @binding(2) var<storage, read> dy2: array<words>;           // (batches, tokens, third − second)
@group(0) @binding(3) var<storage, read> dy3: array<words>;           // (batches, tokens, the rest)
@group(0) @binding(4) var<storage, read> x: array<words>;             // (batches, tokens, x_stride)
@group(0) @binding(5) var<storage, read> weight: array<vec4f>;        // (channels, taps)
@group(0) @binding(6) var<storage, read> initial: array<f32>;         // (batches, channels, KEPT): the initial state, the
                                                                      // final one's gradient, each 3; bias
@group(0) @binding(7) var<storage, read> segment: array<u32>;         // (batches, tokens)
@group(0) @binding(8) var<storage, read_write> dx: array<words>;      // as x
@group(0) @binding(9) var<storage, read_write> dinitial: array<f32>;  // (batches, channels, 3)
@group(0) @binding(10) var<storage, read_write> sums: array<vec4f>;    // (batches · blocks, (channels, 4) then (channels)), in
                                                                      // fours

fn dy_ahead(first: u32, t0: u32, c: u32) -> array<words, AHEAD> {
    var dys = array<words, AHEAD>();
    // All loads of a part together.
    if c < params.second {
        for (var j = 0u; j < AHEAD; j++) { // unroll
            dys[j] = dy[(first + min(t0 + j, params.tokens - 1u)) * params.second + c];
        }
    } else if c < params.third {
        for (var j = 0u; j < AHEAD; j++) { // unroll
            let width = params.third - params.second;
            dys[j] = dy2[(first + min(t0 + j, params.tokens - 1u)) * width + c - params.second];
        }
    } else {
        for (var j = 0u; j < AHEAD; j++) { // unroll
            let width = params.fours - params.third;
            dys[j] = dy3[(first + min(t0 + j, params.tokens - 1u)) * width + c - params.third];
        }
    }
    return dys;
}
