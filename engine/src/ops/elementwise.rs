//! Element-wise ops; the second operand may repeat over the first's leading axes.

use crate::{
    DType, Tensor, launch,
    ops::{PartialSums, copy},
    reference::Array,
    tensor::{by_four, rows_a_page},
    testing::{Case, Cost, Dim, Input, Part, Share, some},
};

/// What the kernel computes; the numbers are its `OP`.
#[derive(Clone, Copy)]
enum Op {
    Add = 0,
    Mul = 1,
    Scale = 2,
    Silu = 3,
    Sigmoid = 4,
    Softplus = 5,
    Swiglu = 6,
    SiluGrad = 7,
    SigmoidGrad = 8,
    SoftplusGrad = 9,
}

/// op(a, b) in a's type, `b`'s shape being a suffix of `a`'s. Outside of the graph.
#[track_caller]
fn apply(op: Op, a: &Tensor, b: &Tensor, factor: f32) -> Tensor {
    assert!(a.shape().ends_with(b.shape()), "element-wise: b {:?} is no suffix of a {:?}", b.shape(), a.shape());
    let (y, period) = (a.like(), b.len());
    let whole = period == a.len();
    // A repeated operand stays whole while rows of the other are cut.
    let unit = if whole { 1 } else { period };
    if a.is_empty() {
        return y;
    }
    let step = rows_a_page(a.gpu(), &[unit * a.dtype().bytes(), unit * b.dtype().bytes()]);
    let four = by_four(&[a.len(), period]);
    let (elem, elem_b, real) = (a.dtype().wgsl_by(four), b.dtype().wgsl_by(four), DType::F32.wgsl_by(four));
    for first in (0..a.len() / unit).step_by(step) {
        let count = step.min(a.len() / unit - first) * unit;
        let part = |x: &Tensor| x.operand().elements(x.dtype(), first * unit, count);
        let b_ = if whole { part(b) } else { b.operand() };
        let (a_, y_, count, period) = (part(a), part(&y), count / four, period / four);
        launch!(elementwise [elem = elem, elem_b = elem_b, real = real, OP = op as u32, REPEAT = u32::from(!whole)]
                { count, period, factor }, [a_, b_] -> [y_], count.div_ceil(1024));
    }
    y
}

/// The gradient, in `dtype`, of a repeated operand: `g` summed over the axes that `shape` lacks.
fn repeated(g: &Tensor, shape: &[usize], dtype: DType) -> Tensor {
    if g.shape() == shape {
        return if g.dtype() == dtype { g.clone() } else { copy(g, dtype) };
    }
    let columns: usize = shape.iter().product();
    let rows = g.len() / columns.max(1);
    let sums = PartialSums::of(&g.reshape([rows, columns])).in_order();
    copy(&sums, dtype).reshape(shape)
}

/// a + b in a's type, whatever float b is: a residual stream in f32 takes what was computed in f16. `b`'s shape is a suffix
/// of `a`'s.
///
/// # Panics
/// Where it is not.
#[track_caller]
pub fn add(a: &Tensor, b: &Tensor) -> Tensor {
    let (shape, dtype) = (b.shape().to_vec(), b.dtype());
    apply(Op::Add, a, b, 0.0).with_grad(&[a, b], move |dy| [dy.clone(), repeated(dy, &shape, dtype)])
}

/// a · b in a's type; `b`'s shape is a suffix of `a`'s.
///
/// # Panics
/// Where it is not.
#[track_caller]
pub fn mul(a: &Tensor, b: &Tensor) -> Tensor {
    let (a_, b_) = (a.detach(), b.detach());
    apply(Op::Mul, a, b, 0.0).with_grad(&[a, b], move |dy| {
        [apply(Op::Mul, dy, &b_, 0.0), repeated(&apply(Op::Mul, dy, &a_, 0.0), b_.shape(), b_.dtype())]
    })
}

/// x · factor.
pub fn scale(x: &Tensor, factor: f32) -> Tensor {
    apply(Op::Scale, x, x, factor).with_grad(&[x], move |dy| [apply(Op::Scale, dy, dy, factor)])
}

/// x · σ(x) (Hendrycks & Gimpel 2016, arXiv 1606.08415).
pub fn silu(x: &Tensor) -> Tensor {
    let x_ = x.detach();
    apply(Op::Silu, x, x, 0.0).with_grad(&[x], move |dy| [apply(Op::SiluGrad, dy, &x_, 0.0)])
}

/// σ(x) = 1 / (1 + exp(−x)).
pub fn sigmoid(x: &Tensor) -> Tensor {
    let y = apply(Op::Sigmoid, x, x, 0.0);
    let y_ = y.clone();
    y.with_grad(&[x], move |dy| [apply(Op::SigmoidGrad, dy, &y_, 0.0)])
}

/// ln(1 + exp(x)).
pub fn softplus(x: &Tensor) -> Tensor {
    let x_ = x.detach();
    apply(Op::Softplus, x, x, 0.0).with_grad(&[x], move |dy| [apply(Op::SoftplusGrad, dy, &x_, 0.0)])
}

/// silu(gate) · up (Shazeer 2020, arXiv 2002.05202), in one kernel.
///
/// # Panics
/// Where the shapes or types differ.
#[track_caller]
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Tensor {
    assert_eq!(gate.shape(), up.shape(), "swiglu: gate and up");
    assert_eq!(gate.dtype(), up.dtype(), "swiglu: types of gate and up");
    let (gate_, up_) = (gate.detach(), up.detach());
    apply(Op::Swiglu, gate, up, 0.0).with_grad(&[gate, up], move |dy| {
        let (dgate, dup, dtype) = (gate_.like(), up_.like(), dy.dtype());
        let four = by_four(&[dy.len()]);
        let step = rows_a_page(dy.gpu(), &[dtype.bytes()]);
        for first in (0..dy.len()).step_by(step) {
            let n = step.min(dy.len() - first);
            let [dy, gate, up, dgate, dup] =
                [dy, &gate_, &up_, &dgate, &dup].map(|t| t.operand().elements(dtype, first, n));
            let count = n / four;
            launch!(swiglu_backward [elem = dtype.wgsl_by(four), real = DType::F32.wgsl_by(four)] { count },
                    [dy, gate, up] -> [dgate, dup], count.div_ceil(512));
        }
        [dgate, dup]
    })
}

fn sigmoid_of(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn unary(stem: &'static str, run: fn(&crate::testing::Sizes, &[Tensor]) -> Vec<Tensor>,
         reference: fn(&crate::testing::Sizes, &[Array]) -> Vec<Array>) -> Case {
    Case {
        dims: vec![Dim::range("count", 1, 20000)],
        inputs: |s, draw| vec![Input::new("x", draw.normal(&[s["count"]])).grad()],
        run,
        reference,
        error: |_| 16.0,
        cost: |s| Cost { bytes: 8 * s["count"], flops: s["count"] },
        part: Some(|s, draw| {
            let some = some(draw, s["count"], 1 << 12);
            let (sizes, cut) = (vec![some.len()], vec![some]);
            Part { sizes, inputs: vec![cut.clone()], outputs: vec![Share::Cut(cut)] }
        }),
        bench: &[&[1 << 24], &[1 << 26]],
        ..Case::new(stem)
    }
}

fn binary(stem: &'static str, run: fn(&crate::testing::Sizes, &[Tensor]) -> Vec<Tensor>,
          reference: fn(&crate::testing::Sizes, &[Array]) -> Vec<Array>) -> Case {
    Case {
        dims: vec![Dim::range("rows", 1, 150), Dim::range("columns", 1, 150), Dim::one_of("repeat", &[0, 1])],
        inputs: |s, draw| {
            let [rows, columns, repeat] = s.get();
            let b = if repeat == 1 { vec![columns] } else { vec![rows, columns] };
            vec![Input::new("a", draw.normal(&[rows, columns])).grad(), Input::new("b", draw.normal(&b)).grad()]
        },
        run,
        reference,
        error: |_| 16.0,
        error_grad: Some(|s| 72.0 + 4.0 * s["rows"] as f64),
        cost: |s| Cost { bytes: 12 * s["rows"] * s["columns"], flops: s["rows"] * s["columns"] },
        // Both gradients are copies or products: one for each operand is written, the result's is read.
        cost_backward: Some(|s| Cost { bytes: 12 * s["rows"] * s["columns"], flops: s["rows"] * s["columns"] }),
        part: Some(|s, draw| {
            let [rows, columns, repeat] = s.get();
            let some = some(draw, rows, 4);
            let cut = vec![some.clone(), 0..columns];
            let b = if repeat == 1 { vec![0..columns] } else { cut.clone() };
            let sizes = vec![some.len(), columns, repeat];
            Part { sizes, inputs: vec![cut.clone(), b], outputs: vec![Share::Cut(cut)] }
        }),
        bench: &[&[4096, 4096, 0], &[8192, 8192, 0], &[131072, 256, 1]],
        ..Case::new(stem)
    }
}

/// `f` of a and b, b repeating.
fn pairs(a: &Array, b: &Array, f: impl Fn(f64, f64) -> f64) -> Vec<Array> {
    let data = a.data.iter().enumerate().map(|(i, v)| f(*v, b.data[i % b.len()])).collect();
    vec![Array::new(&a.shape, data)]
}

pub(super) fn cases() -> Vec<Case> {
    let add = binary("add", |_, i| vec![add(&i[0], &i[1])], |_, i| pairs(&i[0], &i[1], |a, b| a + b));
    let mul = binary("mul", |_, i| vec![mul(&i[0], &i[1])], |_, i| pairs(&i[0], &i[1], |a, b| a * b));
    let silu = unary("silu", |_, i| vec![silu(&i[0])], |_, i| vec![i[0].map(|v| v * sigmoid_of(*v))]);
    let swiglu = Case {
        dims: vec![Dim::range("rows", 1, 150), Dim::range("columns", 1, 150)],
        inputs: |s, draw| {
            let [rows, columns] = s.get();
            let mut one = |name| Input::new(name, draw.normal(&[rows, columns])).grad();
            vec![one("gate"), one("up")]
        },
        run: |_, i| vec![swiglu(&i[0], &i[1])],
        reference: |_, i| pairs(&i[0], &i[1], |a, b| a * sigmoid_of(a) * b),
        error: |_| 16.0,
        cost: |s| Cost { bytes: 12 * s["rows"] * s["columns"], flops: 4 * s["rows"] * s["columns"] },
        cost_backward: Some(|s| Cost { bytes: 20 * s["rows"] * s["columns"], flops: 9 * s["rows"] * s["columns"] }),
        part: Some(|s, draw| {
            let [rows, columns] = s.get();
            let some = some(draw, rows, 4);
            let cut = vec![some.clone(), 0..columns];
            let sizes = vec![some.len(), columns];
            Part { sizes, inputs: vec![cut.clone(), cut.clone()], outputs: vec![Share::Cut(cut)] }
        }),
        bench: &[&[131072, 640]],
        ..Case::new("swiglu")
    };
    vec![
        add.in_half("add.residual", &["b"], 1.0),
        add.in_half("add.f16", &["a", "b"], 1.0),
        mul.in_half("mul.f16", &["a", "b"], 2.0),
        silu.in_half("silu.f16", &["x"], 1.0),
        swiglu.in_half("swiglu.f16", &["gate", "up"], 2.0),
        add,
        mul,
        silu,
        swiglu,
        // A value with three uses: their gradients meet.
        Case {
            dims: vec![Dim::one_of("count", &[9001, 1, 5, 1023, 4097, 12292])],
            bench: &[],
            ..unary("add.shared", |_, i| vec![self::add(&self::mul(&i[0], &i[0]), &i[0])], |_, i| {
                vec![i[0].map(|v| v * v + v)]
            })
        },
        unary("scale", |_, i| vec![scale(&i[0], 0.75)], |_, i| vec![i[0].map(|v| v * 0.75)]),
        unary("sigmoid", |_, i| vec![sigmoid(&i[0])], |_, i| vec![i[0].map(|v| sigmoid_of(*v))]),
        unary("softplus", |_, i| vec![softplus(&i[0])], |_, i| {
            vec![i[0].map(|v| v.max(0.0) + (-v.abs()).exp().ln_1p())]
        }),
    ]
}
