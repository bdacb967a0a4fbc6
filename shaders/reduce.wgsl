// uses: lib/reduce.wgsl
// y[r] = factor · Σ_c x[r, c]: one workgroup a row.
// variants: elem=f16 | WG=8
alias elem = f32;
const WG: u32 = 256u;
struct Params { rows: u32, columns: u32, factor: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (rows, columns)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;         // (rows)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    var part = 0.0;
    for (var c = lane; c < params.columns; c += WG) { part += f32(x[row * params.columns + c]); }
    let total = workgroup_sum(part, lane);
    if lane == 0u { y[row] = total * params.factor; }
}
