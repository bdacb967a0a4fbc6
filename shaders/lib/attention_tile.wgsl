// uses: lib/four.wgsl
// What attention inside chunks has in common on cooperative matrices: a tile of workgroup memory in which all tokens of a
// head stand, each operand in its turn. TT · 16 tokens of D dims.
const D8: u32 = D / 8u;
const DT: u32 = D / 16u;
const PARTS: u32 = D8 / 2u;                                           // eights a lane stages
const STRIDE: u32 = D / 4u + 2u;                                      // of a token, in vectors; strides leave banks apart
const ROW: u32 = 5u;                                                  // of 16 scores, in vectors
const LOG2_E: f32 = 1.44269504;
struct Params { chunks: u32, tokens: u32, heads: u32, kv_heads: u32, stride: u32, scale: f32 }

@group(0) @binding(0) var<uniform> params: Params;

var<workgroup> tile: array<vec4<f16>, 16u * TT * STRIDE>;             // (token, dim)

// Where the i-th eight of a head lies; beyond the last token, at it. Eight elements are read at a time, as words: 16-bit
// vectors would come in pieces.
fn place_of(i: u32, chunk: u32, heads: u32, head: u32) -> u32 {
    return ((chunk * params.tokens + min(i / D8, params.tokens - 1u)) * heads + head) * D8 + i % D8;
}

fn stage(i: u32, x: vec4u) {
    let to = i / D8 * STRIDE + i % D8 * 2u;
    tile[to] = four(x.xy);
    tile[to + 1u] = four(x.zw);
}

fn words(a: vec4f, b: vec4f) -> vec4u {
    return vec4u(pack2x16float(a.xy), pack2x16float(a.zw), pack2x16float(b.xy), pack2x16float(b.zw));
}
