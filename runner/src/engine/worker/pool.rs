//! The workers of one version behind the engine's trait: a bounded queue, and a lane a worker that takes from it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel as queue;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::lane::{FirstWords, Lane, read_signature};
use super::process::{Death, DeathKind, Process, signal};
use super::starter::Starter;
use super::{Worker, WorkerState, Workers};
use crate::engine::native::sealed;
use crate::engine::{Instance, Notify, Queue, RunControl, Signature, Submission, TensorSpec};
use crate::error::{Code, Error, Result};
use crate::telemetry::ModelMetrics;
use crate::tensor::Tensor;

/// Deaths in a row are forgotten after this time without another one, while a worker is there.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// For the lanes to end; longer means that something is very wrong, and waiting for it would be worse.
const ENDING: Duration = Duration::from_secs(10);

/// How a version's workers are to be run.
#[derive(Debug, Clone)]
pub(in crate::engine) struct PoolOptions {
    /// For logs.
    pub model: String,
    /// ONNX Runtime's library, for a model of it; else empty.
    pub onnxruntime: String,
    pub intra_threads: usize,
    pub load_time: Duration,
    pub count: usize,
    pub memory_bytes: u64,
    /// Deaths in a row that make the version degraded.
    pub restarts: u32,
    /// A run that takes longer ends its worker.
    pub run_time: Duration,
    /// Requests that may wait, and bytes of their inputs.
    pub queue: usize,
    pub queue_bytes: usize,
    pub metrics: Option<Arc<ModelMetrics>>,
    pub degraded: Option<Notify>,
}

/// A request on its way to a worker.
pub(super) struct Job {
    pub submission: Submission,
    pub queued: Instant,
    bytes: usize,
}

impl Job {
    fn new(submission: Submission) -> Self {
        let bytes = submission.inputs.iter().map(Tensor::byte_len).sum();
        Self { submission, queued: Instant::now(), bytes }
    }
}

/// What the lanes of a pool share.
pub(super) struct Shared {
    pub options: PoolOptions,
    pub artifact: File,
    jobs: (queue::Sender<Job>, queue::Receiver<Job>),
    /// Bytes of the inputs in `jobs`.
    waiting_bytes: AtomicUsize,
    /// Counts queued requests; a lane waits for it together with its worker's end.
    pub ready: OwnedFd,
    /// Readable from the pool's end on.
    pub stop: OwnedFd,
    /// Deaths since the last good answer of any worker.
    row: AtomicU32,
    last_death: Mutex<Option<Instant>>,
    signature: OnceLock<Signature>,
    shown: Vec<Mutex<Shown>>,
}

/// What others see of a lane.
#[derive(Default)]
struct Shown {
    state: WorkerState,
    pid: Option<u32>,
    restarts: u64,
    last_death: Option<String>,
    next_start: Option<Instant>,
}

/// The workers of one version.
pub(in crate::engine) struct Pool {
    lanes: Lanes,
    signature: Signature,
    platform: &'static str,
}

impl Pool {
    /// Starts the workers; returns when all have loaded the artifact.
    ///
    /// # Errors
    /// What a worker says of the artifact; `PREPARE_FAILED`, `PREPARE_DEADLINE`, `WORKER_LOST`.
    pub(in crate::engine) fn start(starter: &Starter, artifact: &[u8], options: PoolOptions) -> Result<Self> {
        let internal = |error: std::io::Error| {
            Error::new(Code::WorkerLost, "a worker cannot be started").caused_by(error)
        };
        let count = options.count;
        let shared = Arc::new(Shared {
            artifact: sealed(artifact).map_err(internal)?,
            jobs: queue::bounded(options.queue),
            waiting_bytes: AtomicUsize::new(0),
            ready: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE)
                .map_err(|error| internal(error.into()))?,
            stop: eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| internal(error.into()))?,
            row: AtomicU32::new(0),
            last_death: Mutex::default(),
            signature: OnceLock::new(),
            shown: (0..count).map(|_| Mutex::default()).collect(),
            options,
        });
        let (first, told) = channel();
        let (alive, ended) = channel();
        for index in 0..count {
            let lane = Lane { shared: Arc::clone(&shared), index };
            let (first, alive) = (first.clone(), alive.clone());
            starter.start(format!("baton-lane-{index}"), move || {
                let _alive = alive;
                lane.run(&first);
            });
        }
        drop((first, alive));
        let lanes = Lanes { shared, ended: Mutex::new(ended) };
        let words: Vec<FirstWords> = told.iter().take(count).collect::<Result<_>>()?;
        let words = words.first().filter(|_| words.len() == count);
        let words =
            words.ok_or_else(|| Error::new(Code::WorkerLost, "a worker's thread cannot be started"))?;
        let signature = read_signature(words)?;
        let platform = match words.platform.as_str() {
            "onnxruntime_onnx" => "onnxruntime_onnx",
            _ => "baton_native",
        };
        let _ = lanes.shared.signature.set(signature.clone());
        Ok(Self { lanes, signature, platform })
    }
}

/// The lanes of a pool; ended when dropped.
struct Lanes {
    shared: Arc<Shared>,
    /// Nothing is ever sent: it ends when the last lane has dropped its end.
    ended: Mutex<Receiver<()>>,
}

impl Drop for Lanes {
    fn drop(&mut self) {
        signal(&self.shared.stop);
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(ENDING) == Err(RecvTimeoutError::Timeout) {
            tracing::error!(model = self.shared.options.model, "a worker's thread does not end");
        }
    }
}

impl Instance for Pool {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn platform(&self) -> &'static str {
        self.platform
    }

    fn run(&self, inputs: &[Tensor], outputs: &[usize], control: &RunControl) -> Result<Vec<Tensor>> {
        let (answer, result) = channel();
        self.submit(Submission {
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            control: control.clone(),
            done: Box::new(move |result, _, _| {
                let _ = answer.send(result);
            }),
        })?;
        result.recv().unwrap_or_else(|_| Err(Error::new(Code::WorkerLost, "the model's workers are gone")))
    }

    fn queue(&self) -> Option<&dyn Queue> {
        Some(self)
    }
}

impl Queue for Pool {
    fn submit(&self, submission: Submission) -> Result<()> {
        let shared = &self.lanes.shared;
        if let Some(pause) = shared.all_down() {
            return Err(shared.down_error(pause));
        }
        let overloaded = |text: String| Err(Error::new(Code::Overloaded, text));
        let job = Job::new(submission);
        let (bytes, most) = (job.bytes, shared.options.queue_bytes);
        // One request may be as large as requests may be, if it is alone.
        let waiting = shared.waiting_bytes.fetch_add(bytes, Ordering::AcqRel);
        if waiting > 0 && waiting + bytes > most {
            shared.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
            return overloaded(format!(
                "{waiting} bytes of requests are waiting already, {most} is the limit"
            ));
        }
        if shared.jobs.0.try_send(job).is_err() {
            shared.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
            let most = shared.options.queue;
            return overloaded(format!("{most} requests are waiting already, which is the limit"));
        }
        signal(&shared.ready);
        Ok(())
    }

    fn workers(&self) -> Workers {
        let now = Instant::now();
        let worker = |shown: &Mutex<Shown>| {
            let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            Worker {
                state: shown.state,
                pid: shown.pid,
                restarts: shown.restarts,
                resident: shown.pid.map_or(0, Process::resident),
                last_death: shown.last_death.clone(),
                pause: shown.next_start.map(|next| next.saturating_duration_since(now)),
            }
        };
        let shared = &self.lanes.shared;
        Workers { list: shared.shown.iter().map(worker).collect(), degraded: shared.is_degraded() }
    }

    fn is_degraded(&self) -> bool {
        self.lanes.shared.is_degraded()
    }
}

impl Shared {
    /// The next request, if one is waiting.
    pub(super) fn take(&self) -> Option<Job> {
        let mut count = [0; 8];
        rustix::io::read(&self.ready, &mut count).ok()?;
        self.next()
    }

    fn next(&self) -> Option<Job> {
        let job = self.jobs.1.try_recv().ok()?;
        self.waiting_bytes.fetch_sub(job.bytes, Ordering::AcqRel);
        Some(job)
    }

    pub(super) fn output(&self, position: usize) -> Option<TensorSpec> {
        self.signature.get()?.outputs.get(position).cloned()
    }

    fn shown(&self, index: usize, change: impl FnOnce(&mut Shown)) {
        if let Some(shown) = self.shown.get(index) {
            change(&mut shown.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    pub(super) fn show(&self, index: usize, state: WorkerState, pid: Option<u32>) {
        self.shown(index, |shown| {
            shown.state = state;
            shown.pid = pid;
            shown.next_start = None;
        });
    }

    /// Counts a death.
    pub(super) fn died(&self, index: usize, death: &Death) {
        self.shown(index, |shown| {
            shown.state = WorkerState::Starting;
            shown.pid = None;
            shown.restarts += 1;
            shown.last_death = Some(death.cause.clone());
        });
        if let Some(metrics) = &self.options.metrics {
            metrics.worker_died(match death.kind {
                DeathKind::Crash => "crash",
                DeathKind::Memory => "memory",
                DeathKind::Overrun => "overrun",
                DeathKind::TooLong => "deadline",
            });
        }
    }

    /// A lane waits before it starts its worker again. If all do, nobody is there for those who wait in the queue.
    pub(super) fn down(&self, index: usize, next_start: Instant, cause: &str) {
        self.shown(index, |shown| {
            shown.state = WorkerState::Down;
            shown.pid = None;
            shown.next_start = Some(next_start);
        });
        if let Some(pause) = self.all_down() {
            tracing::warn!(
                model = self.options.model,
                "all workers are down ({cause}), the next start is in {pause:?}"
            );
            while let Some(job) = self.next() {
                let waited = job.queued.elapsed();
                (job.submission.done)(Err(self.down_error(pause)), waited, Duration::ZERO);
            }
        }
    }

    /// Time until a worker may be there again, if none is and none is being started.
    fn all_down(&self) -> Option<Duration> {
        let mut soonest: Option<Instant> = None;
        for shown in &self.shown {
            let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            let next = shown.next_start.filter(|_| shown.state == WorkerState::Down)?;
            soonest = Some(soonest.map_or(next, |soonest| soonest.min(next)));
        }
        soonest.map(|soonest| soonest.saturating_duration_since(Instant::now()))
    }

    fn down_error(&self, pause: Duration) -> Error {
        let row = self.row.load(Ordering::Relaxed);
        let cause = self
            .shown
            .iter()
            .find_map(|shown| shown.lock().unwrap_or_else(PoisonError::into_inner).last_death.clone());
        Error::new(
            Code::WorkerLost,
            format!(
                "the model's workers died {row} times in a row ({}); the next start is in {} s",
                cause.unwrap_or_default(),
                pause.as_secs() + 1
            ),
        )
    }

    /// A request was answered well: whatever died before, the model works.
    pub(super) fn worked(&self) {
        // Read first: the counter's place in memory is shared by all lanes.
        if self.row.load(Ordering::Relaxed) > 0
            && self.row.swap(0, Ordering::Relaxed) >= self.options.restarts
        {
            self.notify();
        }
    }

    /// When deaths in a row are forgotten, if there were some.
    pub(super) fn forgets_at(&self) -> Option<Instant> {
        let last = *self.last_death.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|_| self.row.load(Ordering::Relaxed) > 0).map(|last| last + FORGOTTEN)
    }

    /// Deaths in a row, with this one.
    pub(super) fn one_more_death(&self) -> u32 {
        *self.last_death.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let row = self.row.fetch_add(1, Ordering::Relaxed) + 1;
        if row >= self.options.restarts {
            self.notify();
        }
        row
    }

    fn notify(&self) {
        if let Some(degraded) = &self.options.degraded {
            degraded.call();
        }
    }

    fn is_degraded(&self) -> bool {
        self.row.load(Ordering::Relaxed) >= self.options.restarts
    }

    /// Waits, unless the pool ends before. Did it?
    pub(super) fn stops_within(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let mut polled = [PollFd::new(&self.stop, PollFlags::IN)];
            match poll(&mut polled, Some(&timeout)) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(_) => {}
            }
        }
    }
}
