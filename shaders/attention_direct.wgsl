// uses: lib/grid.wgsl, lib/eight_lanes.wgsl
// variants: elem=f16 | D16=1 | D16=2 | D16=3
// attention.wgsl for adapters that are CPUs, without workgroup memory and barriers, which cost most there. An invocation
// holds a query and what it gathers in registers; each of eight lanes loads an eighth of a key, which subgroupBroadcast
// hands to the others. Four keys at a time; d = 16 · D16. Subgroups have at least eight lanes.
alias elem = f32;
const D16: u32 = 4u;                                                    // to 4
const WG: u32 = 8u;
const D4: u32 = 4u * D16;
struct Params { chunks: u32, tokens: u32, heads: u32, kv_heads: u32, tiles: u32, stride: u32, scale: f32 }

@group(0) @binding(0) var<uniform> params: Params;                      // tiles = ⌈tokens / WG⌉
@group(0) @binding(1) var<storage, read> q: array<vec4<elem>>;          // (chunks, tokens, heads, D4)
@group(0) @binding(2) var<storage, read> k: array<vec4<elem>>;          // (chunks, tokens, kv_heads, D4)
@group(0) @binding(3) var<storage, read> v: array<vec4<elem>>;          // (chunks, tokens, kv_heads, D4)
@group(0) @binding(4) var<storage, read_write> o: array<vec4<elem>>;    // (chunks, tokens, heads, D4)
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;         // (chunks, heads, tokens), chunks stride apart

// The query and the sums, 16 dims each; those beyond D16 are not touched.
var<private> q0: mat4x4f;
var<private> q1: mat4x4f;
var<private> q2: mat4x4f;
var<private> q3: mat4x4f;
var<private> o0: mat4x4f;
var<private> o1: mat4x4f;
var<private> o2: mat4x4f;
var<private> o3: mat4x4f;

fn query_at(at: u32) -> mat4x4f {
    return mat4x4f(vec4f(q[at]), vec4f(q[at + 1u]), vec4f(q[at + 2u]), vec4f(q[at + 3u])) * params.scale;
}

fn store(at: u32, x: mat4x4f) {
    o[at] = vec4<elem>(x[0]);
    o[at + 1u] = vec4<elem>(x[1]);
    o[at + 2u] = vec4<elem>(x[2]);
    o[at + 3u] = vec4<elem>(x[3]);
}

fn dots(sum: vec4f, a: mat4x4f, b: mat4x4f) -> vec4f {
    return fma(a[3], b[3], fma(a[2], b[2], fma(a[1], b[1], fma(a[0], b[0], sum))));
}

fn add(s: mat4x4f, p: f32, b: mat4x4f) -> mat4x4f {
    let x = vec4f(p);
    return mat4x4f(fma(x, b[0], s[0]), fma(x, b[1], s[1]), fma(x, b[2], s[2]), fma(x, b[3], s[3]));
}

// The query's product with the key at `at`.
fn score(at: u32, lane: u32) -> f32 {
    let low = vec4f(k[at + min(lane, D4 - 1u)]);
    var sum = dots(vec4f(), q0, of_lanes_0_to_3(low));
    if D16 > 1u { sum = dots(sum, q1, of_lanes_4_to_7(low)); }
    if D16 > 2u {
        let high = vec4f(k[at + min(8u + lane, D4 - 1u)]);
        sum = dots(sum, q2, of_lanes_0_to_3(high));
        if D16 > 3u { sum = dots(sum, q3, of_lanes_4_to_7(high)); }
    }
    return (sum.x + sum.y) + (sum.z + sum.w);
}

// Adds p times the value at `at`.
fn gather(p: f32, at: u32, lane: u32) {
    let low = vec4f(v[at + min(lane, D4 - 1u)]);
    o0 = add(o0, p, of_lanes_0_to_3(low));
    if D16 > 1u { o1 = add(o1, p, of_lanes_4_to_7(low)); }
    if D16 > 2u {
        let high = vec4f(v[at + min(8u + lane, D4 - 1u)]);
        o2 = add(o2, p, of_lanes_0_to_3(high));
        if D16 > 3u { o3 = add(o3, p, of_lanes_4_to_7(high)); }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    let head = index / params.tiles % params.heads;
    let chunk = index / params.tiles / params.heads;
    if chunk >= params.chunks { return; }                               // uniform
    let kv = head / (params.heads / params.kv_heads);
    let t = index % params.tiles * WG + lane;
    let row = ((chunk * params.tokens + min(t, params.tokens - 1u)) * params.heads + head) * D4;
    q0 = query_at(row);
    if D16 > 1u { q1 = query_at(row + 4u); }
    if D16 > 2u { q2 = query_at(row + 8u); }
    if D16 > 3u { q3 = query_at(row + 12u); }
    o0 = mat4x4f();
    o1 = mat4x4f();
    o2 = mat4x4f();
    o3 = mat4x4f();
    var largest = -3.0e38;
    var total = 0.0;
    let first = (chunk * params.tokens * params.kv_heads + kv) * D4;
    let apart = params.kv_heads * D4;
    for (var j = 0u; j < params.tokens; j += 4u) {
        // Beyond the last key it repeats, so low that its weight is 0.
        let at = vec4u(first) + min(vec4u(j, j + 1u, j + 2u, j + 3u), vec4u(params.tokens - 1u)) * apart;
        let keep = vec4u(j, j + 1u, j + 2u, j + 3u) < vec4u(params.tokens);
        var a = vec4f(score(at.x, lane), score(at.y, lane), score(at.z, lane), score(at.w, lane));
        a = select(vec4f(-3.0e38), a, keep);
        let high = max(largest, max(max(a.x, a.y), max(a.z, a.w)));
        let rescale = exp(largest - high);
        largest = high;
        let p = exp(a - high);
        total = total * rescale + dot(p, vec4f(1.0));
        o0 = o0 * rescale;
        if D16 > 1u { o1 = o1 * rescale; }
        if D16 > 2u { o2 = o2 * rescale; }
        if D16 > 3u { o3 = o3 * rescale; }
        gather(p.x, at.x, lane);
        gather(p.y, at.y, lane);
        gather(p.z, at.z, lane);
        gather(p.w, at.w, lane);
    }
    if t >= params.tokens { return; }
    let part = 1.0 / total;
    store(row, o0 * part);
    if D16 > 1u { store(row + 4u, o1 * part); }
    if D16 > 2u { store(row + 8u, o2 * part); }
    if D16 > 3u { store(row + 12u, o3 * part); }
    lse[chunk * params.stride + head * params.tokens + t] = largest + log(total);
}
