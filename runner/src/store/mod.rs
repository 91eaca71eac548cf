//! Where bundles and the active pointers live: a local folder. The only room that opens files.
//!
//! ```text
//! FORMAT                                  version of this layout
//! lock                                    held by the one process that writes
//! staging/<uuid>                          uploads under way; emptied at start
//! blobs/sha256/<hex>                      parts and bundle manifests, by content
//! models/<name>/versions/<number>.json    version records, created once, rewritten only to mark collection
//! models/<name>/active/<generation>.json  the active pointer: an append-only log of create-if-absent entries
//! ```
//!
//! Nothing from a client becomes a path: model names are [`ModelName`]s, versions and generations are numbers, blobs
//! are addressed by our own digest. The pointer is a log and not one file that is replaced, because creating an entry
//! only if it is absent is all that an object store needs to offer for the same protocol.

mod collect;
mod disk;
mod local;
mod name;
mod record;
mod spool;
mod staging;

pub use collect::Keep;
pub use local::Store;
pub use name::{ModelName, VersionNumber};
pub use record::{Pointer, Reason, VersionRecord, VersionState};
pub use spool::Spool;
pub use staging::{Staged, Staging};

use std::io;

use crate::error::{Code, Error};

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk failed while doing `operation`.
    #[error("cannot {operation}: {source}")]
    Io { operation: &'static str, source: io::Error },
    /// A stored file is not what was stored.
    #[error("{what} is damaged")]
    Corrupt { what: String },
    /// A pointer entry of this generation exists already: somebody else was first.
    #[error("generation {0} exists already")]
    Stale(u64),
    /// Another process writes this store.
    #[error("another process uses the store")]
    Locked,
    /// The folder was written by a newer Baton.
    #[error("the store has format {0}, this Baton knows 1")]
    Format(u64),
}

impl StoreError {
    fn io(operation: &'static str) -> impl Fn(io::Error) -> StoreError {
        move |source| StoreError::Io { operation, source }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let (code, text) = match &error {
            StoreError::Io { operation, source } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    (Code::StoreFull, format!("cannot {operation}: the disk under the store is full"))
                }
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                    (Code::StoreReadOnly, format!("cannot {operation}: the store cannot be written"))
                }
                _ => (Code::StoreIo, format!("cannot {operation}: the disk under the store failed")),
            },
            StoreError::Corrupt { what } => (Code::StoreCorrupt, format!("{what} is not what was stored")),
            StoreError::Stale(_) => {
                (Code::GenerationStale, "the model was changed by somebody else meanwhile".to_owned())
            }
            StoreError::Locked => (
                Code::StoreLocked,
                "another process uses the store; stop it, or give --store another folder".to_owned(),
            ),
            StoreError::Format(_) => (Code::StoreVersion, format!("{error}; use the newer Baton")),
        };
        Error::new(code, text).caused_by(error)
    }
}
