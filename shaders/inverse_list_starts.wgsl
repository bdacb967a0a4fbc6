// uses: lib/grid.wgsl
// starts[k] = how many sorted keys are below k, for k ≤ keys: the members of k are starts[k] .. starts[k + 1].
const WG: u32 = 256u;
struct Params { count: u32, keys: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> sorted: array<u32>;          // (count), ascending
@group(0) @binding(2) var<storage, read_write> starts: array<u32>;    // (keys + 1)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let k = row_of(group) * WG + lane;
    if k > params.keys { return; }
    var low = 0u;
    var high = params.count;
    while low < high {
        let middle = low + (high - low) / 2u;
        if sorted[middle] < k { low = middle + 1u; } else { high = middle; }
    }
    starts[k] = low;
}
