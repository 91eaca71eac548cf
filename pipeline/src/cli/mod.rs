//! The pipeline's part of the command line: one file a command.

mod history;
mod tree;

use std::process::ExitCode;

use clap::Subcommand;

/// What the pipeline and its clients can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what was served when; with --runs, --where or --sort the runs that made it
    History(Box<history::HistoryArgs>),
    /// Show what a digest, run, version, model or dataset was made from, and what was made from it
    Lineage(history::LineageArgs),
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
        Command::History(arguments) => history::history(&arguments),
        Command::Lineage(arguments) => history::lineage(&arguments),
        Command::Pipeline(PipelineCommand::Limit) => ExitCode::SUCCESS,
    }
}
