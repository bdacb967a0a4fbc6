// Prefix sums of four values at once over the WG invocations of a workgroup (Hillis & Steele 1986), in a fixed order: the
// result depends on the values alone.
var<workgroup> scan4_scratch: array<vec4f, WG>;

// The sums of the values of lanes 0 ..= lane. Contains barriers: call it in uniform control flow. The totals may be read
// from scan4_scratch[WG - 1] until the next call.
fn workgroup_scan4(value: vec4f, lane: u32) -> vec4f {
    var sum = value;
    workgroupBarrier();                            // the last call's scratch may still be read
    scan4_scratch[lane] = sum;
    workgroupBarrier();
    for (var step = 1u; step < WG; step *= 2u) {
        if lane >= step { sum = scan4_scratch[lane - step] + sum; }
        workgroupBarrier();
        scan4_scratch[lane] = sum;
        workgroupBarrier();
    }
    return sum;
}
