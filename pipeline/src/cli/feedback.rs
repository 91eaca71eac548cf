//! `baton feedback`: logged requests and later labels become rows of a dataset, on disk or pushed to the pipeline.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use baton_runner::cli::{EXIT_REFUSED, EXIT_TRY_AGAIN, EXIT_UNREACHABLE, EXIT_USAGE};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::feedback::{Conflicts, FeedbackError, Join, Prefer, Report, Window, join};
use crate::store::{Digest, Store, StoreError};
use crate::submit::{SubmitError, Submitted, submit};

/// Bytes of an earlier dataset that is taken from the store.
const MAX_EARLIER: u64 = 4 << 30;

/// Commands about feedback.
#[derive(Debug, Subcommand)]
pub enum FeedbackCommand {
    /// Join a model's request log with labels, and write a CSV file
    Join {
        #[command(flatten)]
        join: JoinArgs,
        /// File to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Join, and push the result as the next version of a dataset
    Push {
        /// The dataset
        dataset: String,
        #[command(flatten)]
        join: JoinArgs,
        /// Begin with the rows of the newest accepted version in the store
        #[arg(long, conflicts_with = "append")]
        append_last: bool,
        /// The artifact store: a folder, file:///... or s3://bucket/prefix
        #[arg(long, env = "BATON_ARTIFACTS", value_name = "STORE")]
        store: String,
        /// Where events are posted to
        #[arg(long, env = "K_SINK", default_value = "http://127.0.0.1:8090/", value_name = "URL")]
        sink: String,
    },
}

/// What is joined, and how.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The model's folder in the request log, LOG/MODEL
    #[arg(long, value_name = "FOLDER")]
    log: PathBuf,
    /// CSV file with the request's id, the label, and the row (from 0) where requests have several
    #[arg(long, value_name = "FILE")]
    labels: PathBuf,
    /// Column with the request's id
    #[arg(long, default_value = "id", value_name = "COLUMN")]
    on: String,
    /// Column with the label [default: the only other one]
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Only rows logged at this time or later, as 2026-11-21T14:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<jiff::Timestamp>,
    /// Only rows logged before this time
    #[arg(long, value_name = "TIME")]
    until: Option<jiff::Timestamp>,
    /// Only rows that this bundle answered
    #[arg(long, value_name = "DIGEST")]
    digest: Option<Digest>,
    /// What to do with a row that has two different labels
    #[arg(long, value_enum, default_value = "refuse")]
    conflicts: Conflicts,
    /// Which inputs a label is of, if its request id was used for several
    #[arg(long, value_enum, default_value = "refuse")]
    prefer: Prefer,
    /// CSV file whose rows come first; it has to have the same columns
    #[arg(long, value_name = "FILE")]
    append: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl JoinArgs {
    fn join(self, out: &Path, append: Option<PathBuf>) -> Join {
        let digest = self.digest.map(|digest| digest.to_string());
        Join {
            log: self.log,
            labels: self.labels,
            on: self.on,
            label: self.label,
            window: Window { since: self.since, until: self.until, digest },
            conflicts: self.conflicts,
            prefer: self.prefer,
            append: append.or(self.append),
            out: out.to_owned(),
        }
    }
}

/// Why a command failed, as the exit code tells it.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Feedback(#[from] FeedbackError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Machine(String),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Failure::Feedback(FeedbackError::Moved) => EXIT_TRY_AGAIN,
            Failure::Feedback(FeedbackError::File { .. } | FeedbackError::NoLog(_)) => EXIT_USAGE,
            Failure::Feedback(_) | Failure::Submit(SubmitError::Refused { .. }) => EXIT_REFUSED,
            Failure::Submit(SubmitError::Undelivered { .. }) => EXIT_UNREACHABLE,
            Failure::Store(error) | Failure::Submit(SubmitError::Store(error)) if error.is_transient() => {
                EXIT_TRY_AGAIN
            }
            Failure::Store(_) | Failure::Submit(_) => EXIT_USAGE,
            Failure::Machine(_) => EXIT_TRY_AGAIN,
        }
    }
}

/// Runs a command: 0 done, 1 refused for what the files hold, 64 wrong usage, 69 no broker, 75 try again.
#[allow(clippy::print_stderr, reason = "this is the command line's error output")]
pub(super) fn run(command: FeedbackCommand) -> ExitCode {
    let result = match command {
        FeedbackCommand::Join { join: arguments, out } => {
            let json = arguments.json;
            join(&arguments.join(&out, None)).map(|report| tell(&report, None, json)).map_err(Failure::from)
        }
        FeedbackCommand::Push { dataset, join, append_last, store, sink } => {
            push(&dataset, join, append_last, &store, &sink)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("baton: {failure}");
            failure.exit_code().into()
        }
    }
}

fn push(
    dataset: &str,
    arguments: JoinArgs,
    append_last: bool,
    store: &str,
    sink: &str,
) -> Result<(), Failure> {
    let machine = |error: std::io::Error| Failure::Machine(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(machine)?;
    let store = Store::open(store)?;
    let folder = tempfile::tempdir().map_err(machine)?;
    let earlier = match append_last {
        true => runtime.block_on(last(&store, dataset, folder.path()))?,
        false => None,
    };
    let out = folder.path().join("next.csv");
    let json = arguments.json;
    let report = join(&arguments.join(&out, earlier))?;
    let bytes = std::fs::read(&out).map_err(machine)?;
    let name = format!("{dataset}.csv");
    let origin = Some("baton feedback");
    let submitted = runtime.block_on(submit(&store, sink, dataset, &name, bytes, origin))?;
    tell(&report, Some(&submitted), json);
    Ok(())
}

/// The newest accepted version as a file; `None` if there is none yet.
async fn last(store: &Store, dataset: &str, folder: &Path) -> Result<Option<PathBuf>, Failure> {
    #[derive(serde::Deserialize)]
    struct Accepted {
        digest: Digest,
    }
    let Some((_, accepted)) = store.last::<Accepted>("datasets", dataset).await? else { return Ok(None) };
    let bytes = store.get(&accepted.digest, MAX_EARLIER).await?;
    let path = folder.join("earlier.csv");
    std::fs::write(&path, bytes).map_err(|error| Failure::Machine(error.to_string()))?;
    Ok(Some(path))
}

fn tell(report: &Report, submitted: Option<&Submitted>, as_json: bool) {
    use std::io::Write;
    let mut out = std::io::stdout();
    let _ = if as_json {
        writeln!(out, "{:#}", json!({ "report": report, "submitted": submitted }))
    } else {
        let rows = match report.appended_to {
            0 => format!("{} rows", report.rows),
            earlier => format!("{} rows, {earlier} of them from before", report.rows),
        };
        let pushed = submitted.map_or_else(String::new, |done| {
            format!("pushed {} {}, run {}\n", done.dataset, done.digest, done.run)
        });
        write!(out, "{rows}: {report}\n{pushed}")
    };
}
