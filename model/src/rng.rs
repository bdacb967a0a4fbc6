//! A small random number generator whose whole state can be stored in a checkpoint.
//!
//! xoshiro256++ (Blackman and Vigna, 2019), seeded through SplitMix64. Integers and uniform floats are the
//! same on every platform; [`Rng::normal`] goes through the platform's `ln` and `cos`.

use serde::{Deserialize, Serialize};

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function: a bijection that scatters nearby numbers.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A deterministic generator; equal states give equal streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "[u64; 4]", into = "[u64; 4]")]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator from a seed; any number is a good seed.
    pub fn new(seed: u64) -> Self {
        Self::from_parts(&[seed])
    }

    /// A generator of its own for each tuple of numbers, such as (seed, step, sample).
    pub fn from_parts(parts: &[u64]) -> Self {
        let seed = parts.iter().fold(parts.len() as u64, |h, &part| mix(mix(h.wrapping_add(GOLDEN)) ^ part));
        let mut at = seed;
        let state = std::array::from_fn(|_| {
            at = at.wrapping_add(GOLDEN);
            mix(at)
        });
        // `mix` is a bijection and the four inputs differ, so the state is never all zero.
        Self { state }
    }

    /// The state, to be stored.
    pub fn state(&self) -> [u64; 4] {
        self.state
    }

    /// The generator with a stored state; `None` for the one state that is no state, all zeros.
    pub fn from_state(state: [u64; 4]) -> Option<Self> {
        (state != [0; 4]).then_some(Self { state })
    }

    /// The next 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// A number in `0..n` (0 if `n` is 0); the bias is below n / 2⁶⁴.
    #[inline]
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// A number in `low..=high`.
    #[inline]
    #[track_caller]
    pub fn range(&mut self, low: usize, high: usize) -> usize {
        assert!(low <= high, "Rng::range: expected low <= high, got {low}..={high}");
        low + self.below((high - low).saturating_add(1))
    }

    /// A float in [0, 1), 53 random bits.
    #[inline]
    pub fn float(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// True with probability `p`.
    #[inline]
    pub fn chance(&mut self, p: f64) -> bool {
        self.float() < p
    }

    /// One element.
    #[inline]
    #[track_caller]
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        assert!(!from.is_empty(), "Rng::pick: expected at least one element");
        &from[self.below(from.len())]
    }

    /// All orders equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// A standard normal deviate (Box and Muller; nothing is kept for the next call).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.float()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.float()).cos()
    }
}

impl TryFrom<[u64; 4]> for Rng {
    type Error = &'static str;
    fn try_from(state: [u64; 4]) -> Result<Self, Self::Error> {
        Self::from_state(state).ok_or("a random state of four zeros is not valid")
    }
}

impl From<Rng> for [u64; 4] {
    fn from(rng: Rng) -> Self {
        rng.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_published_generator() {
        // First outputs of xoshiro256plusplus.c from the state 1, 2, 3, 4.
        let mut rng = Rng::from_state([1, 2, 3, 4]).unwrap();
        let first: Vec<u64> = (0..4).map(|_| rng.next_u64()).collect();
        assert_eq!(first, [41943041, 58720359, 3588806011781223, 3591011842654386]);
    }

    #[test]
    fn a_stored_state_continues_bit_identically() {
        let mut rng = Rng::new(7);
        rng.normal();
        let text = serde_json::to_string(&rng).unwrap();
        let mut again: Rng = serde_json::from_str(&text).unwrap();
        assert_eq!(rng, again);
        for _ in 0..100 {
            assert_eq!(rng.normal().to_bits(), again.normal().to_bits());
        }
        assert!(serde_json::from_str::<Rng>("[0,0,0,0]").is_err());
    }

    #[test]
    fn parts_give_streams_of_their_own() {
        let mut first = std::collections::HashSet::new();
        for seed in 0..10 {
            for step in 0..20 {
                for i in 0..20 {
                    assert!(first.insert(Rng::from_parts(&[seed, step, i]).next_u64()));
                }
            }
        }
        assert_ne!(Rng::from_parts(&[0]), Rng::from_parts(&[0, 0]));
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut rng = Rng::new(1);
        let n = 200_000;
        let mut counts = [0usize; 7];
        let (mut sum, mut squares, mut floats) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            counts[rng.range(3, 9) - 3] += 1;
            let x = rng.normal();
            sum += x;
            squares += x * x;
            let f = rng.float();
            assert!((0.0..1.0).contains(&f));
            floats += f;
        }
        assert!(counts.iter().all(|&c| c.abs_diff(n / 7) < n / 70), "{counts:?}");
        let n = n as f64;
        assert!(
            (sum / n).abs() < 0.01 && (squares / n - 1.0).abs() < 0.02 && (floats / n - 0.5).abs() < 0.005
        );
    }

    #[test]
    fn shuffle_keeps_every_element() {
        let mut items: Vec<u32> = (0..100).collect();
        Rng::new(3).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
