// uses: lib/grid.wgsl, lib/attention_tile.wgsl
// variants: D=32 | D=16 TT=1 | D=128 | TT=8
// attention.wgsl on cooperative matrices: a workgroup takes all queries of a (chunk, query head), a subgroup 16 of them,
// two lanes a query. Queries, keys and values take turns in one tile of workgroup memory; what a lane owns of a query's
// scores it keeps in registers, so that the softmax sees all keys at once and nothing is rescaled.
const D: u32 = 64u;                                                   // head dim, a multiple of 16
const TT: u32 = 5u;                                                   // ⌈tokens / 16⌉
const WG: u32 = 32u * TT;
const P_ROW: u32 = 6u;                                                // of 16 probabilities, in vectors
const NONE: f32 = -3.0e38;
@group(0) @binding(1) var<storage, read> q: array<vec4u>;             // (chunks, tokens, heads, d)
@group(0) @binding(2) var<storage, read> k: array<vec4u>;             // (chunks, tokens, kv_heads, d)
@group(0) @binding(3) var<storage, read> v: array<vec4u>;             // (chunks, tokens, kv_heads, d)
@group(0) @binding(4) var<storage, read_write> o: array<vec4u>;       // (chunks, tokens, heads, d)
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;       // (chunks, heads, tokens), chunks stride apart

var<workgroup> scores: array<vec4f, 16u * TT * ROW>;                  // (query, 16 keys); or 16 dims of a query's sums
var<workgroup> p: array<vec4<f16>, 16u * TT * P_ROW>;                 // (query, 16 keys)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let place = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if place >= params.chunks * params.heads { return; }              // uniform
    let chunk = place / params.heads;
    let head = place % params.heads;
    let kv = head / (params.heads / params.kv_heads);
    let row = subgroup * 16u + lane / 2u;
    let side = lane % 2u;
    let p_at = subgroup * 16u * P_ROW;
    let s_at = subgroup * 16u * ROW;
    var next_q: array<vec4u, PARTS>;
    var next_k: array<vec4u, PARTS>;
    var next_v: array<vec4u, PARTS>;
    for (var i = 0u; i < PARTS; i++) { // unroll
        let part = index + i * WG;
        let at = place_of(part, chunk, params.kv_heads, kv);
        next_q[i] = q[place_of(part, chunk, params.heads, head)];
        next_k[i] = k[at];
        next_v[i] = v[at];
    }
    for (var i = 0u; i < PARTS; i++) { // unroll
        stage(index + i * WG, next_q[i]);
    }
    workgroupBarrier();
    var queries: array<coop_mat16x16<f16, A>, DT>;
    for (var c = 0u; c < DT; c++) { // unroll
        let at = subgroup * 16u * STRIDE + 4u * c;
        queries[c] = coopLoadT<coop_mat16x16<f16, A>>(&tile[at], STRIDE);
    }
    workgroupBarrier();
    for (var i = 0u; i < PARTS; i++) { // unroll
        stage(index + i * WG, next_k[i]);
    }
    workgroupBarrier();
    let scale = params.scale * LOG2_E;
    var low: array<vec4f, TT>;
    var high: array<vec4f, TT>;
    var most = vec4f(NONE);
    for (var n = 0u; n < TT; n++) { // unroll
        var s: coop_mat16x16<f32, C>;
        for (var c = 0u; c < DT; c++) { // unroll
            let at = n * 16u * STRIDE + 4u * c;
            let right = coopLoad<coop_mat16x16<f16, B>>(&tile[at], STRIDE);
            s = coopMultiplyAdd(queries[c], right, s);
        }
        coopStoreT(s, &scores[s_at], ROW);
        workgroupBarrier();
        let j = n * 16u + side * 8u + vec4u(0u, 1u, 2u, 3u);
        low[n] = select(vec4f(NONE), scores[row * ROW + side * 2u] * scale, j < vec4u(params.tokens));
        high[n] = select(vec4f(NONE), scores[row * ROW + side * 2u + 1u] * scale, j + 4u < vec4u(params.tokens));
        most = max(most, max(low[n], high[n]));
        workgroupBarrier();
    }
    for (var i = 0u; i < PARTS; i++) { // unroll
        stage(index + i * WG, next_v[i]);
    }
    var part = max(max(most.x, most.y), max(most.z, most.w));
    let top = max(part, subgroupShuffleXor(part, 1u));
    var total = vec4f(0.0);
    var sums: array<coop_mat16x16<f32, C>, DT>;
    for (var n = 0u; n < TT; n++) { // unroll
        // Nothing is left of what lies beyond the last key: its score is far below the largest.
        let a = exp2(low[n] - top);
        let b = exp2(high[n] - top);
        total += a + b;
        p[row * P_ROW + side * 2u] = vec4<f16>(a);
        p[row * P_ROW + side * 2u + 1u] = vec4<f16>(b);
        workgroupBarrier();
        let left = coopLoadT<coop_mat16x16<f16, A>>(&p[p_at], P_ROW);
        for (var c = 0u; c < DT; c++) { // unroll
            let at = n * 16u * STRIDE + 4u * c;
            let right = coopLoadT<coop_mat16x16<f16, B>>(&tile[at], STRIDE);
            sums[c] = coopMultiplyAdd(left, right, sums[c]);
        }
        workgroupBarrier();
    }
    part = (total.x + total.y) + (total.z + total.w);
    let all = part + subgroupShuffleXor(part, 1u);
    for (var c = 0u; c < DT; c++) { // unroll
        let sum = sums[c];
        coopStoreT(sum, &scores[s_at], ROW);
        workgroupBarrier();
        if row < params.tokens {
            let at = row * ROW + side * 2u;
            o[((chunk * params.tokens + row) * params.heads + head) * D8 + 2u * c + side] =
                words(scores[at] / all, scores[at + 1u] / all);
        }
        workgroupBarrier();
    }
    if side == 0u && row < params.tokens {
        lse[chunk * params.stride + head * params.tokens + row] = (top + log2(all)) / LOG2_E;
    }
}
