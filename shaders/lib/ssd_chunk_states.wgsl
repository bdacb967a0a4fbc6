// uses: lib/grid.wgsl, lib/ssd_chunk.wgsl
// The states that enter the chunks of a span, one head, WIDE tiles of state dims:
//   s ← total · s + Σ weight[t] · in[t] ⊗ wr[t],
// weight being dt · decay to the chunk's end, or in reverse, chunk after chunk descending, decay from its start. And what
// leaves the span, its total decay, and each chunk's decay from the span's start (in reverse, its end).
struct Params {
    tokens: u32, heads: u32, p: u32, n: u32, share: u32, spans: u32, chunks: u32, first: u32,
    groups: u32, has_start: u32, leaves: u32, to: u32,
}

// What a sum is over the state, and what is stored over a sum.
const SUMMED: f32 = select(SCALE, 1.0, REVERSE == 1u);
const STORED: f32 = 1.0 / SCALE;

const SLICES: u32 = NT / WIDE;

@group(0) @binding(0) var<uniform> params: Params;                    // chunks: a span; to: in fours
@group(0) @binding(1) var<storage, read> input: array<words>;         // (batches, tokens, heads, P)
@group(0) @binding(2) var<storage, read> wr: array<words>;            // (batches, tokens, groups, N)
@group(0) @binding(3) var<storage, read> logs: array<f32>;            // (batches, chunks of all spans, heads, 2, T)
@group(0) @binding(4) var<storage, read> start: array<vec4f>;         // (batches, spans, heads, P, N)
@group(0) @binding(5) var<storage, read_write> states: array<words>;  // (spans of this launch, chunks, heads, P, N)
@group(0) @binding(6) var<storage, read_write> ends: array<vec4f>;    // (batches, spans, heads, P, N)
@group(0) @binding(7) var<storage, read_write> totals: array<f32>;    // (batches, spans, heads)
@group(0) @binding(8) var<storage, read_write> carried: array<f32>;   // (spans of this launch, chunks, heads)

var<workgroup> weights: array<f32, T>;

// What one invocation loads of a chunk, and of the steps the first T.
struct Loaded { input: array<words, RUN>, wr: array<words, WIDE * RUN>, log: f32, dt: f32, end: f32 }

fn load(b: u32, chunk: u32, h: u32, column: u32, lane: u32) -> Loaded {
    var loaded: Loaded;
    let p4 = p_quads();
    let n4 = n_quads();
    let quad = lane % QUADS;
    let logs_at = ((b * ((params.tokens + T - 1u) / T) + chunk) * params.heads + h) * 2u * T;
    loaded.log = logs[logs_at + lane % T];
    loaded.dt = logs[logs_at + T + lane % T];
    loaded.end = logs[logs_at + T - 1u];
    for (var i = 0u; i < RUN; i++) { // unroll
        let t = chunk * T + lane / QUADS + i * STEP;
        let at = b * params.tokens + near(t, params.tokens);
        let in_at = (at * params.heads + h) * p4 + near(quad, p4);
        let wr_at = (at * (params.heads / params.share) + h / params.share) * n4;
        loaded.input[i] = inside(input[in_at], t < params.tokens && quad < p4);
        for (var w = 0u; w < WIDE; w++) { // unroll
            let c = column + w * QUADS;
            loaded.wr[w * RUN + i] = inside(wr[wr_at + near(c, n4)], t < params.tokens && c < n4);
        }
    }
    return loaded;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if index >= params.groups { return; }                             // uniform
    let slice = index % SLICES;
    let h = (index / SLICES) % params.heads;
    let local = index / SLICES / params.heads;
    let span_at = params.first + local;                               // over batches
    let b = span_at / params.spans;
    let span = span_at % params.spans;
    let n4 = n_quads();
    let column = slice * WIDE * QUADS + lane % QUADS;                 // of its first load
    let own = lane / LANES;                                           // its row of the state
    let own_column = slice * WIDE * QUADS + own_quad(0u, lane);
    let from_stage = own_stage(lane);
    let state_at = ((span_at * params.heads + h) * p_quads() * 4u + own) * n4 + own_column;
    var sums = Sums();
    if params.has_start != 0u {                                       // uniform
        for (var j = 0u; j < TURNS; j++) { // unroll
            for (var i = 0u; i < PER; i++) { // unroll
                var v = vec4f(0.0);
                let on = (j * PER + i) * LANES;
                if within(own, params.p) && within(own_column + on, n4) { v = start[state_at + on]; }
                stage[from_stage + i * LANES] = v * SUMMED;
            }
            workgroupBarrier();
            take(&sums, j, lane);
            workgroupBarrier();
        }
    }
    var total = 0.0;
    let count = min(params.chunks, (params.tokens + T - 1u) / T - span * params.chunks);
    var next = load(b, span * params.chunks + select(0u, count - 1u, REVERSE == 1u), h, column, lane);
    for (var k = 0u; k < count; k++) {
        let chunk = select(k, count - 1u - k, REVERSE == 1u);
        let place = (local * params.chunks + chunk) * params.heads + h;
        let to = params.to + (place * p_quads() * 4u + own) * n4 + own_column;
        let end = next.end;
        if lane < T {
            weights[lane] = select(exp2(end - next.log) * next.dt * SCALE, exp2(next.log), REVERSE == 1u);
        }
        for (var j = 0u; j < TURNS; j++) { // unroll
            leave(&sums, j, lane);
            workgroupBarrier();                                       // and the last tiles are read
            for (var i = 0u; i < PER; i++) { // unroll
                let on = (j * PER + i) * LANES;
                if within(own, params.p) && within(own_column + on, n4) {
                    states[to + on] = words_of(stage[from_stage + i * LANES] * STORED);
                }
            }
            if j + 1u < TURNS { workgroupBarrier(); }
        }
        for (var i = 0u; i < RUN; i++) { // unroll
            let weight = weights[lane / QUADS + i * STEP];
            let at = tile_at(i, lane);
            tiles[at] = four(floats_of(next.input[i]) * weight);
            for (var w = 0u; w < WIDE; w++) { // unroll
                tiles[(1u + w) * TILE + at] = four_of(next.wr[w * RUN + i]);
            }
        }
        // While this chunk is multiplied the next one is on its way.
        if k + 1u < count {
            let ahead = select(k + 1u, count - 2u - k, REVERSE == 1u);
            next = load(b, span * params.chunks + ahead, h, column, lane);
        }
        workgroupBarrier();
        let chunk_total = exp2(end);
        scale(&sums, chunk_total);
        multiply_tn(&sums, 0u, TILE, lane);
        if params.leaves != 0u && lane == 0u && slice == 0u { carried[place] = exp2(total); }
        total += end;
    }
    if params.leaves == 0u { return; }
    for (var j = 0u; j < TURNS; j++) { // unroll
        workgroupBarrier();
        leave(&sums, j, lane);
        workgroupBarrier();
        for (var i = 0u; i < PER; i++) { // unroll
            let on = (j * PER + i) * LANES;
            if within(own, params.p) && within(own_column + on, n4) {
                ends[state_at + on] = stage[from_stage + i * LANES] / SUMMED;
            }
        }
    }
    if lane == 0u && slice == 0u { totals[span_at * params.heads + h] = exp2(total); }
}
