//! `baton history` and `baton lineage`: the records, asked over HTTP or read from the engine's folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use baton_runner::cli::output::{line, short, table};
use baton_runner::cli::{self, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE};
use baton_runner::error::root;
use serde_json::Value;

use super::sink::token;
use crate::records::lineage::{self, Lineage};
use crate::records::query::{self, Expression, Names, Query, Sort};
use crate::records::{self, RecordsError, openlineage};

/// What is shown of a run if nobody says.
const COLUMNS: &str = "run,state,model,version,dataset,accuracy,started,seconds,cost.cpu_s,who";
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the records are.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RecordsArgs {
    /// Address of the pipeline that has the records
    #[arg(long, env = "BATON_PIPELINE", default_value = "http://127.0.0.1:8090", value_name = "URL")]
    pipeline: String,
    /// File with the pipeline's bearer token
    #[arg(long, env = "BATON_PIPELINE_TOKEN_FILE", value_name = "FILE")]
    pipeline_token_file: Option<PathBuf>,
    /// Read them from the pipeline's folder instead; it need not run
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    served: cli::HistoryArgs,
    /// Show runs, not what was served
    #[arg(long)]
    runs: bool,
    /// Only runs for which this holds, e.g. 'accuracy >= 0.9 and dataset = "digits"'
    #[arg(long = "where", value_name = "CONDITION")]
    filter: Option<String>,
    /// Sort runs by these fields, downwards with '-': -accuracy,cost.cpu_s
    #[arg(long, value_name = "FIELDS", allow_hyphen_values = true)]
    sort: Option<String>,
    /// Fields of runs to show
    #[arg(long, value_name = "FIELDS")]
    columns: Option<String>,
    /// Print runs as CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    #[command(flatten)]
    records: RecordsArgs,
}

#[derive(Debug, clap::Args)]
pub struct LineageArgs {
    /// A digest (sha256:... or its first digits), a run, MODEL@VERSION, a model or a dataset
    subject: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print OpenLineage run events
    #[arg(long, conflicts_with = "json")]
    openlineage: bool,
    #[command(flatten)]
    records: RecordsArgs,
}

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Unreachable(String),
}

impl From<RecordsError> for Failure {
    fn from(error: RecordsError) -> Self {
        match error {
            RecordsError::Query(_) | RecordsError::Asked(_) => Failure::Usage(error.to_string()),
            RecordsError::Unknown(_) => Failure::Refused(error.to_string()),
            _ => Failure::Unreachable(error.to_string()),
        }
    }
}

/// Shows runs, or what was served when.
pub(super) fn history(arguments: &HistoryArgs) -> ExitCode {
    let runs = arguments.runs
        || arguments.filter.is_some()
        || arguments.sort.is_some()
        || arguments.csv
        || arguments.columns.is_some()
        || arguments.records.data.is_some();
    if runs { exit_code(show_runs(arguments)) } else { cli::history(&arguments.served) }
}

/// Shows where something comes from.
pub(super) fn lineage(arguments: &LineageArgs) -> ExitCode {
    exit_code(show_lineage(arguments))
}

#[allow(clippy::print_stderr, reason = "this is the command line's error output")]
fn exit_code(shown: Result<(), Failure>) -> ExitCode {
    let Err(failure) = shown else { return ExitCode::SUCCESS };
    eprintln!("baton: {failure}");
    match failure {
        Failure::Usage(_) => EXIT_USAGE.into(),
        Failure::Refused(_) => EXIT_REFUSED.into(),
        Failure::Unreachable(_) => EXIT_UNREACHABLE.into(),
    }
}

fn show_runs(arguments: &HistoryArgs) -> Result<(), Failure> {
    let query = Query {
        model: arguments.served.model.clone(),
        filter: arguments.filter.clone().unwrap_or_default(),
        sort: arguments.sort.clone().unwrap_or_default(),
        columns: arguments.columns.clone().unwrap_or_default(),
        limit: arguments.served.limit,
    };
    if query.limit > query::MAX_LIMIT {
        return Err(Failure::Usage(format!("--limit is at most {}", query::MAX_LIMIT)));
    }
    // What is no condition is said here, without a pipeline too; which names there are, the records know.
    let names = Names::default();
    Expression::parse(&query.filter, &names, jiff::Timestamp::now())
        .map_err(|error| Failure::Usage(format!("--where: {error}")))?;
    Sort::parse(&query.sort, &names).map_err(|error| Failure::Usage(format!("--sort: {error}")))?;
    let shown = query::Shown::list(arguments.columns.as_deref().unwrap_or(COLUMNS), &names)
        .map_err(|error| Failure::Usage(format!("--columns: {error}")))?;

    let (runs, truncated): (Vec<Value>, bool) = match &arguments.records.data {
        Some(folder) => {
            let found = query::search(&records::open(&database(folder))?, &query)?;
            let runs = found.runs.iter().filter_map(|run| serde_json::from_str(run.get()).ok());
            (runs.collect(), found.truncated)
        }
        None => {
            let limit = query.limit.to_string();
            let mut parameters = vec![
                ("where", query.filter.as_str()),
                ("sort", &query.sort),
                ("columns", &query.columns),
                ("limit", &limit),
            ];
            parameters.extend(query.model.as_deref().map(|model| ("model", model)));
            let answer = ask(&arguments.records, &["v1", "runs"], &parameters)?;
            (answer["runs"].as_array().cloned().unwrap_or_default(), answer["truncated"] == true)
        }
    };
    if truncated {
        note(&format!("there are more than these {}; --limit shows up to {}", runs.len(), query::MAX_LIMIT));
    }
    if arguments.served.json() {
        return print_json(&runs);
    }
    let cells = runs.iter().map(|run| shown.iter().map(|column| column.text(run)).collect::<Vec<_>>());
    if arguments.csv {
        return print_csv(&shown, cells);
    }
    let cells = cells.map(|row| row.into_iter().map(|cell| readable(&cell)).collect());
    let headings: Vec<String> = shown.iter().map(|column| column.name.to_uppercase()).collect();
    table(&headings.iter().map(String::as_str).collect::<Vec<_>>(), &cells.collect::<Vec<_>>());
    match given_up(&arguments.records, &runs) {
        0 => {}
        1 => note("one of these runs has a delivery that was given up: baton pipeline dead"),
        count => {
            note(&format!("{count} of these runs have deliveries that were given up: baton pipeline dead"))
        }
    }
    Ok(())
}

/// How many of these runs do not go on because a delivery of theirs was given up, as far as whoever runs the pipeline can be asked.
fn given_up(records: &RecordsArgs, runs: &[Value]) -> usize {
    if records.data.is_some() {
        return 0;
    }
    let dead =
        ask(records, &["v1", "deliveries"], &[("state", "dead"), ("limit", "1000")]).unwrap_or_default();
    let dead: BTreeSet<&str> =
        dead["deliveries"].as_array().into_iter().flatten().filter_map(|one| one["run"].as_str()).collect();
    let shown: BTreeSet<&str> = runs.iter().filter_map(|run| run["run"].as_str()).collect();
    shown.intersection(&dead).count()
}

fn show_lineage(arguments: &LineageArgs) -> Result<(), Failure> {
    let LineageArgs { subject, records, .. } = arguments;
    // None of them can stand in an address.
    if ["", ".", ".."].contains(&subject.as_str()) {
        return Err(Failure::Refused(format!("nothing is known of {subject:?}")));
    }
    let path = ["v1", "lineage", subject];
    if arguments.openlineage {
        let events = match &records.data {
            Some(folder) => openlineage::of(&records::open(&database(folder))?, subject)?.into(),
            None => ask(records, &path, &[("format", "openlineage")])?,
        };
        return print_json(&events);
    }
    let found: Lineage = match &records.data {
        Some(folder) => lineage::find(&records::open(&database(folder))?, subject)?,
        None => {
            let answer = ask(records, &path, &[])?;
            serde_json::from_value(answer).map_err(|error| {
                Failure::Unreachable(format!("the pipeline's answer cannot be read: {error}"))
            })?
        }
    };
    if arguments.json {
        return print_json(&found);
    }
    for text in super::tree::lines(&found) {
        line(&readable(&text));
    }
    Ok(())
}

/// The database in a folder, or the file itself.
fn database(folder: &Path) -> PathBuf {
    if folder.is_file() {
        return folder.to_owned();
    }
    folder.join(crate::engine::DATABASE)
}

/// An answer of the pipeline. Its refusals are shown as it says them.
fn ask(records: &RecordsArgs, path: &[&str], parameters: &[(&str, &str)]) -> Result<Value, Failure> {
    let server = records.pipeline.as_str();
    let address = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    let no_url = || Failure::Usage(format!("--pipeline: {server:?} is no URL"));
    let mut url = url::Url::parse(&address).map_err(|_| no_url())?;
    url.path_segments_mut().map_err(|()| no_url())?.pop_if_empty().extend(path);
    let http = reqwest::blocking::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let mut request = http.get(url).query(parameters);
    if let Some(file) = &records.pipeline_token_file {
        request = request.bearer_auth(token(file).map_err(Failure::Usage)?);
    }
    let answered = request.send().map_err(|error| {
        let cause = root(&error);
        Failure::Unreachable(format!(
            "cannot reach {server}: {cause}; is the pipeline running? (baton pipeline serve, or --data DIR)"
        ))
    })?;
    let status = answered.status();
    let answer: Result<Value, _> = answered.json();
    if status.is_success() {
        return answer
            .map_err(|error| Failure::Unreachable(format!("the pipeline's answer cannot be read: {error}")));
    }
    let reason = answer.ok().and_then(|answer| answer["error"].as_str().map(str::to_owned));
    let reason = reason.unwrap_or_else(|| format!("{server} answered {status}"));
    match status.as_u16() {
        400 => Err(Failure::Usage(reason)),
        404 => Err(Failure::Refused(reason)),
        _ => Err(Failure::Unreachable(reason)),
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Refused(error.to_string()))?;
    line(&text);
    Ok(())
}

#[allow(clippy::print_stderr, reason = "this is the command line's error output")]
fn note(text: &str) {
    eprintln!("baton: {text}");
}

fn print_csv(columns: &[query::Shown], rows: impl Iterator<Item = Vec<String>>) -> Result<(), Failure> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let write = |error: csv::Error| Failure::Refused(error.to_string());
    writer.write_record(columns.iter().map(|column| &column.name)).map_err(write)?;
    for row in rows {
        writer.write_record(row).map_err(write)?;
    }
    let bytes = writer.into_inner().map_err(|error| Failure::Refused(error.to_string()))?;
    line(String::from_utf8_lossy(&bytes).trim_end_matches('\n'));
    Ok(())
}

/// For a terminal: a name from elsewhere must not steer it, and a digest is told by its beginning.
fn readable(text: &str) -> String {
    let text = if text.starts_with("sha256:") { short(text) } else { text };
    let steers = |char: char| {
        char.is_control()
            || matches!(char, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|char| if steers(char) { '\u{fffd}' } else { char }).collect()
}
