// uses: lib/reduce.wgsl
// y[r] = factor · Σ_c x[r, c]: one workgroup a row. The last row may be short.
// variants: elem=f16 | WG=8
alias elem = f32;
const WG: u32 = 256u;
struct Params { count: u32, columns: u32, factor: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (count)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;         // (⌈count / columns⌉)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    let first = row * params.columns;
    if first >= params.count { return; }
    let last = min(first + params.columns, params.count);
    var part = 0.0;
    for (var i = first + lane; i < last; i += WG) { part += f32(x[i]); }
    let total = workgroup_sum(part, lane);
    if lane == 0u { y[row] = total * params.factor; }
}
