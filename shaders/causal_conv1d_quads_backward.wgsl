// uses: lib/conv_quads.wgsl
// variants: HALF=1 words=vec2<u32> | WG=32
// Gradients of causal_conv1d_quads.wgsl in one walk: an invocation takes four channels through BLOCK tokens and the three
// behind them. With du[t] = dy[t] · silu'(u[t]), u recomputed, token t completes dx[t − 3] = Σ_j weight[j] · du[t − j];
// dx of a block's last tokens needs du of the next one's first, computed again there. dweight and dbias are one partial
// sum a block, in ascending t. What the final state passes back is added to the last three tokens, so there are three.
const WG: u32 = 128u;
const BLOCK: u32 = 64u;
const AHEAD: u32 = 4u;                                                // tokens under way
const KEPT: u32 = 6u;                                                 // columns of `initial`
struct Params {
    batches: u32, tokens: u32, channels: u32, x_stride: u32, x_start: u32, first: u32, fours: u32, blocks: u32,
    has_initial: u32, has_segment: u32, has_final: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // blocks = ⌈tokens / BLOCK⌉; first: quad of dy
@group(0) @binding(1) var<storage, read> dy: array<words>;            // (batches, tokens, fours)
@group(0) @binding(2) var<storage, read> x: array<words>;             // (batches, tokens, x_stride)
@group(0) @binding(3) var<storage, read> weight: array<vec4f>;        // (channels, 4 + 1): taps and bias, in fours
@group(0) @binding(4) var<storage, read> initial: array<f32>;         // (batches, channels, 3 + 3): and the final's gradient
@group(0) @binding(5) var<storage, read> segment: array<u32>;         // (batches, tokens)
@group(0) @binding(6) var<storage, read_write> dx: array<words>;      // as x
@group(0) @binding(7) var<storage, read_write> dinitial: array<f32>;  // (batches, channels, 3)
@group(0) @binding(8) var<storage, read_write> sums: array<vec4f>;    // (batches · blocks, channels, 4 + 1), in fours

// What the final state's gradient adds to token t, one of the last three.
fn from_final(b: u32, t: u32, c: u32) -> vec4f {
    let first = b * params.tokens;
    if segment_of(first + t) != segment_of(first + params.tokens - 1u) { return vec4f(0.0); }
    let at = (b * params.channels + 4u * c) * KEPT + 6u + t - params.tokens;
    return vec4f(initial[at], initial[at + KEPT], initial[at + 2u * KEPT], initial[at + 3u * KEPT]);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let fours = params.fours;
    let i = row_of(group) * WG + lane;
    if i >= params.batches * params.blocks * fours { return; }
    let c = params.first + i % fours;
    let start = (i / fours) % params.blocks * BLOCK;
    let b = i / fours / params.blocks;
    let first = b * params.tokens;
    // Taps, the oldest first, and bias, a component a channel.
    let v0 = weight[5u * c];
    let v1 = weight[5u * c + 1u];
    let v2 = weight[5u * c + 2u];
    let v3 = weight[5u * c + 3u];
    let v4 = weight[5u * c + 4u];
    let w0 = vec4f(v0.x, v1.y, v2.z, v3.w);
    let w1 = vec4f(v0.y, v1.z, v2.w, v4.x);
    let w2 = vec4f(v0.z, v1.w, v3.x, v4.y);
    let w3 = vec4f(v0.w, v2.x, v3.y, v4.z);
    let plus = vec4f(v1.x, v2.y, v3.z, v4.w);
    // What came one, two and three tokens before, its segment, and the sums of its dx so far.
    var x1 = before(b, start, 1u, c);
    var x2 = before(b, start, 2u, c);
    var x3 = before(b, start, 3u, c);
    var s1 = segment_of(first + max(start, 1u) - 1u);
    var s2 = segment_of(first + max(start, 2u) - 2u);
    var s3 = segment_of(first + max(start, 3u) - 3u);
    var dx1 = vec4f(0.0);
    var dx2 = vec4f(0.0);
    var dx3 = vec4f(0.0);
    var dw0 = vec4f(0.0);
    var dw1 = vec4f(0.0);
    var dw2 = vec4f(0.0);
    var dw3 = vec4f(0.0);
    var dbias = vec4f(0.0);
    let end = min(start + BLOCK, params.tokens);
    for (var t0 = start; t0 < end + 3u; t0 += AHEAD) {
        // All loads before the first store, which they might not pass.
        var xs = array<words, AHEAD>();
        var dys = array<words, AHEAD>();
        var segments = array<u32, AHEAD>();
        for (var j = 0u; j < AHEAD; j++) { // unroll
            let at = first + min(t0 + j, params.tokens - 1u);
            xs[j] = x[place_of(at, c)];
            dys[j] = dy[at * fours + i % fours];
            segments[j] = segment_of(at);
        }
        for (var j = 0u; j < AHEAD; j++) { // unroll
            let t = t0 + j;
            let s = segments[j];
            let x0 = quad_of(xs[j]);
            let seen1 = select(vec4f(0.0), x1, s1 == s);
            let seen2 = select(vec4f(0.0), x2, s2 == s);
            let seen3 = select(vec4f(0.0), x3, s3 == s);
            let u = fma(w3, x0, fma(w2, seen1, fma(w1, seen2, fma(w0, seen3, plus))));
            let sig = sigmoid(u);
            let du = select(vec4f(0.0), quad_of(dys[j]) * sig * (1.0 + u * (1.0 - sig)), t < params.tokens);
            let own = select(vec4f(0.0), du, t < end);
            dw0 = fma(own, seen3, dw0);
            dw1 = fma(own, seen2, dw1);
            dw2 = fma(own, seen1, dw2);
            dw3 = fma(own, x0, dw3);
            dbias += own;
            var done = fma(w0, select(vec4f(0.0), du, s3 == s), dx3);
            if t >= start + 3u && t < end + 3u {
                if params.has_final != 0u && t >= params.tokens { done += from_final(b, t - 3u, c); }
                dx[place_of(first + t - 3u, c)] = words_of(done);
            } else if start == 0u && t < 3u && params.has_initial != 0u {
                let at = (b * params.channels + 4u * c) * 3u + t;
                dinitial[at] = done.x;
                dinitial[at + 3u] = done.y;
                dinitial[at + 6u] = done.z;
                dinitial[at + 9u] = done.w;
            }
            dx3 = fma(w1, select(vec4f(0.0), du, s2 == s), dx2);
            dx2 = fma(w2, select(vec4f(0.0), du, s1 == s), dx1);
            dx1 = w3 * du;
            x3 = x2;
            x2 = x1;
            x1 = x0;
            s3 = s2;
            s2 = s1;
            s1 = s;
        }
    }
    let to = 5u * (i / fours * (params.channels / 4u) + c);
    sums[to] = vec4f(dw0.x, dw1.x, dw2.x, dw3.x);
    sums[to + 1u] = vec4f(dbias.x, dw0.y, dw1.y, dw2.y);
    sums[to + 2u] = vec4f(dw3.y, dbias.y, dw0.z, dw1.z);
    sums[to + 3u] = vec4f(dw2.z, dw3.z, dbias.z, dw0.w);
    sums[to + 4u] = vec4f(dw1.w, dw2.w, dw3.w, dbias.w);
}
