//! What the store writes about versions and about what is active.

use serde::{Deserialize, Serialize};

use super::VersionNumber;
use crate::bundle::{Digest, Manifest};

/// A version of a model. Written once; only `state` changes, when its files are collected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionRecord {
    pub number: VersionNumber,
    /// The bundle's digest: that of `manifest`.
    pub digest: Digest,
    pub manifest: Manifest,
    /// Seconds since the epoch, for people; nothing is ordered by it.
    pub created_at: u64,
    pub state: VersionState,
}

/// What is left of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionState {
    /// All parts are in the store.
    Stored,
    /// The files were collected to make room.
    Collected,
    /// The version was removed on request.
    Removed,
}

/// One entry of a model's activation log: from this generation on, this version is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pointer {
    pub generation: u64,
    /// `None`: nothing is served.
    pub version: Option<VersionNumber>,
    pub digest: Option<Digest>,
    pub reason: Reason,
    /// Seconds since the epoch, for people.
    pub at: u64,
    /// Rules of compatibility that were broken on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken_rules: Vec<String>,
}

/// Why the pointer moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    Push,
    Activate,
    Rollback,
    Unload,
    Remove,
}
