// uses: lib/grid.wgsl, lib/four.wgsl
// variants: D=64 SG=4 | D=16 S=16 SG=1 | D=32 S=32
// hsa_backward_query.wgsl on cooperative matrices, laid out as hsa_coop.wgsl: subgroups share the keys of a chunk in the
// scores, the dims in dq. Keys lie in two buffers: one slot's are still summed up while the next slot's are multiplied.
const D: u32 = 32u;                                                   // head dim, a multiple of 16 · SG
const S: u32 = 64u;                                                   // chunk, a multiple of 16 · SG
const SG: u32 = 2u;                                                   // subgroups of 32
const WG: u32 = 32u * SG;
const DT: u32 = D / 16u;
const DS: u32 = DT / SG;                                              // tiles of dims a subgroup
const TS: u32 = S / 16u / SG;                                         // tiles of keys a subgroup
const E: u32 = D / 8u;                                                // a row in units of eight
const U: u32 = S * E / WG;                                            // units a lane
const LANES: u32 = 2u * SG;                                           // of a row
const N: u32 = S / LANES;                                             // keys a lane
const ROW: u32 = max(S, D) + 8u;                                      // rows start at multiples of 16 bytes
const PROW: u32 = S + 8u;                                        // in fours, different banks
const KROW: u32 = D / 4u + 2u;
struct Params {
    tokens: u32, keys: u32, query_heads: u32, heads: u32, slots: u32, joint: u32, scale: f32, tiles: u32, groups: u32,
    values: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // values: where v begins in kv, in elements
@group(0) @binding(1) var<storage, read> q: array<f16>;               // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> kv: array<vec4u>;            // k, then v: (2, batches, keys, heads, d), eights of f16
@group(0) @binding(3) var<storage, read> weights: array<f32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(4) var<storage, read> indices: array<u32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(5) var<storage, read> lse: array<f32>;             // (batches, tokens, query heads, slots)
@group(0) @binding(6) var<storage, read> dout: array<f16>;            // (batches, tokens, query heads, d)
@group(0) @binding(7) var<storage, read_write> dq: array<f16>;        // (batches, tokens, query heads, d)
@group(0) @binding(8) var<storage, read_write> stats: array<vec2f>;   // (batches, tokens, query heads, slots): lse, D_i

var<workgroup> key_rows: array<vec4<f16>, 2u * S * KROW>;
var<workgroup> value_rows: array<vec4<f16>, S * KROW>;
var<workgroup> scores: array<f32, 16u * ROW>;
var<workgroup> slopes: array<f32, 16u * ROW>;                         // do · v
var<workgroup> ds: array<f16, 16u * PROW>;

fn row_sum(x: f32) -> f32 {
    var y = x + subgroupShuffleXor(x, 1u);
    if SG > 1u { y += subgroupShuffleXor(y, 2u); }
    if SG > 2u { y += subgroupShuffleXor(y, 4u); }
    return y;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_id) subgroup: u32,
        @builtin(subgroup_invocation_id) subgroup_lane: u32) {
    let unit = group.y * GRID_WIDTH + group.x;                        // naga takes no call for uniform
    if unit >= params.groups { return; }                              // uniform
    let lane = subgroup * 32u + subgroup_lane;
    let h = (unit / params.tiles) % params.heads;
    let token = unit / params.tiles / params.heads;                   // over batches
    let b = token / params.tokens;
    let share = params.query_heads / params.heads;
    let row0 = token * params.query_heads + h * share + (unit % params.tiles) * 16u;
    let selected = select(token * params.heads + h, token, params.joint != 0u) * params.slots;
    let stride = params.heads * E;
    let origin = (b * params.keys * params.heads + h) * E + lane / E * stride + lane % E;
    let values_at = params.values / 8u;
    let step = WG / E * stride;
    let to = lane / E * KROW + lane % E * 2u;
    let row = lane / LANES;
    let side = lane % LANES;
    let last = params.slots - 1u;
    var queries: array<coop_mat16x16<f16, A>, DT>;
    var douts: array<coop_mat16x16<f16, A>, DT>;
    for (var c = 0u; c < DT; c++) { // unroll
        let at = row0 * D + c * 16u;
        queries[c] = coopLoadT<coop_mat16x16<f16, A>>(&q[at], D);
        douts[c] = coopLoadT<coop_mat16x16<f16, A>>(&dout[at], D);
    }
    var sum: array<coop_mat16x16<f32, C>, DS>;
    var next_k: array<vec4u, U>;
    var next_v: array<vec4u, U>;
    var at_k = origin + indices[selected] * S * stride;
    for (var u = 0u; u < U; u++) { // unroll
        next_k[u] = kv[at_k + u * step];
        next_v[u] = kv[values_at + at_k + u * step];
    }
    for (var u = 0u; u < U; u++) { // unroll
        key_rows[to + u * (WG / E) * KROW] = four(next_k[u].xy);
        key_rows[to + u * (WG / E) * KROW + 1u] = four(next_k[u].zw);
        value_rows[to + u * (WG / E) * KROW] = four(next_v[u].xy);
        value_rows[to + u * (WG / E) * KROW + 1u] = four(next_v[u].zw);
    }
    at_k = origin + indices[selected + min(1u, last)] * S * stride;
    for (var u = 0u; u < U; u++) { // unroll
        next_k[u] = kv[at_k + u * step];
        next_v[u] = kv[values_at + at_k + u * step];
    }
    workgroupBarrier();
    for (var slot = 0u; slot < params.slots; slot++) {
        let weight = weights[selected + slot];
        let coming = indices[selected + min(slot + 2u, last)];
        let l = lse[(row0 + row) * params.slots + slot];
        let full = slot % 2u * S * KROW;
        let empty = (slot + 1u) % 2u * S * KROW;
        for (var t = 0u; t < TS; t++) { // unroll
            var s: coop_mat16x16<f32, C>;
            var dp: coop_mat16x16<f32, C>;
            for (var c = 0u; c < DT; c++) { // unroll
                let at = (subgroup * TS + t) * 16u * KROW + c * 4u;
                let at_full = full + at;
                let keys = coopLoad<coop_mat16x16<f16, B>>(&key_rows[at_full], KROW);
                let values = coopLoad<coop_mat16x16<f16, B>>(&value_rows[at], KROW);
                s = coopMultiplyAdd(queries[c], keys, s);
                dp = coopMultiplyAdd(douts[c], values, dp);
            }
            let out = (subgroup * TS + t) * 16u;
            coopStoreT(s, &scores[out], ROW);
            coopStoreT(dp, &slopes[out], ROW);
        }
        workgroupBarrier();
        for (var u = 0u; u < U; u++) { // unroll
            key_rows[empty + to + u * (WG / E) * KROW] = four(next_k[u].xy);
            key_rows[empty + to + u * (WG / E) * KROW + 1u] = four(next_k[u].zw);
            value_rows[to + u * (WG / E) * KROW] = four(next_v[u].xy);
            value_rows[to + u * (WG / E) * KROW + 1u] = four(next_v[u].zw);
        }
        at_k = origin + coming * S * stride;
        for (var u = 0u; u < U; u++) { // unroll
            next_k[u] = kv[at_k + u * step];
            next_v[u] = kv[values_at + at_k + u * step];
        }
        var e: array<f32, N>;
        var m: array<f32, N>;
        var part = 0.0;
        for (var i = 0u; i < N; i++) { // unroll
            let at = row * ROW + i * LANES + side;
            m[i] = slopes[at];
            e[i] = exp(min(scores[at] * params.scale - l, 0.0));
            part += e[i] * m[i];
        }
        let dot = row_sum(part);
        if side == 0u { stats[(row0 + row) * params.slots + slot] = vec2f(l, dot); }
        for (var i = 0u; i < N; i++) { ds[row * PROW + i * LANES + side] = f16(weight * e[i] * (m[i] - dot)); } // unroll
        workgroupBarrier();
        for (var t = 0u; t < S / 16u; t++) { // unroll
            let at_key = t * 16u;
            let left = coopLoadT<coop_mat16x16<f16, A>>(&ds[at_key], PROW);
            for (var c = 0u; c < DS; c++) { // unroll
                let at = full + t * 16u * KROW + (subgroup * DS + c) * 4u;
                let keys = coopLoadT<coop_mat16x16<f16, B>>(&key_rows[at], KROW);
                sum[c] = coopMultiplyAdd(left, keys, sum[c]);
            }
        }
    }
    for (var c = 0u; c < DS; c++) { // unroll
        let out = (subgroup * DS + c) * 16u;
        let tile = sum[c];
        coopStoreT(tile, &scores[out], ROW);
    }
    workgroupBarrier();
    for (var i = lane; i < 16u * D; i += WG) {
        dq[row0 * D + i] = f16(scores[i / D * ROW + i % D] * params.scale);
    }
}
