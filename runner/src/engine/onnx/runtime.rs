//! The one ONNX Runtime environment of the process.
//!
//! The library is loaded at run time, from an explicit path: a missing library must not keep the binary from starting
//! (`ort`'s implicit loading would panic), it makes ONNX pushes answer `ONNX_UNAVAILABLE` with what to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::logging::LogLevel;

use super::inspect::InspectLimits;
use crate::config::Limits;
use crate::error::{Code, Error, Result};

/// The file name in the hash-pinned wheel that `make` fetches.
const LIBRARY: &str = "libonnxruntime.so.1.31.1";

/// A loaded ONNX Runtime. Cheap to clone; the environment lives as long as any session of it.
#[derive(Clone)]
pub struct OnnxRuntime {
    pub(super) environment: Environment,
    pub(super) inspect_limits: InspectLimits,
    version: String,
}

/// ONNX Runtime 1.29 and later report usage over the network by default. Called first thing in `main`.
///
/// The environment is process-wide and changing it is unsound once there are threads, hence the narrow place.
pub fn disable_telemetry() {
    // SAFETY: `main` calls this before any thread exists, so nothing reads the environment meanwhile.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
}

/// Where the library is looked for: the given path, `ORT_DYLIB_PATH`, beside the binary, the build's cache, the
/// system's loader path.
pub fn find_library(given: Option<&Path>) -> PathBuf {
    if let Some(path) = given {
        return path.to_owned();
    }
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return path.into();
    }
    let executable = std::env::current_exe().ok();
    let beside = executable.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
    let candidates = [
        beside.join("lib").join(LIBRARY),
        beside.join("../lib/baton").join(LIBRARY),
        // target/<profile>/baton in a checkout
        beside.join("../../.cache/onnxruntime").join(LIBRARY),
        Path::new(".cache/onnxruntime").join(LIBRARY),
    ];
    let found = candidates.into_iter().find(|candidate| candidate.is_file());
    found.unwrap_or_else(|| PathBuf::from("libonnxruntime.so"))
}

impl OnnxRuntime {
    /// Loads the library and creates the environment. Once a process.
    ///
    /// # Errors
    /// `ONNX_UNAVAILABLE` if the library is missing, too old (before 1.24) or refuses to start.
    pub fn load(library: &Path, limits: &Limits) -> Result<Self> {
        let unavailable = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(
                Code::OnnxUnavailable,
                "ONNX Runtime 1.24 or newer is not loaded; run `make onnxruntime`, or start the server with \
                 --onnxruntime and the path of libonnxruntime.so",
            )
            .caused_by(cause)
        };
        let pool = || -> ort::Result<GlobalThreadPoolOptions> {
            // One pool for all sessions, so that the thread count does not grow with the models, and no spinning:
            // spinning pool threads take the cores that serve requests.
            GlobalThreadPoolOptions::default()
                .with_intra_threads(1)?
                .with_inter_threads(1)?
                .with_spin_control(false)
        };
        let builder = ort::init_from(library).map_err(|error| unavailable(error.into()))?;
        let environment = builder
            .with_name("baton")
            .with_telemetry(false)
            .with_global_thread_pool(pool().map_err(|error| unavailable(error.into()))?)
            .with_logger(Arc::new(
                |_level: LogLevel, _category: &str, _id: &str, _location: &str, message: &str| {
                    tracing::debug!(target: "onnxruntime", "{message}");
                },
            ))
            .build()
            .map_err(|error| unavailable(error.into()))?;
        environment.set_log_level(LogLevel::Error);
        let version = ort::util::probe(library).map_or_else(|| "1".to_owned(), |minor| format!("1.{minor}"));
        let inspect_limits =
            InspectLimits { subgraph_depth: limits.subgraph_depth, ..InspectLimits::default() };
        Ok(Self { environment, inspect_limits, version })
    }

    /// The library's version, e.g. `1.31`.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl std::fmt::Debug for OnnxRuntime {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("OnnxRuntime").field("version", &self.version).finish_non_exhaustive()
    }
}
