// uses: lib/grid.wgsl, lib/decay.wgsl
// variants: N=8 | N=32
// The state at the end of each block of BLOCK tokens, begun at 0: h_t = exp(dt_t·a)·h_{t−1} + dt_t·b_t·u_t; and Σ dt.
// An invocation a (batch, block, channel).
const WG: u32 = 64u;
const N: u32 = 16u;
const BLOCK: u32 = 16u;
struct Params { batch: u32, channels: u32, tokens: u32, groups: u32, blocks: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> packed: array<f32>;            // (2, B, D, L): u, dt
@group(0) @binding(2) var<storage, read> a: array<f32>;                 // (D, N)
@group(0) @binding(3) var<storage, read> b: array<f32>;                 // (B, G, N, L)
@group(0) @binding(4) var<storage, read_write> carry: array<f32>;       // (B, blocks, D, N)
@group(0) @binding(5) var<storage, read_write> dt_sum: array<f32>;      // (B, blocks, D)

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
    var h: array<f32, N>;
    for (var n = 0u; n < N; n++) {
        rate[n] = a[d * N + n];
        h[n] = 0.0;
    }
    var sum = 0.0;
    for (var t = first; t < last; t++) {
        let dt = packed[count + row + t];
        let x = dt * packed[row + t];
        sum += dt;
        for (var n = 0u; n < N; n++) { h[n] = decay_of(dt * rate[n]) * h[n] + x * b[bc + n * params.tokens + t]; }
    }
    for (var n = 0u; n < N; n++) { carry[place * N + n] = h[n]; }
    dt_sum[place] = sum;
}
