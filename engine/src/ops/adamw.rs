//! One step of Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2) with clipping
//! by the global norm and a loss scale, all decided on the device: nothing is read back.

use crate::{
    DType, Tensor, launch,
    reference::Array,
    tensor::rows_a_page,
    testing::{Case, Cost, Dim, Input, Part, Share, some},
};

/// Quads a workgroup; `WG` in the kernel.
const WORKGROUP: usize = 256;

/// What stays the same over all parameters of a step.
#[derive(Clone, Copy, Debug)]
pub struct AdamWRule {
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of squares.
    pub beta2: f32,
    /// Added to the root of the mean of squares.
    pub eps: f32,
    /// Gradients of a larger norm, over all parameters, are scaled down to it; 0 for no limit.
    pub max_norm: f32,
    /// Good steps after which the loss scale doubles; 0 keeps it.
    pub grow_after: f32,
    /// The largest loss scale.
    pub most_scale: f32,
}

/// The state that the device keeps between steps, (8) in f32: loss scale, steps since it changed, β1ᵗ, β2ᵗ, this
/// step's factor, its norm, steps taken, steps skipped.
pub const CONTROL: usize = 8;

/// Decides a step from the sums of squares of all gradients ([`super::square_sum`]): `control` (8), updated in place.
/// Where a gradient is not finite the step is skipped and the loss scale halved.
pub fn adamw_control(sums: &Tensor, control: &Tensor, rule: &AdamWRule) {
    let &AdamWRule { beta1, beta2, max_norm, grow_after, most_scale, .. } = rule;
    launch!(adamw_control { blocks: sums.len(), beta1, beta2, max_norm, grow_after, most_scale },
            [sums] -> [control], 1);
}

/// Updates parameters `p` and moments `m` and `v` from gradients `g`: all (count), in f32.
///
/// # Panics
/// Where lengths differ or are no multiple of 4.
#[track_caller]
pub fn adamw([p, m, v, g]: [&Tensor; 4], control: &Tensor, rule: &AdamWRule, lr: f32, decay: f32) {
    let &AdamWRule { beta1, beta2, eps, .. } = rule;
    for (name, t) in [("m", m), ("v", v), ("g", g)] {
        assert_eq!(t.len(), p.len(), "adamw: {name} for {p:?}");
    }
    assert!(p.len().is_multiple_of(4), "adamw: {p:?}, expected a multiple of 4 elements");
    let step = rows_a_page(p.gpu(), &[16]) * 4;
    for start in (0..p.len()).step_by(step) {
        let count = step.min(p.len() - start);
        let [p, m, v, g] = [p, m, v, g].map(|t| t.operand().elements(DType::F32, start, count));
        launch!(adamw { count, lr, beta1, beta2, eps, decay }, [control, g] -> [p, m, v],
                (count / 4).div_ceil(WORKGROUP));
    }
}

const RULE: AdamWRule =
    AdamWRule { beta1: 0.9, beta2: 0.95, eps: 1e-8, max_norm: 0.5, grow_after: 3.0, most_scale: 65536.0 };
const LR: f32 = 1e-2;
const DECAY: f32 = 0.1;

/// The definition over a few steps with the same gradients: algorithm 2 behind a clip.
fn reference(steps: usize, i: &[Array]) -> Vec<Array> {
    let [mut p, mut m, mut v, g] = [0, 1, 2, 3].map(|k: usize| i[k].data.clone());
    let scale = i[4].data[0];
    let (beta1, beta2) = (f64::from(RULE.beta1), f64::from(RULE.beta2));
    let (lr, decay) = (f64::from(LR), f64::from(DECAY));
    let norm = g.iter().map(|g| (g / scale).powi(2)).sum::<f64>().sqrt();
    let clip = if norm > 0.5 { 0.5 / norm } else { 1.0 };
    for t in 1..=steps as i32 {
        for k in 0..p.len() {
            let grad = g[k] / scale * clip;
            m[k] = beta1 * m[k] + (1.0 - beta1) * grad;
            v[k] = beta2 * v[k] + (1.0 - beta2) * grad * grad;
            let (mean, square) = (m[k] / (1.0 - beta1.powi(t)), v[k] / (1.0 - beta2.powi(t)));
            p[k] -= lr * decay * p[k] + lr * mean / (square.sqrt() + f64::from(RULE.eps));
        }
    }
    [p, m, v].into_iter().map(|data| Array::new(&i[0].shape, data)).collect()
}

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        dims: vec![Dim::range("quads", 1, 2000), Dim::one_of("steps", &[1, 2, 5])],
        inputs: |s, draw| {
            let shape = [4 * s["quads"]];
            vec![
                Input::new("p", draw.normal(&shape)),
                Input::new("m", draw.uniform(&shape, -0.1, 0.1)),
                Input::new("v", draw.uniform(&shape, 0.001, 0.1)),
                Input::new("g", draw.uniform(&shape, -2.0, 2.0)),
                Input::new("scale", Array::new(&[1], vec![[1.0, 1024.0][draw.below(2)]])),
            ]
        },
        // In place, so on copies: the inputs may be run again.
        run: |s, i| {
            let [p, m, v] = [0, 1, 2].map(|k: usize| super::copy(&i[k], DType::F32));
            let gpu = p.gpu();
            let state = Tensor::from_slice(gpu, &[0.0f32, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0], [CONTROL - 1]);
            let control = super::concat_columns(&[&i[4], &state.expect("seven numbers")]);
            let keep = AdamWRule { grow_after: 0.0, ..RULE };
            for _ in 0..s["steps"] {
                let g = super::copy(&i[3], DType::F32);
                adamw_control(&super::square_sum(&[&g]), &control, &keep);
                adamw([&p, &m, &v, &g], &control, &keep, LR, DECAY);
            }
            vec![p, m, v]
        },
        reference: |s, i| reference(s["steps"], i),
        error: |_| 64.0,
        cost: |s| Cost { bytes: 4 * 28 * s["quads"], flops: 60 * s["quads"] },
        bench: &[&[1 << 22, 1]],
        ..Case::new("adamw")
    }, step()]
}

/// The update alone, in place, behind what the control has decided.
fn step() -> Case {
    Case {
        dims: vec![Dim::range("quads", 1, 2000)],
        inputs: |s, draw| {
            let shape = [4 * s["quads"]];
            let t = 1 + draw.below(9) as i32;
            let powers = [RULE.beta1, RULE.beta2].map(|b| f64::from(b).powi(t));
            let control = vec![1.0, 0.0, powers[0], powers[1], draw.uniform(&[1], 0.1, 1.0).data[0], 1.0, t.into(), 0.0];
            vec![
                Input::new("p", draw.normal(&shape)),
                Input::new("m", draw.uniform(&shape, -0.1, 0.1)),
                Input::new("v", draw.uniform(&shape, 0.001, 0.1)),
                Input::new("g", draw.uniform(&shape, -2.0, 2.0)),
                Input::new("control", Array::new(&[CONTROL], control)),
            ]
        },
        run: |_, i| {
            adamw([&i[0], &i[1], &i[2], &i[3]], &i[4], &RULE, LR, DECAY);
            i[..3].to_vec()
        },
        reference: |_, i| {
            let [mut p, mut m, mut v, g] = [0, 1, 2, 3].map(|k: usize| i[k].clone());
            let (lr, decay, control) = (f64::from(LR), f64::from(DECAY), &i[4].data);
            let (beta1, beta2) = (f64::from(RULE.beta1), f64::from(RULE.beta2));
            for k in 0..p.data.len() {
                let grad = g.data[k] * control[4];
                m.data[k] = beta1 * m.data[k] + (1.0 - beta1) * grad;
                v.data[k] = beta2 * v.data[k] + (1.0 - beta2) * grad * grad;
                let (mean, square) = (m.data[k] / (1.0 - control[2]), v.data[k] / (1.0 - control[3]));
                p.data[k] -= lr * decay * p.data[k] + lr * mean / (square.sqrt() + f64::from(RULE.eps));
            }
            vec![p, m, v]
        },
        error: |_| 64.0,
        cost: |s| Cost { bytes: 4 * 28 * s["quads"], flops: 60 * s["quads"] },
        part: Some(|s, draw| {
            let some = some(draw, s["quads"], 1 << 10);
            let cut = vec![4 * some.start..4 * some.end];
            let mut inputs = vec![cut.clone(); 4];
            inputs.push(vec![0..CONTROL]);
            Part { sizes: vec![some.len()], inputs, outputs: vec![Share::Cut(cut); 3] }
        }),
        ..Case::new("adamw.step")
    }
}
