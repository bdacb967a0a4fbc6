// uses: lib/grid.wgsl, lib/softplus.wgsl
// variants: elem=f16
// Through the clamp and the softplus: draw = ddt · σ(raw + dt_bias) where the clamp lets it pass, else 0.
alias elem = f32;
const WG: u32 = 256u;
struct Params { count: u32, heads: u32, low: f32, high: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> side: array<vec4f>;          // (batches, tokens, heads): ddt, …
@group(0) @binding(2) var<storage, read> raw: array<elem>;            // (batches, tokens, heads)
@group(0) @binding(3) var<storage, read> dt_bias: array<f32>;         // (heads)
@group(0) @binding(4) var<storage, read_write> d_raw: array<f32>;     // (batches, tokens, heads)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i >= params.count { return; }
    let v = f32(raw[i]) + dt_bias[i % params.heads];
    let e = exp(-abs(v));
    let dt = max(v, 0.0) + log_1p(e);
    let sigmoid = select(e, 1.0, v >= 0.0) / (1.0 + e);
    d_raw[i] = select(0.0, side[i].x * sigmoid, dt >= params.low && dt <= params.high);
}
