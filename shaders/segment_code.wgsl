// uses: lib/grid.wgsl
// variants: elem=f16
// y[row, c] = scale · x[row, c] for c < d; behind it four digits of the row's segment, base 4, each as value
// in one of four columns.
// An invocation an element of y. Without room for the code it is the way back: the first d columns of wider rows.
alias elem = f32;
const WG: u32 = 256u;
struct Params { rows: u32, first: u32, heads: u32, d: u32, x_width: u32, y_width: u32, scale: f32, value: f32 }

@group(0) @binding(0) var<uniform> params: Params;                 // first: the page's first token
@group(0) @binding(1) var<storage, read> x: array<elem>;           // (rows, x_width), a row a token's head
@group(0) @binding(2) var<storage, read> segment: array<u32>;      // (all tokens)
@group(0) @binding(3) var<storage, read_write> y: array<elem>;     // (rows, y_width)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    let row = i / params.y_width;
    let c = i % params.y_width;
    if row >= params.rows { return; }
    var out = elem();
    if c < params.d {
        out = elem(params.scale * f32(x[row * params.x_width + c]));
    } else {
        let code = c - params.d;
        let digit = (segment[params.first + row / params.heads] >> (2u * (code / 4u))) & 3u;
        if digit == code % 4u { out = elem(params.value); }
    }
    y[i] = out;
}
