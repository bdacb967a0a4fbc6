// uses: lib/grid.wgsl, lib/four.wgsl
// variants: D=64 | D=64 elem_out=f16 | D=16 | D=80 | D=128
// window_attention_backward_key.wgsl on cooperative matrices: a workgroup of four subgroups owns 64 keys, a subgroup 16
// of them; a lane takes a query of the 32 that are staged. Probabilities are (keys, queries), so that nothing is
// transposed; they go back into matrices as f16, P_UNIT and UNIT times as large: beside many keys they are small.
alias elem_out = f32;
const D: u32 = 32u;                                                   // head dim, a multiple of 16
const QT: u32 = 32u;                                                  // queries staged at a time, one a lane
const WG: u32 = 128u;
const KT: u32 = WG / 2u;
const D4: u32 = D / 4u;
const D8: u32 = D / 8u;
const DT: u32 = D / 16u;
const PARTS: u32 = (QT * D8 + WG - 1u) / WG;                          // eights a lane stages
const STRIDE: u32 = D4 + 2u;                                          // of a query, in vectors; strides leave banks apart
const ROW: u32 = QT + 4u;                                             // of a key's scores
const P_ROW: u32 = QT + 8u;                                           // of its probabilities
const P_UNIT: f32 = 16384.0;                                          // probabilities are at most 1
const UNIT: f32 = 64.0;
const LOG2_E: f32 = 1.44269504;
struct Params {
    batches: u32, tokens: u32, query_heads: u32, heads: u32, piece: u32, pieces: u32, tiles: u32, window: u32,
    scale: f32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // tiles = ⌈tokens / 64⌉; piece: query heads a sum
@group(0) @binding(1) var<storage, read> q: array<vec4u>;             // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> k: array<vec4<f16>>;         // (batches, tokens, heads, d)
@group(0) @binding(3) var<storage, read> v: array<vec4<f16>>;         // (batches, tokens, heads, d)
@group(0) @binding(4) var<storage, read> dout: array<vec4u>;          // (batches, tokens, query heads, d)
@group(0) @binding(5) var<storage, read> lse: array<f32>;             // (batches, query heads, tokens)
@group(0) @binding(6) var<storage, read> delta: array<f32>;           // (batches, query heads, tokens): do · o
@group(0) @binding(7) var<storage, read_write> dk: array<vec4<elem_out>>; // (pieces, batches, tokens, heads, d)
@group(0) @binding(8) var<storage, read_write> dv: array<vec4<elem_out>>;

var<workgroup> queries: array<vec4<f16>, QT * STRIDE>;
var<workgroup> douts: array<vec4<f16>, QT * STRIDE>;
var<workgroup> scores: array<f32, KT * ROW>;                          // (key, query); or 16 dims of a key's dk
var<workgroup> slopes: array<f32, KT * ROW>;                          // v · do; or 16 dims of a key's dv
var<workgroup> p: array<f16, KT * P_ROW>;                             // (key, query); or 16 dims of a key
var<workgroup> ds: array<f16, KT * P_ROW>;                            // (key, query); or 16 dims of a value

// Eight elements are read at a time, as words: 16-bit vectors would come in pieces.
// Where the i-th eight of a head's queries from t0 on lies; beyond the last token, and beyond the tile, at its end.
fn place_of(i: u32, t0: u32, b: u32, head: u32) -> u32 {
    let t = min(t0 + i / D8, params.tokens - 1u);
    return ((b * params.tokens + t) * params.query_heads + head) * D8 + i % D8;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let place = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if place >= params.groups { return; }                             // uniform
    // The first keys are seen by the most queries: they begin first.
    let sequences = params.groups / params.tiles;
    let first = place / sequences * KT;
    let piece = place % sequences % params.pieces;
    let h = place % sequences / params.pieces % params.heads;
    let b = place % sequences / params.pieces / params.heads;
    let share = params.query_heads / params.heads;
    let key0 = subgroup * 16u;
    let p_at = key0 * P_ROW;
    let s_at = key0 * ROW;
    // Where keys enter and sums leave, two lanes take a key; keys beyond the last token repeat it and are not stored.
    let row = key0 + lane / 2u;
    let side = lane % 2u;
    let own = ((b * params.tokens + min(first + row, params.tokens - 1u)) * params.heads + h) * D4;
    var keys: array<coop_mat16x16<f16, A>, DT>;
    var values: array<coop_mat16x16<f16, A>, DT>;
    for (var c = 0u; c < DT; c++) { // unroll
        workgroupBarrier();
        for (var i = 2u * side; i < 2u * side + 2u; i++) {
            let x = k[own + 4u * c + i];
            let y = v[own + 4u * c + i];
            for (var e = 0u; e < 4u; e++) {
                p[row * P_ROW + 4u * i + e] = x[e];
                ds[row * P_ROW + 4u * i + e] = y[e];
            }
        }
        workgroupBarrier();
        keys[c] = coopLoadT<coop_mat16x16<f16, A>>(&p[p_at], P_ROW);
        values[c] = coopLoadT<coop_mat16x16<f16, A>>(&ds[p_at], P_ROW);
    }
    let scale = params.scale * LOG2_E;
    var dk_sum: array<coop_mat16x16<f32, C>, DT>;
    var dv_sum: array<coop_mat16x16<f32, C>, DT>;
    var next_q: array<vec4u, PARTS>;
    var next_dout: array<vec4u, PARTS>;
    let end = min(first + KT - 1u + params.window, params.tokens);
    for (var m = piece * params.piece; m < min((piece + 1u) * params.piece, share); m++) {
        let head = h * share + m;
        let stats = (b * params.query_heads + head) * params.tokens;
        // Tiles are fetched while the one before is in use.
        for (var i = 0u; i < PARTS; i++) { // unroll
            let at = place_of(index + i * WG, first, b, head);
            next_q[i] = q[at];
            next_dout[i] = dout[at];
        }
        for (var t0 = first; t0 < end; t0 += QT) {
            workgroupBarrier();
            for (var i = 0u; i < PARTS; i++) { // unroll
                let part = index + i * WG;
                if part < QT * D8 {
                    let to = part / D8 * STRIDE + part % D8 * 2u;
                    queries[to] = four(next_q[i].xy);
                    queries[to + 1u] = four(next_q[i].zw);
                    douts[to] = four(next_dout[i].xy);
                    douts[to + 1u] = four(next_dout[i].zw);
                }
            }
            workgroupBarrier();
            for (var i = 0u; i < PARTS; i++) { // unroll
                let at = place_of(index + i * WG, t0 + QT, b, head);
                next_q[i] = q[at];
                next_dout[i] = dout[at];
            }
            for (var n = 0u; n < QT; n += 16u) { // unroll
                var s: coop_mat16x16<f32, C>;
                var dp: coop_mat16x16<f32, C>;
                for (var c = 0u; c < DT; c++) { // unroll
                    let at = n * STRIDE + 4u * c;
                    let right = coopLoad<coop_mat16x16<f16, B>>(&queries[at], STRIDE);
                    let right_dp = coopLoad<coop_mat16x16<f16, B>>(&douts[at], STRIDE);
                    s = coopMultiplyAdd(keys[c], right, s);
                    dp = coopMultiplyAdd(values[c], right_dp, dp);
                }
                let to = s_at + n;
                coopStoreT(s, &scores[to], ROW);
                coopStoreT(dp, &slopes[to], ROW);
            }
            workgroupBarrier();
            let t = t0 + lane;
            let stat = stats + min(t, params.tokens - 1u);
            let l = lse[stat] * LOG2_E;
            let d = delta[stat];
            // Whether some query of the tile does not see some key.
            let edge = first + KT > t0 + 1u || t0 + QT > min(first + params.window, params.tokens);
            for (var i = key0; i < key0 + 16u; i++) {
                let j = first + i;
                var e = exp2(min(scores[i * ROW + lane] * scale - l, 0.0));
                if edge && !(j <= t && t < min(j + params.window, params.tokens)) { e = 0.0; }
                p[i * P_ROW + lane] = f16(e * P_UNIT);
                ds[i * P_ROW + lane] = f16(e * (slopes[i * ROW + lane] - d) * UNIT);
            }
            workgroupBarrier();
            for (var n = 0u; n < QT; n += 16u) { // unroll
                let left_at = p_at + n;
                let left = coopLoadT<coop_mat16x16<f16, A>>(&p[left_at], P_ROW);
                let left_ds = coopLoadT<coop_mat16x16<f16, A>>(&ds[left_at], P_ROW);
                for (var c = 0u; c < DT; c++) { // unroll
                    let at = n * STRIDE + 4u * c;
                    let right = coopLoadT<coop_mat16x16<f16, B>>(&queries[at], STRIDE);
                    let right_dv = coopLoadT<coop_mat16x16<f16, B>>(&douts[at], STRIDE);
                    dk_sum[c] = coopMultiplyAdd(left_ds, right, dk_sum[c]);
                    dv_sum[c] = coopMultiplyAdd(left, right_dv, dv_sum[c]);
                }
            }
        }
    }
    let out = (((piece * params.batches + b) * params.tokens + first + row) * params.heads + h) * D4;
    for (var c = 0u; c < DT; c++) { // unroll
        let key_tile = dk_sum[c];
        let value_tile = dv_sum[c];
        workgroupBarrier();
        coopStoreT(key_tile, &scores[s_at], ROW);
        coopStoreT(value_tile, &slopes[s_at], ROW);
        workgroupBarrier();
        if first + row < params.tokens {
            for (var i = 2u * side; i < 2u * side + 2u; i++) {
                let at = row * ROW + 4u * i;
                let x = vec4f(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
                let y = vec4f(slopes[at], slopes[at + 1u], slopes[at + 2u], slopes[at + 3u]);
                dk[out + 4u * c + i] = vec4<elem_out>(x * (params.scale / UNIT));
                dv[out + 4u * c + i] = vec4<elem_out>(y / P_UNIT);
            }
        }
    }
}
