// uses: lib/conv_tap.wgsl
// variants: elem=f16
// final[j] = the last width − 1 inputs, oldest first: those before the start come from `initial`, those before the
// last restart are 0.
alias elem = f32;
const WG: u32 = 64u;
struct Params {
    batches: u32, tokens: u32, channels: u32, width: u32, has_bias: u32, has_initial: u32, has_segment: u32,
    x_stride: u32, x_start: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (batches, tokens, x_stride): from x_start on
@group(0) @binding(2) var<storage, read> weight: array<f32>;          // (channels, width)
@group(0) @binding(3) var<storage, read> bias: array<f32>;            // (channels)
@group(0) @binding(4) var<storage, read> initial: array<f32>;         // (batches, channels, width − 1)
@group(0) @binding(5) var<storage, read> segment: array<u32>;         // (batches, tokens)
@group(0) @binding(6) var<storage, read_write> out: array<f32>;       // (batches, channels, width − 1)

// Where a token's input lies.
fn place_of(token: u32, c: u32) -> u32 { return token * params.x_stride + params.x_start + c; }

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    let kept = params.width - 1u;
    if i >= params.batches * params.channels * kept { return; }
    let j = i % kept;
    out[i] = tap(i / kept / params.channels, params.tokens - 1u, kept - 1u - j, (i / kept) % params.channels);
}
