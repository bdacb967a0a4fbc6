// uses: lib/grid.wgsl
// variants: elem=f16 | WG=32 D4=4 | WG=64 D4=32 KEYS=16 | WG=256 D4=1
// dk[j] = scale·Σ_t ds[t, j]·q[t],   ds = p·(do[t]·v[j] − delta[t])
// One workgroup a (chunk, key-value head, WG keys), an invocation a key; the queries of the heads that share the keys
// pass through workgroup memory, KEYS at a time, head by head: one fixed order.
alias elem = f32;
const WG: u32 = 96u;
const D4: u32 = 16u;
const KEYS: u32 = 32u;
struct Params { chunks: u32, tokens: u32, heads: u32, kv_heads: u32, tiles: u32, stride: u32, scale: f32 }

@group(0) @binding(0) var<uniform> params: Params;                       // tiles = ⌈tokens / WG⌉
@group(0) @binding(1) var<storage, read> q: array<vec4<elem>>;           // (chunks, tokens, heads, D4)
@group(0) @binding(2) var<storage, read> k: array<vec4<elem>>;           // (chunks, tokens, kv_heads, D4)
@group(0) @binding(3) var<storage, read> v: array<vec4<elem>>;           // (chunks, tokens, kv_heads, D4)
@group(0) @binding(4) var<storage, read> dy: array<vec4<elem>>;          // (chunks, tokens, heads, D4): do
@group(0) @binding(5) var<storage, read> lse: array<f32>;                // (chunks, heads, tokens), chunks stride apart
@group(0) @binding(6) var<storage, read> delta: array<f32>;              // as lse
@group(0) @binding(7) var<storage, read_write> dk: array<vec4<elem>>;    // (chunks, tokens, kv_heads, D4)

var<workgroup> q_tile: array<vec4f, KEYS * D4>;
var<workgroup> dy_tile: array<vec4f, KEYS * D4>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    let kv = index / params.tiles % params.kv_heads;
    let chunk = index / params.tiles / params.kv_heads;
    if chunk >= params.chunks { return; }
    let j = index % params.tiles * WG + lane;
    let row = ((chunk * params.tokens + min(j, params.tokens - 1u)) * params.kv_heads + kv) * D4;
    let heads = params.heads / params.kv_heads;
    var key: array<vec4f, D4>;
    var value: array<vec4f, D4>;
    var sums: array<vec4f, D4>;
    for (var i = 0u; i < D4; i++) {
        key[i] = vec4f(k[row + i]) * params.scale;
        value[i] = vec4f(v[row + i]);
        sums[i] = vec4f();
    }
    for (var head = kv * heads; head < (kv + 1u) * heads; head++) {
        let statistics = chunk * params.stride + head * params.tokens;
        for (var first = 0u; first < params.tokens; first += KEYS) {
            workgroupBarrier();
            for (var i = lane; i < KEYS * D4; i += WG) {
                let t = min(first + i / D4, params.tokens - 1u);
                let at = ((chunk * params.tokens + t) * params.heads + head) * D4 + i % D4;
                q_tile[i] = vec4f(q[at]);
                dy_tile[i] = vec4f(dy[at]);
            }
            workgroupBarrier();
            let count = min(KEYS, params.tokens - first);
            for (var t = 0u; t < count; t += 4u) {
                let tile = t * D4;
                var s = vec4f();
                var dp = vec4f();
                for (var i = 0u; i < D4; i++) {
                    let x = key[i];
                    let at = tile + i;
                    s += vec4f(dot(x, q_tile[at]), dot(x, q_tile[at + D4]), dot(x, q_tile[at + 2u * D4]), dot(x, q_tile[at + 3u * D4]));
                    let g = value[i];
                    dp += vec4f(dot(g, dy_tile[at]), dot(g, dy_tile[at + D4]), dot(g, dy_tile[at + 2u * D4]), dot(g, dy_tile[at + 3u * D4]));
                }
                let last = statistics + params.tokens - 1u;
                let at4 = min(vec4u(statistics + first + t) + vec4u(0u, 1u, 2u, 3u), vec4u(last));
                let l = vec4f(lse[at4.x], lse[at4.y], lse[at4.z], lse[at4.w]);
                let keep = vec4u(0u, 1u, 2u, 3u) < vec4u(count - t);
                let d = vec4f(delta[at4.x], delta[at4.y], delta[at4.z], delta[at4.w]);
                let w = select(vec4f(), exp(min(s - l, vec4f())) * (dp - d), keep);
                for (var i = 0u; i < D4; i++) {
                    let at = tile + i;
                    sums[i] += w.x * q_tile[at] + w.y * q_tile[at + D4] + w.z * q_tile[at + 2u * D4] + w.w * q_tile[at + 3u * D4];
                }
            }
        }
    }
    if j >= params.tokens { return; }
    for (var i = 0u; i < D4; i++) { dk[row + i] = vec4<elem>(sums[i] * params.scale); }
}
