//! Destroys retired versions on a thread of its own, at the lowest priority.
//!
//! At normal priority the woken reaper preempts the request thread that sent it the instance: 1 ms instead of 2 us.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::version::Identity;
use crate::engine::{Instance, step_back, trim_heap};
use crate::telemetry::Metrics;

/// Artifacts below this leave no gap in the heap that is worth a trim of their own.
const TRIM_FROM: u64 = 1 << 20;
/// After this many small ones the heap is trimmed all the same.
const TRIM_EVERY: u32 = 64;

struct Retired {
    instance: Box<dyn Instance>,
    model: String,
    number: String,
    size: u64,
}

/// Takes instances for destruction. Cheap to clone.
#[derive(Clone)]
pub(super) struct Reaper {
    sender: Sender<Retired>,
    metrics: Arc<Metrics>,
}

impl Reaper {
    /// Starts the thread.
    pub(super) fn start(metrics: Arc<Metrics>) -> Self {
        let (sender, receiver) = crossbeam_channel::unbounded::<Retired>();
        let reaper = Self { sender, metrics: Arc::clone(&metrics) };
        let run = move || {
            step_back(19);
            let mut small = 0;
            for retired in receiver {
                drop(retired.instance);
                small += 1;
                if retired.size >= TRIM_FROM || small >= TRIM_EVERY {
                    trim_heap();
                    small = 0;
                }
                metrics.version_reaped(&retired.model, &retired.number);
                metrics.loaded().dec();
                tracing::debug!(model = retired.model, version = retired.number, "reaped");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("baton-reaper".to_owned()).spawn(run) {
            tracing::error!(
                "cannot start the reaper thread: {error}; retired versions are destroyed where they end"
            );
        }
        reaper
    }

    pub(super) fn destroy(&self, instance: Box<dyn Instance>, identity: &Identity, size: u64) {
        let retired = Retired {
            instance,
            model: identity.model.to_string(),
            number: identity.number_text.to_string(),
            size,
        };
        // Fails only without a reaper thread; the instance is destroyed here then.
        if self.sender.send(retired).is_err() {
            self.metrics.loaded().dec();
        }
    }
}
