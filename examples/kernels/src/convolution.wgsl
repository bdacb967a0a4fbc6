// A 3 × 3 filter over an image with zeros around it: y[r][c] = Σ_ij f[i][j] · x[r + i − 1][c + j − 1].
struct Params { height: u32, width: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> filter_: array<f32, 9>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= params.width || id.y >= params.height { return; }
    var sum = 0.0;
    for (var i = 0u; i < 3u; i++) {
        for (var j = 0u; j < 3u; j++) {
            let row = i32(id.y + i) - 1;
            let column = i32(id.x + j) - 1;
            let inside = row >= 0 && row < i32(params.height) && column >= 0 && column < i32(params.width);
            if inside { sum += filter_[i * 3u + j] * x[u32(row) * params.width + u32(column)]; }
        }
    }
    y[id.y * params.width + id.x] = sum;
}
