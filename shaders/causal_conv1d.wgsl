// uses: lib/conv_tap.wgsl
// variants: elem=f16
// u[t] = bias + Σ_j weight[j] · x[t − W + 1 + j];  y = u · σ(u). Before the start x comes from `initial` (zeros without);
// a tap beyond a restart is 0. An invocation computes one (token, channel).
alias elem = f32;
const WG: u32 = 256u;
struct Params { batches: u32, tokens: u32, channels: u32, width: u32, has_bias: u32, has_initial: u32, has_segment: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (batches, tokens, channels)
@group(0) @binding(2) var<storage, read> weight: array<f32>;          // (channels, width)
@group(0) @binding(3) var<storage, read> bias: array<f32>;            // (channels)
@group(0) @binding(4) var<storage, read> initial: array<f32>;         // (batches, channels, width − 1)
@group(0) @binding(5) var<storage, read> segment: array<u32>;         // (batches, tokens)
@group(0) @binding(6) var<storage, read_write> y: array<elem>;        // (batches, tokens, channels)

// Where a token's input lies.
fn place_of(token: u32, c: u32) -> u32 { return token * params.channels + c; }

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i >= params.batches * params.tokens * params.channels { return; }
    let c = i % params.channels;
    let t = (i / params.channels) % params.tokens;
    let b = i / params.channels / params.tokens;
    let u = convolved(b, t, c);
    y[i] = elem(u * sigmoid(u));
}
