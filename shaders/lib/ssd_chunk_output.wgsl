// uses: lib/grid.wgsl, lib/ssd_chunk.wgsl
// y[t] = Σ over s ≤ t of L[t, s] · dt[s] · (C[t] · B[s]) · x[s], + decay from the chunk's start · state · C[t], + D ·
// x[t]: one workgroup a chunk and `each` heads of a group, which share C · B.
struct Params {
    tokens: u32, heads: u32, p: u32, n: u32, share: u32, spans: u32, chunks: u32, first: u32, groups: u32, has_d: u32,
    each: u32, starts: u32,
}

const TILES: u32 = 3u;
const STAGE: u32 = T;

@group(0) @binding(0) var<uniform> params: Params;                    // chunks: a span; starts: in fours
@group(0) @binding(1) var<storage, read> x: array<words>;             // (batches, tokens, heads, P)
@group(0) @binding(2) var<storage, read> b: array<words>;             // (batches, tokens, groups, N)
@group(0) @binding(3) var<storage, read> c: array<words>;             // (batches, tokens, groups, N)
@group(0) @binding(4) var<storage, read> steps: array<vec2f>;         // (batches, tokens, heads): dt, decay
@group(0) @binding(5) var<storage, read> states: array<words>;        // (spans of this launch, chunks, heads, P, N),
                                                                      // what enters spans: (spans, heads, P, N)
@group(0) @binding(6) var<storage, read> d: array<f32>;               // (heads)
@group(0) @binding(7) var<storage, read> carried: array<f32>;         // (spans of this launch, chunks, heads)
@group(0) @binding(8) var<storage, read_write> y: array<words>;       // (batches, tokens, heads, P)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if index >= params.groups { return; }                             // uniform
    let parts = params.heads / params.each;
    let chunk = index / parts;                                        // of this launch
    let span_at = params.first + chunk / params.chunks;
    let batch = span_at / params.spans;
    let first = (span_at % params.spans * params.chunks + chunk % params.chunks) * T;
    if first >= params.tokens { return; }                             // uniform
    let quad = lane % QUADS;
    let run = lane / QUADS;
    let p4 = params.p / 4u;
    let n4 = params.n / 4u;
    let token0 = batch * params.tokens + first;
    let last = params.tokens - 1u - first;
    let in_quad = min(quad, p4 - 1u);
    let g = index % parts * params.each / params.share;
    var scores: Sums;
    var left: array<words, RUN>;
    var right: array<words, RUN>;
    var state: array<words, RUN>;
    var start: array<words, RUN>;
    var inputs: array<words, RUN>;
    var out: array<vec4f, RUN>;
    for (var k = 0u; k < params.each; k++) {
        let h = index % parts * params.each + k;
        let state_at = (chunk * params.heads + h) * params.p * n4;
        let start_at = params.starts + (chunk / params.chunks * params.heads + h) * params.p * n4;
        var decay = 0.0;
        if CARRY == 1u { decay = carried[chunk * params.heads + h]; }
        workgroupBarrier();                                           // the last head's decays are read
        put_step(step_of(batch, first, h, lane), lane);
        workgroupBarrier();
        all_decays(lane);
        var carried = Sums();
        for (var n0 = 0u; n0 < n4; n0 += QUADS) {
            let column = n0 + quad;
            // All loads before the first store.
            let state_quad = min(column, n4 - 1u);
            for (var i = 0u; i < RUN; i++) { // unroll
                let t = run * RUN + i;
                let line = ((token0 + min(t, last)) * (params.heads / params.share) + g) * n4 + state_quad;
                left[i] = inside(c[line], column < n4 && t <= last);
                if k == 0u { right[i] = inside(b[line], column < n4 && t <= last); }
                let from_state = min(t, params.p - 1u) * n4 + state_quad;
                state[i] = inside(states[state_at + from_state], column < n4 && t < params.p);
                if CARRY == 1u { start[i] = inside(states[start_at + from_state], column < n4 && t < params.p); }
            }
            workgroupBarrier();
            for (var i = 0u; i < RUN; i++) { // unroll
                let at = (run * RUN + i) * STRIDE + quad;
                tiles[at] = four_of(left[i]);
                if k == 0u { tiles[TILE + at] = four_of(right[i]); }
                tiles[2u * TILE + at] = entering(state[i], start[i], decay);
            }
            workgroupBarrier();
            if k == 0u { multiply_nt(&scores, 0u, TILE, lane); }
            multiply_nt(&carried, 0u, 2u * TILE, lane);
        }
        leave(&scores, lane);
        for (var i = 0u; i < RUN; i++) { // unroll
            let t = run * RUN + i;
            let line = ((token0 + min(t, last)) * params.heads + h) * p4 + in_quad;
            inputs[i] = inside(x[line], t <= last && quad < p4);
        }
        workgroupBarrier();
        var l = first_decays(run, quad);
        for (var i = 0u; i < RUN; i++) { // unroll
            let t = run * RUN + i;
            if i > 0u { l = next_decays(l, t, quad); }
            tiles[t * STRIDE + quad] = four(stage[t * ROW + quad] * l * dts_of(quad));
            tiles[TILE + t * STRIDE + quad] = four_of(inputs[i]);
        }
        workgroupBarrier();
        leave(&carried, lane);
        workgroupBarrier();
        for (var i = 0u; i < RUN; i++) { // unroll
            let t = run * RUN + i;
            out[i] = stage[t * ROW + quad] * from_start[t];
            if params.has_d != 0u { out[i] = fma(vec4f(d[h]), vec4f(tiles[TILE + t * STRIDE + quad]), out[i]); }
        }
        var sums = Sums();
        multiply_nn(&sums, 0u, TILE, lane);
        workgroupBarrier();
        leave(&sums, lane);
        workgroupBarrier();
        for (var i = 0u; i < RUN; i++) { // unroll
            let t = run * RUN + i;
            if first + t < params.tokens && quad < p4 {
                y[((token0 + t) * params.heads + h) * p4 + quad] = words_of(out[i] + stage[t * ROW + quad]);
            }
        }
    }
}
