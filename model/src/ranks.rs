//! Work over ranks: processes that run the same program, each with a device of its own and its share of the work.
//!
//! This is all that the model knows of them. [`Alone`] is the one process that most programs are; with the feature `mpi`
//! `Mpi` is a rank of a job that `mpirun` started, and the only user of MPI. Everything here is collective unless it says
//! otherwise: all ranks call it, in the same order. What goes wrong within MPI ends the job.

#[cfg(all(feature = "mpi", not(target_arch = "wasm32")))]
mod mpi;

#[cfg(all(feature = "mpi", not(target_arch = "wasm32")))]
pub use mpi::Mpi;

/// The processes of one job, as one of them sees them.
pub trait Ranks: Send + Sync {
    /// This process's number, from 0; not collective.
    fn rank(&self) -> usize;

    /// How many there are; not collective.
    fn size(&self) -> usize;

    /// This process's number among those of its machine; not collective.
    fn local(&self) -> usize;

    /// What each rank gives, by rank; all get it.
    fn gather(&self, mine: &[u8]) -> Vec<Vec<u8>>;

    /// What rank 0 gives, for all; the others' is left.
    fn broadcast(&self, bytes: Vec<u8>) -> Vec<u8>;

    /// `mine` in stretches of `counts`, one for each rank, which get them → the stretches that are for this rank, by the rank
    /// that they come from.
    fn exchange(&self, mine: &[f32], counts: &[usize]) -> Vec<f32>;

    /// Each rank's stretch, as long as `counts` says, by rank; all get them.
    fn join(&self, mine: &[f32], counts: &[usize]) -> Vec<f32>;

    /// Ends all ranks, with this exit code; not collective.
    fn abort(&self, code: u8) -> !;
}

/// One process by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn local(&self) -> usize {
        0
    }

    fn gather(&self, mine: &[u8]) -> Vec<Vec<u8>> {
        vec![mine.to_vec()]
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    fn exchange(&self, mine: &[f32], _: &[usize]) -> Vec<f32> {
        mine.to_vec()
    }

    fn join(&self, mine: &[f32], _: &[usize]) -> Vec<f32> {
        mine.to_vec()
    }

    fn abort(&self, code: u8) -> ! {
        std::process::exit(code.into())
    }
}

/// A sum over ranks in rounds: to each every rank adds a term, and terms are summed in the order of rounds and, within
/// one, of ranks. So its bits depend on the terms and their order alone, not on how many ranks they came from.
///
/// Each rank sums one stretch of the numbers, which travel twice in all where there is one round.
pub(crate) struct OrderedSum<'r> {
    ranks: &'r dyn Ranks,
    /// How many numbers each rank sums.
    counts: Vec<usize>,
    /// This rank's, so far; empty before the first round.
    sum: Vec<f32>,
}

impl<'r> OrderedSum<'r> {
    /// Of terms of `len` numbers each.
    pub fn new(ranks: &'r dyn Ranks, len: usize) -> OrderedSum<'r> {
        let size = ranks.size();
        let counts = (0..size).map(|r| (r + 1) * len / size - r * len / size).collect();
        OrderedSum { ranks, counts, sum: Vec::new() }
    }

    /// Goes one round, in which `term` is this rank's.
    pub fn add(&mut self, term: &[f32]) {
        let terms = self.ranks.exchange(term, &self.counts);
        let count = self.counts[self.ranks.rank()];
        for rank in 0..self.ranks.size() {
            let term = &terms[rank * count..(rank + 1) * count];
            if self.sum.len() < count {
                self.sum = term.to_vec();
            } else {
                self.sum.iter_mut().zip(term).for_each(|(sum, x)| *sum += x);
            }
        }
    }

    /// The sum, on all ranks.
    pub fn finish(self) -> Vec<f32> {
        self.ranks.join(&self.sum, &self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rank_sums_in_the_order_of_rounds() {
        let terms = [[1.0f32, 1e8], [1e-8, 1.0], [-1.0, -1e8]];
        let mut sum = OrderedSum::new(&Alone, 2);
        terms.iter().for_each(|term| sum.add(term));
        assert_eq!(sum.finish(), [(1.0f32 + 1e-8) - 1.0, (1e8f32 + 1.0) - 1e8]);
    }
}
