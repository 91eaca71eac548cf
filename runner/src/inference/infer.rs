//! The one `infer()`. Every protocol's requests come through here: address, checks, where it runs, what is counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};

use super::compute::Compute;
use crate::bundle::Digest;
use crate::config::Limits;
use crate::engine::{Cancellation, RunControl, Signature, Submission};
use crate::error::{Code, Error, Result};
use crate::model::{Models, Served, Version};
use crate::requestlog::RequestId;
use crate::store::VersionNumber;
use crate::telemetry::Phase;
use crate::tensor::Tensor;

/// Whom a request is for.
#[derive(Debug, Default, Clone, Copy)]
pub struct Address<'a> {
    pub model: &'a str,
    /// A version that must be the one being served; empty for whichever is.
    pub version: &'a str,
    /// A bundle that must be the one being served.
    pub digest: Option<&'a str>,
}

/// A run on a connection's own thread is stopped after this time: other requests of the thread wait for it.
const INLINE_BOUND: Duration = Duration::from_millis(30);

/// A served version, pinned for one request: what it names stays the same to the request's end.
#[derive(Debug, Clone)]
pub struct Target {
    served: Arc<Served>,
    version: Arc<Version>,
}

impl Target {
    /// The version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The model's entry in the snapshot.
    pub fn served(&self) -> &Served {
        &self.served
    }

    /// Does the model have a request log, so that its requests have names?
    pub fn is_logged(&self) -> bool {
        self.version.request_log.is_some()
    }

    /// Refuses if the bundle is not the one that a request requires.
    fn require(self, digest: Option<&str>) -> Result<Self> {
        let identity = &self.version.identity;
        match digest {
            Some(required) if required != &*identity.digest_text => {
                let required: Digest = required.parse()?;
                Err(Error::new(
                    Code::DigestNotActive,
                    format!(
                        "model {} serves {}, the request requires {required}",
                        identity.model, identity.digest
                    ),
                ))
            }
            _ => Ok(self),
        }
    }
}

/// The outputs that a request asks for.
#[derive(Debug)]
pub enum Wanted {
    /// By name; all if none is named.
    Named(Vec<String>),
    /// By their positions in the signature.
    At(Vec<usize>),
}

impl Default for Wanted {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

/// A decoded request.
#[derive(Debug, Default)]
pub struct Inputs {
    pub tensors: Vec<(String, Tensor)>,
    pub outputs: Wanted,
    /// The caller's own time limit, counted from now.
    pub timeout: Option<Duration>,
    /// What the caller calls the request, or its codec has; looked at only if the model has a request log.
    pub request_id: Option<RequestId>,
}

/// Outputs and who made them.
#[derive(Debug)]
pub struct Answer {
    pub target: Target,
    /// Positions in the signature's outputs, and their tensors.
    pub outputs: Vec<(usize, Tensor)>,
    /// What the request is called in the request log, if the model has one.
    pub request_id: Option<RequestId>,
}

impl Answer {
    /// Named outputs.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let specs = &self.target.version.signature().outputs;
        self.outputs
            .iter()
            .filter_map(|(position, tensor)| Some((specs.get(*position)?.name.as_str(), tensor)))
    }
}

/// Answers requests. Cheap to clone; each connection thread has its own.
#[derive(Clone)]
pub struct Inference {
    models: Arc<Models>,
    compute: Compute,
    csv_places: Arc<Semaphore>,
}

impl std::fmt::Debug for Inference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Inference").finish_non_exhaustive()
    }
}

impl Inference {
    /// Starts the compute threads.
    pub fn start(models: Arc<Models>, compute_threads: usize) -> Self {
        let limits = models.limits();
        let compute = Compute::start(compute_threads, limits.queue);
        let csv_places = Arc::new(Semaphore::new(limits.csv_files));
        Self { models, compute, csv_places }
    }

    /// The life cycle behind it.
    pub fn models(&self) -> &Arc<Models> {
        &self.models
    }

    /// Places for CSV files being answered.
    pub(super) fn csv_places(&self) -> &Arc<Semaphore> {
        &self.csv_places
    }

    /// All limits.
    pub fn limits(&self) -> &Limits {
        self.models.limits()
    }

    /// Finds what is served under an address.
    ///
    /// # Errors
    /// `MODEL_UNKNOWN`, `MODEL_NOT_READY`, `VERSION_UNKNOWN`, `VERSION_NOT_ACTIVE`, `DIGEST_NOT_ACTIVE`, `BAD_DIGEST`.
    pub fn target(&self, address: Address<'_>) -> Result<Target> {
        let served = self.models.served(address.model)?;
        let version = Arc::clone(served.active()?);
        let identity = &version.identity;
        if !address.version.is_empty() && address.version != &*identity.number_text {
            let number: VersionNumber = address.version.parse()?;
            // Only refusals look at the catalogue.
            self.models.entry(&identity.model)?.record(&identity.model, number)?;
            return Err(Error::new(
                Code::VersionNotActive,
                format!(
                    "version {number} of model {} is not being served; version {} is",
                    identity.model, identity.number
                ),
            ));
        }
        Target { served, version }.require(address.digest)
    }

    /// Finds the typed method at a path, and the version that serves it.
    ///
    /// # Errors
    /// `ROUTE_UNKNOWN`, `MODEL_NOT_READY` while the server starts, `DIGEST_NOT_ACTIVE`, `BAD_DIGEST`.
    pub fn typed_target(&self, path: &str, digest: Option<&str>) -> Result<(Target, usize)> {
        let Some(route) = self.models.board().route(path) else {
            if !self.models.is_recovered() {
                return Err(Error::new(Code::ModelNotReady, "the server is starting"));
            }
            let shown: String = path.chars().take(200).collect();
            return Err(Error::new(
                Code::RouteUnknown,
                format!("there is no method or path {shown} on this port"),
            ));
        };
        let version = Arc::clone(route.served.active()?);
        Ok((Target { served: route.served, version }.require(digest)?, route.method))
    }

    /// Answers one request: decodes it against the version that was found for it, and runs that.
    ///
    /// # Errors
    /// Those of `decode`, of the checks against the signature, and of the run.
    pub async fn infer(
        &self,
        target: Target,
        decode: impl FnOnce(&Signature) -> Result<Inputs>,
    ) -> Result<Answer> {
        let metrics = Arc::clone(&target.version.metrics);
        let _in_flight = InFlight::enter(&metrics.in_flight);
        let answer = match decode(target.version.signature()) {
            Ok(inputs) => self.run(target, inputs).await,
            Err(error) => Err(error),
        };
        match &answer {
            Ok(answer) => {
                metrics.answered();
                answer.target.version.answers.inc();
            }
            Err(error) => metrics.failed(error.code()),
        }
        answer
    }

    async fn run(&self, target: Target, inputs: Inputs) -> Result<Answer> {
        let limits = self.models.limits();
        let Target { version, .. } = &target;
        let tensors = version.signature().arrange(inputs.tensors)?;
        let outputs = match inputs.outputs {
            Wanted::Named(names) => version.signature().select(names.iter().map(String::as_str))?,
            Wanted::At(positions) => positions,
        };
        let log = version.request_log.as_ref();
        let request_id = log.map(|_| inputs.request_id.unwrap_or_else(RequestId::generated));
        let sample = log.zip(request_id.clone()).and_then(|(log, id)| log.begin(id, &tensors));
        let bytes = tensors.iter().map(Tensor::byte_len).sum();
        let allowed = [inputs.timeout, version.settings.request_timeout()];
        let time = allowed.into_iter().flatten().fold(limits.request_time, Duration::min);
        let deadline = Instant::now() + time;

        let cancellation = Cancellation::default();
        let control =
            RunControl { deadline, cancelled: Some(cancellation.clone()), output_bytes: limits.tensor_bytes };
        let work = Work { version: Arc::clone(version), tensors, outputs: outputs.clone(), bytes, control };
        // A thread hop doubles the CPU of a small run, a slow run stalls every other request of its thread.
        let inline = version.queue().is_none() && version.cost().estimate(bytes) < limits.inline_run;
        let first = inline.then(|| work.run(Duration::ZERO, deadline.min(Instant::now() + INLINE_BOUND)));
        let tensors = match first {
            // Not as fast on this input as it was before: a run has no effects, so it is begun again elsewhere.
            Some(Err(error)) if error.code() == Code::Deadline && Instant::now() < deadline => None,
            Some(result) => Some(result?),
            None => None,
        };
        let tensors = if let Some(tensors) = tensors {
            tensors
        } else {
            let abandon = AbandonOnDrop(cancellation);
            let result = tokio::time::timeout(time, self.compute.run(work)).await;
            let tensors = result.unwrap_or_else(|_| {
                Err(Error::new(Code::Deadline, "the answer was not ready before the deadline"))
            })?;
            abandon.disarm();
            tensors
        };
        let outputs: Vec<(usize, Tensor)> = outputs.into_iter().zip(tensors).collect();
        if let Some(sample) = sample {
            sample.finish(&outputs);
        }
        Ok(Answer { target, outputs, request_id })
    }
}

/// A run that is ready to go, wherever it goes.
pub(super) struct Work {
    version: Arc<Version>,
    tensors: Vec<Tensor>,
    outputs: Vec<usize>,
    bytes: usize,
    control: RunControl,
}

impl Work {
    /// Does the model run in workers of its own?
    pub(super) fn has_queue(&self) -> bool {
        self.version.queue().is_some()
    }

    /// Hands the run to the model's workers; `answer` gets its result.
    pub(super) fn submit(self, answer: oneshot::Sender<Result<Vec<Tensor>>>) -> Result<()> {
        let Work { version, tensors, outputs, control, .. } = self;
        let metrics = Arc::clone(&version.metrics);
        let done = move |result, queued: Duration, time: Duration| {
            metrics.phase(Phase::Queue, queued);
            metrics.phase(Phase::Compute, time);
            let _ = answer.send(result);
        };
        let submission = Submission { inputs: tensors, outputs, control, done: Box::new(done) };
        match version.queue() {
            Some(queue) => queue.submit(submission),
            None => Err(Error::new(Code::Internal, "the model has no workers")),
        }
    }

    /// When the request itself ends.
    pub(super) fn deadline(&self) -> Instant {
        self.control.deadline
    }

    /// Runs until `deadline`, if that is before the request's own.
    pub(super) fn run(&self, queued: Duration, deadline: Instant) -> Result<Vec<Tensor>> {
        let start = Instant::now();
        let control = RunControl { deadline: deadline.min(self.control.deadline), ..self.control.clone() };
        if start >= control.deadline {
            return Err(Error::new(Code::Deadline, "the deadline passed while the request was waiting"));
        }
        let result = self.version.run(&self.tensors, &self.outputs, &control);
        let time = start.elapsed();
        self.version.cost().observe(self.bytes, time);
        self.version.metrics.phase(Phase::Compute, time);
        if !queued.is_zero() {
            self.version.metrics.phase(Phase::Queue, queued);
        }
        result
    }
}

/// Stops the run when the request's future is dropped: nobody waits for the answer any more.
struct AbandonOnDrop(Cancellation);

impl AbandonOnDrop {
    fn disarm(self) {
        // Forgetting leaks one reference count each time; taking the value out does not.
        drop(std::mem::take(&mut std::mem::ManuallyDrop::new(self).0));
    }
}

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

struct InFlight<'a>(&'a prometheus::IntGauge);

impl<'a> InFlight<'a> {
    fn enter(gauge: &'a prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
