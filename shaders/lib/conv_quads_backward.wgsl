// uses: lib/conv_quads.wgsl
// Gradients of causal_conv1d_quads.wgsl in one walk: an invocation takes four channels through BLOCK tokens and the three
// behind them, AHEAD at a time while the next are under way. With du[t] = dy[t] · silu'(u[t]), u recomputed, token t
// completes dx[t − 3] = Σ_j weight[j] · du[t − j]; dx of a block's last tokens needs du of the next one's first, computed
// again there. dweight and dbias are one partial sum a block, in ascending t. What the final state passes back is added to
// the last three tokens, so there are three. `dy_ahead(first, t0, c)` loads dy of AHEAD tokens from t0 on, of the sequence
// that begins at token `first`; a launch takes `params.fours` quads of channels from `params.first` on.
const WG: u32 = 64u;
const BLOCK: u32 = 72u;                                               // a multiple of AHEAD
const AHEAD: u32 = 3u;                                                // tokens a load; the three behind a block are one
const STATES: u32 = 0u;                                               // 1: `initial` holds states
const BIAS: u32 = 6u * STATES;                                        // its column of biases, the last
const KEPT: u32 = BIAS + 1u;                                          // its columns

// What the final state's gradient adds to token t, one of the last three.
fn from_final(b: u32, t: u32, c: u32) -> vec4f {
    let first = b * params.tokens;
    if segment_of(first + t) != segment_of(first + params.tokens - 1u) { return vec4f(0.0); }
    return quad_of_four(b, 6u + t - params.tokens, c);
}

// A column of four channels of `initial`.
fn quad_of_four(b: u32, column: u32, c: u32) -> vec4f {
    let at = (b * params.channels + 4u * c) * KEPT + column;
    return vec4f(initial[at], initial[at + KEPT], initial[at + 2u * KEPT], initial[at + 3u * KEPT]);
}

// x and dy of AHEAD tokens on their way; dy counts as 0 behind the last.
struct Ahead { x: array<words, AHEAD>, dy: array<words, AHEAD>, segments: array<u32, AHEAD> }

fn ahead(first: u32, t0: u32, c: u32) -> Ahead {
    var a = Ahead();
    for (var j = 0u; j < AHEAD; j++) { // unroll
        let at = first + min(t0 + j, params.tokens - 1u);
        a.x[j] = x[place_of(at, c)];
        a.segments[j] = segment_of(at);
    }
    a.dy = dy_ahead(first, t0, c);
    for (var j = 0u; j < AHEAD; j++) { // unroll
        a.dy[j] = select(words(), a.dy[j], t0 + j < params.tokens);
    }
    return a;
}

// dy · silu'(u)
fn du_of(dy: words, u: vec4f) -> vec4f {
    let s = sigmoid(u);
    return quad_of(dy) * fma(fma(-u, s, u), s, s);
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
    var coming = ahead(first, start, c);
    // Taps, the oldest first, and bias, a component a channel.
    let taps = transpose(mat4x4f(weight[4u * c], weight[4u * c + 1u], weight[4u * c + 2u], weight[4u * c + 3u]));
    let w0 = taps[0];
    let w1 = taps[1];
    let w2 = taps[2];
    let w3 = taps[3];
    let plus = quad_of_four(b * STATES, BIAS, c);
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
    var t0 = start;
    for (; t0 < end; t0 += AHEAD) {
        // All loads before the first store, which they might not pass.
        let now = coming;
        coming = ahead(first, t0 + AHEAD, c);
        for (var j = 0u; j < AHEAD; j++) { // unroll
            let t = t0 + j;
            let s = now.segments[j];
            let x0 = quad_of(now.x[j]);
            let seen1 = select(vec4f(0.0), x1, s1 == s);
            let seen2 = select(vec4f(0.0), x2, s2 == s);
            let seen3 = select(vec4f(0.0), x3, s3 == s);
            let du = du_of(now.dy[j], fma(w3, x0, fma(w2, seen1, fma(w1, seen2, fma(w0, seen3, plus)))));
            dw0 = fma(du, seen3, dw0);
            dw1 = fma(du, seen2, dw1);
            dw2 = fma(du, seen1, dw2);
            dw3 = fma(du, x0, dw3);
            dbias += du;
            var done = fma(w0, select(vec4f(0.0), du, s3 == s), dx3);
            if t >= start + 3u && t < end + 3u {
                if STATES == 1u {
                    if params.has_final != 0u && t >= params.tokens { done += from_final(b, t - 3u, c); }
                }
                dx[place_of(first + t - 3u, c)] = words_of(done);
            }
            if STATES == 1u {
                if start == 0u && t < 3u && params.has_initial != 0u {
                    let at = (b * params.channels + 4u * c) * 3u + t;
                    dinitial[at] = done.x;
                    dinitial[at + 3u] = done.y;
                    dinitial[at + 6u] = done.z;
                    dinitial[at + 9u] = done.w;
                }
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
    // The next block's first three tokens complete dx of this one's last.
    for (var j = 0u; j < AHEAD; j++) { // unroll
        let t = t0 + j;
        let s = coming.segments[j];
        let x0 = quad_of(coming.x[j]);
        let seen1 = select(vec4f(0.0), x1, s1 == s);
        let seen2 = select(vec4f(0.0), x2, s2 == s);
        let seen3 = select(vec4f(0.0), x3, s3 == s);
        let du = du_of(coming.dy[j], fma(w3, x0, fma(w2, seen1, fma(w1, seen2, fma(w0, seen3, plus)))));
        var done = fma(w0, select(vec4f(0.0), du, s3 == s), dx3);
        if t < end + 3u {
            if STATES == 1u {
                if params.has_final != 0u && t >= params.tokens { done += from_final(b, t - 3u, c); }
            }
            dx[place_of(first + t - 3u, c)] = words_of(done);
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
    // A row of dweight, then of dbias.
    let row = i / fours * (params.channels / 4u) * 5u;
    let to = row + 4u * c;
    sums[to] = vec4f(dw0.x, dw1.x, dw2.x, dw3.x);
    sums[to + 1u] = vec4f(dw0.y, dw1.y, dw2.y, dw3.y);
    sums[to + 2u] = vec4f(dw0.z, dw1.z, dw2.z, dw3.z);
    sums[to + 3u] = vec4f(dw0.w, dw1.w, dw2.w, dw3.w);
    sums[row + params.channels + c] = dbias;
}
