// uses: lib/grid.wgsl, lib/rivals.wgsl
// margins[r] = clamp(margin + scores[r, told[r]] − ENOUGH, 0, margin).
// An invocation a row.
const WG: u32 = 64u;
struct Params { rows: u32, columns: u32, margin: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<f32>;          // (rows, columns)
@group(0) @binding(2) var<storage, read> told: array<u32>;            // (rows, 3)
@group(0) @binding(3) var<storage, read_write> margins: array<f32>;   // (rows)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group) * WG + lane;
    if row >= params.rows { return; }
    let own = scores[row * params.columns + min(told[3u * row], params.columns - 1u)];
    margins[row] = clamp(params.margin + own - ENOUGH, 0.0, params.margin);
}
