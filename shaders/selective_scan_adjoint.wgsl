// uses: lib/grid.wgsl, lib/decay.wgsl
// variants: N=8 | N=32
// What each block's outputs ask of the state that enters it: g_t = dy_t·c_t + exp(dt_{t+1}·a)·g_{t+1}, begun at 0 after
// the block; exp(dt·a)·g of its first token leaves. An invocation a (batch, block, channel).
const WG: u32 = 64u;
const N: u32 = 16u;
const BLOCK: u32 = 16u;
struct Params { batch: u32, channels: u32, tokens: u32, groups: u32, blocks: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> packed: array<f32>;        // (2, B, D, L): u, dt
@group(0) @binding(2) var<storage, read> a: array<f32>;             // (D, N)
@group(0) @binding(3) var<storage, read> c: array<f32>;             // (B, G, N, L)
@group(0) @binding(4) var<storage, read> dy: array<f32>;            // (B, D, L)
@group(0) @binding(5) var<storage, read_write> carry: array<f32>;   // (B, blocks, D, N)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    let wide = (params.channels + WG - 1u) / WG;
    let d = index % wide * WG + lane;
    let block = index / wide % params.blocks;
    let batch = index / wide / params.blocks;
    if batch >= params.batch || d >= params.channels { return; }
    let first = block * BLOCK;
    let last = min(first + BLOCK, params.tokens);
    let row = (batch * params.channels + d) * params.tokens;
    let count = params.batch * params.channels * params.tokens;
    let bc = (batch * params.groups + d / (params.channels / params.groups)) * N * params.tokens;
    let place = (batch * params.blocks + block) * params.channels + d;
    var rate: array<f32, N>;
    var g: array<f32, N>;
    for (var n = 0u; n < N; n++) {
        rate[n] = a[d * N + n];
        g[n] = 0.0;
    }
    for (var t = last; t > first; t--) {
        let dt = packed[count + row + t - 1u];
        let wanted = dy[row + t - 1u];
        for (var n = 0u; n < N; n++) {
            g[n] = decay_of(dt * rate[n]) * (g[n] + wanted * c[bc + n * params.tokens + t - 1u]);
        }
    }
    for (var n = 0u; n < N; n++) { carry[place * N + n] = g[n]; }
}
