// uses: lib/grid.wgsl, lib/softplus.wgsl
// w[i] = σ(s[i]) · Π_{j<i} (1 − σ(s[j])) = exp(s[i] − Σ_{j≤i} softplus(s[j])); 0 on padding.
// An invocation a row.
const WG: u32 = 64u;
const PADDING: f32 = -1.0e38;
struct Params { rows: u32, slots: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<f32>;              // (rows, slots)
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;       // (rows, slots)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group) * WG + lane;
    if row >= params.rows { return; }
    var left = 0.0;
    for (var i = row * params.slots; i < (row + 1u) * params.slots; i++) {
        let s = scores[i];
        var w = 0.0;
        if s > PADDING {
            let tail = log_1p(exp(-abs(s)));
            w = exp(min(s, 0.0) - tail - left);
            left += max(s, 0.0) + tail;
        }
        weights[i] = w;
    }
}
