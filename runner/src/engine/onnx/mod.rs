//! ONNX models through ONNX Runtime's C API.
//!
//! `runtime` loads the library, `inspect` walks a model's bytes before the library sees them, `session` creates, `run`
//! runs, `watchdog` stops runs at their deadline. Only this folder talks to ONNX Runtime.

mod inspect;
mod run;
mod runtime;
mod session;
mod watchdog;
mod wire;
mod zipmap;

pub use runtime::{OnnxRuntime, disable_telemetry, find_library};
