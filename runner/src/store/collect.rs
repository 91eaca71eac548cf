//! Garbage collection: blobs that no stored version names, versions beyond what is kept, old pointer entries.
//!
//! A version record stays when its files go, marked as collected: numbers are never reused and history stays whole.

use std::collections::HashSet;
use std::fs;

use super::local::list;
use super::{ModelName, Store, StoreError, VersionNumber, VersionRecord, VersionState};
use crate::bundle::PartKind;
use crate::failpoint;

/// How much of a model is kept.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    pub versions: usize,
    pub artifact_bytes: u64,
    pub pointers: usize,
}

impl Store {
    /// Marks the oldest versions of a model beyond `keep` as collected, never one of `pinned`, and returns the records
    /// that changed. Their blobs go at the next [`Store::sweep`].
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn retire_old(
        &self,
        model: &ModelName,
        records: &[VersionRecord],
        pinned: &HashSet<VersionNumber>,
        keep: Keep,
    ) -> Result<Vec<VersionRecord>, StoreError> {
        let mut bytes: u64 = 0;
        let mut changed = Vec::new();
        let stored = records.iter().rev().filter(|record| record.state == VersionState::Stored);
        for (rank, record) in stored.enumerate() {
            bytes =
                bytes.saturating_add(record.manifest.part(PartKind::Artifact).map_or(0, |part| part.size));
            let kept = rank < keep.versions && bytes <= keep.artifact_bytes;
            if !kept && !pinned.contains(&record.number) {
                let record = VersionRecord { state: VersionState::Collected, ..record.clone() };
                self.update_version(model, &record)?;
                changed.push(record);
            }
        }
        let mut generations = self.generations(model)?;
        generations.sort_unstable();
        let excess = generations.len().saturating_sub(keep.pointers);
        for generation in generations.iter().take(excess) {
            let path = self.model_folder(model).join("active").join(format!("{generation}.json"));
            fs::remove_file(path).map_err(StoreError::io("remove an old pointer entry"))?;
        }
        Ok(changed)
    }

    /// Removes every blob that no stored version names and that `in_use` does not hold; returns how many.
    ///
    /// The caller sees to it that no push is between storing its blobs and writing its record.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn sweep<'a>(
        &self,
        records: impl IntoIterator<Item = &'a VersionRecord>,
    ) -> Result<usize, StoreError> {
        failpoint::hit("collect").map_err(StoreError::io("collect garbage"))?;
        let mut reachable = HashSet::new();
        for record in records.into_iter().filter(|record| record.state == VersionState::Stored) {
            reachable.extend(record.manifest.parts.values().map(|part| part.digest.hex()));
        }
        let mut removed = 0;
        for name in list(&self.blob_folder()).map_err(StoreError::io("list the blobs"))? {
            if !reachable.contains(&name) {
                fs::remove_file(self.blob_folder().join(&name)).map_err(StoreError::io("remove a blob"))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}
