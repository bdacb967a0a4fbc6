// uses: lib/grid.wgsl
// variants: elem=f16
// y[r, :] = weight[ids[r] − first, :] where the id lies in this page of the table; rows of other pages stay
// as they are. An id beyond the vocabulary gives zeros.
alias elem = f32;
const WG: u32 = 64u;
struct Params { rows: u32, columns: u32, vocabulary: u32, first: u32, count: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;             // (rows)
@group(0) @binding(2) var<storage, read> weight: array<f32>;          // (count, columns): ids first .. first + count
@group(0) @binding(3) var<storage, read_write> y: array<elem>;        // (rows, columns)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let id = ids[row];
    let beyond = id >= params.vocabulary && params.first == 0u;
    // Below `first` the difference wraps to a large number.
    if !beyond && id - params.first >= params.count { return; }
    let source = select(id - params.first, 0u, beyond) * params.columns;
    for (var c = lane; c < params.columns; c += WG) {
        y[row * params.columns + c] = elem(select(weight[source + c], 0.0, beyond));
    }
}
