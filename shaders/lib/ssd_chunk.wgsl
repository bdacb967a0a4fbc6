// What the kernels of the chunked scan share. A chunk is T tokens and all matrices are tiles of T × T: `tiles` holds the
// operands of a product. Its results pass through `stage` in turns of COLUMNS columns, of which each of LANES
// invocations takes some quads of row lane / LANES.
//
// Of each chunk and head, `logs` has the logarithm of the decays' product from the chunk's start to each token, to the
// base 2, and dt (ssd_logs.wgsl): L[t, s] = exp2(logs[t] − logs[s]).
const QUADS: u32 = T / 4u;
// Tiles side by side that the second operand of multiply_tn is, and its results.
const WIDE: u32 = 1u;
// Two fours more than a row of a tile holds, one or two more than one of the stage: then rows meet different banks.
const STRIDE: u32 = QUADS + 2u;
const TILE: u32 = T * STRIDE;
const ROW: u32 = select(COLUMNS / 4u + 2u, 5u, COLUMNS == 16u);
const LANES: u32 = WG / T;
// Quads of a tile that an invocation loads, STEP rows apart in one column of quads, and works at, in one row: PER a turn.
const RUN: u32 = QUADS / LANES;
const STEP: u32 = WG / QUADS;
const PER: u32 = COLUMNS / 4u / LANES;
const TURNS: u32 = WIDE * T / COLUMNS;
// dt · x may be smaller than 16 bits hold well, G, which dt is yet to multiply, larger: tiles have the one times SCALE,
// states are stored with the other over it.
const SCALE: f32 = 16.0;
// Whether chunks' states lack what their span's start adds: the state that enters the span, decayed.
const CARRY: u32 = 0u;
// 1: tokens fill their chunks, and P and N their tiles, so that nothing is tested.
const WHOLE: u32 = 0u;

var<workgroup> tiles: array<four, (1u + WIDE) * TILE>;
var<workgroup> stage: array<vec4f, T * ROW>;

// v, or zeros for what lies outside: loads that no branch holds up, from inside.
fn inside(v: words, live: bool) -> words {
    if WHOLE == 1u { return v; }
    return select(words(), v, live);
}

fn within(i: u32, count: u32) -> bool { return WHOLE == 1u || i < count; }

// i, or the last that there is.
fn near(i: u32, count: u32) -> u32 {
    if WHOLE == 1u { return i; }
    return min(i, count - 1u);
}

// Lines of P and of N, in fours.
fn p_quads() -> u32 {
    if WHOLE == 1u { return QUADS; }
    return params.p / 4u;
}

fn n_quads() -> u32 {
    if WHOLE == 1u { return NT * QUADS; }
    return params.n / 4u;
}

// A chunk's state: as stored, of its span alone, and the state that enters the span times the decay from there.
fn entering(state: words, start: words, decay: f32) -> four {
    if CARRY == 0u { return four_of(state); }
    return four(fma(vec4f(decay), floats_of(start), floats_of(state)));
}

// The m-th quad of its row that an invocation works at.
fn own_quad(m: u32, lane: u32) -> u32 { return m * LANES + lane % LANES; }

// Where the stage holds the first of a turn's; the others lie LANES apart.
fn own_stage(lane: u32) -> u32 { return lane / LANES * ROW + lane % LANES; }

// The numbers of a quad's tokens.
fn tokens_of(quad: u32) -> vec4u { return vec4u(4u * quad) + vec4u(0u, 1u, 2u, 3u); }

// Of a row's values: the sum of those before an invocation's own, and of all.
struct Scan { before: vec4f, all: vec4f }

// Where a tile holds the i-th four that an invocation loads.
fn tile_at(i: u32, lane: u32) -> u32 { return (lane / QUADS + i * STEP) * STRIDE + lane % QUADS; }
