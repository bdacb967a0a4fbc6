// uses: lib/grid.wgsl lib/scan.wgsl
// offsets[d, block] becomes Σ over earlier blocks; totals[d] = Σ over all blocks. One workgroup a digit.
const WG: u32 = 256u;
struct Params { blocks: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> offsets: array<u32>;   // (256, blocks)
@group(0) @binding(2) var<storage, read_write> totals: array<u32>;    // (256)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let digit = row_of(group);
    if digit >= 256u { return; }
    var carry = 0u;
    for (var first = 0u; first < params.blocks; first += WG) {
        let block = first + lane;
        var value = 0u;
        if block < params.blocks { value = offsets[digit * params.blocks + block]; }
        let sum = workgroup_scan(value, lane);
        if block < params.blocks { offsets[digit * params.blocks + block] = carry + sum - value; }
        carry += scan_scratch[WG - 1u];
    }
    if lane == 0u { totals[digit] = carry; }
}
