// uses: lib/grid.wgsl, lib/four.wgsl
// variants: D=64 | D=16 S=16
// hsa.wgsl on cooperative matrices: one subgroup takes 16 query heads of a token. Keys, then values of a chunk pass
// through workgroup memory, while the next are under way into registers. Scores leave the matrices through workgroup
// memory, where two lanes a row take their softmax; weights · probabilities go back as f16.
const D: u32 = 32u;                                                   // head dim, a multiple of 16
const S: u32 = 64u;                                                   // chunk, a multiple of 16
const WG: u32 = 32u;                                                  // one subgroup
const DT: u32 = D / 16u;
const ST: u32 = S / 16u;
const E: u32 = D / 8u;                                                // a row in units of eight
const U: u32 = S * E / WG;                                            // units a lane
const N: u32 = S / 8u;                                                // quads of keys a lane
const ROW: u32 = max(S, D) + 4u;                                      // rows start at multiples of 16 bytes
const PROW: u32 = S / 4u + 2u;                                        // in fours, different banks
const KROW: u32 = D / 4u + 2u;
struct Params {
    tokens: u32, keys: u32, query_heads: u32, heads: u32, slots: u32, joint: u32, off_by_one: u32, scale: f32,
    tiles: u32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // joint: 1 where all heads share a selection
@group(0) @binding(1) var<storage, read> q: array<f16>;               // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> k: array<vec4u>;             // (batches, keys, heads, d), eights of f16
@group(0) @binding(3) var<storage, read> v: array<vec4u>;             // (batches, keys, heads, d)
@group(0) @binding(4) var<storage, read> weights: array<f32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(5) var<storage, read> indices: array<u32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(6) var<storage, read_write> o: array<f16>;         // (batches, tokens, query heads, d)
@group(0) @binding(7) var<storage, read_write> lse: array<f32>;       // (batches, tokens, query heads, slots)

const NONE: f32 = -3.0e38;
var<workgroup> rows: array<vec4<f16>, S * KROW>;
var<workgroup> scores: array<f32, 16u * ROW>;
var<workgroup> p: array<vec4<f16>, 16u * PROW>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
    let unit = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if unit >= params.groups { return; }                             // uniform
    let h = (unit / params.tiles) % params.heads;
    let token = unit / params.tiles / params.heads;                  // over batches
    let b = token / params.tokens;
    let share = params.query_heads / params.heads;
    let row0 = token * params.query_heads + h * share + (unit % params.tiles) * 16u;
    let selected = select(token * params.heads + h, token, params.joint != 0u) * params.slots;
    let stride = params.heads * E;
    let origin = (b * params.keys * params.heads + h) * E + lane / E * stride + lane % E;
    let step = WG / E * stride;
    let to = lane / E * KROW + lane % E * 2u;
    let row = lane / 2u;
    let side = lane % 2u;
    var queries: array<coop_mat16x16<f16, A>, DT>;
    for (var c = 0u; c < DT; c++) { // unroll
        let at = row0 * D + c * 16u;
        queries[c] = coopLoadT<coop_mat16x16<f16, A>>(&q[at], D);
    }
    var sum: array<coop_mat16x16<f32, C>, DT>;
    var next: array<vec4u, U>;
    var from_ = origin + indices[selected] * S * stride;
    for (var u = 0u; u < U; u++) { next[u] = k[from_ + u * step]; } // unroll
    for (var slot = 0u; slot < params.slots; slot++) {
        let weight = weights[selected + slot];
        let coming = indices[selected + min(slot + 1u, params.slots - 1u)];
        for (var u = 0u; u < U; u++) { // unroll
            rows[to + u * (WG / E) * KROW] = four(next[u].xy);
            rows[to + u * (WG / E) * KROW + 1u] = four(next[u].zw);
        }
        workgroupBarrier();
        for (var u = 0u; u < U; u++) { next[u] = v[from_ + u * step]; } // unroll
        for (var t = 0u; t < ST; t++) { // unroll
            var s: coop_mat16x16<f32, C>;
            for (var c = 0u; c < DT; c++) { // unroll
                let at = t * 16u * KROW + c * 4u;
                let keys = coopLoad<coop_mat16x16<f16, B>>(&rows[at], KROW);
                s = coopMultiplyAdd(queries[c], keys, s);
            }
            let out = t * 16u;
            coopStoreT(s, &scores[out], ROW);
        }
        workgroupBarrier();
        for (var u = 0u; u < U; u++) { // unroll
            rows[to + u * (WG / E) * KROW] = four(next[u].xy);
            rows[to + u * (WG / E) * KROW + 1u] = four(next[u].zw);
        }
        var e: array<vec4f, N>;
        var tops = vec4f(select(NONE, 0.0, params.off_by_one != 0u));
        for (var i = 0u; i < N; i++) { // unroll
            let at = row * ROW + 8u * i + 4u * side;
            e[i] = vec4f(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]) * params.scale;
            tops = max(tops, e[i]);
        }
        var top = max(max(tops.x, tops.y), max(tops.z, tops.w));
        top = max(top, subgroupShuffleXor(top, 1u));
        var parts = vec4f(0.0);
        for (var i = 0u; i < N; i++) { // unroll
            e[i] = exp(e[i] - top);
            parts += e[i];
        }
        var all = parts.x + parts.y + parts.z + parts.w;
        all += subgroupShuffleXor(all, 1u);
        if params.off_by_one != 0u { all += exp(-top); }
        if side == 0u { lse[(row0 + row) * params.slots + slot] = top + log(all); }
        let factor = weight / all;
        for (var i = 0u; i < N; i++) { p[row * PROW + 2u * i + side] = vec4<f16>(e[i] * factor); } // unroll
        workgroupBarrier();
        from_ = origin + coming * S * stride;
        for (var u = 0u; u < U; u++) { next[u] = k[from_ + u * step]; } // unroll
        for (var t = 0u; t < ST; t++) { // unroll
            let at_key = t * 4u;
            let left = coopLoadT<coop_mat16x16<f16, A>>(&p[at_key], PROW);
            for (var c = 0u; c < DT; c++) { // unroll
                let at = t * 16u * KROW + c * 4u;
                let values = coopLoadT<coop_mat16x16<f16, B>>(&rows[at], KROW);
                sum[c] = coopMultiplyAdd(left, values, sum[c]);
            }
        }
        workgroupBarrier();
    }
    for (var c = 0u; c < DT; c++) { // unroll
        let out = c * 16u;
        let tile = sum[c];
        coopStoreT(tile, &scores[out], ROW);
    }
    workgroupBarrier();
    for (var i = lane; i < 16u * D; i += WG) { o[row0 * D + i] = f16(scores[i / D * ROW + i % D]); }
}
