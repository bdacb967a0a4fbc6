// uses: lib/grid.wgsl
// variants: D=64 | D=16 S=16
// hsa_backward_query.wgsl on cooperative matrices: one subgroup takes 16 query heads of a token, two lanes a row.
const D: u32 = 32u;                                                   // head dim, a multiple of 16
const S: u32 = 64u;                                                   // chunk, a multiple of 16
const WG: u32 = 32u;                                                  // one subgroup
const DT: u32 = D / 16u;
const ST: u32 = S / 16u;
const N: u32 = S / 2u;                                                // keys a lane
const ROW: u32 = max(S, D) + 4u;                                      // rows start at multiples of 16 bytes
const PROW: u32 = S + 8u;
struct Params {
    tokens: u32, keys: u32, query_heads: u32, heads: u32, slots: u32, joint: u32, scale: f32, tiles: u32, groups: u32,
    values: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // values: where v begins in kv, in elements
@group(0) @binding(1) var<storage, read> q: array<f16>;               // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> kv: array<f16>;              // k, then v: (2, batches, keys, heads, d)
@group(0) @binding(3) var<storage, read> weights: array<f32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(4) var<storage, read> indices: array<u32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(5) var<storage, read> lse: array<f32>;             // (batches, tokens, query heads, slots)
@group(0) @binding(6) var<storage, read> dout: array<f16>;            // (batches, tokens, query heads, d)
@group(0) @binding(7) var<storage, read_write> dq: array<f16>;        // (batches, tokens, query heads, d)
@group(0) @binding(8) var<storage, read_write> stats: array<vec2f>;   // (batches, tokens, query heads, slots): lse, D_i

var<workgroup> scores: array<f32, 16u * ROW>;
var<workgroup> slopes: array<f32, 16u * ROW>;                         // do · v
var<workgroup> ds: array<f16, 16u * PROW>;
var<workgroup> dots: array<f32, WG>;

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
    var douts: array<coop_mat16x16<f16, A>, DT>;
    for (var c = 0u; c < DT; c++) {
        let at = row0 * D + c * 16u;
        queries[c] = coopLoadT<coop_mat16x16<f16, A>>(&q[at], D);
        douts[c] = coopLoadT<coop_mat16x16<f16, A>>(&dout[at], D);
    }
    var sum: array<coop_mat16x16<f32, C>, DT>;
    for (var slot = 0u; slot < params.slots; slot++) {
        let weight = weights[selected + slot];
        let first = ((b * params.keys + indices[selected + slot] * S) * params.heads + h) * D;
        for (var t = 0u; t < ST; t++) {
            var s: coop_mat16x16<f32, C>;
            var dp: coop_mat16x16<f32, C>;
            for (var c = 0u; c < DT; c++) {
                let at = first + t * 16u * stride + c * 16u;
                let value_at = params.values + at;
                let keys = coopLoad<coop_mat16x16<f16, B>>(&kv[at], stride);
                let values = coopLoad<coop_mat16x16<f16, B>>(&kv[value_at], stride);
                s = coopMultiplyAdd(queries[c], keys, s);
                dp = coopMultiplyAdd(douts[c], values, dp);
            }
            let to = t * 16u;
            coopStoreT(s, &scores[to], ROW);
            coopStoreT(dp, &slopes[to], ROW);
        }
        workgroupBarrier();
        let l = lse[(row0 + row) * params.slots + slot];
        var e: array<f32, N>;
        var part = 0.0;
        for (var i = 0u; i < N; i++) {
            let at = row * ROW + 2u * i + side;
            e[i] = exp(min(scores[at] * params.scale - l, 0.0));
            part += e[i] * slopes[at];
        }
        dots[lane] = part;
        workgroupBarrier();
        let dot = dots[2u * row] + dots[2u * row + 1u];
        if side == 0u { stats[(row0 + row) * params.slots + slot] = vec2f(l, dot); }
        for (var i = 0u; i < N; i++) {
            let j = 2u * i + side;
            ds[row * PROW + j] = f16(weight * e[i] * (slopes[row * ROW + j] - dot));
        }
        workgroupBarrier();
        for (var t = 0u; t < ST; t++) {
            let at_key = t * 16u;
            let left = coopLoadT<coop_mat16x16<f16, A>>(&ds[at_key], PROW);
            for (var c = 0u; c < DT; c++) {
                let at = first + t * 16u * stride + c * 16u;
                let keys = coopLoadT<coop_mat16x16<f16, B>>(&kv[at], stride);
                sum[c] = coopMultiplyAdd(left, keys, sum[c]);
            }
        }
    }
    for (var c = 0u; c < DT; c++) {
        let to = c * 16u;
        let tile = sum[c];
        coopStoreT(tile, &scores[to], ROW);
    }
    workgroupBarrier();
    for (var i = lane; i < 16u * D; i += WG) {
        dq[row0 * D + i] = f16(scores[i / D * ROW + i % D] * params.scale);
    }
}
