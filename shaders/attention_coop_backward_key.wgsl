// uses: lib/grid.wgsl, lib/attention_tile.wgsl
// variants: D=32 | D=16 TT=1 | D=128 | TT=8
// attention_backward_key.wgsl and attention_backward_value.wgsl on cooperative matrices: a workgroup takes all keys of a
// (chunk, key-value head), a subgroup 16 of them, two lanes a key. Probabilities are (keys, queries), so that nothing is
// transposed; heads that share keys are added up head by head: one fixed order. Probabilities and ds go back into
// matrices as f16, P_UNIT and UNIT times as large.
const D: u32 = 64u;                                                   // head dim, a multiple of 16
const TT: u32 = 5u;                                                   // ⌈tokens / 16⌉
const WG: u32 = 32u * TT;
const P_ROW: u32 = 6u;                                                // of 16 probabilities, in vectors
const P_UNIT: f32 = 16384.0;                                          // probabilities are at most 1
const UNIT: f32 = 64.0;
const MOST: f32 = 3.0e38;
@group(0) @binding(1) var<storage, read> q: array<vec4u>;             // (chunks, tokens, heads, d)
@group(0) @binding(2) var<storage, read> k: array<vec4u>;             // (chunks, tokens, kv_heads, d)
@group(0) @binding(3) var<storage, read> v: array<vec4u>;             // (chunks, tokens, kv_heads, d)
@group(0) @binding(4) var<storage, read> dy: array<vec4u>;            // (chunks, tokens, heads, d): do
@group(0) @binding(5) var<storage, read> lse: array<f32>;             // (chunks, heads, tokens), chunks stride apart
@group(0) @binding(6) var<storage, read> delta: array<f32>;           // as lse
@group(0) @binding(7) var<storage, read_write> dk: array<vec4u>;      // (chunks, tokens, kv_heads, d)
@group(0) @binding(8) var<storage, read_write> dv: array<vec4u>;      // (chunks, tokens, kv_heads, d)

var<workgroup> scores: array<vec4f, 16u * TT * ROW>;                  // (key, 16 queries); or 16 dims of a key's sums
var<workgroup> p: array<vec4<f16>, 16u * TT * P_ROW>;                 // (key, 16 queries)
var<workgroup> logs: array<vec4f, 4u * TT>;                           // lse by query, in powers of 2
var<workgroup> dots: array<vec4f, 4u * TT>;                           // delta by query

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let place = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if place >= params.chunks * params.kv_heads { return; }           // uniform
    let chunk = place / params.kv_heads;
    let kv = place % params.kv_heads;
    let share = params.heads / params.kv_heads;
    let row = subgroup * 16u + lane / 2u;
    let side = lane % 2u;
    let p_at = subgroup * 16u * P_ROW;
    let s_at = subgroup * 16u * ROW;
    var next: array<vec4u, PARTS>;
    var next_dy: array<vec4u, PARTS>;
    for (var i = 0u; i < PARTS; i++) { // unroll
        let at = place_of(index + i * WG, chunk, params.kv_heads, kv);
        next[i] = k[at];
        next_dy[i] = v[at];
    }
    for (var i = 0u; i < PARTS; i++) { // unroll
        stage(index + i * WG, next[i]);
    }
    workgroupBarrier();
    var keys: array<coop_mat16x16<f16, A>, DT>;
    for (var c = 0u; c < DT; c++) { // unroll
        let at = subgroup * 16u * STRIDE + 4u * c;
        keys[c] = coopLoadT<coop_mat16x16<f16, A>>(&tile[at], STRIDE);
    }
    workgroupBarrier();
    for (var i = 0u; i < PARTS; i++) { // unroll
        stage(index + i * WG, next_dy[i]);
    }
    workgroupBarrier();
    var values: array<coop_mat16x16<f16, A>, DT>;
    for (var c = 0u; c < DT; c++) { // unroll
        let at = subgroup * 16u * STRIDE + 4u * c;
        values[c] = coopLoadT<coop_mat16x16<f16, A>>(&tile[at], STRIDE);
    }
    workgroupBarrier();
    let scale = params.scale * LOG2_E;
    var dk_sums: array<coop_mat16x16<f32, C>, DT>;
    var dv_sums: array<coop_mat16x16<f32, C>, DT>;
    for (var head = kv * share; head < (kv + 1u) * share; head++) {
        for (var i = 0u; i < PARTS; i++) { // unroll
            let own = place_of(index + i * WG, chunk, params.heads, head);
            next[i] = q[own];
            next_dy[i] = dy[own];
        }
        if index < 4u * TT {
            let first = chunk * params.stride + head * params.tokens;
            let t = 4u * index + vec4u(0u, 1u, 2u, 3u);
            let at = vec4u(first) + min(t, vec4u(params.tokens - 1u));
            // Queries beyond the last have no probabilities.
            let l = vec4f(lse[at.x], lse[at.y], lse[at.z], lse[at.w]) * LOG2_E;
            logs[index] = select(vec4f(MOST), l, t < vec4u(params.tokens));
            dots[index] = vec4f(delta[at.x], delta[at.y], delta[at.z], delta[at.w]);
        }
        for (var i = 0u; i < PARTS; i++) { // unroll
            stage(index + i * WG, next[i]);
        }
        workgroupBarrier();
        var low: array<vec4f, TT>;
        var high: array<vec4f, TT>;
        for (var n = 0u; n < TT; n++) { // unroll
            var s: coop_mat16x16<f32, C>;
            for (var c = 0u; c < DT; c++) { // unroll
                let at = n * 16u * STRIDE + 4u * c;
                let right = coopLoad<coop_mat16x16<f16, B>>(&tile[at], STRIDE);
                s = coopMultiplyAdd(keys[c], right, s);
            }
            coopStoreT(s, &scores[s_at], ROW);
            workgroupBarrier();
            let at = n * 4u + side * 2u;
            low[n] = exp2(min(scores[row * ROW + side * 2u] * scale - logs[at], vec4f()));
            high[n] = exp2(min(scores[row * ROW + side * 2u + 1u] * scale - logs[at + 1u], vec4f()));
            workgroupBarrier();
        }
        for (var i = 0u; i < PARTS; i++) { // unroll
            stage(index + i * WG, next_dy[i]);
        }
        for (var n = 0u; n < TT; n++) { // unroll
            p[row * P_ROW + side * 2u] = vec4<f16>(low[n] * P_UNIT);
            p[row * P_ROW + side * 2u + 1u] = vec4<f16>(high[n] * P_UNIT);
            workgroupBarrier();
            let left = coopLoadT<coop_mat16x16<f16, A>>(&p[p_at], P_ROW);
            var s: coop_mat16x16<f32, C>;
            for (var c = 0u; c < DT; c++) { // unroll
                let at = n * 16u * STRIDE + 4u * c;
                let right = coopLoad<coop_mat16x16<f16, B>>(&tile[at], STRIDE);
                s = coopMultiplyAdd(values[c], right, s);
            }
            coopStoreT(s, &scores[s_at], ROW);
            for (var c = 0u; c < DT; c++) { // unroll
                let at = n * 16u * STRIDE + 4u * c;
                let right = coopLoadT<coop_mat16x16<f16, B>>(&tile[at], STRIDE);
                dv_sums[c] = coopMultiplyAdd(left, right, dv_sums[c]);
            }
            workgroupBarrier();
            let at = n * 4u + side * 2u;
            low[n] *= (scores[row * ROW + side * 2u] - dots[at]) * UNIT;
            high[n] *= (scores[row * ROW + side * 2u + 1u] - dots[at + 1u]) * UNIT;
        }
        workgroupBarrier();
        for (var i = 0u; i < PARTS; i++) { // unroll
            stage(index + i * WG, next[i]);
        }
        for (var n = 0u; n < TT; n++) { // unroll
            p[row * P_ROW + side * 2u] = vec4<f16>(low[n]);
            p[row * P_ROW + side * 2u + 1u] = vec4<f16>(high[n]);
            workgroupBarrier();
            let left = coopLoadT<coop_mat16x16<f16, A>>(&p[p_at], P_ROW);
            for (var c = 0u; c < DT; c++) { // unroll
                let at = n * 16u * STRIDE + 4u * c;
                let right = coopLoadT<coop_mat16x16<f16, B>>(&tile[at], STRIDE);
                dk_sums[c] = coopMultiplyAdd(left, right, dk_sums[c]);
            }
            workgroupBarrier();
        }
    }
    let unit = params.scale / UNIT;
    for (var c = 0u; c < DT; c++) { // unroll
        let out = ((chunk * params.tokens + row) * params.kv_heads + kv) * D8 + 2u * c + side;
        let at = row * ROW + side * 2u;
        let sum = dk_sums[c];
        coopStoreT(sum, &scores[s_at], ROW);
        workgroupBarrier();
        if row < params.tokens { dk[out] = words(scores[at] * unit, scores[at + 1u] * unit); }
        workgroupBarrier();
        let other = dv_sums[c];
        coopStoreT(other, &scores[s_at], ROW);
        workgroupBarrier();
        if row < params.tokens { dv[out] = words(scores[at] / P_UNIT, scores[at + 1u] / P_UNIT); }
        workgroupBarrier();
    }
}
