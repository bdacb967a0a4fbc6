//! Ranks of an MPI job, by the system's MPI.

use std::sync::{Mutex, MutexGuard, PoisonError};

use mpi::{
    Threading,
    datatype::{Partition, PartitionMut},
    environment::Universe,
    topology::SimpleCommunicator,
    traits::{Communicator, CommunicatorCollectives, Root},
};

use super::Ranks;

/// Bytes of one broadcast, at most: MPI counts in 31 bits.
const PIECE: usize = 1 << 30;

/// This process as a rank of an MPI job. Dropping it takes leave of the others, and waits for them.
pub struct Mpi {
    universe: Universe,
    rank: usize,
    size: usize,
    local: usize,
    /// One thread at a time, as MPI was told.
    turn: Mutex<()>,
}

impl Mpi {
    /// Joins the job that started this process, or a job of one rank where none did. None where this process has joined
    /// before, or its MPI serves one thread alone.
    pub fn new() -> Option<Mpi> {
        let (universe, threading) = mpi::initialize_with_threading(Threading::Serialized)?;
        if threading < Threading::Serialized {
            return None;
        }
        let world = universe.world();
        let local = world.split_shared(world.rank()).rank();
        let [rank, size, local] = [world.rank(), world.size(), local].map(|n| n as usize);
        Some(Mpi { universe, rank, size, local, turn: Mutex::new(()) })
    }

    fn world(&self) -> (SimpleCommunicator, MutexGuard<'_, ()>) {
        (self.universe.world(), self.turn.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// As MPI counts.
///
/// # Panics
/// At 2³¹ and beyond.
fn counted(n: usize) -> i32 {
    n.try_into().expect("fewer than 2³¹ numbers in one message of MPI")
}

/// Counts, and where each stretch begins.
fn stretches(counts: impl Iterator<Item = usize>) -> (Vec<i32>, Vec<i32>) {
    let mut at = 0;
    let stretch = |n: usize| {
        at += n;
        counted(at);
        (counted(n), counted(at - n))
    };
    counts.map(stretch).unzip()
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn local(&self) -> usize {
        self.local
    }

    fn gather(&self, mine: &[u8]) -> Vec<Vec<u8>> {
        let (world, _turn) = self.world();
        let mut lengths = vec![0u64; self.size];
        world.all_gather_into(&[mine.len() as u64][..], &mut lengths[..]);
        // Where nothing begins, Rust says 1, which to Open MPI is no place but MPI_IN_PLACE.
        let mine = if mine.is_empty() { &[0][..0] } else { mine };
        let total = lengths.iter().sum::<u64>() as usize;
        let mut all = Vec::with_capacity(total + 1);
        all.resize(total, 0u8);
        let (counts, starts) = stretches(lengths.iter().map(|&n| n as usize));
        let mut into = PartitionMut::new(&mut all[..], counts, starts);
        world.all_gather_varcount_into(mine, &mut into);
        let mut rest = all.as_slice();
        let take = |n: &u64| {
            let (mine, others) = rest.split_at(*n as usize);
            rest = others;
            mine.to_vec()
        };
        lengths.iter().map(take).collect()
    }

    fn broadcast(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let (world, _turn) = self.world();
        let root = world.process_at_rank(0);
        let mut length = [bytes.len() as u64];
        root.broadcast_into(&mut length[..]);
        bytes.resize(length[0] as usize, 0);
        bytes.chunks_mut(PIECE).for_each(|piece| root.broadcast_into(piece));
        bytes
    }

    fn exchange(&self, mine: &[f32], counts: &[usize]) -> Vec<f32> {
        let (world, _turn) = self.world();
        let own = counts[self.rank];
        let mut all = vec![0f32; own * self.size];
        let (counts, starts) = stretches(counts.iter().copied());
        let from = Partition::new(mine, counts, starts);
        let (counts, starts) = stretches(std::iter::repeat_n(own, self.size));
        let mut into = PartitionMut::new(&mut all[..], counts, starts);
        world.all_to_all_varcount_into(&from, &mut into);
        all
    }

    fn join(&self, mine: &[f32], counts: &[usize]) -> Vec<f32> {
        let (world, _turn) = self.world();
        let mut all = vec![0f32; counts.iter().sum()];
        let (counts, starts) = stretches(counts.iter().copied());
        let mut into = PartitionMut::new(&mut all[..], counts, starts);
        world.all_gather_varcount_into(mine, &mut into);
        all
    }

    fn abort(&self, code: u8) -> ! {
        // Whoever holds the turn may wait for this rank for ever.
        self.universe.world().abort(code.into())
    }
}
