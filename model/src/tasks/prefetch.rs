//! Batches built ahead.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::{Batch, Sampler};
use crate::data::DataError;

struct Worker {
    batches: Receiver<Result<Batch, DataError>>,
    thread: Option<JoinHandle<()>>,
}

/// Builds batches ahead in threads of its own and hands them out in order.
///
/// Worker w of n builds steps w, w + n, …, so order and content do not depend on timing. Dropping it stops and
/// joins the threads.
pub struct Prefetch {
    workers: Vec<Worker>,
    turn: usize,
    ended: bool,
}

impl Prefetch {
    /// Starts `threads` workers at `first_step`, each up to `ahead` batches ahead. `plan` gives a step's
    /// (sequences, length), and `None` after the last step.
    pub fn new<P>(sampler: Arc<Sampler>, first_step: u64, threads: usize, ahead: usize, plan: P) -> Self
    where
        P: Fn(u64) -> Option<(usize, usize)> + Send + Sync + 'static,
    {
        let (threads, plan) = (threads.max(1), Arc::new(plan));
        let workers = (0..threads as u64)
            .map(|first| {
                let (sender, batches) = sync_channel(ahead);
                let (sampler, plan) = (sampler.clone(), plan.clone());
                let thread = std::thread::spawn(move || {
                    let mut step = first_step + first;
                    while let Some((sequences, length)) = plan(step) {
                        let batch = sampler.batch(step, sequences, length);
                        let failed = batch.is_err();
                        // The receiver goes away when nobody wants more.
                        if sender.send(batch).is_err() || failed {
                            return;
                        }
                        step += threads as u64;
                    }
                });
                Worker { batches, thread: Some(thread) }
            })
            .collect();
        Self { workers, turn: 0, ended: false }
    }

    /// The next step's batch; `None` after the plan's last step or after an error.
    pub fn next_batch(&mut self) -> Option<Result<Batch, DataError>> {
        if self.ended {
            return None;
        }
        let count = self.workers.len();
        let worker = &mut self.workers[self.turn % count];
        self.turn += 1;
        match worker.batches.recv() {
            Ok(Ok(batch)) => Some(Ok(batch)),
            Ok(Err(error)) => {
                self.ended = true;
                Some(Err(error))
            }
            Err(_) => {
                self.ended = true;
                let panic = worker.thread.take()?.join().err()?;
                let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
                    (Some(text), _) => (*text).to_owned(),
                    (_, Some(text)) => text.clone(),
                    _ => "no message".to_owned(),
                };
                Some(Err(DataError::Worker { message }))
            }
        }
    }
}

impl Iterator for Prefetch {
    type Item = Result<Batch, DataError>;
    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch()
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        for Worker { batches, thread } in self.workers.drain(..) {
            drop(batches);
            if let Some(thread) = thread {
                // A panic has been printed by the thread itself; there is nobody left to hand it to.
                let _ = thread.join();
            }
        }
    }
}
