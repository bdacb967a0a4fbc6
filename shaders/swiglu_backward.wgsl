// uses: lib/grid.wgsl
// variants: elem=f16 | elem=vec4<f32> real=vec4<f32> | elem=vec4<f16> real=vec4<f32>
// Of y = silu(gate) · up: dgate = dy · silu'(gate) · up,  dup = dy · silu(gate). An element may be four.
alias elem = f32;
alias real = f32;
const WG: u32 = 256u;
struct Params { count: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<elem>;             // (count)
@group(0) @binding(2) var<storage, read> gate: array<elem>;           // (count)
@group(0) @binding(3) var<storage, read> up: array<elem>;             // (count)
@group(0) @binding(4) var<storage, read_write> dgate: array<elem>;    // (count)
@group(0) @binding(5) var<storage, read_write> dup: array<elem>;      // (count)

fn put(i: u32, d: real, g: real, u: real) {
    if i >= params.count { return; }
    let e = exp(-abs(g));
    let s = select(e, real(1.0), g >= real(0.0)) / (1.0 + e);
    dgate[i] = elem(d * (s * (1.0 + g * (1.0 - s))) * u);
    dup[i] = elem(d * (g * s));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * 2u * WG + lane;
    if i >= params.count { return; }
    // All loads before the first store, which they might not pass.
    let j = min(i + WG, params.count - 1u);
    let d0 = real(dy[i]);
    let d1 = real(dy[j]);
    let g0 = real(gate[i]);
    let g1 = real(gate[j]);
    let u0 = real(up[i]);
    let u1 = real(up[j]);
    put(i, d0, g0, u0);
    put(i + WG, d1, g1, u1);
}
