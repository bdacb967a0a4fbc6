// uses: lib/reduce.wgsl
// variants: elem=f16 | WG=64 | WG=8
// y[r, c] = exp(x[r, c] − max) / Σ exp(x[r, ·] − max) over the columns that the mask keeps, 0 elsewhere; a row without
// any is 0. One workgroup a row.
alias elem = f32;
const WG: u32 = 256u;
struct Params { rows: u32, columns: u32, start: u32, mask_rows: u32 }

@group(0) @binding(0) var<uniform> params: Params;                // start: the page's first row; mask_rows = 0: no mask
@group(0) @binding(1) var<storage, read> x: array<elem>;          // (rows, columns)
@group(0) @binding(2) var<storage, read> mask: array<u32>;        // (mask_rows, columns), not 0 where kept
@group(0) @binding(3) var<storage, read_write> y: array<elem>;    // (rows, columns)

fn kept(row: u32, c: u32) -> bool {
    if params.mask_rows == 0u { return true; }
    return mask[(params.start + row) % params.mask_rows * params.columns + c] != 0u;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let first = row * params.columns;
    var largest = -3.0e38;
    for (var c = lane; c < params.columns; c += WG) {
        if kept(row, c) { largest = max(largest, f32(x[first + c])); }
    }
    largest = workgroup_max(largest, lane);
    var sum = 0.0;
    for (var c = lane; c < params.columns; c += WG) {
        if kept(row, c) { sum += exp(f32(x[first + c]) - largest); }
    }
    sum = workgroup_sum(sum, lane);
    for (var c = lane; c < params.columns; c += WG) {
        var p = 0.0;
        if kept(row, c) { p = exp(f32(x[first + c]) - largest) / sum; }
        y[first + c] = elem(p);
    }
}
