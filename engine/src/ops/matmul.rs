//! Matrix products, batched, with operands read in place whichever way they lie.

use crate::{
    DType, Tensor, launch,
    ops::PartialSums,
    reference::Array,
    tensor::rows_a_page,
    testing::{Case, Cost, Dim, Input},
};

/// Rows and columns of a workgroup's tile; `TILE` in the kernel.
const TILE: usize = 64;
/// Rows whose products one partial sum of a weight's gradient adds up, whatever the number of rows.
const PIECE: usize = 2048;
/// Rows a launch: a dispatch has at most 65535 tiles along one dimension.
const MOST_ROWS: usize = 32768 * TILE;

/// One product: strides in elements.
#[derive(Clone, Copy)]
struct Product {
    m: usize,
    n: usize,
    k: usize,
    a: [usize; 2],
    b: [usize; 2],
}

/// `y = x · weightᵀ + bias`, the layer of every projection.
///
/// `x`: (…, in), `weight`: (out, in), `bias`: (out); y is (…, out) in `x`'s type, summed in f32.
///
/// # Panics
/// Where the shapes disagree.
#[track_caller]
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    linear_to(x, weight, bias, x.dtype())
}

/// [`linear`] with another type of y: logits in f32 from what was computed in f16.
#[track_caller]
pub fn linear_to(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, dtype: DType) -> Tensor {
    let (rows, k) = x.rows_by_last();
    let [n, width] = weight.axes();
    assert_eq!(width, k, "linear: weight {:?} for x {:?}", weight.shape(), x.shape());
    if let Some(bias) = bias {
        assert_eq!(bias.shape(), [n], "linear: bias for weight {:?}", weight.shape());
    }
    let mut shape = x.shape().to_vec();
    *shape.last_mut().expect("x has a last axis") = n;
    let y = x.empty_on(shape, dtype);
    by_rows(Product { m: rows, n, k, a: [k, 1], b: [1, k] }, x, weight, bias, &y);
    let (x_, weight_) = (x.detach(), weight.detach());
    let (need_x, need_weight) = (x.needs_grad(), weight.needs_grad());
    let need_bias = bias.is_some_and(Tensor::needs_grad);
    let mut inputs = vec![x, weight];
    inputs.extend(bias);
    let biased = bias.is_some();
    y.with_grad(&inputs, move |dy| {
        let dx = need_x.then(|| {
            let dx = x_.like();
            by_rows(Product { m: rows, n: k, k: n, a: [n, 1], b: [k, 1] }, dy, &weight_, None, &dx);
            dx
        });
        let dweight = need_weight.then(|| over_rows(dy, &x_, rows, n, k).reshape([n, k]));
        let mut grads = vec![dx, dweight];
        if biased {
            grads.push(need_bias.then(|| sum_over_rows(dy, rows, n)));
        }
        grads
    })
}

/// c (m, n) = a · b, cut along m where a binding is too small. Results do not depend on the cut.
fn by_rows(p: Product, a: &Tensor, b: &Tensor, bias: Option<&Tensor>, c: &Tensor) {
    let bytes = (p.k * a.dtype().bytes(), p.n * c.dtype().bytes());
    let step = rows_a_page(a.gpu(), &[bytes.0, bytes.1]).min(MOST_ROWS);
    let bias_ = bias.unwrap_or(b);
    for first in (0..p.m).step_by(step) {
        let m = step.min(p.m - first);
        let (a_, c_) = (a.page(first, m, bytes.0), c.page(first, m, bytes.1));
        launch!(matmul [elem = a.dtype().wgsl(), elem_b = b.dtype().wgsl(), elem_out = c.dtype().wgsl(),
                        A_BY_K = u32::from(p.a[1] == 1), B_BY_K = u32::from(p.b[0] == 1)] {
            m, n: p.n, k: p.k, piece: p.k, a_m: p.a[0], a_k: p.a[1], a_z: 0u32, b_k: p.b[0], b_n: p.b[1], b_z: 0u32,
            a_0: 0u32, b_0: 0u32, c_0: 0u32, c_z: 0u32, has_bias: bias.is_some(), accumulate: false,
        }, [a_, b, bias_] -> [c_], (p.n.div_ceil(TILE), m.div_ceil(TILE), 1));
    }
}

/// aᵀ · b over rows: a (rows, m), b (rows, n) → (m · n), in f32, pieces of rows added in order. A result so large that
/// the pieces' sums would not fit a binding has tiles enough to fill the device: then one sum goes over all rows.
fn over_rows(a: &Tensor, b: &Tensor, rows: usize, m: usize, n: usize) -> Tensor {
    let bytes = (m * a.dtype().bytes(), n * b.dtype().bytes());
    let blocks = rows.div_ceil(PIECE);
    let together = PartialSums::fits(a.gpu(), blocks, m * n);
    let sums = PartialSums::new(a, if together { blocks } else { blocks.min(1) }, m * n);
    let page = rows_a_page(a.gpu(), &[bytes.0, bytes.1]);
    let mut first = 0;
    while first < rows {
        // Whole pieces together where bindings hold them; else a piece goes on where the last launch left it.
        let into = if together { first % PIECE } else { first };
        let most = if !together {
            page
        } else if page >= PIECE && into == 0 {
            page / PIECE * PIECE
        } else {
            page.min(PIECE - into)
        };
        let k = most.min(rows - first);
        let (piece, at) = if together { (PIECE.min(k), first / PIECE) } else { (k, 0) };
        let pieces = k.div_ceil(piece);
        let (a_, b_) = (a.page(first, k, bytes.0), b.page(first, k, bytes.1));
        let c = sums.all();
        launch!(matmul [elem = a.dtype().wgsl(), elem_b = b.dtype().wgsl(), A_BY_K = 0, B_BY_K = 0] {
            m, n, k, piece, a_m: 1u32, a_k: m, a_z: 0u32, b_k: n, b_n: 1u32, b_z: 0u32,
            a_0: 0u32, b_0: 0u32, c_0: at * m * n, c_z: m * n, has_bias: false, accumulate: into != 0,
        }, [a_, b_, b_] -> [c], (n.div_ceil(TILE), m.div_ceil(TILE), pieces));
        first += k;
    }
    sums.in_order()
}

/// Σ over rows of x (rows, columns), in order.
fn sum_over_rows(x: &Tensor, rows: usize, columns: usize) -> Tensor {
    PartialSums::of(&crate::ops::copy(&x.reshape([rows, columns]), DType::F32)).in_order()
}

/// `c = a · b`, batched over leading axes: a (…, m, k), or (…, k, m) with `transpose_a`; b (…, k, n), or (…, n, k) with
/// `transpose_b`. Both have the same leading axes.
///
/// # Panics
/// Where the shapes disagree.
#[track_caller]
pub fn matmul(a: &Tensor, b: &Tensor, transpose_a: bool, transpose_b: bool) -> Tensor {
    let (sa, sb) = (a.shape(), b.shape());
    let lead = sa.len() - 2;
    assert!(sa.len() == sb.len() && sa[..lead] == sb[..lead], "matmul: a {sa:?}, b {sb:?}: leading axes differ");
    let batches: usize = sa[..lead].iter().product();
    let (m, k) = if transpose_a { (sa[lead + 1], sa[lead]) } else { (sa[lead], sa[lead + 1]) };
    let (n, kb) = if transpose_b { (sb[lead], sb[lead + 1]) } else { (sb[lead + 1], sb[lead]) };
    assert_eq!(k, kb, "matmul: a {sa:?}{}, b {sb:?}{}", if transpose_a { "ᵀ" } else { "" }, if transpose_b { "ᵀ" } else { "" });
    let mut shape = sa.to_vec();
    (shape[lead], shape[lead + 1]) = (m, n);
    let c = a.empty_on(shape, a.dtype());
    let (a_strides, b_strides) =
        (if transpose_a { [1, m] } else { [k, 1] }, if transpose_b { [1, k] } else { [n, 1] });
    // Batches are cut where a binding is too small; a part starts at an element that every adapter can bind.
    const ALIGNMENT: usize = 128;
    let sizes = [(a, m * k), (b, k * n), (&c, m * n)];
    let most = |(t, size): (&Tensor, usize)| {
        (t.gpu().capabilities().max_binding as usize / t.dtype().bytes()).saturating_sub(ALIGNMENT) / size.max(1)
    };
    let step = sizes.into_iter().map(most).min().expect("three operands").clamp(1, 32768);
    for first in (0..batches).step_by(step) {
        let z = step.min(batches - first);
        let [(a_, a_0), (b_, b_0), (c_, c_0)] = sizes.map(|(t, size)| {
            let skip = first * size % ALIGNMENT;
            (t.operand().elements(t.dtype(), first * size - skip, skip + z * size), skip)
        });
        launch!(matmul [elem = a.dtype().wgsl(), elem_b = b.dtype().wgsl(), elem_out = c.dtype().wgsl(),
                        A_BY_K = u32::from(!transpose_a), B_BY_K = u32::from(transpose_b)] {
            m, n, k, piece: k, a_m: a_strides[0], a_k: a_strides[1], a_z: m * k, b_k: b_strides[0], b_n: b_strides[1],
            b_z: k * n, a_0, b_0, c_0, c_z: m * n, has_bias: false, accumulate: false,
        }, [a_, b_, b_] -> [c_], (n.div_ceil(TILE), m.div_ceil(TILE), z));
    }
    let (a_, b_) = (a.detach(), b.detach());
    c.with_grad(&[a, b], move |dc| {
        let da = if transpose_a { matmul(&b_, dc, transpose_b, true) } else { matmul(dc, &b_, false, !transpose_b) };
        let db = if transpose_b { matmul(dc, &a_, true, transpose_a) } else { matmul(&a_, dc, !transpose_a, false) };
        [da, db]
    })
}

fn transposed(x: &Array) -> Array {
    let n = x.shape.len();
    let mut shape = x.shape.clone();
    shape.swap(n - 1, n - 2);
    Array::from_fn(&shape, |i| {
        let mut i = i.to_vec();
        i.swap(n - 1, n - 2);
        x.at(&i)
    })
}

fn reference(a: &Array, b: &Array) -> Array {
    let ([z, m, k], [.., n]): ([usize; 3], [usize; 3]) = (a.axes(), b.axes());
    Array::from_fn(&[z, m, n], |i| (0..k).map(|t| a.at(&[i[0], i[1], t]) * b.at(&[i[0], t, i[2]])).sum())
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = vec![
        Case {
            dims: vec![
                Dim::range("z", 1, 3),
                Dim::range("m", 1, 130),
                Dim::range("n", 1, 130),
                Dim::range("k", 1, 120),
                Dim::one_of("transpose_a", &[0, 1]),
                Dim::one_of("transpose_b", &[0, 1]),
            ],
            inputs: |s, draw| {
                let [z, m, n, k, ta, tb] = s.get();
                let a = if ta == 1 { [z, k, m] } else { [z, m, k] };
                let b = if tb == 1 { [z, n, k] } else { [z, k, n] };
                vec![Input::new("a", draw.normal(&a)).grad(), Input::new("b", draw.normal(&b)).grad()]
            },
            run: |s, i| vec![matmul(&i[0], &i[1], s["transpose_a"] == 1, s["transpose_b"] == 1)],
            reference: |s, i| {
                let a = if s["transpose_a"] == 1 { transposed(&i[0]) } else { i[0].clone() };
                let b = if s["transpose_b"] == 1 { transposed(&i[1]) } else { i[1].clone() };
                vec![reference(&a, &b)]
            },
            error: |s| 4.0 + (s["k"] as f64).sqrt(),
            error_grad: Some(|s| 16.0 + 4.0 * (s["m"].max(s["n"]).max(s["k"]) as f64).sqrt()),
            cost: |s| {
                let [z, m, n, k, ..]: [usize; 6] = s.get();
                Cost { bytes: 4 * z * (m * k + k * n + m * n), flops: 2 * z * m * n * k }
            },
            bench: &[&[1, 4096, 4096, 4096, 0, 0]],
            ..Case::new("matmul")
        },
        Case {
            dims: vec![
                Dim::range("rows", 1, 300),
                Dim::range("in", 1, 100),
                Dim::range("out", 1, 100),
                Dim::one_of("bias", &[0, 1]),
            ],
            inputs: |s, draw| {
                let [rows, k, n, _] = s.get();
                vec![
                    Input::new("x", draw.normal(&[rows, k])).grad(),
                    Input::new("weight", draw.normal(&[n, k])).grad(),
                    Input { differentiable: s["bias"] == 1, ..Input::new("bias", draw.normal(&[n])) },
                ]
            },
            run: |s, i| vec![linear(&i[0], &i[1], (s["bias"] == 1).then_some(&i[2]))],
            reference: |s, i| {
                let [rows, k]: [usize; 2] = i[0].axes();
                let bias = f64::from(u8::from(s["bias"] == 1));
                vec![Array::from_fn(&[rows, s["out"]], |at| {
                    let dot: f64 = (0..k).map(|t| i[0].at(&[at[0], t]) * i[1].at(&[at[1], t])).sum();
                    dot + bias * i[2].data[at[1]]
                })]
            },
            error: |s| 4.0 + (s["in"] as f64).sqrt(),
            error_grad: Some(|s| 16.0 + 4.0 * (s["rows"].max(s["out"]) as f64).sqrt()),
            cost: |s| {
                let [m, k, n, _]: [usize; 4] = s.get();
                Cost { bytes: 4 * (m * k + k * n + m * n), flops: 2 * m * n * k }
            },
            bench: &[&[131072, 256, 1160, 0], &[131072, 512, 256, 0]],
            ..Case::new("linear")
        },
        // Rows beyond a piece, as every training step has them.
        Case {
            dims: vec![Dim::one_of("rows", &[2047, 2049, 5000]), Dim::one_of("in", &[5, 17]), Dim::one_of("out", &[3, 16])],
            inputs: |s, draw| {
                let [rows, k, n] = s.get();
                vec![
                    Input::new("x", draw.normal(&[rows, k])).grad(),
                    Input::new("weight", draw.normal(&[n, k])).grad(),
                ]
            },
            run: |_, i| vec![linear(&i[0], &i[1], None)],
            reference: |s, i| {
                let k = s["in"];
                vec![Array::from_fn(&[s["rows"], s["out"]], |at| {
                    (0..k).map(|t| i[0].at(&[at[0], t]) * i[1].at(&[at[1], t])).sum()
                })]
            },
            error: |_| 8.0,
            error_grad: Some(|s| 16.0 + 4.0 * (s["rows"] as f64).sqrt()),
            ..Case::new("linear.rows")
        },
    ];
    let plain = all.iter().find(|c| c.stem == "linear").expect("listed above");
    let half = plain.in_half("linear.f16", &["x"], 1.0);
    let wide = Case {
        run: |s, i| vec![linear_to(&i[0], &i[1], (s["bias"] == 1).then_some(&i[2]), DType::F32)],
        ..plain.in_half("linear.to_f32", &["x"], 1.0)
    };
    all.extend([half, wide]);
    all
}
