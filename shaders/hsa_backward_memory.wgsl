// uses: lib/grid.wgsl, lib/hsa_stat.wgsl
// variants: elem=f16 | D4=4 | D4=16 KT=16 QT=8 | D4=64 KT=4 QT=2 | KT=64 QT=16
// dk[j] = Σ ds[j] · q / √d and dv[j] = Σ weight · p[j] · do over the slots of a piece of the list of those that selected
// the chunk, in ascending order; the pieces' sums are joined afterwards. A workgroup owns KT keys of one head, a lane
// 4 keys × NC · 4 dims of their sums.
alias elem = f32;
const D4: u32 = 8u;                                                   // head dim / 4
const KT: u32 = 32u;                                                  // keys a workgroup, a multiple of 4
const QT: u32 = 8u;                                                   // query rows staged at a time
const WG: u32 = 64u;
const KG: u32 = KT / 4u;                                              // groups of 4 keys
const QL: u32 = min(WG / KG, QT);                                     // lanes along the rows, in the products
const NQ: u32 = (QT + QL - 1u) / QL;
const CL: u32 = min(WG / KG, D4);                                     // lanes along the dims, in the sums
const NC: u32 = (D4 + CL - 1u) / CL;
const ROW: u32 = D4 + 1u;                                             // padded, so that neighbours use different banks
struct Params {
    tokens: u32, keys: u32, query_heads: u32, heads: u32, slots: u32, joint: u32, chunk: u32, scale: f32, groups: u32,
    blocks: u32, chunks: u32, values: u32, lists: u32, list_heads: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // blocks = ⌈chunk / KT⌉, list_heads = heads a list serves
@group(0) @binding(1) var<storage, read> q: array<vec4<elem>>;        // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> dout: array<vec4<elem>>;     // (batches, tokens, query heads, d)
@group(0) @binding(3) var<storage, read> kv: array<vec4<elem>>;       // k, then v: (2, batches, keys, heads, d)
@group(0) @binding(4) var<storage, read> weights: array<f32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(5) var<storage, read> stats: array<vec2f>;         // (batches, tokens, slots, query heads): lse, D_i
@group(0) @binding(6) var<storage, read> order: array<u32>;           // slots by (batch, head, chunk)
@group(0) @binding(7) var<storage, read> pieces: array<vec4u>;        // (pieces): list, begin, end
@group(0) @binding(8) var<storage, read_write> partial: array<vec4f>; // (pieces, list heads, chunk, dk and dv, d)

var<workgroup> k_tile: array<vec4f, 4u * D4 * KG>;                    // (dim, KG): 4 keys a vector
var<workgroup> v_tile: array<vec4f, 4u * D4 * KG>;
var<workgroup> q_tile: array<vec4f, QT * ROW>;                        // (row, dims / 4)
var<workgroup> do_tile: array<vec4f, QT * ROW>;
var<workgroup> p_tile: array<vec4f, QT * KG>;                         // (row, KG): 4 keys a vector
var<workgroup> ds_tile: array<vec4f, QT * KG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    if index >= params.groups { return; }                             // uniform
    let block = index % params.blocks;
    let list_head = (index / params.blocks) % params.list_heads;
    let place = index / params.blocks / params.list_heads;
    let piece = pieces[place];
    if piece.x >= params.lists { return; }                            // uniform: room that no list needs
    let chunk = piece.x % params.chunks;
    let h = select(piece.x / params.chunks % params.heads, list_head, params.joint != 0u);
    let b = select(piece.x / params.chunks / params.heads, piece.x / params.chunks, params.joint != 0u);
    let share = params.query_heads / params.heads;
    for (var i = lane; i < KG * D4; i += WG) {
        let g = i / D4;
        let c = i % D4;
        var key = mat4x4f();
        var value = mat4x4f();
        for (var e = 0u; e < 4u; e++) {
            let j = block * KT + 4u * g + e;
            if j < params.chunk {
                let at = ((b * params.keys + chunk * params.chunk + j) * params.heads + h) * D4 + c;
                key[e] = vec4f(kv[at]);
                value[e] = vec4f(kv[params.values + at]);
            }
        }
        key = transpose(key);
        value = transpose(value);
        for (var e = 0u; e < 4u; e++) {
            k_tile[(4u * c + e) * KG + g] = key[e];
            v_tile[(4u * c + e) * KG + g] = value[e];
        }
    }
    let kg = lane % KG;
    let line = lane / KG;                                             // along the rows, or the dims
    var dk: array<array<vec4f, 4>, NC>;
    var dv: array<array<vec4f, 4>, NC>;
    for (var i = piece.y; i < piece.z; i++) {
        let slot = order[i];
        let weight = weights[slot];
        // (batch, token[, head], slot) → token over batches.
        let token = select(slot / params.slots / params.heads, slot / params.slots, params.joint != 0u);
        for (var q0 = 0u; q0 < share; q0 += QT) {
            let row0 = token * params.query_heads + h * share + q0;
            workgroupBarrier();
            for (var j = lane; j < QT * D4; j += WG) {
                var x = vec4f(0.0);
                var y = vec4f(0.0);
                if q0 + j / D4 < share {
                    x = vec4f(q[row0 * D4 + j]);
                    y = vec4f(dout[row0 * D4 + j]);
                }
                q_tile[j / D4 * ROW + j % D4] = x;
                do_tile[j / D4 * ROW + j % D4] = y;
            }
            workgroupBarrier();
            if line < QL {
                var s = array<vec4f, NQ>();
                var dp = array<vec4f, NQ>();
                for (var c = 0u; c < D4; c++) {
                    let at = 4u * c * KG + kg;
                    let k0 = k_tile[at];
                    let k1 = k_tile[at + KG];
                    let k2 = k_tile[at + 2u * KG];
                    let k3 = k_tile[at + 3u * KG];
                    let v0 = v_tile[at];
                    let v1 = v_tile[at + KG];
                    let v2 = v_tile[at + 2u * KG];
                    let v3 = v_tile[at + 3u * KG];
                    for (var n = 0u; n < NQ; n++) {
                        let row = min(line + n * QL, QT - 1u) * ROW + c;
                        let x = q_tile[row];
                        let y = do_tile[row];
                        s[n] = fma(k3, vec4f(x.w), fma(k2, vec4f(x.z), fma(k1, vec4f(x.y), fma(k0, vec4f(x.x), s[n]))));
                        dp[n] = fma(v3, vec4f(y.w), fma(v2, vec4f(y.z), fma(v1, vec4f(y.y), fma(v0, vec4f(y.x), dp[n]))));
                    }
                }
                for (var n = 0u; n < NQ; n++) {
                    let row = line + n * QL;
                    if row >= QT { continue; }
                    var p = vec4f(0.0);
                    var ds = vec4f(0.0);
                    if q0 + row < share {
                        let stat = stats[stat_of(token, slot % params.slots, row0 + row)];
                        p = weight * exp(min(s[n] * params.scale - stat.x, vec4f(0.0)));
                        ds = p * (dp[n] - stat.y) * params.scale;
                    }
                    p_tile[row * KG + kg] = p;
                    ds_tile[row * KG + kg] = ds;
                }
            }
            workgroupBarrier();
            if line < CL {
                // A tile's own sums first: one long sum of a busy chunk would lose a digit.
                var dk_tile = array<array<vec4f, 4>, NC>();
                var dv_tile = array<array<vec4f, 4>, NC>();
                for (var row = 0u; row < QT; row++) {
                    let p = p_tile[row * KG + kg];
                    let ds = ds_tile[row * KG + kg];
                    for (var n = 0u; n < NC; n++) {
                        let c = row * ROW + min(line + n * CL, D4 - 1u);
                        let x = q_tile[c];
                        let y = do_tile[c];
                        for (var e = 0u; e < 4u; e++) {
                            dk_tile[n][e] = fma(vec4f(ds[e]), x, dk_tile[n][e]);
                            dv_tile[n][e] = fma(vec4f(p[e]), y, dv_tile[n][e]);
                        }
                    }
                }
                for (var n = 0u; n < NC; n++) {
                    for (var e = 0u; e < 4u; e++) {
                        dk[n][e] += dk_tile[n][e];
                        dv[n][e] += dv_tile[n][e];
                    }
                }
            }
        }
    }
    if line >= CL { return; }
    for (var n = 0u; n < NC; n++) {
        let c = line + n * CL;
        for (var e = 0u; e < 4u; e++) {
            let j = block * KT + 4u * kg + e;
            if c < D4 && j < params.chunk {
                let at = (((place * params.list_heads + list_head) * params.chunk + j) * 2u) * D4 + c;
                partial[at] = dk[n][e];
                partial[at + D4] = dv[n][e];
            }
        }
    }
}
