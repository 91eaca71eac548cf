//! Where commands put files: the artifact store, and the broker that is told.

use std::path::{Path, PathBuf};

use baton_runner::cli::{EXIT_REFUSED, EXIT_TRY_AGAIN, EXIT_UNREACHABLE, EXIT_USAGE};
use clap::Args;

use crate::store::{Store, StoreError};
use crate::submit::{Sink, SubmitError};

/// Characters of a token at least.
const SHORTEST_TOKEN: usize = 16;

/// Where a file and its event go.
#[derive(Debug, Args)]
pub struct SinkArgs {
    /// Artifact store: a folder, file:// or s3://
    #[arg(long, env = "BATON_ARTIFACTS", default_value = ".baton/pipeline/store", value_name = "ADDRESS")]
    store: String,
    /// Where events are posted
    #[arg(long, env = "K_SINK", default_value = "http://127.0.0.1:8090/", value_name = "URL")]
    sink: String,
    /// File with the engine's bearer token
    #[arg(long, env = "BATON_PIPELINE_TOKEN_FILE", value_name = "FILE")]
    pipeline_token_file: Option<PathBuf>,
}

impl SinkArgs {
    /// # Errors
    /// In words, which blame the arguments.
    pub(super) fn open(&self) -> Result<(Store, Sink), String> {
        let store = Store::open(&self.store).map_err(|error| error.to_string())?;
        let token = self.pipeline_token_file.as_deref().map(token).transpose()?;
        Ok((store, Sink::new(&self.sink, token).map_err(|error| error.to_string())?))
    }
}

/// The first line of a file that only its owner should be able to read.
///
/// # Errors
/// In words.
pub(super) fn token(path: &Path) -> Result<String, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.len() < SHORTEST_TOKEN {
        return Err(format!("{}: a token has at least {SHORTEST_TOKEN} characters", path.display()));
    }
    Ok(token.to_owned())
}

pub(super) fn exit_code(error: &SubmitError) -> u8 {
    match error {
        SubmitError::Refused { .. } => EXIT_REFUSED,
        SubmitError::Undelivered { .. } => EXIT_UNREACHABLE,
        SubmitError::Store(error) => exit_code_of_store(error),
        SubmitError::BadSink(..) => EXIT_USAGE,
    }
}

pub(super) fn exit_code_of_store(error: &StoreError) -> u8 {
    if error.is_transient() { EXIT_TRY_AGAIN } else { EXIT_USAGE }
}
