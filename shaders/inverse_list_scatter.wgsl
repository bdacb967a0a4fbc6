// uses: lib/grid.wgsl lib/scan.wgsl
// Moves each key, with its position in the unsorted list, behind all smaller digits, all equal digits of earlier blocks
// and all equal digits before it in its block: stable, and the same whatever runs first.
const WG: u32 = 256u;
struct Params { count: u32, blocks: u32, shift: u32, limit: u32, first_sweep: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> keys: array<u32>;            // (count)
@group(0) @binding(2) var<storage, read> order: array<u32>;           // (count), unused in the first sweep
@group(0) @binding(3) var<storage, read> offsets: array<u32>;         // (256, blocks)
@group(0) @binding(4) var<storage, read> totals: array<u32>;          // (256)
@group(0) @binding(5) var<storage, read_write> keys_out: array<u32>;  // (count)
@group(0) @binding(6) var<storage, read_write> order_out: array<u32>; // (count)

var<workgroup> digits: array<u32, WG>;
var<workgroup> starts: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let block = row_of(group);
    if block >= params.blocks { return; }
    let i = block * WG + lane;
    var key = 0u;
    var digit = 256u;
    if i < params.count {
        key = min(keys[i], params.limit);
        digit = (key >> params.shift) & 255u;
    }
    digits[lane] = digit;
    let total = totals[lane];
    starts[lane] = workgroup_scan(total, lane) - total;
    workgroupBarrier();
    if i >= params.count { return; }
    var rank = 0u;
    for (var j = 0u; j < lane; j++) { rank += select(0u, 1u, digits[j] == digit); }
    let to = starts[digit] + offsets[digit * params.blocks + block] + rank;
    if to >= params.count { return; }
    keys_out[to] = key;
    if params.first_sweep == 1u { order_out[to] = i; } else { order_out[to] = order[i]; }
}
