// uses: lib/grid.wgsl, lib/ssd_chunk.wgsl
// Gradients of a chunk's B or C over the heads of a group, WIDE tiles of state dims, in ascending order: with M = Σ L ∘ dy·xᵀ ∘ dt as
// lib/ssd_chunk_backward.wgsl leaves it, H the state that enters the chunk and G the gradient of the one that leaves it,
//   dC = M · B + Σ (from_start ∘ dy) · H,   dB = Mᵀ · C + Σ (to_end ∘ dt ∘ x) · G.
struct Params {
    tokens: u32, heads: u32, p: u32, n: u32, share: u32, spans: u32, chunks: u32,
    first: u32, groups: u32, parts: u32, later: u32, starts: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // chunks: a span; parts: of a group's heads
@group(0) @binding(1) var<storage, read> x: array<wide>;              // (batches, tokens, heads, P)
@group(0) @binding(2) var<storage, read> dy: array<wide>;             // (batches, tokens, heads, P)
@group(0) @binding(3) var<storage, read> b: array<words>;             // (batches, tokens, groups, N)
@group(0) @binding(4) var<storage, read> c: array<words>;             // (batches, tokens, groups, N)
@group(0) @binding(5) var<storage, read> logs: array<f32>;            // (batches, chunks of all spans, heads, 2, T)
@group(0) @binding(6) var<storage, read> states: array<wide>;         // H, then G / SCALE:
                                                                      // (2, spans of this launch, chunks, heads, P, N),
                                                                      // G that enters spans: (spans, heads, P, N)
@group(0) @binding(7) var<storage, read> carried: array<f32>;         // (spans of this launch, chunks, heads)
@group(0) @binding(8) var<storage, read> pairs: array<vec4f>;         // (chunks of this launch, groups, parts, T, T)
@group(0) @binding(9) var<storage, read_write> db: array<words>;      // (batches, tokens, groups, N)
@group(0) @binding(10) var<storage, read_write> dc: array<words>;     // (batches, tokens, groups, N)

const SLICES: u32 = (NT + WIDE - 1u) / WIDE;
// How many heads ahead operands are loaded.
const AHEAD: u32 = 1u;

struct Place { chunk: u32, span: u32, token0: u32, last: u32, logs: u32, column: u32, of_b: bool }

// A head's operands, on their way, and its weights: logarithms, and dt.
struct Loaded {
    input: array<wide, LOADS>, state: array<wide, WIDE * LOADS>, start: array<wide, WIDE * LOADS>,
    log: array<f32, LOADS>, dt: array<f32, LOADS>, decay: f32,
}

fn load(place: Place, h: u32, lane: u32) -> Loaded {
    var loaded: Loaded;
    let line = p_quads() / UNIT;
    let state_line = n_quads() / UNIT;
    let column = lane % ACROSS;
    let size = p_quads() * 4u * state_line;
    let state_at = (place.chunk * params.heads + h) * size + select(0u, params.later / UNIT, place.of_b);
    let start_at = params.starts / UNIT + (place.span * params.heads + h) * size;
    let logs_at = (place.logs + h) * 2u * T;
    let end = logs[logs_at + T - 1u];
    for (var i = 0u; i < LOADS; i++) { // unroll
        let row = lane / ACROSS + i * HOP;
        let token = place.token0 + near(row, place.last + 1u);
        let at = (token * params.heads + h) * line + near(column, line);
        if place.of_b { loaded.input[i] = x[at]; } else { loaded.input[i] = dy[at]; } // uniform
        loaded.input[i] = where_live(loaded.input[i], row <= place.last && column < line);
        for (var w = 0u; w < WIDE; w++) { // unroll
            let c = place.column + w * ACROSS;
            let from_state = near(row, params.p) * state_line + near(c, state_line);
            let live = c < state_line && row < params.p;
            loaded.state[w * LOADS + i] = where_live(states[state_at + from_state], live);
            if CARRY == 1u && AHEAD == 1u {
                loaded.start[w * LOADS + i] = select(wide(), states[start_at + from_state], live && place.of_b);
            }
        }
        let log = logs[logs_at + row];
        loaded.log[i] = select(log, end - log, place.of_b);
        loaded.dt[i] = logs[logs_at + T + row];
    }
    if CARRY == 1u && AHEAD > 1u {
        if place.of_b {                                               // uniform
            for (var i = 0u; i < LOADS; i++) { // unroll
                let row = lane / ACROSS + i * HOP;
                for (var w = 0u; w < WIDE; w++) { // unroll
                    let c = place.column + w * ACROSS;
                    let from_state = near(row, params.p) * state_line + near(c, state_line);
                    let live = c < state_line && row < params.p;
                    loaded.start[w * LOADS + i] = where_live(states[start_at + from_state], live);
                }
            }
        }
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
    let slice = index / 2u % SLICES;
    let g = index / 2u / SLICES % shares;
    let chunk = index / 2u / SLICES / shares;                         // of this launch
    let span_at = params.first + chunk / params.chunks;
    let batch = span_at / params.spans;
    let in_batch = span_at % params.spans * params.chunks + chunk % params.chunks;
    let first = in_batch * T;
    if first >= params.tokens { return; }                             // uniform
    let quad = lane % QUADS;
    let column = slice * WIDE * QUADS + quad;
    let n4 = n_quads();
    let token0 = batch * params.tokens + first;
    let last = params.tokens - 1u - first;
    let logs_at = (batch * ((params.tokens + T - 1u) / T) + in_batch) * params.heads;
    let first_load = slice * WIDE * ACROSS + lane % ACROSS;
    let place = Place(chunk, chunk / params.chunks, token0, last, logs_at, first_load, of_b);
    var sums = Sums();
    var next: array<Loaded, AHEAD>;
    for (var side = 0u; side < AHEAD; side++) { // unroll
        next[side] = load(place, g * params.share + min(side, params.share - 1u), lane);
    }
    for (var k = 0u; k < params.share; k += AHEAD) {
        for (var side = 0u; side < AHEAD; side++) { // unroll
            if k + side < params.share {                              // uniform
                workgroupBarrier();                                   // the last head's tiles are read
                for (var i = 0u; i < LOADS; i++) { // unroll
                    let weight = exp2(next[side].log[i]) * select(1.0, next[side].dt[i] * SCALE, of_b);
                    for (var u = 0u; u < UNIT; u++) { // unroll
                        let at = tile_at(i, lane) + u;
                        tiles[at] = four(floats_of(part(next[side].input[i], u)) * weight);
                        for (var w = 0u; w < WIDE; w++) { // unroll
                            let state = part(next[side].state[w * LOADS + i], u);
                            let start = part(next[side].start[w * LOADS + i], u);
                            tiles[(1u + w) * TILE + at] = entering(state, start, next[side].decay);
                        }
                    }
                }
                // While this head is multiplied the next ones are on their way.
                if k + side + AHEAD < params.share {
                    next[side] = load(place, g * params.share + k + side + AHEAD, lane);
                }
                workgroupBarrier();
                multiply_nn(&sums, T, lane);
            }
        }
    }
    workgroupBarrier();
    for (var i = 0u; i < RUN; i++) { // unroll
        let t = lane / QUADS + i * STEP;
        let at = t * STRIDE + quad;
        let line = ((token0 + near(t, last + 1u)) * shares + g) * n4;
        for (var w = 0u; w < WIDE; w++) { // unroll
            let c_at = column + w * QUADS;
            var other = words();
            if of_b { other = c[line + near(c_at, n4)]; } else { other = b[line + near(c_at, n4)]; } // uniform
            tiles[(1u + w) * TILE + at] = four_of(inside(other, t <= last && c_at < n4));
        }
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
            let to = slice * WIDE * QUADS + own_quad(j * PER + i, lane);
            let line = ((token0 + own) * shares + g) * n4 + to;
            if within(own, last + 1u) && within(to, n4) {
                let v = words_of(stage[from_stage + i * LANES]);
                if of_b { db[line] = v; } else { dc[line] = v; }
            }
        }
        if j + 1u < TURNS { workgroupBarrier(); }
    }
}
