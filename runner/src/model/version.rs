//! A loaded version, and what a request holds of it.
//!
//! The last user of a version may be a request thread, and must not pay for its destruction: dropping a [`Version`]
//! hands its instance to the reaper.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::IntCounter;

use super::reap::Reaper;
use crate::bundle::{Digest, Settings};
use crate::contract::Contract;
use crate::engine::RunControl;
use crate::engine::{Instance, Queue, Signature};
use crate::error::Result;
use crate::requestlog::{ModelLog, Plan};
use crate::store::{ModelName, VersionNumber};
use crate::telemetry::ModelMetrics;
use crate::tensor::Tensor;

/// Who a version is, in the forms that answers carry it.
#[derive(Debug, Clone)]
pub struct Identity {
    pub model: ModelName,
    pub number: VersionNumber,
    /// `number` in decimal, as clients of the Open Inference Protocol expect versions.
    pub number_text: Arc<str>,
    pub digest: Digest,
    pub digest_text: Arc<str>,
}

impl Identity {
    /// The identity of one version.
    pub fn new(model: ModelName, number: VersionNumber, digest: Digest) -> Self {
        Self {
            model,
            number,
            number_text: number.to_string().into(),
            digest,
            digest_text: digest.to_string().into(),
        }
    }
}

/// A version that is loaded, tested and warm.
pub struct Version {
    pub identity: Identity,
    pub settings: Settings,
    pub metrics: Arc<ModelMetrics>,
    pub answers: IntCounter,
    /// The typed services; `None` if there is no contract and none could be made.
    pub contract: Option<Contract>,
    /// Where samples of its requests go, if any do.
    pub request_log: Option<ModelLog>,
    /// Bytes of the artifact: what keeping it in memory is judged by.
    pub artifact_size: u64,
    cost: RunCost,
    /// Taken out by `drop` only.
    instance: Option<Box<dyn Instance>>,
    reaper: Reaper,
}

/// A loaded instance with what was measured while it warmed up.
pub(super) struct Prepared {
    pub instance: Box<dyn Instance>,
    pub contract: Option<Contract>,
    /// What of requests is kept, if the settings say so.
    pub log_plan: Option<Arc<Plan>>,
    pub run_time: Duration,
    pub run_bytes: usize,
    /// What the person who pushed should know.
    pub warnings: Vec<String>,
}

impl Version {
    pub(super) fn new(
        identity: Identity,
        settings: Settings,
        metrics: (Arc<ModelMetrics>, IntCounter),
        artifact_size: u64,
        request_log: Option<ModelLog>,
        prepared: Prepared,
        reaper: Reaper,
    ) -> Self {
        let (metrics, answers) = metrics;
        let cost = RunCost::new(prepared.run_time, prepared.run_bytes);
        Self {
            identity,
            settings,
            metrics,
            answers,
            contract: prepared.contract,
            request_log,
            artifact_size,
            cost,
            instance: Some(prepared.instance),
            reaper,
        }
    }

    fn instance(&self) -> &dyn Instance {
        // Only `drop` takes the instance out, and nobody can call this afterwards.
        #[allow(clippy::expect_used, reason = "an invariant of this type, see above")]
        self.instance.as_deref().expect("a version has its instance until it is dropped")
    }

    /// Inputs and outputs.
    pub fn signature(&self) -> &Signature {
        self.instance().signature()
    }

    /// The platform's name in the Open Inference Protocol.
    pub fn platform(&self) -> &'static str {
        self.instance().platform()
    }

    /// Runs the model; see [`Instance::run`].
    ///
    /// # Errors
    /// Those of [`Instance::run`].
    pub fn run(&self, inputs: &[Tensor], outputs: &[usize], control: &RunControl) -> Result<Vec<Tensor>> {
        self.instance().run(inputs, outputs, control)
    }

    /// The way in for requests, if the model runs in workers.
    pub fn queue(&self) -> Option<&dyn Queue> {
        self.instance().queue()
    }

    /// Do the model's workers die again and again?
    pub fn is_degraded(&self) -> bool {
        self.queue().is_some_and(|queue| queue.is_degraded())
    }

    /// What runs cost so far.
    pub fn cost(&self) -> &RunCost {
        &self.cost
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.reaper.destroy(instance, &self.identity, self.artifact_size);
        }
    }
}

impl std::fmt::Debug for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Version").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// A run of this length is no accident of scheduling.
const PLAINLY_SLOW: Duration = Duration::from_millis(10);

/// A moving estimate of a run's time, to decide whether a request may run on the connection's own thread.
#[derive(Debug)]
pub struct RunCost {
    nanos: AtomicU64,
    bytes: u64,
}

impl RunCost {
    fn new(time: Duration, bytes: usize) -> Self {
        Self { nanos: AtomicU64::new(nanos(time)), bytes: bytes.max(1) as u64 }
    }

    /// How many times the warm-up's input this one is: a batch of a thousand is not a fast run because one row is.
    fn scale(&self, bytes: usize) -> u64 {
        (bytes as u64 / self.bytes).max(1)
    }

    /// The expected time for an input of this many bytes.
    pub fn estimate(&self, bytes: usize) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed).saturating_mul(self.scale(bytes)))
    }

    /// A run took this long. Relaxed and racy on purpose: a lost sample does not matter.
    pub fn observe(&self, bytes: usize, time: Duration) {
        if time > PLAINLY_SLOW {
            // Its thread stood still for this long: the next one must not be run there.
            self.nanos.store(nanos(time) / self.scale(bytes), Ordering::Relaxed);
            return;
        }
        let old = self.nanos.load(Ordering::Relaxed);
        // One descheduled run on a busy machine must not turn a fast model into a slow one.
        let sample = (nanos(time) / self.scale(bytes)).min(old.saturating_mul(4).max(1_000));
        self.nanos.store((old.saturating_mul(7) + sample) / 8, Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_and_scales() {
        let cost = RunCost::new(Duration::from_micros(10), 100);
        assert_eq!(cost.estimate(50), Duration::from_micros(10));
        assert_eq!(cost.estimate(1_000), Duration::from_micros(100));
        for _ in 0..100 {
            cost.observe(100, Duration::from_micros(500));
        }
        assert!(cost.estimate(100) > Duration::from_micros(400), "{:?}", cost.estimate(100));
        let cost = RunCost::new(Duration::from_micros(10), 100);
        cost.observe(100, Duration::from_millis(5));
        assert!(cost.estimate(100) < Duration::from_micros(20), "one outlier: {:?}", cost.estimate(100));
        cost.observe(100, Duration::from_millis(300));
        assert!(cost.estimate(100) > Duration::from_millis(200), "slow at once: {:?}", cost.estimate(100));
    }
}
