// What the kernels of the chunked scan share. A chunk is T tokens and all matrices are tiles of T × T: `tiles` holds
// operands, `stage` a product on its way to elements. Decays between tokens are products of the tokens' own, so that
// restarts are zeros, nothing overflows and nothing cancels; L[t, s] = Π decays s + 1 … t, 0 where t < s.
const QUADS: u32 = T / 4u;
// Two fours more than a row of a tile holds, one more than one of the stage: then rows meet different banks.
const STRIDE: u32 = QUADS + 2u;
const TILE: u32 = T * STRIDE;
const ROW: u32 = QUADS + 1u;
// Rows that an invocation works at, in one quad of columns.
const RUN: u32 = T * QUADS / WG;

var<workgroup> tiles: array<four, 3u * TILE>;
var<workgroup> stage: array<vec4f, T * ROW>;
var<workgroup> dts: array<f32, T>;
var<workgroup> decays: array<f32, T>;
var<workgroup> from_start: array<f32, T>;                             // Π decays 0 … t
var<workgroup> to_end: array<f32, T>;                                 // Π decays t + 1 … T − 1
var<workgroup> begins: array<f32, T * T / RUN>;                       // L[RUN · r, s]

// Steps of the chunk that begins at token `first` of batch b; beyond the end nothing decays and nothing comes in.
fn load_steps(b: u32, first: u32, h: u32, lane: u32) {
    for (var t = lane; t < T; t += WG) {
        var step = vec2f(0.0, 1.0);
        if first + t < params.tokens { step = steps[(b * params.tokens + first + t) * params.heads + h]; }
        dts[t] = step.x;
        decays[t] = step.y;
    }
}

// Fills to_end, or from_start, once steps are there.
fn decay_to_end(s: u32) {
    var p = 1.0;
    for (var k = 1u; k < T; k++) { p *= select(1.0, decays[k], k > s); }
    to_end[s] = p;
}

fn decay_from_start(t: u32) {
    var p = 1.0;
    for (var k = 0u; k < T; k++) { p *= select(1.0, decays[k], k <= t); }
    from_start[t] = p;
}

// Fills all products of decays.
fn all_decays(lane: u32) {
    for (var i = lane; i < 2u * T; i += WG) {
        if i < T {
            var p = 1.0;
            for (var k = 0u; k < T; k++) {
                if k > i { p *= decays[k]; }
                if k % RUN == 0u { begins[k / RUN * T + i] = select(0.0, p, k >= i); }
            }
            to_end[i] = p;
        } else {
            decay_from_start(i - T);
        }
    }
}

// L at the first of an invocation's rows, and at row t from that at t − 1.
fn first_decays(run: u32, quad: u32) -> vec4f {
    let at = run * T + 4u * quad;
    return vec4f(begins[at], begins[at + 1u], begins[at + 2u], begins[at + 3u]);
}

fn next_decays(l: vec4f, t: u32, quad: u32) -> vec4f {
    let s = vec4u(4u * quad) + vec4u(0u, 1u, 2u, 3u);
    return select(l * decays[t], vec4f(1.0), s == vec4u(t));
}

fn dts_of(quad: u32) -> vec4f {
    let s = 4u * quad;
    return vec4f(dts[s], dts[s + 1u], dts[s + 2u], dts[s + 3u]);
}
