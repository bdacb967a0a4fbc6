//! Arithmetic on 32-bit words, as WGSL defines it: integers wrap, division by zero gives the dividend, conversions
//! saturate.

use half::f16;
use naga::{
    AtomicFunction, BinaryOperator as B, Literal, MathFunction as M, Scalar, ScalarKind as K,
    SubgroupOperation as G, TypeInner, UnaryOperator as U,
};

pub(super) fn literal(literal: Literal) -> Option<u32> {
    Some(match literal {
        Literal::F32(v) => v.to_bits(),
        Literal::F16(v) => v.to_bits().into(),
        Literal::U32(v) => v,
        Literal::I32(v) => v as u32,
        Literal::Bool(v) => v.into(),
        _ => return None,
    })
}

pub(super) fn float(scalar: Scalar, word: u32) -> f32 {
    if scalar.width == 2 { f16::from_bits(word as u16).to_f32() } else { f32::from_bits(word) }
}

fn word(scalar: Scalar, value: f32) -> u32 {
    if scalar.width == 2 { f16::from_f32(value).to_bits().into() } else { value.to_bits() }
}

pub(super) fn unary(op: U, scalar: Scalar, v: u32) -> u32 {
    match (op, scalar.kind) {
        (U::Negate, K::Float) => word(scalar, -float(scalar, v)),
        (U::Negate, _) => v.wrapping_neg(),
        (U::LogicalNot, _) => u32::from(v == 0),
        (U::BitwiseNot, _) => !v,
    }
}

pub(super) fn binary(op: B, scalar: Scalar, a: u32, b: u32) -> u32 {
    let compare = |order: Option<std::cmp::Ordering>| {
        use std::cmp::Ordering::{Equal, Greater, Less};
        u32::from(match op {
            B::Equal => order == Some(Equal),
            B::NotEqual => order != Some(Equal),
            B::Less => order == Some(Less),
            B::LessEqual => matches!(order, Some(Less | Equal)),
            B::Greater => order == Some(Greater),
            _ => matches!(order, Some(Greater | Equal)),
        })
    };
    let relation =
        matches!(op, B::Equal | B::NotEqual | B::Less | B::LessEqual | B::Greater | B::GreaterEqual);
    match scalar.kind {
        K::Float => {
            let (a, b) = (float(scalar, a), float(scalar, b));
            if relation {
                return compare(a.partial_cmp(&b));
            }
            word(
                scalar,
                match op {
                    B::Add => a + b,
                    B::Subtract => a - b,
                    B::Multiply => a * b,
                    B::Divide => a / b,
                    _ => a % b,
                },
            )
        }
        K::Sint if relation => compare(Some((a as i32).cmp(&(b as i32)))),
        _ if relation => compare(Some(a.cmp(&b))),
        kind => match op {
            B::Add => a.wrapping_add(b),
            B::Subtract => a.wrapping_sub(b),
            B::Multiply => a.wrapping_mul(b),
            B::Divide if b == 0 => a,
            B::Modulo if b == 0 => 0,
            B::Divide if kind == K::Sint => (a as i32).wrapping_div(b as i32) as u32,
            B::Modulo if kind == K::Sint => (a as i32).wrapping_rem(b as i32) as u32,
            B::Divide => a / b,
            B::Modulo => a % b,
            B::And | B::LogicalAnd => a & b,
            B::InclusiveOr | B::LogicalOr => a | b,
            B::ExclusiveOr => a ^ b,
            B::ShiftLeft => a << (b & 31),
            B::ShiftRight if kind == K::Sint => ((a as i32) >> (b & 31)) as u32,
            _ => a >> (b & 31),
        },
    }
}

pub(super) fn atomic(fun: &AtomicFunction, kind: K, old: u32, value: u32) -> u32 {
    let signed = kind == K::Sint;
    match fun {
        AtomicFunction::Add => old.wrapping_add(value),
        AtomicFunction::Subtract => old.wrapping_sub(value),
        AtomicFunction::And => old & value,
        AtomicFunction::ExclusiveOr => old ^ value,
        AtomicFunction::InclusiveOr => old | value,
        AtomicFunction::Min if signed => (old as i32).min(value as i32) as u32,
        AtomicFunction::Max if signed => (old as i32).max(value as i32) as u32,
        AtomicFunction::Min => old.min(value),
        AtomicFunction::Max => old.max(value),
        AtomicFunction::Exchange { .. } => value,
    }
}

/// Two values of a subgroup as one.
pub(super) fn together(op: G, scalar: Scalar, a: u32, b: u32) -> u32 {
    let least = |a: u32, b: u32, fun: &AtomicFunction, pick: fn(f32, f32) -> f32| match scalar.kind {
        K::Float => word(scalar, pick(float(scalar, a), float(scalar, b))),
        kind => atomic(fun, kind, a, b),
    };
    match op {
        G::All | G::And => a & b,
        G::Any | G::Or => a | b,
        G::Xor => a ^ b,
        G::Add => binary(B::Add, scalar, a, b),
        G::Mul => binary(B::Multiply, scalar, a, b),
        G::Min => least(a, b, &AtomicFunction::Min, f32::min),
        G::Max => least(a, b, &AtomicFunction::Max, f32::max),
    }
}

/// What an exclusive scan begins with: WGSL has those of sums and products.
pub(super) fn identity(op: G, scalar: Scalar) -> u32 {
    match op {
        G::Mul => convert(Scalar::U32, scalar, 1),
        _ => 0,
    }
}

pub(super) fn convert(from: Scalar, to: Scalar, v: u32) -> u32 {
    match (from.kind, to.kind) {
        (K::Float, K::Float) => word(to, float(from, v)),
        (K::Float, K::Sint) => float(from, v) as i32 as u32,
        (K::Float, K::Uint) => float(from, v) as u32,
        (K::Float, _) => u32::from(float(from, v) != 0.0),
        (K::Sint, K::Float) => word(to, v as i32 as f32),
        (_, K::Float) => word(to, v as f32),
        (_, K::Bool) => u32::from(v != 0),
        _ => v,
    }
}

/// (words a lane, words) of a built-in function; none where it is not known here.
pub(super) fn math(
    fun: M,
    scalar: Scalar,
    lanes: usize,
    arguments: &[(usize, &[u32])],
    first: &TypeInner,
) -> Option<(usize, Vec<u32>)> {
    let (n, x) = arguments[0];
    let lane = |a: usize, i: usize| &arguments[a].1[i * arguments[a].0..][..arguments[a].0];
    let get = |a: usize, i: usize, k: usize| lane(a, i)[if arguments[a].0 == 1 { 0 } else { k }];
    let number = |a: usize, i: usize, k: usize| float(scalar, get(a, i, k));
    let real = scalar.kind == K::Float;
    // Of a lane's vector as a whole.
    let dot = |a: usize, b: usize, i: usize| {
        let product = |k| binary(B::Multiply, scalar, get(a, i, k), get(b, i, k));
        (1..n).fold(product(0), |s, k| binary(B::Add, scalar, s, product(k)))
    };
    let length = |i: usize| float(scalar, dot(0, 0, i)).sqrt();
    let per_lane = |f: &dyn Fn(usize) -> u32| Some((1, (0..lanes).map(f).collect::<Vec<u32>>()));
    match fun {
        M::Dot => return per_lane(&|i| dot(0, 1, i)),
        M::Length => return per_lane(&|i| word(scalar, length(i))),
        M::Distance => {
            return per_lane(&|i| {
                let square = |k| (number(0, i, k) - number(1, i, k)).powi(2);
                word(scalar, (0..n).map(square).sum::<f32>().sqrt())
            });
        }
        M::Normalize => {
            let data = (0..lanes * n).map(|i| word(scalar, number(0, i / n, i % n) / length(i / n)));
            return Some((n, data.collect()));
        }
        M::Cross => {
            let data = (0..lanes * 3).map(|i| {
                let (i, k) = (i / 3, i % 3);
                let (p, q) = ((k + 1) % 3, (k + 2) % 3);
                word(scalar, number(0, i, p) * number(1, i, q) - number(0, i, q) * number(1, i, p))
            });
            return Some((3, data.collect()));
        }
        M::Transpose => {
            let TypeInner::Matrix { columns, rows, .. } = *first else { return None };
            let (columns, rows) = (columns as usize, rows as usize);
            let from = |k: usize| k % columns * rows + k / columns;
            return Some((n, (0..lanes * n).map(|i| lane(0, i / n)[from(i % n)]).collect()));
        }
        M::Unpack2x16float => {
            let half = |i: usize| f16::from_bits((x[i / 2] >> (i % 2 * 16)) as u16).to_f32().to_bits();
            return Some((2, (0..lanes * 2).map(half).collect()));
        }
        M::Pack2x16float => {
            let bits = |v: u32| u32::from(f16::from_f32(f32::from_bits(v)).to_bits());
            return per_lane(&|i| bits(lane(0, i)[0]) | bits(lane(0, i)[1]) << 16);
        }
        M::Unpack4xU8 => {
            return Some((4, (0..lanes * 4).map(|i| x[i / 4] >> (i % 4 * 8) & 255).collect()));
        }
        M::Unpack4xI8 => {
            return Some((4, (0..lanes * 4).map(|i| (x[i / 4] >> (i % 4 * 8)) as i8 as u32).collect()));
        }
        M::Pack4xU8 | M::Pack4xI8 => {
            return per_lane(&|i| (0..4).map(|k| (lane(0, i)[k] & 255) << (8 * k)).sum());
        }
        _ => {}
    }
    let signed = scalar.kind == K::Sint;
    let one = |i: usize, k: usize| -> Option<u32> {
        let f = || number(0, i, k);
        let (u, second) = (get(0, i, k), || number(1, i, k));
        let w = |v: f32| Some(word(scalar, v));
        let bits = 8 * u32::from(scalar.width);
        match fun {
            M::Abs if real => w(f().abs()),
            M::Abs => Some(if signed { (u as i32).wrapping_abs() as u32 } else { u }),
            M::Min if real => w(f().min(second())),
            M::Max if real => w(f().max(second())),
            M::Min | M::Max => Some(atomic(
                if fun == M::Min { &AtomicFunction::Min } else { &AtomicFunction::Max },
                scalar.kind,
                u,
                get(1, i, k),
            )),
            M::Clamp if real => w(f().max(second()).min(number(2, i, k))),
            M::Clamp => {
                let up = atomic(&AtomicFunction::Max, scalar.kind, u, get(1, i, k));
                Some(atomic(&AtomicFunction::Min, scalar.kind, up, get(2, i, k)))
            }
            M::Saturate => w(f().clamp(0.0, 1.0)),
            M::Cos => w(f().cos()),
            M::Cosh => w(f().cosh()),
            M::Sin => w(f().sin()),
            M::Sinh => w(f().sinh()),
            M::Tan => w(f().tan()),
            M::Tanh => w(f().tanh()),
            M::Acos => w(f().acos()),
            M::Asin => w(f().asin()),
            M::Atan => w(f().atan()),
            M::Atan2 => w(f().atan2(second())),
            M::Asinh => w(f().asinh()),
            M::Acosh => w(f().acosh()),
            M::Atanh => w(f().atanh()),
            M::Radians => w(f().to_radians()),
            M::Degrees => w(f().to_degrees()),
            M::Ceil => w(f().ceil()),
            M::Floor => w(f().floor()),
            M::Round => w(f().round_ties_even()),
            M::Fract => w(f() - f().floor()),
            M::Trunc => w(f().trunc()),
            M::Exp => w(f().exp()),
            M::Exp2 => w(f().exp2()),
            M::Log => w(f().ln()),
            M::Log2 => w(f().log2()),
            M::Pow => w(f().powf(second())),
            // The exponent is an integer.
            M::Ldexp => w(f() * (get(1, i, k) as i32 as f32).exp2()),
            M::Sign if real => w(if f() > 0.0 {
                1.0
            } else if f() < 0.0 {
                -1.0
            } else {
                0.0
            }),
            M::Sign => Some((u as i32).signum() as u32),
            M::Fma => w(f().mul_add(second(), number(2, i, k))),
            M::Mix => w(f() * (1.0 - number(2, i, k)) + second() * number(2, i, k)),
            M::Step => w(if f() <= second() { 1.0 } else { 0.0 }),
            M::SmoothStep => {
                let t = ((number(2, i, k) - f()) / (second() - f())).clamp(0.0, 1.0);
                w(t * t * (3.0 - 2.0 * t))
            }
            M::Sqrt => w(f().sqrt()),
            M::InverseSqrt => w(1.0 / f().sqrt()),
            M::QuantizeToF16 => w(f16::from_f32(f()).to_f32()),
            M::CountTrailingZeros => Some(u.trailing_zeros()),
            M::CountLeadingZeros => Some(u.leading_zeros()),
            M::CountOneBits => Some(u.count_ones()),
            M::ReverseBits => Some(u.reverse_bits()),
            M::FirstTrailingBit => Some(if u == 0 { u32::MAX } else { u.trailing_zeros() }),
            M::FirstLeadingBit => {
                let v = if signed && (u as i32) < 0 { !u } else { u };
                Some(if v == 0 { u32::MAX } else { 31 - v.leading_zeros() })
            }
            M::ExtractBits => {
                let offset = get(1, i, k).min(bits);
                let count = get(2, i, k).min(bits - offset);
                Some(match count {
                    0 => 0,
                    _ if signed => (((u << (bits - offset - count)) as i32) >> (bits - count)) as u32,
                    _ => (u << (bits - offset - count)) >> (bits - count),
                })
            }
            M::InsertBits => {
                let offset = get(2, i, k).min(bits);
                let count = get(3, i, k).min(bits - offset);
                let mask = if count == 0 { 0 } else { (u32::MAX >> (bits - count)) << offset };
                Some(u & !mask | (get(1, i, k).checked_shl(offset).unwrap_or(0) & mask))
            }
            _ => None,
        }
    };
    let data: Option<Vec<u32>> = (0..lanes * n).map(|i| one(i / n, i % n)).collect();
    data.map(|data| (n, data))
}
