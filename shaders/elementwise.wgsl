// uses: lib/grid.wgsl, lib/softplus.wgsl
// variants: OP=1 | OP=2 | OP=3 | OP=4 | OP=5 | OP=6 | OP=7 | OP=8 | OP=9 | elem=f16 elem_b=f16 | elem_b=f16 | elem=f16 elem_b=f16 OP=6
// y[i] = f(a[i], b[i mod period]); the list of f is engine/src/ops/elementwise.rs.
alias elem = f32;
alias elem_b = f32;
const OP: u32 = 0u;
const WG: u32 = 256u;
struct Params { count: u32, period: u32, factor: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<elem>;              // (count)
@group(0) @binding(2) var<storage, read> b: array<elem_b>;            // (period)
@group(0) @binding(3) var<storage, read_write> y: array<elem>;        // (count)

fn sigmoid(x: f32) -> f32 {
    // exp only of what is ≤ 0.
    let e = exp(-abs(x));
    return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

fn apply(a: f32, b: f32) -> f32 {
    switch OP {
        case 0u: { return a + b; }
        case 1u: { return a * b; }
        case 2u: { return a * params.factor; }
        case 3u: { return a * sigmoid(a); }
        case 4u: { return sigmoid(a); }
        case 5u: { return softplus(a); }
        case 6u: { return a * sigmoid(a) * b; }                       // silu(a) · b
        case 7u: { let s = sigmoid(b); return a * s * (1.0 + b * (1.0 - s)); }   // a · silu'(b)
        case 8u: { return a * b * (1.0 - b); }                        // a · sigmoid', from the output b
        case 9u: { return a * sigmoid(b); }                           // a · softplus'(b)
        default: { return a; }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    for (var k = 0u; k < 4u; k++) {
        let i = row_of(group) * 4u * WG + k * WG + lane;
        if i < params.count { y[i] = elem(apply(f32(a[i]), f32(b[i % params.period]))); }
    }
}
