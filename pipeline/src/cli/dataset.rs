//! `baton dataset`: checks on this machine, and files on their way into a pipeline.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use baton_data::{Checked, Input, Policy, Report, Verdict};
use baton_runner::cli::{EXIT_REFUSED, EXIT_SOFTWARE, EXIT_TRY_AGAIN, EXIT_USAGE};
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::json;

use super::sink::{SinkArgs, exit_code};
use crate::function::validate::{Before, Surroundings, served_contract};
use crate::function::{Failure, SALT, target};
use crate::store::Digest;
use crate::submit::{File, SubmitError, submit};

/// Bytes of a file that is pushed: what no policy may allow more of.
const MOST_BYTES: u64 = 1 << 30;
/// Findings that are printed of each sort.
const MOST_SHOWN: usize = 20;

/// What can be done with a dataset.
#[derive(Debug, Subcommand)]
pub enum DatasetCommand {
    /// Check a file as the pipeline would; exit code 1 if it is rejected
    Check(CheckArgs),
    /// Put a file into the store and tell the pipeline
    Push(PushArgs),
    /// Write a file with its private columns masked; the salt is in BATON_MASK_SALT
    Mask(MaskArgs),
}

/// A file, and what is expected of it.
#[derive(Debug, Args)]
pub struct CheckArgs {
    file: PathBuf,
    /// Policy, TOML; without one the defaults hold
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The accepted version to compare with
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    /// The dataset's name; the policy's, or the file's, if none is given
    #[arg(long)]
    dataset: Option<String>,
    /// Who sends it
    #[arg(long, value_name = "TEXT")]
    origin: Option<String>,
    /// An isolation forest in ONNX, as beside the active model
    #[arg(long, value_name = "ONNX")]
    forest: Option<PathBuf>,
    /// Admin port of the runner, for a policy with contract = "served"
    #[arg(long, env = "BATON_SERVER", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    server: String,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Write the report as a page
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
    /// Write each row's outlier scores as CSV
    #[arg(long, value_name = "OUT")]
    scores: Option<PathBuf>,
    /// Write the training part as CSV, if the file is accepted
    #[arg(long, value_name = "OUT")]
    training: Option<PathBuf>,
    /// Write the holdout part as CSV, if the file is accepted
    #[arg(long, value_name = "OUT")]
    holdout: Option<PathBuf>,
}

/// A file, and where it goes.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// The dataset's name
    name: String,
    file: PathBuf,
    #[command(flatten)]
    to: SinkArgs,
    /// Who sends it
    #[arg(long, value_name = "TEXT")]
    origin: Option<String>,
    /// An event of its own, also for a file that was pushed before: it is checked again, and becomes the newest version
    #[arg(long)]
    again: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A file, and how it is masked.
#[derive(Debug, Args)]
pub struct MaskArgs {
    file: PathBuf,
    /// Policy with [mask.columns]
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Where the masked rows go, as CSV; standard output if nothing is given
    #[arg(long, value_name = "OUT")]
    out: Option<PathBuf>,
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
enum DatasetError {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error("{0}")]
    TryAgain(String),
    #[error("{0}")]
    Software(String),
}

impl From<Failure> for DatasetError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Later(text) => Self::TryAgain(text),
            Failure::Never(text) => Self::Usage(text),
        }
    }
}

/// Runs a command.
#[allow(clippy::print_stderr, reason = "this is the command line's error output")]
pub(super) fn run(command: DatasetCommand) -> ExitCode {
    let done = match command {
        DatasetCommand::Check(arguments) => check(&arguments),
        DatasetCommand::Push(arguments) => push(&arguments),
        DatasetCommand::Mask(arguments) => mask(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("baton: {error}");
            match error {
                DatasetError::Usage(_) => EXIT_USAGE,
                DatasetError::Refused(_) => EXIT_REFUSED,
                DatasetError::Submit(error) => exit_code(&error),
                DatasetError::TryAgain(_) => EXIT_TRY_AGAIN,
                DatasetError::Software(_) => EXIT_SOFTWARE,
            }
            .into()
        }
    }
}

/// A file's bytes, or its size if it has more than `limit`.
fn read(path: &Path, limit: u64) -> Result<Result<Vec<u8>, u64>, DatasetError> {
    let cannot = |error| DatasetError::Usage(format!("cannot read {}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(cannot)?;
    let size = file.metadata().map_err(cannot)?.len();
    let mut bytes = Vec::new();
    // A device says that it has no bytes, and gives them without end.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(if bytes.len() as u64 > limit { Err(size.max(limit + 1)) } else { Ok(bytes) })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), DatasetError> {
    std::fs::write(path, bytes)
        .map_err(|error| DatasetError::Usage(format!("cannot write {}: {error}", path.display())))
}

/// Refuses to write over a file that is read, or over another output.
fn distinct(arguments: &CheckArgs) -> Result<(), DatasetError> {
    let read = [
        Some(&arguments.file),
        arguments.policy.as_ref(),
        arguments.previous.as_ref(),
        arguments.forest.as_ref(),
    ];
    let mut known: Vec<PathBuf> =
        read.into_iter().flatten().filter_map(|path| path.canonicalize().ok()).collect();
    let written = [&arguments.html, &arguments.scores, &arguments.training, &arguments.holdout];
    for path in written.into_iter().flatten() {
        // A file that is not there yet has a folder.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let whole = path.canonicalize().or_else(|_| {
            folder.canonicalize().map(|folder| folder.join(path.file_name().unwrap_or_default()))
        });
        let whole = whole.unwrap_or_else(|_| path.clone());
        // A device takes everything.
        if known.contains(&whole) && !whole.starts_with("/dev") {
            return Err(DatasetError::Usage(format!("{} is read, or written already", path.display())));
        }
        known.push(whole);
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn policy_of(path: Option<&Path>) -> Result<(Policy, Digest), DatasetError> {
    let text = match path {
        Some(path) => {
            let bytes = read(path, 1 << 20)?.map_err(|size| {
                DatasetError::Usage(format!("{} has {size} bytes; that is no policy", path.display()))
            })?;
            String::from_utf8(bytes)
                .map_err(|_| DatasetError::Usage(format!("{} is no UTF-8 text", path.display())))?
        }
        None => String::new(),
    };
    let policy = Policy::parse(&text).map_err(|error| DatasetError::Usage(error.to_string()))?;
    Ok((policy, Digest::of(text.as_bytes())))
}

fn runtime() -> Result<tokio::runtime::Runtime, DatasetError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| DatasetError::Software(format!("cannot start: {error}")))
}

fn check(arguments: &CheckArgs) -> Result<ExitCode, DatasetError> {
    distinct(arguments)?;
    let (policy, policy_digest) = policy_of(arguments.policy.as_deref())?;
    let file = file_name(&arguments.file);
    let stem = file.split('.').next().unwrap_or_default().to_owned();
    let dataset = arguments.dataset.clone().or_else(|| policy.dataset.clone()).unwrap_or(stem);
    let token = std::env::var("BATON_TOKEN").ok().filter(|token| !token.is_empty());
    let contract = runtime()?.block_on(served_contract(&policy, &arguments.server, token.as_deref()))?;
    let read_policy = policy_digest.to_string();
    let checked =
        |surroundings: &Surroundings, path: &Path| -> Result<(Checked, Option<Vec<u8>>), DatasetError> {
            let read = read(path, policy.limits.max_bytes)?;
            let file = file_name(path);
            let digest = read.as_ref().map(|bytes| Digest::of(bytes).to_string()).unwrap_or_default();
            let input = Input {
                dataset: &dataset,
                file: &file,
                digest: &digest,
                origin: arguments.origin.as_deref(),
                bytes: read.as_deref().unwrap_or_default(),
                policy_digest: &read_policy,
            };
            let checked = match &read {
                Ok(_) => surroundings.check(&input, &policy)?,
                Err(size) => baton_data::too_large(&input, *size, &policy),
            };
            Ok((checked, read.ok()))
        };
    let mut surroundings = Surroundings { contract, ..Surroundings::default() };
    if let Some(path) = &arguments.previous {
        let (before, bytes) = checked(&surroundings, path)?;
        surroundings.previous = Some(Before {
            digest: before.report.digest.clone(),
            file: file_name(path),
            bytes: bytes.map(Bytes::from),
            report: Some(before.report),
        });
    }
    if let Some(path) = &arguments.forest {
        let bytes = read(path, MOST_BYTES)?;
        surroundings.forest =
            Some(bytes.map_err(|_| DatasetError::Usage(format!("{} is too large", path.display())))?);
    }
    let (checked, _) = checked(&surroundings, &arguments.file)?;
    let is_accepted = checked.report.verdict == Verdict::Accepted;
    for (path, bytes, is_written) in [
        (&arguments.html, baton_data::html(&checked.report).into_bytes(), true),
        (&arguments.scores, scores(&checked), true),
        (&arguments.training, checked.training.clone(), is_accepted),
        (&arguments.holdout, checked.holdout.clone(), is_accepted),
    ] {
        if let Some(path) = path.as_ref().filter(|_| is_written) {
            write(path, &bytes)?;
        }
    }
    match arguments.json {
        true => print(&serde_json::to_string_pretty(&checked.report).unwrap_or_default()),
        false => summary(&checked.report),
    }
    Ok(match checked.report.verdict {
        Verdict::Accepted => ExitCode::SUCCESS,
        Verdict::Rejected | Verdict::NeedsReview => EXIT_REFUSED.into(),
    })
}

/// One line a row: its number, whether it is marked, and its score by every method.
fn scores(checked: &Checked) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header =
        ["row", "marked"].into_iter().chain(checked.scores.iter().map(|(method, _)| method.as_str()));
    // Memory takes everything, and the records are of one length.
    let _ = writer.write_record(header);
    for (row, marked) in checked.marked.iter().enumerate() {
        let of_methods =
            checked.scores.iter().map(|(_, scores)| scores.get(row).copied().unwrap_or(0.0).to_string());
        let cells = [(row + 1).to_string(), u8::from(*marked).to_string()].into_iter().chain(of_methods);
        let _ = writer.write_record(cells);
    }
    writer.into_inner().unwrap_or_default()
}

/// Prints a line; a reader that is gone is no error of ours.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn summary(report: &Report) {
    let verdict = match report.verdict {
        Verdict::Accepted => "accepted",
        Verdict::Rejected => "rejected",
        Verdict::NeedsReview => "needs review",
    };
    print(&format!("{}: {verdict} ({})", report.file, report.digest));
    for (what, findings) in [("reason", &report.reasons), ("warning", &report.warnings)] {
        for finding in findings.iter().take(MOST_SHOWN) {
            print(&format!("  {what}: {} {}", finding.code.id(), finding.text));
        }
        if findings.len() > MOST_SHOWN {
            print(&format!("  and {} more; --json prints all", findings.len() - MOST_SHOWN));
        }
    }
    if let Some(profile) = &report.profile {
        print(&format!("  {} rows in {} columns", profile.rows, profile.columns.len()));
    }
    if let Some(change) = &report.change {
        print(&format!("  {} rows added, {} removed, {} kept", change.added, change.removed, change.kept));
    }
    for method in report.outliers.iter().flat_map(|outliers| &outliers.methods) {
        print(&format!("  {} marks {} rows ({})", method.method, method.flagged, method.why));
    }
    if let Some(split) = &report.split {
        print(&format!("  {} rows for training, {} held out", split.training_rows, split.holdout_rows));
    }
}

fn push(arguments: &PushArgs) -> Result<ExitCode, DatasetError> {
    let bytes = read(&arguments.file, MOST_BYTES)?.map_err(|size| {
        DatasetError::Usage(format!(
            "{} has {size} bytes, at most {MOST_BYTES} are taken",
            arguments.file.display()
        ))
    })?;
    let (store, sink) = arguments.to.open().map_err(DatasetError::Usage)?;
    let file = File {
        dataset: &arguments.name,
        name: &file_name(&arguments.file),
        bytes: bytes.into(),
        origin: arguments.origin.as_deref(),
        again: arguments.again,
    };
    let submitted = runtime()?.block_on(submit(&store, &sink, file))?;
    print(&match arguments.json {
        true => json!(submitted).to_string(),
        false => format!("{} is {}, run {}", submitted.dataset, submitted.digest, submitted.run),
    });
    Ok(ExitCode::SUCCESS)
}

fn mask(arguments: &MaskArgs) -> Result<ExitCode, DatasetError> {
    let (policy, _) = policy_of(Some(&arguments.policy))?;
    let file = file_name(&arguments.file);
    let bytes = read(&arguments.file, policy.limits.max_bytes)?.map_err(|size| {
        DatasetError::Refused(format!("{file} has {size} bytes, max_bytes is {}", policy.limits.max_bytes))
    })?;
    let salt = std::env::var(SALT).unwrap_or_default();
    let masked = baton_data::mask(&file, &bytes, &policy, salt.as_bytes())
        .map_err(|error| DatasetError::Refused(error.to_string()))?;
    match &arguments.out {
        Some(path) => {
            write(path, &masked.csv)?;
            let into = policy.dataset.as_deref().map(|dataset| target(&policy, dataset)).transpose()?;
            let told: Vec<String> =
                masked.summary.columns.iter().map(|(column, mask)| format!("{column}: {mask}")).collect();
            let into = into.map(|into| format!(" (dataset {into})")).unwrap_or_default();
            print(&format!("{} rows in {}{into}; {}", masked.summary.rows, path.display(), told.join(", ")));
        }
        None => std::io::stdout()
            .write_all(&masked.csv)
            .map_err(|error| DatasetError::Usage(format!("cannot write: {error}")))?,
    }
    Ok(ExitCode::SUCCESS)
}
