//! Mamba-1's selective scan (Gu & Dao 2023, arXiv 2312.00752, eq. 2a with the discretisation of section 3.3): reduced
//! by blocks of tokens, passed on from block to block, then expanded; the backward pass recomputes states.

use crate::{
    DType, Tensor, autograd, launch,
    ops::{PartialSums, batches_a_binding, in_batches},
    reference::Array,
    testing::{Case, Cost, Dim, Input, Sizes},
};

/// Tokens of a block; `BLOCK` in the kernels.
const BLOCK: usize = 16;

/// `h_t = exp(dt_t·a)·h_{t−1} + dt_t·b_t·u_t`, `y_t = (c_t·h_t + d·u_t)·silu(z_t)`, `dt = softplus(delta + delta_bias)`:
/// y (B, D, L) and the last state (B, D, N), from the state 0.
///
/// `u`, `delta`, `z`: (B, D, L), `a`: (D, N) with N up to 32, `b`, `c`: (B, G, N, L) with channel k in group
/// `k / (D / G)`, `d`, `delta_bias`: (D); all f32. Without `d` or `delta_bias` they are 0, without `z` there is no gate.
///
/// # Panics
/// Where shapes or types disagree.
#[track_caller]
pub fn selective_scan(
    u: &Tensor,
    delta: &Tensor,
    a: &Tensor,
    b: &Tensor,
    c: &Tensor,
    d: Option<&Tensor>,
    z: Option<&Tensor>,
    delta_bias: Option<&Tensor>,
) -> (Tensor, Tensor) {
    assert!(u.shape().len() == 3, "selective_scan: u: expected (B, D, L), got {:?}", u.shape());
    assert!(b.shape().len() == 4, "selective_scan: b: expected (B, G, N, L), got {:?}", b.shape());
    let ([batch, channels, tokens], [_, groups, states, _]) = (u.axes(), b.axes());
    assert!((1..=32).contains(&states), "selective_scan: b: expected up to 32 states, got {states}");
    assert!(groups > 0 && channels.is_multiple_of(groups), "selective_scan: {channels} channels in {groups} groups");
    let check = |name: &str, x: &Tensor, shape: &[usize]| {
        assert_eq!(x.shape(), shape, "selective_scan: {name} for u {:?}, b {:?}", u.shape(), b.shape());
        assert!(x.dtype() == DType::F32, "selective_scan: {name}: expected f32, got {}", x.dtype());
    };
    check("u", u, &[batch, channels, tokens]);
    check("delta", delta, u.shape());
    check("a", a, &[channels, states]);
    check("b", b, &[batch, groups, states, tokens]);
    check("c", c, b.shape());
    for (name, x) in [("d", d), ("delta_bias", delta_bias)] {
        if let Some(x) = x {
            check(name, x, &[channels]);
        }
    }
    if let Some(z) = z {
        check("z", z, u.shape());
    }
    // What is bound together: u and dt, b and c, states and adjoints.
    let widths = [channels * tokens, groups * states * tokens, tokens.div_ceil(BLOCK) * channels * states];
    let most = batches_a_binding(u.gpu(), batch, 8 * widths.into_iter().max().unwrap_or(0));
    if most < batch {
        let mut cut = vec![u, delta, b, c];
        cut.extend(z);
        let mut parts = in_batches(&cut, most, |i| {
            let (y, last) = selective_scan(&i[0], &i[1], a, &i[2], &i[3], d, i.get(4), delta_bias);
            vec![y, last]
        });
        return (parts.remove(0), parts.remove(0));
    }
    let (y, last) = scan(&pack(u, delta, delta_bias), a, b, c);
    (gate(y, u, d, z), last)
}

/// (2, B, D, L): u and dt.
fn pack(u: &Tensor, delta: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let ([batch, channels, tokens], count, has_bias) = (u.axes(), u.len(), bias.is_some());
    let packed = u.empty_on([2, batch, channels, tokens], DType::F32);
    let bias_ = bias.unwrap_or(u).detach();
    launch!(selective_scan_dt { count, channels, tokens, has_bias }, [u, delta, bias_] -> [packed], count.div_ceil(256));
    let delta_ = delta.detach();
    let mut inputs = vec![u, delta];
    inputs.extend(bias);
    packed.with_grad(&inputs, move |dpacked| {
        let (delta, bias, rows) = (delta_, bias_, batch * channels);
        let (du, ddelta, dbias) = (delta.like(), delta.like(), PartialSums::new(&delta, batch, channels));
        let first = dpacked.operand().elements(DType::F32, 0, count);
        launch!(copy { count }, [first] -> [du], count.div_ceil(1024));
        let sums = dbias.all();
        launch!(selective_scan_dt_backward { rows, channels, tokens, has_bias },
                [dpacked, delta, bias] -> [ddelta, sums], rows);
        let mut gradients = vec![Some(du), Some(ddelta)];
        gradients.extend(has_bias.then(|| Some(dbias.in_order())));
        gradients
    })
}

/// `(y + d·u)·silu(z)`.
fn gate(y: Tensor, u: &Tensor, d: Option<&Tensor>, z: Option<&Tensor>) -> Tensor {
    if d.is_none() && z.is_none() {
        return y;
    }
    let ([batch, channels, tokens], count) = (u.axes(), u.len());
    let (has_skip, has_z, out) = (d.is_some(), z.is_some(), u.like());
    let (y_, u_, skip_, z_) = (y.detach(), u.detach(), d.unwrap_or(u).detach(), z.unwrap_or(u).detach());
    launch!(selective_scan_gate { count, channels, tokens, has_skip, has_z },
            [y_, u_, skip_, z_] -> [out], count.div_ceil(256));
    let mut inputs = vec![&y, u];
    inputs.extend(d);
    inputs.extend(z);
    out.with_grad(&inputs, move |dout| {
        let (rows, dskip) = (batch * channels, PartialSums::new(&u_, batch, channels));
        let (dy, dz, sums) = (u_.like(), u_.like(), dskip.all());
        launch!(selective_scan_gate_backward { rows, channels, tokens, has_skip, has_z },
                [dout, y_, u_, skip_, z_] -> [dy, dz, sums], rows);
        let du = has_skip.then(|| {
            let du = u_.like();
            launch!(selective_scan_skip_backward { count, channels, tokens }, [dy, skip_] -> [du], count.div_ceil(256));
            du
        });
        let mut gradients = vec![Some(dy), du];
        gradients.extend(has_skip.then(|| Some(dskip.in_order())));
        gradients.extend(has_z.then_some(Some(dz)));
        gradients
    })
}

/// y = c·h and the last state, from packed (2, B, D, L).
fn scan(packed: &Tensor, a: &Tensor, b: &Tensor, c: &Tensor) -> (Tensor, Tensor) {
    let ([_, batch, channels, tokens], [_, groups, states, _]) = (packed.axes(), b.axes());
    let (blocks, width) = (tokens.div_ceil(BLOCK), channels * states);
    let wide = batch * blocks * channels.div_ceil(64);
    let enter = move |packed: &Tensor, a: &Tensor, b: &Tensor, carry: &crate::gpu::Operand| {
        let dt_sum = a.empty_on([batch, blocks, channels], DType::F32);
        let last = a.empty_on([batch, channels, states], DType::F32);
        launch!(selective_scan_states [N = states] { batch, channels, tokens, groups, blocks },
                [packed, a, b] -> [carry, dt_sum], wide);
        launch!(selective_scan_pass { batch, channels, states, blocks, reverse: false, has_initial: false },
                [a, dt_sum, a] -> [carry, last], (batch * width).div_ceil(64));
        (dt_sum, last)
    };
    let carry = a.empty_on([batch, blocks, channels, states], DType::F32);
    let (_, last) = enter(packed, a, b, &carry.operand());
    let y = a.empty_on([batch, channels, tokens], DType::F32);
    launch!(selective_scan [N = states] { batch, channels, tokens, groups, blocks },
            [packed, a, b, c, carry] -> [y], wide);
    let (packed_, a_, b_, c_) = (packed.detach(), a.detach(), b.detach(), c.detach());
    let [y, last] = autograd::record(&[packed, a, b, c], [y, last], move |[dy, dlast]: [Option<Tensor>; 2]| {
        let (packed, a, b, c) = (packed_, a_, b_, c_);
        let dy = dy.unwrap_or_else(|| Tensor::zeros(a.gpu(), [batch, channels, tokens], DType::F32));
        // States, then adjoints; b, then c: the last kernel binds eight buffers as it is.
        let count = batch * blocks * width;
        let carry_at = count.next_multiple_of(64);
        let carry = a.empty_on([2 * carry_at], DType::F32);
        let part = |at: usize| carry.operand().elements(DType::F32, at, count);
        let (dt_sum, _) = enter(&packed, &a, &b, &part(0));
        let (adjoints, unused) = (part(carry_at), a.empty_on([batch, channels, states], DType::F32));
        launch!(selective_scan_adjoint [N = states] { batch, channels, tokens, groups, blocks },
                [packed, a, c, dy] -> [adjoints], wide);
        let (has_initial, initial) = (dlast.is_some(), dlast.unwrap_or_else(|| a.clone()));
        launch!(selective_scan_pass { batch, channels, states, blocks, reverse: true, has_initial },
                [a, dt_sum, initial] -> [adjoints, unused], (batch * width).div_ceil(64));
        let c_at = b.len().next_multiple_of(64);
        let bc = a.empty_on([2 * c_at], DType::F32);
        for (x, at) in [(&b, 0), (&c, c_at)] {
            let (part, count) = (bc.operand().elements(DType::F32, at, x.len()), x.len());
            launch!(copy { count }, [x] -> [part], count.div_ceil(1024));
        }
        let tiles = (channels / groups).div_ceil(64);
        let (dpacked, da) = (packed.like(), PartialSums::new(&a, batch * blocks, width));
        let dbc = PartialSums::new(&a, tiles, 2 * c_at);
        let (da_, dbc_) = (da.all(), dbc.all());
        launch!(selective_scan_backward [N = states] { batch, channels, tokens, groups, blocks, c_at, carry_at },
                [packed, dy, a, bc, carry] -> [dpacked, da_, dbc_], batch * blocks * groups * tiles);
        let dbc = dbc.in_order();
        let of = |first: usize| {
            let (out, part, count) = (b.like(), dbc.operand().elements(DType::F32, first, b.len()), b.len());
            launch!(copy { count }, [part] -> [out], count.div_ceil(1024));
            out
        };
        let (db, dc) = (of(0), of(c_at));
        [dpacked, da.in_order().reshape([channels, states]), db, dc]
    });
    (y, last)
}

/// The definition, one channel and one token at a time.
fn reference(s: &Sizes, i: &[Array]) -> Vec<Array> {
    let [batch, channels, tokens, groups, states, extras] = sizes(s);
    let [u, delta, a, b, c] = [&i[0], &i[1], &i[2], &i[3], &i[4]];
    let mut y = Array::zeros(&u.shape);
    let mut last = Array::zeros(&[batch, channels, states]);
    for batch in 0..batch {
        for k in 0..channels {
            let (row, group) = ((batch * channels + k) * tokens, k / (channels / groups));
            let mut h = vec![0.0; states];
            for t in 0..tokens {
                let x = delta.data[row + t] + if extras == 1 { i[7].data[k] } else { 0.0 };
                let dt = x.max(0.0) + (-x.abs()).exp().ln_1p();
                let mut out = if extras == 1 { i[5].data[k] * u.data[row + t] } else { 0.0 };
                for (n, h) in h.iter_mut().enumerate() {
                    let at = ((batch * groups + group) * states + n) * tokens + t;
                    *h = (dt * a.data[k * states + n]).exp() * *h + dt * b.data[at] * u.data[row + t];
                    out += c.data[at] * *h;
                }
                let gate = if extras == 1 { i[6].data[row + t] } else { 0.0 };
                y.data[row + t] = if extras == 1 { out * gate / (1.0 + (-gate).exp()) } else { out };
            }
            last.data[(batch * channels + k) * states..][..states].copy_from_slice(&h);
        }
    }
    vec![y, last]
}

fn sizes(s: &Sizes) -> [usize; 6] {
    let [batch, channels, tokens, groups, states, extras] = s.get();
    [batch, channels * groups, tokens, groups, states, extras]
}

pub(super) fn cases() -> Vec<Case> {
    let narrow = Case {
        dims: vec![
            Dim::range("B", 1, 2),
            Dim::range("D/G", 1, 20),
            Dim::range("L", 1, 70),
            Dim::one_of("G", &[1, 2]),
            Dim::one_of("N", &[4, 16, 1]),
            Dim::one_of("extras", &[0, 1]),
        ],
        inputs: |s, draw| {
            let [batch, channels, tokens, groups, states, extras] = sizes(s);
            let (wide, narrow) = ([batch, channels, tokens], [batch, groups, states, tokens]);
            let mut all = vec![
                Input::new("u", draw.normal(&wide)).grad(),
                Input::new("delta", draw.uniform(&wide, -4.0, 1.0)).grad(),
                Input::new("a", draw.uniform(&[channels, states], -8.0, -0.1)).grad(),
                Input::new("b", draw.uniform(&narrow, -2.0, 2.0)).grad(),
                Input::new("c", draw.uniform(&narrow, -2.0, 2.0)).grad(),
            ];
            if extras == 1 {
                all.push(Input::new("d", draw.normal(&[channels])).grad());
                all.push(Input::new("z", draw.uniform(&wide, -3.0, 3.0)).grad());
                all.push(Input::new("delta_bias", draw.uniform(&[channels], -1.0, 1.0)).grad());
            }
            all
        },
        run: |_, i| {
            let (y, last) =
                selective_scan(&i[0], &i[1], &i[2], &i[3], &i[4], i.get(5), i.get(6), i.get(7));
            vec![y, last]
        },
        reference,
        error: |s| 32.0 + 4.0 * (s["L"] as f64).sqrt(),
        error_grad: Some(|s| 256.0 + 32.0 * (s["L"] as f64).sqrt()),
        cost: |s| {
            let [batch, channels, tokens, _, states, _] = sizes(s);
            Cost { bytes: 16 * batch * channels * tokens, flops: 7 * batch * channels * tokens * states }
        },
        bench: &[&[4, 2048, 4096, 1, 16, 1]],
        ..Case::new("selective_scan")
    };
    let wide = Case {
        dims: vec![
            Dim::range("B", 1, 1),
            Dim::range("D/G", 60, 130),
            Dim::range("L", 1, 20),
            Dim::one_of("G", &[1]),
            Dim::one_of("N", &[4, 16, 32]),
            Dim::one_of("extras", &[0]),
        ],
        bench: &[],
        stem: "selective_scan.wide",
        ..narrow.clone()
    };
    vec![narrow, wide]
}
