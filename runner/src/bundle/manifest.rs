//! The bundle's manifest: which parts a bundle has, by digest. Its own digest is the bundle's identity.
//!
//! Written by Baton, never by hand; what people write is the settings file (`baton.toml`), which is the part
//! `manifest` of a push and one of the parts named here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Digest;

/// The parts that a bundle can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    Artifact,
    Contract,
    Manifest,
    Golden,
    Provenance,
    Signature,
}

impl PartKind {
    /// Every kind.
    pub const ALL: [PartKind; 6] = [
        PartKind::Artifact,
        PartKind::Contract,
        PartKind::Manifest,
        PartKind::Golden,
        PartKind::Provenance,
        PartKind::Signature,
    ];

    /// The name in URLs: `.../versions/3/artifact`.
    pub fn name(self) -> &'static str {
        match self {
            PartKind::Artifact => "artifact",
            PartKind::Contract => "contract",
            PartKind::Manifest => "manifest",
            PartKind::Golden => "golden",
            PartKind::Provenance => "provenance",
            PartKind::Signature => "signature",
        }
    }

    /// The name of the part in a multipart push; the artifact's is `model`.
    pub fn form_name(self) -> &'static str {
        match self {
            PartKind::Artifact => "model",
            other => other.name(),
        }
    }

    /// Media type of the part when it is read back.
    pub fn media_type(self) -> &'static str {
        match self {
            PartKind::Artifact | PartKind::Signature => "application/octet-stream",
            PartKind::Contract => "text/plain; charset=utf-8",
            PartKind::Manifest => "application/toml",
            PartKind::Golden => "application/jsonl",
            PartKind::Provenance => "application/json",
        }
    }

    /// Does a push that leaves the part out take it from the active version? Provenance and signature speak of one
    /// set of bytes and would be false for another.
    pub fn carries_over(self) -> bool {
        !matches!(self, PartKind::Provenance | PartKind::Signature)
    }
}

/// A stored part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// What executes the artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    Onnx,
    Native,
}

impl EngineKind {
    /// Bytes of an artifact's beginning that [`EngineKind::of`] looks at.
    pub const HEAD: usize = 4;

    /// What executes an artifact that begins so. Only a shared library begins as one; whether anything else is a model
    /// is for ONNX's own check to say.
    pub fn of(head: &[u8]) -> Self {
        if head.starts_with(b"\x7fELF") { Self::Native } else { Self::Onnx }
    }
}

/// The parts of a bundle. Field order and the ordered map make its JSON canonical.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    pub engine: EngineKind,
    pub parts: BTreeMap<PartKind, Part>,
}

impl Manifest {
    /// A manifest of these parts.
    pub fn new(engine: EngineKind, parts: BTreeMap<PartKind, Part>) -> Self {
        Self { format: 1, engine, parts }
    }

    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Serialising plain strings, numbers and a map with string keys into memory cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The bundle's identity.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// A part, if the bundle has it.
    pub fn part(&self, kind: PartKind) -> Option<Part> {
        self.parts.get(&kind).copied()
    }
}
