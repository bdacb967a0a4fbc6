// y[c][r] = x[r][c], by tiles of 16 × 16 that 64 invocations carry through workgroup memory; a column more keeps its banks
// apart.
struct Params { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

const TILE: u32 = 16u;
var<workgroup> tile: array<array<f32, TILE + 1u>, TILE>;

@compute @workgroup_size(TILE, 4)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) lane: vec3u) {
    let from_ = vec2u(group.y, group.x) * TILE;
    for (var k = lane.y; k < TILE; k += 4u) {
        let row = from_.x + k;
        let column = from_.y + lane.x;
        if row < params.rows && column < params.columns { tile[k][lane.x] = x[row * params.columns + column]; }
    }
    workgroupBarrier();
    for (var k = lane.y; k < TILE; k += 4u) {
        let row = from_.x + lane.x;
        let column = from_.y + k;
        if row < params.rows && column < params.columns { y[column * params.rows + row] = tile[lane.x][k]; }
    }
}
