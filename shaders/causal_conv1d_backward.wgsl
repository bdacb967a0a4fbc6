// uses: lib/conv_tap.wgsl
// variants: elem=f16
// du = dy · silu'(u), u recomputed. One invocation a (block of BLOCK tokens, channel): du is written for the next
// kernel, dweight and dbias are one partial sum a block, in ascending t.
alias elem = f32;
const WG: u32 = 64u;
const BLOCK: u32 = 64u;
struct Params { batches: u32, tokens: u32, channels: u32, width: u32, has_bias: u32, has_initial: u32, has_segment: u32, blocks: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // blocks = ⌈tokens / BLOCK⌉
@group(0) @binding(1) var<storage, read> dy: array<elem>;             // (batches, tokens, channels)
@group(0) @binding(2) var<storage, read> x: array<elem>;              // (batches, tokens, channels)
@group(0) @binding(3) var<storage, read> weight: array<f32>;          // (channels, width)
@group(0) @binding(4) var<storage, read> bias: array<f32>;            // (channels)
@group(0) @binding(5) var<storage, read> initial: array<f32>;         // (batches, channels, width − 1)
@group(0) @binding(6) var<storage, read> segment: array<u32>;         // (batches, tokens)
@group(0) @binding(7) var<storage, read_write> du: array<f32>;        // (batches, tokens, channels)
@group(0) @binding(8) var<storage, read_write> sums: array<f32>;      // (batches · blocks, (channels, width) then
                                                                      // (channels)): dweight, dbias

// Where a token's input lies.
fn place_of(token: u32, c: u32) -> u32 { return token * params.channels + c; }

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i >= params.batches * params.blocks * params.channels { return; }
    let c = i % params.channels;
    let block = (i / params.channels) % params.blocks;
    let b = i / params.channels / params.blocks;
    var dweight: array<f32, 8>;
    var dbias = 0.0;
    for (var t = block * BLOCK; t < min((block + 1u) * BLOCK, params.tokens); t++) {
        let at = (b * params.tokens + t) * params.channels + c;
        let u = convolved(b, t, c);
        let s = sigmoid(u);
        let d = f32(dy[at]) * s * (1.0 + u * (1.0 - s));
        du[at] = d;
        dbias += d;
        for (var j = 0u; j < params.width; j++) { dweight[j] += d * tap(b, t, params.width - 1u - j, c); }
    }
    let row = i / params.channels * params.channels * (params.width + 1u);
    for (var j = 0u; j < params.width; j++) { sums[row + c * params.width + j] = dweight[j]; }
    sums[row + params.channels * params.width + c] = dbias;
}
