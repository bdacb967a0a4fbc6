// uses: lib/grid.wgsl
// variants: REVERSE=1
// Blocks' own last states become the states that reach them: s ← total[block] · s + own[block], block by block
// (descending in reverse); what leaves the last one is `last`. An invocation owns one element.
const REVERSE: u32 = 0u;
const WG: u32 = 256u;
struct Params { batches: u32, blocks: u32, heads: u32, size: u32, has_initial: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // size = head dim · state
@group(0) @binding(1) var<storage, read> totals: array<f32>;          // (batches, blocks, heads)
@group(0) @binding(2) var<storage, read> initial: array<f32>;         // (batches, heads, size)
@group(0) @binding(3) var<storage, read_write> states: array<f32>;    // (batches, blocks, heads, size)
@group(0) @binding(4) var<storage, read_write> last: array<f32>;      // (batches, heads, size)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i >= params.batches * params.heads * params.size { return; }
    let element = i % params.size;
    let h = (i / params.size) % params.heads;
    let b = i / params.size / params.heads;
    var s = 0.0;
    if params.has_initial != 0u { s = initial[i]; }
    for (var k = 0u; k < params.blocks; k++) {
        let block = select(k, params.blocks - 1u - k, REVERSE == 1u);
        let at = (b * params.blocks + block) * params.heads + h;
        let own = states[at * params.size + element];
        states[at * params.size + element] = s;
        s = fma(totals[at], s, own);
    }
    last[i] = s;
}
