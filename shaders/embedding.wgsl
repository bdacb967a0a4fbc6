// uses: lib/grid.wgsl
// variants: elem=f16
// y[r, :] = weight[ids[r] − first, :] where the id lies in this page of the table; other rows stay as they are.
alias elem = f32;
const WG: u32 = 64u;
struct Params { rows: u32, columns: u32, first: u32, count: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;             // (rows)
@group(0) @binding(2) var<storage, read> weight: array<f32>;          // (count, columns): ids first .. first + count
@group(0) @binding(3) var<storage, read_write> y: array<elem>;        // (rows, columns)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let id = ids[row];
    if id < params.first || id - params.first >= params.count { return; }
    for (var c = lane; c < params.columns; c += WG) {
        y[row * params.columns + c] = elem(weight[(id - params.first) * params.columns + c]);
    }
}
