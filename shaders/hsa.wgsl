// uses: lib/hsa_tile.wgsl, lib/hsa_stat.wgsl
// variants: elem=f16 | D4=4 S=16 KT=16 | D4=16 KT=32 QG=2 | D4=32 KT=16 QG=2 | QG=1 | KT=64 | D4=16 KT=64
// o[t, hq] = Σ_i weight[t, h, i] · Σ_j softmax_j(q[t, hq] · k[j] / √d) v[j] over the S tokens j of chunk index[t, h, i];
// with off_by_one the denominator has + exp(0). One workgroup a (token, head, tile of its query heads); slots in order.
alias elem = f32;
const D4: u32 = 8u;                                                   // head dim / 4
const S: u32 = 64u;                                                   // chunk
const QG: u32 = 4u;                                                   // query heads a tile / 4
const KT: u32 = 32u;                                                  // keys staged at a time
const SETS: u32 = 1u;
struct Params {
    tokens: u32, keys: u32, query_heads: u32, heads: u32, slots: u32, joint: u32, off_by_one: u32, scale: f32,
    tiles: u32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // joint: 1 where all heads share a selection
@group(0) @binding(1) var<storage, read> q: array<vec4<elem>>;        // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> k: array<vec4<elem>>;        // (batches, keys, heads, d)
@group(0) @binding(3) var<storage, read> v: array<vec4<elem>>;        // (batches, keys, heads, d)
@group(0) @binding(4) var<storage, read> weights: array<f32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(5) var<storage, read> indices: array<u32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(6) var<storage, read_write> o: array<vec4<elem>>;  // (batches, tokens, query heads, d)
@group(0) @binding(7) var<storage, read_write> lse: array<f32>;       // (batches, tokens, slots, query heads)

const NONE: f32 = -3.0e38;
var<workgroup> total: array<vec4f, QG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    if index >= params.groups { return; }                             // uniform
    let h = (index / params.tiles) % params.heads;
    let token = index / params.tiles / params.heads;                  // over batches
    let b = token / params.tokens;
    let share = params.query_heads / params.heads;
    let q0 = (index % params.tiles) * 4u * QG;
    let live = min(4u * QG, share - q0);
    let row0 = token * params.query_heads + h * share + q0;
    let selected = select(token * params.heads + h, token, params.joint != 0u) * params.slots;
    for (var i = lane; i < UNITS; i += WG) {
        var x = mat4x4f();
        for (var r = 0u; r < 4u; r++) {
            let row = i / D4 * 4u + r;
            if row < live { x[r] = vec4f(q[(row0 + row) * D4 + i % D4]) * params.scale; }
        }
        put_rows(0u, i / D4, i % D4, x);
    }
    let kg = lane / QG;
    let g = lane % QG;
    let works = kg < KG;
    var sum: array<array<vec4f, 4>, NU>;
    for (var slot = 0u; slot < params.slots; slot++) {
        let weight = weights[selected + slot];
        let first = (b * params.keys + indices[selected + slot] * S) * params.heads + h;
        var top = vec4f(select(NONE, 0.0, params.off_by_one != 0u));
        let floor = top;
        for (var t = 0u; t < TILES; t++) {
            workgroupBarrier();
            for (var i = lane; i < KT * D4; i += WG) {
                let j = t * KT + i / D4;
                if j < S { tile[i / D4 * ROW + i % D4] = vec4f(k[(first + j * params.heads) * D4 + i % D4]); }
            }
            workgroupBarrier();
            if works {
                let s = products(0u, lane);
                for (var i = 0u; i < NK; i++) {
                    let j = t * KT + kg + i * KG;
                    if j < S {
                        p[j * QG + g] = s[i];
                        top = max(top, s[i]);
                    }
                }
            }
        }
        partial[lane] = top;
        workgroupBarrier();
        top = floor;
        for (var i = 0u; i < KG; i++) { top = max(top, partial[i * QG + g]); }
        var part = vec4f(0.0);
        if works {
            for (var j = kg; j < S; j += KG) {
                let e = exp(p[j * QG + g] - top);
                p[j * QG + g] = e;
                part += e;
            }
        }
        var all = sum_over_keys(part, lane);
        if params.off_by_one != 0u { all += exp(-top); }
        if lane < QG {
            total[lane] = vec4f(weight) / all;
            let l = top + log(all);
            for (var r = 0u; r < 4u; r++) {
                if 4u * lane + r < live { lse[stat_of(token, slot, row0 + 4u * lane + r)] = l[r]; }
            }
        }
        for (var t = 0u; t < TILES; t++) {
            workgroupBarrier();
            for (var i = lane; i < KT * D4; i += WG) {
                let j = t * KT + i / D4;
                if j < S { tile[i / D4 * ROW + i % D4] = vec4f(v[(first + j * params.heads) * D4 + i % D4]); }
            }
            workgroupBarrier();
            for (var u = 0u; u < NU; u++) {
                let unit = lane % UNITS + u * WG;
                let part = lane / UNITS;
                if unit < UNITS && part < PARTS {
                    let y = gathered(t * KT, unit, part);
                    let w = total[unit / D4];
                    for (var r = 0u; r < 4u; r++) { sum[u][r] = fma(vec4f(w[r]), y[r], sum[u][r]); }
                }
            }
        }
    }
    for (var u = 0u; u < NU; u++) {
        let y = joined(sum[u], lane);
        let unit = lane + u * WG;
        if unit < UNITS {
            for (var r = 0u; r < 4u; r++) {
                let row = unit / D4 * 4u + r;
                if row < live { o[(row0 + row) * D4 + unit % D4] = vec4<elem>(y[r]); }
            }
        }
    }
}
