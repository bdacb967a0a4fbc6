// uses: lib/grid.wgsl, lib/softplus.wgsl
// variants: OP=1 | OP=2 | OP=3 | OP=4 | OP=5 | OP=6 | OP=7 | OP=8 | OP=9 | elem=f16 elem_b=f16 | elem_b=f16 | elem=f16 elem_b=f16 OP=6 | REPEAT=1 | elem=vec4<f32> elem_b=vec4<f32> real=vec4<f32> | elem=vec4<f32> elem_b=vec4<f16> real=vec4<f32> REPEAT=1 | elem=vec4<f16> elem_b=vec4<f16> real=vec4<f32> OP=5 | elem=vec4<f32> elem_b=vec4<f32> real=vec4<f32> OP=7
// y[i] = f(a[i], b[i mod period]); the list of f is engine/src/ops/elementwise.rs. An element may be four.
alias elem = f32;
alias elem_b = f32;
const OP: u32 = 0u;
const REPEAT: u32 = 0u;                                               // 0: period = count
const WG: u32 = 256u;
struct Params { count: u32, period: u32, factor: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<elem>;              // (count)
@group(0) @binding(2) var<storage, read> b: array<elem_b>;            // (period)
@group(0) @binding(3) var<storage, read_write> y: array<elem>;        // (count)

fn sigmoid(x: real) -> real {
    // exp only of what is ≤ 0.
    let e = exp(-abs(x));
    return select(e, real(1.0), x >= real(0.0)) / (1.0 + e);
}

fn apply(a: real, b: real) -> real {
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

fn b_at(i: u32) -> real {
    if REPEAT == 1u { return real(b[i % params.period]); }
    return real(b[i]);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = row_of(group) * 4u * WG;
    if first >= params.count { return; }
    if first + 4u * WG <= params.count {
        // All loads before the first store, which they might not pass.
        let i = first + lane;
        let a0 = real(a[i]);
        let a1 = real(a[i + WG]);
        let a2 = real(a[i + 2u * WG]);
        let a3 = real(a[i + 3u * WG]);
        let b0 = b_at(i);
        let b1 = b_at(i + WG);
        let b2 = b_at(i + 2u * WG);
        let b3 = b_at(i + 3u * WG);
        y[i] = elem(apply(a0, b0));
        y[i + WG] = elem(apply(a1, b1));
        y[i + 2u * WG] = elem(apply(a2, b2));
        y[i + 3u * WG] = elem(apply(a3, b3));
        return;
    }
    for (var i = first + lane; i < params.count; i += WG) { y[i] = elem(apply(real(a[i]), b_at(i))); }
}
