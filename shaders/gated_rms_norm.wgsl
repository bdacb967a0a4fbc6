// uses: lib/reduce.wgsl
// variants: elem=f16 | WG=8
// g = x · silu(z);  y[r, c] = g[r, c] · rstd[r, group(c)] · weight[c],  rstd = 1 / √(mean over the group's columns g² + eps)
// One workgroup a row and group.
alias elem = f32;
const WG: u32 = 256u;
struct Params { rows: u32, columns: u32, groups: u32, z_stride: u32, z_start: u32, eps: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (rows, columns)
@group(0) @binding(2) var<storage, read> z: array<elem>;              // (rows, z_stride): from z_start on
@group(0) @binding(3) var<storage, read> weight: array<f32>;          // (columns)
@group(0) @binding(4) var<storage, read_write> y: array<elem>;        // (rows, columns)
@group(0) @binding(5) var<storage, read_write> rstd: array<f32>;      // (rows, groups), saved for the backward pass

fn gated(row: u32, c: u32) -> f32 {
    let v = f32(z[row * params.z_stride + params.z_start + c]);
    let e = exp(-abs(v));
    return f32(x[row * params.columns + c]) * v * select(e, 1.0, v >= 0.0) / (1.0 + e);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group) / params.groups;
    let part = row_of(group) % params.groups;
    if row >= params.rows { return; }
    let width = params.columns / params.groups;
    let start = part * width;
    var square = 0.0;
    for (var c = lane; c < width; c += WG) {
        let v = gated(row, start + c);
        square += v * v;
    }
    let r = inverseSqrt(workgroup_sum(square, lane) / f32(width) + params.eps);
    if lane == 0u { rstd[row * params.groups + part] = r; }
    for (var c = lane; c < width; c += WG) {
        y[row * params.columns + start + c] = elem(gated(row, start + c) * r * weight[part * width + c]);
    }
}
