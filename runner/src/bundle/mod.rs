//! What is pushed, as values: digests, the bundle's own manifest, the settings file, golden rows, provenance.
//!
//! No I/O and no transport here. A bundle is immutable; its identity is the SHA-256 digest of its [`Manifest`], which
//! names the digests of the parts. Two pushes of the same parts are the same bundle.

mod digest;
mod golden;
mod manifest;
mod settings;

pub use digest::{Digest, Hasher};
pub use golden::{GoldenRow, RowInput, parse_golden};
pub use manifest::{EngineKind, Manifest, Part, PartKind};
pub use settings::{Execution, FieldBinding, Mask, OnDegraded, RequestLogSettings, Settings, WorkerSettings};

use crate::error::{Code, Error, Result};

/// Checks a provenance record: a JSON object.
///
/// # Errors
/// `BAD_PROVENANCE`.
pub fn check_provenance(bytes: &[u8]) -> Result<serde_json::Map<String, serde_json::Value>> {
    serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Error::new(
            Code::BadProvenance,
            format!("the provenance record is no JSON object (line {line}, column {column})"),
        )
        .caused_by(error)
    })
}
