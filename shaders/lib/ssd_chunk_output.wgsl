// uses: lib/grid.wgsl, lib/ssd_chunk.wgsl
// y[t] = Σ over s ≤ t of L[t, s] · dt[s] · (C[t] · B[s]) · x[s], + decay from the chunk's start · state · C[t], + D ·
// x[t]: one workgroup a chunk and `each` heads of a group, which share C · B. All of it is one product along state dims
// and tokens, of (from_start ∘ C, L ∘ C·Bᵀ ∘ dt + D) with (state, x).
struct Params {
    tokens: u32, heads: u32, p: u32, n: u32, share: u32, spans: u32, chunks: u32, first: u32, groups: u32, has_d: u32,
    each: u32, starts: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // chunks: a span; starts: in fours
@group(0) @binding(1) var<storage, read> x: array<words>;             // (batches, tokens, heads, P)
@group(0) @binding(2) var<storage, read> b: array<words>;             // (batches, tokens, groups, N)
@group(0) @binding(3) var<storage, read> c: array<words>;             // (batches, tokens, groups, N)
@group(0) @binding(4) var<storage, read> logs: array<vec4f>;          // (batches, chunks of all spans, heads, 2, T)
@group(0) @binding(5) var<storage, read> states: array<words>;        // (spans of this launch, chunks, heads, P, N),
                                                                      // what enters spans: (spans, heads, P, N)
@group(0) @binding(6) var<storage, read> d: array<f32>;               // (heads)
@group(0) @binding(7) var<storage, read> carried: array<f32>;         // (spans of this launch, chunks, heads)
@group(0) @binding(8) var<storage, read_write> y: array<words>;       // (batches, tokens, heads, P)

var<workgroup> table: array<vec4f, 2u * QUADS>;                       // a head's logs and dt

// A head's operands, on their way.
struct Loaded {
    states: array<words, NT * RUN>, starts: array<words, NT * RUN>, x: array<words, RUN>, table: vec4f, own: f32,
    decay: f32, d: f32,
}

struct Place { chunk: u32, logs: u32, token0: u32, last: u32, start: u32 }

fn load(place: Place, h: u32, lane: u32) -> Loaded {
    var loaded: Loaded;
    let quad = lane % QUADS;
    let p4 = p_quads();
    let n4 = n_quads();
    let state_at = (place.chunk * params.heads + h) * p4 * 4u * n4;
    let start_at = params.starts + (place.start * params.heads + h) * p4 * 4u * n4;
    for (var j = 0u; j < NT; j++) { // unroll
        let column = j * QUADS + quad;
        for (var i = 0u; i < RUN; i++) { // unroll
            let p = lane / QUADS + i * STEP;
            let from_state = near(p, params.p) * n4 + near(column, n4);
            let live = column < n4 && p < params.p;
            loaded.states[j * RUN + i] = inside(states[state_at + from_state], live);
            if CARRY == 1u { loaded.starts[j * RUN + i] = inside(states[start_at + from_state], live); }
        }
    }
    for (var i = 0u; i < RUN; i++) { // unroll
        let t = lane / QUADS + i * STEP;
        let line = ((place.token0 + near(t, place.last + 1u)) * params.heads + h) * p4 + near(quad, p4);
        loaded.x[i] = inside(x[line], t <= place.last && quad < p4);
    }
    let logs_at = (place.logs + h) * 2u * QUADS;
    loaded.table = logs[logs_at + lane % (2u * QUADS)];
    loaded.own = logs[logs_at + lane / LANES / 4u][lane / LANES % 4u];
    if CARRY == 1u { loaded.decay = carried[place.chunk * params.heads + h]; }
    if params.has_d != 0u { loaded.d = d[h]; }
    return loaded;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if index >= params.groups { return; }                             // uniform
    let parts = params.heads / params.each;
    let chunk = index / parts;                                        // of this launch
    let span_at = params.first + chunk / params.chunks;
    let batch = span_at / params.spans;
    let in_batch = span_at % params.spans * params.chunks + chunk % params.chunks;
    let first = in_batch * T;
    if first >= params.tokens { return; }                             // uniform
    let p4 = p_quads();
    let n4 = n_quads();
    let shares = params.heads / params.share;
    let token0 = batch * params.tokens + first;
    let last = params.tokens - 1u - first;
    let logs_at = (batch * ((params.tokens + T - 1u) / T) + in_batch) * params.heads;
    let place = Place(chunk, logs_at, token0, last, chunk / params.chunks);
    let h0 = index % parts * params.each;
    let g = h0 / params.share;
    let quad = lane % QUADS;
    let own = lane / LANES;                                              // its row of scores, C and y
    var next = load(place, h0, lane);
    var own_c: array<words, NT * RUN>;
    var sums = Sums();
    for (var j = 0u; j < NT; j++) { // unroll
        var right = array<words, RUN>();
        for (var i = 0u; i < RUN; i++) { // unroll
            let column = j * QUADS + own_quad(i, lane);
            let line = ((token0 + near(own, last + 1u)) * shares + g) * n4;
            own_c[j * RUN + i] = inside(c[line + near(column, n4)], column < n4 && own <= last);
            let t = lane / QUADS + i * STEP;
            let b_column = j * QUADS + quad;
            let b_line = ((token0 + near(t, last + 1u)) * shares + g) * n4;
            right[i] = inside(b[b_line + near(b_column, n4)], b_column < n4 && t <= last);
        }
        workgroupBarrier();                                           // the last tile is read
        for (var i = 0u; i < RUN; i++) { // unroll
            tiles[own * STRIDE + own_quad(i, lane)] = four_of(own_c[j * RUN + i]);
            tiles[TILE + (lane / QUADS + i * STEP) * STRIDE + quad] = four_of(right[i]);
        }
        workgroupBarrier();
        multiply_nt(&sums, lane);
    }
    let from_stage = own_stage(lane);
    var scores: array<vec4f, RUN>;
    for (var j = 0u; j < TURNS; j++) { // unroll
        leave(&sums, j, lane);
        turned();
        for (var i = 0u; i < PER; i++) { scores[j * PER + i] = stage[from_stage + i * LANES]; } // unroll
        turned();
    }
    for (var k = 0u; k < params.each; k++) {
        let h = h0 + k;
        sums = Sums();
        let from_start = exp2(next.own);
        let d_own = next.d;
        let log_own = next.own;
        for (var j = 0u; j < NT; j++) { // unroll
            workgroupBarrier();                                       // the last tiles are read
            if j == 0u && lane < 2u * QUADS { table[lane] = next.table; }
            for (var i = 0u; i < RUN; i++) { // unroll
                tiles[own * STRIDE + own_quad(i, lane)] = four(floats_of(own_c[j * RUN + i]) * from_start);
                let to = TILE + (lane / QUADS + i * STEP) * STRIDE + quad;
                tiles[to] = entering(next.states[j * RUN + i], next.starts[j * RUN + i], next.decay);
            }
            workgroupBarrier();
            multiply_nt(&sums, lane);
        }
        workgroupBarrier();
        for (var i = 0u; i < RUN; i++) { // unroll
            let q = own_quad(i, lane);
            let s = tokens_of(q);
            let l = exp2(min(vec4f(log_own) - table[q], vec4f(0.0)));
            let w = select(vec4f(0.0), scores[i] * l * table[QUADS + q], s <= vec4u(own));
            tiles[own * STRIDE + q] = four(w + select(vec4f(0.0), vec4f(d_own), s == vec4u(own)));
            tiles[TILE + (lane / QUADS + i * STEP) * STRIDE + quad] = four_of(next.x[i]);
        }
        // While this head is multiplied the next one is on its way.
        if k + 1u < params.each { next = load(place, h + 1u, lane); }
        workgroupBarrier();
        multiply_nn(&sums, triangle(lane), lane);
        let line = ((token0 + own) * params.heads + h) * p4;
        for (var j = 0u; j < TURNS; j++) { // unroll
            leave(&sums, j, lane);
            turned();
            for (var i = 0u; i < PER; i++) { // unroll
                let to = own_quad(j * PER + i, lane);
                if within(own, last + 1u) && within(to, p4) { y[line + to] = words_of(stage[from_stage + i * LANES]); }
            }
            if j + 1u < TURNS { turned(); }
        }
    }
}
