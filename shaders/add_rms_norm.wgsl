// uses: lib/rms_norm_rows.wgsl
// variants: elem_y=f16 elem_out=f16 WG=64 | elem_y=f16 elem_out=f16 WG=32 ROWS=8
// s = x + y and rms_norm_quads.wgsl of s in one walk, rows of at most 4 · WG quads held in registers. ROWS rows a workgroup,
// one after another.
alias elem_y = f32;
alias elem_out = f32;
const WG: u32 = 256u;
const ROWS: u32 = 1u;
struct Params { rows: u32, quads: u32, eps: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;                   // (rows, quads)
@group(0) @binding(2) var<storage, read> y: array<vec4<elem_y>>;            // (rows, quads)
@group(0) @binding(3) var<storage, read> weight: array<vec4f>;              // (quads)
@group(0) @binding(4) var<storage, read_write> s: array<vec4f>;             // (rows, quads)
@group(0) @binding(5) var<storage, read_write> h: array<vec4<elem_out>>;    // (rows, quads)
@group(0) @binding(6) var<storage, read_write> rstd: array<f32>;            // (rows), saved for the backward pass

// Loads are never skipped, so that none waits for another; those beyond the row repeat its last quad.
fn x_at(row: u32, q: u32) -> vec4f {
    let i = row * params.quads + min(q, params.quads - 1u);
    return select(vec4f(), x[i] + vec4f(y[i]), q < params.quads);
}

fn put(row: u32, q: u32, v: vec4f, scaled: vec4f) {
    if q >= params.quads { return; }
    s[row * params.quads + q] = v;
    h[row * params.quads + q] = vec4<elem_out>(scaled);
}
