// uses: lib/grid.wgsl
// variants: elem=f16
// dx[r, indices[r, j]] = dvalues[r, j], 0 elsewhere. One workgroup a row; every column is written once.
alias elem = f32;
const WG: u32 = 64u;
const MOST: u32 = 64u;
struct Params { rows: u32, columns: u32, k: u32 }                         // k ≤ MOST

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dvalues: array<elem>;            // (rows, k)
@group(0) @binding(2) var<storage, read> indices: array<u32>;             // (rows, k)
@group(0) @binding(3) var<storage, read_write> dx: array<elem>;           // (rows, columns)

var<workgroup> places: array<u32, MOST>;
var<workgroup> given: array<elem, MOST>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    if lane < params.k {
        places[lane] = indices[row * params.k + lane];
        given[lane] = dvalues[row * params.k + lane];
    }
    workgroupBarrier();
    for (var c = lane; c < params.columns; c += WG) {
        var d = elem();
        for (var j = 0u; j < params.k; j++) {
            if places[j] == c { d = given[j]; }
        }
        dx[row * params.columns + c] = d;
    }
}
