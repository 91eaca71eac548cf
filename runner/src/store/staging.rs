//! Uploads under way: streamed to a file of their own, hashed and counted on the way, so that memory stays flat.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use super::{StoreError, disk};
use crate::bundle::{Digest, Hasher};
use crate::failpoint;

/// First bytes that are remembered.
const HEAD: usize = 16;

/// A part being received. Dropping it removes the file.
pub struct Staging {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    size: u64,
    head: Vec<u8>,
    keep: bool,
}

impl Staging {
    pub(super) fn create(folder: &std::path::Path) -> Result<Self, StoreError> {
        let path = folder.join(uuid::Uuid::new_v4().simple().to_string());
        let file = disk::create_new(&path).map_err(StoreError::io("open a staging file"))?;
        Ok(Self { path, file, hasher: Hasher::default(), size: 0, head: Vec::new(), keep: false })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`StoreError::Io`], with a full disk told apart by its kind.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        failpoint::hit("stage.write")
            .and_then(|()| self.file.write_all(bytes))
            .map_err(StoreError::io("write the upload"))?;
        self.hasher.update(bytes);
        let missing = HEAD.saturating_sub(self.head.len());
        self.head.extend(bytes.iter().take(missing));
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Makes the bytes durable.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn finish(mut self) -> Result<Staged, StoreError> {
        failpoint::hit("stage.sync")
            .and_then(|()| self.file.sync_all())
            .map_err(StoreError::io("make the upload durable"))?;
        self.keep = true;
        let digest = std::mem::take(&mut self.hasher).finish();
        let head = std::mem::take(&mut self.head);
        Ok(Staged { path: std::mem::take(&mut self.path), digest, size: self.size, head })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A part that was received whole and is durable, not yet a blob. Dropping it removes the file.
#[derive(Debug)]
pub struct Staged {
    pub(super) path: PathBuf,
    pub(super) digest: Digest,
    pub(super) size: u64,
    head: Vec<u8>,
}

impl Staged {
    /// The first bytes, by which file formats are told apart.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// The digest of the received bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes received.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // As a blob the bytes have a second name, so this removes a name and never the content.
        let _ = fs::remove_file(&self.path);
    }
}
