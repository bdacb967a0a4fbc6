// uses: lib/grid.wgsl, lib/ssd_chunk.wgsl
// Gradients of a chunk's B and C over the heads of a group, T state dims, in ascending order: with M = L ∘ dy·xᵀ ∘ dt,
// H the state that enters the chunk and G the gradient of the one that leaves it,
//   dC = Σ M · B + (from_start ∘ dy) · H,   dB = Σ Mᵀ · C + (to_end ∘ dt ∘ x) · G.
struct Params {
    tokens: u32, heads: u32, p: u32, n: u32, share: u32, c_start: u32, spans: u32, chunks: u32, n_tiles: u32,
    first: u32, groups: u32, later: u32, starts: u32,
}

const TILES: u32 = 3u;
const STAGE: u32 = T;

@group(0) @binding(0) var<uniform> params: Params;                    // chunks: a span; c_start, later, starts: in fours
@group(0) @binding(1) var<storage, read> x: array<words>;             // (batches, tokens, heads, P)
@group(0) @binding(2) var<storage, read> dy: array<words>;            // (batches, tokens, heads, P)
@group(0) @binding(3) var<storage, read> bc: array<words>;            // B, then C: (2, batches, tokens, groups, N)
@group(0) @binding(4) var<storage, read> steps: array<vec2f>;         // (batches, tokens, heads): dt, decay
@group(0) @binding(5) var<storage, read> states: array<words>;        // H, then G / SCALE:
                                                                      // (2, spans of this launch, chunks, heads, P, N),
                                                                      // G that enters spans: (spans, heads, P, N)
@group(0) @binding(6) var<storage, read> carried: array<f32>;         // (spans of this launch, chunks, heads)
@group(0) @binding(7) var<storage, read_write> db: array<words>;      // (batches, tokens, groups, N)
@group(0) @binding(8) var<storage, read_write> dc: array<words>;      // (batches, tokens, groups, N)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if index >= params.groups { return; }                             // uniform
    let shares = params.heads / params.share;
    let g = index / params.n_tiles % shares;
    let chunk = index / params.n_tiles / shares;                      // of this launch
    let span_at = params.first + chunk / params.chunks;
    let batch = span_at / params.spans;
    let first = (span_at % params.spans * params.chunks + chunk % params.chunks) * T;
    if first >= params.tokens { return; }                             // uniform
    let quad = lane % QUADS;
    let run = lane / QUADS;
    let column = index % params.n_tiles * QUADS + quad;
    let p4 = params.p / 4u;
    let n4 = params.n / 4u;
    let token0 = batch * params.tokens + first;
    let last = params.tokens - 1u - first;
    let in_quad = min(quad, p4 - 1u);
    let state_quad = min(column, n4 - 1u);
    var b_sums: Sums;
    var c_sums: Sums;
    var left: array<words, RUN>;
    var right: array<words, RUN>;
    var state: array<words, RUN>;
    var gradient: array<words, RUN>;
    var start: array<words, RUN>;
    var inputs: array<four, RUN>;
    for (var k = 0u; k < params.share; k++) {
        let h = g * params.share + k;
        let state_at = (chunk * params.heads + h) * params.p * n4;
        let start_at = params.starts + (chunk / params.chunks * params.heads + h) * params.p * n4;
        var decay = 0.0;
        if CARRY == 1u { decay = carried[chunk * params.heads + h]; }
        // All loads before the first store.
        for (var i = 0u; i < RUN; i++) { // unroll
            let t = run * RUN + i;
            let line = ((token0 + min(t, last)) * params.heads + h) * p4 + in_quad;
            let from_state = min(t, params.p - 1u) * n4 + state_quad;
            left[i] = inside(dy[line], t <= last && quad < p4);
            right[i] = inside(x[line], t <= last && quad < p4);
            state[i] = inside(states[state_at + from_state], column < n4 && t < params.p);
            gradient[i] = inside(states[params.later + state_at + from_state], column < n4 && t < params.p);
            if CARRY == 1u { start[i] = inside(states[start_at + from_state], column < n4 && t < params.p); }
        }
        workgroupBarrier();                                           // the last head's tiles and decays are read
        put_step(step_of(batch, first, h, lane), lane);
        for (var i = 0u; i < RUN; i++) { // unroll
            let at = (run * RUN + i) * STRIDE + quad;
            tiles[at] = four_of(left[i]);
            tiles[TILE + at] = four_of(right[i]);
        }
        workgroupBarrier();
        all_decays(lane);
        var products = Sums();
        multiply_nt(&products, 0u, TILE, lane);
        leave(&products, lane);
        workgroupBarrier();
        var l = first_decays(run, quad);
        for (var i = 0u; i < RUN; i++) { // unroll
            let t = run * RUN + i;
            let at = t * STRIDE + quad;
            if i > 0u { l = next_decays(l, t, quad); }
            tiles[2u * TILE + at] = four(stage[t * ROW + quad] * l * dts_of(quad));
            tiles[at] = four(vec4f(tiles[at]) * from_start[t]);
            inputs[i] = four(vec4f(tiles[TILE + at]) * (dts[t] * to_end[t] * SCALE));
            tiles[TILE + at] = four_of(state[i]);
        }
        workgroupBarrier();
        multiply_nn(&c_sums, 0u, TILE, lane);
        workgroupBarrier();
        for (var i = 0u; i < RUN; i++) { // unroll
            let t = run * RUN + i;
            let at = t * STRIDE + quad;
            tiles[at] = inputs[i];
            tiles[TILE + at] = entering(gradient[i], start[i], decay);
        }
        for (var i = 0u; i < RUN; i++) { // unroll
            let t = run * RUN + i;
            let line = ((token0 + min(t, last)) * shares + g) * n4 + state_quad;
            left[i] = inside(bc[line], t <= last && column < n4);
            right[i] = inside(bc[params.c_start + line], t <= last && column < n4);
        }
        workgroupBarrier();
        multiply_nn(&b_sums, 0u, TILE, lane);
        workgroupBarrier();
        for (var i = 0u; i < RUN; i++) { // unroll
            let at = (run * RUN + i) * STRIDE + quad;
            tiles[at] = four_of(left[i]);
            tiles[TILE + at] = four_of(right[i]);
        }
        workgroupBarrier();
        multiply_nn(&c_sums, 2u * TILE, 0u, lane);
        multiply_tn(&b_sums, 2u * TILE, TILE, lane);
    }
    leave(&c_sums, lane);
    workgroupBarrier();
    for (var i = 0u; i < RUN; i++) { // unroll
        let t = run * RUN + i;
        if first + t < params.tokens && column < n4 {
            dc[((token0 + t) * shares + g) * n4 + column] = words_of(stage[t * ROW + quad]);
        }
    }
    workgroupBarrier();
    leave(&b_sums, lane);
    workgroupBarrier();
    for (var i = 0u; i < RUN; i++) { // unroll
        let t = run * RUN + i;
        if first + t < params.tokens && column < n4 {
            db[((token0 + t) * shares + g) * n4 + column] = words_of(stage[t * ROW + quad]);
        }
    }
}
