//! The database of the engine: one thread that writes, in groups, and one that reads.
//!
//! SQLite in WAL mode with `synchronous=FULL`: what was committed is on disk. A commit costs an fsync, so everything that
//! waits when one begins goes into the same transaction; a command that fails is rolled back to its savepoint and harms no other.
//! The queues are bounded: who wants to write waits.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use rustix::fs::FlockOperation;
use tokio::sync::{mpsc, oneshot};

use crate::event::hex;
use crate::records;

/// Name of the database in the data folder.
pub const DATABASE: &str = "pipeline.sqlite";
/// Number of the form of `schema.sql`, in SQLite's user_version; another one is not opened.
const FORMAT: i64 = 1;
/// Commands of one transaction at most.
const GROUP: usize = 128;
/// Commands and queries that wait at most.
const QUEUE: usize = 256;

/// Why the database did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// Another engine has this folder.
    #[error("{} is in use by another engine; stop it, or choose another folder with --data", .0.display())]
    InUse(PathBuf),
    #[error("cannot use {}: {reason}", path.display())]
    Folder { path: PathBuf, reason: String },
    #[error("the database refused: {0}")]
    Database(String),
    /// Its thread has ended, which happens only at the end of the process.
    #[error("the database did not answer")]
    Gone,
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        LedgerError::Database(error.to_string())
    }
}

type Finish = Box<dyn FnOnce(Result<(), LedgerError>) + Send>;
type Write = Box<dyn FnOnce(Result<&Transaction, LedgerError>) -> Finish + Send>;
type Read = Box<dyn FnOnce(&Connection) + Send>;

/// The database; cheap to clone. Its threads end with the last clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    writer: mpsc::Sender<Write>,
    reader: mpsc::Sender<Read>,
}

/// The data folder: locked as long as this lives.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    /// Tells this folder from every other, also from its own copy elsewhere.
    pub(crate) id: String,
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is not there, and locks it.
    ///
    /// # Errors
    /// [`LedgerError::InUse`], [`LedgerError::Folder`].
    pub(crate) fn lock(path: &Path) -> Result<Self, LedgerError> {
        let failed =
            |error: std::io::Error| LedgerError::Folder { path: path.to_owned(), reason: error.to_string() };
        // Events and the output of functions are their owner's business.
        for name in ["logs", "jobs"] {
            DirBuilder::new().recursive(true).mode(0o700).create(path.join(name)).map_err(failed)?;
        }
        let path = std::fs::canonicalize(path).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(|error| LedgerError::Folder { path: path.clone(), reason: error.to_string() })?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LedgerError::InUse(path)),
            Err(error) => return Err(LedgerError::Folder { path, reason: error.to_string() }),
        }
        Ok(Self { id: String::new(), path, _lock: lock })
    }
}

impl Ledger {
    /// Opens the database of a folder and gives the folder its id.
    ///
    /// # Errors
    /// [`LedgerError::Database`], [`LedgerError::Folder`] if it is of another version of Baton.
    pub(crate) fn open(folder: &mut Folder) -> Result<Self, LedgerError> {
        let path = folder.path.join(DATABASE);
        let mut writing = Connection::open(&path)?;
        writing.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 10000;",
        )?;
        check_format(&writing, &folder.path)?;
        // All of it or nothing: a database without its format would be another version's.
        let making = writing.transaction()?;
        records::create_tables(&making)?;
        making.execute_batch(include_str!("schema.sql"))?;
        making.pragma_update(None, "user_version", FORMAT)?;
        making.commit()?;
        folder.id = id_of(&writing, &folder.path)?;
        let reading = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        reading.execute_batch("PRAGMA busy_timeout = 10000;")?;
        let (writer, commands) = mpsc::channel(QUEUE);
        let (reader, queries) = mpsc::channel(QUEUE);
        let spawned = |error: std::io::Error| LedgerError::Database(format!("no thread: {error}"));
        std::thread::Builder::new()
            .name("baton-ledger".into())
            .spawn(move || write_all(&mut writing, commands))
            .map_err(spawned)?;
        std::thread::Builder::new()
            .name("baton-query".into())
            .spawn(move || read_all(&reading, queries))
            .map_err(spawned)?;
        Ok(Self { writer, reader })
    }

    /// Runs a command in a transaction; comes back when that is on disk. A command that fails changes nothing.
    ///
    /// # Errors
    /// The command's own, or the commit's.
    pub async fn write<T: Send + 'static>(
        &self,
        command: impl FnOnce(&Transaction) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let write: Write = Box::new(move |transaction| {
            let result = transaction
                .and_then(|transaction| in_savepoint(transaction, command).map_err(LedgerError::from));
            Box::new(move |committed| {
                let _ = answer.send(result.and_then(|value| committed.map(|()| value)));
            })
        });
        self.writer.send(write).await.map_err(|_| LedgerError::Gone)?;
        answered.await.map_err(|_| LedgerError::Gone)?
    }

    /// Runs a query on the read-only connection; it sees everything that was committed before.
    ///
    /// # Errors
    /// The query's own.
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let read: Read = Box::new(move |connection| {
            let _ = answer.send(query(connection));
        });
        self.reader.send(read).await.map_err(|_| LedgerError::Gone)?;
        Ok(answered.await.map_err(|_| LedgerError::Gone)??)
    }
}

fn check_format(connection: &Connection, folder: &Path) -> Result<(), LedgerError> {
    let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let is_new = !connection.table_exists(None, "delivery")?;
    if is_new || format == FORMAT {
        return Ok(());
    }
    Err(LedgerError::Folder {
        path: folder.to_owned(),
        reason: format!(
            "its {DATABASE} is of another version of Baton (format {format}, this one has {FORMAT}); start with another \
             --data, and read the old one with `baton history --data`"
        ),
    })
}

fn id_of(connection: &Connection, path: &Path) -> rusqlite::Result<String> {
    let id: Option<String> = connection
        .query_row("SELECT value FROM engine WHERE name = 'id'", [], |row| row.get(0))
        .optional()?;
    let id = match id {
        Some(id) => id,
        None => {
            let id = uuid::Uuid::new_v4().simple().to_string();
            connection.execute("INSERT INTO engine (name, value) VALUES ('id', ?1)", params![id])?;
            id
        }
    };
    Ok(hex(&[id.as_bytes(), path.as_os_str().as_encoded_bytes()])[..16].to_owned())
}

fn in_savepoint<T>(
    transaction: &Transaction,
    command: impl FnOnce(&Transaction) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    transaction.execute_batch("SAVEPOINT command")?;
    let result = command(transaction);
    transaction.execute_batch(match result {
        Ok(_) => "RELEASE command",
        Err(_) => "ROLLBACK TO command; RELEASE command",
    })?;
    result
}

fn write_all(connection: &mut Connection, mut commands: mpsc::Receiver<Write>) {
    while let Some(first) = commands.blocking_recv() {
        let transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => transaction,
            Err(error) => {
                tracing::error!("no transaction can be begun: {error}");
                first(Err(error.into()))(Ok(()));
                continue;
            }
        };
        let mut finishes = vec![first(Ok(&transaction))];
        while finishes.len() < GROUP
            && let Ok(next) = commands.try_recv()
        {
            finishes.push(next(Ok(&transaction)));
        }
        let committed = transaction.commit().map_err(LedgerError::from);
        if let Err(error) = &committed {
            tracing::error!(commands = finishes.len(), "a transaction could not be committed: {error}");
        }
        for finish in finishes {
            finish(committed.clone());
        }
    }
}

fn read_all(connection: &Connection, mut queries: mpsc::Receiver<Read>) {
    while let Some(query) = queries.blocking_recv() {
        query(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(connection: &Connection) -> rusqlite::Result<i64> {
        connection.query_row("SELECT count(*) FROM engine", [], |row| row.get(0))
    }

    #[tokio::test]
    async fn a_command_that_fails_changes_nothing_and_harms_no_other() {
        let temporary = tempfile::tempdir().unwrap();
        let mut folder = Folder::lock(temporary.path()).unwrap();
        let ledger = Ledger::open(&mut folder).unwrap();
        let before = ledger.read(count).await.unwrap();
        let commands = (0..100).map(|number| {
            ledger.write(move |transaction| {
                transaction.execute("INSERT INTO engine VALUES (?1, '')", [number.to_string()])?;
                // Half of them break a rule after they have written.
                if number % 2 == 0 {
                    transaction.execute("INSERT INTO engine VALUES ('id', '')", [])?;
                }
                Ok(())
            })
        });
        let results = futures_util::future::join_all(commands).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 50);
        assert_eq!(ledger.read(count).await.unwrap(), before + 50);
    }

    #[test]
    fn a_database_of_another_form_is_left_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let open = || Ledger::open(&mut Folder::lock(temporary.path()).unwrap());
        drop(open().unwrap());
        open().expect("its own");
        let connection = Connection::open(temporary.path().join(DATABASE)).unwrap();
        connection.pragma_update(None, "user_version", FORMAT + 1).unwrap();
        let error = open().expect_err("another version's").to_string();
        assert!(error.contains("another version of Baton (format 2,"), "{error}");
    }

    #[test]
    fn a_folder_is_locked_once_and_keeps_its_id() {
        let temporary = tempfile::tempdir().unwrap();
        let mut folder = Folder::lock(temporary.path()).unwrap();
        drop(Ledger::open(&mut folder).unwrap());
        let id = folder.id.clone();
        assert_eq!(id.len(), 16);
        assert!(matches!(Folder::lock(temporary.path()), Err(LedgerError::InUse(_))));
        drop(folder);
        let mut folder = Folder::lock(temporary.path()).unwrap();
        drop(Ledger::open(&mut folder).unwrap());
        assert_eq!(folder.id, id);
    }
}
