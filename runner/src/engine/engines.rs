//! Which engine runs an artifact, and where. The one place that joins the engines' rooms.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::onnx::{OnnxRuntime, find_library};
use super::worker::{Pool, PoolOptions, Starter};
use super::{Instance, native};
use crate::bundle::{EngineKind, Execution, WorkerSettings};
use crate::config::Limits;
use crate::error::{Code, Error, Result};
use crate::telemetry::ModelMetrics;

/// What a manifest may tune, and what the server adds.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// For logs.
    pub model: String,
    /// Threads that one run may use inside an operator.
    pub intra_threads: usize,
    /// To create the instance.
    pub load_time: Duration,
    /// A run that takes longer ends its worker.
    pub run_time: Duration,
    /// `None` for the engine's own way: native models isolated, ONNX models in this process.
    pub execution: Option<Execution>,
    pub workers: WorkerSettings,
    /// What workers' deaths are counted into.
    pub metrics: Option<Arc<ModelMetrics>>,
    /// Told when workers die again and again.
    pub degraded: Option<Notify>,
}

/// Called, on a worker's thread, whenever a version becomes degraded, stays so after a further death, or is well again.
#[derive(Clone)]
pub struct Notify(Arc<dyn Fn() + Send + Sync>);

impl Notify {
    /// Calls this.
    pub fn new(call: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    pub(super) fn call(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Notify {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Notify")
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            model: String::new(),
            intra_threads: 1,
            load_time: Duration::from_secs(10),
            run_time: Duration::from_secs(30),
            execution: None,
            workers: WorkerSettings::default(),
            metrics: None,
            degraded: None,
        }
    }
}

/// The engines of this process.
pub struct Engines {
    /// `None` if ONNX Runtime could not be loaded.
    onnx: Option<OnnxRuntime>,
    onnx_library: PathBuf,
    /// May native models run in this process?
    native_in_process: bool,
    /// `None` in a worker, which has no workers.
    starter: Option<Starter>,
    limits: Limits,
}

impl std::fmt::Debug for Engines {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engines").finish_non_exhaustive()
    }
}

impl Engines {
    /// Those of a server. Without ONNX Runtime it starts all the same, and says what is missing to whoever pushes an
    /// ONNX model. To be called on a thread of ordinary priority, which workers inherit.
    pub fn for_server(onnxruntime: Option<&Path>, native_in_process: bool, limits: &Limits) -> Self {
        let onnx_library = absolute(find_library(onnxruntime));
        Self {
            onnx: load_onnx(&onnx_library, limits),
            onnx_library,
            native_in_process,
            starter: Some(Starter::new()),
            limits: limits.clone(),
        }
    }

    /// Those of a worker, which runs one model; `onnxruntime` is given if it is one of ONNX.
    pub(super) fn for_worker(onnxruntime: Option<&Path>, limits: &Limits) -> Self {
        Self {
            onnx: onnxruntime.and_then(|library| load_onnx(library, limits)),
            onnx_library: PathBuf::new(),
            native_in_process: true,
            starter: None,
            limits: limits.clone(),
        }
    }

    /// Checks the artifact and loads it. Slow; called on the loader thread only.
    ///
    /// # Errors
    /// The reason why these bytes cannot be served, in a text for the person who pushed them.
    pub fn prepare(&self, artifact: Vec<u8>, options: &EngineOptions) -> Result<Box<dyn Instance>> {
        let kind = EngineKind::of(&artifact);
        let execution = options.execution.unwrap_or(match kind {
            EngineKind::Onnx => Execution::InProcess,
            EngineKind::Native => Execution::Isolated,
        });
        match (kind, execution) {
            (EngineKind::Onnx, Execution::InProcess) => self.onnx()?.prepare(&artifact, options),
            (EngineKind::Native, Execution::InProcess) if !self.native_in_process => Err(Error::new(
                Code::ExecutionRefused,
                "this server runs native models in workers only; start it with --allow-native-in-process, or drop \
                 execution = \"in-process\"",
            )),
            (EngineKind::Native, Execution::InProcess) => {
                let is_worker = self.starter.is_none();
                if !is_worker {
                    native::check_shared(&artifact)?;
                }
                native::load(&artifact, &options.model, self.limits.pinned_libraries)
            }
            (kind, Execution::Isolated) => {
                match kind {
                    // Refused here without a process, and with the library's own limits.
                    EngineKind::Onnx => self.onnx()?.check(&artifact)?,
                    EngineKind::Native => native::check(&artifact)?,
                }
                Ok(Box::new(self.pool(kind, &artifact, options)?))
            }
        }
    }

    fn pool(&self, kind: EngineKind, artifact: &[u8], options: &EngineOptions) -> Result<Pool> {
        let starter = self.starter.as_ref();
        let starter = starter.ok_or_else(|| Error::new(Code::Internal, "a worker has no workers"))?;
        let (onnxruntime, load_time) = match kind {
            EngineKind::Onnx => (self.onnx_library.display().to_string(), options.load_time),
            EngineKind::Native => (String::new(), options.load_time.min(self.limits.native_load_time)),
        };
        let pool = PoolOptions {
            model: options.model.clone(),
            onnxruntime,
            intra_threads: options.intra_threads,
            load_time,
            count: options.workers.count,
            memory_bytes: options.workers.memory_mb << 20,
            restarts: options.workers.restarts,
            run_time: options.run_time,
            queue: self.limits.queue,
            queue_bytes: self.limits.worker_queue_bytes,
            metrics: options.metrics.clone(),
            degraded: options.degraded.clone(),
        };
        Pool::start(starter, artifact, pool)
    }

    fn onnx(&self) -> Result<&OnnxRuntime> {
        self.onnx.as_ref().ok_or_else(|| {
            Error::new(
                Code::OnnxUnavailable,
                "ONNX Runtime is not loaded, so no ONNX model can be served; run `make onnxruntime`, or start the \
                 server with --onnxruntime and the path of libonnxruntime.so",
            )
        })
    }
}

/// Workers have another folder.
fn absolute(library: PathBuf) -> PathBuf {
    match library.exists() {
        true => std::path::absolute(&library).unwrap_or(library),
        // A name that the system's loader looks for, or one that lacks.
        false => library,
    }
}

fn load_onnx(library: &Path, limits: &Limits) -> Option<OnnxRuntime> {
    match OnnxRuntime::load(library, limits) {
        Ok(runtime) => {
            tracing::info!("loaded ONNX Runtime {}", runtime.version());
            Some(runtime)
        }
        Err(error) => {
            tracing::error!("{error} ({})", error.cause_chain().unwrap_or_default());
            None
        }
    }
}
