// uses: lib/grid.wgsl
// variants: elem=f16 | WG=32 D4=4 | WG=64 D4=32 KEYS=16 | WG=256 D4=1
// o[t] = Σ_j p[t, j]·v[j],   p[t, j] = exp(scale·q[t]·k[j] − lse[t]),   lse[t] = log Σ_j exp(scale·q[t]·k[j])
// One workgroup a (chunk, query head, WG queries), an invocation a query; keys pass through workgroup memory, KEYS at a
// time, and the softmax is rescaled every 8 (Milakov & Gimelshein 2018, arXiv 1805.02867). D4 = d/4.
alias elem = f32;
const WG: u32 = 96u;
const D4: u32 = 16u;
const KEYS: u32 = 32u;
struct Params { chunks: u32, tokens: u32, heads: u32, kv_heads: u32, tiles: u32, stride: u32, scale: f32 }

@group(0) @binding(0) var<uniform> params: Params;                      // tiles = ⌈tokens / WG⌉
@group(0) @binding(1) var<storage, read> q: array<vec4<elem>>;          // (chunks, tokens, heads, D4)
@group(0) @binding(2) var<storage, read> k: array<vec4<elem>>;          // (chunks, tokens, kv_heads, D4)
@group(0) @binding(3) var<storage, read> v: array<vec4<elem>>;          // (chunks, tokens, kv_heads, D4)
@group(0) @binding(4) var<storage, read_write> o: array<vec4<elem>>;    // (chunks, tokens, heads, D4)
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;         // (chunks, heads, tokens), chunks stride apart

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
    let row = ((chunk * params.tokens + min(t, params.tokens - 1u)) * params.heads + head) * D4;
    var query: array<vec4f, D4>;
    var sums: array<vec4f, D4>;
    for (var i = 0u; i < D4; i++) {
        query[i] = vec4f(q[row + i]) * params.scale;
        sums[i] = vec4f();
    }
    var largest = -3.0e38;
    var total = 0.0;
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
        for (var j = 0u; j < count; j += 8u) {
            let tile = j * D4;
            var a = vec4f();
            var b = vec4f();
            for (var i = 0u; i < D4; i++) {
                let x = query[i];
                let at = tile + i;
                a += vec4f(dot(x, k_tile[at]), dot(x, k_tile[at + D4]), dot(x, k_tile[at + 2u * D4]), dot(x, k_tile[at + 3u * D4]));
                b += vec4f(dot(x, k_tile[at + 4u * D4]), dot(x, k_tile[at + 5u * D4]), dot(x, k_tile[at + 6u * D4]), dot(x, k_tile[at + 7u * D4]));
            }
            let left = vec4u(count - j);
            let keep_a = vec4u(0u, 1u, 2u, 3u) < left;
            let keep_b = vec4u(4u, 5u, 6u, 7u) < left;
            a = select(vec4f(-3.0e38), a, keep_a);
            b = select(vec4f(-3.0e38), b, keep_b);
            let m = max(a, b);
            let high = max(largest, max(max(m.x, m.y), max(m.z, m.w)));
            let rescale = exp(largest - high);
            largest = high;
            a = select(vec4f(), exp(a - high), keep_a);
            b = select(vec4f(), exp(b - high), keep_b);
            total = total * rescale + dot(a + b, vec4f(1.0));
            for (var i = 0u; i < D4; i++) {
                let at = tile + i;
                var sum = sums[i] * rescale;
                sum += a.x * v_tile[at] + a.y * v_tile[at + D4] + a.z * v_tile[at + 2u * D4] + a.w * v_tile[at + 3u * D4];
                sum += b.x * v_tile[at + 4u * D4] + b.y * v_tile[at + 5u * D4] + b.z * v_tile[at + 6u * D4] + b.w * v_tile[at + 7u * D4];
                sums[i] = sum;
            }
        }
    }
    if t >= params.tokens { return; }
    for (var i = 0u; i < D4; i++) { o[row + i] = vec4<elem>(sums[i] / total); }
    lse[chunk * params.stride + head * params.tokens + t] = largest + log(total);
}
