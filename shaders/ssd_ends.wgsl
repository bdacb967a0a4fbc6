// uses: lib/reduce.wgsl
// variants: elem=f16
// ends[t] = C[t] · dC[t], for each token of a block; for its last one also ⟨g, s⟩, g being what later blocks send back
// and s the state that leaves the block. One workgroup a (batch, block, head).
alias elem = f32;
const WG: u32 = 128u;                                                 // the block's length
struct Params { tokens: u32, blocks: u32, heads: u32, p: u32, n: u32, share: u32, groups: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> c: array<elem>;              // (batches, tokens, groups, N)
@group(0) @binding(2) var<storage, read> dc: array<f32>;              // (batches, tokens, heads, N)
@group(0) @binding(3) var<storage, read> states: array<f32>;          // (batches, blocks, heads, P, N): reach a block
@group(0) @binding(4) var<storage, read> last: array<f32>;            // (batches, heads, P, N): leave the last block
@group(0) @binding(5) var<storage, read> later: array<f32>;           // (batches, blocks, heads, P, N)
@group(0) @binding(6) var<storage, read_write> ends: array<f32>;      // (batches, tokens, heads)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    if index >= params.groups { return; }                             // uniform
    let h = index % params.heads;
    let block = (index / params.heads) % params.blocks;
    let b = index / params.heads / params.blocks;
    let size = params.p * params.n;
    var part = 0.0;
    let here = index * size;
    let next = (index + params.heads) * size;
    for (var i = lane; i < size; i += WG) {
        var s = 0.0;
        if block + 1u < params.blocks { s = states[next + i]; } else { s = last[(b * params.heads + h) * size + i]; }
        part += later[here + i] * s;
    }
    let e = workgroup_sum(part, lane);
    let t = block * WG + lane;
    if t >= params.tokens { return; }
    let at = b * params.tokens + t;
    let shares = params.heads / params.share;
    var u = 0.0;
    for (var n = 0u; n < params.n; n++) {
        u += f32(c[(at * shares + h / params.share) * params.n + n]) * dc[(at * params.heads + h) * params.n + n];
    }
    if lane == WG - 1u || t == params.tokens - 1u { u += e; }
    ends[at * params.heads + h] = u;
}
