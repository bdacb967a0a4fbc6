// uses: lib/grid.wgsl
// variants: elem=f16 | elem=u32 | elem=vec4<f32> | elem=vec4<f16> | elem=vec4<u32>
// y[r, to + c] = x[r, start + c] for c < width: parts of rows. A row stride of 0 repeats one row. An element may be four,
// or any bits of its size.
alias elem = f32;
const WG: u32 = 256u;
struct Params { rows: u32, width: u32, x_stride: u32, start: u32, y_stride: u32, to: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (rows, x_stride)
@group(0) @binding(2) var<storage, read_write> y: array<elem>;        // (rows, y_stride)

fn source(i: u32) -> u32 { return i / params.width * params.x_stride + params.start + i % params.width; }

fn target_of(i: u32) -> u32 { return i / params.width * params.y_stride + params.to + i % params.width; }

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = row_of(group) * 4u * WG;
    let count = params.rows * params.width;
    if first >= count { return; }
    if first + 4u * WG <= count {
        // All loads before the first store, which they might not pass.
        let i = first + lane;
        let x0 = x[source(i)];
        let x1 = x[source(i + WG)];
        let x2 = x[source(i + 2u * WG)];
        let x3 = x[source(i + 3u * WG)];
        y[target_of(i)] = x0;
        y[target_of(i + WG)] = x1;
        y[target_of(i + 2u * WG)] = x2;
        y[target_of(i + 3u * WG)] = x3;
        return;
    }
    for (var i = first + lane; i < count; i += WG) { y[target_of(i)] = x[source(i)]; }
}
