// uses: lib/grid.wgsl, lib/attention_tile.wgsl
// variants: D=32 | D=16 TT=1 | D=128 | TT=8
// attention_backward_query.wgsl on cooperative matrices, as attention_coop.wgsl: a workgroup takes all queries of a
// (chunk, query head), two lanes a query, whose probabilities and their slopes they keep in registers. delta = do·o is
// Σ_j p·(do·v[j]), so that o is not asked for. ds goes back into matrices as f16, UNIT times as large.
const D: u32 = 64u;                                                   // head dim, a multiple of 16
const TT: u32 = 5u;                                                   // ⌈tokens / 16⌉
const WG: u32 = 32u * TT;
const P_ROW: u32 = 6u;                                                // of 16 ds, in vectors
const UNIT: f32 = 64.0;
@group(0) @binding(1) var<storage, read> q: array<vec4u>;             // (chunks, tokens, heads, d)
@group(0) @binding(2) var<storage, read> k: array<vec4u>;             // (chunks, tokens, kv_heads, d)
@group(0) @binding(3) var<storage, read> v: array<vec4u>;             // (chunks, tokens, kv_heads, d)
@group(0) @binding(4) var<storage, read> dy: array<vec4u>;            // (chunks, tokens, heads, d): do
@group(0) @binding(5) var<storage, read> lse: array<f32>;             // (chunks, heads, tokens), chunks stride apart
@group(0) @binding(6) var<storage, read_write> dq: array<vec4u>;      // (chunks, tokens, heads, d)
@group(0) @binding(7) var<storage, read_write> delta: array<f32>;     // as lse, for the keys' pass

var<workgroup> scores: array<vec4f, 16u * TT * ROW>;                  // (query, 16 keys); or 16 dims of a query's sums
var<workgroup> ds: array<vec4<f16>, 16u * TT * P_ROW>;                // (query, 16 keys)

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
    let statistics = chunk * params.stride + head * params.tokens + min(row, params.tokens - 1u);
    let l = lse[statistics] * LOG2_E;
    var next_q: array<vec4u, PARTS>;
    var next_k: array<vec4u, PARTS>;
    var next_v: array<vec4u, PARTS>;
    var next_dy: array<vec4u, PARTS>;
    for (var i = 0u; i < PARTS; i++) { // unroll
        let part = index + i * WG;
        let own = place_of(part, chunk, params.heads, head);
        let at = place_of(part, chunk, params.kv_heads, kv);
        next_q[i] = q[own];
        next_k[i] = k[at];
        next_dy[i] = dy[own];
        next_v[i] = v[at];
    }
    for (var i = 0u; i < PARTS; i++) { // unroll
        stage(index + i * WG, next_q[i]);
    }
    workgroupBarrier();
    var left: array<coop_mat16x16<f16, A>, DT>;
    for (var c = 0u; c < DT; c++) { // unroll
        let at = subgroup * 16u * STRIDE + 4u * c;
        left[c] = coopLoadT<coop_mat16x16<f16, A>>(&tile[at], STRIDE);
    }
    workgroupBarrier();
    for (var i = 0u; i < PARTS; i++) { // unroll
        stage(index + i * WG, next_k[i]);
    }
    workgroupBarrier();
    let scale = params.scale * LOG2_E;
    var low: array<vec4f, TT>;
    var high: array<vec4f, TT>;
    for (var n = 0u; n < TT; n++) { // unroll
        var s: coop_mat16x16<f32, C>;
        for (var c = 0u; c < DT; c++) { // unroll
            let at = n * 16u * STRIDE + 4u * c;
            let right = coopLoad<coop_mat16x16<f16, B>>(&tile[at], STRIDE);
            s = coopMultiplyAdd(left[c], right, s);
        }
        coopStoreT(s, &scores[s_at], ROW);
        workgroupBarrier();
        let j = n * 16u + side * 8u + vec4u(0u, 1u, 2u, 3u);
        let x = exp2(min(scores[row * ROW + side * 2u] * scale - l, vec4f()));
        let y = exp2(min(scores[row * ROW + side * 2u + 1u] * scale - l, vec4f()));
        low[n] = select(vec4f(), x, j < vec4u(params.tokens));
        high[n] = select(vec4f(), y, j + 4u < vec4u(params.tokens));
        workgroupBarrier();
    }
    for (var i = 0u; i < PARTS; i++) { // unroll
        stage(index + i * WG, next_dy[i]);
    }
    workgroupBarrier();
    for (var c = 0u; c < DT; c++) { // unroll
        let at = subgroup * 16u * STRIDE + 4u * c;
        left[c] = coopLoadT<coop_mat16x16<f16, A>>(&tile[at], STRIDE);
    }
    workgroupBarrier();
    for (var i = 0u; i < PARTS; i++) { // unroll
        stage(index + i * WG, next_v[i]);
    }
    workgroupBarrier();
    var low_slope: array<vec4f, TT>;
    var high_slope: array<vec4f, TT>;
    var along = vec4f();
    for (var n = 0u; n < TT; n++) { // unroll
        var s: coop_mat16x16<f32, C>;
        for (var c = 0u; c < DT; c++) { // unroll
            let at = n * 16u * STRIDE + 4u * c;
            let right = coopLoad<coop_mat16x16<f16, B>>(&tile[at], STRIDE);
            s = coopMultiplyAdd(left[c], right, s);
        }
        coopStoreT(s, &scores[s_at], ROW);
        workgroupBarrier();
        low_slope[n] = scores[row * ROW + side * 2u];
        high_slope[n] = scores[row * ROW + side * 2u + 1u];
        along += low[n] * low_slope[n] + high[n] * high_slope[n];
        workgroupBarrier();
    }
    for (var i = 0u; i < PARTS; i++) { // unroll
        stage(index + i * WG, next_k[i]);
    }
    let part = (along.x + along.y) + (along.z + along.w);
    let dots = part + subgroupShuffleXor(part, 1u);
    var sums: array<coop_mat16x16<f32, C>, DT>;
    for (var n = 0u; n < TT; n++) { // unroll
        ds[row * P_ROW + side * 2u] = vec4<f16>(low[n] * (low_slope[n] - dots) * UNIT);
        ds[row * P_ROW + side * 2u + 1u] = vec4<f16>(high[n] * (high_slope[n] - dots) * UNIT);
        workgroupBarrier();
        let slopes = coopLoadT<coop_mat16x16<f16, A>>(&ds[p_at], P_ROW);
        for (var c = 0u; c < DT; c++) { // unroll
            let at = n * 16u * STRIDE + 4u * c;
            let right = coopLoadT<coop_mat16x16<f16, B>>(&tile[at], STRIDE);
            sums[c] = coopMultiplyAdd(slopes, right, sums[c]);
        }
        workgroupBarrier();
    }
    let unit = params.scale / UNIT;
    for (var c = 0u; c < DT; c++) { // unroll
        let sum = sums[c];
        coopStoreT(sum, &scores[s_at], ROW);
        workgroupBarrier();
        if row < params.tokens {
            let at = row * ROW + side * 2u;
            dq[((chunk * params.tokens + row) * params.heads + head) * D8 + 2u * c + side] =
                words(scores[at] * unit, scores[at + 1u] * unit);
        }
        workgroupBarrier();
    }
    if side == 0u && row < params.tokens { delta[statistics] = dots; }
}
