//! A model under comparison: loaded, run over the holdout, timed.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use baton_runner::bundle::{EngineKind, Execution, Settings, WorkerSettings};
use baton_runner::config::Limits;
use baton_runner::engine::{Cancellation, EngineOptions, Engines, Instance, RunControl};
use baton_runner::error::{Code, Error};
use baton_runner::tensor::Tensor;
use bytes::Bytes;

use super::answers::{Collected, Output, Unlike};
use super::holdout::Holdout;
use super::metric::Metrics;
use super::rule::{Reason, Rule};
use crate::function::Failure;

/// For one of the two models, with loading; both and the dry run that follows have to fit into the 300 s of a call.
const TIME: Duration = Duration::from_secs(110);
/// Rows that go into one run at most.
const BATCH: usize = 256;
/// While runs are quicker the next takes twice the rows: no run is long, so that a slow model is not cut off in its first one.
const QUICK: Duration = Duration::from_millis(250);
/// Rows that are timed one by one, and for how long.
const TIMED: usize = 50;
const TIMING: Duration = Duration::from_secs(10);
/// MB; a model that is served in the runner's own process has no limit of its own there.
const NO_LIMIT: u64 = 1 << 20;

/// A model, and how it is to be run: its `baton.toml`.
#[derive(Clone)]
pub(super) struct Subject {
    pub artifact: Bytes,
    pub settings: Option<Bytes>,
    /// The columns that it sees, in its order.
    pub features: Option<Vec<String>>,
    /// What the columns of its scores stand for, if the model itself does not say.
    pub classes: Option<Vec<String>>,
}

/// What came of a comparison.
pub(super) struct Compared {
    pub ours: Metrics,
    pub theirs: Option<Metrics>,
    /// Why there are none of theirs.
    pub left_out: Option<String>,
    pub reasons: Vec<Reason>,
}

/// Runs candidate and active model over the holdout, which is read for the columns that a model sees, and judges. A model that cannot be run is a reason to refuse the candidate, the
/// active one too: what was not compared is not replaced. Only an active model that the holdout does not fit (it serves another task)
/// is left out.
///
/// # Errors
/// [`Failure::Later`] if this machine lacks the engine, or nobody waits any more.
pub(super) fn compare(
    candidate: &Subject,
    active: Option<&Subject>,
    holdout: impl Fn(Option<&[String]>) -> Result<Holdout, Failure>,
    rule: &Rule,
    cancelled: &Cancellation,
) -> Result<Compared, Failure> {
    let not_compared = |ours, left_out: String, reason| Compared {
        ours,
        theirs: None,
        left_out: Some(left_out),
        reasons: Vec::from_iter(reason),
    };
    let rows = holdout(candidate.features.as_deref())?;
    let ours = match measure(candidate, &rows, rule, cancelled) {
        Ok(ours) => ours,
        Err(Unfit::Later(text)) => return Err(Failure::Later(text)),
        Err(Unfit::Model(code, text)) => {
            let left_out = "the candidate could not be measured".to_owned();
            return Ok(not_compared(Metrics::none(), left_out, Some(Reason { code, text })));
        }
    };
    // The same rows, with the columns of that model, which may be others or come in another order.
    let measure_active = |active: &Subject| match holdout(active.features.as_deref()) {
        Ok(rows) => measure(active, &rows, rule, cancelled),
        Err(Failure::Never(text)) => Err(unfit(text)),
        Err(Failure::Later(text)) => Err(Unfit::Later(text)),
    };
    let theirs = match active.map(measure_active).transpose() {
        Ok(theirs) => theirs,
        Err(Unfit::Later(text)) => return Err(Failure::Later(text)),
        Err(Unfit::Model(code, text)) if code == UNFIT => {
            let reasons = rule.judge(&ours, None);
            return Ok(Compared { reasons, ..not_compared(ours, text, None) });
        }
        Err(Unfit::Model(code, text)) => {
            let text = format!("the active model cannot be compared with: {text} ({code})");
            let reason = Reason::new("ACTIVE_FAILED", &text);
            return Ok(not_compared(ours, text, Some(reason)));
        }
    };
    let reasons = rule.judge(&ours, theirs.as_ref());
    Ok(Compared { ours, theirs, left_out: None, reasons })
}

/// The holdout is none for this model.
pub(super) const UNFIT: &str = "HOLDOUT_UNFIT";

/// Why a model could not be measured.
enum Unfit {
    /// Nothing is said of the model.
    Later(String),
    /// A code and a text.
    Model(String, String),
}

fn unfit(text: String) -> Unfit {
    Unfit::Model(UNFIT.into(), text)
}

impl From<Unlike> for Unfit {
    fn from(unlike: Unlike) -> Self {
        match unlike {
            Unlike::Strange(text) => unfit(text),
            Unlike::Unnamed(text) => Unfit::Model("NO_METRIC".into(), text),
        }
    }
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Self {
        Unfit::Model(error.code().id().to_owned(), error.text().to_owned())
    }
}

fn measure(
    subject: &Subject,
    holdout: &Holdout,
    rule: &Rule,
    cancelled: &Cancellation,
) -> Result<Metrics, Unfit> {
    let limits = Limits::default();
    let deadline = Instant::now() + TIME;
    let settings = Settings::parse(subject.settings.as_deref().unwrap_or_default())?;
    let instance = load(subject, &settings, &limits)?;
    let mapping = holdout.fit(instance.signature()).map_err(unfit)?;
    let output = Output::of(instance.signature(), subject.classes.as_deref(), rule).map_err(unfit)?;
    let mut most = match mapping.batch() {
        None => BATCH,
        Some(1) => 1,
        Some(rows) => return Err(unfit(format!("the model takes exactly {rows} rows at a time"))),
    };
    let run = |inputs: &[Tensor]| {
        let control = RunControl {
            deadline: deadline.min(Instant::now() + limits.request_time),
            cancelled: Some(cancelled.clone()),
            output_bytes: limits.tensor_bytes,
        };
        instance.run(inputs, &output.positions, &control)
    };
    let mut collected = Collected::default();
    let (mut first, mut batch) = (0, 1);
    while first < holdout.len() {
        if cancelled.is_cancelled() {
            return Err(Unfit::Later("nobody waits for the comparison any more".into()));
        }
        let rows = first..(first + batch).min(holdout.len());
        let inputs = holdout.tensors(&mapping, rows.clone()).map_err(unfit)?;
        let started = Instant::now();
        let ran = run(&inputs);
        if Instant::now() >= deadline {
            let text = format!(
                "{first} of {} rows in {} s, with loading; max_rows in the rule takes fewer",
                holdout.len(),
                TIME.as_secs()
            );
            return Err(Unfit::Model("SLOW".into(), text));
        }
        match ran {
            Err(error) if batch > 1 && is_of_size(error.code()) => {
                most = batch / 2;
                batch = most;
            }
            outputs => {
                collected.add(&output, &outputs?, rows.len()).map_err(unfit)?;
                first = rows.end;
                if started.elapsed() < QUICK {
                    batch = most.min(batch * 2);
                }
            }
        }
    }
    let (answers, truth) = collected.answers(&output, &holdout.truth)?;
    let mut times: Vec<f64> = Vec::new();
    let timing = deadline.min(Instant::now() + TIMING);
    for row in 0..holdout.len().min(TIMED) {
        if row > 0 && (Instant::now() > timing || cancelled.is_cancelled()) {
            break;
        }
        let inputs = holdout.tensors(&mapping, row..row + 1).map_err(unfit)?;
        let started = Instant::now();
        run(&inputs)?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let latency_ms = times.get(times.len() / 2).copied().unwrap_or(0.0);
    if let Some(bound) = settings.request_timeout().filter(|bound| latency_ms > bound.as_secs_f64() * 1e3) {
        let text = format!(
            "a row takes {latency_ms:.1} ms, its baton.toml ends requests after {} ms",
            bound.as_millis()
        );
        return Err(Unfit::Model("SLOW".into(), text));
    }
    Ok(Metrics::of(&truth, &answers, latency_ms))
}

/// In a worker, whatever its settings say: a model that crashes is to be refused, not to take this function along.
fn load(subject: &Subject, settings: &Settings, limits: &Limits) -> Result<Box<dyn Instance>, Unfit> {
    // ONNX Runtime is loaded once a process.
    static ENGINES: OnceLock<Engines> = OnceLock::new();
    let engines = ENGINES.get_or_init(|| Engines::for_server(None, false, limits));
    let execution = settings.execution.unwrap_or(match EngineKind::of(&subject.artifact) {
        EngineKind::Native => Execution::Isolated,
        EngineKind::Onnx => Execution::InProcess,
    });
    let memory_mb = if execution == Execution::Isolated { settings.workers.memory_mb } else { NO_LIMIT };
    let workers = WorkerSettings { count: 1, memory_mb, ..settings.workers.clone() };
    let options = EngineOptions {
        intra_threads: settings.onnx.intra_threads,
        load_time: limits.prepare_time.min(TIME),
        run_time: limits.request_time,
        execution: Some(Execution::Isolated),
        workers,
        ..EngineOptions::default()
    };
    engines.prepare(subject.artifact.to_vec(), &options).map_err(|error| match error.code() {
        Code::OnnxUnavailable | Code::WorkerLost | Code::Internal => Unfit::Later(error.text().to_owned()),
        _ => error.into(),
    })
}

/// May fewer rows at a time be answered?
fn is_of_size(code: Code) -> bool {
    matches!(code, Code::Deadline | Code::OutputTooLarge | Code::BodyTooLarge | Code::ModelMemory)
}
