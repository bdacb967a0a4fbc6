// Adds to counts how many of the samples, from 0 to below 2²⁶, fall into each of 256 bins of equal width. Each workgroup
// counts its 1024 samples by itself first.
struct Params { samples: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> samples: array<u32>;
@group(0) @binding(2) var<storage, read_write> counts: array<atomic<u32>>;

const BINS: u32 = 256u;
const RANGE: u32 = 1u << 26u;
const EACH: u32 = 4u;
var<workgroup> own: array<atomic<u32>, BINS>;

@compute @workgroup_size(BINS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    atomicStore(&own[lane], 0u);
    workgroupBarrier();
    for (var k = 0u; k < EACH; k++) {
        let i = (group.x * EACH + k) * BINS + lane;
        if i < params.samples {
            let bin = samples[i] / (RANGE / BINS);
            atomicAdd(&own[bin], 1u);
        }
    }
    workgroupBarrier();
    let count = atomicLoad(&own[lane]);
    if count > 0u { atomicAdd(&counts[lane], count); }
}
