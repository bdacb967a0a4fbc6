// uses: lib/grid.wgsl, lib/four.wgsl
// variants: D=64 | D=16 | D=80 | D=128
// window_attention.wgsl on cooperative matrices: a workgroup of four subgroups takes 128 queries, a subgroup 32 of them
// and a lane one. Scores leave the matrices through workgroup memory, probabilities go back as f16. Sums cannot be
// scaled by row inside the matrices: they go through workgroup memory too, but only where a row's largest score has
// grown by GROWTH since they last did; until then its probabilities stay within f16. Exponents are of 2.
const D: u32 = 32u;                                                   // head dim, a multiple of 16
const KT: u32 = 32u;                                                  // keys staged at a time
const WG: u32 = 128u;
const D4: u32 = D / 4u;
const D8: u32 = D / 8u;
const DT: u32 = D / 16u;
const PARTS: u32 = (KT * D8 + WG - 1u) / WG;                          // eights a lane stages
const STRIDE: u32 = D4 + 2u;                                          // of a key, in vectors; strides leave banks apart
const ROW: u32 = KT + 4u;                                             // of a query's scores
const P_ROW: u32 = KT / 4u + 2u;                                      // of its probabilities, in vectors
const GROWTH: f32 = 8.0;
const LOG2_E: f32 = 1.44269504;
const NONE: f32 = -3.0e38;
const LEAST: f32 = -1.0e38;                                           // above NONE, so that exp2(NONE − LEAST) is 0
struct Params {
    tokens: u32, before: u32, query_heads: u32, heads: u32, tiles: u32, window: u32, scale: f32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // tiles = ⌈queries / 128⌉, window ≤ tokens
@group(0) @binding(1) var<storage, read> q: array<vec4<f16>>;         // (batches, queries, query heads, d)
@group(0) @binding(2) var<storage, read> k: array<vec4u>;             // (batches, tokens, heads, d)
@group(0) @binding(3) var<storage, read> v: array<vec4u>;             // (batches, tokens, heads, d)
@group(0) @binding(4) var<storage, read_write> o: array<vec4<f16>>;   // (batches, queries, query heads, d)
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;       // (batches, query heads, queries)

var<workgroup> keys: array<vec4<f16>, KT * STRIDE>;
var<workgroup> values: array<vec4<f16>, KT * STRIDE>;
var<workgroup> scores: array<f32, WG * ROW>;                          // (query, key); or 16 dims of a query's sums
var<workgroup> p: array<vec4<f16>, WG * P_ROW>;                       // (query, key); or 16 dims of a query
var<workgroup> grown: array<u32, 4>;                                  // by subgroup

// Eight elements are read at a time, as words: 16-bit vectors would come in pieces.
// Where the i-th eight of the keys from j0 on lies; beyond the last token, and beyond the tile, at its end.
fn place_of(i: u32, j0: u32, b: u32, h: u32) -> u32 {
    let j = min(j0 + i / D8, params.tokens - 1u);
    return ((b * params.tokens + j) * params.heads + h) * D8 + i % D8;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let place = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if place >= params.groups { return; }                             // uniform
    // The last tiles see the most keys: they begin first.
    let sequences = params.groups / params.tiles;
    let t0 = (params.tiles - 1u - place / sequences) * WG;
    let head = place % sequences % params.query_heads;
    let b = place % sequences / params.query_heads;
    let h = head / (params.query_heads / params.heads);
    // A subgroup's rows are those of two matrices, a lane's row is its own alone.
    let row = subgroup * 32u + lane;
    let queries = params.tokens - params.before;
    let first = params.before + t0;                                   // the tile's first token
    let t = first + row;
    let p_low = subgroup * 32u * P_ROW;
    let p_high = p_low + 16u * P_ROW;
    let s_low = subgroup * 32u * ROW;
    let s_high = s_low + 16u * ROW;
    // Rows beyond the last token repeat it, and are not stored.
    let own = ((b * queries + min(t0 + row, queries - 1u)) * params.query_heads + head) * D4;
    var q_low: array<coop_mat16x16<f16, A>, DT>;
    var q_high: array<coop_mat16x16<f16, A>, DT>;
    for (var c = 0u; c < DT; c++) { // unroll
        workgroupBarrier();
        for (var i = 0u; i < 4u; i++) { p[row * P_ROW + i] = q[own + 4u * c + i]; }
        workgroupBarrier();
        q_low[c] = coopLoadT<coop_mat16x16<f16, A>>(&p[p_low], P_ROW);
        q_high[c] = coopLoadT<coop_mat16x16<f16, A>>(&p[p_high], P_ROW);
    }
    var o_low: array<coop_mat16x16<f32, C>, DT>;
    var o_high: array<coop_mat16x16<f32, C>, DT>;
    let scale = params.scale * LOG2_E;
    var top = LEAST;
    var total = 0.0;
    let end = min(first + WG, params.tokens);
    let start = (max(first + 1u, params.window) - params.window) / KT * KT;
    // Tiles are fetched while the one before is in use.
    var next_k: array<vec4u, PARTS>;
    var next_v: array<vec4u, PARTS>;
    for (var i = 0u; i < PARTS; i++) { // unroll
        let at = place_of(index + i * WG, start, b, h);
        next_k[i] = k[at];
        next_v[i] = v[at];
    }
    for (var j0 = start; j0 < end; j0 += KT) {
        workgroupBarrier();
        for (var i = 0u; i < PARTS; i++) { // unroll
            let part = index + i * WG;
            if part < KT * D8 {
                let to = part / D8 * STRIDE + part % D8 * 2u;
                keys[to] = four(next_k[i].xy);
                keys[to + 1u] = four(next_k[i].zw);
                values[to] = four(next_v[i].xy);
                values[to + 1u] = four(next_v[i].zw);
            }
        }
        workgroupBarrier();
        for (var i = 0u; i < PARTS; i++) { // unroll
            let at = place_of(index + i * WG, j0 + KT, b, h);
            next_k[i] = k[at];
            next_v[i] = v[at];
        }
        for (var n = 0u; n < KT; n += 16u) { // unroll
            var s0: coop_mat16x16<f32, C>;
            var s1: coop_mat16x16<f32, C>;
            for (var c = 0u; c < DT; c++) { // unroll
                let at = n * STRIDE + 4u * c;
                let right = coopLoad<coop_mat16x16<f16, B>>(&keys[at], STRIDE);
                s0 = coopMultiplyAdd(q_low[c], right, s0);
                s1 = coopMultiplyAdd(q_high[c], right, s1);
            }
            let to0 = s_low + n;
            let to1 = s_high + n;
            coopStoreT(s0, &scores[to0], ROW);
            coopStoreT(s1, &scores[to1], ROW);
        }
        workgroupBarrier();
        // Whether some query of the tile does not see some key.
        let edge = j0 + KT > first + 1u || first + WG > j0 + params.window;
        var s: array<vec4f, KT / 4u>;
        var most = vec4f(LEAST);
        for (var i = 0u; i < KT / 4u; i++) { // unroll
            let at = row * ROW + 4u * i;
            s[i] = vec4f(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]) * scale;
            if edge {
                let j = j0 + 4u * i + vec4u(0u, 1u, 2u, 3u);
                s[i] = select(vec4f(NONE), s[i], (j <= vec4u(t)) & (vec4u(t) < j + params.window));
            }
            most = max(most, s[i]);
        }
        let high = max(max(most.x, most.y), max(most.z, most.w));
        let grows = high > top + GROWTH;
        let some = subgroupAny(grows);
        if lane == 0u { grown[subgroup] = u32(some); }
        let votes = workgroupUniformLoad(&grown);
        if (votes[0] | votes[1] | votes[2] | votes[3]) != 0u {
            // A row that has not grown keeps its bits: it is multiplied by 1.
            let factor = select(1.0, exp2(top - high), grows);
            top = select(top, high, grows);
            total *= factor;
            for (var c = 0u; c < DT; c++) { // unroll
                let low = o_low[c];
                let upper = o_high[c];
                coopStoreT(low, &scores[s_low], ROW);
                coopStoreT(upper, &scores[s_high], ROW);
                workgroupBarrier();
                for (var i = 0u; i < 16u; i++) { scores[row * ROW + i] *= factor; }
                workgroupBarrier();
                o_low[c] = coopLoadT<coop_mat16x16<f32, C>>(&scores[s_low], ROW);
                o_high[c] = coopLoadT<coop_mat16x16<f32, C>>(&scores[s_high], ROW);
                workgroupBarrier();
            }
        }
        var part = vec4f(0.0);
        for (var i = 0u; i < KT / 4u; i++) { // unroll
            let e = exp2(s[i] - top);
            part += e;
            p[row * P_ROW + i] = vec4<f16>(e);
        }
        total += (part.x + part.y) + (part.z + part.w);
        workgroupBarrier();
        for (var n = 0u; n < KT; n += 16u) { // unroll
            let at0 = p_low + n / 4u;
            let at1 = p_high + n / 4u;
            let left0 = coopLoadT<coop_mat16x16<f16, A>>(&p[at0], P_ROW);
            let left1 = coopLoadT<coop_mat16x16<f16, A>>(&p[at1], P_ROW);
            for (var c = 0u; c < DT; c++) { // unroll
                let at = n * STRIDE + 4u * c;
                let right = coopLoadT<coop_mat16x16<f16, B>>(&values[at], STRIDE);
                o_low[c] = coopMultiplyAdd(left0, right, o_low[c]);
                o_high[c] = coopMultiplyAdd(left1, right, o_high[c]);
            }
        }
    }
    // A row's largest term is at least 1; rows beyond the last may have none.
    let factor = 1.0 / max(total, 1.0);
    for (var c = 0u; c < DT; c++) { // unroll
        let low = o_low[c];
        let upper = o_high[c];
        workgroupBarrier();
        coopStoreT(low, &scores[s_low], ROW);
        coopStoreT(upper, &scores[s_high], ROW);
        workgroupBarrier();
        if t < params.tokens {
            for (var i = 0u; i < 4u; i++) {
                let at = row * ROW + 4u * i;
                let y = vec4f(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
                o[own + 4u * c + i] = vec4<f16>(y * factor);
            }
        }
    }
    if t < params.tokens {
        lse[(b * params.query_heads + head) * queries + t0 + row] = (top + log2(total)) / LOG2_E;
    }
}
