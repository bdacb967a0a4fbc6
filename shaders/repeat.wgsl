// uses: lib/grid.wgsl
// y[i] = x[(first + i) mod period]: four-byte words, whatever they mean.
const WG: u32 = 256u;
struct Params { words: u32, first: u32, period: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;               // (period)
@group(0) @binding(2) var<storage, read_write> y: array<u32>;         // (words)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    for (var k = 0u; k < 4u; k++) {
        let i = row_of(group) * 4u * WG + k * WG + lane;
        if i < params.words { y[i] = x[(params.first + i) % params.period]; }
    }
}
