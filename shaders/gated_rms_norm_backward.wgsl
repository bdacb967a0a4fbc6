// uses: lib/reduce.wgsl
// variants: elem=f16 | WG=8
// With g = x · silu(z): dg = rstd · (dy·w − g · rstd² · mean(dy·w·g)),  dx = dg · silu(z),  dz = dg · x · silu'(z),
// dweight[c] = Σ_r dy·g·rstd. One workgroup a block of ROWS rows; dweight is one partial sum a block, added in order.
alias elem = f32;
const WG: u32 = 256u;
const ROWS: u32 = 16u;
struct Params { rows: u32, columns: u32, groups: u32, z_stride: u32, z_start: u32, first_block: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<elem>;                 // (rows, columns)
@group(0) @binding(2) var<storage, read> x: array<elem>;                  // (rows, columns)
@group(0) @binding(3) var<storage, read> z: array<elem>;                  // (rows, z_stride): from z_start on
@group(0) @binding(4) var<storage, read> weight: array<f32>;              // (columns)
@group(0) @binding(5) var<storage, read> rstd: array<f32>;                // (rows, groups)
@group(0) @binding(6) var<storage, read_write> dx: array<elem>;           // (rows, columns)
@group(0) @binding(7) var<storage, read_write> dz: array<elem>;           // as z
@group(0) @binding(8) var<storage, read_write> dweight: array<f32>;       // (⌈rows / ROWS⌉, columns)

fn sigmoid(v: f32) -> f32 {
    let e = exp(-abs(v));
    return select(e, 1.0, v >= 0.0) / (1.0 + e);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let block = row_of(group);
    let first = block * ROWS;
    if first >= params.rows { return; }
    let last = min(first + ROWS, params.rows);
    let width = params.columns / params.groups;
    for (var row = first; row < last; row++) {
        for (var part = 0u; part < params.groups; part++) {
            let start = row * params.columns + part * width;
            let z_at = row * params.z_stride + params.z_start + part * width;
            let r = rstd[row * params.groups + part];
            var dot = 0.0;
            for (var c = lane; c < width; c += WG) {
                let v = f32(z[z_at + c]);
                dot += f32(dy[start + c]) * weight[part * width + c] * f32(x[start + c]) * v * sigmoid(v);
            }
            let mean = workgroup_sum(dot, lane) * r * r / f32(width);
            for (var c = lane; c < width; c += WG) {
                let u = f32(x[start + c]);
                let v = f32(z[z_at + c]);
                let s = sigmoid(v);
                let dg = r * (f32(dy[start + c]) * weight[part * width + c] - u * v * s * mean);
                dx[start + c] = elem(dg * v * s);
                dz[z_at + c] = elem(dg * u * s * (1.0 + v * (1.0 - s)));
            }
        }
    }
    for (var c = lane; c < params.columns; c += WG) {
        var sum = 0.0;
        for (var row = first; row < last; row++) {
            let i = row * params.columns + c;
            let v = f32(z[row * params.z_stride + params.z_start + c]);
            sum += f32(dy[i]) * f32(x[i]) * v * sigmoid(v) * rstd[row * params.groups + c / width];
        }
        dweight[(params.first_block + block) * params.columns + c] = sum;
    }
}
