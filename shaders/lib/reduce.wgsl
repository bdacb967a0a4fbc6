// uses: lib/grid.wgsl
// Reductions over the WG invocations of a workgroup (a power of two), in a fixed order: the result depends on the
// values alone.
var<workgroup> reduce_scratch: array<f32, WG>;

// The sum over the workgroup, given to every invocation. Contains barriers: call it in uniform control flow.
fn workgroup_sum(value: f32, lane: u32) -> f32 {
    reduce_scratch[lane] = value;
    workgroupBarrier();
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        if lane < width { reduce_scratch[lane] += reduce_scratch[lane + width]; }
        workgroupBarrier();
    }
    let total = reduce_scratch[0];
    workgroupBarrier();
    return total;
}

// The maximum over the workgroup, given to every invocation. Contains barriers: call it in uniform control flow.
fn workgroup_max(value: f32, lane: u32) -> f32 {
    reduce_scratch[lane] = value;
    workgroupBarrier();
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        if lane < width { reduce_scratch[lane] = max(reduce_scratch[lane], reduce_scratch[lane + width]); }
        workgroupBarrier();
    }
    let largest = reduce_scratch[0];
    workgroupBarrier();
    return largest;
}
