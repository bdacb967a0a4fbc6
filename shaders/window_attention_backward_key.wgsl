// uses: lib/grid.wgsl
// variants: elem=f16 elem_out=f16 | elem=f16 | D4=4 | D4=16 KT=32 QT=16 | D4=10 | D4=64 KT=4 QT=2 | D4=1 KT=4 QT=1
// dk[j] = Σ ds[t, j] · q[t] / √d and dv[j] = Σ p[t, j] · do[t] over the queries j ≤ t < j + window of a few query heads,
// in ascending order (Dao 2023, arXiv 2307.08691, alg. 2). A workgroup owns KT keys of one head, a lane 4 keys × NC · 4
// dims of their sums; where more query heads share a head, each few of them leave sums of their own.
alias elem = f32;
alias elem_out = f32;
const D4: u32 = 16u;                                                  // head dim / 4
const KT: u32 = 16u;                                                  // keys a workgroup, a multiple of 4
const QT: u32 = 8u;                                                   // queries staged at a time
const WG: u32 = 64u;
const KG: u32 = KT / 4u;                                              // groups of 4 keys
const QL: u32 = min(WG / KG, QT);                                     // lanes along the queries, in the products
const NQ: u32 = (QT + QL - 1u) / QL;
const CL: u32 = min(WG / KG, D4);                                     // lanes along the dims, in the sums
const NC: u32 = (D4 + CL - 1u) / CL;
const ROW: u32 = D4 + 1u;                                             // padded, so that neighbours use different banks
struct Params {
    batches: u32, tokens: u32, query_heads: u32, heads: u32, piece: u32, pieces: u32, tiles: u32, window: u32,
    scale: f32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // tiles = ⌈tokens / KT⌉; piece: query heads a sum
@group(0) @binding(1) var<storage, read> q: array<vec4<elem>>;        // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> k: array<vec4<elem>>;        // (batches, tokens, heads, d)
@group(0) @binding(3) var<storage, read> v: array<vec4<elem>>;        // (batches, tokens, heads, d)
@group(0) @binding(4) var<storage, read> dout: array<vec4<elem>>;     // (batches, tokens, query heads, d)
@group(0) @binding(5) var<storage, read> lse: array<f32>;             // (batches, query heads, tokens)
@group(0) @binding(6) var<storage, read> delta: array<f32>;           // (batches, query heads, tokens): do · o
@group(0) @binding(7) var<storage, read_write> dk: array<vec4<elem_out>>; // (pieces, batches, tokens, heads, d)
@group(0) @binding(8) var<storage, read_write> dv: array<vec4<elem_out>>;

var<workgroup> k_tile: array<vec4f, 4u * D4 * KG>;                    // (dim, KG): 4 keys a vector
var<workgroup> v_tile: array<vec4f, 4u * D4 * KG>;
var<workgroup> q_tile: array<vec4f, QT * ROW>;                        // (query, dims / 4)
var<workgroup> do_tile: array<vec4f, QT * ROW>;
var<workgroup> p_tile: array<vec4f, QT * KG>;                         // (query, KG): 4 keys a vector
var<workgroup> ds_tile: array<vec4f, QT * KG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    if index >= params.groups { return; }                             // uniform
    // The first keys are seen by the most queries: they begin first.
    let sequences = params.groups / params.tiles;
    let first = index / sequences * KT;
    let piece = index % sequences % params.pieces;
    let h = index % sequences / params.pieces % params.heads;
    let b = index % sequences / params.pieces / params.heads;
    let share = params.query_heads / params.heads;
    let live = min(KT, params.tokens - first);
    for (var i = lane; i < KG * D4; i += WG) {
        let g = i / D4;
        let c = i % D4;
        var key = mat4x4f();
        var value = mat4x4f();
        for (var e = 0u; e < 4u; e++) {
            if 4u * g + e < live {
                let at = ((b * params.tokens + first + 4u * g + e) * params.heads + h) * D4 + c;
                key[e] = vec4f(k[at]);
                value[e] = vec4f(v[at]);
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
    let line = lane / KG;                                             // along the queries, or the dims
    let j = first + 4u * kg + vec4u(0u, 1u, 2u, 3u);
    var dk_sum: array<array<vec4f, 4>, NC>;
    var dv_sum: array<array<vec4f, 4>, NC>;
    for (var m = piece * params.piece; m < min((piece + 1u) * params.piece, share); m++) {
        let head = h * share + m;
        let stats = (b * params.query_heads + head) * params.tokens;
        for (var t0 = first; t0 < min(first + live - 1u + params.window, params.tokens); t0 += QT) {
            workgroupBarrier();
            for (var i = lane; i < QT * D4; i += WG) {
                let t = t0 + i / D4;
                var x = vec4f(0.0);
                var y = vec4f(0.0);
                if t < params.tokens {
                    let at = ((b * params.tokens + t) * params.query_heads + head) * D4 + i % D4;
                    x = vec4f(q[at]);
                    y = vec4f(dout[at]);
                }
                q_tile[i / D4 * ROW + i % D4] = x;
                do_tile[i / D4 * ROW + i % D4] = y;
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
                    let t = t0 + row;
                    var p = vec4f(0.0);
                    var ds = vec4f(0.0);
                    if t < params.tokens {
                        let seen = (j <= vec4u(t)) & (vec4u(t) < j + params.window);
                        p = select(p, exp(min(s[n] * params.scale - lse[stats + t], vec4f(0.0))), seen);
                        ds = p * (dp[n] - delta[stats + t]) * params.scale;
                    }
                    p_tile[row * KG + kg] = p;
                    ds_tile[row * KG + kg] = ds;
                }
            }
            workgroupBarrier();
            if line < CL {
                // A tile's own sums first: one long sum would lose a digit.
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
                        dk_sum[n][e] += dk_tile[n][e];
                        dv_sum[n][e] += dv_tile[n][e];
                    }
                }
            }
        }
    }
    if line >= CL { return; }
    for (var n = 0u; n < NC; n++) {
        let c = line + n * CL;
        for (var e = 0u; e < 4u; e++) {
            if c < D4 && 4u * kg + e < live {
                let at = (((piece * params.batches + b) * params.tokens + j[e]) * params.heads + h) * D4 + c;
                dk[at] = vec4<elem_out>(dk_sum[n][e]);
                dv[at] = vec4<elem_out>(dv_sum[n][e]);
            }
        }
    }
}
