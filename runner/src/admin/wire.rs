//! What the admin API says, as the JSON that travels. The command line reads the same types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The reply to a push, an activation or a roll-back.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Change {
    pub model: String,
    /// Decimal, as in the Open Inference Protocol; none after a dry run.
    pub version: Option<String>,
    /// The bundle's digest.
    pub digest: Option<String>,
    pub generation: u64,
    /// `stored`, `ready` or `active`.
    pub state: String,
    /// The same bundle was there already.
    pub unchanged: bool,
    pub warnings: Vec<String>,
}

/// A model and its versions.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Model {
    pub model: String,
    pub generation: u64,
    /// The version being served.
    pub active: Option<String>,
    pub digest: Option<String>,
    /// `serving`, `preparing` (and serving), or `not serving`.
    pub state: String,
    /// Why it is not serving what it should.
    pub reason: Option<String>,
    /// Its workers die again and again.
    #[serde(default)]
    pub degraded: bool,
    /// The processes that run the served version, if it runs isolated.
    #[serde(default)]
    pub workers: Vec<Worker>,
    /// Native libraries of this model's earlier versions that stay mapped in the server's process, as their authors
    /// called them.
    #[serde(default)]
    pub pinned_libraries: Vec<String>,
    pub versions: Vec<Version>,
}

/// A process that runs a model.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// `starting`, `ready`, `busy` or `down`.
    pub state: String,
    pub pid: Option<u32>,
    pub restarts: u64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Why the one before it died.
    pub last_death: Option<String>,
    /// Seconds until the next start, while it is down.
    pub pause_s: Option<f64>,
}

/// All models.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ModelList {
    pub models: Vec<Model>,
}

/// A version of a model.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Version {
    pub version: String,
    pub digest: String,
    /// `stored`, `ready` (in memory), `active`, `collected` or `removed`.
    pub state: String,
    /// RFC 3339.
    pub created_at: String,
    /// Parts by name: artifact, contract, manifest, golden, provenance, signature.
    pub parts: BTreeMap<String, Part>,
}

/// All versions of a model, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VersionList {
    pub model: String,
    pub versions: Vec<Version>,
}

/// A part of a bundle.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Part {
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// One change of what is served.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HistoryEntry {
    pub model: String,
    pub generation: u64,
    /// The version served from then on; none if nothing was.
    pub version: Option<String>,
    pub digest: Option<String>,
    /// `push`, `activate`, `rollback`, `unload` or `remove`.
    pub reason: String,
    /// RFC 3339.
    pub at: String,
    /// Rules of compatibility that were broken on purpose.
    #[serde(default)]
    pub broken_rules: Vec<String>,
    /// The version's provenance record.
    pub provenance: Option<serde_json::Value>,
}

/// Changes, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct History {
    pub entries: Vec<HistoryEntry>,
}

/// A limit of the server.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Limit {
    pub name: String,
    pub value: String,
    pub reason: String,
}

/// All limits.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LimitList {
    pub limits: Vec<Limit>,
}

/// An error as it comes over HTTP.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct Problem {
    pub error: String,
    pub code: String,
    pub source: String,
    pub request_id: String,
    #[serde(default)]
    pub details: Option<serde_json::Value>,
}
