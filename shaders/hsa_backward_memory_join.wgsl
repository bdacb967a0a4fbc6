// uses: lib/grid.wgsl
// variants: elem=f16
// dk and dv of a chunk: its pieces' sums, in order. An invocation owns 4 dims of a key, or of a value.
alias elem = f32;
const WG: u32 = 256u;
struct Params { count: u32, keys: u32, heads: u32, d4: u32, joint: u32, chunk: u32, chunks: u32 }

@group(0) @binding(0) var<uniform> params: Params;                    // count = batches · keys · heads · d4
@group(0) @binding(1) var<storage, read> piece_starts: array<u32>;    // (lists + 1)
@group(0) @binding(2) var<storage, read> partial: array<vec4f>;       // (pieces, list heads, chunk, dk and dv, d)
@group(0) @binding(3) var<storage, read_write> dk: array<vec4<elem>>; // (batches, keys, heads, d)
@group(0) @binding(4) var<storage, read_write> dv: array<vec4<elem>>; // (batches, keys, heads, d)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i >= params.count { return; }
    let c = i % params.d4;
    let h = (i / params.d4) % params.heads;
    let key = (i / params.d4 / params.heads) % params.keys;
    let b = i / params.d4 / params.heads / params.keys;
    let chunk = key / params.chunk;
    let list = select((b * params.heads + h) * params.chunks + chunk, b * params.chunks + chunk, params.joint != 0u);
    let list_heads = select(1u, params.heads, params.joint != 0u);
    let list_head = select(0u, h, params.joint != 0u);
    var k = vec4f(0.0);
    var v = vec4f(0.0);
    for (var piece = piece_starts[list]; piece < piece_starts[list + 1u]; piece++) {
        let at = (((piece * list_heads + list_head) * params.chunk + key % params.chunk) * 2u) * params.d4 + c;
        k += partial[at];
        v += partial[at + params.d4];
    }
    dk[i] = vec4<elem>(k);
    dv[i] = vec4<elem>(v);
}
