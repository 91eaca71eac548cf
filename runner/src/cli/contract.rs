//! `baton contract`: make, compare and show contracts. All but `show` work without a server.

use std::path::{Path, PathBuf};

use reqwest::Method;

use super::client::{Client, Failure};
use super::commands::segment;
use super::{ClientArgs, output};
use crate::admin::wire::Problem;
use crate::config::Limits;
use crate::contract::{self, Sample, Schema};
use crate::engine::{EngineOptions, Engines};
use crate::error::{Code, Error};

/// Rows of a sample that are looked at.
const SAMPLE_ROWS: usize = 10_000;

/// What to do with contracts.
#[derive(Debug, clap::Subcommand)]
pub enum ContractCommand {
    /// Print a contract for a model file
    Infer {
        model_file: PathBuf,
        /// A CSV file with a header, whose names and types the fields get
        #[arg(long, value_name = "FILE")]
        sample: Option<PathBuf>,
        /// Name of the model, which the package is named after; the file's if not given
        #[arg(long)]
        name: Option<String>,
        /// ONNX Runtime library
        #[arg(long, env = "ORT_DYLIB_PATH", value_name = "FILE")]
        onnxruntime: Option<PathBuf>,
    },
    /// Tell what of a new contract breaks clients of the old one
    Check {
        old: PathBuf,
        new: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the contract that a model is served by
    Show {
        model: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Print the rules of compatibility
    Rules,
}

/// Runs a command.
pub(super) fn run(command: ContractCommand) -> Result<(), Failure> {
    match command {
        ContractCommand::Infer { model_file, sample, name, onnxruntime } => {
            infer(&model_file, sample.as_deref(), name, onnxruntime.as_deref())
        }
        ContractCommand::Check { old, new, json } => check(&old, &new, json),
        ContractCommand::Show { model, client } => client.run(|client, _| {
            output::line(show(client, &model)?.trim_end());
            Ok(())
        }),
        ContractCommand::Rules => {
            for (rule, text) in contract::rules() {
                output::line(&format!("{rule:44} {text}"));
            }
            Ok(())
        }
    }
}

/// The source of the contract that a model is served by.
pub(super) fn show(client: &Client, model: &str) -> Result<String, Failure> {
    let path = format!("/v1/models/{}/contract", segment(model));
    let response = client.send_raw(client.request(Method::GET, &path))?;
    response.text().map_err(|error| Failure::Unreachable(error.to_string()))
}

fn infer(
    model_file: &Path,
    sample: Option<&Path>,
    name: Option<String>,
    onnxruntime: Option<&Path>,
) -> Result<(), Failure> {
    let limits = Limits::default();
    let stem = model_file
        .file_stem()
        .map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().to_lowercase());
    let name = name.unwrap_or(stem);
    let sample = match sample {
        None => None,
        Some(path) => {
            let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
            let refused = |error: contract::csv::CsvError| Failure::Usage(error.text);
            Some(Sample::read(std::io::BufReader::new(file), SAMPLE_ROWS).map_err(refused)?)
        }
    };
    let artifact = read(model_file)?;
    let engines = Engines::for_server(onnxruntime, false, &limits);
    let instance = engines.prepare(artifact, &EngineOptions::default()).map_err(refusal)?;
    let source = contract::infer(&name, instance.signature(), sample.as_ref())
        .map_err(|text| refusal(Error::new(Code::ContractModelMismatch, text)))?;
    output::line(source.trim_end());
    Ok(())
}

fn check(old: &Path, new: &Path, json: bool) -> Result<(), Failure> {
    let compile = |path: &Path| -> Result<Schema, Failure> {
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Schema::compile(&name, &read(path)?, &Limits::default()).map_err(refusal)
    };
    let changes = compile(old)?.breaking(Some(&compile(new)?));
    if changes.is_empty() {
        if json {
            return output::json(&changes);
        }
        output::line("compatible");
        return Ok(());
    }
    Err(Failure::Refused {
        status: 409,
        problem: Box::new(problem(contract::breaking_error(&changes))),
        json,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Usage(format!("cannot read {}: {error}", path.display()))
}

/// A refusal of our own, told like a server's.
fn refusal(error: Error) -> Failure {
    Failure::Refused { status: 422, problem: Box::new(problem(error)), json: false }
}

fn problem(error: Error) -> Problem {
    Problem {
        error: error.text().to_owned(),
        code: error.code().id().to_owned(),
        source: "request".to_owned(),
        request_id: String::new(),
        details: error.details().cloned(),
    }
}
