// uses: lib/rms_norm_rows.wgsl, lib/quads.wgsl
// variants: HALF=1 words=vec2<u32> WG=64 | HALF=1 words=vec2<u32> WG=32 ROWS=8 | QUADS=256 EXACT=1 WG=64
// s = x + y and rms_norm_quads.wgsl of s in one walk, rows of at most 4 · WG quads held in registers. ROWS rows a workgroup,
// one after another.
const WG: u32 = 256u;
const ROWS: u32 = 1u;
struct Params { rows: u32, quads: u32, eps: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;                   // (rows, quads)
@group(0) @binding(2) var<storage, read> y: array<words>;                   // (rows, quads)
@group(0) @binding(3) var<storage, read> weight: array<vec4f>;              // (quads)
@group(0) @binding(4) var<storage, read_write> s: array<vec4f>;             // (rows, quads)
@group(0) @binding(5) var<storage, read_write> h: array<words>;             // (rows, quads)
@group(0) @binding(6) var<storage, read_write> rstd: array<f32>;            // (rows), saved for the backward pass

// Loads are never skipped, so that none waits for another; those beyond the row repeat its last quad.
fn x_at(row: u32, q: u32) -> vec4f {
    let i = row * quads() + min(q, quads() - 1u);
    return select(vec4f(), x[i] + quad_of(y[i]), q < quads());
}

fn put(row: u32, q: u32, v: vec4f, scaled: vec4f) {
    if q >= quads() { return; }
    s[row * quads() + q] = v;
    h[row * quads() + q] = words_of(scaled);
}
