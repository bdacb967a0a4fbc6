// What the kernels of the chunked scan share. A chunk is T tokens and all matrices are tiles of T × T: `tiles` holds
// TILES operands, `stage` STAGE rows of a product on its way to elements. Decays between tokens are products of the
// tokens' own, so that restarts are zeros, nothing overflows and nothing cancels; L[t, s] = Π decays s + 1 … t, 0 where
// t < s.
const QUADS: u32 = T / 4u;
// Two fours more than a row of a tile holds, one more than one of the stage: then rows meet different banks.
const STRIDE: u32 = QUADS + 2u;
const TILE: u32 = T * STRIDE;
const ROW: u32 = QUADS + 1u;
// Rows that an invocation works at, in one quad of columns.
const RUN: u32 = T * QUADS / WG;
// Rows from one whose decays are kept to the next: no more than these are made again where a RUN begins.
const GRAIN: u32 = T / 8u;
// dt · x may be smaller than 16 bits hold well, G, which dt is yet to multiply, larger: tiles have the one times SCALE,
// states are stored with the other over it.
const SCALE: f32 = 16.0;
// Whether chunks' states lack what their span's start adds: the state that enters the span, decayed.
const CARRY: u32 = 0u;

var<workgroup> tiles: array<four, TILES * TILE>;
var<workgroup> stage: array<vec4f, STAGE * ROW>;
var<workgroup> dts: array<f32, T>;
var<workgroup> decays: array<f32, T>;
var<workgroup> from_start: array<f32, T>;                             // Π decays 0 … t
var<workgroup> to_end: array<f32, T>;                                 // Π decays t + 1 … T − 1
var<workgroup> begins: array<f32, 8u * T>;                            // L[GRAIN · r, s], r from 1 on

// v, or zeros for what lies outside: loads that no branch holds up, from inside.
fn inside(v: words, live: bool) -> words { return select(words(), v, live); }

// A chunk's state: as stored, of its span alone, and the state that enters the span times the decay from there.
fn entering(state: words, start: words, decay: f32) -> four {
    if CARRY == 0u { return four_of(state); }
    return four(fma(vec4f(decay), vec4f(four_of(start)), vec4f(four_of(state))));
}

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

// Fills all products of decays, stretch by stretch, each total on the way in the room of the first. Contains a barrier:
// call it in uniform control flow.
fn all_decays(lane: u32) {
    let own = lane / GRAIN;
    var before = 1.0;
    var after = 1.0;
    if lane < T {
        for (var k = own * GRAIN; k < own * GRAIN + GRAIN; k++) {
            if k > lane { after *= decays[k]; } else { before *= decays[k]; }
        }
        if lane % GRAIN == 0u { begins[own] = before * after; }
    }
    workgroupBarrier();
    if lane < T {
        for (var r = 0u; r < T / GRAIN; r++) {
            let total = begins[r];
            if r < own { before *= total; }
            if r > own {
                begins[r * T + lane] = after * decays[r * GRAIN];
                after *= total;
            } else if r > 0u {
                begins[r * T + lane] = select(0.0, 1.0, lane == r * GRAIN);
            }
        }
        from_start[lane] = before;
        to_end[lane] = after;
    }
}

// L at the first of an invocation's rows, and at row t from that at t − 1.
fn first_decays(run: u32, quad: u32) -> vec4f {
    let r = run * RUN / GRAIN;
    let at = r * T + 4u * quad;
    var l = vec4f(begins[at], begins[at + 1u], begins[at + 2u], begins[at + 3u]);
    if r == 0u { l = select(vec4f(0.0), vec4f(1.0), tokens_of(quad) == vec4u(0u)); }
    for (var t = r * GRAIN + 1u; t <= run * RUN; t++) { l = next_decays(l, t, quad); }
    return l;
}

fn next_decays(l: vec4f, t: u32, quad: u32) -> vec4f {
    return select(l * decays[t], vec4f(1.0), tokens_of(quad) == vec4u(t));
}
