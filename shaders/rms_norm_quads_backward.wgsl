// uses: lib/rms_norm_rows_backward.wgsl
// variants: elem=f16 WG=64 | elem_out=f16 WG=128 | elem=f16 elem_out=f16 WG=32
// rms_norm_backward.wgsl for rows of at most 4 · WG quads: dy and x are read once, and a lane adds up dweight of its own
// columns, in the rows' order, as it goes. One workgroup a block of ROWS rows.
alias elem = f32;
alias elem_out = f32;
const WG: u32 = 256u;
const ROWS: u32 = 16u;
struct Params { rows: u32, quads: u32, first_block: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<vec4<elem_out>>;         // (rows, quads)
@group(0) @binding(2) var<storage, read> x: array<vec4<elem>>;              // (rows, quads)
@group(0) @binding(3) var<storage, read> weight: array<vec4f>;              // (quads)
@group(0) @binding(4) var<storage, read> rstd: array<f32>;                  // (rows)
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<elem>>;       // (rows, quads)
@group(0) @binding(6) var<storage, read_write> dweight: array<vec4f>;       // (⌈rows / ROWS⌉, quads)

fn quad_at(row: u32, q: u32) -> Quad {
    let i = row * params.quads + min(q, params.quads - 1u);
    let inside = q < params.quads;
    return Quad(select(vec4f(), vec4f(x[i]), inside), select(vec4f(), vec4f(dy[i]), inside), vec4f());
}

fn put(row: u32, q: u32, k: Quad, w: vec4f, r: f32, mean: f32) {
    if q < params.quads { dx[row * params.quads + q] = vec4<elem>(r * (k.d * w - k.x * mean)); }
}
