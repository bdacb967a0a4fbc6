// uses: lib/grid.wgsl, lib/softplus.wgsl
// variants: elem=f16 | T=16 elem=f16
// Of each chunk of T tokens and head: Σ log2(decay) from the chunk's start to each token, and dt. The logarithm is
// −dt · exp(a_log) · log2(e), or −LEAST where states restart or where it is less: exp2 of it is 0. Beyond the end nothing
// decays and nothing comes in. One workgroup a chunk and EACH heads.
alias elem = f32;
const T: u32 = 64u;
const WG: u32 = 256u;
const EACH: u32 = WG / T;
const LEAST: f32 = 160.0;
struct Params {
    tokens: u32, heads: u32, stride: u32, start: u32, chunks: u32, sets: u32, groups: u32, low: f32, high: f32,
    has_segment: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // chunks: a sequence; sets: of EACH heads
@group(0) @binding(1) var<storage, read> raw: array<elem>;            // (batches, tokens, stride), heads from start on
@group(0) @binding(2) var<storage, read> dt_bias: array<f32>;         // (heads)
@group(0) @binding(3) var<storage, read> a_log: array<f32>;           // (heads)
@group(0) @binding(4) var<storage, read> segment: array<u32>;         // (batches, tokens)
@group(0) @binding(5) var<storage, read_write> logs: array<f32>;      // (batches, chunks, heads, 2, T)

var<workgroup> sums: array<f32, 2u * WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = group.y * GRID_WIDTH + group.x;                       // naga takes no call for uniform
    if index >= params.groups { return; }                             // uniform
    let chunk = index / params.sets;                                 // over batches
    let batch = chunk / params.chunks;
    let h = index % params.sets * EACH + lane % EACH;
    let t = chunk % params.chunks * T + lane / EACH;
    var dt = 0.0;
    var sum = 0.0;
    if t < params.tokens && h < params.heads {
        let at = batch * params.tokens + t;
        let v = f32(raw[at * params.stride + params.start + h]) + dt_bias[h];
        dt = clamp(softplus(v), params.low, params.high);
        sum = max(-dt * exp(a_log[h]) * 1.44269504, -LEAST);
        if params.has_segment != 0u && t > 0u && segment[at] != segment[at - 1u] { sum = -LEAST; }
    }
    // Each round adds what lies as far back as all before it reach, from one half of `sums` to the other.
    var half = 0u;
    for (var back = EACH; back < WG; back *= 2u) {
        sums[half + lane] = sum;
        workgroupBarrier();
        if lane >= back { sum += sums[half + lane - back]; }
        half = WG - half;
    }
    if h >= params.heads { return; }
    let to = (chunk * params.heads + h) * 2u * T + lane / EACH;
    logs[to] = sum;
    logs[to + T] = dt;
}
