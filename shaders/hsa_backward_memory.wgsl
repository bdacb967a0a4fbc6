// uses: lib/grid.wgsl
// variants: elem=f16 | D=16
// dk[j] = Σ ds[j] · q / √d and dv[j] = Σ weight · p[j] · do over the slots that selected the chunk, in ascending order.
// A workgroup owns a chunk and one head; an invocation owns a key, so it alone adds to its rows.
alias elem = f32;
const WG: u32 = 64u;
const D: u32 = 256u;
struct Params {
    batches: u32, tokens: u32, keys: u32, query_heads: u32, heads: u32, d: u32, slots: u32, joint: u32, chunk: u32,
    scale: f32, groups: u32, blocks: u32, chunks: u32,
}

@group(0) @binding(0) var<uniform> params: Params;                    // blocks = ⌈chunk / WG⌉
@group(0) @binding(1) var<storage, read> qdo: array<elem>;            // q, then do: (2, batches, tokens, query heads, d)
@group(0) @binding(2) var<storage, read> kv: array<elem>;             // k, then v: (2, batches, keys, heads, d)
@group(0) @binding(3) var<storage, read> weights: array<f32>;         // (batches, tokens, heads or 1, slots)
@group(0) @binding(4) var<storage, read> stats: array<f32>;           // lse, then D_i: (2, batches, tokens, query heads, slots)
@group(0) @binding(5) var<storage, read> order: array<u32>;           // slots by (batch, head, chunk)
@group(0) @binding(6) var<storage, read> starts: array<u32>;          // (batches · heads or 1 · chunks + 1)
@group(0) @binding(7) var<storage, read_write> dkv: array<elem>;      // dk, then dv: (2, batches, keys, heads, d)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let index = row_of(group);
    if index >= params.groups { return; }
    let j = (index % params.blocks) * WG + lane;
    let chunk = (index / params.blocks) % params.chunks;
    let h = (index / params.blocks / params.chunks) % params.heads;
    let b = index / params.blocks / params.chunks / params.heads;
    if j >= params.chunk { return; }
    let list = select((b * params.heads + h) * params.chunks + chunk, b * params.chunks + chunk, params.joint != 0u);
    let at = ((b * params.keys + chunk * params.chunk + j) * params.heads + h) * params.d;
    let values = params.batches * params.keys * params.heads * params.d;
    let queries = params.batches * params.tokens * params.query_heads * params.d;
    let rows = params.batches * params.tokens * params.query_heads * params.slots;
    let share = params.query_heads / params.heads;
    var key: array<f32, D>;
    var value: array<f32, D>;
    var dk: array<f32, D>;
    var dv: array<f32, D>;
    for (var c = 0u; c < params.d; c++) {
        key[c] = f32(kv[at + c]);
        value[c] = f32(kv[values + at + c]);
    }
    for (var i = starts[list]; i < starts[list + 1u]; i++) {
        let slot = order[i];
        let weight = weights[slot];
        // (batch, token[, head], slot) → token over batches.
        let token = select(slot / params.slots / params.heads, slot / params.slots, params.joint != 0u);
        for (var g = 0u; g < share; g++) {
            let row = token * params.query_heads + h * share + g;
            var s = 0.0;
            var dp = 0.0;
            for (var c = 0u; c < params.d; c++) {
                s += f32(qdo[row * params.d + c]) * key[c];
                dp += f32(qdo[queries + row * params.d + c]) * value[c];
            }
            let stat = row * params.slots + slot % params.slots;
            let p = weight * exp(min(s * params.scale - stats[stat], 0.0));
            let ds = p * (dp - stats[rows + stat]) * params.scale;
            for (var c = 0u; c < params.d; c++) {
                dk[c] += ds * f32(qdo[row * params.d + c]);
                dv[c] += p * f32(qdo[queries + row * params.d + c]);
            }
        }
    }
    for (var c = 0u; c < params.d; c++) {
        dkv[at + c] = elem(dk[c]);
        dkv[values + at + c] = elem(dv[c]);
    }
}
