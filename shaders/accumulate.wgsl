// uses: lib/grid.wgsl
// variants: elem=f16 | elem_out=f16 | elem=f16 elem_out=f16 | elem=vec4<f32> elem_out=vec4<f32> real=vec4<f32> | elem=vec4<f16> elem_out=vec4<f32> real=vec4<f32> | elem=vec4<f16> elem_out=vec4<f16> real=vec4<f32>
// y[i] += x[i]: gradients that meet. An element may be four.
alias elem = f32;
alias elem_out = f32;
alias real = f32;
const WG: u32 = 256u;
struct Params { count: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (count)
@group(0) @binding(2) var<storage, read_write> y: array<elem_out>;    // (count)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = row_of(group) * 4u * WG;
    if first >= params.count { return; }
    if first + 4u * WG <= params.count {
        // All loads before the first store, which they might not pass.
        let i = first + lane;
        let s0 = real(y[i]) + real(x[i]);
        let s1 = real(y[i + WG]) + real(x[i + WG]);
        let s2 = real(y[i + 2u * WG]) + real(x[i + 2u * WG]);
        let s3 = real(y[i + 3u * WG]) + real(x[i + 3u * WG]);
        y[i] = elem_out(s0);
        y[i + WG] = elem_out(s1);
        y[i + 2u * WG] = elem_out(s2);
        y[i + 3u * WG] = elem_out(s3);
        return;
    }
    for (var i = first + lane; i < params.count; i += WG) { y[i] = elem_out(real(y[i]) + real(x[i])); }
}
