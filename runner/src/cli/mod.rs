//! The command line. `serve` starts the server; everything else is a client of the admin API and nothing more.

mod client;
mod commands;
mod contract;
mod doctor;
pub mod output;
mod predict;
mod push;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use crate::config::ServeArgs;
use crate::engine::worker::{self, WorkerArgs};
use crate::error::Code;
pub use client::token;
use client::{Client, Failure};

/// Refused by the server.
pub const EXIT_REFUSED: u8 = 1;
/// Wrong usage or settings.
pub const EXIT_USAGE: u8 = 64;
/// The server cannot be reached.
pub const EXIT_UNREACHABLE: u8 = 69;
/// The server stopped with work undone.
pub const EXIT_SOFTWARE: u8 = 70;
/// Not now: try again.
pub const EXIT_TRY_AGAIN: u8 = 75;

/// Where the server is and how to speak to it.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// Admin port of the server
    #[arg(
        long,
        env = "BATON_SERVER",
        default_value = "http://127.0.0.1:8081",
        value_name = "URL",
        global = true
    )]
    server: String,
    /// File with the bearer token; without it, the variable BATON_TOKEN is used
    #[arg(long, env = "BATON_TOKEN_FILE", value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
}

/// A server, and the choice of JSON for machines.
#[derive(Debug, Clone, clap::Args)]
pub struct ClientArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which of the activations are to be shown.
#[derive(Debug, Clone, clap::Args)]
pub struct HistoryArgs {
    pub model: Option<String>,
    /// At most this many entries
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
    #[command(flatten)]
    client: ClientArgs,
}

impl HistoryArgs {
    /// Is JSON to be printed?
    pub fn json(&self) -> bool {
        self.client.json
    }
}

/// What the runner and its clients can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the server
    Serve(Box<ServeArgs>),
    /// Run a model for a server; started by it
    #[command(hide = true)]
    Worker(WorkerArgs),
    /// Push a model file, or a folder laid out as a bundle, and serve it
    Push {
        #[command(flatten)]
        push: push::PushArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List the models
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show a model and its versions
    Show {
        model: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Serve a stored version
    Activate {
        model: String,
        version: String,
        /// Only if the model is at this generation
        #[arg(long, value_name = "N")]
        expect_generation: Option<u64>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Go back to the version that was served before
    Rollback {
        model: String,
        /// Only if the model is at this generation
        #[arg(long, value_name = "N")]
        expect_generation: Option<u64>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Remove a version, or a whole model
    Remove {
        model: String,
        version: Option<String>,
        /// Remove a model even while it is served
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Make, compare and show contracts
    Contract {
        #[command(subcommand)]
        contract: contract::ContractCommand,
    },
    /// Call a model
    Predict {
        #[command(flatten)]
        predict: predict::PredictArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Look for what could keep Baton from working on this machine
    Doctor {
        #[command(flatten)]
        doctor: doctor::DoctorArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Print every limit
    Limits {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the error codes, or the page of one
    Errors { code: Option<String> },
    /// Print the OpenAPI document of the admin API
    Openapi,
}

/// Runs a command and returns the exit code: 0 done, 1 refused by the server, 64 wrong usage, 69 not reachable, 75 try again.
pub fn run(command: Command) -> ExitCode {
    let result = match command {
        Command::Serve(arguments) => return run_server(*arguments),
        Command::Worker(arguments) => return worker::main(&arguments),
        Command::Push { push, client } => client.run(|server, json| push::push(server, &push, json)),
        Command::List { client } => client.run(commands::list),
        Command::Show { model, client } => client.run(|server, json| commands::show(server, &model, json)),
        Command::Activate { model, version, expect_generation, client } => {
            client.run(|server, json| commands::activate(server, &model, &version, expect_generation, json))
        }
        Command::Rollback { model, expect_generation, client } => {
            client.run(|server, json| commands::rollback(server, &model, expect_generation, json))
        }
        Command::Remove { model, version, force, client } => {
            client.run(|server, json| commands::remove(server, &model, version.as_deref(), force, json))
        }
        Command::Contract { contract } => contract::run(contract),
        Command::Predict { predict, server } => {
            Client::new(&server, predict.output_json()).and_then(|client| predict::predict(&client, &predict))
        }
        Command::Doctor { doctor, server } => doctor::doctor(&doctor, &server),
        Command::Limits { json } => commands::limits(json),
        Command::Errors { code } => commands::errors(code.as_deref()),
        Command::Openapi => output::json(&crate::admin::document()),
    };
    exit_code(result)
}

/// Shows what was served when; returns the exit code as [`run`] does. The command is the pipeline's: the runs that made what was
/// served are its records.
pub fn history(arguments: &HistoryArgs) -> ExitCode {
    let HistoryArgs { model, limit, client } = arguments;
    exit_code(client.run(|server, json| commands::history(server, model.as_deref(), *limit, json)))
}

fn exit_code(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

impl ClientArgs {
    fn run(&self, command: impl FnOnce(&Client, bool) -> Result<(), Failure>) -> Result<(), Failure> {
        command(&Client::new(&self.server, self.json)?, self.json)
    }
}

#[allow(clippy::print_stderr, reason = "the reason why the server did not start belongs on standard error")]
fn run_server(arguments: ServeArgs) -> ExitCode {
    crate::telemetry::log::start(arguments.log_level, arguments.log_format == crate::config::LogFormat::Json);
    let ended = arguments.check().and_then(crate::app::run);
    match ended {
        Ok(crate::lifecycle::Ended::Drained) => ExitCode::SUCCESS,
        Ok(crate::lifecycle::Ended::Cut(_)) => EXIT_SOFTWARE.into(),
        Err(error) => {
            eprintln!("baton: {}", error.text());
            if let Some(chain) = error.cause_chain() {
                eprintln!("  cause: {chain}");
            }
            match error.code() {
                Code::StoreLocked => EXIT_TRY_AGAIN.into(),
                Code::BadConfig => EXIT_USAGE.into(),
                _ => EXIT_SOFTWARE.into(),
            }
        }
    }
}
