//! The thread behind one worker: starts it, gives it the next request, watches it, starts it again.
//!
//! Everything about one worker happens here, one thing after the other; what others see of it is a copy.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use baton_proto::worker::{Failed, Load, Loaded, Placed, Ran, Run, request, response};
use bytes::Bytes;

use super::WorkerState;
use super::area::Side;
use super::pool::{Job, Shared};
use super::process::{Death, DeathKind, Process, Waited};
use crate::engine::{Submission, TensorSpec, describe};
use crate::error::{Code, Error, Origin, Result};
use crate::tensor::{Dtype, Tensor, matches};

/// Deaths in a row after which the next start waits.
const FREE_STARTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Beyond a request's time, for the answer to arrive.
const GRACE: Duration = Duration::from_millis(100);

/// What a worker said of its model.
pub(super) struct FirstWords {
    pub signature: String,
    pub platform: String,
}

pub(super) struct Lane {
    pub shared: Arc<Shared>,
    pub index: usize,
}

/// Why a worker is not there any more.
enum End {
    /// The version is gone.
    Stopped,
    Died(Death),
}

impl Lane {
    /// Runs until the pool ends. Tells how the first start went.
    pub(super) fn run(self, first: &Sender<Result<FirstWords>>) {
        let mut process = match self.start() {
            Ok((process, words)) => {
                let _ = first.send(Ok(words));
                process
            }
            // A version whose first start fails is not served.
            Err(error) => {
                let _ = first.send(Err(error));
                return;
            }
        };
        while let End::Died(death) = self.serve(process) {
            match self.start_again(death) {
                Some(started) => process = started,
                None => return,
            }
        }
    }

    /// Starts until it works; `None` if the pool ends meanwhile.
    fn start_again(&self, mut death: Death) -> Option<Process> {
        loop {
            // The end of the version is no death.
            if self.shared.stops_within(Duration::ZERO) || !self.pause(&death) {
                return None;
            }
            // What the server itself lacks is no fault of the model's.
            let mut started = self.start();
            while let Err(error) = &started
                && error.code() == Code::WorkerLost
            {
                let reason = error.cause_chain().unwrap_or_default();
                tracing::error!(model = self.shared.options.model, "a worker cannot be started: {reason}");
                self.shared.down(self.index, Instant::now() + FIRST_PAUSE, error.text());
                if self.shared.stops_within(FIRST_PAUSE) {
                    return None;
                }
                started = self.start();
            }
            match started {
                Ok((process, _)) => return Some(process),
                Err(error) => {
                    let cause = error.text().to_owned();
                    death = Death { cause, kind: DeathKind::Crash, output: String::new() };
                }
            }
        }
    }

    /// A process that has loaded the model.
    fn start(&self) -> Result<(Process, FirstWords)> {
        let shared = &self.shared;
        let options = &shared.options;
        self.show(WorkerState::Starting, None);
        let mut process = Process::start(shared.artifact.as_fd())
            .map_err(|error| Error::new(Code::WorkerLost, "a worker cannot be started").caused_by(error))?;
        self.show(WorkerState::Starting, Some(process.pid()));
        process.ask(request::Call::Load(Load {
            onnxruntime: options.onnxruntime.clone(),
            intra_threads: u32::try_from(options.intra_threads).unwrap_or(1),
            memory_bytes: options.memory_bytes,
            load_ms: u64::try_from(options.load_time.as_millis()).unwrap_or(u64::MAX),
        }));
        let prepare_failed = |text: String| Err(Error::new(Code::PrepareFailed, text));
        match process.wait_answer(Instant::now() + options.load_time, shared.stop.as_fd()) {
            Waited::Ready => {}
            Waited::Died(death) => {
                self.log_death(&death);
                return prepare_failed(match death.kind {
                    DeathKind::Memory => format!(
                        "the model reached the memory limit of {} while it was loaded ({})",
                        megabytes(options.memory_bytes),
                        death.cause
                    ),
                    _ => format!("the model died while it was loaded: {}", death.cause),
                });
            }
            Waited::Late => {
                let seconds = options.load_time.as_secs();
                return Err(Error::new(
                    Code::PrepareDeadline,
                    format!("loading the model took more than {seconds} s"),
                ));
            }
            Waited::Stopped => return prepare_failed("the version is gone".to_owned()),
        }
        match process.answer() {
            Some(response::Result::Loaded(Loaded { signature, platform })) => {
                Ok((process, FirstWords { signature, platform }))
            }
            Some(response::Result::Failed(Failed { code, text })) => {
                let code = Code::from_id(&code).filter(|code| code.origin() != Origin::Runner);
                Err(Error::new(code.unwrap_or(Code::PrepareFailed), shorten(&text)))
            }
            _ => prepare_failed("the worker gave no answer that can be read".to_owned()),
        }
    }

    /// Hands requests to the worker until something ends it.
    fn serve(&self, mut process: Process) -> End {
        let shared = Arc::clone(&self.shared);
        loop {
            self.show(WorkerState::Ready, Some(process.pid()));
            let forget = shared.forgets_at();
            match process.wait(Some(shared.ready.as_raw_fd()), forget, Some(shared.stop.as_fd())) {
                Waited::Ready => {
                    // Another worker may have been quicker.
                    let Some(job) = shared.take() else { continue };
                    self.show(WorkerState::Busy, Some(process.pid()));
                    match self.handle(process, job) {
                        Ok(alive) => process = alive,
                        Err(end) => return end,
                    }
                }
                Waited::Died(death) => return End::Died(death),
                // Readiness keeps calls away from a degraded version, so none may ever come to heal it.
                Waited::Late => shared.worked(),
                Waited::Stopped => {
                    process.stop();
                    return End::Stopped;
                }
            }
        }
    }

    /// One request. The process comes back if it can take another one.
    fn handle(&self, mut process: Process, job: Job) -> std::result::Result<Process, End> {
        let Job { submission, queued, .. } = job;
        let waited = queued.elapsed();
        let Submission { inputs, outputs, control, done } = submission;
        if control.cancelled.as_ref().is_some_and(|cancelled| cancelled.is_cancelled()) {
            return Ok(process);
        }
        let start = Instant::now();
        let finish = |result| done(result, waited, start.elapsed());
        if start >= control.deadline {
            finish(Err(Error::new(Code::Deadline, "the deadline passed while the request was waiting")));
            return Ok(process);
        }
        let run_time = self.shared.options.run_time;
        // ONNX Runtime stops when told to; a native model does not, and goes on.
        let time = run_time.min(control.deadline.saturating_duration_since(start));
        let asked = ask(&mut process, &inputs, &outputs, control.output_bytes, time);
        drop(inputs);
        let used = match asked {
            Ok(used) => used,
            Err(error) => {
                finish(Err(error));
                return Ok(process);
            }
        };
        // The caller's own time may be shorter than the model's; that is no reason to end the worker.
        let mut finish = Some(finish);
        let late = start + run_time + GRACE;
        let waited = loop {
            let until = if finish.is_some() { control.deadline.min(late) } else { late };
            match process.wait_answer(until, self.shared.stop.as_fd()) {
                Waited::Late if finish.is_some() => {
                    if let Some(finish) = finish.take() {
                        finish(Err(Error::new(
                            Code::Deadline,
                            "the answer was not ready before the deadline",
                        )));
                    }
                }
                waited => break waited,
            }
        };
        match waited {
            Waited::Ready => {
                let result = self.read(&process, &outputs, control.output_bytes);
                process.release(Side::Request, used);
                let broken = match &result {
                    Err(error) if error.code() == Code::ModelOverrun => Some("it wrote beyond its output"),
                    Err(_) if process.answer().is_none() => Some("it gave no answer that can be read"),
                    _ => None,
                };
                if result.is_ok() {
                    self.shared.worked();
                }
                if let Some(finish) = finish {
                    finish(result);
                }
                if let Some(cause) = broken {
                    return Err(End::Died(process.kill(cause.to_owned(), DeathKind::Overrun)));
                }
                Ok(process)
            }
            Waited::Died(death) => {
                if let Some(finish) = finish {
                    finish(Err(self.loss(&death)));
                }
                Err(End::Died(death))
            }
            Waited::Late => {
                let cause = format!("it ran for more than {} ms", run_time.as_millis());
                Err(End::Died(process.kill(cause, DeathKind::TooLong)))
            }
            Waited::Stopped => {
                process.kill(String::new(), DeathKind::TooLong);
                Err(End::Stopped)
            }
        }
    }

    fn read(&self, process: &Process, wanted: &[usize], output_bytes: usize) -> Result<Vec<Tensor>> {
        let broken = |text: &str| Err(Error::new(Code::ModelContract, format!("the worker's answer {text}")));
        match process.answer() {
            Some(response::Result::Ran(Ran { outputs })) => {
                if outputs.len() != wanted.len() {
                    return broken("has another number of outputs than were asked for");
                }
                let mut used = 0;
                let specs = wanted.iter().map(|position| self.shared.output(*position));
                let tensors = specs
                    .zip(&outputs)
                    .map(|(spec, placed)| {
                        used = used.max(placed.offset.saturating_add(placed.size));
                        output(process, spec.as_ref(), placed, output_bytes)
                    })
                    .collect::<Result<_>>();
                process.release(Side::Answer, usize::try_from(used).unwrap_or(usize::MAX));
                tensors
            }
            Some(response::Result::Failed(Failed { code, text })) => {
                let allowed = [
                    Code::InputRefused,
                    Code::ModelFailed,
                    Code::ModelPanic,
                    Code::ModelContract,
                    Code::ModelOverrun,
                    Code::OutputTooLarge,
                    Code::Deadline,
                ];
                let code = Code::from_id(&code).filter(|code| allowed.contains(code));
                Err(Error::new(code.unwrap_or(Code::ModelContract), shorten(&text)))
            }
            _ => broken("cannot be read"),
        }
    }

    /// The error of the request that a worker had when it died.
    fn loss(&self, death: &Death) -> Error {
        let cause = &death.cause;
        match death.kind {
            DeathKind::Memory => Error::new(
                Code::ModelMemory,
                format!(
                    "the model's worker reached its memory limit of {} ({cause})",
                    megabytes(self.shared.options.memory_bytes)
                ),
            ),
            DeathKind::Overrun => {
                Error::new(Code::ModelOverrun, format!("the model wrote beyond its output buffers ({cause})"))
            }
            DeathKind::Crash | DeathKind::TooLong => {
                Error::new(Code::WorkerLost, format!("the model's worker died: {cause}"))
            }
        }
    }

    /// Notes a death and waits as long as the next start has to. `false` if the pool ends meanwhile.
    fn pause(&self, death: &Death) -> bool {
        let shared = &self.shared;
        self.log_death(death);
        shared.died(self.index, death);
        let row = shared.one_more_death();
        let pause = match row.checked_sub(FREE_STARTS + 1) {
            None => return true,
            Some(more) => FIRST_PAUSE.saturating_mul(1 << more.min(6)).min(LONGEST_PAUSE),
        };
        shared.down(self.index, Instant::now() + pause, &death.cause);
        !shared.stops_within(pause)
    }

    fn log_death(&self, death: &Death) {
        let output: String = death.output.lines().rev().take(3).collect::<Vec<_>>().join(" | ");
        tracing::warn!(model = self.shared.options.model, output, "a worker died: {}", death.cause);
    }

    fn show(&self, state: WorkerState, pid: Option<u32>) {
        self.shared.show(self.index, state, pid);
    }
}

/// Puts the request into the shared memory and rings; the bytes that its tensors take.
fn ask(
    process: &mut Process,
    inputs: &[Tensor],
    outputs: &[usize],
    output_bytes: usize,
    time: Duration,
) -> Result<usize> {
    let too_large =
        || Error::new(Code::BodyTooLarge, "the inputs together are larger than a worker can take");
    let mut fill = process.area().fill(Side::Request);
    let placed: Option<Vec<Placed>> = inputs.iter().map(|tensor| fill.put_tensor(tensor)).collect();
    let (placed, used) = (placed.ok_or_else(too_large)?, fill.used());
    let run = Run {
        inputs: placed,
        outputs: outputs.iter().map(|position| u32::try_from(*position).unwrap_or(u32::MAX)).collect(),
        output_bytes: output_bytes as u64,
        time_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
    };
    match process.ask(request::Call::Run(run)) {
        true => Ok(used),
        false => Err(too_large()),
    }
}

/// An output as the worker gave it, checked against the signature.
fn output(
    process: &Process,
    spec: Option<&TensorSpec>,
    placed: &Placed,
    output_bytes: usize,
) -> Result<Tensor> {
    let broken = |text: String| Error::new(Code::ModelContract, format!("the worker's answer: {text}"));
    let spec = spec.ok_or_else(|| broken("an output that the model does not have".to_owned()))?;
    if Dtype::from_name(&placed.datatype) != Some(spec.dtype) {
        return Err(broken(format!("output {:?} is not {}", spec.name, spec.dtype)));
    }
    if placed.size > output_bytes as u64 {
        let text = format!("output {:?} has more than {output_bytes} bytes", spec.name);
        return Err(Error::new(Code::OutputTooLarge, text));
    }
    let bytes = process.answer_data(placed.offset, placed.size);
    let bytes = bytes.ok_or_else(|| broken(format!("output {:?} lies outside of its place", spec.name)))?;
    let tensor = Tensor::raw(spec.dtype, placed.shape.clone(), Bytes::from(bytes))
        .map_err(|error| broken(format!("output {:?}: {error}", spec.name)))?;
    match &spec.shape {
        Some(dims) if !matches(tensor.shape(), dims) => {
            Err(broken(format!("output {:?} has another shape than it should", spec.name)))
        }
        _ => Ok(tensor),
    }
}

/// A text of the worker's, which may be long or hold anything.
fn shorten(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(2_000).collect()
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes >> 20)
}

/// Reads the description that a worker gave of its model.
///
/// # Errors
/// `PREPARE_FAILED`.
pub(super) fn read_signature(words: &FirstWords) -> Result<crate::engine::Signature> {
    describe::parse(words.signature.as_bytes()).map_err(|reason| {
        Error::new(Code::PrepareFailed, format!("the model's description cannot be used: {reason}"))
    })
}
