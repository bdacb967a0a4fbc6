// uses: lib/grid.wgsl
// variants: elem=vec4<u32>
// x[i] = bits: four-byte words, whatever they mean, or four of them.
alias elem = u32;
const WG: u32 = 256u;
struct Params { count: u32, bits: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<elem>;        // (count)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    for (var k = 0u; k < 4u; k++) {
        let i = row_of(group) * 4u * WG + k * WG + lane;
        if i < params.count { x[i] = elem(params.bits); }
    }
}
