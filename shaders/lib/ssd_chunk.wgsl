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
// dt · x may be smaller than 16 bits hold well, G, which dt is yet to multiply, larger: tiles have the one times SCALE,
// states are stored with the other over it.
const SCALE: f32 = 16.0;

var<workgroup> tiles: array<four, 3u * TILE>;
var<workgroup> stage: array<vec4f, T * ROW>;
var<workgroup> dts: array<f32, T>;
var<workgroup> decays: array<f32, T>;
var<workgroup> from_start: array<f32, T>;                             // Π decays 0 … t
var<workgroup> to_end: array<f32, T>;                                 // Π decays t + 1 … T − 1
var<workgroup> begins: array<f32, T * T / RUN>;                       // L[RUN · r, s], r from 1 on

// v, or zeros for what lies outside: loads that no branch holds up, from inside.
fn inside(v: words, live: bool) -> words { return select(words(), v, live); }

// Steps of the chunk that begins at token `first` of batch b; beyond the end nothing decays and nothing comes in. The
// first T invocations have one each.
fn step_of(b: u32, first: u32, h: u32, lane: u32) -> vec2f {
    if lane >= T || first + lane >= params.tokens { return vec2f(0.0, 1.0); }
    return steps[(b * params.tokens + first + lane) * params.heads + h];
}

fn put_step(step: vec2f, lane: u32) {
    if lane >= T { return; }
    dts[lane] = step.x;
    decays[lane] = step.y;
}

// Four tokens: their numbers, dt and decays.
fn tokens_of(quad: u32) -> vec4u { return vec4u(4u * quad) + vec4u(0u, 1u, 2u, 3u); }

fn dts_of(quad: u32) -> vec4f {
    let s = 4u * quad;
    return vec4f(dts[s], dts[s + 1u], dts[s + 2u], dts[s + 3u]);
}

fn decays_of(quad: u32) -> vec4f {
    let s = 4u * quad;
    return vec4f(decays[s], decays[s + 1u], decays[s + 2u], decays[s + 3u]);
}

// Π decays s + 1 … T − 1.
fn decay_to_end(s: u32) -> f32 {
    var p = vec4f(1.0);
    for (var q = 0u; q < QUADS; q++) { p *= select(vec4f(1.0), decays_of(q), tokens_of(q) > vec4u(s)); }
    return (p.x * p.y) * (p.z * p.w);
}

// Π decays 0 … t.
fn decay_from_start(t: u32) -> f32 {
    var p = vec4f(1.0);
    for (var q = 0u; q < QUADS; q++) { p *= select(vec4f(1.0), decays_of(q), tokens_of(q) <= vec4u(t)); }
    return (p.x * p.y) * (p.z * p.w);
}

// Fills all products of decays, run by run, each run's total on the way in the room of the first. Contains a barrier:
// call it in uniform control flow.
fn all_decays(lane: u32) {
    let own = lane / RUN;
    var before = 1.0;
    var after = 1.0;
    if lane < T {
        for (var k = own * RUN; k < own * RUN + RUN; k++) {
            if k > lane { after *= decays[k]; } else { before *= decays[k]; }
        }
        if lane % RUN == 0u { begins[own] = before * after; }
    }
    workgroupBarrier();
    if lane < T {
        for (var r = 0u; r < T / RUN; r++) {
            let total = begins[r];
            if r < own { before *= total; }
            if r > own {
                begins[r * T + lane] = after * decays[r * RUN];
                after *= total;
            } else if r > 0u {
                begins[r * T + lane] = select(0.0, 1.0, lane == r * RUN);
            }
        }
        from_start[lane] = before;
        to_end[lane] = after;
    }
}

// L at the first of an invocation's rows, and at row t from that at t − 1.
fn first_decays(run: u32, quad: u32) -> vec4f {
    if run == 0u { return select(vec4f(0.0), vec4f(1.0), tokens_of(quad) == vec4u(0u)); }
    let at = run * T + 4u * quad;
    return vec4f(begins[at], begins[at + 1u], begins[at + 2u], begins[at + 3u]);
}

fn next_decays(l: vec4f, t: u32, quad: u32) -> vec4f {
    return select(l * decays[t], vec4f(1.0), tokens_of(quad) == vec4u(t));
}
