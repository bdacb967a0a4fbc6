// uses: lib/reduce.wgsl
// What one step of AdamW needs to know of all gradients at once, decided on the device so that nothing is read back:
// the norm, the factor that removes the loss scale and clips, whether the step is skipped, and the next loss scale.
// One workgroup; sums in a fixed order.
const WG: u32 = 256u;
const OVERFLOW: f32 = 3.0e38;
struct Params { blocks: u32, beta1: f32, beta2: f32, max_norm: f32, grow_after: f32, most_scale: f32 }

// The fields of `Control` in engine/src/ops/adamw.rs.
struct Control {
    scale: f32,      // of the loss whose gradients come next
    good: f32,       // steps since the scale changed
    beta1_t: f32,    // beta1 to the power of the steps taken
    beta2_t: f32,
    factor: f32,     // on this step's gradients; 0 skips the step
    norm: f32,       // of this step's gradients without the scale, before clipping
    steps: f32,      // taken
    skipped: f32,    // for gradients that were not finite
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> sums: array<f32>;            // (blocks), from square_sum
@group(0) @binding(2) var<storage, read_write> control: Control;

fn sum_at(i: u32) -> f32 {
    if i >= params.blocks { return 0.0; }
    return sums[i];
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    var largest = 0.0;
    for (var i = lane; i < params.blocks; i += 4u * WG) {
        // Four loads under way together. Many blocks near the largest float must not overflow.
        let s = vec4f(sums[i], sum_at(i + WG), sum_at(i + 2u * WG), sum_at(i + 3u * WG));
        sum += dot(s, vec4f(1.0e-6));
        largest = max(largest, max(max(s.x, s.y), max(s.z, s.w)));
    }
    let total = workgroup_sum(sum, lane);
    let worst = workgroup_max(largest, lane);
    if lane != 0u { return; }
    let scale = control.scale;
    let norm = sqrt(total) * 1.0e3 / scale;
    control.norm = norm;
    if worst >= OVERFLOW {
        control.factor = 0.0;
        control.skipped += 1.0;
        control.good = 0.0;
        control.scale = max(1.0, scale * 0.5);
        return;
    }
    var clip = 1.0;
    if params.max_norm > 0.0 && norm > params.max_norm { clip = params.max_norm / norm; }
    control.factor = clip / scale;
    control.steps += 1.0;
    control.beta1_t *= params.beta1;
    control.beta2_t *= params.beta2;
    control.good += 1.0;
    if params.grow_after > 0.0 && control.good >= params.grow_after {
        control.good = 0.0;
        control.scale = min(scale * 2.0, params.most_scale);
    }
}
