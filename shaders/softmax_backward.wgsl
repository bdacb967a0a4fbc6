// uses: lib/reduce.wgsl
// variants: elem=f16 | WG=64 | WG=8
// dx[r, c] = y[r, c] · (dy[r, c] − Σ_j dy[r, j]·y[r, j]); masked columns have y = 0. One workgroup a row.
alias elem = f32;
const WG: u32 = 256u;
struct Params { rows: u32, columns: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<elem>;          // (rows, columns)
@group(0) @binding(2) var<storage, read> y: array<elem>;           // (rows, columns)
@group(0) @binding(3) var<storage, read_write> dx: array<elem>;    // (rows, columns)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let first = row * params.columns;
    var dot = 0.0;
    for (var c = lane; c < params.columns; c += WG) { dot += f32(dy[first + c]) * f32(y[first + c]); }
    dot = workgroup_sum(dot, lane);
    for (var c = lane; c < params.columns; c += WG) {
        dx[first + c] = elem(f32(y[first + c]) * (f32(dy[first + c]) - dot));
    }
}
