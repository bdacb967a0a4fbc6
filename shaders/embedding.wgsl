// uses: lib/grid.wgsl
// variants: WG=32 | elem=vec4<f32> WG=256
// y[r, :] = weight[ids[r] − first, :] where the id lies in this page of the table; rows of other pages stay
// as they are. An id beyond the vocabulary gives zeros. An element may be four.
alias elem = f32;
const WG: u32 = 64u;
struct Params { rows: u32, columns: u32, vocabulary: u32, first: u32, count: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;             // (rows)
@group(0) @binding(2) var<storage, read> weight: array<elem>;         // (count, columns): ids first .. first + count
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
    let to = row * params.columns;
    for (var c = lane; c < params.columns; c += 4u * WG) {
        // All loads before the first store, which they might not pass; what lies beyond the row is not stored.
        let last = params.columns - 1u;
        let x0 = weight[source + c];
        let x1 = weight[source + min(c + WG, last)];
        let x2 = weight[source + min(c + 2u * WG, last)];
        let x3 = weight[source + min(c + 3u * WG, last)];
        y[to + c] = select(x0, elem(), beyond);
        if c + WG < params.columns { y[to + c + WG] = select(x1, elem(), beyond); }
        if c + 2u * WG < params.columns { y[to + c + 2u * WG] = select(x2, elem(), beyond); }
        if c + 3u * WG < params.columns { y[to + c + 3u * WG] = select(x3, elem(), beyond); }
    }
}
