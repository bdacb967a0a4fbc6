// Prefix sums of four values at once over each TEAM of the WG invocations of a workgroup (Hillis & Steele 1986), in a fixed
// order: the result depends on the values alone.
const TEAM: u32 = WG;                              // a power of two
var<workgroup> scan4_scratch: array<vec4f, WG>;

// The sums of the values of the team's lanes up to `lane`. Contains barriers: call it in uniform control flow. The totals may
// be read from the team's last place of scan4_scratch until the next call.
fn workgroup_scan4(value: vec4f, lane: u32) -> vec4f {
    var sum = value;
    workgroupBarrier();                            // the last call's scratch may still be read
    scan4_scratch[lane] = sum;
    workgroupBarrier();
    for (var step = 1u; step < TEAM; step *= 2u) {
        if lane % TEAM >= step { sum = scan4_scratch[lane - step] + sum; }
        workgroupBarrier();
        scan4_scratch[lane] = sum;
        workgroupBarrier();
    }
    return sum;
}
