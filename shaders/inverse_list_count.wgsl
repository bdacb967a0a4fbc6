// uses: lib/grid.wgsl
// offsets[d, block] = how many keys of the block have digit d = (key >> shift) mod 256: one sweep of a radix sort.
// One workgroup a block of WG keys; invocation d counts digit d, so nothing is added concurrently.
const WG: u32 = 256u;
struct Params { count: u32, blocks: u32, shift: u32, limit: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> keys: array<u32>;            // (count), those above limit count as limit
@group(0) @binding(2) var<storage, read_write> offsets: array<u32>;   // (256, blocks)

var<workgroup> digits: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let block = row_of(group);
    if block >= params.blocks { return; }
    let i = block * WG + lane;
    digits[lane] = 256u;
    if i < params.count { digits[lane] = (min(keys[i], params.limit) >> params.shift) & 255u; }
    workgroupBarrier();
    var sum = 0u;
    for (var j = 0u; j < WG; j++) { sum += select(0u, 1u, digits[j] == lane); }
    offsets[lane * params.blocks + block] = sum;
}
