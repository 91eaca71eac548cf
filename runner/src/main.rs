//! Arguments, then either the server or a client of one. No logic.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything can start a thread or load the library.
    baton_runner::engine::onnx::disable_telemetry();
    baton_runner::cli::main()
}
