//! A pipeline as checked values: what the engine needs of the Knative manifests, and nothing that it would ignore.
//!
//! From below: `error` / `node` (YAML as a tree with lines) / `reader` (a mapping whose unread fields are refused) /
//! `cluster`, `scalar`, `files`, `code` / `env`, `container`, `delivery` / `trigger`, `service`, `job`, `ping` / `set` / `advice`. What is
//! read and what it means: `docs/pipeline-manifests.md`.

mod advice;
mod cluster;
mod code;
mod container;
mod delivery;
mod env;
mod error;
mod files;
mod job;
mod node;
mod ping;
mod reader;
mod scalar;
mod service;
mod set;
#[cfg(test)]
mod tests;
mod trigger;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use advice::{Advice, Level, advice};
pub use code::{MAX_CODE, MAX_CODE_FILES};
pub use container::{FUNCTIONS, LOCAL_COMMAND, LOCAL_FOLDER};
pub use delivery::LOCAL_PAUSE;
pub(crate) use error::printable;
pub use error::{Fault, ManifestErrors};
pub use files::{MAX_FILE, MAX_FILES};
pub use job::{UNLIMITED_DEADLINE, UNLIMITED_KEEP};
pub use service::{UNLIMITED_CONCURRENCY, UNLIMITED_SCALE};

use error::Report;
use set::MissingSecret;

/// Reads the pipeline that files and folders describe; secrets that are not in the set come from this process's environment.
/// `written`: folders where the engine and its users write while it runs, which are no code wherever they lie.
///
/// # Errors
/// Everything that is wrong, not only the first: see [`ManifestErrors`].
pub fn read(paths: &[PathBuf], written: &[PathBuf]) -> Result<Pipeline, ManifestErrors> {
    inspected(paths, written, &|name| std::env::var(name).ok(), MissingSecret::Refused)
        .map(|found| found.pipeline)
}

/// Reads a set to show it: secrets may be missing.
///
/// # Errors
/// As [`read`].
pub fn inspect(paths: &[PathBuf]) -> Result<Inspection, ManifestErrors> {
    inspected(paths, &[], &|name| std::env::var(name).ok(), MissingSecret::Noted)
}

/// A set with what is to be said about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    pub pipeline: Pipeline,
    /// `Kind/name` of the objects that only a cluster reads.
    pub cluster_only: Vec<String>,
    /// Where this machine differs from a cluster, and what must be there before the start.
    pub notes: Vec<String>,
}

fn inspected(
    paths: &[PathBuf],
    written: &[PathBuf],
    environment: &dyn Fn(&str) -> Option<String>,
    missing_secret: MissingSecret,
) -> Result<Inspection, ManifestErrors> {
    let report = Report::default();
    let mut loaded = files::load(paths, &report);
    // A folder that is not there yet has nothing to leave out.
    loaded.no_code.extend(written.iter().filter_map(|path| std::fs::canonicalize(path).ok()));
    if loaded.documents.is_empty() && !report.has_faults() {
        let path = paths.first().cloned().unwrap_or_default();
        report.file(&path, "no object of a pipeline is there");
    }
    let (pipeline, cluster_only) = set::read(loaded, environment, missing_secret, &report);
    report.finish().map(|notes| Inspection { pipeline, cluster_only, notes })
}

/// Everything that one set of manifests describes; names are unique in their list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pipeline {
    /// The broker's name; `default` if nothing is said.
    pub broker: String,
    pub triggers: Vec<Trigger>,
    pub services: Vec<Service>,
    pub jobs: Vec<JobSink>,
    pub pings: Vec<Ping>,
}

/// Which events go where.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    pub name: String,
    pub filter: Filter,
    pub subscriber: Destination,
    /// The trigger's own, completed by the broker's.
    pub delivery: Delivery,
}

/// Knative's filter dialects, all but CESQL.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    /// Each attribute has this value; an empty value asks only that the attribute is there.
    Exact(BTreeMap<String, String>),
    Prefix(BTreeMap<String, String>),
    Suffix(BTreeMap<String, String>),
}

/// Where an event goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A service of the set, at this path.
    Service { name: String, path: String },
    /// A job of the set.
    Job { name: String },
    /// A function that somebody else runs.
    Url(String),
    /// Back to the broker, as a new event's way in (subjects of pings).
    Broker,
}

/// How often, how fast, and where to in the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Attempts after the first.
    pub retry: u32,
    pub backoff: Backoff,
    /// The first pause.
    pub delay: Duration,
    /// Of one call; `None` for the service's own.
    pub timeout: Option<Duration>,
    /// Is told of a delivery that was given up, besides the record.
    pub dead_letter: Option<Destination>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backoff {
    Linear,
    Exponential,
}

/// A function: a process that answers HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub name: String,
    pub run: LocalRun,
    /// Requests at a time in one instance.
    pub concurrency: u32,
    pub min_scale: u32,
    pub max_scale: u32,
    /// Of one call.
    pub timeout: Duration,
    /// An idle instance ends after this.
    pub idle: Duration,
    pub ready: Ready,
}

/// When an instance takes requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// Its port accepts.
    Port,
    /// This path answers 2xx.
    Path(String),
}

/// A job: a process that gets one event and ends.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSink {
    pub name: String,
    pub run: LocalRun,
    /// Starts after the first.
    pub backoff_limit: u32,
    /// Of all attempts together.
    pub deadline: Duration,
    /// How long the folder of an ended job is kept.
    pub keep: Duration,
}

/// What stands for a container on this machine.
#[derive(Clone, PartialEq)]
pub struct LocalRun {
    /// Program and arguments; `BuiltIn` for a function of this binary.
    pub command: Command,
    /// The process starts here.
    pub folder: PathBuf,
    pub env: BTreeMap<String, String>,
    /// Bytes that the process and its children may hold in memory.
    pub memory: Option<u64>,
    /// Cores, in thousandths.
    pub cpu_millis: Option<u32>,
    /// First 16 hex digits of the digest of the manifest's part and of the code's files: another code is another revision.
    pub revision: String,
}

/// Shows the names of the variables and not their values, which may be secret.
impl fmt::Debug for LocalRun {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, folder, env, memory, cpu_millis, revision } = self;
        formatter
            .debug_struct("LocalRun")
            .field("command", command)
            .field("folder", folder)
            .field("env", &env.keys())
            .field("memory", memory)
            .field("cpu_millis", cpu_millis)
            .field("revision", revision)
            .finish()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `baton fn NAME`, by this very binary.
    BuiltIn(Vec<String>),
    Program(Vec<String>),
}

/// A timer that sends an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Ping {
    pub name: String,
    /// Five fields of cron, checked.
    pub schedule: String,
    /// IANA name; UTC if none.
    pub timezone: Option<String>,
    pub content_type: Option<String>,
    pub data: Option<String>,
    pub sink: Destination,
}
