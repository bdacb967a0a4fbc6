// uses: lib/grid.wgsl, lib/four.wgsl, lib/hsa_stat.wgsl
// variants: D=64 | D=16 S=16 | D=32 S=128
// hsa_backward_query.wgsl on cooperative matrices, laid out as hsa_coop.wgsl: one subgroup takes 16 query heads of a token.
// Values, then keys pass through workgroup memory 16 at a time, keys once more for dq; the next AHEAD tiles are under way.
const D: u32 = 32u;                                                   // head dim, a power of two from 16 on
const S: u32 = 64u;                                                   // chunk, a multiple of 16
const WG: u32 = 32u;                                                  // one subgroup
const DT: u32 = D / 16u;                                              // tiles of dims; units a lane of 16 keys
const ST: u32 = S / 16u;
const E: u32 = D / 8u;                                                // a row in units of eight
const LINES: u32 = WG / E;                                            // rows that the lanes load at once
const AHEAD: u32 = select(ST, 2u, ST == 8u);                          // tiles, as registers hold; divides 3 · ST
const N: u32 = 2u * ST;                                               // quads of keys a lane
const ROW: u32 = 6u;                                                  // of 16 scores, in fours: banks differ
const PROW: u32 = 6u;                                                 // of 16 ds, in fours
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
@group(0) @binding(5) var<storage, read> lse: array<f32>;             // (batches, tokens, slots, query heads)
@group(0) @binding(6) var<storage, read> dout: array<f16>;            // (batches, tokens, query heads, d)
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f16>>;  // (batches, tokens, query heads, d)
@group(0) @binding(8) var<storage, read_write> stats: array<vec2f>;   // (batches, tokens, slots, query heads): lse, D_i

var<workgroup> rows: array<vec4<f16>, 16u * KROW>;                    // of keys or values
var<workgroup> scores: array<vec4f, 16u * ROW>;                       // do · v, then q · k; or 16 dims of the sums
var<workgroup> ds: array<vec4<f16>, 16u * PROW>;                      // (head, key), of one tile

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
    let unit = group.y * GRID_WIDTH + group.x;                        // naga takes no call for uniform
    if unit >= params.groups { return; }                              // uniform
    let h = (unit / params.tiles) % params.heads;
    let token = unit / params.tiles / params.heads;                   // over batches
    let b = token / params.tokens;
    let share = params.query_heads / params.heads;
    let row0 = token * params.query_heads + h * share + (unit % params.tiles) * 16u;
    let selected = select(token * params.heads + h, token, params.joint != 0u) * params.slots;
    let stride = params.heads * E;
    let origin = (b * params.keys * params.heads + h) * E + lane / E * stride + lane % E;
    let values_at = params.values / 8u;
    let step = LINES * stride;
    let to = lane / E * KROW + lane % E * 2u;
    let row = lane / 2u;
    let side = lane % 2u;
    var queries: array<coop_mat16x16<f16, A>, DT>;
    var douts: array<coop_mat16x16<f16, A>, DT>;
    for (var c = 0u; c < DT; c++) { // unroll
        let at = row0 * D + c * 16u;
        queries[c] = coopLoadT<coop_mat16x16<f16, A>>(&q[at], D);
        douts[c] = coopLoadT<coop_mat16x16<f16, A>>(&dout[at], D);
    }
    var sum: array<coop_mat16x16<f32, C>, DT>;
    var next: array<vec4u, AHEAD * DT>;
    var from_ = origin + indices[selected] * S * stride;
    for (var u = 0u; u < AHEAD * DT; u++) { next[u] = kv[values_at + from_ + u * step]; } // unroll
    for (var slot = 0u; slot < params.slots; slot++) {
        let weight = weights[selected + slot];
        let l = lse[stat_of(token, slot, row0 + row)];
        let coming = origin + indices[selected + min(slot + 1u, params.slots - 1u)] * S * stride;
        var e: array<vec4f, N>;
        var m: array<vec4f, N>;
        var parts = vec4f(0.0);
        for (var t = 0u; t < ST; t++) { // unroll
            for (var u = 0u; u < DT; u++) { // unroll
                let place = t % AHEAD * DT + u;
                rows[to + u * LINES * KROW] = four(next[place].xy);
                rows[to + u * LINES * KROW + 1u] = four(next[place].zw);
            }
            for (var u = 0u; u < DT; u++) { // unroll
                let place = t % AHEAD * DT + u;
                let unit_at = (t + AHEAD) % ST * DT + u;
                if t + AHEAD < ST { next[place] = kv[values_at + from_ + unit_at * step]; } else { next[place] = kv[from_ + unit_at * step]; }
            }
            workgroupBarrier();
            var s: coop_mat16x16<f32, C>;
            for (var c = 0u; c < DT; c++) { // unroll
                let at = c * 4u;
                let values = coopLoad<coop_mat16x16<f16, B>>(&rows[at], KROW);
                s = coopMultiplyAdd(douts[c], values, s);
            }
            coopStoreT(s, &scores[0], ROW);
            workgroupBarrier();
            for (var i = 0u; i < 2u; i++) { // unroll
                m[2u * t + i] = scores[row * ROW + 2u * i + side];
            }
        }
        for (var t = 0u; t < ST; t++) { // unroll
            for (var u = 0u; u < DT; u++) { // unroll
                let place = (t + ST) % AHEAD * DT + u;
                rows[to + u * LINES * KROW] = four(next[place].xy);
                rows[to + u * LINES * KROW + 1u] = four(next[place].zw);
            }
            for (var u = 0u; u < DT; u++) { // unroll
                let place = (t + ST) % AHEAD * DT + u;
                let unit_at = (t + AHEAD) % ST * DT + u;
                next[place] = kv[from_ + unit_at * step];
            }
            workgroupBarrier();
            var s: coop_mat16x16<f32, C>;
            for (var c = 0u; c < DT; c++) { // unroll
                let at = c * 4u;
                let keys = coopLoad<coop_mat16x16<f16, B>>(&rows[at], KROW);
                s = coopMultiplyAdd(queries[c], keys, s);
            }
            coopStoreT(s, &scores[0], ROW);
            workgroupBarrier();
            for (var i = 0u; i < 2u; i++) { // unroll
                let score = scores[row * ROW + 2u * i + side];
                e[2u * t + i] = exp(min(score * params.scale - l, vec4f(0.0)));
                parts += e[2u * t + i] * m[2u * t + i];
            }
        }
        var dot = parts.x + parts.y + parts.z + parts.w;
        dot += subgroupShuffleXor(dot, 1u);
        if side == 0u { stats[stat_of(token, slot, row0 + row)] = vec2f(l, dot); }
        for (var t = 0u; t < ST; t++) { // unroll
            for (var u = 0u; u < DT; u++) { // unroll
                let place = (t + 2u * ST) % AHEAD * DT + u;
                rows[to + u * LINES * KROW] = four(next[place].xy);
                rows[to + u * LINES * KROW + 1u] = four(next[place].zw);
            }
            for (var i = 0u; i < 2u; i++) { ds[row * PROW + 2u * i + side] = vec4<f16>(weight * e[2u * t + i] * (m[2u * t + i] - dot)); } // unroll
            for (var u = 0u; u < DT; u++) { // unroll
                let place = (t + 2u * ST) % AHEAD * DT + u;
                let unit_at = (t + AHEAD) % ST * DT + u;
                if t + AHEAD < ST { next[place] = kv[from_ + unit_at * step]; } else { next[place] = kv[values_at + coming + unit_at * step]; }
            }
            workgroupBarrier();
            let left = coopLoadT<coop_mat16x16<f16, A>>(&ds[0], PROW);
            for (var c = 0u; c < DT; c++) { // unroll
                let at = c * 4u;
                let keys = coopLoadT<coop_mat16x16<f16, B>>(&rows[at], KROW);
                sum[c] = coopMultiplyAdd(left, keys, sum[c]);
            }
            workgroupBarrier();
        }
        from_ = coming;
    }
    for (var c = 0u; c < DT; c++) { // unroll
        let tile = sum[c];
        coopStoreT(tile, &scores[0], ROW);
        workgroupBarrier();
        for (var i = 0u; i < 2u; i++) { // unroll
            let quad = 2u * i + side;
            dq[(row0 + row) * (D / 4u) + c * 4u + quad] = vec4<f16>(scores[row * ROW + quad] * params.scale);
        }
        workgroupBarrier();
    }
}
