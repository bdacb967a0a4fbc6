// uses: lib/grid.wgsl
// variants: D=64 | D=16
// hsa_backward_memory.wgsl on cooperative matrices: one subgroup owns 16 keys of a chunk and visits the slots of a piece,
// 16 query heads at a time. Probabilities are (keys, heads), so that nothing is transposed.
const D: u32 = 32u;                                                   // head dim, a multiple of 16
const WG: u32 = 32u;                                                  // one subgroup
const DT: u32 = D / 16u;
const ROW: u32 = 20u;                                                 // rows start at multiples of 16 bytes
const PROW: u32 = 24u;
struct Params {
    tokens: u32, keys: u32, query_heads: u32, heads: u32, slots: u32, joint: u32, chunk: u32, scale: f32, groups: u32,
    blocks: u32, chunks: u32, values: u32, lists: u32, list_heads: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // blocks = chunk / 16, list_heads = heads a list serves
@group(0) @binding(1) var<storage, read> q: array<f16>;               // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> dout: array<f16>;            // (batches, tokens, query heads, d)
@group(0) @binding(3) var<storage, read> kv: array<f16>;              // k, then v: (2, batches, keys, heads, d)
@group(0) @binding(4) var<storage, read> weights: array<f32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(5) var<storage, read> stats: array<vec2f>;         // (batches, tokens, query heads, slots): lse, D_i
@group(0) @binding(6) var<storage, read> order: array<u32>;           // slots by (batch, head, chunk)
@group(0) @binding(7) var<storage, read> pieces: array<vec4u>;        // (pieces): list, begin, end
@group(0) @binding(8) var<storage, read_write> partial: array<f32>;   // (pieces, list heads, chunk, dk and dv, d)

var<workgroup> own: vec4u;                                          // the piece
var<workgroup> scores: array<f32, 16u * ROW>;                         // (key, head)
var<workgroup> slopes: array<f32, 16u * ROW>;                         // v · do
var<workgroup> p: array<f16, 16u * PROW>;
var<workgroup> ds: array<f16, 16u * PROW>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if index >= params.groups { return; }                             // uniform
    let block = index % params.blocks;
    let list_head = (index / params.blocks) % params.list_heads;
    let place = index / params.blocks / params.list_heads;
    if lane == 0u { own = pieces[place]; }
    let piece = workgroupUniformLoad(&own);
    if piece.x >= params.lists { return; }                            // uniform: room that no list needs
    let chunk = piece.x % params.chunks;
    let h = select(piece.x / params.chunks % params.heads, list_head, params.joint != 0u);
    let b = select(piece.x / params.chunks / params.heads, piece.x / params.chunks, params.joint != 0u);
    let share = params.query_heads / params.heads;
    let first = ((b * params.keys + chunk * params.chunk + block * 16u) * params.heads + h) * D;
    let row = lane % 16u;
    let key0 = lane / 16u * 8u;
    var keys: array<coop_mat16x16<f16, A>, DT>;
    var values: array<coop_mat16x16<f16, A>, DT>;
    for (var c = 0u; c < DT; c++) {
        let at = first + c * 16u;
        let value_at = params.values + at;
        keys[c] = coopLoadT<coop_mat16x16<f16, A>>(&kv[at], params.heads * D);
        values[c] = coopLoadT<coop_mat16x16<f16, A>>(&kv[value_at], params.heads * D);
    }
    var dk: array<coop_mat16x16<f32, C>, DT>;
    var dv: array<coop_mat16x16<f32, C>, DT>;
    for (var i = piece.y; i < piece.z; i++) {
        let slot = order[i];
        let weight = weights[slot];
        // (batch, token[, head], slot) → token over batches.
        let token = select(slot / params.slots / params.heads, slot / params.slots, params.joint != 0u);
        for (var q0 = 0u; q0 < share; q0 += 16u) {
            let row0 = token * params.query_heads + h * share + q0;
            var s: coop_mat16x16<f32, C>;
            var dp: coop_mat16x16<f32, C>;
            for (var c = 0u; c < DT; c++) {
                let at = row0 * D + c * 16u;
                let queries = coopLoad<coop_mat16x16<f16, B>>(&q[at], D);
                let douts = coopLoad<coop_mat16x16<f16, B>>(&dout[at], D);
                s = coopMultiplyAdd(keys[c], queries, s);
                dp = coopMultiplyAdd(values[c], douts, dp);
            }
            coopStoreT(s, &scores[0], ROW);
            coopStoreT(dp, &slopes[0], ROW);
            workgroupBarrier();
            let stat = stats[(row0 + row) * params.slots + slot % params.slots];
            for (var j = key0; j < key0 + 8u; j++) {
                let prob = weight * exp(min(scores[j * ROW + row] * params.scale - stat.x, 0.0));
                p[j * PROW + row] = f16(prob);
                ds[j * PROW + row] = f16(prob * (slopes[j * ROW + row] - stat.y) * params.scale);
            }
            workgroupBarrier();
            let left = coopLoadT<coop_mat16x16<f16, A>>(&p[0], PROW);
            let left_ds = coopLoadT<coop_mat16x16<f16, A>>(&ds[0], PROW);
            for (var c = 0u; c < DT; c++) {
                let at = row0 * D + c * 16u;
                let queries = coopLoadT<coop_mat16x16<f16, B>>(&q[at], D);
                let douts = coopLoadT<coop_mat16x16<f16, B>>(&dout[at], D);
                dk[c] = coopMultiplyAdd(left_ds, queries, dk[c]);
                dv[c] = coopMultiplyAdd(left, douts, dv[c]);
            }
        }
    }
    let out = ((place * params.list_heads + list_head) * params.chunk + block * 16u) * 2u * D;
    for (var c = 0u; c < DT; c++) {
        let at = out + c * 16u;
        let value_at = at + D;
        let tile = dk[c];
        let value_tile = dv[c];
        coopStoreT(tile, &partial[at], 2u * D);
        coopStoreT(value_tile, &partial[value_at], 2u * D);
    }
}
