//! The inbox: a file that is completely written to `DIR/DATASET/FILE` becomes a version of the dataset.
//!
//! "Completely" is what the kernel says: closed after writing, or moved into place; nothing polls. What is in a folder when it
//! begins to be watched is offered too, unless it is still growing: then its end is told by the kernel. Because the id of an event is the dataset and the digest, the same data starts nothing twice.
//! The thread below reads files; the engine stores them, one at a time, so at most three are in memory.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use tokio::sync::mpsc;

use super::{Engine, EngineError};
use crate::store::{StoreError, checked_name};
use crate::submit::updated;

/// Bytes of a file at most.
const LIMIT: u64 = 1024 * 1024 * 1024;
/// A file that is there when its folder begins to be watched and that was written to less than this ago may still be growing.
const SETTLED: Duration = Duration::from_secs(1);
/// The pause before a file is stored again when the store has failed.
const TROUBLE: Duration = Duration::from_secs(5);

/// A whole file.
pub(crate) struct Arrival {
    dataset: String,
    file: String,
    bytes: Vec<u8>,
}

/// Begins to watch a folder, which is made if it is not there.
///
/// # Errors
/// [`EngineError::Inbox`].
pub(crate) fn watch(path: &Path) -> Result<mpsc::Receiver<Arrival>, EngineError> {
    let failed = |reason: String| EngineError::Inbox { path: path.to_owned(), reason };
    std::fs::create_dir_all(path).map_err(|error| failed(error.to_string()))?;
    let mut watcher = Watcher::new(path).map_err(|error| failed(error.to_string()))?;
    let (sender, arrivals) = mpsc::channel(1);
    std::thread::Builder::new()
        .name("baton-inbox".into())
        .spawn(move || watcher.run(&sender))
        .map_err(|error| failed(error.to_string()))?;
    Ok(arrivals)
}

/// Stores what arrives and posts an event for it, until the engine ends.
pub(crate) async fn run(engine: Arc<Engine>, mut arrivals: mpsc::Receiver<Arrival>) {
    loop {
        let arrival = tokio::select! {
            Some(arrival) = arrivals.recv() => arrival,
            () = engine.shutdown.begun() => return,
        };
        let bytes = bytes::Bytes::from(arrival.bytes);
        loop {
            let failure = match offer(&engine, &arrival.dataset, &arrival.file, bytes.clone()).await {
                Ok(()) => break,
                Err(failure) => failure,
            };
            tracing::error!(dataset = arrival.dataset, file = arrival.file, "cannot be taken yet: {failure}");
            tokio::select! {
                () = tokio::time::sleep(TROUBLE) => {}
                () = engine.shutdown.begun() => return,
            }
        }
    }
}

async fn offer(engine: &Arc<Engine>, dataset: &str, file: &str, bytes: bytes::Bytes) -> Result<(), String> {
    let reference = engine.store.put(bytes).await.map_err(|error: StoreError| error.to_string())?;
    let event = updated(dataset, file, &reference, Some("inbox"));
    let accepted = engine.accept(event).await.map_err(|error| error.to_string())?;
    if accepted.is_new {
        tracing::info!(dataset, file, digest = %reference.digest, "new data in the inbox");
    }
    Ok(())
}

/// Files that are not there for us, or not yet.
fn is_ignored(name: &str) -> bool {
    name.starts_with('.')
        || name.ends_with('~')
        || [".part", ".tmp"].iter().any(|ending| name.ends_with(ending))
}

struct Watcher {
    inotify: OwnedFd,
    root: PathBuf,
    /// Folders of datasets, and the root, by their watch.
    folders: HashMap<i32, PathBuf>,
    root_watch: i32,
}

impl Watcher {
    fn new(root: &Path) -> rustix::io::Result<Self> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC)?;
        let root_watch = inotify::add_watch(
            &inotify,
            root,
            WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR,
        )?;
        Ok(Self { inotify, root: root.to_owned(), folders: HashMap::new(), root_watch })
    }

    /// Until nobody takes arrivals any more.
    fn run(&mut self, arrivals: &mpsc::Sender<Arrival>) {
        if self.scan(arrivals).is_none() {
            return;
        }
        loop {
            let mut found: Vec<(i32, ReadFlags, String)> = Vec::new();
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) => {
                        let name = event
                            .file_name()
                            .map(|name| String::from_utf8_lossy(name.to_bytes()).into_owned());
                        found.push((event.wd(), event.events(), name.unwrap_or_default()));
                    }
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => {
                        tracing::error!("the inbox cannot be watched any more: {error}");
                        return;
                    }
                }
                if reader.is_buffer_empty() {
                    break;
                }
            }
            for (watch, flags, name) in found {
                let taken = if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                    self.scan(arrivals)
                } else if flags.contains(ReadFlags::IGNORED) {
                    self.folders.remove(&watch);
                    Some(())
                } else if watch == self.root_watch {
                    self.folder(&self.root.join(&name), arrivals)
                } else if let Some(folder) = self.folders.get(&watch) {
                    read(&folder.join(&name), arrivals)
                } else {
                    Some(())
                };
                if taken.is_none() {
                    return;
                }
            }
        }
    }

    /// Offers everything that is there; `None` if nobody takes it.
    fn scan(&mut self, arrivals: &mpsc::Sender<Arrival>) -> Option<()> {
        entries(&self.root).into_iter().try_for_each(|path| self.folder(&path, arrivals))
    }

    /// Watches the folder of a dataset, then offers what is in it: in this order nothing is missed.
    fn folder(&mut self, path: &Path, arrivals: &mpsc::Sender<Arrival>) -> Option<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if is_ignored(&name) || !path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            return Some(());
        }
        if let Err(error) = checked_name(&name) {
            tracing::warn!("the folder {name:?} of the inbox is ignored: {error}");
            return Some(());
        }
        let flags =
            WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        match inotify::add_watch(&self.inotify, path, flags) {
            Ok(watch) => {
                self.folders.insert(watch, path.to_owned());
            }
            Err(error) => tracing::error!("the folder {name} of the inbox cannot be watched: {error}"),
        }
        settled(entries(path)).into_iter().try_for_each(|path| read(&path, arrivals))
    }
}

/// Those that are not being written to. The others are offered when they are closed, which is watched by now.
fn settled(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let state = |path: &PathBuf| {
        let meta = path.symlink_metadata().ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    let is_recent = |(modified, _): (SystemTime, u64)| modified.elapsed().is_ok_and(|age| age < SETTLED);
    let before: Vec<_> = paths.iter().map(state).collect();
    if before.iter().flatten().copied().any(is_recent) {
        std::thread::sleep(SETTLED);
    }
    paths
        .into_iter()
        .zip(before)
        .filter(|(path, before)| state(path) == *before)
        .map(|(path, _)| path)
        .collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths
}

/// Reads a file and hands it on; `None` if nobody takes it.
fn read(path: &Path, arrivals: &mpsc::Sender<Arrival>) -> Option<()> {
    let text = |part: Option<&std::ffi::OsStr>| {
        String::from_utf8_lossy(part.unwrap_or_default().as_bytes()).into_owned()
    };
    let (dataset, file) = (text(path.parent().and_then(Path::file_name)), text(path.file_name()));
    if is_ignored(&file) {
        return Some(());
    }
    match contents(path) {
        Ok(Some(bytes)) => arrivals.blocking_send(Arrival { dataset, file, bytes }).ok(),
        Ok(None) => Some(()),
        Err(error) => {
            tracing::warn!(dataset, file, "the file in the inbox cannot be read: {error}");
            Some(())
        }
    }
}

/// The bytes of a regular file; `None` for anything else. A link could name any file that the engine may read, and a pipe
/// would make it wait.
fn contents(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = match OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path) {
        Ok(file) => file,
        // A link, or gone already.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Ok(None);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(std::io::Error::other(format!("it is larger than {LIMIT} bytes")));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whole_files_arrive_and_nothing_else() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("inbox");
        let folder = root.join("iris");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir_all(root.join("Bad Name")).unwrap();
        std::fs::write(root.join("Bad Name/a.csv"), "no").unwrap();
        std::fs::write(folder.join("before.csv"), "1").unwrap();
        let mut growing = std::fs::File::create(folder.join("growing.csv")).unwrap();
        let mut arrivals = watch(&root).unwrap();
        let mut next = async || {
            let arrival =
                tokio::time::timeout(Duration::from_secs(10), arrivals.recv()).await.unwrap().unwrap();
            format!("{}/{}={}", arrival.dataset, arrival.file, String::from_utf8(arrival.bytes).unwrap())
        };
        std::thread::sleep(SETTLED / 2);
        std::io::Write::write_all(&mut growing, b"all of it").unwrap();
        assert_eq!(next().await, "iris/before.csv=1");
        drop(growing);
        assert_eq!(next().await, "iris/growing.csv=all of it");
        for ignored in [".hidden", "a.csv.part", "a.tmp"] {
            std::fs::write(folder.join(ignored), "no").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", folder.join("link.csv")).unwrap();
        std::fs::create_dir(folder.join("deeper")).unwrap();
        // Moved into place under its name.
        std::fs::rename(folder.join("a.csv.part"), folder.join("moved.csv")).unwrap();
        assert_eq!(next().await, "iris/moved.csv=no");
        // Written in two parts: only the end counts.
        let mut file = std::fs::File::create(folder.join("slow.csv")).unwrap();
        std::io::Write::write_all(&mut file, b"first ").unwrap();
        std::io::Write::write_all(&mut file, b"second").unwrap();
        drop(file);
        assert_eq!(next().await, "iris/slow.csv=first second");
        // A folder that was not there, and one that comes with its files.
        std::fs::create_dir(root.join("wine")).unwrap();
        std::fs::create_dir(temporary.path().join("moved")).unwrap();
        std::fs::write(temporary.path().join("moved/x.csv"), "x").unwrap();
        std::fs::rename(temporary.path().join("moved"), root.join("moved")).unwrap();
        assert_eq!(next().await, "moved/x.csv=x");
        std::fs::write(root.join("wine/w.csv"), "w").unwrap();
        assert_eq!(next().await, "wine/w.csv=w");
    }
}
