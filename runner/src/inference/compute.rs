//! The fixed set of threads for models too slow to run on a connection's own thread.
//!
//! The queue is bounded: beyond it a request is refused at once instead of growing a backlog that no deadline can meet.
//! `spawn_blocking` is not used: measured at 3.5 times the CPU of running a small model inline.

use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use tokio::sync::oneshot;

use super::infer::Work;
use crate::error::{Code, Error, Result};
use crate::tensor::Tensor;

struct Job {
    work: Work,
    queued: Instant,
    answer: oneshot::Sender<Result<Vec<Tensor>>>,
}

/// Hands work to the compute threads.
#[derive(Clone)]
pub(super) struct Compute {
    sender: Sender<Job>,
    queue: usize,
}

impl Compute {
    pub(super) fn start(threads: usize, queue: usize) -> Self {
        let (sender, receiver) = crossbeam_channel::bounded(queue);
        for index in 0..threads {
            let receiver = receiver.clone();
            let thread = std::thread::Builder::new().name(format!("baton-compute-{index}"));
            if let Err(error) = thread.spawn(move || work_off(&receiver)) {
                tracing::error!("cannot start a compute thread: {error}");
            }
        }
        Self { sender, queue }
    }

    /// Queues the work, here or with the model's own workers, and waits for its answer: a model that hangs in a worker
    /// must not hold a compute thread meanwhile.
    ///
    /// # Errors
    /// `OVERLOADED` if the queue is full, else those of the run.
    pub(super) async fn run(&self, work: Work) -> Result<Vec<Tensor>> {
        let (answer, result) = oneshot::channel();
        if work.has_queue() {
            work.submit(answer)?;
            return result.await.unwrap_or_else(|_| Err(lost()));
        }
        let job = Job { work, queued: Instant::now(), answer };
        self.sender.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Error::new(
                Code::Overloaded,
                format!("{} requests are waiting already, which is the limit", self.queue),
            ),
            TrySendError::Disconnected(_) => Error::new(Code::Internal, "the compute threads are gone"),
        })?;
        result.await.unwrap_or_else(|_| Err(lost()))
    }
}

fn lost() -> Error {
    Error::new(Code::Internal, "the run ended without an answer")
}

fn work_off(jobs: &Receiver<Job>) {
    for job in jobs {
        // The caller left while the job was queued: it never runs.
        if job.answer.is_closed() {
            continue;
        }
        let queued = job.queued.elapsed();
        // A panic in one run must not take the thread along.
        let run = std::panic::AssertUnwindSafe(|| job.work.run(queued, job.work.deadline()));
        let result = std::panic::catch_unwind(run)
            .unwrap_or_else(|_| Err(Error::new(Code::Internal, "the run ended unexpectedly")));
        let _ = job.answer.send(result);
    }
}
