//! Starts the lanes' threads from a thread of ordinary priority.
//!
//! A thread inherits the priority of the one that starts it, and a process that of its thread. Versions are prepared on
//! the loader, which has stepped back from the processor; workers must not have.

use std::sync::mpsc::{Sender, channel};

type Job = Box<dyn FnOnce() + Send>;

/// Starts threads. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Starter(Sender<(String, Job)>);

impl Starter {
    /// To be called on a thread of ordinary priority.
    pub(in crate::engine) fn new() -> Self {
        let (sender, jobs) = channel::<(String, Job)>();
        let start = move || {
            for (name, job) in jobs {
                // What the job holds is dropped, and its receiver sees that.
                if let Err(error) = std::thread::Builder::new().name(name).spawn(job) {
                    tracing::error!("cannot start a worker's thread: {error}");
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("baton-starter".to_owned()).spawn(start) {
            tracing::error!("cannot start the thread that starts workers: {error}");
        }
        Self(sender)
    }

    pub(super) fn start(&self, name: String, job: impl FnOnce() + Send + 'static) {
        // Its receiver lives as long as the process.
        let _ = self.0.send((name, Box::new(job)));
    }
}
