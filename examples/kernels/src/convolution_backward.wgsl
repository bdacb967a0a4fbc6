// dx[r][c] = Σ_ij f[i][j] · dy[r − i + 1][c − j + 1]: the filter turned around.
struct Params { height: u32, width: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> filter_: array<f32, 9>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= params.width || id.y >= params.height { return; }
    var sum = 0.0;
    for (var i = 0u; i < 3u; i++) {
        for (var j = 0u; j < 3u; j++) {
            let row = i32(id.y + 1u) - i32(i);
            let column = i32(id.x + 1u) - i32(j);
            let inside = row >= 0 && row < i32(params.height) && column >= 0 && column < i32(params.width);
            if inside { sum += filter_[i * 3u + j] * dy[u32(row) * params.width + u32(column)]; }
        }
    }
    dx[id.y * params.width + id.x] = sum;
}
