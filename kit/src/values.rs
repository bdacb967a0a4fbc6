//! What inputs are drawn from.

use std::{fmt, ops::Range, rc::Rc};

use rambutan_engine::testing::Draw;

/// Where an input's values come from: several flavours, of which each trial takes one. The first is the plainest.
#[derive(Clone)]
pub struct Values {
    flavours: Vec<Flavour>,
    /// What values shrink to.
    pub(crate) simplest: f64,
}

#[derive(Clone)]
enum Flavour {
    Normal,
    Ties,
    Wide,
    Large,
    Denormal,
    Uniform(f64, f64),
    Integers(i64, i64),
    FewIntegers(i64, i64),
    Edges(i64, i64),
    Custom(Rc<dyn Fn(&mut Draw) -> f64>),
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = (0..self.flavours.len()).map(|i| self.name(i)).collect();
        f.write_str(&names.join(", "))
    }
}

impl Values {
    fn of(flavours: Vec<Flavour>, simplest: f64) -> Values {
        Values { flavours, simplest }
    }

    /// Floats: standard normal; ties; magnitudes from 2⁻²⁰ to 2²⁰ side by side; large ones, to 10¹⁵; denormals and zeros of
    /// both signs.
    pub fn floats() -> Values {
        use Flavour::{Denormal, Large, Normal, Ties, Wide};
        Values::of(vec![Normal, Ties, Wide, Large, Denormal], 0.0)
    }

    /// Floats of one magnitude, where a large or tiny one would leave the kernel's domain: standard normal, and ties.
    pub fn normal() -> Values {
        Values::of(vec![Flavour::Normal, Flavour::Ties], 0.0)
    }

    /// Floats between two bounds.
    pub fn uniform(low: f64, high: f64) -> Values {
        Values::of(vec![Flavour::Uniform(low, high)], 0f64.clamp(low, high))
    }

    /// Integers: any of the range, few different ones, and those at its ends and beside powers of two.
    pub fn integers(range: Range<i64>) -> Values {
        let (low, high) = (range.start, range.end);
        assert!(low < high, "no integers in {range:?}");
        use Flavour::{Edges, FewIntegers, Integers};
        let flavours = vec![Integers(low, high), FewIntegers(low, high), Edges(low, high)];
        Values::of(flavours, 0i64.clamp(low, high - 1) as f64)
    }

    /// Drawn by `one`, shrinking to `simplest`.
    pub fn custom(simplest: f64, one: impl Fn(&mut Draw) -> f64 + 'static) -> Values {
        Values::of(vec![Flavour::Custom(Rc::new(one))], simplest)
    }

    pub(crate) fn flavours(&self) -> usize {
        self.flavours.len()
    }

    pub(crate) fn name(&self, flavour: usize) -> &'static str {
        match self.flavours[flavour] {
            Flavour::Normal => "standard normal",
            Flavour::Ties => "ties",
            Flavour::Wide => "magnitudes 2⁻²⁰ to 2²⁰",
            Flavour::Large => "large",
            Flavour::Denormal => "denormals",
            Flavour::Uniform(..) => "uniform",
            Flavour::Integers(..) => "integers",
            Flavour::FewIntegers(..) => "few different integers",
            Flavour::Edges(..) => "integers at the edges",
            Flavour::Custom(_) => "of your own",
        }
    }

    pub(crate) fn draw(&self, flavour: usize, n: usize, draw: &mut Draw) -> Vec<f64> {
        let below = |draw: &mut Draw, low: i64, high: i64| low + draw.below((high - low) as usize) as i64;
        let sign = |draw: &mut Draw| if draw.bits() & 1 == 0 { 1.0 } else { -1.0 };
        (0..n)
            .map(|_| match &self.flavours[flavour] {
                Flavour::Normal => draw.gauss(),
                Flavour::Ties => draw.below(4) as f64 - 1.0,
                Flavour::Wide => draw.gauss() * (draw.unit() * 40.0 - 20.0).exp2(),
                Flavour::Large => draw.gauss() * 1e15,
                Flavour::Denormal => match draw.below(4) {
                    0 => 0.0 * sign(draw),
                    1 => sign(draw) * f64::from(f32::MIN_POSITIVE),
                    2 => sign(draw) * f64::from(f32::from_bits(draw.below(1 << 23) as u32)),
                    _ => draw.gauss(),
                },
                Flavour::Uniform(low, high) => low + (high - low) * draw.unit(),
                Flavour::Integers(low, high) => below(draw, *low, *high) as f64,
                Flavour::FewIntegers(low, high) => below(draw, *low, (*high).min(low + 3)) as f64,
                Flavour::Edges(low, high) => {
                    let power = 1i64 << draw.below(33);
                    let candidates = [*low, high - 1, power - 1, power, power + 1, -power];
                    let fits: Vec<i64> =
                        candidates.into_iter().filter(|v| (*low..*high).contains(v)).collect();
                    fits[draw.below(fits.len())] as f64
                }
                Flavour::Custom(one) => one(draw),
            })
            .collect()
    }
}
