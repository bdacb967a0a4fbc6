// uses: lib/grid.wgsl
// variants: elem=f16 | elem_out=f16 | elem=f16 elem_out=f16 | elem=u32 elem_out=u32 | elem=i32 elem_out=i32
// y[i] = x[i], rounded to y's type.
alias elem = f32;
alias elem_out = f32;
const WG: u32 = 256u;
struct Params { count: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;              // (count)
@group(0) @binding(2) var<storage, read_write> y: array<elem_out>;    // (count)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    for (var k = 0u; k < 4u; k++) {
        let i = row_of(group) * 4u * WG + k * WG + lane;
        if i < params.count { y[i] = elem_out(x[i]); }
    }
}
