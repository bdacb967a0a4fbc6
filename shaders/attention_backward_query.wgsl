// uses: lib/grid.wgsl
// variants: elem=f16 | WG=32 D4=4 | WG=64 D4=32 KEYS=16 | WG=256 D4=1
// dq[t] = scale·Σ_j ds[t, j]·k[j],   ds = p·(do[t]·v[j] − delta[t]),   delta[t] = do[t]·o[t]
// As attention.wgsl: an invocation a query, keys through workgroup memory, probabilities recomputed from lse.
alias elem = f32;
const WG: u32 = 96u;
const D4: u32 = 16u;
const KEYS: u32 = 32u;
struct Params { chunks: u32, tokens: u32, heads: u32, kv_heads: u32, tiles: u32, stride: u32, scale: f32 }

@group(0) @binding(0) var<uniform> params: Params;                       // tiles = ⌈tokens / WG⌉
@group(0) @binding(1) var<storage, read> q: array<vec4<elem>>;           // (chunks, tokens, heads, D4)
@group(0) @binding(2) var<storage, read> k: array<vec4<elem>>;           // (chunks, tokens, kv_heads, D4)
@group(0) @binding(3) var<storage, read> v: array<vec4<elem>>;           // (chunks, tokens, kv_heads, D4)
@group(0) @binding(4) var<storage, read> o: array<vec4<elem>>;           // (chunks, tokens, heads, D4)
@group(0) @binding(5) var<storage, read> dy: array<vec4<elem>>;          // (chunks, tokens, heads, D4): do
@group(0) @binding(6) var<storage, read> lse: array<f32>;                // (chunks, heads, tokens), chunks stride apart
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<elem>>;    // (chunks, tokens, heads, D4)
@group(0) @binding(8) var<storage, read_write> delta: array<f32>;        // as lse, for the keys' pass

var<workgroup> k_tile: array<vec4f, KEYS * D4>;
var<workgroup> v_tile: array<vec4f, KEYS * D4>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    let head = index / params.tiles % params.heads;
    let chunk = index / params.tiles / params.heads;
    if chunk >= params.chunks { return; }
    let kv = head / (params.heads / params.kv_heads);
    let t = index % params.tiles * WG + lane;
    let live = min(t, params.tokens - 1u);
    let row = ((chunk * params.tokens + live) * params.heads + head) * D4;
    let statistics = chunk * params.stride + head * params.tokens + live;
    var query: array<vec4f, D4>;
    var wanted: array<vec4f, D4>;
    var sums: array<vec4f, D4>;
    var d = 0.0;
    for (var i = 0u; i < D4; i++) {
        query[i] = vec4f(q[row + i]) * params.scale;
        wanted[i] = vec4f(dy[row + i]);
        sums[i] = vec4f();
        d += dot(wanted[i], vec4f(o[row + i]));
    }
    let l = lse[statistics];
    for (var first = 0u; first < params.tokens; first += KEYS) {
        workgroupBarrier();
        for (var i = lane; i < KEYS * D4; i += WG) {
            let key = first + i / D4;
            let at = ((chunk * params.tokens + min(key, params.tokens - 1u)) * params.kv_heads + kv) * D4 + i % D4;
            k_tile[i] = vec4f(k[at]);
            v_tile[i] = vec4f(v[at]);
        }
        workgroupBarrier();
        let count = min(KEYS, params.tokens - first);
        for (var j = 0u; j < count; j += 4u) {
            let tile = j * D4;
            var s = vec4f();
            var dp = vec4f();
            for (var i = 0u; i < D4; i++) {
                let x = query[i];
                let g = wanted[i];
                let at = tile + i;
                s += vec4f(dot(x, k_tile[at]), dot(x, k_tile[at + D4]), dot(x, k_tile[at + 2u * D4]), dot(x, k_tile[at + 3u * D4]));
                dp += vec4f(dot(g, v_tile[at]), dot(g, v_tile[at + D4]), dot(g, v_tile[at + 2u * D4]), dot(g, v_tile[at + 3u * D4]));
            }
            let keep = vec4u(0u, 1u, 2u, 3u) < vec4u(count - j);
            let ds = select(vec4f(), exp(min(s - l, vec4f())) * (dp - d), keep);
            for (var i = 0u; i < D4; i++) {
                let at = tile + i;
                sums[i] += ds.x * k_tile[at] + ds.y * k_tile[at + D4] + ds.z * k_tile[at + 2u * D4] + ds.w * k_tile[at + 3u * D4];
            }
        }
    }
    if t >= params.tokens { return; }
    for (var i = 0u; i < D4; i++) { dq[row + i] = vec4<elem>(sums[i] * params.scale); }
    delta[statistics] = d;
}
