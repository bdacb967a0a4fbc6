// uses: lib/grid.wgsl, lib/ssd_chunk.wgsl
// The states that enter the chunks of a span, one head, T state dims: s ← total · s + Σ weight[t] · in[t] ⊗ wr[t],
// weight being dt · decay to the chunk's end, or in reverse, chunk after chunk descending, decay from its start. And what
// leaves the span, its total decay, and each chunk's decay from the span's start (in reverse, its end).
struct Params {
    tokens: u32, heads: u32, p: u32, n: u32, share: u32, spans: u32, chunks: u32, n_tiles: u32, first: u32,
    groups: u32, has_start: u32, leaves: u32, to: u32,
}

const TILES: u32 = 2u;
// A product passes in RUN parts, of which each invocation takes a row's quad: two workgroups fit an SM.
const STAGE: u32 = WG / QUADS;

// Factors of states stored and of products.
const STORED: f32 = select(1.0, 1.0 / SCALE, REVERSE == 1u);
const MADE: f32 = select(1.0 / SCALE, 1.0, REVERSE == 1u);

@group(0) @binding(0) var<uniform> params: Params;                    // chunks: a span; to: in fours
@group(0) @binding(1) var<storage, read> input: array<words>;         // (batches, tokens, heads, P)
@group(0) @binding(2) var<storage, read> wr: array<words>;            // (batches, tokens, groups, N)
@group(0) @binding(3) var<storage, read> steps: array<vec2f>;         // (batches, tokens, heads): dt, decay
@group(0) @binding(4) var<storage, read> start: array<vec4f>;         // (batches, spans, heads, P, N)
@group(0) @binding(5) var<storage, read_write> states: array<words>;  // (spans of this launch, chunks, heads, P, N)
@group(0) @binding(6) var<storage, read_write> ends: array<vec4f>;    // (batches, spans, heads, P, N)
@group(0) @binding(7) var<storage, read_write> totals: array<f32>;    // (batches, spans, heads)
@group(0) @binding(8) var<storage, read_write> carried: array<f32>;   // (spans of this launch, chunks, heads)

// Invocations that share a token's decays, at most 8, and decays that each multiplies. Their products, (PARTS, T), lie
// where other kernels keep the decays of rows.
const PARTS: u32 = WG / T;
const PART: u32 = T / PARTS;

// The product of PART decays: of those behind token t to the chunk's end or, in reverse, of those from its start to t.
fn decay_part(t: u32, part: u32) -> f32 {
    var p = 1.0;
    for (var k = part * PART; k < part * PART + PART; k++) {
        p *= select(1.0, decays[k], select(k > t, k <= t, REVERSE == 1u));
    }
    return p;
}

// Π decays t + 1 … T − 1 or, in reverse, 0 … t.
fn decay_of(t: u32) -> f32 {
    var p = begins[t];
    for (var r = 1u; r < PARTS; r++) { p *= begins[r * T + t]; }
    return p;
}

// What one invocation loads of a chunk.
struct Loaded { input: array<words, RUN>, wr: array<words, RUN>, step: vec2f }

fn load(b: u32, first: u32, h: u32, column: u32, lane: u32) -> Loaded {
    var loaded: Loaded;
    let quad = lane % QUADS;
    let p4 = params.p / 4u;
    let n4 = params.n / 4u;
    let in_quad = min(quad, p4 - 1u);
    let wr_quad = min(column, n4 - 1u);
    for (var i = 0u; i < RUN; i++) { // unroll
        let t = first + lane / QUADS * RUN + i;
        let at = b * params.tokens + min(t, params.tokens - 1u);
        let in_at = (at * params.heads + h) * p4 + in_quad;
        let wr_at = (at * (params.heads / params.share) + h / params.share) * n4 + wr_quad;
        loaded.input[i] = inside(input[in_at], t < params.tokens && quad < p4);
        loaded.wr[i] = inside(wr[wr_at], t < params.tokens && column < n4);
    }
    loaded.step = step_of(b, first, h, lane);
    return loaded;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if index >= params.groups { return; }                             // uniform
    let slice = index % params.n_tiles;
    let h = (index / params.n_tiles) % params.heads;
    let local = index / params.n_tiles / params.heads;
    let span_at = params.first + local;                               // over batches
    let b = span_at / params.spans;
    let span = span_at % params.spans;
    let quad = lane % QUADS;
    let row0 = lane / QUADS * RUN;                                    // of operands: tokens
    let n4 = params.n / 4u;
    let column = slice * QUADS + quad;
    let state_at = (span_at * params.heads + h) * params.p * n4 + column;
    var s: array<vec4f, RUN>;
    for (var i = 0u; i < RUN; i++) { // unroll
        s[i] = vec4f(0.0);
        let p = i * STAGE + lane / QUADS;
        if params.has_start != 0u && p < params.p && column < n4 { s[i] = start[state_at + p * n4]; }
    }
    var total = 1.0;
    let count = min(params.chunks, (params.tokens + T - 1u) / T - span * params.chunks);
    var next = load(b, (span * params.chunks + select(0u, count - 1u, REVERSE == 1u)) * T, h, column, lane);
    for (var k = 0u; k < count; k++) {
        let chunk = select(k, count - 1u - k, REVERSE == 1u);
        put_step(next.step, lane);
        for (var i = 0u; i < RUN; i++) { tiles[TILE + (row0 + i) * STRIDE + quad] = four_of(next.wr[i]); } // unroll
        workgroupBarrier();
        begins[lane] = decay_part(lane % T, lane / T);
        workgroupBarrier();
        for (var i = 0u; i < RUN; i++) { // unroll
            let t = row0 + i;
            var weight = decay_of(t);
            if REVERSE == 0u { weight *= dts[t] * SCALE; }
            tiles[t * STRIDE + quad] = four(vec4f(four_of(next.input[i])) * weight);
        }
        var chunk_total = decay_of(select(0u, T - 1u, REVERSE == 1u));
        if REVERSE == 0u { chunk_total *= decays[0]; }
        // While this chunk is multiplied the next one is on its way.
        if k + 1u < count {
            let ahead = select(k + 1u, count - 2u - k, REVERSE == 1u);
            next = load(b, (span * params.chunks + ahead) * T, h, column, lane);
        }
        workgroupBarrier();
        var sums = Sums();
        multiply_tn(&sums, 0u, TILE, lane);
        let place = (local * params.chunks + chunk) * params.heads + h;
        let to = params.to + place * params.p * n4 + column;
        for (var i = 0u; i < RUN; i++) { // unroll
            let p = i * STAGE + lane / QUADS;
            if i > 0u { workgroupBarrier(); }                         // the last part is read
            leave_part(&sums, i, lane);
            workgroupBarrier();
            if p < params.p && column < n4 { states[to + p * n4] = words_of(s[i] * STORED); }
            s[i] = fma(vec4f(chunk_total), s[i], stage[lane / QUADS * ROW + quad] * MADE);
        }
        if params.leaves != 0u && lane == 0u && slice == 0u { carried[place] = total; }
        total *= chunk_total;
    }
    if params.leaves == 0u { return; }
    for (var i = 0u; i < RUN; i++) { // unroll
        let p = i * STAGE + lane / QUADS;
        if p < params.p && column < n4 { ends[state_at + p * n4] = s[i]; }
    }
    if lane == 0u && slice == 0u { totals[span_at * params.heads + h] = total; }
}
