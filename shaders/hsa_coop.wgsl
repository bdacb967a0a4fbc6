// uses: lib/grid.wgsl
// variants: D=64 | D=16 S=16
// hsa.wgsl on cooperative matrices: one subgroup takes 16 query heads of a token. Scores leave the matrices through
// workgroup memory, where two lanes a row take their softmax; weights · probabilities go back as f16.
const D: u32 = 32u;                                                   // head dim, a multiple of 16
const S: u32 = 64u;                                                   // chunk, a multiple of 16
const WG: u32 = 32u;                                                  // one subgroup
const DT: u32 = D / 16u;
const ST: u32 = S / 16u;
const N: u32 = S / 2u;                                                // keys a lane
const ROW: u32 = max(S, D) + 4u;                                      // rows start at multiples of 16 bytes
const PROW: u32 = S + 8u;
struct Params {
    tokens: u32, keys: u32, query_heads: u32, heads: u32, slots: u32, joint: u32, off_by_one: u32, scale: f32,
    tiles: u32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // joint: 1 where all heads share a selection
@group(0) @binding(1) var<storage, read> q: array<f16>;               // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> k: array<f16>;               // (batches, keys, heads, d)
@group(0) @binding(3) var<storage, read> v: array<f16>;               // (batches, keys, heads, d)
@group(0) @binding(4) var<storage, read> weights: array<f32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(5) var<storage, read> indices: array<u32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(6) var<storage, read_write> o: array<f16>;         // (batches, tokens, query heads, d)
@group(0) @binding(7) var<storage, read_write> lse: array<f32>;       // (batches, tokens, query heads, slots)

const NONE: f32 = -3.0e38;
var<workgroup> scores: array<f32, 16u * ROW>;
var<workgroup> p: array<f16, 16u * PROW>;
var<workgroup> tops: array<f32, WG>;
var<workgroup> sums: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if index >= params.groups { return; }                             // uniform
    let h = (index / params.tiles) % params.heads;
    let token = index / params.tiles / params.heads;                  // over batches
    let b = token / params.tokens;
    let share = params.query_heads / params.heads;
    let row0 = token * params.query_heads + h * share + (index % params.tiles) * 16u;
    let selected = select(token * params.heads + h, token, params.joint != 0u) * params.slots;
    let stride = params.heads * D;
    let row = lane / 2u;
    let side = lane % 2u;
    var queries: array<coop_mat16x16<f16, A>, DT>;
    for (var c = 0u; c < DT; c++) {
        let at = row0 * D + c * 16u;
        queries[c] = coopLoadT<coop_mat16x16<f16, A>>(&q[at], D);
    }
    var sum: array<coop_mat16x16<f32, C>, DT>;
    for (var slot = 0u; slot < params.slots; slot++) {
        let weight = weights[selected + slot];
        let first = ((b * params.keys + indices[selected + slot] * S) * params.heads + h) * D;
        for (var t = 0u; t < ST; t++) {
            var s: coop_mat16x16<f32, C>;
            for (var c = 0u; c < DT; c++) {
                let at = first + t * 16u * stride + c * 16u;
                let keys = coopLoad<coop_mat16x16<f16, B>>(&k[at], stride);
                s = coopMultiplyAdd(queries[c], keys, s);
            }
            let to = t * 16u;
            coopStoreT(s, &scores[to], ROW);
        }
        workgroupBarrier();
        var e: array<f32, N>;
        var top = select(NONE, 0.0, params.off_by_one != 0u);
        for (var i = 0u; i < N; i++) {
            e[i] = scores[row * ROW + 2u * i + side] * params.scale;
            top = max(top, e[i]);
        }
        tops[lane] = top;
        workgroupBarrier();
        top = max(top, tops[lane ^ 1u]);
        var part = 0.0;
        for (var i = 0u; i < N; i++) {
            e[i] = exp(e[i] - top);
            part += e[i];
        }
        sums[lane] = part;
        workgroupBarrier();
        var all = sums[2u * row] + sums[2u * row + 1u];
        if params.off_by_one != 0u { all += exp(-top); }
        if side == 0u { lse[(row0 + row) * params.slots + slot] = top + log(all); }
        let factor = weight / all;
        for (var i = 0u; i < N; i++) { p[row * PROW + 2u * i + side] = f16(e[i] * factor); }
        workgroupBarrier();
        for (var t = 0u; t < ST; t++) {
            let at_key = t * 16u;
            let left = coopLoadT<coop_mat16x16<f16, A>>(&p[at_key], PROW);
            for (var c = 0u; c < DT; c++) {
                let at = first + t * 16u * stride + c * 16u;
                let values = coopLoadT<coop_mat16x16<f16, B>>(&v[at], stride);
                sum[c] = coopMultiplyAdd(left, values, sum[c]);
            }
        }
    }
    for (var c = 0u; c < DT; c++) {
        let to = c * 16u;
        let tile = sum[c];
        coopStoreT(tile, &scores[to], ROW);
    }
    workgroupBarrier();
    for (var i = lane; i < 16u * D; i += WG) { o[row0 * D + i] = f16(scores[i / D * ROW + i % D]); }
}
