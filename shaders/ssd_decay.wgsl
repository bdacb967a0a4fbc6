// uses: lib/grid.wgsl, lib/softplus.wgsl, lib/decay.wgsl
// variants: elem=f16
// dt = clamp(softplus(raw + dt_bias), limits);  decay = exp(−dt · exp(a_log)), or 0 where states restart.
alias elem = f32;
const WG: u32 = 256u;
struct Params {
    batches: u32, tokens: u32, heads: u32, stride: u32, start: u32, low: f32, high: f32, has_segment: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> raw: array<elem>;            // (batches, tokens, stride), heads from start on
@group(0) @binding(2) var<storage, read> dt_bias: array<f32>;         // (heads)
@group(0) @binding(3) var<storage, read> a_log: array<f32>;           // (heads)
@group(0) @binding(4) var<storage, read> segment: array<u32>;         // (batches, tokens)
@group(0) @binding(5) var<storage, read_write> steps: array<vec2f>;   // (batches, tokens, heads): dt, decay

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i >= params.batches * params.tokens * params.heads { return; }
    let h = i % params.heads;
    let at = i / params.heads;
    let v = f32(raw[at * params.stride + params.start + h]) + dt_bias[h];
    let dt = clamp(softplus(v), params.low, params.high);
    var decay = decay_of(-dt * exp(a_log[h]));
    if params.has_segment != 0u && at % params.tokens > 0u && segment[at] != segment[at - 1u] { decay = 0.0; }
    steps[i] = vec2f(dt, decay);
}
