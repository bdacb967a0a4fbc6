// uses: lib/grid.wgsl
// BACKWARD = 0: y[n, e] = factor · Σ_s x[n, s, e], in ascending s;  BACKWARD = 1: y[n, s, e] = factor · x[n, e].
// An element may be four.
// variants: BACKWARD=1 | elem=f16 | elem=f16 BACKWARD=1 | elem=vec4<f32> real=vec4<f32> | elem=vec4<f16> real=vec4<f32> BACKWARD=1
alias elem = f32;
alias real = f32;
const BACKWARD: u32 = 0u;
const WG: u32 = 256u;
struct Params { rows: u32, middle: u32, columns: u32, factor: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (rows, middle, columns); backward (rows, columns)
@group(0) @binding(2) var<storage, read_write> y: array<elem>;        // (rows, columns); backward (rows, middle, columns)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    let c = i % params.columns;
    if BACKWARD == 1u {
        let row = i / params.columns / params.middle;
        if row < params.rows { y[i] = elem(real(x[row * params.columns + c]) * params.factor); }
    } else {
        let row = i / params.columns;
        if row >= params.rows { return; }
        var sum = real();
        for (var s = 0u; s < params.middle; s++) { sum += real(x[(row * params.middle + s) * params.columns + c]); }
        y[i] = elem(sum * params.factor);
    }
}
