// uses: lib/grid.wgsl
// y[b, t] = how often segment[b] has changed up to t. A workgroup a row: each lane counts a stretch of it, then goes through
// it again from what all before it have counted.
const WG: u32 = 256u;
struct Params { rows: u32, tokens: u32, stretch: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> segment: array<u32>;        // (rows, tokens)
@group(0) @binding(2) var<storage, read_write> y: array<u32>;        // (rows, tokens)

var<workgroup> counts: array<u32, WG>;

fn changes(base: u32, t: u32) -> u32 {
    if t == 0u { return 0u; }
    return select(0u, 1u, segment[base + t] != segment[base + t - 1u]);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(group);
    if row >= params.rows { return; }
    let base = row * params.tokens;
    let first = min(lane * params.stretch, params.tokens);
    let end = min(first + params.stretch, params.tokens);
    var run = 0u;
    for (var t = first; t < end; t++) { run += changes(base, t); }
    counts[lane] = run;
    workgroupBarrier();
    run = 0u;
    for (var before = 0u; before < lane; before++) { run += counts[before]; }
    for (var t = first; t < end; t++) {
        run += changes(base, t);
        y[base + t] = run;
    }
}
