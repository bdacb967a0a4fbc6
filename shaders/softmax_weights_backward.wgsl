// uses: lib/reduce.wgsl
// ds[i] = w[i] · (dw[i] − Σ_j w[j] · dw[j]),   ddecay = Σ_rows Σ_i i · ds[i]
// An invocation a row; ddecay is left as one partial sum a workgroup.
const WG: u32 = 64u;
struct Params { rows: u32, slots: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weights: array<f32>;             // (rows, slots)
@group(0) @binding(2) var<storage, read> dweights: array<f32>;            // (rows, slots)
@group(0) @binding(3) var<storage, read_write> dscores: array<f32>;       // (rows, slots)
@group(0) @binding(4) var<storage, read_write> ddecay: array<f32>;        // (⌈rows / WG⌉)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let block = row_of(group);
    if block * WG >= params.rows { return; }
    let row = block * WG + lane;
    var slope = 0.0;
    if row < params.rows {
        let first = row * params.slots;
        var mean = 0.0;
        for (var i = first; i < first + params.slots; i++) { mean += weights[i] * dweights[i]; }
        for (var i = 0u; i < params.slots; i++) {
            let ds = weights[first + i] * (dweights[first + i] - mean);
            dscores[first + i] = ds;
            slope += f32(i) * ds;
        }
    }
    let total = workgroup_sum(slope, lane);
    if lane == 0u { ddecay[block] = total; }
}
