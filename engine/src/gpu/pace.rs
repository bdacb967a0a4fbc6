//! Cooperative time: recorded work is kept back and submitted in slices that fit a budget, so that whoever shares the
//! device keeps its frame rate.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::{Capabilities, Gpu, Instant, lock};
use crate::Result;

/// What slices took so far, and the one that the device works on.
pub(crate) struct Pace {
    pub deferring: bool,
    /// Seconds a dispatch, about; None before the first slice is done.
    each: Option<f64>,
    flight: Option<Flight>,
    /// The latest budget.
    budget: Duration,
    /// Dispatches a command buffer as long as nothing is known.
    first: usize,
}

/// A slice under way.
struct Flight {
    ticket: Ticket,
    begun: Instant,
    dispatches: usize,
}

impl Pace {
    pub fn new(capabilities: &Capabilities) -> Pace {
        Pace {
            deferring: false,
            each: None,
            flight: None,
            budget: Duration::from_millis(4),
            first: if capabilities.cpu { 1 } else { 8 },
        }
    }

    /// Dispatches a command buffer, so that some four of them fill a budget.
    pub fn grain(&self) -> usize {
        self.each.map_or(self.first, |each| (self.budget.as_secs_f64() / 4.0 / each) as usize).max(1)
    }

    /// Seconds that `dispatches` take, about.
    fn estimate(&self, dispatches: usize) -> f64 {
        self.each.unwrap_or(0.0) * dispatches as f64
    }

    /// Takes note of a slice of `dispatches` that took `time`. Slices differ, and the latest tell the most.
    fn learn(&mut self, dispatches: usize, time: Duration) {
        let each = time.as_secs_f64().max(1e-7) / dispatches.max(1) as f64;
        self.each = Some(self.each.map_or(each, |before| 0.75 * before + 0.25 * each));
    }
}

/// Work that was submitted.
#[derive(Clone)]
pub struct Ticket {
    #[cfg_attr(target_arch = "wasm32", allow(dead_code))]
    pub(super) index: Option<wgpu::SubmissionIndex>,
    done: Arc<Mutex<Done>>,
}

#[derive(Default)]
struct Done {
    at: Option<Instant>,
    waker: Option<Waker>,
}

impl Ticket {
    /// For all that the queue was given so far, of which `index` is ours.
    pub(super) fn new(queue: &wgpu::Queue, index: Option<wgpu::SubmissionIndex>) -> Ticket {
        let done = Arc::new(Mutex::new(Done::default()));
        let state = done.clone();
        if index.is_none() {
            lock(&done).at = Some(Instant::now());
        } else {
            queue.on_submitted_work_done(move || {
                let mut done = lock(&state);
                done.at = Some(Instant::now());
                if let Some(waker) = done.waker.take() {
                    waker.wake();
                }
            });
        }
        Ticket { index, done }
    }

    /// When the device was seen to be done with it, if it is.
    fn done_at(&self) -> Option<Instant> {
        lock(&self.done).at
    }
}

/// Completes when the work of a ticket is done.
struct Turn {
    #[cfg_attr(target_arch = "wasm32", allow(dead_code))]
    gpu: Gpu,
    ticket: Option<Ticket>,
}

impl Future for Turn {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(ticket) = &self.ticket else { return Poll::Ready(()) };
        // Natively nobody else drives the device; in a browser the event loop does.
        #[cfg(not(target_arch = "wasm32"))]
        self.gpu.wait_index(&ticket.index, None);
        let mut done = lock(&ticket.done);
        // A device that is lost is done with nothing.
        if done.at.is_some() || cfg!(not(target_arch = "wasm32")) {
            return Poll::Ready(());
        }
        done.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Gpu {
    /// Records what `f` launches, but keeps it back: [`Gpu::advance`] submits it slice by slice. Whatever submits
    /// ([`Gpu::submit`], a read, a wait) submits all of it at once, in order, before anything recorded later.
    pub fn defer<T>(&self, f: impl FnOnce() -> T) -> T {
        struct Restore<'a>(&'a Gpu, bool);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                let mut stream = self.0.stream();
                stream.seal(&self.0.0);
                stream.pace.deferring = self.1;
            }
        }
        let before = {
            let mut stream = self.stream();
            stream.seal(&self.0);
            std::mem::replace(&mut stream.pace.deferring, true)
        };
        let _restore = Restore(self, before);
        f()
    }

    /// Lets the device work at what was kept back for about `budget`, at least one command buffer of it, and returns
    /// whether all of it is done. Natively this waits for the slice it submitted, and for no longer than `budget`; in a
    /// browser it returns at once, and the next call finds out. As long as a slice is under way none is submitted.
    ///
    /// # Errors
    /// Whatever went wrong on the device since the last read.
    pub fn advance(&self, budget: Duration) -> Result<bool> {
        let begin = Instant::now();
        let left = || budget.saturating_sub(begin.elapsed());
        let mut first = true;
        loop {
            let ticket = self.stream().pace.flight.as_ref().map(|f| f.ticket.clone());
            if let Some(ticket) = ticket {
                #[cfg(not(target_arch = "wasm32"))]
                self.wait_index(&ticket.index, Some(left()));
                let Some(at) = ticket.done_at() else { break };
                let mut stream = self.stream();
                if let Some(flight) = stream.pace.flight.take() {
                    stream.pace.learn(flight.dispatches, at.saturating_duration_since(flight.begun));
                }
            }
            if !self.slice(budget, left(), std::mem::take(&mut first)) {
                break;
            }
            // Only a callback tells what happened, and none comes before this returns.
            if cfg!(target_arch = "wasm32") {
                break;
            }
        }
        self.check()?;
        Ok(self.is_idle())
    }

    /// Whether nothing is kept back, and no slice under way as far as is known.
    pub fn is_idle(&self) -> bool {
        let stream = self.stream();
        stream.pace.flight.is_none() && stream.next_held().is_none()
    }

    /// Submits what fits `left`, one command buffer at least where `first`: whether there was any.
    fn slice(&self, budget: Duration, left: Duration, first: bool) -> bool {
        let mut stream = self.stream();
        stream.pace.budget = budget;
        let (begun, mut dispatches, mut submits) = (Instant::now(), 0, 0);
        while let Some(next) = stream.next_held() {
            let fits = stream.pace.estimate(dispatches + next) <= left.as_secs_f64();
            // Nothing is known of the first slice: it is a short one.
            let known = stream.pace.each.is_some();
            if !(first && submits == 0 || fits && known) {
                break;
            }
            dispatches += stream.submit_held(&self.0).unwrap_or(0);
            submits += 1;
        }
        if submits > 0 {
            let ticket = Ticket::new(&self.0.queue, stream.submitted());
            stream.pace.flight = Some(Flight { ticket, begun, dispatches });
        }
        submits > 0
    }

    /// Completes when the slice that [`Gpu::advance`] submitted is done: in a browser the event loop runs meanwhile, so
    /// that `while !gpu.advance(budget)? { gpu.turn().await; }` keeps a page responsive.
    pub fn turn(&self) -> impl Future<Output = ()> + 'static {
        Turn { gpu: self.clone(), ticket: self.stream().pace.flight.as_ref().map(|f| f.ticket.clone()) }
    }

    /// Submits all recorded work; the ticket stands for it in [`Gpu::wait_for`] and [`Gpu::is_done`].
    pub fn ticket(&self) -> Ticket {
        let mut stream = self.stream();
        stream.flush(&self.0);
        Ticket::new(&self.0.queue, stream.submitted())
    }

    /// Whether the work that `ticket` stands for is done. Waits for nothing.
    pub fn is_done(&self, ticket: &Ticket) -> bool {
        let _ = self.0.device.poll(wgpu::PollType::Poll);
        ticket.done_at().is_some()
    }
}
