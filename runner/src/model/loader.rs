//! The loader thread: everything slow about a change of what is served happens here, one job after the other.
//!
//! One thread, not a pool: loading takes memory bandwidth and a core from requests, and garbage collection relies on
//! no other job storing blobs meanwhile.

use std::sync::{Arc, Weak};

use crossbeam_channel::Receiver;
use tokio::sync::oneshot;

use super::Models;
use crate::engine::step_back;
use crate::error::{Code, Error, Result};

pub(super) type Job = Box<dyn FnOnce(&Arc<Models>) + Send>;

pub(super) fn start(models: Weak<Models>, jobs: Receiver<Job>) {
    let run = move || {
        // A load takes a tenth of a second of a core; at the requests' own priority each of them would wait for it.
        step_back(10);
        for job in jobs {
            let Some(models) = models.upgrade() else { return };
            job(&models);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("baton-loader".to_owned()).spawn(run) {
        tracing::error!("cannot start the loader thread: {error}");
    }
}

impl Models {
    pub(super) fn enqueue(&self, job: impl FnOnce(&Arc<Models>) + Send + 'static) {
        // The receiver lives as long as the process.
        let _ = self.loader.send(Box::new(job));
    }

    /// Runs `work` on the loader thread to its end, whether or not the caller waits: a client that goes away must not
    /// stop a change between the pointer and the snapshot.
    ///
    /// # Errors
    /// Those of `work`; `INTERNAL` if it panicked.
    pub async fn on_loader<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Models>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, result) = oneshot::channel();
        self.enqueue(move |models| {
            // A panic in one job must not take the thread, and with it all later pushes, along.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(models)));
            let _ = answer.send(outcome.unwrap_or_else(|_| Err(lost())));
        });
        result.await.unwrap_or_else(|_| Err(lost()))
    }
}

fn lost() -> Error {
    Error::new(Code::Internal, "the change ended unexpectedly; what was served before is still served")
}
