//! The pipeline's part of the command line: one file a command.

mod feedback;

use std::process::ExitCode;

use clap::Subcommand;

/// What the pipeline and its clients can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check and run pipelines
    #[command(subcommand)]
    Pipeline(PipelineCommand),
    /// Make rows of a dataset of logged requests and labels that came later
    #[command(subcommand)]
    Feedback(Box<feedback::FeedbackCommand>),
}

/// Commands of a pipeline.
#[derive(Debug, Subcommand)]
pub enum PipelineCommand {
    /// Print the largest event in bytes
    #[command(hide = true)]
    Limit,
}

/// Runs a command and returns the exit code, as those of the runner do.
pub fn run(command: Command) -> ExitCode {
    match command {
        Command::Pipeline(PipelineCommand::Limit) => ExitCode::SUCCESS,
        Command::Feedback(command) => feedback::run(*command),
    }
}
