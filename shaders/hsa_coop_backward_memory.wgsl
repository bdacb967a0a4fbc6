// uses: lib/grid.wgsl, lib/four.wgsl, lib/hsa_stat.wgsl
// variants: D=64 S=64 APART=0 | D=16 S=16
// hsa_backward_memory.wgsl on cooperative matrices: a workgroup owns a chunk, each subgroup 16 of its keys, and visits the
// slots of a piece, 16 query heads at a time. Queries and do pass through workgroup memory for all, while the next are
// under way into registers. Probabilities are (keys, heads), so that nothing is transposed. Scores and slopes leave the
// matrices through memory of their own, or in turn through the same: two more barriers cost less than a workgroup that has
// a multiprocessor for itself.
const D: u32 = 32u;                                                   // head dim, a multiple of 16
const S: u32 = 64u;                                                   // chunk, a multiple of 16
const APART: u32 = 1u;                                                // 1: scores and slopes in memory of their own
const SG: u32 = S / 16u;                                              // subgroups
const WG: u32 = 32u * SG;
const DT: u32 = D / 16u;
const E: u32 = D / 8u;                                                // a row in units of eight
const U: u32 = (16u * E + WG - 1u) / WG;                              // units a lane, of q and of do
const QROW: u32 = D / 4u + 2u;                                        // in fours, different banks
const ROW: u32 = 6u;                                                  // of 16 scores, in fours: banks differ
const PROW: u32 = 6u;                                                 // in fours
struct Params {
    tokens: u32, keys: u32, query_heads: u32, heads: u32, slots: u32, joint: u32, chunk: u32, scale: f32, groups: u32,
    chunks: u32, values: u32, lists: u32, list_heads: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // list_heads = heads a list serves
@group(0) @binding(1) var<storage, read> q: array<vec4u>;             // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> dout: array<vec4u>;          // (batches, tokens, query heads, d)
@group(0) @binding(3) var<storage, read> kv: array<f16>;              // k, then v: (2, batches, keys, heads, d)
@group(0) @binding(4) var<storage, read> weights: array<f32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(5) var<storage, read> stats: array<vec2f>;         // (batches, tokens, slots, query heads): lse, D_i
@group(0) @binding(6) var<storage, read> order: array<u32>;           // slots by (batch, head, chunk)
@group(0) @binding(7) var<storage, read> pieces: array<vec4u>;        // (pieces): list, begin, end
@group(0) @binding(8) var<storage, read_write> partial: array<f32>;   // (pieces, list heads, chunk, dk and dv, d)

var<workgroup> own: vec4u;                                            // the piece
var<workgroup> q_rows: array<vec4<f16>, 2u * 16u * QROW>;             // in two buffers
var<workgroup> do_rows: array<vec4<f16>, 2u * 16u * QROW>;
var<workgroup> scores: array<vec4f, SG * 16u * ROW * (1u + APART)>;   // (key, head): k · q, then v · do
var<workgroup> p: array<vec4<f16>, SG * 16u * PROW>;
var<workgroup> ds: array<vec4<f16>, SG * 16u * PROW>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let unit = group.y * GRID_WIDTH + group.x;                        // naga takes no call for uniform
    if unit >= params.groups { return; }                              // uniform
    let list_head = unit % params.list_heads;
    let place = unit / params.list_heads;
    if index == 0u { own = pieces[place]; }
    let piece = workgroupUniformLoad(&own);
    if piece.x >= params.lists { return; }                            // uniform: room that no list needs
    let chunk = piece.x % params.chunks;
    let h = select(piece.x / params.chunks % params.heads, list_head, params.joint != 0u);
    let b = select(piece.x / params.chunks / params.heads, piece.x / params.chunks, params.joint != 0u);
    let share = params.query_heads / params.heads;
    let tiles = share / 16u;
    let first = ((b * params.keys + chunk * S + subgroup * 16u) * params.heads + h) * D;
    // Two lanes a key, which take its fours of heads by turns.
    let key = lane / 2u;
    let side = lane % 2u;
    let mine = subgroup * 16u;
    let slopes = APART * SG * 16u * ROW;                              // where they begin
    var keys: array<coop_mat16x16<f16, A>, DT>;
    var values: array<coop_mat16x16<f16, A>, DT>;
    for (var c = 0u; c < DT; c++) { // unroll
        let at = first + c * 16u;
        let value_at = params.values + at;
        keys[c] = coopLoadT<coop_mat16x16<f16, A>>(&kv[at], params.heads * D);
        values[c] = coopLoadT<coop_mat16x16<f16, A>>(&kv[value_at], params.heads * D);
    }
    var dk: array<coop_mat16x16<f32, C>, DT>;
    var dv: array<coop_mat16x16<f32, C>, DT>;
    let rounds = (piece.z - piece.y) * tiles;
    var next_q: array<vec4u, U>;
    var next_do: array<vec4u, U>;
    var next_stat: array<vec2f, 8>;
    // (batch, token[, head], slot) → token over batches. Rounds are numbered slot by slot, then by tiles of heads.
    var slot = order[piece.y];
    var row0 = select(slot / params.slots / params.heads, slot / params.slots, params.joint != 0u) * params.query_heads + h * share;
    for (var u = 0u; u < U; u++) { // unroll
        let i = index + u * WG;
        if i < 16u * E {
            next_q[u] = q[row0 * E + i];
            next_do[u] = dout[row0 * E + i];
        }
    }
    for (var u = 0u; u < U; u++) { // unroll
        let i = index + u * WG;
        if i < 16u * E {
            let at = i / E * QROW + i % E * 2u;
            q_rows[at] = four(next_q[u].xy);
            q_rows[at + 1u] = four(next_q[u].zw);
            do_rows[at] = four(next_do[u].xy);
            do_rows[at + 1u] = four(next_do[u].zw);
        }
    }
    var weight = weights[slot];
    var kept = stat_of(row0 / params.query_heads, slot % params.slots, row0);
    for (var i = 0u; i < 8u; i++) { // unroll
        let head = i / 4u * 8u + side * 4u + i % 4u;
        next_stat[i] = stats[kept + head];
    }
    slot = order[piece.y + min(1u, rounds - 1u) / tiles];
    row0 = select(slot / params.slots / params.heads, slot / params.slots, params.joint != 0u) * params.query_heads + h * share
         + 1u % tiles * 16u;
    for (var u = 0u; u < U; u++) { // unroll
        let i = index + u * WG;
        if i < 16u * E {
            next_q[u] = q[row0 * E + i];
            next_do[u] = dout[row0 * E + i];
        }
    }
    var coming = order[piece.y + min(2u, rounds - 1u) / tiles];
    workgroupBarrier();
    for (var round = 0u; round < rounds; round++) {
        let full = round % 2u * 16u * QROW;
        let empty = (round + 1u) % 2u * 16u * QROW;
        var s: coop_mat16x16<f32, C>;
        var dp: coop_mat16x16<f32, C>;
        for (var c = 0u; c < DT; c++) { // unroll
            let at = full + c * 4u;
            let queries = coopLoad<coop_mat16x16<f16, B>>(&q_rows[at], QROW);
            let douts = coopLoad<coop_mat16x16<f16, B>>(&do_rows[at], QROW);
            s = coopMultiplyAdd(keys[c], queries, s);
            dp = coopMultiplyAdd(values[c], douts, dp);
        }
        let to = mine * ROW;
        let slopes_to = to + slopes;
        coopStoreT(s, &scores[to], ROW);
        if APART == 1u { coopStoreT(dp, &scores[slopes_to], ROW); }
        workgroupBarrier();
        var held: array<vec4f, 2>;                                    // k · q
        for (var j = 0u; j < 2u; j++) { held[j] = scores[(mine + key) * ROW + 2u * j + side]; } // unroll
        if APART == 0u {
            workgroupBarrier();
            coopStoreT(dp, &scores[to], ROW);
            workgroupBarrier();
        }
        for (var u = 0u; u < U; u++) { // unroll
            let i = index + u * WG;
            if i < 16u * E {
                let at = empty + i / E * QROW + i % E * 2u;
                q_rows[at] = four(next_q[u].xy);
                q_rows[at + 1u] = four(next_q[u].zw);
                do_rows[at] = four(next_do[u].xy);
                do_rows[at + 1u] = four(next_do[u].zw);
            }
        }
        for (var j = 0u; j < 2u; j++) { // unroll
            var top: vec4f;                                           // lse
            var dot: vec4f;                                           // D_i
            for (var i = 0u; i < 4u; i++) { // unroll
                top[i] = next_stat[4u * j + i].x;
                dot[i] = next_stat[4u * j + i].y;
            }
            let at = (mine + key) * ROW + 2u * j + side;
            let prob = weight * exp(min(held[j] * params.scale - top, vec4f(0.0)));
            let to_ = (mine + key) * PROW + 2u * j + side;
            p[to_] = vec4<f16>(prob);
            ds[to_] = vec4<f16>(prob * (scores[slopes + at] - dot) * params.scale);
        }
        // The next round's statistics, and the queries of the one after it.
        weight = weights[slot];
        kept = stat_of(row0 / params.query_heads, slot % params.slots, row0);
        for (var i = 0u; i < 8u; i++) { // unroll
            let head = i / 4u * 8u + side * 4u + i % 4u;
            next_stat[i] = stats[kept + head];
        }
        slot = coming;
        row0 = select(slot / params.slots / params.heads, slot / params.slots, params.joint != 0u) * params.query_heads + h * share
             + (round + 2u) % tiles * 16u;
        for (var u = 0u; u < U; u++) { // unroll
            let i = index + u * WG;
            if i < 16u * E {
                next_q[u] = q[row0 * E + i];
                next_do[u] = dout[row0 * E + i];
            }
        }
        coming = order[piece.y + min(round + 3u, rounds - 1u) / tiles];
        workgroupBarrier();
        let from_ = mine * PROW;
        let left = coopLoadT<coop_mat16x16<f16, A>>(&p[from_], PROW);
        let left_ds = coopLoadT<coop_mat16x16<f16, A>>(&ds[from_], PROW);
        for (var c = 0u; c < DT; c++) { // unroll
            let at = full + c * 4u;
            let queries = coopLoadT<coop_mat16x16<f16, B>>(&q_rows[at], QROW);
            let douts = coopLoadT<coop_mat16x16<f16, B>>(&do_rows[at], QROW);
            dk[c] = coopMultiplyAdd(left_ds, queries, dk[c]);
            dv[c] = coopMultiplyAdd(left, douts, dv[c]);
        }
    }
    let out = ((place * params.list_heads + list_head) * S + mine) * 2u * D;
    for (var c = 0u; c < DT; c++) { // unroll
        let at = out + c * 16u;
        let value_at = at + D;
        let tile = dk[c];
        let value_tile = dv[c];
        coopStoreT(tile, &partial[at], 2u * D);
        coopStoreT(value_tile, &partial[value_at], 2u * D);
    }
}
