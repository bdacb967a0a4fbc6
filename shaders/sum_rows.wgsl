// uses: lib/grid.wgsl
// out[g, c] = Σ x[r, c] over the GROUP rows r of group g, in ascending order: the second pass of every sum over rows.
// An invocation owns a column, so no order but the rows' exists.
const WG: u32 = 64u;
const GROUP: u32 = 16u;
struct Params { rows: u32, columns: u32, blocks: u32, first_group: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // blocks = ⌈columns / WG⌉
@group(0) @binding(1) var<storage, read> x: array<f32>;               // (rows, columns)
@group(0) @binding(2) var<storage, read_write> out: array<f32>;       // (⌈rows / GROUP⌉, columns)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let g = row_of(group) / params.blocks;
    let c = (row_of(group) % params.blocks) * WG + lane;
    let first = g * GROUP;
    if first >= params.rows || c >= params.columns { return; }
    var sum = 0.0;
    for (var r = first; r < min(first + GROUP, params.rows); r++) { sum += x[r * params.columns + c]; }
    out[(params.first_group + g) * params.columns + c] = sum;
}
