// uses: lib/hsa_tile.wgsl
// variants: elem=f16 | D4=4 | D4=16 KT=32 QG=8 | D4=10 QG=2 | D4=64 KT=4 QG=1 | D4=1 KT=4 QG=1
// D = do · o,   ds[j] = p[j] · (do · v[j] − D),   dq = Σ ds[j] · k[j] / √d,   p from lse (Dao 2023, arXiv 2307.08691,
// alg. 2). One workgroup a (tile of 4 · QG queries, batch, head); D is kept for the keys' pass.
alias elem = f32;
const D4: u32 = 16u;                                                  // head dim / 4
const QG: u32 = 2u;                                                   // queries a tile / 4
const KT: u32 = 32u;                                                  // keys staged at a time
const S: u32 = KT;
const SETS: u32 = 2u;                                                 // q, do
struct Params { tokens: u32, query_heads: u32, heads: u32, tiles: u32, window: u32, scale: f32, groups: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // tiles = ⌈tokens / (4 · QG)⌉, window ≤ tokens
@group(0) @binding(1) var<storage, read> q: array<vec4<elem>>;        // (batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> k: array<vec4<elem>>;        // (batches, tokens, heads, d)
@group(0) @binding(3) var<storage, read> v: array<vec4<elem>>;        // (batches, tokens, heads, d)
@group(0) @binding(4) var<storage, read> o: array<vec4<elem>>;        // (batches, tokens, query heads, d)
@group(0) @binding(5) var<storage, read> dout: array<vec4<elem>>;     // (batches, tokens, query heads, d)
@group(0) @binding(6) var<storage, read> lse: array<f32>;             // (batches, query heads, tokens)
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<elem>>; // (batches, tokens, query heads, d)
@group(0) @binding(8) var<storage, read_write> delta: array<f32>;     // (batches, query heads, tokens): D

var<workgroup> dots: array<f32, 4u * QG>;                             // D of the tile's rows

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
    let live = min(4u * QG, params.tokens - t0);
    let stats = (b * params.query_heads + head) * params.tokens;
    for (var i = lane; i < UNITS; i += WG) {
        var x = mat4x4f();
        var y = mat4x4f();
        for (var r = 0u; r < 4u; r++) {
            let row = i / D4 * 4u + r;
            if row < live {
                let at = ((b * params.tokens + t0 + row) * params.query_heads + head) * D4 + i % D4;
                x[r] = vec4f(q[at]) * params.scale;
                y[r] = vec4f(dout[at]);
            }
        }
        put_rows(0u, i / D4, i % D4, x);
        put_rows(1u, i / D4, i % D4, y);
    }
    if lane < 4u * QG {
        var sum = 0.0;
        if lane < live {
            let at = ((b * params.tokens + t0 + lane) * params.query_heads + head) * D4;
            for (var c = 0u; c < D4; c++) { sum += dot(vec4f(dout[at + c]), vec4f(o[at + c])); }
            delta[stats + t0 + lane] = sum;
        }
        dots[lane] = sum;
    }
    workgroupBarrier();
    let kg = lane / QG;
    let g = lane % QG;
    let works = kg < KG;
    let t = t0 + 4u * g + vec4u(0u, 1u, 2u, 3u);
    let d = vec4f(dots[4u * g], dots[4u * g + 1u], dots[4u * g + 2u], dots[4u * g + 3u]);
    var l = vec4f(0.0);
    for (var r = 0u; r < 4u; r++) {
        if 4u * g + r < live { l[r] = lse[stats + t[r]]; }
    }
    var sum: array<array<vec4f, 4>, NU>;
    for (var j0 = (max(t0 + 1u, params.window) - params.window) / KT * KT; j0 < t0 + live; j0 += KT) {
        workgroupBarrier();
        for (var i = lane; i < KT * D4; i += WG) {
            let j = j0 + i / D4;
            var x = vec4f(0.0);
            if j < params.tokens { x = vec4f(v[((b * params.tokens + j) * params.heads + h) * D4 + i % D4]); }
            tile[i / D4 * ROW + i % D4] = x;
        }
        workgroupBarrier();
        var dp = array<vec4f, NK>();
        if works { dp = products(1u, lane); }
        workgroupBarrier();
        for (var i = lane; i < KT * D4; i += WG) {
            let j = j0 + i / D4;
            var x = vec4f(0.0);
            if j < params.tokens { x = vec4f(k[((b * params.tokens + j) * params.heads + h) * D4 + i % D4]); }
            tile[i / D4 * ROW + i % D4] = x;
        }
        workgroupBarrier();
        if works {
            let s = products(0u, lane);
            for (var i = 0u; i < NK; i++) {
                let j = vec4u(j0 + kg + i * KG);
                let e = exp(min(s[i] - l, vec4f(0.0)));
                p[(kg + i * KG) * QG + g] = select(vec4f(0.0), e * (dp[i] - d), (j <= t) & (t < j + params.window));
            }
        }
        workgroupBarrier();
        for (var u = 0u; u < NU; u++) {
            let unit = lane % UNITS + u * WG;
            let part = lane / UNITS;
            if unit < UNITS && part < PARTS {
                // A tile's own sums first: one long sum would lose a digit.
                let y = gathered(0u, unit, part);
                for (var r = 0u; r < 4u; r++) { sum[u][r] += y[r]; }
            }
        }
    }
    for (var u = 0u; u < NU; u++) {
        let y = joined(sum[u], lane);
        let unit = lane + u * WG;
        if unit < UNITS {
            for (var r = 0u; r < 4u; r++) {
                let row = unit / D4 * 4u + r;
                if row < live {
                    let at = ((b * params.tokens + t0 + row) * params.query_heads + head) * D4 + unit % D4;
                    dq[at] = vec4<elem>(y[r] * params.scale);
                }
            }
        }
    }
}
