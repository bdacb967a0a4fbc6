// uses: lib/hsa_tile.wgsl
// variants: elem=f16 | D4=4 | D4=16 KT=32 QG=8 | D4=10 QG=2 | D4=64 KT=8 QG=1 | D4=1 KT=4 QG=1
// o[t] = Σ_j p[t, j] · v[j],   p[t, j] = exp(q[t]·k[j] / √d − lse[t]),   lse[t] = log Σ_j exp(q[t]·k[j] / √d)
// over the keys t − window < j ≤ t (Dao 2023, arXiv 2307.08691, alg. 1). One workgroup a (tile of 4 · QG queries, batch,
// head); keys pass through workgroup memory, KT at a time, and each tile of them rescales what came before. Queries are
// those of the last tokens: `before` of them have keys alone.
alias elem = f32;
const D4: u32 = 16u;                                                  // head dim / 4
const QG: u32 = 4u;                                                   // queries a tile / 4
const KT: u32 = 32u;                                                  // keys staged at a time
const S: u32 = KT;
const SETS: u32 = 1u;
struct Params {
    tokens: u32, before: u32, query_heads: u32, heads: u32, tiles: u32, window: u32, scale: f32, groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // tiles = ⌈queries / (4 · QG)⌉, window ≤ tokens
@group(0) @binding(1) var<storage, read> q: array<vec4<elem>>;        // (batches, queries, query heads, d)
@group(0) @binding(2) var<storage, read> k: array<vec4<elem>>;        // (batches, tokens, heads, d)
@group(0) @binding(3) var<storage, read> v: array<vec4<elem>>;        // (batches, tokens, heads, d)
@group(0) @binding(4) var<storage, read_write> o: array<vec4<elem>>;  // (batches, queries, query heads, d)
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;       // (batches, query heads, queries)

const NONE: f32 = -3.0e38;
const LEAST: f32 = -1.0e38;                                           // above NONE, so that exp(NONE − LEAST) is 0
var<workgroup> factors: array<vec4f, QG>;                             // what each row's sums are multiplied by

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    if index >= params.groups { return; }                             // uniform
    // The last tiles see the most keys: they begin first.
    let sequences = params.groups / params.tiles;
    let t0 = (params.tiles - 1u - index / sequences) * 4u * QG;
    let head = index % sequences % params.query_heads;
    let b = index % sequences / params.query_heads;
    let h = head / (params.query_heads / params.heads);
    let queries = params.tokens - params.before;
    let live = min(4u * QG, queries - t0);
    for (var i = lane; i < UNITS; i += WG) {
        var x = mat4x4f();
        for (var r = 0u; r < 4u; r++) {
            let row = i / D4 * 4u + r;
            if row < live {
                x[r] = vec4f(q[((b * queries + t0 + row) * params.query_heads + head) * D4 + i % D4]) * params.scale;
            }
        }
        put_rows(0u, i / D4, i % D4, x);
    }
    let kg = lane / QG;
    let g = lane % QG;
    let works = kg < KG;
    let first = params.before + t0;                                   // the tile's first token
    let t = first + 4u * g + vec4u(0u, 1u, 2u, 3u);
    var top = vec4f(LEAST);
    var total = vec4f(0.0);                                           // of this lane's keys
    var sum: array<array<vec4f, 4>, NU>;
    for (var j0 = (max(first + 1u, params.window) - params.window) / KT * KT; j0 < first + live; j0 += KT) {
        workgroupBarrier();
        for (var i = lane; i < KT * D4; i += WG) {
            let j = j0 + i / D4;
            var x = vec4f(0.0);
            if j < params.tokens { x = vec4f(k[((b * params.tokens + j) * params.heads + h) * D4 + i % D4]); }
            tile[i / D4 * ROW + i % D4] = x;
        }
        workgroupBarrier();
        var s = array<vec4f, NK>();
        var high = top;
        if works {
            s = products(0u, lane);
            for (var i = 0u; i < NK; i++) {
                let j = vec4u(j0 + kg + i * KG);
                s[i] = select(vec4f(NONE), s[i], (j <= t) & (t < j + params.window));
                high = max(high, s[i]);
            }
        }
        partial[lane] = high;
        workgroupBarrier();
        for (var i = 0u; i < KG; i++) { high = max(high, partial[i * QG + g]); }
        let factor = exp(top - high);
        if lane < QG { factors[lane] = factor; }
        top = high;
        total *= factor;
        if works {
            for (var i = 0u; i < NK; i++) {
                let e = exp(s[i] - top);
                p[(kg + i * KG) * QG + g] = e;
                total += e;
            }
        }
        for (var i = lane; i < KT * D4; i += WG) {
            let j = j0 + i / D4;
            var x = vec4f(0.0);
            if j < params.tokens { x = vec4f(v[((b * params.tokens + j) * params.heads + h) * D4 + i % D4]); }
            tile[i / D4 * ROW + i % D4] = x;
        }
        workgroupBarrier();
        for (var u = 0u; u < NU; u++) {
            let unit = lane % UNITS + u * WG;
            let part = lane / UNITS;
            if unit < UNITS && part < PARTS {
                let y = gathered(0u, unit, part);
                let w = factors[unit / D4];
                for (var r = 0u; r < 4u; r++) { sum[u][r] = fma(vec4f(w[r]), sum[u][r], y[r]); }
            }
        }
    }
    let all = sum_over_keys(total, lane);
    if lane < QG {
        // A row's largest term is 1; rows beyond the last have none.
        factors[lane] = 1.0 / max(all, vec4f(1.0));
        for (var r = 0u; r < 4u; r++) {
            if 4u * lane + r < live { lse[(b * params.query_heads + head) * queries + t[r] - params.before] = top[r] + log(all[r]); }
        }
    }
    for (var u = 0u; u < NU; u++) {
        let y = joined(sum[u], lane);
        let unit = lane + u * WG;
        if unit < UNITS {
            let w = factors[unit / D4];
            for (var r = 0u; r < 4u; r++) {
                let row = unit / D4 * 4u + r;
                if row < live {
                    let at = ((b * queries + t0 + row) * params.query_heads + head) * D4 + unit % D4;
                    o[at] = vec4<elem>(y[r] * w[r]);
                }
            }
        }
    }
}
