// uses: lib/reduce.wgsl
// variants: elem=f16 | elem_out=f16 | elem=f16 elem_out=f16 | WG=64 | WG=8
// dx[r, c] = rstd · (dy·w − x · rstd² · mean_c(dy·w·x)),   dweight[c] = Σ_r dy·x·rstd
// One workgroup a block of ROWS rows; dweight is left as one partial sum a block, added in order afterwards.
alias elem = f32;
alias elem_out = f32;
const WG: u32 = 256u;
const ROWS: u32 = 16u;
struct Params { rows: u32, columns: u32, first_block: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<elem_out>;               // (rows, columns)
@group(0) @binding(2) var<storage, read> x: array<elem>;                    // (rows, columns)
@group(0) @binding(3) var<storage, read> weight: array<f32>;                // (columns)
@group(0) @binding(4) var<storage, read> rstd: array<f32>;                  // (rows)
@group(0) @binding(5) var<storage, read_write> dx: array<elem>;             // (rows, columns)
@group(0) @binding(6) var<storage, read_write> dweight: array<f32>;         // (⌈rows / ROWS⌉, columns)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let block = row_of(group);
    let first = block * ROWS;
    if first >= params.rows { return; }
    let last = min(first + ROWS, params.rows);
    for (var row = first; row < last; row++) {
        let start = row * params.columns;
        let r = rstd[row];
        var dot = 0.0;
        for (var c = lane; c < params.columns; c += WG) {
            dot += f32(dy[start + c]) * weight[c] * f32(x[start + c]);
        }
        let mean = workgroup_sum(dot, lane) * r * r / f32(params.columns);
        for (var c = lane; c < params.columns; c += WG) {
            dx[start + c] = elem(r * (f32(dy[start + c]) * weight[c] - f32(x[start + c]) * mean));
        }
    }
    for (var c = lane; c < params.columns; c += WG) {
        var sum = 0.0;
        for (var row = first; row < last; row++) {
            let i = row * params.columns + c;
            sum += f32(dy[i]) * f32(x[i]) * rstd[row];
        }
        dweight[(params.first_block + block) * params.columns + c] = sum;
    }
}
