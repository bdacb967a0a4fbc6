// uses: lib/grid.wgsl, lib/ssd_chunk.wgsl
// Gradients of a chunk's B or C over the heads of a group, T state dims, in ascending order: with M = Σ L ∘ dy·xᵀ ∘ dt as
// lib/ssd_chunk_backward.wgsl leaves it, H the state that enters the chunk and G the gradient of the one that leaves it,
//   dC = M · B + Σ (from_start ∘ dy) · H,   dB = Mᵀ · C + Σ (to_end ∘ dt ∘ x) · G.
struct Params {
    tokens: u32, heads: u32, p: u32, n: u32, share: u32, spans: u32, chunks: u32,
    first: u32, groups: u32, parts: u32, later: u32, starts: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // chunks: a span; parts: of a group's heads
@group(0) @binding(1) var<storage, read> x: array<words>;             // (batches, tokens, heads, P)
@group(0) @binding(2) var<storage, read> dy: array<words>;            // (batches, tokens, heads, P)
@group(0) @binding(3) var<storage, read> b: array<words>;             // (batches, tokens, groups, N)
@group(0) @binding(4) var<storage, read> c: array<words>;             // (batches, tokens, groups, N)
@group(0) @binding(5) var<storage, read> logs: array<f32>;            // (batches, chunks of all spans, heads, 2, T)
@group(0) @binding(6) var<storage, read> states: array<words>;        // H, then G / SCALE:
                                                                      // (2, spans of this launch, chunks, heads, P, N),
                                                                      // G that enters spans: (spans, heads, P, N)
@group(0) @binding(7) var<storage, read> carried: array<f32>;         // (spans of this launch, chunks, heads)
@group(0) @binding(8) var<storage, read> pairs: array<vec4f>;         // (chunks of this launch, groups, parts, T, T)
@group(0) @binding(9) var<storage, read_write> db: array<words>;      // (batches, tokens, groups, N)
@group(0) @binding(10) var<storage, read_write> dc: array<words>;     // (batches, tokens, groups, N)

struct Place { chunk: u32, span: u32, token0: u32, last: u32, logs: u32, column: u32, of_b: bool }

// A head's operands, on their way, and its weights: logarithms, and dt.
struct Loaded {
    input: array<words, RUN>, state: array<words, RUN>, start: array<words, RUN>, log: array<f32, RUN>,
    dt: array<f32, RUN>, decay: f32,
}

fn load(place: Place, h: u32, lane: u32) -> Loaded {
    var loaded: Loaded;
    let p4 = p_quads();
    let n4 = n_quads();
    let quad = lane % QUADS;
    let state_at = (place.chunk * params.heads + h) * p4 * 4u * n4 + select(0u, params.later, place.of_b);
    let start_at = params.starts + (place.span * params.heads + h) * p4 * 4u * n4;
    let logs_at = (place.logs + h) * 2u * T;
    let end = logs[logs_at + T - 1u];
    for (var i = 0u; i < RUN; i++) { // unroll
        let row = lane / QUADS + i * STEP;
        let line = ((place.token0 + near(row, place.last + 1u)) * params.heads + h) * p4 + near(quad, p4);
        let from_state = near(row, params.p) * n4 + near(place.column, n4);
        let live = place.column < n4 && row < params.p;
        if place.of_b { loaded.input[i] = x[line]; } else { loaded.input[i] = dy[line]; } // uniform
        loaded.input[i] = inside(loaded.input[i], row <= place.last && quad < p4);
        loaded.state[i] = inside(states[state_at + from_state], live);
        if CARRY == 1u { loaded.start[i] = select(words(), states[start_at + from_state], live && place.of_b); }
        let log = logs[logs_at + row];
        loaded.log[i] = select(log, end - log, place.of_b);
        loaded.dt[i] = logs[logs_at + T + row];
    }
    if CARRY == 1u { loaded.decay = carried[place.chunk * params.heads + h]; }
    return loaded;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if index >= params.groups { return; }                             // uniform
    let shares = params.heads / params.share;
    let of_b = index % 2u == 1u;
    let slice = index / 2u % NT;
    let g = index / 2u / NT % shares;
    let chunk = index / 2u / NT / shares;                             // of this launch
    let span_at = params.first + chunk / params.chunks;
    let batch = span_at / params.spans;
    let in_batch = span_at % params.spans * params.chunks + chunk % params.chunks;
    let first = in_batch * T;
    if first >= params.tokens { return; }                             // uniform
    let quad = lane % QUADS;
    let column = slice * QUADS + quad;
    let n4 = n_quads();
    let token0 = batch * params.tokens + first;
    let last = params.tokens - 1u - first;
    let logs_at = (batch * ((params.tokens + T - 1u) / T) + in_batch) * params.heads;
    let place = Place(chunk, chunk / params.chunks, token0, last, logs_at, column, of_b);
    var sums = Sums();
    var next = load(place, g * params.share, lane);
    for (var k = 0u; k < params.share; k++) {
        workgroupBarrier();                                           // the last head's tiles are read
        for (var i = 0u; i < RUN; i++) { // unroll
            let at = tile_at(i, lane);
            let weight = exp2(next.log[i]) * select(1.0, next.dt[i] * SCALE, of_b);
            tiles[at] = four(floats_of(next.input[i]) * weight);
            tiles[TILE + at] = entering(next.state[i], next.start[i], next.decay);
        }
        // While this head is multiplied the next one is on its way.
        if k + 1u < params.share { next = load(place, g * params.share + k + 1u, lane); }
        workgroupBarrier();
        multiply_nn(&sums, T, lane);
    }
    workgroupBarrier();
    for (var i = 0u; i < RUN; i++) { // unroll
        let t = lane / QUADS + i * STEP;
        let at = tile_at(i, lane);
        let line = ((token0 + near(t, last + 1u)) * shares + g) * n4 + near(column, n4);
        var other = words();
        if of_b { other = c[line]; } else { other = b[line]; }        // uniform
        tiles[TILE + at] = four_of(inside(other, t <= last && column < n4));
        var weights = vec4f(0.0);
        for (var part = 0u; part < params.parts; part++) {
            weights += pairs[(((chunk * shares + g) * params.parts + part) * T + t) * QUADS + quad];
        }
        tiles[at] = four(weights);
    }
    workgroupBarrier();
    if of_b { multiply_tn(&sums, 0u, TILE, lane); } else { multiply_nn(&sums, T, lane); }  // uniform
    let own = lane / LANES;
    let from_stage = own_stage(lane);
    for (var j = 0u; j < TURNS; j++) { // unroll
        leave(&sums, j, lane);
        workgroupBarrier();
        for (var i = 0u; i < PER; i++) { // unroll
            let to = slice * QUADS + own_quad(j * PER + i, lane);
            let line = ((token0 + own) * shares + g) * n4 + to;
            if within(own, last + 1u) && within(to, n4) {
                let v = words_of(stage[from_stage + i * LANES]);
                if of_b { db[line] = v; } else { dc[line] = v; }
            }
        }
        if j + 1u < TURNS { workgroupBarrier(); }
    }
}
