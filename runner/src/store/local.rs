//! The store in a local folder.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::disk::Points;
use super::spool::Spool;
use super::{ModelName, Pointer, Staged, Staging, StoreError, VersionNumber, VersionRecord, disk};
use crate::bundle::{Digest, Part};
use crate::failpoint;

const FORMAT: u64 = 1;

/// An open store; the only one on its folder that writes.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Holds the advisory lock; `None` on a read-only file system, where nobody can write anyway.
    _lock: Option<File>,
}

impl Store {
    /// Opens the folder, making it if it is missing, and removes what an interrupted upload left.
    ///
    /// # Errors
    /// [`StoreError`]: locked by another process, a newer format, or a disk that does not answer.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let made = fs::create_dir_all(root).and_then(|()| {
            for folder in ["staging", "blobs", "blobs/sha256", "models"] {
                disk::create_folder(&root.join(folder))?;
            }
            Ok(())
        });
        let writable = match made {
            Ok(()) => true,
            Err(error) if is_read_only(&error) && root.join("models").is_dir() => false,
            Err(error) => return Err(StoreError::Io { operation: "open the store", source: error }),
        };
        let lock = match File::options().create(true).truncate(false).write(true).open(root.join("lock")) {
            Ok(file) => {
                // Released by the kernel when the process dies, however it dies.
                let locked = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
                match locked {
                    Ok(()) => Some(file),
                    Err(rustix::io::Errno::WOULDBLOCK) => return Err(StoreError::Locked),
                    Err(error) => {
                        return Err(StoreError::Io { operation: "lock the store", source: error.into() });
                    }
                }
            }
            Err(error) if is_read_only(&error) => {
                tracing::warn!("the store cannot be written: serving what it has, pushes are refused");
                None
            }
            Err(error) => return Err(StoreError::Io { operation: "lock the store", source: error }),
        };
        let store = Self { root: root.to_owned(), _lock: lock };
        store.check_format(writable)?;
        store.clear_staging();
        Ok(store)
    }

    fn check_format(&self, writable: bool) -> Result<(), StoreError> {
        let path = self.root.join("FORMAT");
        match fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(FORMAT) => Ok(()),
                Ok(other) => Err(StoreError::Format(other)),
                Err(_) => Err(StoreError::Corrupt { what: "the store's FORMAT file".to_owned() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound && writable => {
                let points =
                    Points { write: "version.write", link: "version.link", dirsync: "version.dirsync" };
                disk::create_if_absent(&self.scratch(), &path, format!("{FORMAT}\n").as_bytes(), &points)
                    .map(|_| ())
                    .map_err(StoreError::io("write the store's format"))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StoreError::Io { operation: "read the store's format", source: error }),
        }
    }

    fn clear_staging(&self) {
        let Ok(entries) = fs::read_dir(self.root.join("staging")) else { return };
        for entry in entries.flatten() {
            if let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!("cannot remove a left-over upload: {error}");
            }
        }
    }

    fn scratch(&self) -> PathBuf {
        self.root.join("staging").join(uuid::Uuid::new_v4().simple().to_string())
    }

    pub(super) fn model_folder(&self, model: &ModelName) -> PathBuf {
        self.root.join("models").join(model.as_str())
    }

    pub(super) fn blob_folder(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// Begins to receive a part.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn stage(&self) -> Result<Staging, StoreError> {
        Staging::create(&self.root.join("staging"))
    }

    /// A place for an answer that is too large for memory.
    pub fn spool(&self) -> Spool {
        Spool::new(&self.root.join("staging"))
    }

    /// Receives bytes that are in memory already.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn stage_bytes(&self, bytes: &[u8]) -> Result<Staged, StoreError> {
        let mut staging = self.stage()?;
        staging.write(bytes)?;
        staging.finish()
    }

    /// Reads a staged part back.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn read_staged(&self, staged: &Staged) -> Result<Vec<u8>, StoreError> {
        read_exact(&staged.path, staged.size).map_err(StoreError::io("read the upload"))
    }

    /// Moves a staged part into the blobs, durably.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn keep(&self, staged: Staged) -> Result<Part, StoreError> {
        let part = Part { digest: staged.digest, size: staged.size };
        let path = self.blob_folder().join(part.digest.hex());
        let linked = failpoint::hit("blob.link").and_then(|()| match fs::hard_link(&staged.path, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // The same content was stored before, unless that file was damaged since: then this one heals it.
                if self.read_blob(part).is_err() {
                    fs::rename(&staged.path, &path)?;
                }
                Ok(())
            }
            other => other,
        });
        linked.map_err(StoreError::io("store the upload"))?;
        failpoint::hit("blob.dirsync")
            .and_then(|()| disk::sync_folder(&self.blob_folder()))
            .map_err(StoreError::io("make the upload durable"))?;
        Ok(part)
    }

    /// Reads a blob and verifies its digest.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the bytes are not those that were stored.
    pub fn read_blob(&self, part: Part) -> Result<Vec<u8>, StoreError> {
        let corrupt = || StoreError::Corrupt { what: format!("blob {}", part.digest) };
        let path = self.blob_folder().join(part.digest.hex());
        let bytes = match read_exact(&path, part.size) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                return Err(corrupt());
            }
            Err(error) => return Err(StoreError::Io { operation: "read a blob", source: error }),
        };
        if Digest::of(&bytes) != part.digest {
            return Err(corrupt());
        }
        Ok(bytes)
    }

    /// Opens a blob for streaming. Its digest is not verified: readers of a download can do that themselves.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is missing or has another size.
    pub fn open_blob(&self, part: Part) -> Result<File, StoreError> {
        let corrupt = || StoreError::Corrupt { what: format!("blob {}", part.digest) };
        let file =
            disk::open(&self.blob_folder().join(part.digest.hex())).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => corrupt(),
                _ => StoreError::Io { operation: "open a blob", source: error },
            })?;
        match file.metadata() {
            Ok(metadata) if metadata.len() == part.size => Ok(file),
            _ => Err(corrupt()),
        }
    }

    /// The models that the store knows.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn models(&self) -> Result<Vec<ModelName>, StoreError> {
        let names = list(&self.root.join("models")).map_err(StoreError::io("list the models"))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// All version records of a model in the order of their numbers; those that cannot be read are left out and
    /// reported in the log.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn versions(&self, model: &ModelName) -> Result<Vec<VersionRecord>, StoreError> {
        let folder = self.model_folder(model).join("versions");
        let mut records = Vec::new();
        for name in list(&folder).map_err(StoreError::io("list a model's versions"))? {
            let Some(number) =
                name.strip_suffix(".json").and_then(|number| number.parse::<VersionNumber>().ok())
            else {
                continue;
            };
            match read_json::<VersionRecord>(&folder.join(&name)) {
                Ok(record) if record.number == number && record.manifest.digest() == record.digest => {
                    records.push(record);
                }
                Ok(_) => tracing::error!(code = "STORE_CORRUPT", "version {number} of {model} is damaged"),
                Err(error) => {
                    tracing::error!(
                        code = "STORE_CORRUPT",
                        "version {number} of {model} cannot be read: {error}"
                    );
                }
            }
        }
        records.sort_by_key(|record| record.number);
        Ok(records)
    }

    /// The highest version number that was ever given out, readable or not: numbers are never reused.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn last_number(&self, model: &ModelName) -> Result<VersionNumber, StoreError> {
        let names = list(&self.model_folder(model).join("versions"))
            .map_err(StoreError::io("list a model's versions"))?;
        let numbers = names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok());
        Ok(numbers.max().unwrap_or(VersionNumber::NONE))
    }

    /// Writes the record of a new version, durably.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn add_version(&self, model: &ModelName, record: &VersionRecord) -> Result<(), StoreError> {
        let folder = self.model_folder(model);
        let path = folder.join("versions").join(format!("{}.json", record.number));
        let points = Points { write: "version.write", link: "version.link", dirsync: "version.dirsync" };
        let created = disk::create_folder(&folder)
            .and_then(|()| disk::create_folder(&folder.join("versions")))
            .and_then(|()| disk::create_folder(&folder.join("active")))
            .and_then(|()| disk::create_if_absent(&self.scratch(), &path, &to_json(record), &points))
            .map_err(StoreError::io("write the version's record"))?;
        if created { Ok(()) } else { Err(StoreError::Corrupt { what: format!("version {}", record.number) }) }
    }

    /// Rewrites a record, to say that its files are gone.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn update_version(&self, model: &ModelName, record: &VersionRecord) -> Result<(), StoreError> {
        let path = self.model_folder(model).join("versions").join(format!("{}.json", record.number));
        let points = Points { write: "collect", link: "collect", dirsync: "collect" };
        disk::replace(&self.scratch(), &path, &to_json(record), &points)
            .map_err(StoreError::io("write the version's record"))
    }

    /// The entries of a model's activation log, newest first; damaged ones are left out and reported in the log.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn pointers(&self, model: &ModelName) -> Result<Vec<Pointer>, StoreError> {
        let folder = self.model_folder(model).join("active");
        let mut generations = self.generations(model)?;
        generations.sort_unstable_by(|left, right| right.cmp(left));
        let mut pointers = Vec::with_capacity(generations.len());
        for generation in generations {
            match read_json::<Pointer>(&folder.join(format!("{generation}.json"))) {
                Ok(pointer) if pointer.generation == generation => pointers.push(pointer),
                Ok(_) => {
                    tracing::error!(code = "STORE_CORRUPT", "generation {generation} of {model} is damaged")
                }
                Err(error) => {
                    tracing::error!(code = "STORE_CORRUPT", "generation {generation} of {model}: {error}");
                }
            }
        }
        Ok(pointers)
    }

    /// The generations in a model's activation log, damaged ones included, in no order.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn generations(&self, model: &ModelName) -> Result<Vec<u64>, StoreError> {
        let names = list(&self.model_folder(model).join("active"))
            .map_err(StoreError::io("list a model's generations"))?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
    }

    /// Moves the active pointer: creates the entry of its generation, durably, if nobody else has.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if the generation exists, else [`StoreError::Io`].
    pub fn advance(&self, model: &ModelName, pointer: &Pointer) -> Result<(), StoreError> {
        let path = self.model_folder(model).join("active").join(format!("{}.json", pointer.generation));
        let points = Points { write: "active.write", link: "active.link", dirsync: "active.dirsync" };
        let created = disk::create_if_absent(&self.scratch(), &path, &to_json(pointer), &points);
        match created {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::Stale(pointer.generation)),
            Err(error) => {
                // The entry may be visible though its durability is in doubt. What is refused must not come back
                // after a restart, so it is taken away again; if even that fails, recovery may find it.
                let _ = fs::remove_file(&path);
                Err(StoreError::Io { operation: "move the active pointer", source: error })
            }
        }
    }
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// Reads a file of a known size; a file of another size is invalid before its bytes are looked at.
fn read_exact(path: &Path, size: u64) -> io::Result<Vec<u8>> {
    let mut file = disk::open(path)?;
    if file.metadata()?.len() != size {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).map_err(|_| io::ErrorKind::InvalidData)?);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut bytes = Vec::new();
    disk::open(path)?.take(1 << 20).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(io::Error::from)
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    // Records are plain structs with string keys: writing them to memory cannot fail.
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// The names in a folder that are UTF-8; none if the folder is missing.
pub(super) fn list(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
            names.filter_map(io::Result::transpose).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
