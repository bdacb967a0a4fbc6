// Sorts lists of up to 128 keys in place, a workgroup a list (Batcher 1968). What is missing to 128 is the largest key.
struct Params { keys: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> keys: array<u32>;

const N: u32 = 128u;
const LAST: u32 = 0xFFFFFFFFu;
var<workgroup> list: array<u32, N>;

@compute @workgroup_size(N)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let start = group.x * params.keys;
    list[lane] = LAST;
    if lane < params.keys { list[lane] = keys[start + lane]; }
    workgroupBarrier();
    for (var run = 2u; run <= N; run *= 2u) {
        for (var gap = run / 2u; gap > 0u; gap /= 2u) {
            let other = lane ^ gap;
            // The lower of two swaps them, where they stand against the direction of their run.
            if other > lane {
                let a = list[lane];
                let b = list[other];
                if (a > b) == ((lane & run) == 0u) {
                    list[lane] = b;
                    list[other] = a;
                }
            }
            workgroupBarrier();
        }
    }
    if lane < params.keys { keys[start + lane] = list[lane]; }
}
