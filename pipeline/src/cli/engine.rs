//! `baton pipeline serve`, and the clients of a running engine: `status`, `events`, `dead`, `requeue`, `send`.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use baton_runner::cli::{EXIT_REFUSED, EXIT_SOFTWARE, EXIT_TRY_AGAIN, EXIT_UNREACHABLE, EXIT_USAGE};
use baton_runner::error::root;
use reqwest::blocking::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

use super::sink::token;
use crate::engine::{EngineError, LedgerError, Settings};
use crate::event::{Event, TYPE_PREFIX};
use crate::function;
use crate::manifest;

#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Files and folders with Knative's YAML
    #[arg(required = true, value_name = "MANIFEST")]
    manifests: Vec<PathBuf>,
    /// Folder of the database, logs and jobs
    #[arg(long, default_value = ".baton/pipeline", value_name = "DIR")]
    data: PathBuf,
    /// Where events are taken
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Artifact store: a folder, file:///... or s3://bucket/prefix; without it, the folder `store` of --data
    #[arg(long, env = "BATON_ARTIFACTS", value_name = "ADDRESS")]
    store: Option<String>,
    /// Admin address of the runner
    #[arg(long, env = "BATON_SERVER", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    server: String,
    /// Folder whose files, DATASET/FILE, become versions of datasets
    #[arg(long, value_name = "DIR")]
    inbox: Option<PathBuf>,
    /// Hand this variable on to functions and jobs
    #[arg(long, value_name = "NAME")]
    pass_env: Vec<String>,
    /// Jobs at a time; without it, as many as there are cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// File with the token that requests must carry; needed beyond the loopback
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How much is logged: error, warn, info, debug
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    log_level: tracing::Level,
    /// Log JSON
    #[arg(long)]
    log_json: bool,
}

/// Where the engine is and how to speak to it.
#[derive(Debug, clap::Args)]
pub(super) struct EngineArgs {
    /// Address of the pipeline's engine
    #[arg(
        long = "pipeline",
        env = "BATON_PIPELINE",
        default_value = "http://127.0.0.1:8090",
        value_name = "URL"
    )]
    engine: String,
    /// File with the engine's bearer token
    #[arg(long = "pipeline-token-file", env = "BATON_PIPELINE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// Of this run
    #[arg(long)]
    run: Option<String>,
    /// Of this type; `dataset.updated` stands for `dev.baton.dataset.updated.v1`
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Those after this number
    #[arg(long, default_value_t = 0, value_name = "SEQ")]
    after: i64,
    /// At most so many
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
    /// Go on with those to come, until interrupted
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    engine: EngineArgs,
    /// Print JSON, one event a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct DeadArgs {
    /// Of this trigger
    #[arg(long)]
    trigger: Option<String>,
    #[command(flatten)]
    engine: EngineArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct RequeueArgs {
    /// Of this trigger
    #[arg(long)]
    trigger: Option<String>,
    /// Of events with this source; with --trigger and --id also a delivery that was done is made again
    #[arg(long)]
    source: Option<String>,
    /// Of events with this id
    #[arg(long)]
    id: Option<String>,
    /// Everything that was given up
    #[arg(long, conflicts_with_all = ["trigger", "source", "id"])]
    all: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Debug, clap::Args)]
pub struct SendArgs {
    /// Type; `dataset.updated` stands for `dev.baton.dataset.updated.v1`
    #[arg(value_name = "TYPE")]
    kind: String,
    /// The event's source
    #[arg(long, default_value = "/baton/cli")]
    source: String,
    /// The event's id; without it, a new one
    #[arg(long)]
    id: Option<String>,
    /// The event's subject
    #[arg(long)]
    subject: Option<String>,
    /// JSON, @FILE with JSON, or @- for standard input
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// Another attribute
    #[arg(long = "extension", value_name = "NAME=VALUE")]
    extensions: Vec<String>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Events, or deliveries, that are asked for at a time.
const PAGE: u64 = 1000;

/// Why a command did not do what was asked: the exit code and the text.
struct Failure(u8, String);

type Result<T> = std::result::Result<T, Failure>;

pub(super) fn serve(arguments: ServeArgs) -> ExitCode {
    baton_runner::telemetry::log::start(arguments.log_level, arguments.log_json);
    exit((|| {
        let store = arguments.store.unwrap_or_else(|| arguments.data.join("store").display().to_string());
        let mut written =
            vec![arguments.data.clone(), store.strip_prefix("file://").unwrap_or(&store).into()];
        written.extend(arguments.inbox.clone());
        let pipeline = manifest::read(&arguments.manifests, &written)
            .map_err(|errors| Failure(EXIT_USAGE, errors.to_string()))?;
        let faults = function::faults(&pipeline.services);
        if !faults.is_empty() {
            return Err(Failure(EXIT_USAGE, faults.join("\n")));
        }
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let settings = Settings {
            store,
            token: arguments
                .token_file
                .as_deref()
                .map(token)
                .transpose()
                .map_err(|text| Failure(EXIT_USAGE, text))?,
            data: arguments.data,
            listen: arguments.listen,
            server: arguments.server,
            inbox: arguments.inbox,
            pass_env: arguments.pass_env,
            jobs: arguments.jobs.map_or_else(cores, usize::from),
        };
        crate::engine::run(&pipeline, settings).map_err(|error| {
            let code = match error {
                EngineError::Ledger(LedgerError::InUse(_)) => EXIT_TRY_AGAIN,
                EngineError::Unknown { .. } | EngineError::Exposed(_) | EngineError::Ping { .. } => {
                    EXIT_USAGE
                }
                _ => EXIT_SOFTWARE,
            };
            Failure(code, error.to_string())
        })
    })())
}

pub(super) fn status(arguments: &StatusArgs) -> ExitCode {
    exit((|| {
        let connection = Connection::new(&arguments.engine)?;
        let answer = connection.get("/v1/functions", &[])?;
        if arguments.json {
            return print(&format!("{answer:#}\n"));
        }
        let mut rows = vec![["FUNCTION", "REVISION", "RUNNING", "PENDING", "DEAD"].map(str::to_owned)];
        for function in list(&answer["functions"]) {
            let running = match text(&function["kind"]) {
                "job" => list(&function["jobs"]).iter().filter(|job| job["state"] == "running").count(),
                _ => list(&function["instances"]).len(),
            };
            let of = |name: &str| function["deliveries"][name].to_string();
            let name = format!("{}/{}", text(&function["kind"]), text(&function["name"]));
            let revision = text(&function["revision"]).to_owned();
            rows.push([name, revision, running.to_string(), of("pending"), of("dead")]);
        }
        let mut out = table(&rows);
        let jobs: Vec<Value> =
            list(&answer["functions"]).iter().flat_map(|function| list(&function["jobs"]).to_vec()).collect();
        if !jobs.is_empty() {
            let mut rows = vec![["JOB", "STATE", "ATTEMPTS", "RUN", "SINCE"].map(str::to_owned)];
            for job in jobs.iter().take(20) {
                let state = job["result"].as_str().unwrap_or(text(&job["state"])).to_owned();
                let since = ["ended", "started", "created"].iter().find_map(|name| job[*name].as_str());
                rows.push([
                    text(&job["name"]).to_owned(),
                    state,
                    job["attempts"].to_string(),
                    text(&job["run"]).to_owned(),
                    since.unwrap_or_default().to_owned(),
                ]);
            }
            let _ = write!(out, "\n{}", table(&rows));
        }
        print(&out)
    })())
}

pub(super) fn events(arguments: &EventsArgs) -> ExitCode {
    exit((|| {
        let connection = Connection::new(&arguments.engine)?;
        let mut query = Vec::new();
        query.extend(arguments.run.clone().map(|run| ("run", run)));
        query.extend(arguments.kind.as_deref().map(|kind| ("type", full_type(kind))));
        if !arguments.follow {
            let (mut after, mut left) = (json!(arguments.after), arguments.limit);
            // The engine gives a page at a time.
            while left > 0 {
                let page = [("after", after.to_string()), ("limit", left.min(PAGE).to_string())];
                let answer = connection.get("/v1/events", &[&query[..], &page].concat())?;
                let events = list(&answer["events"]);
                events.iter().try_for_each(|event| print_event(event, arguments.json))?;
                if events.is_empty() {
                    break;
                }
                left -= events.len() as u64;
                after = answer["next"].clone();
            }
            return Ok(());
        }
        query.push(("after", arguments.after.to_string()));
        let request = connection.request(reqwest::Method::GET, "/v1/events").query(&query);
        let answer = connection.send(request.header("accept", "text/event-stream").timeout(Duration::MAX))?;
        for line in BufReader::new(answer).lines() {
            let line =
                line.map_err(|error| Failure(EXIT_UNREACHABLE, format!("the engine has ended: {error}")))?;
            if let Some(data) = line.strip_prefix("data:") {
                print_event(&serde_json::from_str(data.trim()).unwrap_or_default(), arguments.json)?;
            }
        }
        Ok(())
    })())
}

fn print_event(listed: &Value, json: bool) -> Result<()> {
    if json {
        return print(&format!("{listed}\n"));
    }
    let event = &listed["event"];
    let kind = text(&event["type"]);
    let short = kind.strip_prefix(TYPE_PREFIX).and_then(|kind| kind.strip_suffix(".v1")).unwrap_or(kind);
    print(&format!(
        "{:>6}  {}  {:16}  {:20}  {}  {}\n",
        listed["seq"].to_string(),
        text(&listed["arrived"]).get(..19).unwrap_or_default(),
        text(&listed["run"]),
        short,
        event["subject"].as_str().unwrap_or("-"),
        text(&event["source"]),
    ))
}

pub(super) fn dead(arguments: &DeadArgs) -> ExitCode {
    exit((|| {
        let connection = Connection::new(&arguments.engine)?;
        let mut deliveries: Vec<Value> = Vec::new();
        loop {
            let mut query = vec![("state", "dead".to_owned()), ("limit", PAGE.to_string())];
            query.extend(arguments.trigger.clone().map(|trigger| ("trigger", trigger)));
            query.extend(deliveries.last().map(|last| ("before", last["id"].to_string())));
            let answer = connection.get("/v1/deliveries", &query)?;
            deliveries.extend_from_slice(list(&answer["deliveries"]));
            if list(&answer["deliveries"]).len() < PAGE as usize {
                break;
            }
        }
        if arguments.json {
            return print(&format!("{:#}\n", json!({ "deliveries": deliveries })));
        }
        for delivery in &deliveries {
            let event = &delivery["event"];
            print(&format!(
                "{}  {}  {} -> {}, {} attempts\n  --trigger {} --source {} --id {}\n",
                text(&delivery["changed"]).get(..19).unwrap_or_default(),
                text(&event["type"]),
                text(&delivery["trigger"]),
                text(&delivery["target"]),
                delivery["failed_attempts"],
                text(&delivery["trigger"]),
                shell_words::quote(text(&event["source"])),
                shell_words::quote(text(&event["id"])),
            ))?;
            for line in text(&delivery["error"]).lines() {
                // What a function has printed may hold anything, also what steers a terminal.
                let line: String = line.chars().filter(|char| !char.is_control()).collect();
                print(&format!("    {line}\n"))?;
            }
        }
        Ok(())
    })())
}

pub(super) fn requeue(arguments: &RequeueArgs) -> ExitCode {
    exit((|| {
        let is_restricted =
            [&arguments.trigger, &arguments.source, &arguments.id].iter().any(|given| given.is_some());
        if !is_restricted && !arguments.all {
            return Err(Failure(EXIT_USAGE, "say what: --trigger, --source, --id, or --all".to_owned()));
        }
        let connection = Connection::new(&arguments.engine)?;
        let mut wanted = json!({});
        for (name, value) in
            [("trigger", &arguments.trigger), ("source", &arguments.source), ("id", &arguments.id)]
        {
            if let Some(value) = value {
                wanted[name] = value.as_str().into();
            }
        }
        let request = connection.request(reqwest::Method::POST, "/v1/deliveries/requeue").json(&wanted);
        let answer = json_of(connection.send(request)?)?;
        let number = answer["requeued"].as_u64().unwrap_or(0);
        print(&format!(
            "{number} {} again\n",
            if number == 1 { "delivery is made" } else { "deliveries are made" }
        ))?;
        if number == 0 {
            let text = "nothing was given up that fits, or it is being delivered already".to_owned();
            return Err(Failure(EXIT_REFUSED, text));
        }
        Ok(())
    })())
}

pub(super) fn send(arguments: &SendArgs) -> ExitCode {
    exit((|| {
        let connection = Connection::new(&arguments.engine)?;
        let id = arguments.id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let mut event = json!({
            "specversion": "1.0",
            "type": full_type(&arguments.kind),
            "source": arguments.source,
            "id": id,
            "time": jiff::Timestamp::now().to_string(),
        });
        for pair in &arguments.extensions {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(Failure(EXIT_USAGE, format!("--extension {pair} is not NAME=VALUE")));
            };
            event[name] = value.into();
        }
        if let Some(subject) = &arguments.subject {
            event["subject"] = subject.as_str().into();
        }
        if let Some(data) = &arguments.data {
            let text = match data.strip_prefix('@') {
                Some("-") => std::io::read_to_string(std::io::stdin())
                    .map_err(|error| Failure(EXIT_USAGE, format!("cannot read standard input: {error}")))?,
                Some(path) => read(Path::new(path))?,
                None => data.clone(),
            };
            event["datacontenttype"] = "application/json".into();
            event["data"] = serde_json::from_str(&text)
                .map_err(|error| Failure(EXIT_USAGE, format!("--data is no JSON: {error}")))?;
        }
        let event = Event::from_json(event.to_string().as_bytes())
            .map_err(|error| Failure(EXIT_USAGE, error.to_string()))?;
        let body = event.to_json();
        let request = connection.request(reqwest::Method::POST, "/");
        connection.send(request.header("content-type", "application/cloudevents+json").body(body))?;
        print(&format!("id {}\nrun {}\n", event.id, event.run()))
    })())
}

/// `dataset.updated` stands for a type of this project; any other stays as it is.
fn full_type(kind: &str) -> String {
    let is_ours = kind.split_once('.').is_some_and(|(about, what)| {
        ["dataset", "training", "model", "artifact"].contains(&about) && !what.contains('.')
    });
    if is_ours { format!("{TYPE_PREFIX}{kind}.v1") } else { kind.to_owned() }
}

/// A client of one engine.
struct Connection {
    http: Client,
    engine: String,
    token: Option<String>,
}

impl Connection {
    fn new(arguments: &EngineArgs) -> Result<Self> {
        url::Url::parse(&arguments.engine).map_err(|error| {
            Failure(EXIT_USAGE, format!("--pipeline: {:?} is no URL: {error}", arguments.engine))
        })?;
        let http = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()
            .map_err(|error| Failure(EXIT_SOFTWARE, error.to_string()))?;
        let token = arguments
            .token_file
            .as_deref()
            .map(token)
            .transpose()
            .map_err(|text| Failure(EXIT_USAGE, text))?;
        Ok(Self { http, engine: arguments.engine.trim_end_matches('/').to_owned(), token })
    }

    fn request(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.engine));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value> {
        json_of(self.send(self.request(reqwest::Method::GET, path).query(query))?)
    }

    fn send(&self, request: RequestBuilder) -> Result<Response> {
        let answer = request.send().map_err(|error| {
            let cause = root(&error);
            Failure(EXIT_UNREACHABLE, format!("no engine answers at {}: {cause}", self.engine))
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let code = if status.as_u16() == 503 { EXIT_TRY_AGAIN } else { EXIT_REFUSED };
        let body = answer.text().unwrap_or_default();
        let said: Value = serde_json::from_str(&body).unwrap_or_default();
        Err(Failure(code, format!("{status}: {}", said["error"].as_str().unwrap_or(&body))))
    }
}

fn json_of(answer: Response) -> Result<Value> {
    answer.json().map_err(|error| Failure(EXIT_UNREACHABLE, format!("the engine's answer is cut: {error}")))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure(EXIT_USAGE, format!("cannot read {}: {error}", path.display())))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            let _ = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// To standard output; that a pipe was closed is the end.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure(EXIT_REFUSED, format!("cannot print: {error}")))
}

#[allow(clippy::print_stderr, reason = "this is the command line's error output")]
fn exit(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, text)) => {
            eprintln!("baton: {text}");
            code.into()
        }
    }
}
