//! A process of a function or job, started through the supervisor, with an environment of known variables only.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Child;
use tokio::sync::watch;

use super::proc;
use super::supervise::{KILL, Report, TERMINATE};
use crate::manifest::{Command, LocalRun};

/// What Knative sets, and what the engine sets in its place.
const KNATIVE: [&str; 7] = [
    "K_SERVICE",
    "K_CONFIGURATION",
    "K_REVISION",
    "K_SINK",
    "K_CE_OVERRIDES",
    "K_EVENT_PATH",
    "K_EXECUTION_MODE",
];
/// Variables of the engine's own environment that every process gets; `AWS_*` too.
const PASSED: [&str; 9] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "ORT_DYLIB_PATH",
    "VIRTUAL_ENV",
    "SSL_CERT_FILE",
];
/// Marks all processes of an engine, so that the next one on the same folder finds what was left.
const ENGINE: &str = "BATON_ENGINE";
/// Marks all processes of one supervisor.
const UNIT: &str = "BATON_UNIT";
/// How often the memory of a busy process is looked at.
const WATCH: Duration = Duration::from_millis(200);
/// Lines of a log that an error quotes, and bytes of it that are read for that.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 8 * 1024;

/// What all processes of an engine share.
#[derive(Debug)]
pub(crate) struct Starter {
    /// This very binary.
    pub(crate) binary: PathBuf,
    /// Of the data folder.
    pub(crate) engine: String,
    pub(crate) data: PathBuf,
    pub(crate) store: String,
    pub(crate) server: String,
    /// Where events are posted.
    pub(crate) sink: String,
    /// More variables of the engine's own environment.
    pub(crate) pass_env: Vec<String>,
}

/// A supervised process.
#[derive(Debug)]
pub(crate) struct Process {
    /// The supervisor's.
    pub(crate) pid: u32,
    pub(crate) log: PathBuf,
    /// Closed: the supervisor kills everything.
    control: Mutex<File>,
    ended: watch::Receiver<Option<Report>>,
    memory_limit: Option<u64>,
}

impl Starter {
    /// Starts a command. `variables` are those that the engine sets itself and that win over the manifest's; `log` is a name
    /// without its ending.
    ///
    /// # Errors
    /// The supervisor cannot be started; that the command cannot shows in the [`Report`].
    pub(crate) fn start(
        &self,
        run: &LocalRun,
        log: &str,
        nice: i32,
        variables: Vec<(&str, String)>,
    ) -> std::io::Result<Process> {
        let log = self.data.join("logs").join(format!("{log}.log"));
        let unit = uuid::Uuid::new_v4().simple().to_string();
        let mut environment = self.environment(
            run,
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        );
        environment.extend(variables.into_iter().map(|(name, value)| (name.to_owned(), value)));
        environment.insert(ENGINE.to_owned(), self.engine.clone());
        environment.insert(UNIT.to_owned(), unit.clone());
        let mut command = tokio::process::Command::new(&self.binary);
        command
            .args(["supervise", "--nice", &nice.to_string(), "--log"])
            .arg(&log)
            .arg("--folder")
            .arg(&run.folder)
            .arg("--");
        match &run.command {
            Command::BuiltIn(arguments) => command.arg(&self.binary).args(arguments),
            Command::Program(arguments) => command.args(arguments),
        };
        // A group of its own: the terminal's Ctrl-C is for the engine, which ends the others in order.
        command.env_clear().envs(environment).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let broken = || std::io::Error::other("the supervisor has no pipes");
        let control = child.stdin.take().ok_or_else(broken)?.into_owned_fd()?;
        let (end, ended) = watch::channel(None);
        let pid = child.id().ok_or_else(broken)?;
        tokio::spawn(async move { end.send_replace(Some(wait(child, &unit).await)) });
        Ok(Process { pid, log, control: Mutex::new(File::from(control)), ended, memory_limit: run.memory })
    }

    /// The allowed part of the engine's own environment, then the manifest's, then what the engine knows better.
    fn environment(
        &self,
        run: &LocalRun,
        own: impl Iterator<Item = (String, String)>,
    ) -> BTreeMap<String, String> {
        let is_passed = |name: &str| {
            PASSED.contains(&name)
                || name.starts_with("AWS_")
                || self.pass_env.iter().any(|passed| passed == name)
        };
        let mut token = None;
        let mut environment = BTreeMap::new();
        for (name, value) in own {
            if is_passed(&name) {
                environment.insert(name, value);
            } else if name == "BATON_TOKEN" {
                token = Some(value);
            }
        }
        // The cluster's addresses and names mean nothing here.
        let given = run.env.iter().filter(|(name, _)| !KNATIVE.contains(&name.as_str()));
        environment.extend(given.map(|(name, value)| (name.clone(), value.clone())));
        // A token is for those that ask for it; an empty one stands for a secret of the cluster.
        if let Some(given) = environment.get_mut("BATON_TOKEN")
            && given.is_empty()
            && let Some(token) = token
        {
            *given = token;
        }
        for (name, value) in
            [("K_SINK", &self.sink), ("BATON_ARTIFACTS", &self.store), ("BATON_SERVER", &self.server)]
        {
            environment.insert(name.to_owned(), value.clone());
        }
        environment
    }
}

/// Reads the report and reaps the supervisor. Without a report it was killed, and what it had started has to be found.
async fn wait(mut child: Child, unit: &str) -> Report {
    let mut text = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        let _ = output.read_to_end(&mut text).await;
    }
    let status = child.wait().await;
    if let Ok(report) = serde_json::from_slice(&text) {
        return report;
    }
    let mark = format!("{UNIT}={unit}");
    loop {
        let left = proc::marked(&mark);
        if left.is_empty() {
            break;
        }
        left.into_iter().for_each(proc::kill);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let text = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    Report { error: Some(format!("its supervisor was killed: {text}")), ..Report::default() }
}

impl Process {
    /// Asks the process to end; after a grace the supervisor kills it.
    pub(crate) fn terminate(&self) {
        self.say(TERMINATE);
    }

    /// Kills the process and all that it started.
    pub(crate) fn kill(&self) {
        self.say(KILL);
    }

    fn say(&self, word: u8) {
        if let Ok(mut control) = self.control.lock() {
            // A supervisor that has ended needs no word.
            let _ = control.write_all(&[word]);
        }
    }

    /// How it ended, if it has.
    pub(crate) fn report(&self) -> Option<Report> {
        self.ended.borrow().clone()
    }

    /// Waits until nothing of it is left.
    pub(crate) async fn ended(&self) -> Report {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(report) => report.clone().unwrap_or_default(),
            Err(_) => Report::default(),
        }
    }

    /// Waits until the process and its children hold more memory than they may, kills them, and says so. `peak` becomes the largest sum
    /// that was seen, in bytes. Never comes back if there is no limit that is passed.
    pub(crate) async fn watch_memory(&self, peak: &std::sync::atomic::AtomicU64) -> String {
        loop {
            let held = proc::memory_below(self.pid);
            peak.fetch_max(held, std::sync::atomic::Ordering::Relaxed);
            if let Some(limit) = self.memory_limit
                && held > limit
            {
                self.kill();
                return format!(
                    "killed: it held {} MiB of memory, its limit is {} MiB",
                    held >> 20,
                    limit >> 20
                );
            }
            tokio::time::sleep(WATCH).await;
        }
    }

    pub(crate) fn has_memory_limit(&self) -> bool {
        self.memory_limit.is_some()
    }

    /// The last lines of its log.
    pub(crate) fn last_words(&self) -> String {
        tail(&self.log)
    }
}

/// The last lines of a file; empty if it cannot be read.
fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// In words.
pub(crate) fn describe(report: &Report) -> String {
    match report {
        Report { error: Some(error), .. } => error.clone(),
        Report { code: Some(code), .. } => format!("ended with exit code {code}"),
        Report { signal: Some(signal), .. } => format!("was ended by signal {signal}"),
        Report { .. } => "ended".to_owned(),
    }
}

/// Kills what an engine on this folder has left. Its supervisors end by themselves when it dies, and take with them also those
/// that have cleared their environment, so they are killed only if they do not.
pub(crate) async fn kill_orphans(engine: &str) -> usize {
    const PATIENCE: u32 = 500;
    let mark = format!("{ENGINE}={engine}");
    let mut killed = std::collections::HashSet::new();
    for round in 0.. {
        let left = proc::marked(&mark);
        if left.is_empty() {
            break;
        }
        for pid in left {
            let is_supervisor = proc::first_argument(pid).as_deref() == Some("supervise");
            if !is_supervisor || round > PATIENCE {
                proc::kill(pid);
                killed.insert(pid);
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    killed.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_a_list_of_what_is_allowed() {
        let starter = Starter {
            binary: PathBuf::new(),
            engine: "e".into(),
            data: PathBuf::new(),
            store: "/store".into(),
            server: "http://runner".into(),
            sink: "http://sink".into(),
            pass_env: vec!["MINE".into()],
        };
        let own = [
            ("PATH", "/bin"),
            ("AWS_REGION", "r"),
            ("SECRET", "s"),
            ("MINE", "m"),
            ("BATON_TOKEN", "t"),
            ("K_SINK", "http://mine"),
        ];
        let given = |env: &[(&str, &str)]| {
            let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let run = LocalRun {
                command: Command::Program(vec![]),
                folder: PathBuf::new(),
                env,
                memory: None,
                cpu_millis: None,
                revision: String::new(),
            };
            starter.environment(&run, own.iter().map(|(name, value)| ((*name).into(), (*value).into())))
        };
        let names = |environment: &BTreeMap<String, String>| {
            environment.keys().cloned().collect::<Vec<_>>().join(" ")
        };
        let bare = given(&[]);
        assert_eq!(names(&bare), "AWS_REGION BATON_ARTIFACTS BATON_SERVER K_SINK MINE PATH");
        let full = given(&[
            ("BATON_TOKEN", ""),
            ("BATON_ARTIFACTS", "s3://cluster/x"),
            ("K_SINK", "http://cluster"),
            ("K_FOLDS", "5"),
            ("PATH", "/mine"),
            ("OWN", "1"),
        ]);
        assert_eq!(
            names(&full),
            "AWS_REGION BATON_ARTIFACTS BATON_SERVER BATON_TOKEN K_FOLDS K_SINK MINE OWN PATH"
        );
        let value = |name: &str| full[name].as_str();
        assert_eq!(
            [value("BATON_TOKEN"), value("BATON_ARTIFACTS"), value("K_SINK"), value("PATH")],
            ["t", "/store", "http://sink", "/mine"]
        );
    }

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert_eq!(tail(&path), "");
        let lines: Vec<String> = (0..5000).map(|number| format!("line {number}")).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        assert_eq!(tail(&path), lines[4980..].join("\n"));
    }
}
