// uses: lib/grid.wgsl, lib/decay.wgsl
// Passes states on from block to block: what enters each block replaces what it left by itself. Backward, adjoints go
// from the last block to the first. An invocation a (batch, channel, state).
const WG: u32 = 64u;
struct Params { batch: u32, channels: u32, states: u32, blocks: u32, reverse: u32, has_initial: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;                 // (D, N)
@group(0) @binding(2) var<storage, read> dt_sum: array<f32>;            // (B, blocks, D)
@group(0) @binding(3) var<storage, read> initial: array<f32>;           // (B, D, N)
@group(0) @binding(4) var<storage, read_write> carry: array<f32>;       // (B, blocks, D, N)
@group(0) @binding(5) var<storage, read_write> end: array<f32>;         // (B, D, N)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    let width = params.channels * params.states;
    let batch = i / width;
    if batch >= params.batch { return; }
    let at = i % width;
    let rate = a[at];
    var h = 0.0;
    if params.has_initial != 0u { h = initial[i]; }
    for (var k = 0u; k < params.blocks; k++) {
        let block = batch * params.blocks + select(k, params.blocks - 1u - k, params.reverse != 0u);
        let own = carry[block * width + at];
        carry[block * width + at] = h;
        h = decay_of(dt_sum[block * params.channels + at / params.states] * rate) * h + own;
    }
    end[i] = h;
}
