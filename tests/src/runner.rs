//! A running server: the release binary in a process of its own, on ports of its own, with a store of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use reqwest::blocking::{Client, Response};
use serde_json::Value;
use tempfile::TempDir;

/// How the server is started.
#[derive(Default)]
pub struct Options {
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// A store that outlives the process; a temporary one if not given.
    pub store: Option<PathBuf>,
    /// The binary under test if not given.
    pub binary: Option<PathBuf>,
}

impl Options {
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn store(mut self, path: &Path) -> Self {
        self.store = Some(path.to_owned());
        self
    }

    #[must_use]
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_owned());
        self
    }

    /// Starts the server and waits until it listens.
    pub fn start(self) -> Runner {
        self.try_start().unwrap_or_else(|status| panic!("the server ended at its start: {status}"))
    }

    /// Starts the server; its exit status if it ends before it listens.
    pub fn try_start(self) -> Result<Runner, ExitStatus> {
        let temporary = TempDir::new().expect("a temporary folder");
        let store = self.store.unwrap_or_else(|| temporary.path().join("store"));
        let mut child = Command::new(self.binary.unwrap_or_else(binary))
            .env("BATON_LISTEN", "127.0.0.1:0")
            .env("BATON_ADMIN_LISTEN", "127.0.0.1:0")
            .args(["serve", "--store"])
            .arg(&store)
            .args(&self.arguments)
            .envs(self.environment)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(temporary.path().join("log")).expect("a log file"))
            .spawn()
            .expect("the binary starts; `make build` makes it");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut address = |port: &str| -> Option<String> {
            let line = lines.next()?.ok()?;
            Some(line.strip_prefix(&format!("{port} listening on ")).expect(&line).to_owned())
        };
        let (Some(data), Some(admin)) = (address("data"), address("admin")) else {
            return Err(child.wait().expect("a status"));
        };
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().expect("a client");
        Ok(Runner { child, data, admin, store, temporary, http })
    }
}

/// The binary under test.
pub fn binary() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    std::env::var_os("BATON_BIN").map_or_else(|| root.join("target/release/baton"), PathBuf::from)
}

/// A running server; killed when dropped.
pub struct Runner {
    child: Child,
    data: String,
    admin: String,
    store: PathBuf,
    temporary: TempDir,
    http: Client,
}

impl Runner {
    /// A server with all defaults, ready.
    pub fn start() -> Self {
        let runner = Options::default().start();
        runner.wait_ready();
        runner
    }

    /// `host:port` of the data port.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// `host:port` of the admin port.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    pub fn store(&self) -> &Path {
        &self.store
    }

    pub fn http(&self) -> &Client {
        &self.http
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.temporary.path().join("log")).unwrap_or_default()
    }

    /// Waits until what was active is served again.
    pub fn wait_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if self.get_data("/readyz").is_ok_and(|response| response.status().is_success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("not ready within 30 s; its log:\n{}", self.log());
    }

    pub fn get_data(&self, path: &str) -> reqwest::Result<Response> {
        self.http.get(format!("http://{}{path}", self.data)).send()
    }

    pub fn get_admin(&self, path: &str) -> reqwest::Result<Response> {
        self.http.get(format!("http://{}{path}", self.admin)).send()
    }

    /// Pushes a model file as the raw body: status and answer.
    pub fn try_push(&self, model: &str, artifact: &[u8], query: &str) -> reqwest::Result<(u16, Value)> {
        let url = format!("http://{}/v1/models/{model}/artifact{query}", self.admin);
        let response = self.http.put(url).body(artifact.to_vec()).send()?;
        Ok((response.status().as_u16(), response.json().unwrap_or_default()))
    }

    /// Pushes a model that must be taken.
    pub fn push(&self, model: &str, artifact: &[u8]) -> Value {
        let (status, answer) = self.try_push(model, artifact, "").expect("an answer");
        assert!(status == 201 || status == 200, "{status} {answer}");
        answer
    }

    /// A call without a body to the admin port: status and answer.
    pub fn post(&self, path: &str) -> (u16, Value) {
        let response = self.http.post(format!("http://{}{path}", self.admin)).send().expect("an answer");
        (response.status().as_u16(), response.json().unwrap_or_default())
    }

    /// The model as the admin API shows it.
    pub fn model(&self, model: &str) -> Value {
        self.get_admin(&format!("/v1/models/{model}")).expect("an answer").json().expect("JSON")
    }

    /// The active version's number, if there is one.
    pub fn active(&self, model: &str) -> Option<String> {
        self.model(model)["active"].as_str().map(str::to_owned)
    }

    /// Calls an `add` model with zeros: its `k` and the version that it names.
    pub fn call_add(&self, model: &str) -> (f64, String) {
        let body = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[0,0,0,0]}]}"#;
        let response = self
            .http
            .post(format!("http://{}/v2/models/{model}/infer", self.data))
            .body(body)
            .send()
            .expect("an answer");
        let status = response.status();
        let answer: Value = response.json().expect("JSON");
        assert!(status.is_success(), "{status} {answer}");
        let version = answer["model_version"].as_str().expect("a version").to_owned();
        (answer["outputs"][0]["data"][0].as_f64().expect("a number"), version)
    }

    /// Ends the process as the machine would: no warning, no clean-up.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("a status");
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let status = Command::new("kill").arg(self.pid().to_string()).status().expect("kill runs");
        assert!(status.success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("a status")
    }

    /// What the process holds of the machine.
    pub fn resources(&self) -> Resources {
        let proc = PathBuf::from(format!("/proc/{}", self.pid()));
        let count = |name: &str| std::fs::read_dir(proc.join(name)).map_or(0, Iterator::count);
        let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        Resources {
            resident_kib: resident.trim().trim_end_matches(" kB").parse().unwrap_or(0),
            threads: count("task"),
            descriptors: count("fd"),
            mappings: std::fs::read_to_string(proc.join("maps")).unwrap_or_default().lines().count(),
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process's use of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Resources {
    pub resident_kib: usize,
    pub threads: usize,
    pub descriptors: usize,
    pub mappings: usize,
}
