//! The ranks of a job, where `mpirun` started several of this program: how they begin, and how they end together.

use std::sync::Arc;

use rambutan_model::ranks::Ranks;

use crate::problem::Problem;

/// Joins the job.
#[cfg(feature = "mpi")]
pub fn open() -> Result<Arc<dyn Ranks>, Problem> {
    match rambutan_model::ranks::Mpi::new() {
        Some(ranks) => Ok(Arc::new(ranks)),
        None => Err(Problem::input(
            "the system's MPI serves no threads",
            "any Open MPI or MPICH of these years does",
        )),
    }
}

/// Without the feature `mpi` every process is by itself.
#[cfg(not(feature = "mpi"))]
pub fn open() -> Result<Arc<dyn Ranks>, Problem> {
    Ok(Arc::new(rambutan_model::ranks::Alone))
}

/// What all ranks had to do, done by all or by none: where any failed, all end, and the first that failed tells why.
pub fn agree<T>(ranks: &dyn Ranks, result: Result<T, Problem>) -> Result<T, Problem> {
    let codes = ranks.gather(&[result.as_ref().map_or_else(|problem| problem.code, |_| 0)]);
    let Some(first) = codes.iter().position(|code| code != &[0]) else { return result };
    Err(match result {
        Err(problem) if first == ranks.rank() => problem.shared(),
        _ => Problem::told(codes[first][0]),
    })
}

/// A problem that all ranks meet at the same place: the first tells.
pub fn everywhere(ranks: &dyn Ranks, problem: Problem) -> Problem {
    if ranks.rank() == 0 { problem.shared() } else { Problem::told(problem.code) }
}
