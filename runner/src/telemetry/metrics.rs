//! Every metric, by name, in one place. Rendered for Prometheus on `/metrics`; the protocol's statistics read the same
//! counters.
//!
//! What a request touches ([`ModelMetrics`]) is looked up once, when a version becomes active, and is atomics from
//! then on. Counters are kept per model and not per version, so that a swap never makes one go backwards; the one
//! series by version, [`Metrics::answers`], ends when the version was reaped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::error::{Code, Error, Result};

/// Seconds; from an inline run of a tiny model to the longest request allowed.
const BUCKETS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Phases of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Queue,
    Compute,
    Encode,
}

/// A version's number and digest, as label values.
type VersionLabels = (Arc<str>, Arc<str>);

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    failures: IntCounterVec,
    phases: HistogramVec,
    in_flight: IntGaugeVec,
    generation: IntGaugeVec,
    answers: IntCounterVec,
    active: IntGaugeVec,
    swaps: IntCounterVec,
    publish_steps: HistogramVec,
    loaded: IntGauge,
    serving: IntGauge,
    ready: IntGauge,
    connections: IntGaugeVec,
    workers: IntGaugeVec,
    worker_deaths: IntCounterVec,
    worker_bytes: IntGaugeVec,
    pinned: IntGauge,
    store_alarms: IntCounter,
    request_log: IntCounterVec,
    /// Handed out once a model, so that counters go on over its versions.
    models: Mutex<HashMap<String, Arc<ModelMetrics>>>,
}

/// What requests to one model count into.
#[derive(Debug)]
pub struct ModelMetrics {
    pub requests: IntCounter,
    pub in_flight: IntGauge,
    queue: Histogram,
    compute: Histogram,
    encode: Histogram,
    failures: IntCounterVec,
    worker_deaths: IntCounterVec,
    model: String,
    /// Milliseconds since the epoch.
    last_answer: AtomicU64,
}

/// What became of the rows of sampled requests.
#[derive(Debug, Clone)]
pub struct RequestLogMetrics {
    pub written: IntCounter,
    /// The queue was full, or the row larger than its limit.
    pub dropped: IntCounter,
    /// The disk did not take them.
    pub failed: IntCounter,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// `INTERNAL` if two metrics have one name; the tests would have seen it.
    pub fn new() -> Result<Arc<Self>> {
        Self::register()
            .map(Arc::new)
            .map_err(|error| Error::new(Code::Internal, "cannot register metrics").caused_by(error))
    }

    fn register() -> prometheus::Result<Self> {
        fn keep<C: Collector + Clone + 'static>(
            registry: &Registry,
            metric: prometheus::Result<C>,
        ) -> prometheus::Result<C> {
            let metric = metric?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        }
        let registry = Registry::new();
        let r = &registry;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            keep(r, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            keep(r, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str| keep(r, IntGauge::new(name, help));
        let histograms = |name: &str, help: &str, labels: &[&str]| {
            keep(r, HistogramVec::new(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()), labels))
        };
        let metrics = Self {
            requests: counters("baton_requests_total", "Inference requests that were answered", &["model"])?,
            failures: counters(
                "baton_failures_total",
                "Inference requests that failed, by error code",
                &["model", "code"],
            )?,
            phases: histograms(
                "baton_phase_seconds",
                "Time of an inference request by phase",
                &["model", "phase"],
            )?,
            in_flight: gauges("baton_requests_in_flight", "Inference requests being worked on", &["model"])?,
            generation: gauges("baton_generation", "Generation that a model serves", &["model"])?,
            answers: counters(
                "baton_version_answers_total",
                "Answers by version, until it was reaped",
                &["model", "version"],
            )?,
            active: gauges(
                "baton_active_version",
                "1 for the version that is served",
                &["model", "version", "digest"],
            )?,
            swaps: counters(
                "baton_changes_total",
                "Pushes, activations, roll-backs, by outcome",
                &["model", "outcome"],
            )?,
            publish_steps: histograms("baton_publish_seconds", "Time of a push by step", &["step"])?,
            loaded: gauge(
                "baton_versions_loaded",
                "Versions in memory; those neither served nor kept ready are draining",
            )?,
            serving: gauge("baton_versions_serving", "Versions being served")?,
            ready: gauge("baton_versions_ready", "Earlier versions kept in memory for an instant roll-back")?,
            connections: gauges("baton_connections", "Open connections", &["port"])?,
            workers: gauges(
                "baton_workers",
                "Worker processes of the served version, by state",
                &["model", "state"],
            )?,
            worker_deaths: counters(
                "baton_worker_deaths_total",
                "Workers that died, by cause",
                &["model", "cause"],
            )?,
            worker_bytes: gauges(
                "baton_worker_resident_bytes",
                "Resident memory of the served version's workers",
                &["model"],
            )?,
            pinned: gauge(
                "baton_native_libraries_pinned",
                "Native libraries of earlier versions that stay mapped in the server's process",
            )?,
            store_alarms: keep(
                r,
                IntCounter::new("baton_store_alarms_total", "Damaged files found in the store"),
            )?,
            request_log: counters(
                "baton_request_log_rows_total",
                "Rows of sampled requests, by what became of them",
                &["result"],
            )?,
            models: Mutex::default(),
            registry,
        };
        #[cfg(target_os = "linux")]
        metrics.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// The counters of one model.
    pub fn model(&self, model: &str) -> Arc<ModelMetrics> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let known = models.entry(model.to_owned());
        Arc::clone(known.or_insert_with(|| Arc::new(self.new_model(model))))
    }

    fn new_model(&self, model: &str) -> ModelMetrics {
        ModelMetrics {
            requests: self.requests.with_label_values(&[model]),
            in_flight: self.in_flight.with_label_values(&[model]),
            queue: self.phases.with_label_values(&[model, "queue"]),
            compute: self.phases.with_label_values(&[model, "compute"]),
            encode: self.phases.with_label_values(&[model, "encode"]),
            failures: self.failures.clone(),
            worker_deaths: self.worker_deaths.clone(),
            model: model.to_owned(),
            last_answer: AtomicU64::new(0),
        }
    }

    /// Counts the answers of one version.
    pub fn answers(&self, model: &str, version: &str) -> IntCounter {
        self.answers.with_label_values(&[model, version])
    }

    /// A version is gone: its series end.
    pub fn version_reaped(&self, model: &str, version: &str) {
        let _ = self.answers.remove_label_values(&[model, version]);
    }

    /// A model now serves another version, or none.
    pub fn switched(
        &self,
        model: &str,
        generation: u64,
        old: Option<VersionLabels>,
        new: Option<VersionLabels>,
    ) {
        if let Some((version, digest)) = old {
            let _ = self.active.remove_label_values(&[model, &version, &digest]);
            self.serving.dec();
        }
        if let Some((version, digest)) = new {
            self.active.with_label_values(&[model, &version, &digest]).set(1);
            self.serving.inc();
        }
        self.generation.with_label_values(&[model]).set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    /// A push, activation or roll-back ended.
    pub fn changed(&self, model: &str, outcome: &str) {
        self.swaps.with_label_values(&[model, outcome]).inc();
    }

    /// A step of a push took this long.
    pub fn publish_step(&self, step: &str, time: Duration) {
        self.publish_steps.with_label_values(&[step]).observe(time.as_secs_f64());
    }

    /// Versions in memory.
    pub fn loaded(&self) -> &IntGauge {
        &self.loaded
    }

    /// Earlier versions kept in memory.
    pub fn ready(&self) -> &IntGauge {
        &self.ready
    }

    /// Open connections of a port.
    pub fn connections(&self, port: &str) -> IntGauge {
        self.connections.with_label_values(&[port])
    }

    /// What the workers of one model do: how many are in which state, and their resident bytes. To be called for every
    /// model that has some, after [`Metrics::forget_workers`].
    pub fn workers(&self, model: &str, states: &[&str], resident: u64) {
        for state in states {
            self.workers.with_label_values(&[model, state]).inc();
        }
        self.worker_bytes.with_label_values(&[model]).set(i64::try_from(resident).unwrap_or(i64::MAX));
    }

    /// Before the workers are counted anew.
    pub fn forget_workers(&self) {
        self.workers.reset();
        self.worker_bytes.reset();
    }

    /// Libraries that stay mapped.
    pub fn pinned_libraries(&self) -> &IntGauge {
        &self.pinned
    }

    /// Damaged files found in the store.
    pub fn store_alarms(&self) -> &IntCounter {
        &self.store_alarms
    }

    /// What the request log counts into. Its series exist from this call on.
    pub fn request_log(&self) -> RequestLogMetrics {
        let counter = |result| self.request_log.with_label_values(&[result]);
        RequestLogMetrics {
            written: counter("written"),
            dropped: counter("dropped"),
            failed: counter("failed"),
        }
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

impl ModelMetrics {
    /// A request was answered.
    pub fn answered(&self) {
        self.requests.inc();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
        self.last_answer.store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When the last request was answered, in milliseconds since the epoch; 0 if none was.
    pub fn last_answer_ms(&self) -> u64 {
        self.last_answer.load(Ordering::Relaxed)
    }

    /// A phase took this long.
    pub fn phase(&self, phase: Phase, time: Duration) {
        self.histogram(phase).observe(time.as_secs_f64());
    }

    /// Count and total nanoseconds of a phase.
    pub fn totals(&self, phase: Phase) -> (u64, u64) {
        let histogram = self.histogram(phase);
        (histogram.get_sample_count(), (histogram.get_sample_sum() * 1e9) as u64)
    }

    fn histogram(&self, phase: Phase) -> &Histogram {
        match phase {
            Phase::Queue => &self.queue,
            Phase::Compute => &self.compute,
            Phase::Encode => &self.encode,
        }
    }

    /// A request failed.
    pub fn failed(&self, code: Code) {
        self.failures.with_label_values(&[&self.model, code.id()]).inc();
    }

    /// A worker died.
    pub fn worker_died(&self, cause: &str) {
        self.worker_deaths.with_label_values(&[&self.model, cause]).inc();
    }

    /// Requests that failed, of all codes.
    pub fn failures(&self) -> u64 {
        let of_model = |family: &prometheus::proto::MetricFamily| -> u64 {
            let metrics = family.get_metric().iter();
            let ours =
                metrics.filter(|metric| metric.get_label().iter().any(|label| label.value() == self.model));
            ours.map(|metric| metric.get_counter().get_value() as u64).sum()
        };
        self.failures.collect().iter().map(of_model).sum()
    }
}
