//! Causal depthwise convolution with SiLU (Mamba: Gu & Dao 2023, arXiv 2312.00752), with states and restarts.

use crate::{
    DType, Tensor,
    autograd::{self, Gradients},
    launch,
    ops::{Columns, PartialSums, batches_a_binding, broadcast_rows, concat_columns, in_batches, split_columns},
    reference::Array,
    testing::{Case, Cost, Dim, Input, Sizes},
};

/// Tokens that share one partial sum; `BLOCK` in `causal_conv1d_backward`.
const BLOCK: usize = 64;

/// Tokens an invocation of `causal_conv1d_quads`; `BLOCK` there.
const BLOCK_QUADS: usize = 16;

/// Tokens an invocation of the walk back by quads, which share one partial sum; `BLOCK` there.
const BLOCK_QUADS_BACKWARD: usize = 72;

/// Parts of the result that one launch writes.
const PARTS: usize = 3;

/// Buffers of `causal_conv1d_parts_backward`.
const BUFFERS: u32 = 10;

/// `y[t] = silu(bias + Σ_j weight[j] · x[t − W + 1 + j])` per channel.
///
/// `x`: (batch, tokens, channels), in f32 or f16 and y with it, all else in f32; `weight`: (channels, W), W from 2 to 8; `bias`: (channels);
/// `initial_state`: (batch, channels, W − 1), the inputs before the first, oldest first, else zeros;
/// `segment`: (batch, tokens), u32: nothing is seen across a change. Returns y and the final state, the last W − 1
/// inputs that a next token of the last segment would see.
///
/// # Panics
/// Where the shapes disagree.
#[track_caller]
pub fn causal_conv1d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    initial_state: Option<&Tensor>,
    segment: Option<&Tensor>,
) -> (Tensor, Tensor) {
    let [_, _, channels] = x.axes();
    let (mut y, state) = causal_conv1d_parts(x, weight, bias, initial_state, segment, &[channels]);
    (y.swap_remove(0), state)
}

/// [`causal_conv1d`] of columns where they lie; y comes in parts of these many channels.
///
/// # Panics
/// Where the shapes disagree, or the parts do not add up to the channels.
#[track_caller]
pub fn causal_conv1d_parts(
    x: impl Into<Columns>,
    weight: &Tensor,
    bias: Option<&Tensor>,
    initial_state: Option<&Tensor>,
    segment: Option<&Tensor>,
    parts: &[usize],
) -> (Vec<Tensor>, Tensor) {
    let x = x.into();
    let [batches, tokens, channels] = x.shape().try_into().expect("causal_conv1d: x: (batch, tokens, channels)");
    let [rows, width] = weight.axes();
    assert_eq!(rows, channels, "causal_conv1d: weight {:?} for x {:?}", weight.shape(), x.shape());
    assert!((2..=8).contains(&width), "causal_conv1d: width {width}, supported are 2 to 8");
    assert!(tokens > 0, "causal_conv1d: x {:?} has no tokens", x.shape());
    assert_eq!(parts.iter().sum::<usize>(), channels, "causal_conv1d: parts {parts:?} of x {:?}", x.shape());
    let kept = [batches, channels, width - 1];
    if let Some(b) = bias {
        assert_eq!(b.shape(), [channels], "causal_conv1d: bias");
    }
    if let Some(s) = initial_state {
        assert_eq!(s.shape(), kept, "causal_conv1d: initial_state for x {:?}", x.shape());
    }
    if let Some(s) = segment {
        assert_eq!(s.shape(), [batches, tokens], "causal_conv1d: segment for x {:?}", x.shape());
    }
    // Where width and channels allow, four channels' taps stay in registers, and columns are read in place.
    let fours = parts.iter().chain([&x.stride(), &x.start(), &channels]).all(|n| n.is_multiple_of(4));
    // The walk back hands three tokens on.
    let trained = [Some(x.input()), Some(weight), bias, initial_state].into_iter().flatten().any(Tensor::needs_grad);
    let quads = width == 4 && fours && (1..=PARTS).contains(&parts.len()) && (tokens >= width - 1 || !trained);
    let rows = tokens.max(tokens.div_ceil(BLOCK) * (width + 1));
    let most = batches_a_binding(x.gpu(), batches, rows * x.stride() * 4);
    if quads && most == batches {
        return by_quads(x, weight, bias, initial_state, segment, parts);
    }
    let x = x.contiguous();
    let (y, state) = if most < batches {
        let mut cut = vec![&x];
        cut.extend(initial_state);
        cut.extend(segment);
        let mut parts = in_batches(&cut, most, |i| {
            let (initial_state, segment) = (initial_state.map(|_| &i[1]), segment.map(|_| &i[i.len() - 1]));
            let (y, state) = causal_conv1d(&i[0], weight, bias, initial_state, segment);
            vec![y, state]
        });
        (parts.remove(0), parts.remove(0))
    } else {
        by_channel(&x, weight, bias, initial_state, segment)
    };
    (if parts.len() == 1 { vec![y] } else { split_columns(&y, parts) }, state)
}

/// The last inputs.
fn final_state(
    x: &Columns,
    weight: &Tensor,
    [bias, initial, segment]: [&Tensor; 3],
    [has_bias, has_initial, has_segment]: [bool; 3],
) -> Tensor {
    let [batches, tokens, channels] = x.shape().try_into().expect("three axes");
    let [_, width] = weight.axes();
    let (state, whole) = (weight.empty_on([batches, channels, width - 1], DType::F32), x.input());
    launch!(causal_conv1d_state [elem = x.dtype().wgsl()]
            { batches, tokens, channels, width, has_bias, has_initial, has_segment, x_stride: x.stride(),
              x_start: x.start() },
            [whole, weight, bias, initial, segment] -> [state], (batches * channels * (width - 1)).div_ceil(64));
    state
}

/// Four channels an invocation, of width 4, into at most [`PARTS`] parts.
fn by_quads(
    x: Columns,
    weight: &Tensor,
    bias: Option<&Tensor>,
    initial_state: Option<&Tensor>,
    segment: Option<&Tensor>,
    parts: &[usize],
) -> (Vec<Tensor>, Tensor) {
    let [batches, tokens, channels] = x.shape().try_into().expect("three axes");
    let width = 4;
    // What is absent is bound as something that is there, and not read.
    let any = |t: Option<&Tensor>| t.unwrap_or(weight).detach();
    let (bias_, initial_, segment_) = (any(bias), any(initial_state), any(segment));
    let (has_bias, has_initial, has_segment) = (bias.is_some(), initial_state.is_some(), segment.is_some());
    let state = final_state(&x, weight, [&bias_, &initial_, &segment_], [has_bias, has_initial, has_segment]);
    let (half, words) = x.dtype().quad();
    let (lanes, lanes_back) = if x.gpu().capabilities().cpu_vectors() { (32, 32) } else { (128, 64) };
    let (x_stride, x_start, whole) = (x.stride() / 4, x.start() / 4, x.input());
    let parts = parts.to_vec();
    let part = |i: usize| match parts.get(i) {
        Some(part) => weight.empty_on([batches, tokens, *part], x.dtype()),
        None => weight.empty_on([4], x.dtype()), // bound, and not written
    };
    let (y, y2, y3) = (part(0), part(1), part(2));
    let second = parts[0] / 4;
    let third = second + parts.get(1).map_or(0, |part| part / 4);
    launch!(causal_conv1d_quads [HALF = half, words = words, WG = lanes, SEGMENTS = u32::from(has_segment)]
            { batches, tokens, channels, x_stride, x_start, second, third, has_bias, has_initial },
            [whole, weight, bias_, initial_, segment_] -> [y, y2, y3],
            (batches * tokens.div_ceil(BLOCK_QUADS) * channels / 4).div_ceil(lanes));
    let mut outputs = vec![y, y2, y3];
    outputs.truncate(parts.len());
    let (x_, weight_) = (x.detach(), weight.detach());
    let mut inputs = vec![x.input(), weight];
    inputs.extend(bias);
    inputs.extend(initial_state);
    outputs.push(state);
    let mut outputs = autograd::record_all(&inputs, outputs, move |mut grads| {
        let dstate = grads.pop().expect("the state's");
        let (dx, whole) = (x_.gradient(), x_.input());
        let dinitial = weight_.empty_on([batches, channels, width - 1], DType::F32);
        let blocks = tokens.div_ceil(BLOCK_QUADS_BACKWARD);
        let sums = PartialSums::new(&weight_, batches * blocks, channels * (width + 1));
        let all = sums.all();
        let zeros = |shape: [usize; 2]| Tensor::zeros(weight_.gpu(), shape, DType::F32);
        let bias = if has_bias { bias_ } else { zeros([channels, 1]).reshape([channels]) };
        let has_final = dstate.is_some();
        // Whole sequences of biases, each behind its states where there are any.
        let plus = if batches == 1 || !(has_initial || has_final) { bias } else { broadcast_rows(&bias, batches) };
        let (states, ends) = if has_initial || has_final {
            let rows = [batches * channels, width - 1];
            let [before, after] = [has_initial.then_some(&initial_), dstate.as_ref()]
                .map(|state| state.map_or_else(|| zeros(rows), |state| state.reshape(rows)));
            (1, concat_columns(&[&before, &after, &plus.reshape([batches * channels, 1])]))
        } else {
            (0, plus)
        };
        let no_dy = |part: usize| Tensor::zeros(weight_.gpu(), [batches, tokens, part], x_.dtype());
        if parts.len() > 1 && weight_.gpu().capabilities().storage_buffers >= BUFFERS {
            let mut dys = grads.into_iter().zip(&parts).map(|(dy, part)| dy.unwrap_or_else(|| no_dy(*part)));
            let mut next = || dys.next().unwrap_or_else(|| weight_.clone()); // bound, and not read
            let (dy, dy2, dy3) = (next(), next(), next());
            let (first, fours) = (0u32, channels / 4);
            launch!(causal_conv1d_parts_backward [HALF = half, words = words, WG = lanes_back, STATES = states, SEGMENTS = u32::from(has_segment)]
                    { batches, tokens, channels, x_stride, x_start, first, fours, second, third, blocks, has_initial, has_final },
                    [dy, dy2, dy3, whole, weight_, ends, segment_] -> [dx, dinitial, all],
                    (batches * blocks * fours).div_ceil(lanes_back));
            return gradients(dx, sums, dinitial, [channels, width], has_bias, has_initial);
        }
        let mut first = 0;
        for (dy, part) in grads.into_iter().zip(parts) {
            let fours = part / 4;
            let dy = dy.unwrap_or_else(|| no_dy(part));
            launch!(causal_conv1d_quads_backward [HALF = half, words = words, WG = lanes_back, STATES = states, SEGMENTS = u32::from(has_segment)]
                    { batches, tokens, channels, x_stride, x_start, first, fours, blocks, has_initial, has_final },
                    [dy, whole, weight_, ends, segment_] -> [dx, dinitial, all],
                    (batches * blocks * fours).div_ceil(lanes_back));
            first += fours;
        }
        gradients(dx, sums, dinitial, [channels, width], has_bias, has_initial)
    });
    let state = outputs.pop().expect("the state is last");
    (outputs, state)
}

/// Gradients of x, weight, bias and the initial state, in order.
fn gradients(
    dx: Tensor,
    sums: PartialSums,
    dinitial: Tensor,
    [channels, width]: [usize; 2],
    has_bias: bool,
    has_initial: bool,
) -> Gradients {
    let mut grads = vec![Some(dx), None];
    grads.extend(has_bias.then_some(None));
    grads.extend(has_initial.then_some(Some(dinitial)));
    let mut summed = vec![(1, [channels, width].into())];
    summed.extend(has_bias.then(|| (2, [channels].into())));
    Gradients::from(grads).and_sums(sums, summed)
}

/// A channel an invocation, of any width.
fn by_channel(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    initial_state: Option<&Tensor>,
    segment: Option<&Tensor>,
) -> (Tensor, Tensor) {
    let ([batches, tokens, channels], [_, width]) = (x.axes(), weight.axes());
    let (y, elem) = (x.like(), x.dtype().wgsl());
    let any = |t: Option<&Tensor>| t.unwrap_or(weight).detach();
    let (bias_, initial_, segment_) = (any(bias), any(initial_state), any(segment));
    let (has_bias, has_initial, has_segment) = (bias.is_some(), initial_state.is_some(), segment.is_some());
    let state = final_state(&x.into(), weight, [&bias_, &initial_, &segment_], [has_bias, has_initial, has_segment]);
    let count = batches * tokens * channels;
    launch!(causal_conv1d [elem = elem] { batches, tokens, channels, width, has_bias, has_initial, has_segment },
            [x, weight, bias_, initial_, segment_] -> [y], count.div_ceil(256));
    let (x_, weight_) = (x.detach(), weight.detach());
    let mut inputs = vec![x, weight];
    inputs.extend(bias);
    inputs.extend(initial_state);
    let [y, state] = autograd::record(&inputs, [y, state], move |[dy, dstate]| {
        let dy = dy.unwrap_or_else(|| Tensor::zeros(x_.gpu(), x_.shape(), x_.dtype()));
        let (dx, dinitial) = (x_.like(), x_.empty_on([batches, channels, width - 1], DType::F32));
        let blocks = tokens.div_ceil(BLOCK);
        let sums = PartialSums::new(&x_, batches * blocks, channels * (width + 1));
        let (all, has_final) = (sums.all(), dstate.is_some());
        // du stays f32: the states' gradient is f32 too, whatever x is.
        let du = x_.empty_on(x_.shape(), DType::F32);
        launch!(causal_conv1d_backward [elem = elem]
                { batches, tokens, channels, width, has_bias, has_initial, has_segment, blocks },
                [dy, x_, weight_, bias_, initial_, segment_] -> [du, all], (batches * blocks * channels).div_ceil(64));
        let dfinal = dstate.unwrap_or_else(|| weight_.clone());
        let count = batches * (tokens + width - 1) * channels;
        launch!(causal_conv1d_backward_input [elem = elem]
                { batches, tokens, channels, width, has_initial, has_segment, has_final },
                [du, weight_, segment_, dfinal] -> [dx, dinitial], count.div_ceil(256));
        gradients(dx, sums, dinitial, [channels, width], has_bias, has_initial)
    });
    (y, state)
}

fn reference(x: &Array, weight: &Array, bias: &Array, initial: &Array, segment: &Array, on: [bool; 3]) -> Vec<Array> {
    let [batches, tokens, channels]: [usize; 3] = x.axes();
    let [_, width]: [usize; 2] = weight.axes();
    let [has_bias, has_initial, has_segment] = on;
    // What token t sees `back` tokens before it.
    let seen = |b: usize, t: usize, back: usize, c: usize| {
        let from = t.saturating_sub(back);
        if has_segment && segment.at(&[b, t]) != segment.at(&[b, from]) {
            return 0.0;
        }
        match (back > t, has_initial) {
            (false, _) => x.at(&[b, t - back, c]),
            (true, true) => initial.at(&[b, c, width - 1 + t - back]),
            (true, false) => 0.0,
        }
    };
    let y = Array::from_fn(&[batches, tokens, channels], |i| {
        let [b, t, c] = [i[0], i[1], i[2]];
        let bias = if has_bias { bias.data[c] } else { 0.0 };
        let u = bias + (0..width).map(|j| weight.at(&[c, j]) * seen(b, t, width - 1 - j, c)).sum::<f64>();
        u / (1.0 + (-u).exp())
    });
    let state =
        Array::from_fn(&[batches, channels, width - 1], |i| seen(i[0], tokens - 1, width - 2 - i[2], i[1]));
    vec![y, state]
}

fn run(s: &Sizes, i: &[Tensor]) -> Vec<Tensor> {
    let on = |name: &str, t| (s[name] == 1).then_some(t);
    let (y, state) = causal_conv1d(&i[0], &i[1], on("bias", &i[2]), on("initial", &i[3]), on("segment", &i[4]));
    vec![y, state]
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![
            Dim::range("batches", 1, 2),
            Dim::range("tokens", 1, 140),
            Dim::range("channels", 1, 110),
            Dim::one_of("width", &[4, 2, 3]),
            Dim::one_of("bias", &[0, 1]),
            Dim::one_of("initial", &[0, 1]),
            Dim::one_of("segment", &[0, 1]),
        ],
        inputs: |s, draw| {
            let [batches, tokens, channels, width, bias, initial, _] = s.get();
            let mut id = 0.0;
            let segment = Array::from_fn(&[batches, tokens], |_| {
                id += f64::from(u8::from(draw.below(5) == 0));
                id
            });
            vec![
                Input::new("x", draw.normal(&[batches, tokens, channels])).grad(),
                Input::new("weight", draw.normal(&[channels, width])).grad(),
                Input { differentiable: bias == 1, ..Input::new("bias", draw.normal(&[channels])) },
                Input {
                    differentiable: initial == 1,
                    ..Input::new("initial", draw.normal(&[batches, channels, width - 1]))
                },
                Input::new("segment", segment).of(DType::U32),
            ]
        },
        run,
        reference: |s, i| {
            let on = ["bias", "initial", "segment"].map(|n| s[n] == 1);
            reference(&i[0], &i[1], &i[2], &i[3], &i[4], on)
        },
        error: |_| 24.0,
        error_grad: Some(|s| 100.0 + 4.0 * (s["batches"] * s["tokens"]) as f64),
        cost: |s| Cost { bytes: 8 * s["batches"] * s["tokens"] * s["channels"], flops: 0 },
        bench: &[&[32, 4096, 640, 4, 1, 0, 1]],
        ..Case::new("causal_conv1d")
    };
    let mut dims = plain.dims.clone();
    dims[1] = Dim::range("tokens", 1, 300);
    dims[2] = Dim::one_of("channels", &[4, 96, 108, 1028]);
    dims[3] = Dim::one_of("width", &[4]);
    let quads = Case { stem: "causal_conv1d.quads", dims, large: true, bench: &[], ..plain.clone() };
    // Columns of a wider tensor, results in two parts; of other widths and borders as copies.
    let parts = Case {
        stem: "causal_conv1d.parts",
        dims: vec![
            Dim::range("batches", 1, 2),
            // Most of them more than a block of the walk back.
            Dim::one_of("tokens", &[150, 3, 74, 97, 2, 73, 216]),
            Dim::one_of("before", &[8, 0, 5]),
            Dim::one_of("a", &[1024, 4, 7]),
            Dim::one_of("b", &[20, 4, 1]),
            Dim::one_of("c", &[0, 8]),
            Dim::one_of("after", &[4, 0, 132]),
            Dim::one_of("initial", &[0, 1]),
            Dim::one_of("segment", &[1, 0]),
        ],
        inputs: |s, draw| {
            let [batches, tokens, before, a, b, c, after, initial, _] = s.get();
            let channels = a + b + c;
            vec![
                Input::new("x", draw.normal(&[batches, tokens, before + channels + after])).grad(),
                Input::new("weight", draw.normal(&[channels, 4])).grad(),
                Input::new("bias", draw.normal(&[channels])).grad(),
                Input { differentiable: initial == 1, ..Input::new("initial", draw.normal(&[batches, channels, 3])) },
                Input::new("segment", Array::from_fn(&[batches, tokens], |i| (i[1] / 7) as f64)).of(DType::U32),
            ]
        },
        run: |s, i| {
            let [_, _, before, a, b, c, after, initial, segment] = s.get();
            let x = crate::ops::columns(&i[0], &[before, a + b + c, after]).swap_remove(1);
            let (initial, segment) = ((initial == 1).then_some(&i[3]), (segment == 1).then_some(&i[4]));
            let parts: &[usize] = if c > 0 { &[a, b, c] } else { &[a, b] };
            let (mut y, state) = causal_conv1d_parts(x, &i[1], Some(&i[2]), initial, segment, parts);
            y.push(state);
            y
        },
        reference: |s, i| {
            let [batches, tokens, before, a, b, c, _, initial, segment] = s.get();
            let x = Array::from_fn(&[batches, tokens, a + b + c], |at| i[0].at(&[at[0], at[1], before + at[2]]));
            let mut all = reference(&x, &i[1], &i[2], &i[3], &i[4], [true, initial == 1, segment == 1]);
            let y = all.remove(0);
            let part = |first: usize, width| {
                Array::from_fn(&[batches, tokens, width], |at| y.at(&[at[0], at[1], first + at[2]]))
            };
            let mut parts = vec![part(0, a), part(a, b)];
            parts.extend((c > 0).then(|| part(a + b, c)));
            parts.push(all.remove(0));
            parts
        },
        error_grad: Some(|s| 100.0 + 4.0 * (s["batches"] * s["tokens"]) as f64),
        cost: |s| Cost { bytes: 8 * s["batches"] * s["tokens"] * (s["a"] + s["b"] + s["c"]), flops: 0 },
        large: true,
        bench: &[],
        ..plain.clone()
    };
    vec![
        Case {
            // A block of RAMba-370M.
            bench: &[&[8, 4096, 2048, 2048, 128, 128, 32, 0, 0]],
            ..parts.in_half("causal_conv1d.parts.f16", &["x"], 2.0)
        },
        parts,
        plain.in_half("causal_conv1d.f16", &["x"], 2.0),
        quads.in_half("causal_conv1d.quads.f16", &["x"], 2.0),
        quads,
        plain,
    ]
}
