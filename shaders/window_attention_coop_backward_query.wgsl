// uses: lib/grid.wgsl, lib/four.wgsl
// variants: D=64 | D=16 | D=80 | D=128
// window_attention_backward_query.wgsl on cooperative matrices: a workgroup of four subgroups takes 64 queries, a
// subgroup 16 of them, two lanes a query. ds goes back into matrices as f16, UNIT times as large: beside many keys it is
// small.
const D: u32 = 32u;                                                   // head dim, a multiple of 16
const KT: u32 = 32u;                                                  // keys staged at a time
const WG: u32 = 128u;
const QT: u32 = WG / 2u;
const D4: u32 = D / 4u;
const D8: u32 = D / 8u;
const DT: u32 = D / 16u;
const PARTS: u32 = (KT * D8 + WG - 1u) / WG;                          // eights a lane stages
const STRIDE: u32 = D4 + 2u;                                          // of a key, in vectors; strides leave banks apart
const ROW: u32 = KT + 4u;                                             // of a query's scores
const P_ROW: u32 = KT / 4u + 2u;                                      // of its ds, in vectors
const UNIT: f32 = 64.0;
const LOG2_E: f32 = 1.44269504;
struct Params { tokens: u32, query_heads: u32, heads: u32, tiles: u32, window: u32, scale: f32, groups: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // tiles = ⌈tokens / 64⌉, window ≤ tokens
@group(0) @binding(1) var<storage, read> q: array<vec4<f16>>;         // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> k: array<vec4u>;             // (batches, tokens, heads, d)
@group(0) @binding(3) var<storage, read> v: array<vec4u>;             // (batches, tokens, heads, d)
@group(0) @binding(4) var<storage, read> o: array<vec4<f16>>;         // (batches, tokens, query heads, d)
@group(0) @binding(5) var<storage, read> dout: array<vec4<f16>>;      // (batches, tokens, query heads, d)
@group(0) @binding(6) var<storage, read> lse: array<f32>;             // (batches, query heads, tokens)
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f16>>;  // (batches, tokens, query heads, d)
@group(0) @binding(8) var<storage, read_write> delta: array<f32>;     // (batches, query heads, tokens): do · o

var<workgroup> keys: array<vec4<f16>, KT * STRIDE>;
var<workgroup> values: array<vec4<f16>, KT * STRIDE>;
var<workgroup> scores: array<f32, QT * ROW>;                          // (query, key); or 16 dims of a query's sums
var<workgroup> slopes: array<f32, QT * ROW>;                          // do · v
var<workgroup> ds: array<vec4<f16>, QT * P_ROW>;                      // (query, key); or 16 dims of q and 16 of do

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
    let t0 = (params.tiles - 1u - place / sequences) * QT;
    let head = place % sequences % params.query_heads;
    let b = place % sequences / params.query_heads;
    let h = head / (params.query_heads / params.heads);
    let row = subgroup * 16u + lane / 2u;
    let side = lane % 2u;
    let t = t0 + row;
    let p_at = subgroup * 16u * P_ROW;
    let p_next = p_at + 4u;
    let s_at = subgroup * 16u * ROW;
    // Rows beyond the last token repeat it, and are not stored.
    let near = min(t, params.tokens - 1u);
    let own = ((b * params.tokens + near) * params.query_heads + head) * D4;
    let stat = (b * params.query_heads + head) * params.tokens + near;
    var queries: array<coop_mat16x16<f16, A>, DT>;
    var douts: array<coop_mat16x16<f16, A>, DT>;
    var part = 0.0;
    for (var c = 0u; c < DT; c++) { // unroll
        workgroupBarrier();
        for (var i = 2u * side; i < 2u * side + 2u; i++) {
            let y = dout[own + 4u * c + i];
            part += dot(vec4f(y), vec4f(o[own + 4u * c + i]));
            ds[row * P_ROW + i] = q[own + 4u * c + i];
            ds[row * P_ROW + 4u + i] = y;
        }
        workgroupBarrier();
        queries[c] = coopLoadT<coop_mat16x16<f16, A>>(&ds[p_at], P_ROW);
        douts[c] = coopLoadT<coop_mat16x16<f16, A>>(&ds[p_next], P_ROW);
    }
    let dots = part + subgroupShuffleXor(part, 1u);
    if side == 0u && t < params.tokens { delta[stat] = dots; }
    let l = lse[stat] * LOG2_E;
    let scale = params.scale * LOG2_E;
    var sum: array<coop_mat16x16<f32, C>, DT>;
    let end = min(t0 + QT, params.tokens);
    let start = (max(t0 + 1u, params.window) - params.window) / KT * KT;
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
            var s: coop_mat16x16<f32, C>;
            var dp: coop_mat16x16<f32, C>;
            for (var c = 0u; c < DT; c++) { // unroll
                let at = n * STRIDE + 4u * c;
                let right = coopLoad<coop_mat16x16<f16, B>>(&keys[at], STRIDE);
                let right_dp = coopLoad<coop_mat16x16<f16, B>>(&values[at], STRIDE);
                s = coopMultiplyAdd(queries[c], right, s);
                dp = coopMultiplyAdd(douts[c], right_dp, dp);
            }
            let to = s_at + n;
            coopStoreT(s, &scores[to], ROW);
            coopStoreT(dp, &slopes[to], ROW);
        }
        workgroupBarrier();
        // Whether some query of the tile does not see some key.
        let edge = j0 + KT > t0 + 1u || t0 + QT > j0 + params.window;
        for (var i = side; i < KT / 4u; i += 2u) {
            let at = row * ROW + 4u * i;
            let s = vec4f(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
            let dp = vec4f(slopes[at], slopes[at + 1u], slopes[at + 2u], slopes[at + 3u]);
            var e = exp2(min(s * scale - l, vec4f(0.0)));
            if edge {
                let j = j0 + 4u * i + vec4u(0u, 1u, 2u, 3u);
                e = select(vec4f(0.0), e, (j <= vec4u(t)) & (vec4u(t) < j + params.window));
            }
            ds[row * P_ROW + i] = vec4<f16>(e * (dp - dots) * UNIT);
        }
        workgroupBarrier();
        for (var n = 0u; n < KT; n += 16u) { // unroll
            let left_at = p_at + n / 4u;
            let left = coopLoadT<coop_mat16x16<f16, A>>(&ds[left_at], P_ROW);
            for (var c = 0u; c < DT; c++) { // unroll
                let at = n * STRIDE + 4u * c;
                let right = coopLoadT<coop_mat16x16<f16, B>>(&keys[at], STRIDE);
                sum[c] = coopMultiplyAdd(left, right, sum[c]);
            }
        }
    }
    for (var c = 0u; c < DT; c++) { // unroll
        let tile = sum[c];
        workgroupBarrier();
        coopStoreT(tile, &scores[s_at], ROW);
        workgroupBarrier();
        if t < params.tokens {
            for (var i = 2u * side; i < 2u * side + 2u; i++) {
                let at = row * ROW + 4u * i;
                let y = vec4f(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
                dq[own + 4u * c + i] = vec4<f16>(y * (params.scale / UNIT));
            }
        }
    }
}
