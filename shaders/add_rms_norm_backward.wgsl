// uses: lib/rms_norm_rows_backward.wgsl, lib/quads.wgsl
// variants: HALF=1 words=vec2<u32> WG=64 | HALF=1 words=vec2<u32> WG=32
// dx = ds + the gradient that rms_norm_quads_backward.wgsl gives s, dy the same in y's type; dweight as there: a lane adds
// up its own columns, in the rows' order. One workgroup a block of ROWS rows.
const WG: u32 = 256u;
const ROWS: u32 = 16u;
struct Params { rows: u32, quads: u32, first_block: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dh: array<words>;                  // (rows, quads)
@group(0) @binding(2) var<storage, read> ds: array<vec4f>;                  // (rows, quads)
@group(0) @binding(3) var<storage, read> s: array<vec4f>;                   // (rows, quads)
@group(0) @binding(4) var<storage, read> weight: array<vec4f>;              // (quads)
@group(0) @binding(5) var<storage, read> rstd: array<f32>;                  // (rows)
@group(0) @binding(6) var<storage, read_write> dx: array<vec4f>;            // (rows, quads)
@group(0) @binding(7) var<storage, read_write> dy: array<words>;            // (rows, quads)
@group(0) @binding(8) var<storage, read_write> dweight: array<vec4f>;       // (⌈rows / ROWS⌉, quads)

// Beyond the row s and dh count as 0.
fn quad_at(row: u32, q: u32) -> Quad {
    let i = row * params.quads + min(q, params.quads - 1u);
    let inside = q < params.quads;
    return Quad(select(vec4f(), s[i], inside), select(vec4f(), quad_of(dh[i]), inside), ds[i]);
}

fn put(row: u32, q: u32, k: Quad, w: vec4f, r: f32, mean: f32) {
    if q >= params.quads { return; }
    let v = k.on + r * (k.d * w - k.x * mean);
    dx[row * params.quads + q] = v;
    dy[row * params.quads + q] = words_of(v);
}
