// uses: lib/grid.wgsl, lib/four.wgsl, lib/hsa_softmax.wgsl, lib/hsa_stat.wgsl
// variants: D=64 T=8 PIECES=4 BLOCK=8 | D=16 S=16 | D=64
// hsa.wgsl on cooperative matrices: one subgroup takes 16 query heads of T tokens, one after the other, but for blocks that
// hsa_coop_neighbours.wgsl has done. Runs of T tokens from the whole-th on go to PIECES of them: of the last ones to end, each
// has less to do. Keys, then values of a chunk pass through workgroup memory 16 at a time, while those that
// follow are under way into registers: the less memory and the fewer registers a subgroup takes, the more of them are under
// way. Scores leave the matrices through workgroup memory, where two lanes a row take their softmax; weights · probabilities
// go back as f16.
const D: u32 = 32u;                                                   // head dim, a power of two from 16 on
const S: u32 = 64u;                                                   // chunk, a multiple of 16
const T: u32 = 1u;                                                    // tokens a subgroup, which divide a block
const PIECES: u32 = 1u;                                               // of a run that is cut
const BLOCK: u32 = 0u;                                                // tokens of a block; 0: none is done
const WG: u32 = 32u;                                                  // one subgroup
const DT: u32 = D / 16u;                                              // tiles of dims; units a lane of 16 keys
const ST: u32 = S / 16u;
const E: u32 = D / 8u;                                                // a row in units of eight
const LINES: u32 = WG / E;                                            // rows that the lanes load at once
const U: u32 = ST * DT;                                               // units a lane
const N: u32 = 2u * ST;                                               // quads of keys a lane
const ROW: u32 = 6u;                                                  // of 16 scores, in fours: banks differ
const PROW: u32 = 6u;                                                 // of 16 probabilities, in fours
const KROW: u32 = D / 4u + 2u;
struct Params {
    tokens: u32, keys: u32, query_heads: u32, heads: u32, slots: u32, joint: u32, off_by_one: u32, scale: f32,
    tiles: u32, whole: u32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // joint: 1 where all heads share a selection
@group(0) @binding(1) var<storage, read> q: array<f16>;               // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> k: array<vec4u>;             // (batches, keys, heads, d), eights of f16
@group(0) @binding(3) var<storage, read> v: array<vec4u>;             // (batches, keys, heads, d)
@group(0) @binding(4) var<storage, read> weights: array<f32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(5) var<storage, read> indices: array<u32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(6) var<storage, read> done: array<u32>;            // (batches, blocks, heads or 1): 1 where it is
@group(0) @binding(7) var<storage, read_write> o: array<vec4<f16>>;   // (batches, tokens, query heads, d)
@group(0) @binding(8) var<storage, read_write> lse: array<f32>;       // (batches, tokens, slots, query heads)

var<workgroup> rows: array<vec4<f16>, 16u * KROW>;                    // of keys or values
var<workgroup> scores: array<vec4f, 16u * ROW>;                       // (head, key); or 16 dims of the sums
var<workgroup> p: array<vec4<f16>, 16u * PROW>;                       // (head, key), of one tile

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
    let unit = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if unit >= params.groups { return; }                             // uniform
    let h = (unit / params.tiles) % params.heads;
    let place = unit / params.tiles / params.heads;
    let cut = place >= params.whole;
    let piece = place - params.whole;
    let run = select(place, params.whole + piece / PIECES, cut);     // of T tokens, over batches
    let runs = (params.tokens + T - 1u) / T;                         // of a sequence
    let b = run / runs;
    let first = run % runs * T + select(0u, piece % PIECES * (T / PIECES), cut);
    if first >= params.tokens { return; }                            // uniform
    let token = b * params.tokens + first;                           // over batches
    let count = min(select(T, T / PIECES, cut), params.tokens - first);
    let share = params.query_heads / params.heads;
    let row0 = token * params.query_heads + h * share + (unit % params.tiles) * 16u;
    let apart = select(params.heads, 1u, params.joint != 0u) * params.slots;
    let selected = token * apart + select(h * params.slots, 0u, params.joint != 0u);
    let stride = params.heads * E;
    let origin = (b * params.keys * params.heads + h) * E + lane / E * stride + lane % E;
    let step = LINES * stride;
    let to = lane / E * KROW + lane % E * 2u;
    let row = lane / 2u;
    let side = lane % 2u;
    var from_ = origin + indices[selected] * S * stride;
    if BLOCK > 0u {
        // A sequence's last tokens, fewer than a block, are never done.
        let blocks = params.tokens / max(BLOCK, 1u);
        let block = first / max(BLOCK, 1u);
        let by_head = select(params.heads, 1u, params.joint != 0u);
        let of_block = (b * blocks + min(block, blocks - 1u)) * by_head + select(h, 0u, params.joint != 0u);
        if done[of_block] * select(0u, 1u, block < blocks) != 0u { return; }  // uniform
    }
    var next: array<vec4u, U>;
    for (var u = 0u; u < U; u++) { next[u] = k[from_ + u * step]; } // unroll
    for (var j = 0u; j < count; j++) {
        let row1 = row0 + j * params.query_heads;
        let chosen = selected + j * apart;
        var queries: array<coop_mat16x16<f16, A>, DT>;
        for (var c = 0u; c < DT; c++) { // unroll
            let at = row1 * D + c * 16u;
            queries[c] = coopLoadT<coop_mat16x16<f16, A>>(&q[at], D);
        }
        var sum: array<coop_mat16x16<f32, C>, DT>;
        for (var slot = 0u; slot < params.slots; slot++) {
            let weight = weights[chosen + slot];
            let then = select(chosen + slot + 1u, chosen + select(0u, apart, j + 1u < count), slot + 1u == params.slots);
            let coming = origin + indices[then] * S * stride;
            var e: array<vec4f, N>;
            for (var t = 0u; t < ST; t++) { // unroll
                for (var u = 0u; u < DT; u++) { // unroll
                    rows[to + u * LINES * KROW] = four(next[t * DT + u].xy);
                    rows[to + u * LINES * KROW + 1u] = four(next[t * DT + u].zw);
                }
                for (var u = 0u; u < DT; u++) { next[t * DT + u] = v[from_ + (t * DT + u) * step]; } // unroll
                workgroupBarrier();
                var s: coop_mat16x16<f32, C>;
                for (var c = 0u; c < DT; c++) { // unroll
                    let at = c * 4u;
                    let keys = coopLoad<coop_mat16x16<f16, B>>(&rows[at], KROW);
                    s = coopMultiplyAdd(queries[c], keys, s);
                }
                coopStoreT(s, &scores[0], ROW);
                workgroupBarrier();
                for (var i = 0u; i < 2u; i++) { e[2u * t + i] = scores[row * ROW + 2u * i + side]; } // unroll
            }
            let all = softmax(&e);
            let factor = weight / all.x;
            if side == 0u { lse[stat_of(token + j, slot, row1 + row)] = all.y + log(all.x); }
            for (var t = 0u; t < ST; t++) { // unroll
                for (var u = 0u; u < DT; u++) { // unroll
                    rows[to + u * LINES * KROW] = four(next[t * DT + u].xy);
                    rows[to + u * LINES * KROW + 1u] = four(next[t * DT + u].zw);
                }
                for (var i = 0u; i < 2u; i++) { p[row * PROW + 2u * i + side] = vec4<f16>(e[2u * t + i] * factor); } // unroll
                for (var u = 0u; u < DT; u++) { next[t * DT + u] = k[coming + (t * DT + u) * step]; } // unroll
                workgroupBarrier();
                let left = coopLoadT<coop_mat16x16<f16, A>>(&p[0], PROW);
                for (var c = 0u; c < DT; c++) { // unroll
                    let at = c * 4u;
                    let values = coopLoadT<coop_mat16x16<f16, B>>(&rows[at], KROW);
                    sum[c] = coopMultiplyAdd(left, values, sum[c]);
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
                o[(row1 + row) * (D / 4u) + c * 4u + quad] = vec4<f16>(scores[row * ROW + quad]);
            }
            workgroupBarrier();
        }
    }
}
