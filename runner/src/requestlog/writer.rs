//! The thread that writes the request log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::files::Folder;
use super::line::Record;
use crate::engine::step_back;
use crate::error::{Code, Error, Result};
use crate::store::ModelName;
use crate::telemetry::RequestLogMetrics;

/// Between two looks at an empty queue. The queue takes several hundred thousand requests a second meanwhile.
const IDLE: Duration = Duration::from_millis(10);
/// Lines that are gathered before they are written.
const BATCH: usize = 256 << 10;
/// After a failure the disk is left alone for this long.
const PAUSE: Duration = Duration::from_secs(1);
/// Failures are told this often.
const COMPLAIN: Duration = Duration::from_secs(60);

/// Takes records out of the queue and writes their lines.
pub(super) struct Writer {
    records: Receiver<Record>,
    queued: Arc<AtomicUsize>,
    folder: Folder,
    metrics: RequestLogMetrics,
    /// Bytes that the lines of one request may have.
    request_bytes: usize,
    batches: BTreeMap<ModelName, Batch>,
    paused_until: Option<Instant>,
    complained: Option<Instant>,
    failed_since: u64,
}

#[derive(Default)]
struct Batch {
    lines: Vec<u8>,
    rows: u64,
}

/// Ends the thread.
#[derive(Debug)]
pub(super) struct Stop {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Stop {
    /// Tells the thread to finish; false if it does not within this time.
    pub(super) fn within(self, time: Duration) -> bool {
        self.stop.store(true, Ordering::Release);
        let deadline = Instant::now() + time;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(IDLE);
        }
        self.thread.is_finished()
    }
}

impl Writer {
    /// A writer for a folder that nobody else writes.
    ///
    /// # Errors
    /// `BAD_CONFIG` if another process does.
    pub(super) fn new(
        records: Receiver<Record>,
        queued: Arc<AtomicUsize>,
        folder: Folder,
        metrics: RequestLogMetrics,
        request_bytes: usize,
    ) -> Result<Self> {
        let mut writer = Self {
            records,
            queued,
            folder,
            metrics,
            request_bytes,
            batches: BTreeMap::new(),
            paused_until: None,
            complained: None,
            failed_since: 0,
        };
        match writer.folder.open() {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(Error::new(
                    Code::BadConfig,
                    "--request-log: another process writes this folder; each server needs one of its own",
                ));
            }
            Err(error) => writer.fail(0, &error),
        }
        Ok(writer)
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// `INTERNAL` if there can be none.
    pub(super) fn start(mut self) -> Result<Stop> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("baton-reqlog".to_owned())
            .spawn(move || {
                step_back(5);
                // Read before the queue is emptied, so that what came before the word is written.
                loop {
                    let ends = stopped.load(Ordering::Acquire);
                    let busy = self.turn();
                    if ends && !busy {
                        break;
                    }
                    if !busy {
                        self.folder.rotate_old();
                        std::thread::sleep(IDLE);
                    }
                }
                self.folder.close();
            })
            .map_err(|error| {
                Error::new(Code::Internal, "cannot start the thread of the request log").caused_by(error)
            })?;
        Ok(Stop { stop, thread })
    }

    /// Writes some of what waits; false if nothing did.
    fn turn(&mut self) -> bool {
        let mut bytes = 0;
        let mut any = false;
        while bytes < BATCH {
            let Ok(record) = self.records.try_recv() else { break };
            any = true;
            self.queued.fetch_sub(record.bytes, Ordering::Relaxed);
            let batch = self.batches.entry(record.log.model.clone()).or_default();
            let before = batch.lines.len();
            let written = record.write(self.request_bytes, &mut batch.lines);
            bytes += batch.lines.len() - before;
            batch.rows += written.lines as u64;
            self.metrics.dropped.inc_by(written.dropped as u64);
        }
        for (model, batch) in std::mem::take(&mut self.batches) {
            if batch.rows > 0 {
                self.write(&model, &batch);
            }
        }
        any
    }

    fn write(&mut self, model: &ModelName, batch: &Batch) {
        if self.paused_until.is_some_and(|until| Instant::now() < until) {
            self.failed_since += batch.rows;
            self.metrics.failed.inc_by(batch.rows);
            return;
        }
        match self.folder.append(model, &batch.lines) {
            Ok(()) => {
                self.paused_until = None;
                self.metrics.written.inc_by(batch.rows);
            }
            Err(error) => {
                self.metrics.failed.inc_by(batch.rows);
                self.fail(batch.rows, &error);
            }
        }
    }

    fn fail(&mut self, rows: u64, error: &std::io::Error) {
        self.failed_since += rows;
        self.paused_until = Some(Instant::now() + PAUSE);
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAIN) {
            tracing::error!(
                "the request log cannot be written: {error}; {} rows were lost",
                self.failed_since
            );
            self.complained = Some(Instant::now());
            self.failed_since = 0;
        }
    }
}
