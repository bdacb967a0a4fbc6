// uses: lib/grid.wgsl
// Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2), over a whole arena:
// g ← factor · g,  m ← β1·m + (1 − β1)·g,  v ← β2·v + (1 − β2)·g²,
// p ← p − lr·decay·p − lr · (m / (1 − β1ᵗ)) / (√(v / (1 − β2ᵗ)) + eps)
const WG: u32 = 256u;
struct Params { count: u32, lr: f32, beta1: f32, beta2: f32, eps: f32, decay: f32 }

// As in adamw_control.wgsl, which decides it.
struct Control {
    scale: f32, good: f32, beta1_t: f32, beta2_t: f32, factor: f32, norm: f32, steps: f32, skipped: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> control: Control;
@group(0) @binding(2) var<storage, read> g: array<vec4f>;             // (count / 4)
@group(0) @binding(3) var<storage, read_write> p: array<vec4f>;       // (count / 4)
@group(0) @binding(4) var<storage, read_write> m: array<vec4f>;       // (count / 4)
@group(0) @binding(5) var<storage, read_write> v: array<vec4f>;       // (count / 4)

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = row_of(group) * WG + lane;
    if i * 4u >= params.count { return; }
    // All loads under way together.
    let grads = g[i];
    let m_old = m[i];
    let v_old = v[i];
    let old = p[i];
    let factor = control.factor;
    if factor > 0.0 {
        let grad = grads * factor;
        let mean = params.beta1 * m_old + (1.0 - params.beta1) * grad;
        let square = params.beta2 * v_old + (1.0 - params.beta2) * grad * grad;
        let step = (mean / (1.0 - control.beta1_t)) / (sqrt(square / (1.0 - control.beta2_t)) + params.eps);
        p[i] = old - params.lr * params.decay * old - params.lr * step;
        m[i] = mean;
        v[i] = square;
    }
}
