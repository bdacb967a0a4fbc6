// uses: lib/conv_quads.wgsl
// variants: HALF=1 words=vec2<u32> SEGMENTS=0 | WG=32
// causal_conv1d.wgsl for widths of 4 and channels in multiples of 4: an invocation takes four channels through BLOCK
// tokens and keeps the taps in registers.
const WG: u32 = 128u;
const BLOCK: u32 = 16u;
const AHEAD: u32 = 4u;                                                // tokens under way
const KEPT: u32 = 3u;                                                 // columns of `initial`
struct Params {
    batches: u32, tokens: u32, channels: u32, x_stride: u32, x_start: u32, second: u32, third: u32, has_bias: u32,
    has_initial: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // second, third: where these parts begin, in quads
@group(0) @binding(1) var<storage, read> x: array<words>;             // (batches, tokens, x_stride)
@group(0) @binding(2) var<storage, read> weight: array<vec4f>;        // (channels, taps)
@group(0) @binding(3) var<storage, read> bias: array<f32>;            // (channels)
@group(0) @binding(4) var<storage, read> initial: array<f32>;         // (batches, channels, 3)
@group(0) @binding(5) var<storage, read> segment: array<u32>;         // (batches, tokens)
@group(0) @binding(6) var<storage, read_write> y: array<words>;       // (batches, tokens, second)
@group(0) @binding(7) var<storage, read_write> y2: array<words>;      // (batches, tokens, third − second)
@group(0) @binding(8) var<storage, read_write> y3: array<words>;      // (batches, tokens, the rest)

fn put(token: u32, c: u32, v: words) {
    let fours = params.channels / 4u;
    if c < params.second {
        y[token * params.second + c] = v;
    } else if c < params.third {
        y2[token * (params.third - params.second) + c - params.second] = v;
    } else {
        y3[token * (fours - params.third) + c - params.third] = v;
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let fours = params.channels / 4u;
    let blocks = (params.tokens + BLOCK - 1u) / BLOCK;
    let i = row_of(group) * WG + lane;
    if i >= params.batches * blocks * fours { return; }
    let c = i % fours;
    let start = (i / fours) % blocks * BLOCK;
    let b = i / fours / blocks;
    let first = b * params.tokens;
    // By taps, the oldest first, a component a channel.
    let w = transpose(mat4x4f(weight[4u * c], weight[4u * c + 1u], weight[4u * c + 2u], weight[4u * c + 3u]));
    var plus = vec4f(0.0);
    if params.has_bias != 0u { plus = vec4f(bias[4u * c], bias[4u * c + 1u], bias[4u * c + 2u], bias[4u * c + 3u]); }
    // What came one, two and three tokens before, and its segment. The initial state is of the first token's.
    var x1 = before(b, start, 1u, c);
    var x2 = before(b, start, 2u, c);
    var x3 = before(b, start, 3u, c);
    var s1 = segment_of(first + max(start, 1u) - 1u);
    var s2 = segment_of(first + max(start, 2u) - 2u);
    var s3 = segment_of(first + max(start, 3u) - 3u);
    let end = min(start + BLOCK, params.tokens);
    for (var t0 = start; t0 < end; t0 += AHEAD) {
        // All loads before the first store, which they might not pass.
        var xs = array<words, AHEAD>();
        var segments = array<u32, AHEAD>();
        for (var j = 0u; j < AHEAD; j++) { // unroll
            let at = first + min(t0 + j, params.tokens - 1u);
            xs[j] = x[place_of(at, c)];
            segments[j] = segment_of(at);
        }
        for (var j = 0u; j < AHEAD; j++) { // unroll
            let s = segments[j];
            let x0 = quad_of(xs[j]);
            var u = fma(w[0], select(vec4f(0.0), x3, s3 == s), plus);
            u = fma(w[1], select(vec4f(0.0), x2, s2 == s), u);
            u = fma(w[2], select(vec4f(0.0), x1, s1 == s), u);
            u = fma(w[3], x0, u);
            if t0 + j < end { put(first + t0 + j, c, words_of(u * sigmoid(u))); }
            x3 = x2;
            x2 = x1;
            x1 = x0;
            s3 = s2;
            s2 = s1;
            s1 = s;
        }
    }
}
