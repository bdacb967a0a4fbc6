// uses: lib/grid.wgsl
// ds[i] = w[i] · dw[i] · (1 − σ(s[i])) − σ(s[i]) · Σ_{j>i} w[j] · dw[j]
// An invocation a row.
const WG: u32 = 64u;
const PADDING: f32 = -1.0e38;
struct Params { rows: u32, slots: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<f32>;              // (rows, slots)
@group(0) @binding(2) var<storage, read> weights: array<f32>;             // (rows, slots)
@group(0) @binding(3) var<storage, read> dweights: array<f32>;            // (rows, slots)
@group(0) @binding(4) var<storage, read_write> dscores: array<f32>;       // (rows, slots)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group) * WG + lane;
    if row >= params.rows { return; }
    var after = 0.0;
    for (var k = params.slots; k > 0u; k--) {
        let i = row * params.slots + k - 1u;
        let s = scores[i];
        var ds = 0.0;
        if s > PADDING {
            let e = exp(-abs(s));
            let high = 1.0 / (1.0 + e);
            let low = e * high;
            let wdw = weights[i] * dweights[i];
            ds = wdw * select(high, low, s > 0.0) - select(low, high, s > 0.0) * after;
            after += wdw;
        }
        dscores[i] = ds;
    }
}
