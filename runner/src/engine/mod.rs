//! What executes an artifact: bytes are prepared into an [`Instance`], an instance is run.
//!
//! Engines are synchronous and know no network, no store and no version numbers; they do no I/O beyond loading their
//! library and talking to their workers. [`onnx`] and `native` run models in this process, `worker` runs the same two
//! in processes of their own; `composite` gets a room beside them.

mod background;
mod describe;
mod engines;
mod native;
pub mod onnx;
mod signature;
pub mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use background::{step_back, trim_heap};
pub use engines::{EngineOptions, Engines, Notify};
pub use native::{pinned, pinned_count};
pub use signature::{Signature, TensorSpec};
pub use worker::{Worker, Workers};

use crate::error::Result;
use crate::tensor::Tensor;

/// Bounds of one run.
#[derive(Debug, Clone)]
pub struct RunControl {
    /// The run is stopped at this moment.
    pub deadline: Instant,
    /// Set by the caller's side when nobody waits for the answer any more.
    pub cancelled: Option<Cancellation>,
    /// Most bytes that one output tensor may have.
    pub output_bytes: usize,
}

/// Tells a queued or running inference that nobody waits for it.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    /// Marks the run as abandoned.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Has the caller left?
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A loaded model. Runs on any number of threads at once.
pub trait Instance: Send + Sync {
    /// Inputs and outputs.
    fn signature(&self) -> &Signature;

    /// The platform's name in the Open Inference Protocol.
    fn platform(&self) -> &'static str;

    /// Runs the model: `inputs` in the signature's order, already checked against it; the outputs at the positions
    /// `outputs`, in that order.
    ///
    /// # Errors
    /// `MODEL_FAILED`, `DEADLINE`, `CANCELLED`, `OUTPUT_TOO_LARGE`; of native models also `INPUT_REFUSED`, `MODEL_PANIC`,
    /// `MODEL_CONTRACT`, `MODEL_OVERRUN`; of workers `WORKER_LOST`, `MODEL_MEMORY`, `OVERLOADED`.
    fn run(&self, inputs: &[Tensor], outputs: &[usize], control: &RunControl) -> Result<Vec<Tensor>>;

    /// The way in for requests, if the model runs on threads or in processes of its own.
    fn queue(&self) -> Option<&dyn Queue> {
        None
    }
}

/// Takes requests for a model that runs elsewhere: a caller's thread must not stand still for as long as a worker hangs.
pub trait Queue: Sync {
    /// Queues a run.
    ///
    /// # Errors
    /// `OVERLOADED`, or `WORKER_LOST` while no worker can be started; `done` is not called then.
    fn submit(&self, submission: Submission) -> Result<()>;

    /// What the workers do.
    fn workers(&self) -> Workers;

    /// Do the workers die again and again?
    fn is_degraded(&self) -> bool;
}

/// Gets the result, the time in the queue and the time of the run. Dropped without a call if nobody waits any more.
pub type Done = Box<dyn FnOnce(Result<Vec<Tensor>>, Duration, Duration) + Send>;

/// A run to be queued; see [`Instance::run`].
pub struct Submission {
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<usize>,
    pub control: RunControl,
    pub done: Done,
}

impl std::fmt::Debug for Submission {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Submission").field("outputs", &self.outputs).finish_non_exhaustive()
    }
}
