// uses: lib/grid.wgsl
// variants: REVERSE=1 | KEEP=1 | KEEP=1 elem=f16 | REVERSE=1 KEEP=1 elem=f16
// Blocks' own last states become the states that reach them: s ← total[block] · s + own[block], block by block
// (descending in reverse); what leaves the last one is `last`, of some blocks of a sequence what goes on to the others
// in a later launch. An invocation owns one element. With KEEP = 1 also `kept`, times `factor`, in the type of elem.
alias elem = f32;
const REVERSE: u32 = 0u;
const KEEP: u32 = 0u;
const WG: u32 = 256u;
struct Params {
    batches: u32, blocks: u32, heads: u32, size: u32, first: u32, end: u32, to: u32, has_initial: u32, factor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // size = head dim · state; blocks from first to end
@group(0) @binding(1) var<storage, read> totals: array<f32>;          // (batches, blocks, heads)
@group(0) @binding(2) var<storage, read> initial: array<f32>;         // (batches, heads, size)
@group(0) @binding(3) var<storage, read_write> states: array<f32>;    // (batches, blocks, heads, size)
@group(0) @binding(4) var<storage, read_write> last: array<f32>;      // (batches, heads, size)
@group(0) @binding(5) var<storage, read_write> kept: array<elem>;     // from `to` on: (blocks of this launch, heads, size)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i >= params.batches * params.heads * params.size { return; }
    let element = i % params.size;
    let h = (i / params.size) % params.heads;
    let b = i / params.size / params.heads;
    let own0 = b * params.blocks;
    let begin = max(params.first, own0);
    let end = min(params.end, own0 + params.blocks);
    if begin >= end { return; }
    var s = 0.0;
    if select(begin > own0, end < own0 + params.blocks, REVERSE == 1u) {
        s = last[i];
    } else if params.has_initial != 0u {
        s = initial[i];
    }
    for (var k = 0u; k < end - begin; k++) {
        let block = select(begin + k, end - 1u - k, REVERSE == 1u);
        let at = block * params.heads + h;
        let own = states[at * params.size + element];
        states[at * params.size + element] = s;
        if KEEP == 1u {
            let to = params.to + ((block - params.first) * params.heads + h) * params.size + element;
            kept[to] = elem(s * params.factor);
        }
        s = fma(totals[at], s, own);
    }
    last[i] = s;
}
