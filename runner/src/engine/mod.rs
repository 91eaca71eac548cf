//! What executes an artifact. The trait is small on purpose: prepare bytes into an [`Instance`], run an instance.
//!
//! Engines are synchronous and know no network, no store and no version numbers; they do no I/O beyond loading their
//! library. Today there is one, [`onnx`]; `native` (shared libraries), `composite` and `worker` (the same models in a
//! child process) get rooms beside it.

mod background;
pub mod onnx;
mod signature;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use background::{step_back, trim_heap};
pub use signature::{Signature, TensorSpec};

use crate::error::Result;
use crate::tensor::Tensor;

/// What a manifest may tune.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// Threads that one run may use inside an operator.
    pub intra_threads: usize,
    /// To create the instance.
    pub load_time: Duration,
}

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

/// Turns artifacts into instances.
pub trait Engine: Send + Sync {
    /// Checks the artifact and loads it. Slow; called on the loader thread only.
    ///
    /// # Errors
    /// The reason why these bytes cannot be served, in a text for the person who pushed them.
    fn prepare(&self, artifact: Vec<u8>, options: EngineOptions) -> Result<Box<dyn Instance>>;
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
    /// `MODEL_FAILED`, `DEADLINE`, `CANCELLED` or `OUTPUT_TOO_LARGE`.
    fn run(&self, inputs: &[Tensor], outputs: &[usize], control: &RunControl) -> Result<Vec<Tensor>>;
}
