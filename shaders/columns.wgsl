// uses: lib/grid.wgsl
// variants: elem=f16 | elem=u32 | elem=vec4<f32> | elem=vec4<f16> | elem=vec4<u32>
// y[r, to + c] = x[r, start + c] for c < width: parts of rows. A row stride of 0 repeats one row. An element may be four.
alias elem = f32;
const WG: u32 = 256u;
struct Params { rows: u32, width: u32, x_stride: u32, start: u32, y_stride: u32, to: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (rows, x_stride)
@group(0) @binding(2) var<storage, read_write> y: array<elem>;        // (rows, y_stride)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    for (var k = 0u; k < 4u; k++) {
        let i = row_of(group) * 4u * WG + k * WG + lane;
        if i < params.rows * params.width {
            let row = i / params.width;
            let c = i % params.width;
            y[row * params.y_stride + params.to + c] = x[row * params.x_stride + params.start + c];
        }
    }
}
