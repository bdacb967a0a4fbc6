// uses: lib/grid.wgsl
// variants: elem=f16
// y[.., i] = x[.., i]·cos − x[.., i + d/2]·sin,   y[.., i + d/2] = x[.., i + d/2]·cos + x[.., i]·sin
// An invocation a pair. The table holds (cos, sin) for each position and pair; turn = −1 is the inverse rotation.
alias elem = f32;
const WG: u32 = 256u;
struct Params { tokens: u32, start: u32, length: u32, heads: u32, half: u32, turn: f32 }

@group(0) @binding(0) var<uniform> params: Params;                // start: the page's first token, modulo length
@group(0) @binding(1) var<storage, read> x: array<elem>;          // (tokens, heads, 2·half)
@group(0) @binding(2) var<storage, read> table: array<f32>;       // (length, half, 2)
@group(0) @binding(3) var<storage, read_write> y: array<elem>;    // (tokens, heads, 2·half)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    let row = i / params.half;
    let pair = i % params.half;
    let token = row / params.heads;
    if token >= params.tokens { return; }
    let place = ((params.start + token) % params.length * params.half + pair) * 2u;
    let cosine = table[place];
    let sine = table[place + 1u] * params.turn;
    let first = row * 2u * params.half + pair;
    let second = first + params.half;
    let a = f32(x[first]);
    let b = f32(x[second]);
    y[first] = elem(a * cosine - b * sine);
    y[second] = elem(b * cosine + a * sine);
}
