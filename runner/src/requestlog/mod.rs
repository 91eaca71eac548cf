//! The request log: samples of what models were asked and answered, for the next dataset (`docs/feedback.md`).
//!
//! ```text
//! plan    what of a model's requests is kept, under which names, and what is masked
//! line    a sampled request as lines of JSON (writer's thread)
//! files   the folder: files by model, rotated, bounded in all
//! writer  the one thread that does both
//! ```
//! Serving comes first. A request copies what is kept of it and puts that into a bounded queue, without a lock and
//! without a word to the writer, which looks by itself; what does not fit is dropped and counted. The writer polls
//! instead of sleeping in the queue because waking a thread costs the request a system call and the queue's lock. A disk
//! that fails is counted and told once a minute. Without `--request-log`, or for a model without `[request_log]`, a
//! request pays for one look at an empty option.

mod files;
mod line;
mod plan;
#[cfg(test)]
mod testing;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use crossbeam_channel::Sender;
use sha2::{Digest, Sha256};

pub use plan::Plan;

use crate::config::{Limits, RequestLogConfig};
use crate::error::{Code, Error, Result};
use crate::store::ModelName;
use crate::telemetry::RequestLogMetrics;
use crate::tensor::{Elements, Tensor};
use files::Folder;
use line::Record;
use writer::Writer;

/// Bytes that a salt has at least.
const LEAST_SALT: usize = 16;
/// Bytes that a salt has at most.
const MOST_SALT: u64 = 4096;
/// How long the end of the process waits for the disk.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// What a request is called in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    text: Arc<str>,
    /// The number of the first row of this piece, if the request is a file that is answered in pieces.
    piece: Option<u64>,
}

impl RequestId {
    /// The caller's own name for a request: not empty, within the limit, no control characters.
    pub fn given(text: &str, limits: &Limits) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= limits.request_id;
        (fits && !text.chars().any(char::is_control)).then(|| Self { text: text.into(), piece: None })
    }

    /// A new name.
    pub fn generated() -> Self {
        Self { text: uuid::Uuid::new_v4().to_string().into(), piece: None }
    }

    /// The name of message `number`, from 0, of a stream that is called so.
    #[must_use]
    pub fn message(&self, number: u64) -> Self {
        Self { text: format!("{}/{number}", self.text).into(), piece: None }
    }

    /// A piece of the request, from this row on.
    #[must_use]
    pub fn piece(&self, first_row: u64) -> Self {
        Self { text: Arc::clone(&self.text), piece: Some(first_row) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Is the request among this share? Decided by its name alone, so that one that is sent again meets the same choice.
    fn is_sampled(&self, share: f64) -> bool {
        let digest = Sha256::digest(self.text.as_bytes());
        let number = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        // 53 bits are what a float holds; 1.0 is above all of them, 0.0 above none.
        (((number >> 11) as f64) / (1_u64 << 53) as f64) < share
    }
}

/// The secret that is hashed with masked values.
pub struct Salt(Vec<u8>);

impl Salt {
    #[cfg(test)]
    fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Reads the file; a line's end at its end is no part of it.
    fn read(path: &Path) -> Result<Self> {
        let bad = |text: String| Error::new(Code::BadConfig, format!("--request-log-salt-file: {text}"));
        let size = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?.len();
        if size > MOST_SALT {
            return Err(bad(format!("the file has {size} bytes, at most {MOST_SALT} are read")));
        }
        let mut bytes = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
        while bytes.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
            bytes.pop();
        }
        if bytes.len() < LEAST_SALT {
            return Err(bad(format!("the secret needs at least {LEAST_SALT} bytes")));
        }
        Ok(Self(bytes))
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The log of a server. Cheap to clone.
#[derive(Clone)]
pub struct RequestLog(Arc<Shared>);

struct Shared {
    queue: Sender<Record>,
    /// Bytes of the tensors in the queue.
    queued: Arc<AtomicUsize>,
    most_queued: usize,
    salt: Option<Salt>,
    metrics: RequestLogMetrics,
}

impl std::fmt::Debug for RequestLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RequestLog").finish_non_exhaustive()
    }
}

/// Ends the writer.
#[derive(Debug)]
pub struct RequestLogEnd(writer::Stop);

impl RequestLogEnd {
    /// Writes what was accepted and closes the files. Waits for a slow disk, but not for ever.
    pub fn close(self) {
        if !self.0.within(CLOSE_TIME) {
            tracing::error!("the request log was not written to its end");
        }
    }
}

impl RequestLog {
    /// Starts the writer. A folder that cannot be written now is no reason not to serve: it is tried again.
    ///
    /// # Errors
    /// `BAD_CONFIG` for a salt file that cannot be used, or if another process writes the folder.
    pub fn start(
        config: &RequestLogConfig,
        limits: &Limits,
        metrics: RequestLogMetrics,
    ) -> Result<(Self, RequestLogEnd)> {
        let salt = config.salt_file.as_deref().map(Salt::read).transpose()?;
        let folder =
            Folder::new(&config.folder, config.max_bytes, limits.request_log_file, limits.request_log_age);
        let (queue, records) = crossbeam_channel::bounded(limits.request_log_queue);
        let queued = Arc::new(AtomicUsize::new(0));
        let writer = Writer::new(
            records,
            Arc::clone(&queued),
            folder,
            metrics.clone(),
            limits.request_log_queue_bytes,
        )?;
        let stop = writer.start()?;
        let most_queued = limits.request_log_queue_bytes;
        let shared = Shared { queue, queued, most_queued, salt, metrics };
        Ok((Self(Arc::new(shared)), RequestLogEnd(stop)))
    }

    /// Can this plan be followed?
    ///
    /// # Errors
    /// `REQUEST_LOG_SALT` if it hashes and the server has no secret.
    pub fn check(&self, plan: &Plan) -> Result<()> {
        if !plan.needs_salt() || self.0.salt.is_some() {
            return Ok(());
        }
        Err(Error::new(
            Code::RequestLogSalt,
            "request_log.mask asks for hash, and the server was started without --request-log-salt-file",
        ))
    }

    /// The log of one version.
    pub fn of(&self, model: &ModelName, version: &str, digest: &str, plan: Arc<Plan>) -> ModelLog {
        let mut identity = Vec::new();
        for (key, value) in [("model", model.as_str()), ("version", version), ("digest", digest)] {
            identity.extend_from_slice(format!(",\"{key}\":").as_bytes());
            line::put_text(value, &mut identity);
        }
        ModelLog { log: self.clone(), model: model.clone(), identity: identity.into(), plan }
    }
}

/// What one version keeps of its requests.
#[derive(Clone)]
pub struct ModelLog {
    log: RequestLog,
    model: ModelName,
    /// Model, version and digest as members of a JSON object, each behind a comma.
    identity: Arc<[u8]>,
    plan: Arc<Plan>,
}

/// A request that is sampled and has no answer yet.
pub struct Sample<'a> {
    log: &'a ModelLog,
    id: RequestId,
    inputs: Vec<Option<Tensor>>,
    bytes: usize,
    rows: usize,
}

impl ModelLog {
    fn salt(&self) -> Option<&Salt> {
        self.log.0.salt.as_ref()
    }

    /// Decides whether a request is kept, and copies what is kept of its inputs, which are in the model's order.
    ///
    /// Copied, because a small tensor can be a slice of a large message that would stay in memory with it.
    pub fn begin(&self, id: RequestId, inputs: &[Tensor]) -> Option<Sample<'_>> {
        if !id.is_sampled(self.plan.sample) {
            return None;
        }
        let side = &self.plan.inputs;
        let counts = side.counts_rows.iter().copied();
        let rows = line::rows(inputs.iter().zip(counts));
        let (copies, bytes) = self.copies(side, inputs.iter().enumerate(), inputs.len(), rows, 0)?;
        Some(Sample { log: self, id, inputs: copies, bytes, rows })
    }

    /// Copies of what is kept, by position, and their bytes; `None`, counted, if the queue has no room for them.
    fn copies<'a>(
        &self,
        side: &plan::Side,
        tensors: impl Iterator<Item = (usize, &'a Tensor)> + Clone,
        positions: usize,
        rows: usize,
        already: usize,
    ) -> Option<(Vec<Option<Tensor>>, usize)> {
        let shared = &self.log.0;
        let kept = tensors.filter(|(position, _)| side.keeps(*position));
        let bytes = kept.clone().map(|(_, tensor)| tensor.byte_len()).sum::<usize>();
        let queued = shared.queued.load(Ordering::Relaxed);
        if queued.saturating_add(already).saturating_add(bytes) > shared.most_queued {
            shared.metrics.dropped.inc_by(rows as u64);
            return None;
        }
        let mut copies = vec![None; positions];
        for (position, tensor) in kept {
            if let Some(place) = copies.get_mut(position) {
                *place = detached(tensor);
            }
        }
        Some((copies, bytes))
    }

    #[cfg(test)]
    fn detached(plan: Arc<Plan>, salt: Option<Salt>) -> Self {
        let metrics = crate::telemetry::Metrics::new().expect("metrics").request_log();
        let (queue, _) = crossbeam_channel::bounded(1);
        let shared = Shared { queue, queued: Arc::default(), most_queued: 1 << 20, salt, metrics };
        RequestLog(Arc::new(shared)).of(&"iris".parse().expect("a name"), "3", "sha256:0", plan)
    }
}

impl Sample<'_> {
    /// Hands the request with its answer to the writer, or drops it if the queue is full. `outputs` are positions in
    /// the signature and their tensors.
    pub fn finish(self, outputs: &[(usize, Tensor)]) {
        let (plan, shared) = (&self.log.plan, &self.log.log.0);
        let counts = |position: usize| plan.outputs.counts_rows.get(position).copied().unwrap_or(false);
        // Outputs that count other things than rows make the request one row.
        let agrees = |(position, tensor): &(usize, Tensor)| {
            !counts(*position) || tensor.shape().first().is_some_and(|size| *size == self.rows as i64)
        };
        let rows = if outputs.iter().all(agrees) { self.rows } else { 1 };
        let all = outputs.iter().map(|(position, tensor)| (*position, tensor));
        let positions = plan.outputs.counts_rows.len();
        let Some((outputs, bytes)) = self.log.copies(&plan.outputs, all, positions, rows, self.bytes) else {
            return;
        };
        let bytes = self.bytes + bytes;
        let record = Record {
            log: self.log.clone(),
            id: self.id,
            time: SystemTime::now(),
            rows,
            inputs: self.inputs,
            outputs,
            bytes,
        };
        shared.queued.fetch_add(bytes, Ordering::Relaxed);
        if shared.queue.try_send(record).is_err() {
            shared.queued.fetch_sub(bytes, Ordering::Relaxed);
            shared.metrics.dropped.inc_by(rows as u64);
        }
    }
}

/// The same tensor in memory of its own.
fn detached(tensor: &Tensor) -> Option<Tensor> {
    let shape = tensor.shape().to_vec();
    match tensor.elements() {
        Elements::Raw(bytes) => Tensor::raw(tensor.dtype(), shape, Bytes::copy_from_slice(bytes)).ok(),
        Elements::Text(elements) => {
            let all = Bytes::from(elements.concat());
            let mut from = 0;
            let slices = elements.iter().map(|element| {
                from += element.len();
                all.slice(from - element.len()..from)
            });
            Tensor::text(shape, slices.collect()).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_the_names_and_a_name_meets_one_choice() {
        let sampled = |share: f64| {
            (0..20_000).filter(move |number| {
                let id = RequestId { text: format!("request-{number}").into(), piece: None };
                assert_eq!(
                    id.is_sampled(share),
                    id.piece(5).is_sampled(share),
                    "a file is kept whole or not"
                );
                id.is_sampled(share)
            })
        };
        assert_eq!(sampled(0.0).count(), 0);
        assert_eq!(sampled(1.0).count(), 20_000);
        // Five standard deviations.
        for share in [0.01_f64, 0.1, 0.5] {
            let expected = 20_000.0 * share;
            let bound = 5.0 * (expected * (1.0 - share)).sqrt();
            let count = sampled(share).count() as f64;
            assert!((count - expected).abs() < bound, "{share}: {count}");
        }
        let larger: std::collections::HashSet<i32> = sampled(0.5).collect();
        assert!(
            sampled(0.1).all(|number| larger.contains(&number)),
            "a larger share has all of a smaller one"
        );
    }

    #[test]
    fn a_callers_name_is_taken_if_it_is_short_plain_text() {
        let limits = Limits::default();
        let taken = |text: &str| RequestId::given(text, &limits).is_some();
        assert!(taken("a") && taken("Zürich 1") && taken(&"x".repeat(256)));
        assert!(!taken("") && !taken(&"x".repeat(257)) && !taken("a\nb") && !taken("\u{7f}"));
    }

    #[test]
    fn a_copy_has_the_elements_and_none_of_the_message() {
        let message = Bytes::from(vec![7_u8; 1 << 20]);
        let tensor = Tensor::raw(crate::tensor::Dtype::Uint8, vec![4], message.slice(..4)).expect("a tensor");
        let copy = detached(&tensor).expect("a copy");
        assert_eq!(copy, tensor);
        drop(tensor);
        assert!(message.is_unique(), "nothing holds the message");
        let texts = vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")];
        let tensor = Tensor::text(vec![3], texts).expect("a tensor");
        assert_eq!(detached(&tensor), Some(tensor));
    }

    #[test]
    fn what_the_queue_has_no_room_for_is_dropped_and_counted() {
        let plan = Plan::new(
            &testing::settings("sample = 1\noutputs = []"),
            &testing::iris_signature(),
            Some(&testing::iris_contract()),
        );
        let plan = Arc::new(plan.expect("a plan"));
        let row = Tensor::raw(crate::tensor::Dtype::Fp32, vec![2, 4], vec![0; 32].into()).expect("a tensor");
        // Places, bytes, and how many of five requests of two rows and 32 bytes fit.
        for (places, most_queued, fit) in [(2, 1 << 20, 2), (100, 100, 3), (100, 0, 0)] {
            let metrics = crate::telemetry::Metrics::new().expect("metrics").request_log();
            let (queue, records) = crossbeam_channel::bounded(places);
            let queued = Arc::new(AtomicUsize::new(0));
            let shared = Shared {
                queue,
                queued: Arc::clone(&queued),
                most_queued,
                salt: None,
                metrics: metrics.clone(),
            };
            let name = "iris".parse().expect("a name");
            let log = RequestLog(Arc::new(shared)).of(&name, "1", "sha256:0", Arc::clone(&plan));
            for _ in 0..5 {
                if let Some(sample) = log.begin(RequestId::generated(), std::slice::from_ref(&row)) {
                    sample.finish(&[]);
                }
            }
            assert_eq!(records.len(), fit);
            assert_eq!(metrics.dropped.get(), 2 * (5 - fit as u64));
            assert_eq!(queued.load(Ordering::Relaxed), 32 * fit);
        }
    }

    #[test]
    fn a_salt_is_long_enough_and_ends_before_the_line_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("salt");
        for (text, expected) in [("0123456789abcdef\n", Some(16)), ("0123456789abcde\n\n", None), ("", None)]
        {
            std::fs::write(&path, text).expect("written");
            let salt = Salt::read(&path);
            assert_eq!(salt.as_ref().ok().map(|salt| salt.bytes().len()), expected, "{text:?}");
        }
        std::fs::write(&path, vec![b'x'; 5000]).expect("written");
        assert!(Salt::read(&path).is_err() && Salt::read(folder.path()).is_err());
    }
}
