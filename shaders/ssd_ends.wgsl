// uses: lib/reduce.wgsl
// variants: elem=f16
// For each token of a block C[t] · dC[t], dC without the token's own share of it, and C[t] · B[t]. For a tile's last token
// also ⟨g, s⟩, s being the state that leaves the tile and g its gradient from all that follows, and for its first token
// the same where the tile begins. What follows the last token is the last state's own gradient. One workgroup a (batch,
// block, head).
alias elem = f32;
const WG: u32 = 128u;                                                 // the block's length
const TILE: u32 = 8u;
struct Params { tokens: u32, blocks: u32, heads: u32, p: u32, n: u32, share: u32, groups: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> b: array<elem>;              // (batches, tokens, groups, N)
@group(0) @binding(2) var<storage, read> c: array<elem>;              // (batches, tokens, groups, N)
@group(0) @binding(3) var<storage, read> dc: array<f32>;              // (batches, tokens, heads, N)
@group(0) @binding(4) var<storage, read> last: array<f32>;            // (batches, heads, P, N): leave the last block
@group(0) @binding(5) var<storage, read> later: array<f32>;           // (batches, blocks, heads, P, N)
@group(0) @binding(6) var<storage, read> products: array<f32>;        // (batches, blocks, WG / TILE, heads, N): at tiles' starts
@group(0) @binding(7) var<storage, read_write> side: array<vec4f>;    // (batches, tokens, heads)

// ⟨g, s⟩ where a tile begins.
fn product(tile: u32, h: u32) -> f32 {
    var sum = 0.0;
    for (var n = 0u; n < params.n; n++) { sum += products[(tile * params.heads + h) * params.n + n]; }
    return sum;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    if index >= params.groups { return; }                             // uniform
    let h = index % params.heads;
    let block = (index / params.heads) % params.blocks;
    let batch = index / params.heads / params.blocks;
    let size = params.p * params.n;
    var part = 0.0;
    if block + 1u == params.blocks {
        for (var i = lane; i < size; i += WG) {
            part = fma(later[index * size + i], last[(batch * params.heads + h) * size + i], part);
        }
    }
    let last_end = workgroup_sum(part, lane);
    let t = block * WG + lane;
    if t >= params.tokens { return; }
    let at = batch * params.tokens + t;
    let shared_at = (at * (params.heads / params.share) + h / params.share) * params.n;
    var u = 0.0;
    var cb = 0.0;
    for (var n = 0u; n < params.n; n++) {
        let v = f32(c[shared_at + n]);
        u = fma(v, dc[(at * params.heads + h) * params.n + n], u);
        cb = fma(v, f32(b[shared_at + n]), cb);
    }
    var ends = vec2f(0.0);
    let tile = (batch * params.blocks + block) * (WG / TILE) + lane / TILE;
    if t == params.tokens - 1u {
        ends.x = last_end;
    } else if lane % TILE == TILE - 1u {
        ends.x = product(tile + 1u, h);
    }
    if lane % TILE == 0u { ends.y = product(tile, h); }
    side[at * params.heads + h] = vec4f(u, cb, ends);
}
