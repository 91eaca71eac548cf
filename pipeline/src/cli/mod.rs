//! The pipeline's part of the command line: one file a command.

mod dataset;

use std::process::ExitCode;

use clap::Subcommand;

pub use dataset::DatasetCommand;

/// What the pipeline and its clients can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check, push and mask datasets
    #[command(subcommand)]
    Dataset(Box<DatasetCommand>),
    /// Check and run pipelines
    #[command(subcommand)]
    Pipeline(PipelineCommand),
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
        Command::Dataset(command) => dataset::run(*command),
        Command::Pipeline(PipelineCommand::Limit) => ExitCode::SUCCESS,
    }
}
