//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864, eq. 34), pairs (i, i + d/2).

use crate::{
    Tensor, launch,
    reference::Array,
    tensor::rows_a_page,
    testing::{Case, Cost, Dim, Input},
};

/// Rotates pairs (i, i + d/2) of each head by `position · theta^(−2i/d)`; the token at t has position `first + t`.
///
/// `x`: (n, T, H, d) with d even, in f32 or f16; the result has `x`'s shape and type.
///
/// # Panics
/// Where `x` has another number of axes or d is odd.
#[track_caller]
pub fn rope(x: &Tensor, theta: f32, first: usize) -> Tensor {
    assert!(x.shape().len() == 4, "rope: x: expected (n, T, H, d), got {:?}", x.shape());
    let [_, length, _, d] = x.axes();
    assert!(d.is_multiple_of(2) && d > 0, "rope: x: the last axis must be even, got {:?}", x.shape());
    // WGSL promises sin and cos to 2⁻¹¹ only, and f32 angles lose whole turns at far positions.
    let mut table = Vec::with_capacity(length * d);
    for t in 0..length {
        for i in 0..d / 2 {
            let angle = angle(first + t, i, d, theta.into());
            table.extend([angle.cos() as f32, angle.sin() as f32]);
        }
    }
    let table = Tensor::from_slice(x.gpu(), &table, [length, d / 2, 2]).expect("the table fills its shape");
    let y = rotate(x, &table, 1.0);
    y.with_grad(&[x], move |dy| [rotate(dy, &table, -1.0)])
}

fn rotate(x: &Tensor, table: &Tensor, turn: f32) -> Tensor {
    let [n, length, heads, d] = x.axes();
    let (y, half, bytes) = (x.like(), d / 2, heads * d * x.dtype().bytes());
    let step = rows_a_page(x.gpu(), &[bytes]);
    for at in (0..n * length).step_by(step) {
        let tokens = step.min(n * length - at);
        let (x_, y_) = (x.page(at, tokens, bytes), y.page(at, tokens, bytes));
        launch!(rope [elem = x.dtype().wgsl()] { tokens, start: at % length, length, heads, half, turn },
                [x_, table] -> [y_], (tokens * heads * half).div_ceil(256));
    }
    y
}

fn angle(position: usize, pair: usize, d: usize, theta: f64) -> f64 {
    position as f64 * theta.powf(-2.0 * pair as f64 / d as f64)
}

/// The definition: each pair as a complex number times e^(i·angle).
fn reference(x: &Array, theta: f64, first: usize) -> Array {
    let half = x.shape[3] / 2;
    Array::from_fn(&x.shape, |at| {
        let (pair, second) = (at[3] % half, at[3] >= half);
        let (a, b) = (x.at(&[at[0], at[1], at[2], pair]), x.at(&[at[0], at[1], at[2], pair + half]));
        let (sin, cos) = angle(first + at[1], pair, 2 * half, theta).sin_cos();
        if second { b * cos + a * sin } else { a * cos - b * sin }
    })
}

pub(super) fn cases() -> Vec<Case> {
    let plain = Case {
        dims: vec![
            Dim::range("n", 1, 3),
            Dim::range("T", 1, 66),
            Dim::range("H", 1, 3),
            Dim::one_of("d", &[2, 16, 6, 64]),
            Dim::one_of("first", &[0, 1, 100_003]),
        ],
        inputs: |s, draw| vec![Input::new("x", draw.normal(&[s["n"], s["T"], s["H"], s["d"]])).grad()],
        run: |s, i| vec![rope(&i[0], 10000.0, s["first"])],
        reference: |s, i| vec![reference(&i[0], 10000.0, s["first"])],
        error: |_| 4.0,
        cost: |s| {
            let count = s["n"] * s["T"] * s["H"] * s["d"];
            Cost { bytes: 8 * count, flops: 3 * count }
        },
        bench: &[&[2048, 65, 4, 64, 0]],
        ..Case::new("rope")
    };
    vec![plain.in_half("rope.f16", &["x"], 1.0), plain]
}
