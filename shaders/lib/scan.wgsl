// Prefix sums over the WG invocations of a workgroup (Hillis & Steele 1986). Integers: every order gives the same sum.
var<workgroup> scan_scratch: array<u32, WG>;

// The sum of the values of lanes 0 ..= lane. Contains barriers: call it in uniform control flow. The total may be read
// from scan_scratch[WG - 1] until the next call.
fn workgroup_scan(value: u32, lane: u32) -> u32 {
    var sum = value;
    workgroupBarrier();                            // the last call's scratch may still be read
    scan_scratch[lane] = sum;
    workgroupBarrier();
    for (var step = 1u; step < WG; step *= 2u) {
        if lane >= step { sum += scan_scratch[lane - step]; }
        workgroupBarrier();
        scan_scratch[lane] = sum;
        workgroupBarrier();
    }
    return sum;
}
