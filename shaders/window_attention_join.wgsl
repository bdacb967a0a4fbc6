// uses: lib/grid.wgsl
// variants: elem=f16
// dx = Σ over the pieces of partial, in order.
alias elem = f32;
struct Params { count: u32, pieces: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // count in vectors
@group(0) @binding(1) var<storage, read> partial: array<vec4f>;       // (pieces, count)
@group(0) @binding(2) var<storage, read_write> dx: array<vec4<elem>>; // (count)

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * 256u + lane;
    if i >= params.count { return; }
    var sum = vec4f(0.0);
    for (var n = 0u; n < params.pieces; n++) { sum += partial[n * params.count + i]; }
    dx[i] = vec4<elem>(sum);
}
