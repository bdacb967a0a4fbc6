// uses: lib/grid.wgsl, lib/ssd_chunk.wgsl
// Gradients of a chunk's x, dt and decays, one workgroup a (chunk, head). With S = C·Bᵀ, Z = dy·xᵀ, H the state that
// enters the chunk, G the gradient of the one that leaves it, and F = L ∘ S ∘ Z:
//   r[s]  = Σ over t ≥ s of L[t, s] · S[t, s] · dy[t] + to_end[s] · G · B[s],      dx = dt · r + D · dy
//   da[t] = Σ over t' ≥ t > s of F[t', s] · dt[s] + Σ over t' ≥ t of from_start[t'] · dy[t'] · H · C[t']
//         + Σ over s < t of dt[s] · to_end[s] · x[s] · G · B[s] + total · ⟨G, H⟩
// the gradient of decay t's logarithm, a sum over the decays that hold it: nothing is a difference of sums. And
// ddt = x · r + A · da.
struct Params {
    tokens: u32, heads: u32, p: u32, n: u32, share: u32, c_start: u32, spans: u32, chunks: u32, first: u32, groups: u32,
    later: u32, starts: u32, has_d: u32,
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
@group(0) @binding(6) var<storage, read> packed: array<f32>;          // a_log, d: (2, heads); decays from spans'
                                                                      // ends: (spans of this launch, chunks, heads)
@group(0) @binding(7) var<storage, read_write> dx: array<words>;      // (batches, tokens, heads, P)
@group(0) @binding(8) var<storage, read_write> side: array<vec4f>;    // (batches, tokens, heads): ddt, dA_log, x · dy

var<workgroup> rows: array<f32, T>;                                   // from_start · dy · H · C
var<workgroup> columns: array<f32, T>;                                // to_end · x · G · B

// The sum over the workgroup, by way of the stage, given to every invocation. Contains barriers.
fn sum_over(value: f32, lane: u32) -> f32 {
    stage[lane] = vec4f(value);
    workgroupBarrier();
    if lane < 16u {
        var sum = value;
        for (var k = lane + 16u; k < WG; k += 16u) { sum += stage[k].x; }
        stage[lane] = vec4f(sum);
    }
    workgroupBarrier();
    var total = 0.0;
    for (var k = 0u; k < 16u; k++) { total += stage[k].x; }
    workgroupBarrier();
    return total;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if index >= params.groups { return; }                             // uniform
    let h = index % params.heads;
    let span_at = params.first + index / params.heads / params.chunks;
    let batch = span_at / params.spans;
    let first = (span_at % params.spans * params.chunks + index / params.heads % params.chunks) * T;
    if first >= params.tokens { return; }                             // uniform
    let quad = lane % QUADS;
    let run = lane / QUADS;
    let p4 = params.p / 4u;
    let n4 = params.n / 4u;
    let token0 = batch * params.tokens + first;
    let last = params.tokens - 1u - first;
    let in_quad = min(quad, p4 - 1u);
    let start_at = params.starts + (index / params.heads / params.chunks * params.heads + h) * params.p * n4;
    var decay = 0.0;
    if CARRY == 1u { decay = packed[2u * params.heads + index]; }
    put_step(step_of(batch, first, h, lane), lane);
    workgroupBarrier();
    all_decays(lane);
    var scores: Sums;
    var later: Sums;
    var earlier: Sums;
    var part = 0.0;
    for (var n0 = 0u; n0 < n4; n0 += QUADS) {
        let column = n0 + quad;
        // All loads before the first store.
        var left = array<words, RUN>();
        var right = array<words, RUN>();
        var state = array<words, RUN>();
        var gradient = array<words, RUN>();
        var start = array<words, RUN>();
        let state_quad = min(column, n4 - 1u);
        for (var i = 0u; i < RUN; i++) { // unroll
            let t = run * RUN + i;
            let at = token0 + min(t, last);
            let line = (at * (params.heads / params.share) + h / params.share) * n4 + state_quad;
            let from_state = min(t, params.p - 1u) * n4 + state_quad;
            let state_at = index * params.p * n4 + from_state;
            left[i] = inside(bc[params.c_start + line], column < n4 && t <= last);
            right[i] = inside(bc[line], column < n4 && t <= last);
            state[i] = inside(states[state_at], column < n4 && t < params.p);
            gradient[i] = inside(states[params.later + state_at], column < n4 && t < params.p);
            if CARRY == 1u { start[i] = inside(states[start_at + from_state], column < n4 && t < params.p); }
        }
        workgroupBarrier();
        for (var i = 0u; i < RUN; i++) { // unroll
            let at = (run * RUN + i) * STRIDE + quad;
            tiles[at] = four_of(left[i]);
            tiles[TILE + at] = four_of(right[i]);
            let g = entering(gradient[i], start[i], decay);
            tiles[2u * TILE + at] = g;
            part += dot(vec4f(four_of(state[i])), vec4f(g));
        }
        workgroupBarrier();
        multiply_nt(&scores, 0u, TILE, lane);
        multiply_nt(&later, TILE, 2u * TILE, lane);
        workgroupBarrier();
        for (var i = 0u; i < RUN; i++) { // unroll
            tiles[2u * TILE + (run * RUN + i) * STRIDE + quad] = four_of(state[i]);
        }
        workgroupBarrier();
        multiply_nt(&earlier, 0u, 2u * TILE, lane);
    }
    var gains: array<words, RUN>;
    var inputs: array<words, RUN>;
    for (var i = 0u; i < RUN; i++) { // unroll
        let t = run * RUN + i;
        let line = ((token0 + min(t, last)) * params.heads + h) * p4 + in_quad;
        gains[i] = inside(dy[line], t <= last && quad < p4);
        inputs[i] = inside(x[line], t <= last && quad < p4);
    }
    let across = sum_over(part, lane) * from_start[T - 1u] * SCALE;
    leave(&earlier, lane);
    for (var i = 0u; i < RUN; i++) { // unroll
        let at = (run * RUN + i) * STRIDE + quad;
        tiles[at] = four_of(gains[i]);
        tiles[TILE + at] = four_of(inputs[i]);
    }
    workgroupBarrier();
    var through = 0.0;
    if lane < T {
        var sum = 0.0;
        for (var q = 0u; q < QUADS; q++) {
            let v = vec4f(tiles[lane * STRIDE + q]);
            sum += dot(v, stage[lane * ROW + q]);
            through += dot(v, vec4f(tiles[TILE + lane * STRIDE + q]));
        }
        rows[lane] = sum * from_start[lane];
    }
    workgroupBarrier();
    leave(&later, lane);
    workgroupBarrier();
    if lane < T {
        var sum = 0.0;
        for (var q = 0u; q < QUADS; q++) {
            sum += dot(vec4f(tiles[TILE + lane * STRIDE + q]), stage[lane * ROW + q]);
        }
        columns[lane] = sum * to_end[lane] * SCALE;
    }
    var r: array<vec4f, RUN>;
    for (var i = 0u; i < RUN; i++) { // unroll
        let t = run * RUN + i;
        r[i] = stage[t * ROW + quad] * (to_end[t] * SCALE);
    }
    workgroupBarrier();
    leave(&scores, lane);
    workgroupBarrier();
    var weights: array<vec4f, RUN>;
    var l = first_decays(run, quad);
    for (var i = 0u; i < RUN; i++) { // unroll
        let t = run * RUN + i;
        if i > 0u { l = next_decays(l, t, quad); }
        weights[i] = stage[t * ROW + quad] * l;
        tiles[2u * TILE + t * STRIDE + quad] = four(weights[i]);
    }
    var products: Sums;
    multiply_nt(&products, 0u, TILE, lane);
    workgroupBarrier();
    leave(&products, lane);
    workgroupBarrier();
    for (var i = 0u; i < RUN; i++) { stage[(run * RUN + i) * ROW + quad] *= weights[i]; } // unroll
    workgroupBarrier();
    var direct = 0.0;
    if lane < T {
        for (var t = 0u; t < T; t++) { direct += stage[t * ROW + lane / 4u][lane % 4u]; }
        direct += columns[lane];
    }
    workgroupBarrier();
    // Row by row Σ over s < t of F · dt, then Σ over rows from t on.
    if lane < T {
        var sum = 0.0;
        for (var q = 0u; q < QUADS; q++) {
            let at = lane * ROW + q;
            let v = stage[at] * dts_of(q);
            let next = sum + v.x;
            stage[at] = vec4f(sum, next, next + v.y, next + v.y + v.z);
            sum = next + v.y + v.z + v.w;
        }
    }
    workgroupBarrier();
    if lane < T && first + lane < params.tokens {
        var da = across;
        // All of them, whatever is added: then reads do not wait for each other.
        for (var t = 0u; t < T; t++) {
            let ahead = stage[t * ROW + lane / 4u][lane % 4u] + rows[t];
            da += select(ahead, dts[t] * columns[t], t < lane);
        }
        let a_da = -exp(packed[h]) * da;
        side[(token0 + lane) * params.heads + h] = vec4f(direct + a_da, dts[lane] * a_da, through, 0.0);
    }
    var sums: Sums;
    multiply_tn(&sums, 2u * TILE, 0u, lane);
    workgroupBarrier();
    leave(&sums, lane);
    workgroupBarrier();
    for (var i = 0u; i < RUN; i++) { // unroll
        let t = run * RUN + i;
        if first + t < params.tokens && quad < p4 {
            var v = dts[t] * (r[i] + stage[t * ROW + quad]);
            if params.has_d != 0u { v = fma(vec4f(packed[params.heads + h]), vec4f(tiles[t * STRIDE + quad]), v); }
            dx[((token0 + t) * params.heads + h) * p4 + quad] = words_of(v);
        }
    }
}
