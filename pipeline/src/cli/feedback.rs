//! `baton feedback`: logged requests and later labels become rows of a dataset, on disk or pushed to the pipeline.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use baton_runner::cli::output::line;
use baton_runner::cli::{EXIT_REFUSED, EXIT_TRY_AGAIN, EXIT_USAGE};
use clap::{Args, Subcommand};
use serde_json::json;

use super::sink::{SinkArgs, exit_code, exit_code_of_store};
use crate::feedback::{Conflicts, FeedbackError, Join, Prefer, Report, Window, join};
use crate::records::query::moment;
use crate::store::{Digest, Store, StoreError};
use crate::submit::{File, SubmitError, Submitted, submit};

/// Bytes of an earlier dataset that is taken from the store.
const MAX_EARLIER: u64 = 4 << 30;

/// Commands about feedback.
#[derive(Debug, Subcommand)]
pub enum FeedbackCommand {
    /// Join a model's request log with labels, and write a CSV file
    Join {
        #[command(flatten)]
        join: JoinArgs,
        /// File to write; - for standard output
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
        #[command(flatten)]
        to: SinkArgs,
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
    /// Only rows logged at this time or later: 2026-11-21T14:00:00Z, 2026-11-21 (its first moment, UTC), -7d
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    since: Option<jiff::Timestamp>,
    /// Only rows logged before this time
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
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
    Usage(String),
    #[error("{0}")]
    Machine(String),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Failure::Feedback(FeedbackError::Moved) => EXIT_TRY_AGAIN,
            Failure::Feedback(FeedbackError::File { .. } | FeedbackError::NoLog(_)) => EXIT_USAGE,
            Failure::Feedback(_) => EXIT_REFUSED,
            Failure::Submit(error) => exit_code(error),
            Failure::Store(error) => exit_code_of_store(error),
            Failure::Usage(_) => EXIT_USAGE,
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
            let report = join(&arguments.join(&out, None)).map_err(Failure::from);
            // What is told must not stand among the rows.
            let is_out = out == Path::new("-");
            report.map(|report| match (told(&report, None, json), is_out) {
                (text, true) => eprintln!("{text}"),
                (text, false) => line(&text),
            })
        }
        FeedbackCommand::Push { dataset, join, append_last, to } => push(&dataset, join, append_last, &to),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("baton: {failure}");
            failure.exit_code().into()
        }
    }
}

fn push(dataset: &str, arguments: JoinArgs, append_last: bool, to: &SinkArgs) -> Result<(), Failure> {
    let machine = |error: std::io::Error| Failure::Machine(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(machine)?;
    let (store, sink) = to.open().map_err(Failure::Usage)?;
    let folder = tempfile::tempdir().map_err(machine)?;
    let earlier = match append_last {
        true => runtime.block_on(last(&store, dataset, folder.path()))?,
        false => None,
    };
    let out = folder.path().join("next.csv");
    let json = arguments.json;
    let report = join(&arguments.join(&out, earlier))?;
    let file = File {
        dataset,
        name: &format!("{dataset}.csv"),
        bytes: std::fs::read(&out).map_err(machine)?.into(),
        origin: Some("baton feedback"),
        again: false,
    };
    let submitted = runtime.block_on(submit(&store, &sink, file))?;
    line(&told(&report, Some(&submitted), json));
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

fn told(report: &Report, submitted: Option<&Submitted>, as_json: bool) -> String {
    if as_json {
        return format!("{:#}", json!({ "report": report, "submitted": submitted }));
    }
    let rows = match report.appended_to {
        0 => format!("{} rows", report.rows),
        earlier => format!("{} rows, {earlier} of them from before", report.rows),
    };
    let pushed = submitted.map_or_else(String::new, |done| {
        format!("\npushed {} {}, run {}", done.dataset, done.digest, done.run)
    });
    format!("{rows}: {report}{pushed}")
}
