//! The pipeline's part of the command line: one file a command.

mod check;

use std::process::ExitCode;

use clap::Subcommand;

/// What the pipeline and its clients can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check and run pipelines
    #[command(subcommand)]
    Pipeline(PipelineCommand),
}

/// Commands of a pipeline.
#[derive(Debug, Subcommand)]
pub enum PipelineCommand {
    /// Check manifests and show the pipeline that they describe
    Check(check::CheckArgs),
}

/// Runs a command and returns the exit code, as those of the runner do.
pub fn run(command: Command) -> ExitCode {
    match command {
        Command::Pipeline(PipelineCommand::Check(args)) => check::run(&args),
    }
}
