//! `baton push`: collects the parts of a bundle, streams them, shows progress.

use std::fs::File;
use std::io::{Cursor, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use reqwest::blocking::Body;

use super::client::{Client, Failure, if_match};
use super::commands::{changed, segment};
use crate::admin::wire::{Change, Model, Problem};

/// How long a push waits for a place when the server is busy with others.
const PATIENCE: Duration = Duration::from_secs(60);
/// What stands for a time that no clock can hold.
const MAX_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// `--wait=0` is one attempt, and not none.
const SHORTEST_ATTEMPT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// What a model file is called in a bundle's folder.
const MODEL_FILES: [&str; 2] = ["model.onnx", "model.so"];

/// What to push.
#[derive(Debug, clap::Args)]
pub struct PushArgs {
    /// Name to serve it under
    model: String,
    /// A model file, or a folder with model.onnx or model.so and any of contract.proto, baton.toml, golden.jsonl, provenance.json;
    /// not needed if only other parts change
    #[arg(required_unless_present_any = ["contract", "manifest", "golden"])]
    path: Option<PathBuf>,
    /// The .proto source
    #[arg(long, value_name = "FILE")]
    contract: Option<PathBuf>,
    /// Settings, baton.toml
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Rows with expected outputs that must hold on the server, golden.jsonl
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,
    /// Where the model comes from: a JSON file, or key=value; may be repeated
    #[arg(long, value_name = "FILE|KEY=VALUE")]
    provenance: Vec<String>,
    /// Store without serving it
    #[arg(long, conflicts_with = "dry_run")]
    stage: bool,
    /// Check only: nothing is kept
    #[arg(long)]
    dry_run: bool,
    /// Push even a contract that breaks clients of the one being served; the history tells
    #[arg(long)]
    allow_breaking: bool,
    /// Only if the model is at this generation
    #[arg(long, value_name = "N")]
    expect_generation: Option<u64>,
    /// Wait until it is served, for a CI job: while the server cannot be reached, or has no place or a fault of its own, try again,
    /// for SECONDS at most
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "300",
        conflicts_with_all = ["stage", "dry_run"]
    )]
    wait: Option<u64>,
}

/// A part of the form: its name and where its bytes are.
enum Source {
    File(PathBuf),
    Memory(Vec<u8>),
}

/// Pushes a bundle and says what came of it.
pub(super) fn push(client: &Client, arguments: &PushArgs, json: bool) -> Result<(), Failure> {
    let parts = collect(arguments)?;
    let form = Form { client, arguments, parts: &parts, json };
    let started = Instant::now();
    let Some(seconds) = arguments.wait else {
        // Other models' uploads fill the places for a moment; one's own model being changed is another matter.
        let is_busy = |failure: &Failure| matches!(failure, Failure::Refused { problem, .. } if problem.code == "UPLOAD_BUSY");
        let change = patiently(started + PATIENCE, is_busy, |_| form.send(None))?;
        return changed(&change, json);
    };
    // A push whose answer was lost may have been done: the same bundle again is `unchanged`, not another version.
    let deadline = started.checked_add(Duration::from_secs(seconds)).unwrap_or(started + MAX_WAIT);
    let mut is_lost = false;
    let change = patiently(deadline, passes, |left| match form.send(Some(left)) {
        Err(Failure::Refused { problem, .. }) if is_lost && problem.code == "GENERATION_STALE" => {
            form.done_before(left, problem)
        }
        result => {
            is_lost |= matches!(result, Err(Failure::Unreachable(_)));
            result
        }
    })?;
    changed(&change, json)?;
    patiently(deadline, passes, |left| served(client, &change, left))
}

/// Tries again while the failure is one that passes, until the deadline; says so, because a log without a word looks like a hang.
/// An attempt gets the time that is left, so that a server that takes the connection and says nothing does not hold it up.
#[allow(clippy::print_stderr, reason = "this is the command line's error output")]
fn patiently<T>(
    deadline: Instant,
    passes: impl Fn(&Failure) -> bool,
    mut attempt: impl FnMut(Duration) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt(deadline.saturating_duration_since(Instant::now()).max(SHORTEST_ATTEMPT)) {
            Err(failure) if passes(&failure) && Instant::now() + pause < deadline => {
                eprintln!("baton: {}; trying again", failure.text());
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            result => return result,
        }
    }
}

/// May the same call succeed a little later, with nobody doing anything about it?
fn passes(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable(_) => true,
        Failure::Refused { status, problem, .. } => {
            *status >= 500
                || [408, 429].contains(status)
                || ["UPLOAD_BUSY", "UPLOAD_IN_PROGRESS"].contains(&problem.code.as_str())
        }
        Failure::Usage(_) => false,
    }
}

/// Is what was pushed being served, or was it, and a later version has taken its place?
fn served(client: &Client, change: &Change, time: Duration) -> Result<(), Failure> {
    let model = shown(client, &change.model, time)?;
    if model.generation > change.generation
        || (model.active == change.version && model.digest == change.digest)
    {
        return Ok(());
    }
    let reason = model.reason.unwrap_or(model.state);
    Err(Failure::Unreachable(format!("{} is not served yet: {reason}", change.model)))
}

fn shown(client: &Client, model: &str, time: Duration) -> Result<Model, Failure> {
    client.send(client.request(Method::GET, &format!("/v1/models/{}", segment(model))).timeout(time))
}

/// A push that can be sent again.
struct Form<'a> {
    client: &'a Client,
    arguments: &'a PushArgs,
    parts: &'a [(&'static str, Source)],
    json: bool,
}

impl Form<'_> {
    /// Sends it as it was asked for; without a time it takes as long as it takes.
    fn send(&self, time: Option<Duration>) -> Result<Change, Failure> {
        self.put(self.arguments.dry_run, self.arguments.expect_generation, time)
    }

    /// The change, if it was this very push that moved the generation; its answer was lost. A dry run tells the bundle's digest.
    fn done_before(&self, time: Duration, stale: Box<Problem>) -> Result<Change, Failure> {
        let ours = self.put(true, None, Some(time))?;
        let model = shown(self.client, &self.arguments.model, time)?;
        let is_next = self.arguments.expect_generation.is_some_and(|before| model.generation == before + 1);
        if !is_next || model.digest.is_none() || model.digest != ours.digest {
            return Err(Failure::Refused { status: 412, problem: stale, json: self.json });
        }
        let (version, generation) = (model.active, model.generation);
        Ok(Change { version, generation, state: "active".to_owned(), unchanged: true, ..ours })
    }

    fn put(&self, dry_run: bool, expected: Option<u64>, time: Option<Duration>) -> Result<Change, Failure> {
        let arguments = self.arguments;
        let boundary = format!("baton-{}", uuid::Uuid::new_v4().simple());
        let (body, length) = form(self.parts, &boundary)?;
        let bar = progress(length, self.json);
        let path = format!("/v1/models/{}", segment(&arguments.model));
        let mut request = self
            .client
            .request(Method::PUT, &path)
            .query(&[("stage", arguments.stage), ("dry_run", dry_run)])
            .query(&[("on_breaking", if arguments.allow_breaking { "allow" } else { "refuse" })])
            .header("content-type", format!("multipart/form-data; boundary={boundary}"))
            .body(Body::sized(Progress { body, bar: bar.clone() }, length));
        if let Some(time) = time {
            request = request.timeout(time);
        }
        let result = self.client.send(if_match(request, expected));
        bar.finish_and_clear();
        result
    }
}

fn collect(arguments: &PushArgs) -> Result<Vec<(&'static str, Source)>, Failure> {
    let mut parts: Vec<(&'static str, Source)> = Vec::new();
    let path = arguments.path.as_deref();
    let folder = path.filter(|path| path.is_dir());
    let beside = |given: &Option<PathBuf>, name: &str| -> Option<PathBuf> {
        let found = || folder.map(|folder| folder.join(name)).filter(|path| path.is_file());
        given.clone().or_else(found)
    };
    let model = match folder {
        Some(folder) => MODEL_FILES.iter().map(|name| folder.join(name)).find(|model| model.is_file()),
        None => path.map(Path::to_path_buf),
    };
    parts.extend(model.map(|model| ("model", Source::File(model))));
    for (name, path) in [
        ("contract", beside(&arguments.contract, "contract.proto")),
        ("manifest", beside(&arguments.manifest, "baton.toml")),
        ("golden", beside(&arguments.golden, "golden.jsonl")),
    ] {
        parts.extend(path.map(|path| (name, Source::File(path))));
    }
    if let Some(record) = provenance(arguments, beside(&None, "provenance.json"))? {
        parts.push(("provenance", record));
    }
    if parts.is_empty() {
        let path = arguments.path.as_deref().unwrap_or(Path::new("")).display();
        return Err(Failure::Usage(format!("{path} holds no part of a bundle")));
    }
    Ok(parts)
}

/// Files and `key=value` pairs become one JSON object; a single file is sent as it is.
fn provenance(arguments: &PushArgs, beside: Option<PathBuf>) -> Result<Option<Source>, Failure> {
    let given = &arguments.provenance;
    if let [only] = given.as_slice()
        && !only.contains('=')
    {
        return Ok(Some(Source::File(only.into())));
    }
    if given.is_empty() {
        return Ok(beside.map(Source::File));
    }
    let mut record = serde_json::Map::new();
    for entry in given {
        match entry.split_once('=') {
            Some((key, value)) => {
                let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
                record.insert(key.to_owned(), value);
            }
            None => {
                let text = std::fs::read(entry).map_err(|error| unreadable(Path::new(entry), &error))?;
                let object: serde_json::Map<_, _> = serde_json::from_slice(&text)
                    .map_err(|error| Failure::Usage(format!("{entry} is no JSON object: {error}")))?;
                record.extend(object);
            }
        }
    }
    Ok(Some(Source::Memory(serde_json::to_vec_pretty(&record).unwrap_or_default())))
}

/// The multipart body as a stream, and its length: files are never read into memory whole.
fn form(parts: &[(&str, Source)], boundary: &str) -> Result<(Box<dyn Read + Send>, u64), Failure> {
    let mut body: Box<dyn Read + Send> = Box::new(std::io::empty());
    let mut length = 0;
    let mut append = |reader: Box<dyn Read + Send>, size: u64| {
        let before = std::mem::replace(&mut body, Box::new(std::io::empty()));
        body = Box::new(before.chain(reader));
        length += size;
    };
    for (name, source) in parts {
        let head = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\
             content-type: application/octet-stream\r\n\r\n"
        );
        append(Box::new(Cursor::new(head.clone().into_bytes())), head.len() as u64);
        match source {
            Source::File(path) => {
                let file = File::open(path).map_err(|error| unreadable(path, &error))?;
                let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
                if !metadata.is_file() {
                    return Err(Failure::Usage(format!("{} is no file", path.display())));
                }
                // A file that grows meanwhile is cut at the length that was announced.
                append(Box::new(file.take(metadata.len())), metadata.len());
            }
            Source::Memory(bytes) => append(Box::new(Cursor::new(bytes.clone())), bytes.len() as u64),
        }
        append(Box::new(Cursor::new(b"\r\n".to_vec())), 2);
    }
    let end = format!("--{boundary}--\r\n");
    let size = end.len() as u64;
    append(Box::new(Cursor::new(end.into_bytes())), size);
    Ok((body, length))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Usage(format!("cannot read {}: {error}", path.display()))
}

fn progress(length: u64, json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}");
    let bar = ProgressBar::new(length).with_message("pushing");
    match style {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

/// Moves the bar as the body is read.
struct Progress {
    body: Box<dyn Read + Send>,
    bar: ProgressBar,
}

impl Read for Progress {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.body.read(buffer)?;
        self.bar.inc(read as u64);
        if self.bar.length() == Some(self.bar.position()) {
            self.bar.set_message("checking, loading, warming up");
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use clap::Parser;

    use super::*;
    use crate::cli::ServerArgs;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        push: PushArgs,
        #[command(flatten)]
        server: ServerArgs,
    }

    /// `baton push m MODEL --server URL ARGUMENTS`
    fn pushed(url: &str, arguments: &[&str]) -> Result<(), Failure> {
        let model = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(model.path(), vec![7; 1 << 20]).expect("written");
        let path = model.path().to_str().expect("UTF-8");
        let line = Line::parse_from([&["push", "m", path, "--server", url], arguments].concat());
        push(&Client::new(&line.server, false)?, &line.push, false)
    }

    fn unreachable(result: Result<(), Failure>) -> String {
        match result {
            Err(Failure::Unreachable(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_server_that_takes_the_connection_and_says_nothing_does_not_hold_up_a_job() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let started = Instant::now();
        let text = unreachable(pushed(&url, &["--wait=1"]));
        assert!(text.contains("did not answer in time"), "{text}");
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }

    #[test]
    fn a_connection_that_fails_is_told_with_its_cause() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        drop(listener);
        let text = unreachable(pushed(&url, &[]));
        assert!(text.to_lowercase().contains("refused"), "{text}");
    }

    /// Answers one request after the other, each with a status and a body; with status 0 it hangs up instead.
    fn server(answers: Vec<(u16, String)>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let serve = move || {
            let answer = |(status, body): (u16, String)| {
                let (stream, _) = listener.accept().expect("a connection");
                let mut reader = BufReader::new(stream);
                let lines = reader.by_ref().lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let length = head.iter().find_map(|line| {
                    line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
                });
                std::io::copy(&mut reader.by_ref().take(length.unwrap_or(0)), &mut std::io::sink())
                    .expect("the body");
                if status > 0 {
                    let text = format!(
                        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    reader.get_mut().write_all(text.as_bytes()).expect("sent");
                }
                head.into_iter().next().unwrap_or_default()
            };
            answers.into_iter().map(answer).collect()
        };
        (url, std::thread::spawn(serve))
    }

    #[test]
    fn a_push_whose_answer_was_lost_is_known_by_its_digest() {
        let stale = r#"{"error":"moved on","code":"GENERATION_STALE","source":"request","request_id":""}"#;
        let change = r#"{"model":"m","version":null,"digest":"sha256:1","generation":2,"state":"ready","unchanged":false,"warnings":[]}"#;
        for (digest, generation, is_ours) in
            [("sha256:1", 2, true), ("sha256:2", 2, false), ("sha256:1", 3, false)]
        {
            let model = format!(
                r#"{{"model":"m","generation":{generation},"active":"2","digest":"{digest}","state":"serving","reason":null,"versions":[]}}"#
            );
            let mut answers =
                vec![(0, String::new()), (412, stale.into()), (200, change.into()), (200, model.clone())];
            if is_ours {
                answers.push((200, model));
            }
            let (url, asked) = server(answers);
            let result = pushed(&url, &["--wait=20", "--expect-generation=1"]);
            assert_eq!(result.is_ok(), is_ours, "{digest} {generation}: {result:?}");
            let asked = asked.join().expect("all were asked");
            assert!(asked[2].contains("dry_run=true"), "{asked:?}");
        }
    }
}
