//! Arguments, then the runner or the pipeline. No logic.

use std::process::ExitCode;

use baton_runner::cli::EXIT_USAGE;
use clap::{CommandFactory, Parser, Subcommand};

/// Serve machine-learning models and hand over from one to the next without a restart
#[derive(Debug, Parser)]
#[command(name = "baton", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Runner(baton_runner::cli::Command),
    #[command(flatten)]
    Pipeline(baton_pipeline::cli::Command),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

fn main() -> ExitCode {
    // Before anything can start a thread or load the library.
    baton_runner::engine::onnx::disable_telemetry();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Command::Runner(command) => baton_runner::cli::run(command),
        Command::Pipeline(command) => baton_pipeline::cli::run(command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "baton", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}
