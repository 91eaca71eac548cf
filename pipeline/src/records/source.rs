//! Where the records are read from, off the async threads: a database that somebody else writes, or one of our own in memory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

/// Readers at a time; further ones wait.
const READERS: usize = 4;
/// How long a reader waits for a writer that holds the database.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the records were not read.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    #[error("there are no records at {0}")]
    Missing(PathBuf),
    #[error("{0} holds no runs yet; an engine makes them when it starts")]
    NoView(PathBuf),
    #[error("cannot read {0}: {1}")]
    Unreadable(PathBuf, #[source] rusqlite::Error),
    #[error("the records cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// What was asked makes no sense; with the place.
    #[error(transparent)]
    Query(#[from] super::query::QueryError),
    /// So it is asked in no language at all, or for more than is told at once.
    #[error("{0}")]
    Asked(String),
    /// Nothing is known by this name or digest.
    #[error("{0}")]
    Unknown(String),
    #[error("the reader ended before it answered")]
    Ended,
}

/// Opens a database of records for reading, whether an engine writes it at the moment or not.
///
/// # Errors
/// [`RecordsError::Missing`], [`RecordsError::NoView`], [`RecordsError::Unreadable`].
pub fn open(path: &Path) -> Result<Connection, RecordsError> {
    if !path.is_file() {
        return Err(RecordsError::Missing(path.to_owned()));
    }
    let unreadable = |error| RecordsError::Unreadable(path.to_owned(), error);
    let connect = |name: &Path, flags| -> rusqlite::Result<(Connection, bool)> {
        let connection = Connection::open_with_flags(name, flags)?;
        connection.busy_timeout(PATIENCE)?;
        let there: i64 = connection.query_row(
            "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('run', 'link', 'metric')",
            [],
            |row| row.get(0),
        )?;
        Ok((connection, there == 3))
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let (connection, has_view) = match connect(path, flags) {
        Ok(opened) => opened,
        // A copy in a folder that may not be written: SQLite wants to make its shared index there. With no log left
        // beside it nothing is missed without.
        Err(error) => match immutable(path) {
            Some(name) => {
                connect(Path::new(&name), flags | OpenFlags::SQLITE_OPEN_URI).map_err(unreadable)?
            }
            None => return Err(unreadable(error)),
        },
    };
    if has_view { Ok(connection) } else { Err(RecordsError::NoView(path.to_owned())) }
}

fn immutable(path: &Path) -> Option<String> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let pending = std::fs::metadata(log).is_ok_and(|log| log.len() > 0);
    let mut url = url::Url::from_file_path(std::fs::canonicalize(path).ok()?).ok()?;
    url.set_query(Some("immutable=1"));
    (!pending).then(|| url.into())
}

/// The records that a server answers from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Source {
    place: Place,
    readers: Arc<Semaphore>,
}

#[derive(Debug, Clone)]
enum Place {
    File(PathBuf),
    Shared(Arc<Mutex<Connection>>),
}

impl Source {
    /// A file that somebody writes; every reader opens it anew, read-only.
    pub fn file(path: PathBuf) -> Self {
        Self { place: Place::File(path), readers: Arc::new(Semaphore::new(READERS)) }
    }

    /// A database of this process, in memory for example.
    pub fn shared(connection: Arc<Mutex<Connection>>) -> Self {
        Self { place: Place::Shared(connection), readers: Arc::new(Semaphore::new(READERS)) }
    }

    /// Reads on a thread of its own, in one transaction: the answer is of one moment.
    ///
    /// # Errors
    /// Those of [`open`] and of `read`.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, RecordsError> + Send + 'static,
    ) -> Result<T, RecordsError> {
        // Owned: a caller that goes away while its thread still reads does not make room for another.
        let permit = self.readers.clone().acquire_owned().await.map_err(|_| RecordsError::Ended)?;
        let place = self.place.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "SQLite blocks, and this is no request path of the runner"
        )]
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            match place {
                Place::File(path) => at_one_moment(&open(&path)?, read),
                Place::Shared(connection) => {
                    at_one_moment(&connection.lock().unwrap_or_else(PoisonError::into_inner), read)
                }
            }
        });
        reading.await.map_err(|_| RecordsError::Ended)?
    }
}

fn at_one_moment<T>(
    connection: &Connection,
    read: impl FnOnce(&Connection) -> Result<T, RecordsError>,
) -> Result<T, RecordsError> {
    let transaction = connection.unchecked_transaction()?;
    read(&transaction)
}
