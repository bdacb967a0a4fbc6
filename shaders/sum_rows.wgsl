// uses: lib/column_sum.wgsl, lib/grid.wgsl
// variants: elem=f16 | GROUP=64 | elem=vec4<f32> real=vec4<f32> | elem=vec4<f16> real=vec4<f32>
// out[g, c] = Σ x[r, c] over the GROUP rows r of group g, in ascending order: the second pass of every sum over rows.
// An invocation owns a column, or four, so no order but the rows' exists.
alias elem = f32;
alias real = f32;
const WG: u32 = 64u;
const GROUP: u32 = 16u;
struct Params { rows: u32, columns: u32, blocks: u32, first_group: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // blocks = ⌈columns / WG⌉
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (rows, columns)
@group(0) @binding(2) var<storage, read_write> out: array<real>;      // (⌈rows / GROUP⌉, columns)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let g = row_of(group) / params.blocks;
    let c = (row_of(group) % params.blocks) * WG + lane;
    let first = g * GROUP;
    if first >= params.rows || c >= params.columns { return; }
    let last = min(first + GROUP, params.rows);
    let n = params.columns;
    let sum = column_sum(first * n + c, n, last - first);
    out[(params.first_group + g) * n + c] = sum;
}
