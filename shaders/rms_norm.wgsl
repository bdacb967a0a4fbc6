// uses: lib/reduce.wgsl
// variants: elem=f16 | elem_out=f16 | elem=f16 elem_out=f16 | WG=64 | WG=8
// y[r, c] = x[r, c] · rstd[r] · weight[c],   rstd[r] = 1 / √(mean_c x² + eps)
// One workgroup a row.
alias elem = f32;
alias elem_out = f32;
const WG: u32 = 256u;
struct Params { rows: u32, columns: u32, eps: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (rows, columns)
@group(0) @binding(2) var<storage, read> weight: array<f32>;          // (columns)
@group(0) @binding(3) var<storage, read_write> y: array<elem_out>;    // (rows, columns)
@group(0) @binding(4) var<storage, read_write> rstd: array<f32>;      // (rows), saved for the backward pass

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }              // uniform: whole workgroups leave
    let start = row * params.columns;
    var square = 0.0;
    for (var c = lane; c < params.columns; c += WG) {
        let v = f32(x[start + c]);
        square += v * v;
    }
    let r = inverseSqrt(workgroup_sum(square, lane) / f32(params.columns) + params.eps);
    if lane == 0u { rstd[row] = r; }
    for (var c = lane; c < params.columns; c += WG) {
        y[start + c] = elem_out(f32(x[start + c]) * r * weight[c]);
    }
}
