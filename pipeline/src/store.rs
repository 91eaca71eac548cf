//! The artifact store: blobs by their digest, and append-only logs, in a folder or in S3 and its like.
//!
//! Keys: `docs/pipeline-reference.md`. Nothing is ever overwritten but a damaged blob, with the bytes that its name demands: an entry
//! is created if absent, or the writer has lost.
//! A conditional update (If-Match) would be shorter for the logs, but folders do not have it, and several servers that
//! speak S3 ignore it; [`Store::probe`] refuses those that ignore create-if-absent too.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::ClientConfigKey;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A blob above this size goes to S3 in parts of it.
const PART: usize = 8 << 20;
/// For one request to S3, with its bytes: 8 MiB at 70 KB/s.
const REQUEST_TIME: &str = "120 seconds";

/// The SHA-256 of a blob; as text `sha256:` and 64 lower-case hex digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// That of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The hex digits.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() == 64 && hex.bytes().all(is_hex) {
            Ok(Self(hex.to_owned()))
        } else {
            Err(StoreError::BadDigest(text.chars().take(100).collect()))
        }
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Names a blob of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0:?} is no digest; sha256: and 64 lower-case hex digits are")]
    BadDigest(String),
    #[error("{0:?} is no store: {1}")]
    BadAddress(String, String),
    #[error("{0:?} cannot be a name in the store: small letters, digits, '.', '_', '-', at most 63")]
    BadName(String),
    #[error("the store has no {0}")]
    Missing(String),
    #[error("{key} is damaged: {reason}")]
    Damaged { key: String, reason: String },
    #[error("{0} is larger than the {1} bytes that are allowed")]
    TooLarge(String, u64),
    #[error("this store ignores create-if-absent, so two writers could overwrite each other; {0}")]
    NoConditionalPut(String),
    #[error("{operation}")]
    Io {
        operation: String,
        #[source]
        source: object_store::Error,
    },
}

impl StoreError {
    /// May the same call succeed later?
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Io { .. })
    }
}

type Result<T, E = StoreError> = std::result::Result<T, E>;

/// One store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    address: String,
}

impl Store {
    /// Opens a folder (made if absent), `file:///...`, `s3://bucket/prefix` (credentials and endpoint from the usual `AWS_*`
    /// variables) or `memory:///`.
    ///
    /// # Errors
    /// [`StoreError::BadAddress`], or the folder cannot be made.
    pub fn open(address: &str) -> Result<Self> {
        let bad = |reason: String| StoreError::BadAddress(address.to_owned(), reason);
        if let Some(folder) =
            address.strip_prefix("file://").or((!address.contains("://")).then_some(address))
        {
            std::fs::create_dir_all(folder).map_err(|error| bad(error.to_string()))?;
            let folder = std::fs::canonicalize(folder).map_err(|error| bad(error.to_string()))?;
            let objects = object_store::local::LocalFileSystem::new_with_prefix(&folder)
                .map_err(|error| bad(error.to_string()))?
                .with_fsync(true);
            return Ok(Self {
                objects: Arc::new(objects),
                prefix: Path::default(),
                address: folder.display().to_string(),
            });
        }
        let url = url::Url::parse(address).map_err(|error| bad(error.to_string()))?;
        match url.scheme() {
            "memory" => Ok(Self {
                objects: Arc::new(object_store::memory::InMemory::new()),
                prefix: Path::default(),
                address: address.to_owned(),
            }),
            "s3" => {
                let set = |name: &str| std::env::var(name).unwrap_or_default();
                let is_http =
                    ["AWS_ENDPOINT", "AWS_ENDPOINT_URL"].iter().any(|name| set(name).starts_with("http://"));
                if is_http && !["true", "1"].contains(&set("AWS_ALLOW_HTTP").to_ascii_lowercase().as_str()) {
                    return Err(bad("an AWS_ENDPOINT of http:// needs AWS_ALLOW_HTTP=true".into()));
                }
                let objects = AmazonS3Builder::from_env()
                    .with_url(address)
                    .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIME)
                    .build()
                    .map_err(|error| bad(error.to_string()))?;
                let prefix = Path::from_url_path(url.path()).map_err(|error| bad(error.to_string()))?;
                Ok(Self { objects: Arc::new(objects), prefix, address: address.to_owned() })
            }
            scheme => Err(bad(format!("a folder, file:// or s3://, not {scheme}://"))),
        }
    }

    /// What it was opened with; a folder as an absolute path.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn is_folder(&self) -> bool {
        !self.address.contains("://")
    }

    /// Makes sure that entries can be created, and none twice. It cannot prove that a server keeps that while two write at the same
    /// moment.
    ///
    /// # Errors
    /// [`StoreError::NoConditionalPut`] for a store that pretends, or the store's own failure.
    pub async fn probe(&self) -> Result<()> {
        // A folder would keep an empty one.
        let separator = if self.is_folder() { '-' } else { '/' };
        let key = format!("probe{separator}{}", uuid::Uuid::new_v4().simple());
        self.create(&key, Bytes::from_static(b"1")).await?;
        let second = self.create(&key, Bytes::from_static(b"2")).await?;
        let _ = self.objects.delete(&self.path(&key)).await;
        if second {
            return Err(StoreError::NoConditionalPut("use another server, or a folder".into()));
        }
        Ok(())
    }

    /// Stores bytes under their digest; storing them again costs a look at what is there, which is mended if it is damaged.
    ///
    /// # Errors
    /// The store's own failure.
    pub async fn put(&self, bytes: impl Into<Bytes>) -> Result<Reference> {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let size = bytes.len() as u64;
        let key = blob_key(&digest);
        let path = self.path(&key);
        let reference = Reference { digest, size };
        if !self.is_folder() && bytes.len() > PART {
            if !self.is_whole(&reference).await? {
                self.put_in_parts(&path, bytes).await.map_err(|error| failed("write", &key, error))?;
            }
        } else if !self.create(&key, bytes.clone()).await? && !self.is_whole(&reference).await? {
            tracing::warn!("{key} was damaged and is written again");
            let written = self.objects.put(&path, PutPayload::from_bytes(bytes)).await;
            written.map_err(|error| failed("write", &key, error))?;
        }
        Ok(reference)
    }

    /// Is the blob there, with its size and, in a folder, its bytes? Servers look after those.
    async fn is_whole(&self, reference: &Reference) -> Result<bool> {
        let key = blob_key(&reference.digest);
        if self.is_folder() {
            return match self.get(&reference.digest, reference.size).await {
                Ok(_) => Ok(true),
                Err(StoreError::Missing(_) | StoreError::Damaged { .. } | StoreError::TooLarge(..)) => {
                    Ok(false)
                }
                Err(error) => Err(error),
            };
        }
        match self.objects.head(&self.path(&key)).await {
            Ok(found) => Ok(found.size == reference.size),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed("read", &key, error)),
        }
    }

    /// Not create-if-absent: two writers of a blob write the same bytes.
    async fn put_in_parts(&self, path: &Path, bytes: Bytes) -> object_store::Result<()> {
        let mut upload = self.objects.put_multipart(path).await?;
        let mut sent = Ok(());
        for start in (0..bytes.len()).step_by(PART) {
            let part = bytes.slice(start..bytes.len().min(start + PART));
            sent = upload.put_part(PutPayload::from_bytes(part)).await;
            if sent.is_err() {
                break;
            }
        }
        let done = match sent {
            Ok(()) => upload.complete().await.map(|_| ()),
            Err(error) => Err(error),
        };
        if done.is_err() {
            let _ = upload.abort().await;
        }
        done
    }

    /// A blob, verified.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::TooLarge`] beyond `limit` bytes, [`StoreError::Damaged`] if its bytes have
    /// another digest.
    pub async fn get(&self, digest: &Digest, limit: u64) -> Result<Bytes> {
        let key = blob_key(digest);
        let found = self.objects.get(&self.path(&key)).await.map_err(|error| failed("read", &key, error))?;
        if found.meta.size > limit {
            return Err(StoreError::TooLarge(key, limit));
        }
        let bytes = found.bytes().await.map_err(|error| failed("read", &key, error))?;
        if Digest::of(&bytes) != *digest {
            return Err(StoreError::Damaged { key, reason: "its bytes have another digest".into() });
        }
        Ok(bytes)
    }

    /// The blob that a reference names, verified with its size.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn read(&self, reference: &Reference, limit: u64) -> Result<Bytes> {
        let bytes = self.get(&reference.digest, limit).await?;
        if bytes.len() as u64 != reference.size {
            let reason = format!("it has {} bytes, the reference says {}", bytes.len(), reference.size);
            return Err(StoreError::Damaged { key: blob_key(&reference.digest), reason });
        }
        Ok(bytes)
    }

    /// A blob of JSON.
    ///
    /// # Errors
    /// As [`Store::get`]; [`StoreError::Damaged`] if it is not of this form.
    pub async fn get_json<T: DeserializeOwned>(&self, digest: &Digest, limit: u64) -> Result<T> {
        let bytes = self.get(digest, limit).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| StoreError::Damaged { key: blob_key(digest), reason: error.to_string() })
    }

    /// What a stage answered for these inputs.
    ///
    /// # Errors
    /// The store's own failure; [`StoreError::Damaged`].
    pub async fn memo<T: DeserializeOwned>(&self, stage: &str, key: &Digest) -> Result<Option<T>> {
        self.entry(&memo_key(stage, key)?).await
    }

    /// Keeps what a stage answered; the first answer stays. Gives whether this one was it.
    ///
    /// # Errors
    /// The store's own failure.
    pub async fn remember(&self, stage: &str, key: &Digest, answer: &impl Serialize) -> Result<bool> {
        self.create(&memo_key(stage, key)?, json(answer)).await
    }

    /// The newest entry of a log (`datasets` or `active`) and its number, which counts from 1.
    ///
    /// # Errors
    /// The store's own failure; [`StoreError::Damaged`].
    pub async fn last<T: DeserializeOwned>(&self, log: &str, name: &str) -> Result<Option<(u64, T)>> {
        let Some(last) = self.length(log, name).await? else { return Ok(None) };
        Ok(self.entry(&log_key(log, name, last)?).await?.map(|entry| (last, entry)))
    }

    /// All entries of a log, oldest first, at most the `limit` newest.
    ///
    /// # Errors
    /// The store's own failure; [`StoreError::Damaged`].
    pub async fn log<T: DeserializeOwned>(&self, log: &str, name: &str, limit: u64) -> Result<Vec<T>> {
        let last = self.length(log, name).await?.unwrap_or(0);
        let mut entries = Vec::new();
        for number in last.saturating_sub(limit) + 1..=last {
            entries.extend(self.entry(&log_key(log, name, number)?).await?);
        }
        Ok(entries)
    }

    /// Appends to a log as the entry that follows number `after` (0: the first). `false` if somebody else did.
    ///
    /// # Errors
    /// The store's own failure.
    pub async fn append(&self, log: &str, name: &str, after: u64, entry: &impl Serialize) -> Result<bool> {
        self.create(&log_key(log, name, after + 1)?, json(entry)).await
    }

    /// Creates the entry `FOLDER/KEY.json` if there is none; `false` if there is. `key` is hex digits.
    ///
    /// # Errors
    /// The store's own failure.
    pub async fn create_entry(&self, folder: &str, key: &str, entry: &impl Serialize) -> Result<bool> {
        self.create(&entry_key(folder, key)?, json(entry)).await
    }

    /// An entry of a folder.
    ///
    /// # Errors
    /// The store's own failure; [`StoreError::Damaged`].
    pub async fn read_entry<T: DeserializeOwned>(&self, folder: &str, key: &str) -> Result<Option<T>> {
        self.entry(&entry_key(folder, key)?).await
    }

    /// The keys of all entries of a folder, in order.
    ///
    /// # Errors
    /// The store's own failure.
    pub async fn entries(&self, folder: &str) -> Result<Vec<String>> {
        let listed: Vec<_> = self
            .objects
            .list(Some(&self.path(checked_name(folder)?)))
            .try_collect()
            .await
            .map_err(|error| failed("list", folder, error))?;
        let key = |path: &Path| path.filename()?.strip_suffix(".json").map(str::to_owned);
        let mut keys: Vec<String> = listed.iter().filter_map(|meta| key(&meta.location)).collect();
        keys.sort_unstable();
        Ok(keys)
    }

    async fn length(&self, log: &str, name: &str) -> Result<Option<u64>> {
        let folder = self.path(&format!("{log}/{}", checked_name(name)?));
        let listed: Vec<_> = self
            .objects
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|error| failed("list", folder.as_ref(), error))?;
        let number = |path: &Path| path.filename()?.strip_suffix(".json")?.parse().ok();
        Ok(listed.iter().filter_map(|meta| number(&meta.location)).max())
    }

    async fn entry<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let bytes = match self.objects.get(&self.path(key)).await {
            Ok(found) => found.bytes().await.map_err(|error| failed("read", key, error))?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed("read", key, error)),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| StoreError::Damaged { key: key.to_owned(), reason: error.to_string() })
    }

    /// `false` if there was one.
    async fn create(&self, key: &str, bytes: Bytes) -> Result<bool> {
        let options = PutOptions::from(PutMode::Create);
        match self.objects.put_opts(&self.path(key), PutPayload::from_bytes(bytes), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(false)
            }
            Err(error) => Err(failed("write", key, error)),
        }
    }

    fn path(&self, key: &str) -> Path {
        self.prefix.parts().chain(Path::from(key).parts()).collect()
    }
}

fn failed(verb: &str, key: &str, error: object_store::Error) -> StoreError {
    let is_absent = matches!(error, object_store::Error::NotFound { .. });
    if is_absent && verb != "write" {
        return StoreError::Missing(key.to_owned());
    }
    let mut reason = if is_absent { "there is no such bucket: ".to_owned() } else { String::new() };
    reason.push_str(&error.to_string());
    // The cause of a broken connection is at the end of the chain, and most links repeat what is behind them.
    let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
    for cause in causes.map(ToString::to_string) {
        if !reason.contains(&cause) {
            reason.push_str(&format!(": {cause}"));
        }
    }
    StoreError::Io { operation: format!("cannot {verb} {key}: {reason}"), source: error }
}

fn blob_key(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn memo_key(stage: &str, key: &Digest) -> Result<String> {
    Ok(format!("memo/{}/{}.json", checked_name(stage)?, key.hex()))
}

fn entry_key(folder: &str, key: &str) -> Result<String> {
    Ok(format!("{}/{}.json", checked_name(folder)?, checked_key(key)?))
}

/// Hex digits; what else lies in a folder is none of ours.
fn checked_key(key: &str) -> Result<&str> {
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_key.then_some(key).ok_or_else(|| StoreError::BadName(key.chars().take(100).collect()))
}

fn log_key(log: &str, name: &str, number: u64) -> Result<String> {
    Ok(format!("{log}/{}/{number:08}.json", checked_name(name)?))
}

/// The rule for names of models, which datasets share: nothing that could be a path.
pub fn checked_name(name: &str) -> Result<&str> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if first && name.len() <= 63 && name.bytes().all(allowed) {
        Ok(name)
    } else {
        Err(StoreError::BadName(name.chars().take(100).collect()))
    }
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec_pretty(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path().to_str().expect("UTF-8")).expect("a store");
        (folder, store)
    }

    #[tokio::test]
    async fn blobs_are_verified_when_they_are_read() {
        let (folder, store) = folder();
        let reference = store.put("some bytes").await.expect("stored");
        assert_eq!(store.put("some bytes").await.expect("again"), reference);
        assert_eq!(store.get(&reference.digest, 100).await.expect("read"), "some bytes");
        assert!(matches!(store.get(&reference.digest, 9).await, Err(StoreError::TooLarge(..))));
        let path = folder.path().join("blobs/sha256").join(reference.digest.hex());
        std::fs::write(path, "other bytes").expect("damaged");
        assert!(matches!(store.get(&reference.digest, 100).await, Err(StoreError::Damaged { .. })));
        assert!(matches!(store.get(&Digest::of(b"?"), 100).await, Err(StoreError::Missing(_))));
    }

    #[tokio::test]
    async fn a_damaged_blob_is_mended_by_the_same_bytes() {
        let (folder, store) = folder();
        let reference = store.put("some bytes").await.expect("stored");
        let path = folder.path().join("blobs/sha256").join(reference.digest.hex());
        for damaged in ["some", "some bytes and more", "SOME BYTES"] {
            std::fs::write(&path, damaged).expect("damaged");
            assert_eq!(store.put("some bytes").await.expect("again"), reference);
            assert_eq!(store.read(&reference, 100).await.expect("read"), "some bytes");
        }
        let other = Reference { size: 9, ..reference };
        assert!(matches!(store.read(&other, 100).await, Err(StoreError::Damaged { .. })));
    }

    #[tokio::test]
    async fn a_large_blob_goes_in_parts() {
        let store = Store::open("memory:///").expect("a store");
        let bytes: Bytes = (0..2 * PART + 5).map(|position| position as u8).collect::<Vec<_>>().into();
        let reference = store.put(bytes.clone()).await.expect("stored");
        assert_eq!(store.put(bytes.clone()).await.expect("again"), reference);
        assert_eq!(store.read(&reference, u64::MAX).await.expect("read"), bytes);
    }

    #[tokio::test]
    async fn a_folder_is_probed_and_left_as_it_was() {
        let (folder, store) = folder();
        store.probe().await.expect("a folder that can be written");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
        // A file in the way: root may write to a folder without permission.
        std::fs::remove_dir(folder.path()).expect("removed");
        std::fs::write(folder.path(), "").expect("a file");
        assert!(store.probe().await.expect_err("no folder any more").is_transient());
        std::fs::remove_file(folder.path()).expect("removed");
        std::fs::create_dir(folder.path()).expect("for the end");
    }

    #[tokio::test]
    async fn of_many_writers_each_entry_of_a_log_has_one() {
        let (_folder, store) = folder();
        let writers = (0..8u64).map(|writer| {
            let store = store.clone();
            async move {
                for entry in 0..5 {
                    loop {
                        let after = store
                            .last::<u64>("active", "m")
                            .await
                            .expect("read")
                            .map_or(0, |(number, _)| number);
                        if store.append("active", "m", after, &(writer * 100 + entry)).await.expect("written")
                        {
                            break;
                        }
                    }
                }
            }
        });
        futures_util::future::join_all(writers).await;
        let mut entries: Vec<u64> = store.log("active", "m", 100).await.expect("read");
        assert_eq!(entries.len(), 40);
        entries.sort_unstable();
        entries.dedup();
        assert_eq!(entries.len(), 40, "no entry was overwritten");
        assert_eq!(store.log::<u64>("active", "m", 3).await.expect("read").len(), 3);
    }

    #[tokio::test]
    async fn the_first_answer_of_a_stage_stays() {
        let (_folder, store) = folder();
        let key = Digest::of(b"inputs");
        assert!(store.memo::<String>("train", &key).await.expect("read").is_none());
        assert!(store.remember("train", &key, &"one").await.expect("written"));
        assert!(!store.remember("train", &key, &"two").await.expect("kept"));
        assert_eq!(store.memo::<String>("train", &key).await.expect("read").as_deref(), Some("one"));
        store.probe().await.expect("a folder creates only if absent");
    }

    #[tokio::test]
    async fn names_never_leave_the_store() {
        let (_folder, store) = folder();
        for name in ["", "../x", "a/b", "A", ".hidden", "x\0", &"n".repeat(64)] {
            assert!(
                matches!(store.append("active", name, 0, &1).await, Err(StoreError::BadName(_))),
                "{name:?}"
            );
        }
        for text in ["", "sha256:", "sha256:XYZ", "md5:00", &format!("sha256:{}", "A".repeat(64))] {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
        assert!(matches!(Store::open("ftp://x/y"), Err(StoreError::BadAddress(..))));
    }
}
