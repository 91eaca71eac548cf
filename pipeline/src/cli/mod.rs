//! The pipeline's part of the command line: one file a command.

mod check;
mod dataset;
mod engine;
mod feedback;
mod function;
mod history;
mod sink;
mod tree;

use std::process::ExitCode;

use clap::Subcommand;

/// What the pipeline and its clients can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check and run pipelines
    #[command(subcommand)]
    Pipeline(PipelineCommand),
    /// Run a function of this binary: an HTTP server that answers one CloudEvent at a time
    Fn(function::FnArgs),
    /// Check, push and mask datasets
    #[command(subcommand)]
    Dataset(Box<dataset::DatasetCommand>),
    /// Show what was served when; with --runs, --where or --sort the runs that made it
    History(Box<history::HistoryArgs>),
    /// Show what a digest, run, version, model or dataset was made from, and what was made from it
    Lineage(history::LineageArgs),
    /// Make rows of a dataset of logged requests and labels that came later
    #[command(subcommand)]
    Feedback(Box<feedback::FeedbackCommand>),
    /// Run a command for the engine; started by it
    #[command(hide = true)]
    Supervise(crate::engine::SuperviseArgs),
}

/// Commands of a pipeline.
#[derive(Debug, Subcommand)]
pub enum PipelineCommand {
    /// Check manifests and show the pipeline that they describe
    Check(check::CheckArgs),
    /// Run the pipeline that manifests describe
    Serve(Box<engine::ServeArgs>),
    /// Show functions and jobs, and what waits for them
    Status(engine::StatusArgs),
    /// Show what has happened
    Events(engine::EventsArgs),
    /// Show deliveries that were given up
    Dead(engine::DeadArgs),
    /// Try again what was given up, or make a delivery once more
    Requeue(engine::RequeueArgs),
    /// Send an event
    Send(engine::SendArgs),
}

/// Runs a command and returns the exit code, as those of the runner do.
pub fn run(command: Command) -> ExitCode {
    match command {
        Command::Pipeline(command) => match command {
            PipelineCommand::Check(arguments) => check::run(&arguments),
            PipelineCommand::Serve(arguments) => engine::serve(*arguments),
            PipelineCommand::Status(arguments) => engine::status(&arguments),
            PipelineCommand::Events(arguments) => engine::events(&arguments),
            PipelineCommand::Dead(arguments) => engine::dead(&arguments),
            PipelineCommand::Requeue(arguments) => engine::requeue(&arguments),
            PipelineCommand::Send(arguments) => engine::send(&arguments),
        },
        Command::Fn(arguments) => function::run(arguments),
        Command::Dataset(command) => dataset::run(*command),
        Command::History(arguments) => history::history(&arguments),
        Command::Lineage(arguments) => history::lineage(&arguments),
        Command::Feedback(command) => feedback::run(*command),
        Command::Supervise(arguments) => crate::engine::supervise(&arguments),
    }
}
