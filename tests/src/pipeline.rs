//! A running pipeline: the release binary as an engine, with manifests, data and notes of its own.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use reqwest::blocking::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::runner::binary;

/// Everything of one pipeline that outlives its engine.
pub struct Pipeline {
    folder: TempDir,
    manifest: String,
    arguments: Vec<String>,
    http: Client,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self::new()
    }
}

impl Pipeline {
    /// An empty one.
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        for name in ["set/code", "notes"] {
            std::fs::create_dir_all(folder.path().join(name)).expect("a folder");
        }
        let pipeline = Self {
            folder,
            manifest: String::new(),
            arguments: Vec::new(),
            http: Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().expect("a client"),
        };
        pipeline.write_code("code", "");
        pipeline
    }

    /// Writes the test function into a folder of code, with a comment that makes another revision of it.
    pub fn write_code(&self, folder: &str, comment: &str) {
        let folder = self.folder.path().join("set").join(folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let text = format!("{}\n# {comment}\n", include_str!("function.py"));
        std::fs::write(folder.join("function.py"), text).expect("written");
    }

    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// A broker whose deliveries are retried so often, at so many milliseconds.
    #[must_use]
    pub fn broker(mut self, retry: u32, delay_ms: u32, dead_letter: Option<&str>) -> Self {
        let seconds = f64::from(delay_ms) / 1000.0;
        let _ = write!(
            self.manifest,
            "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {{name: default}}\nspec:\n  delivery:\n    \
             retry: {retry}\n    backoffPolicy: linear\n    backoffDelay: PT{seconds}S\n"
        );
        if let Some((kind, name)) = dead_letter.and_then(|sink| sink.split_once('/')) {
            let _ = writeln!(self.manifest, "    deadLetterSink: {{ref: {}}}", reference(kind, name));
        }
        self.manifest.push_str("---\n");
        self
    }

    /// A trigger from a type to `service/NAME`, `job/NAME` or a URL.
    #[must_use]
    pub fn trigger(mut self, name: &str, kind: &str, to: &str) -> Self {
        let subscriber = match to.split_once('/') {
            Some((kind @ ("service" | "job"), name)) => format!("{{ref: {}}}", reference(kind, name)),
            _ => format!("{{uri: \"{to}\"}}"),
        };
        let _ = write!(
            self.manifest,
            "apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {{name: {name}}}\nspec:\n  broker: default\n  \
             filter: {{attributes: {{type: {kind}}}}}\n  subscriber: {subscriber}\n---\n"
        );
        self
    }

    /// A service that runs the test function.
    #[must_use]
    pub fn service(self, name: &str, options: &Service) -> Self {
        let command = "python3 function.py";
        self.service_running(name, options, command)
    }

    /// A service that runs a command.
    #[must_use]
    pub fn service_running(mut self, name: &str, options: &Service, command: &str) -> Self {
        let mut env = format!("{{name: NOTES, value: \"{}\"}}", self.notes_folder().display());
        for (variable, value) in &options.env {
            let _ = write!(env, ", {{name: {variable}, value: \"{value}\"}}");
        }
        let memory =
            options.memory.map(|limit| format!("\n          resources: {{limits: {{memory: {limit}}}}}"));
        let _ = write!(
            self.manifest,
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  template:\n    metadata:\n      \
             annotations:\n        autoscaling.knative.dev/max-scale: \"{}\"\n        autoscaling.knative.dev/min-scale: \"{}\"\n        \
             autoscaling.knative.dev/window: 6s\n        baton.dev/local-command: \"{command}\"\n        baton.dev/local-folder: {}\n    \
             spec:\n      containerConcurrency: {}\n      timeoutSeconds: {}\n      containers:\n        - image: registry.example/x\n          \
             env: [{env}]{}\n---\n",
            options.max_scale,
            options.min_scale,
            options.folder,
            options.concurrency,
            options.timeout,
            memory.unwrap_or_default(),
        );
        self
    }

    /// A job `train` that runs the test function.
    #[must_use]
    pub fn job(mut self, backoff_limit: u32, deadline: u32, memory: Option<&str>) -> Self {
        let memory =
            memory.map(|limit| format!("\n              resources: {{limits: {{memory: {limit}}}}}"));
        let _ = write!(
            self.manifest,
            "apiVersion: sinks.knative.dev/v1alpha1\nkind: JobSink\nmetadata: {{name: train}}\nspec:\n  job:\n    spec:\n      \
             backoffLimit: {backoff_limit}\n      activeDeadlineSeconds: {deadline}\n      template:\n        metadata:\n          \
             annotations: {{baton.dev/local-command: \"python3 function.py\", baton.dev/local-folder: code}}\n        spec:\n          \
             restartPolicy: Never\n          containers:\n            - name: train\n              image: registry.example/x\n              \
             env: [{{name: NOTES, value: \"{}\"}}]{}\n---\n",
            self.notes_folder().display(),
            memory.unwrap_or_default(),
        );
        self
    }

    fn notes_folder(&self) -> PathBuf {
        self.folder.path().join("notes")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Lines that the test functions have written.
    pub fn notes(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.notes_folder().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The largest number that the functions have noted about themselves: `NAME calls` or `NAME instances`.
    pub fn most(&self, what: &str) -> usize {
        let notes = self.notes("most");
        notes.iter().filter_map(|line| line.strip_prefix(what)?.trim().parse().ok()).max().unwrap_or(0)
    }

    /// Processes that were ever started and still run.
    pub fn alive(&self) -> Vec<String> {
        let is_alive = |pid: &String| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            status.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
        };
        self.notes("pids").into_iter().filter(is_alive).collect()
    }

    fn command(&self) -> Command {
        let set = self.folder.path().join("set");
        std::fs::write(set.join("pipeline.yaml"), &self.manifest).expect("written");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("a log");
        let mut command = Command::new(binary());
        command
            .args(["pipeline", "serve", "--log-level", "debug", "--data"])
            .arg(self.folder.path().join("data"))
            .arg(set.join("pipeline.yaml"))
            .args(&self.arguments)
            .args(if self.arguments.iter().any(|word| word == "--listen") {
                &[][..]
            } else {
                &["--listen", "127.0.0.1:0"]
            })
            .stdout(Stdio::piped())
            .stderr(log);
        command
    }

    /// Starts an engine that is expected to refuse: its status, and what it said last.
    pub fn refused(&self) -> (ExitStatus, String) {
        let output = self.command().stderr(Stdio::piped()).output().expect("the binary starts");
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Starts an engine and waits until it listens.
    pub fn start(&self) -> Engine<'_> {
        let mut child = self.command().spawn().expect("the binary starts; `make build` makes it");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("pipeline listening on ");
        let address =
            address.unwrap_or_else(|| panic!("it does not listen: {line:?}\n{}", self.log())).to_owned();
        Engine { pipeline: self, child, address }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

fn reference(kind: &str, name: &str) -> String {
    match kind {
        "job" => format!("{{apiVersion: sinks.knative.dev/v1alpha1, kind: JobSink, name: {name}}}"),
        _ => format!("{{apiVersion: serving.knative.dev/v1, kind: Service, name: {name}}}"),
    }
}

/// How a service is run.
pub struct Service {
    pub concurrency: u32,
    pub min_scale: u32,
    pub max_scale: u32,
    /// Seconds.
    pub timeout: u32,
    pub folder: &'static str,
    pub memory: Option<&'static str>,
    pub env: Vec<(&'static str, String)>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            concurrency: 4,
            min_scale: 0,
            max_scale: 2,
            timeout: 60,
            folder: "code",
            memory: None,
            env: Vec::new(),
        }
    }
}

impl Service {
    /// One that answers each event with one of this type.
    pub fn replying(kind: &str) -> Self {
        Self { env: vec![("REPLY", kind.to_owned())], ..Self::default() }
    }
}

/// A running engine; killed when dropped.
pub struct Engine<'a> {
    pipeline: &'a Pipeline,
    child: Child,
    address: String,
}

impl Engine<'_> {
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Posts an event; its status if there was an answer.
    pub fn try_post(&self, event: &Value) -> Option<u16> {
        let request = self.pipeline.http.post(format!("http://{}/", self.address));
        let request = request.header("content-type", "application/cloudevents+json").body(event.to_string());
        request.send().ok().map(|answer| answer.status().as_u16())
    }

    /// Posts an event that must be taken.
    pub fn post(&self, event: &Value) {
        assert_eq!(self.try_post(event), Some(202), "{event}");
    }

    pub fn get(&self, path: &str) -> Value {
        let answer =
            self.pipeline.http.get(format!("http://{}{path}", self.address)).send().expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().expect("JSON")
    }

    pub fn requeue(&self, wanted: Value) -> u64 {
        let request =
            self.pipeline.http.post(format!("http://{}/v1/deliveries/requeue", self.address)).json(&wanted);
        let answer: Value = request.send().expect("an answer").json().expect("JSON");
        answer["requeued"].as_u64().unwrap_or_else(|| panic!("{answer}"))
    }

    /// All events of a type.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let mut found = Vec::new();
        let mut after = 0;
        loop {
            let page = self.get(&format!("/v1/events?type={kind}&limit=1000&after={after}"));
            found.extend(page["events"].as_array().expect("a list").iter().cloned());
            match page["next"].as_i64() {
                Some(next) => after = next,
                None => return found,
            }
        }
    }

    pub fn deliveries(&self, state: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/deliveries?state={state}&limit=1000"));
        answer["deliveries"].as_array().expect("a list").clone()
    }

    /// A service or job as `/v1/functions` shows it.
    pub fn function(&self, name: &str) -> Value {
        let all = self.get("/v1/functions");
        let found =
            all["functions"].as_array().expect("a list").iter().find(|function| function["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {all}")).clone()
    }

    pub fn instances(&self, name: &str) -> usize {
        let function = self.function(name);
        function["instances"].as_array().expect("a list").len()
            + function["starting"].as_u64().unwrap_or(0) as usize
    }

    /// Waits until something holds; fails with the log after half a minute.
    pub fn wait_for(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}: not within 60 s; the log:\n{}", self.pipeline.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until nothing is pending and no job is open.
    pub fn settle(&self) {
        self.wait_for("all deliveries end", || self.deliveries("pending").is_empty());
    }

    /// Ends the engine as the machine would.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("a status");
    }

    /// SIGTERM, and how long it took to end.
    pub fn terminate(mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        Command::new("kill").arg(self.pid().to_string()).status().expect("kill runs");
        (self.child.wait().expect("a status"), began.elapsed())
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An event of the tests.
pub fn event(kind: &str, id: &str, data: Value) -> Value {
    json!({
        "specversion": "1.0", "type": kind, "source": "/test", "id": id, "subject": "data",
        "datacontenttype": "application/json", "data": data,
    })
}
