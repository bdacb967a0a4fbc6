//! Linear layers of single tokens, as decoding has them, with the norm before and the sum behind in one launch:
//! weights are read once, at the rate of memory, and nothing else takes time but the launch.

use crate::{
    DType, Tensor, launch, ops,
    reference::Array,
    tensor::rows_a_page,
    testing::{Case, Cost, Dim, Input, Part, Share, some},
};

/// Invocations that share a line of weights, and lines a workgroup has under way; `LANES` and `TEAMS` in the kernel.
const LANES: usize = 32;
const TEAMS: usize = 8;
/// Rows a launch: a dispatch has at most 65535 along one dimension.
const MOST_ROWS: usize = 32768;

/// What surrounds the product of a [`linear_step`].
#[derive(Clone, Copy, Default)]
pub struct Around<'a> {
    /// RMSNorm of x before it: weight (in) in f32, and eps.
    pub norm: Option<(&'a Tensor, f32)>,
    /// (out) in f32, added to it.
    pub bias: Option<&'a Tensor>,
    /// Of y's shape in f32, added to it: the stream that the layer belongs to.
    pub residual: Option<&'a Tensor>,
}

/// `y = rms_norm(x) · weightᵀ + bias + residual` for the rows of single tokens, outside of the graph: what
/// [`rms_norm`](ops::rms_norm), [`linear_to`](ops::linear_to) and [`add`](ops::add) give but for rounding, as nothing on
/// the way is rounded to 16 bits.
///
/// `x`: (…, in), `weight`: (out, in), both f32 or f16, each by itself; y is (…, out) in `dtype`, summed in f32. It is an
/// op of its own, and not what `linear` does for few rows, since a row's result must not depend on how many there are:
/// use it where a token comes alone, however many sequences get one. Every row reads all weights.
///
/// # Panics
/// Where the shapes disagree.
#[track_caller]
pub fn linear_step(x: &Tensor, weight: &Tensor, around: Around<'_>, dtype: DType) -> Tensor {
    let (rows, k) = x.rows_by_last();
    let [n, width] = weight.axes();
    assert_eq!(width, k, "linear_step: weight {:?} for x {:?}", weight.shape(), x.shape());
    let mut shape = x.shape().to_vec();
    *shape.last_mut().expect("x has a last axis") = n;
    let Around { norm, bias, residual } = around;
    for (name, t, expected) in
        [("norm", norm.map(|n| n.0), &[k][..]), ("bias", bias, &[n]), ("residual", residual, &shape)]
    {
        if let Some(t) = t {
            assert_eq!(t.shape(), expected, "linear_step: {name} of x {:?}, weight {:?}", x.shape(), weight.shape());
            assert_eq!(t.dtype(), DType::F32, "linear_step: {name}");
        }
    }
    let half = weight.dtype() == DType::F16;
    let unit = if half { 8 } else { 4 };
    if !k.is_multiple_of(unit) || k == 0 {
        return apart(x, weight, around, dtype);
    }
    let y = x.empty_on(shape, dtype);
    // Lanes take whole lines where these are short enough, and ask for all of them at once.
    let (units, columns) = match k.div_ceil(unit * LANES) {
        0..=4 => (4, 2),
        5..=8 => (8, 1),
        _ if half => (8, 1),
        _ => (16, 1),
    };
    let (has_norm, eps) = (norm.is_some(), norm.map_or(0.0, |n| n.1));
    let (has_bias, has_residual) = (bias.is_some(), residual.is_some());
    // What is absent is bound as something that is there, and not read.
    let (norm, bias) = (norm.map_or(x, |n| n.0), bias.unwrap_or(x));
    let bytes = [k * x.dtype().bytes(), n * dtype.bytes(), 4 * n];
    let step = rows_a_page(x.gpu(), &bytes[..if has_residual { 3 } else { 2 }]).min(MOST_ROWS);
    for first in (0..rows).step_by(step) {
        let m = step.min(rows - first);
        let (x_, y_) = (x.page(first, m, bytes[0]), y.page(first, m, bytes[1]));
        let residual_ = residual.map_or_else(|| x_.clone(), |r| r.page(first, m, bytes[2]));
        launch!(linear_step [elem = x.dtype().wgsl(), elem_out = dtype.wgsl(), HALF = u32::from(half), UNITS = units,
                             COLUMNS = columns, K = k, N = n, HAS_NORM = u32::from(has_norm),
                             HAS_BIAS = u32::from(has_bias), HAS_RESIDUAL = u32::from(has_residual)] { eps },
                [x_, norm, weight, bias, residual_] -> [y_], (n.div_ceil(TEAMS * columns), m, 1));
    }
    y
}

/// The same by other ops, for lines that are not of whole loads.
fn apart(x: &Tensor, weight: &Tensor, around: Around<'_>, dtype: DType) -> Tensor {
    crate::no_grad(|| {
        let x = around.norm.map_or_else(|| x.clone(), |(w, eps)| ops::rms_norm_to(x, w, eps, DType::F32));
        let y = ops::linear_to(&x, weight, around.bias, DType::F32);
        let y = around.residual.map_or_else(|| y.clone(), |r| ops::add(r, &y));
        if dtype == DType::F32 { y } else { ops::copy(&y, dtype) }
    })
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![
            Dim::range("rows", 1, 4),
            // Lines of whole loads, of one round and of several; and others. Every shape is compiled by itself.
            Dim::one_of("in", &[136, 1032, 4104, 30]),
            Dim::one_of("out", &[17, 40]),
            Dim::one_of("norm", &[0, 1]),
            Dim::one_of("added", &[0, 1]),
        ],
        inputs: |s, draw| {
            let [rows, k, n, ..]: [usize; 5] = s.get();
            vec![
                Input::new("x", draw.normal(&[rows, k])),
                Input::new("weight", draw.normal(&[n, k])),
                Input::new("norm", draw.normal(&[k])),
                Input::new("bias", draw.normal(&[n])),
                Input::new("residual", draw.normal(&[rows, n])),
            ]
        },
        run: |s, i| vec![linear_step(&i[0], &i[1], around(s, i), DType::F32)],
        reference: |s, i| {
            let k = s["in"];
            vec![Array::from_fn(&[s["rows"], s["out"]], |at| {
                let x = |t: usize| i[0].at(&[at[0], t]);
                let rstd = 1.0 / ((0..k).map(|t| x(t) * x(t)).sum::<f64>() / k as f64 + EPS).sqrt();
                let scale = |t: usize| if s["norm"] == 1 { rstd * i[2].data[t] } else { 1.0 };
                let dot: f64 = (0..k).map(|t| x(t) * scale(t) * i[1].at(&[at[1], t])).sum();
                dot + if s["added"] == 1 { i[3].data[at[1]] + i[4].at(at) } else { 0.0 }
            })]
        },
        error: |s| 8.0 + (s["in"] as f64).sqrt(),
        cost: |s| {
            let [m, k, n, ..]: [usize; 5] = s.get();
            Cost { bytes: 4 * (m * k + k * n + m * n), flops: 2 * m * n * k }
        },
        part: Some(|s, draw| {
            let [rows, k, n, norm, added] = s.get();
            let (rows, out) = (some(draw, rows, 1), some(draw, n, 64));
            let cut = vec![rows.clone(), out.clone()];
            Part {
                sizes: vec![rows.len(), k, out.len(), norm, added],
                inputs: vec![
                    vec![rows.clone(), 0..k],
                    vec![out.clone(), 0..k],
                    vec![0..k],
                    vec![out.clone()],
                    cut.clone(),
                ],
                outputs: vec![Share::Cut(cut)],
            }
        }),
        large: true,
        ..Case::new("linear_step")
    };
    let half = Case {
        // The projections of a model of 370 M parameters, and its vocabulary.
        bench: &[&[1, 1024, 4384, 1, 0], &[1, 2048, 1024, 1, 1], &[1, 1024, 50280, 1, 0]],
        ..plain.in_half("linear_step.f16", &["weight"], 1.0)
    };
    vec![
        Case {
            run: |s, i| vec![linear_step(&i[0], &i[1], around(s, i), DType::F16)],
            ..plain.in_half("linear_step.f16_to_f16", &["x", "weight"], 1.0)
        },
        plain.in_half("linear_step.f16_x", &["x"], 1.0),
        half,
        plain,
    ]
}

const EPS: f64 = 1e-5;

/// What the case's sizes ask for.
fn around<'a>(s: &crate::testing::Sizes, i: &'a [Tensor]) -> Around<'a> {
    let on = |name: &str, t: &'a Tensor| (s[name] == 1).then_some(t);
    Around {
        norm: on("norm", &i[2]).map(|w| (w, EPS as f32)),
        bias: on("added", &i[3]),
        residual: on("added", &i[4]),
    }
}
