// uses: lib/rms_norm_rows.wgsl
// variants: elem=f16 WG=64 | elem_out=f16 WG=128 | elem=f16 elem_out=f16 WG=32 ROWS=8 | ROWS=8 WG=32 | QUADS=256 EXACT=1 WG=64
// rms_norm.wgsl for rows of at most 4 · WG quads, held in registers: x is read once, a lane's loads are under way together.
// ROWS rows a workgroup, one after another: of short rows a workgroup each would be more than a device starts in time.
alias elem = f32;
alias elem_out = f32;
const WG: u32 = 256u;
const ROWS: u32 = 1u;
struct Params { rows: u32, quads: u32, eps: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<elem>>;              // (rows, quads)
@group(0) @binding(2) var<storage, read> weight: array<vec4f>;              // (quads)
@group(0) @binding(3) var<storage, read_write> y: array<vec4<elem_out>>;    // (rows, quads)
@group(0) @binding(4) var<storage, read_write> rstd: array<f32>;            // (rows), saved for the backward pass

// Loads are never skipped, so that none waits for another; those beyond the row repeat its last quad.
fn x_at(row: u32, q: u32) -> vec4f {
    let v = vec4f(x[row * quads() + min(q, quads() - 1u)]);
    return select(vec4f(), v, q < quads());
}

fn put(row: u32, q: u32, v: vec4f, scaled: vec4f) {
    if q < quads() { y[row * quads() + q] = vec4<elem_out>(scaled); }
}
