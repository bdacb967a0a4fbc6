// uses: lib/grid.wgsl, lib/scan4.wgsl
// variants: REVERSE=1 | SUMS=1 WG=32 | elem=f16 elem_out=f16 | elem=f16 SUMS=1 REVERSE=1
// y[r, c] = Σ x[r, j] over j ≤ c, over j ≥ c where REVERSE. A block is 4 · WG columns, counted from where the sums begin;
// one workgroup a row and block. Rows of several blocks are summed by block first (SUMS = 1: y (rows, blocks) = the
// blocks' own sums), then those sums are summed along the row, then each block adds what lies before it.
alias elem = f32;
alias elem_out = f32;
const REVERSE: u32 = 0u;
const SUMS: u32 = 0u;
const WG: u32 = 256u;
struct Params { rows: u32, columns: u32, blocks: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (rows, columns)
@group(0) @binding(2) var<storage, read> before: array<f32>;          // (rows, blocks): sums up to each block's end; unread in rows of one
@group(0) @binding(3) var<storage, read_write> y: array<elem_out>;    // (rows, columns), or (rows, blocks)

// Where the i-th column from the sums' beginning lies.
fn place(row: u32, i: u32) -> u32 {
    if REVERSE == 1u { return (row + 1u) * params.columns - 1u - i; }
    return row * params.columns + i;
}

fn x_at(row: u32, i: u32) -> f32 {
    return select(0.0, f32(x[place(row, min(i, params.columns - 1u))]), i < params.columns);
}

fn put(row: u32, i: u32, sum: f32) {
    if i < params.columns { y[place(row, i)] = elem_out(sum); }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group) / params.blocks;
    let block = row_of(group) % params.blocks;
    if row >= params.rows { return; }
    let i = block * 4u * WG + lane;
    let v = vec4f(x_at(row, i), x_at(row, i + WG), x_at(row, i + 2u * WG), x_at(row, i + 3u * WG));
    let sums = workgroup_scan4(v, lane);
    let totals = scan4_scratch[WG - 1u];
    if SUMS == 1u {
        if lane == 0u { y[row_of(group)] = elem_out(dot(totals, vec4f(1.0))); }
        return;
    }
    var sum = 0.0;
    if block > 0u { sum = before[row * params.blocks + block - 1u]; }
    put(row, i, sum + sums.x);
    sum += totals.x;
    put(row, i + WG, sum + sums.y);
    sum += totals.y;
    put(row, i + 2u * WG, sum + sums.z);
    sum += totals.z;
    put(row, i + 3u * WG, sum + sums.w);
}
