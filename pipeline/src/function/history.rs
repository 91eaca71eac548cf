//! `fn history`: the records of a cluster, behind a trigger that takes every event.
//!
//! What is durable is in the store: an event is an entry that is created if absent, so a redelivery, or two instances, write
//! the same once. The database is an index over these entries; an instance makes it anew when it starts and completes it with
//! what it gets. Behind several instances each knows what came to itself since its start, hence `maxScale: 1` in the manifests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use rusqlite::{Connection, ErrorCode, params};
use serde_json::{Value, json};

use super::{Call, Context, Failure};
use crate::event::{Event, hex};
use crate::records::{self, Source};
use crate::store::Store;

/// Entries of the store that are read at the same time at the start.
const READS: usize = 32;
/// Where the store keeps events, and those that were given up with the reason.
const EVENTS: &str = "events";
const DEAD: &str = "dead";
/// What Knative adds to an event that it gives up: where it went, the status, the answer.
const ERROR: [&str; 3] = ["knativeerrordest", "knativeerrorcode", "knativeerrordata"];

/// Why there are no records.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("the records cannot be opened at {0}: {1}")]
    Open(String, #[source] rusqlite::Error),
    #[error("the records cannot be written: {0}")]
    Write(#[from] rusqlite::Error),
    #[error("the events cannot be read from the store: {0}")]
    Store(#[from] crate::store::StoreError),
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
}

/// Keeps an event in the store and answers nothing. [`serve`] is the same with the index and the questions to it.
pub fn history(context: Arc<Context>, event: Event) -> Call {
    Box::pin(async move {
        keep(&context.store, &event).await?;
        Ok(None)
    })
}

/// Takes events at `/` and dead letters at `/dead`, and answers `/v1/runs`, `/v1/runs/RUN`, `/v1/lineage/DIGEST` and
/// `/v1/deliveries`, until SIGTERM or SIGINT. `database` is a file, or `:memory:`.
///
/// # Errors
/// [`HistoryError`], before anything is served.
pub async fn serve(address: SocketAddr, context: Arc<Context>, database: &str) -> Result<(), HistoryError> {
    let index = Index::open(database)?;
    let read = index.restore(&context.store).await?;
    tracing::info!(events = read, "the records are restored from the store");
    Ok(super::server::listen(address, routes(context.store.clone(), index)).await?)
}

fn routes(store: Store, index: Index) -> Router {
    let questions = records::api::routes_of(Source::shared(index.connection.clone()));
    Router::new()
        .route("/", post(take))
        .route("/dead", post(take_dead))
        .route("/v1/deliveries", get(deliveries))
        .with_state((store, index))
        .merge(questions)
}

async fn take(State((store, index)): State<(Store, Index)>, headers: HeaderMap, body: Bytes) -> Response {
    super::server::answer(&headers, &body, async |event| {
        keep(&store, &event).await?;
        index.add(&event).map_err(|error| Failure::Later(error.to_string()))?;
        Ok(None)
    })
    .await
}

/// A dead letter is the event that was given up, with the reason in its attributes: the event is kept as any other, the reason
/// beside it.
async fn take_dead(
    State((store, index)): State<(Store, Index)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    super::server::answer(&headers, &body, async |letter| {
        let mut event = letter.clone();
        for name in ERROR {
            event.extensions.remove(name);
        }
        keep(&store, &event).await?;
        store.create_entry(DEAD, &dead_key(&letter), &letter).await?;
        let added = index.add(&event).and_then(|()| index.add_dead(&letter));
        added.map_err(|error| Failure::Later(error.to_string()))?;
        Ok(None)
    })
    .await
}

/// `{"deliveries": [...]}`: only dead ones are known here, the newest first, at most 1000.
async fn deliveries(
    State((_, index)): State<(Store, Index)>,
    Query(asked): Query<std::collections::BTreeMap<String, String>>,
) -> Response {
    if asked.get("state").is_some_and(|state| state != "dead") {
        return Json(json!({ "deliveries": [] })).into_response();
    }
    match index.dead() {
        Ok(deliveries) => Json(json!({ "deliveries": deliveries })).into_response(),
        Err(error) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": error.to_string() }))).into_response()
        }
    }
}

async fn keep(store: &Store, event: &Event) -> Result<(), Failure> {
    let key = hex(&[event.source.as_bytes(), event.id.as_bytes()]);
    store.create_entry(EVENTS, &key, event).await?;
    Ok(())
}

fn dead_key(letter: &Event) -> String {
    let destination = letter.attribute(ERROR[0]).unwrap_or_default();
    hex(&[letter.source.as_bytes(), letter.id.as_bytes(), destination.as_bytes()])
}

/// The database over the entries of the store.
#[derive(Debug, Clone)]
struct Index {
    connection: Arc<Mutex<Connection>>,
}

impl Index {
    fn open(database: &str) -> Result<Self, HistoryError> {
        let open = || {
            let connection = Connection::open(database)?;
            let healthy: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if healthy != "ok" {
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
                    Some(healthy),
                ));
            }
            // It can be made anew from the store at any time.
            connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;")?;
            records::create_tables(&connection)?;
            connection.execute_batch(
                "CREATE TABLE IF NOT EXISTS dead_letter (
                    key TEXT PRIMARY KEY, source TEXT NOT NULL, id TEXT NOT NULL, type TEXT NOT NULL, run TEXT NOT NULL,
                    destination TEXT, code TEXT, data TEXT
                );",
            )?;
            Ok(connection)
        };
        let connection = open().or_else(|error| {
            let damaged = [Some(ErrorCode::DatabaseCorrupt), Some(ErrorCode::NotADatabase)];
            if !damaged.contains(&error.sqlite_error_code()) {
                return Err(error);
            }
            tracing::warn!(
                database,
                "the index is damaged ({error}); it is kept as .damaged, and made anew from the store"
            );
            for ending in ["", "-wal", "-shm"] {
                // The last two may not be there; what cannot be moved fails again.
                let _ = std::fs::rename(format!("{database}{ending}"), format!("{database}.damaged{ending}"));
            }
            open()
        });
        let connection = connection.map_err(|error| HistoryError::Open(database.to_owned(), error))?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    /// Adds all entries of the store that the database lacks; gives their number.
    async fn restore(&self, store: &Store) -> Result<usize, HistoryError> {
        let mut count = 0;
        for (folder, add) in
            [(EVENTS, Index::add as fn(&Index, &Event) -> rusqlite::Result<()>), (DEAD, Index::add_dead)]
        {
            let keys = store.entries(folder).await?;
            let mut entries = futures_util::stream::iter(keys)
                .map(|key| async move { (store.read_entry::<Value>(folder, &key).await, key) })
                .buffered(READS);
            while let Some((entry, key)) = entries.next().await {
                let event = match entry {
                    Ok(Some(entry)) => {
                        Event::from_json(entry.to_string().as_bytes()).map_err(|error| error.to_string())
                    }
                    Ok(None) => continue,
                    Err(error) if error.is_transient() => return Err(error.into()),
                    Err(error) => Err(error.to_string()),
                };
                match event {
                    Ok(event) => add(self, &event)?,
                    // One damaged entry must not hide all others.
                    Err(error) => tracing::warn!(folder, key, "an entry is left out: {error}"),
                }
                count += 1;
            }
        }
        Ok(count)
    }

    fn add(&self, event: &Event) -> rusqlite::Result<()> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction()?;
        records::insert(&transaction, event, None)?;
        transaction.commit()
    }

    fn add_dead(&self, letter: &Event) -> rusqlite::Result<()> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let [destination, code, data] = ERROR.map(|name| letter.attribute(name));
        connection.execute(
            "INSERT OR IGNORE INTO dead_letter (key, source, id, type, run, destination, code, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                dead_key(letter),
                letter.source,
                letter.id,
                letter.kind,
                letter.run(),
                destination,
                code,
                data
            ],
        )?;
        Ok(())
    }

    fn dead(&self) -> rusqlite::Result<Vec<Value>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection.prepare_cached(
            "SELECT source, id, type, run, destination, code, data FROM dead_letter ORDER BY rowid DESC LIMIT 1000",
        )?;
        let text = |row: &rusqlite::Row, index| row.get::<_, Option<String>>(index);
        let rows = statement.query_map([], |row| {
            Ok(json!({ "state": "dead", "source": text(row, 0)?, "id": text(row, 1)?, "type": text(row, 2)?,
                "run": text(row, 3)?, "destination": text(row, 4)?, "code": text(row, 5)?, "error": text(row, 6)? }))
        })?;
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An instance on a port of its own; ends with the test's runtime.
    async fn start(store: &Store) -> (Index, String) {
        let index = Index::open(":memory:").unwrap();
        index.restore(store).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let routes = routes(store.clone(), index.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (index, address)
    }

    fn client() -> reqwest::Client {
        reqwest::Client::builder().no_proxy().build().unwrap()
    }

    async fn post(address: &str, event: &Event) -> u16 {
        let (headers, body) = event.to_http();
        client().post(address).headers(headers).body(body).send().await.unwrap().status().as_u16()
    }

    async fn get(address: &str) -> Value {
        client().get(address).send().await.unwrap().json().await.unwrap()
    }

    fn event(id: &str, kind: &str) -> Event {
        let data = json!({ "model": "iris", "metrics": { "accuracy": 0.9 } });
        Event::new("/test", id, kind, "iris", "0123456789abcdef", data)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn events_survive_the_instance_that_took_them_and_come_once() {
        let store = Store::open("memory:///").unwrap();
        let (_, address) = start(&store).await;
        let (first, second) = (event("1", "training.started"), event("2", "training.finished"));
        for event in [&second, &first, &second] {
            assert_eq!(post(&address, event).await, 204);
        }
        let (_, other) = start(&store).await;
        for address in [&address, &other] {
            let runs = get(&format!("{address}/v1/runs?where=accuracy>0.8")).await;
            assert_eq!(runs["runs"][0]["state"], "trained", "{runs}");
            assert_eq!(runs["runs"][0]["events"], 2);
            let run = get(&format!("{address}/v1/runs/0123456789abcdef")).await;
            assert_eq!(run["events"].as_array().unwrap().len(), 2);
        }
        assert_eq!(store.entries(EVENTS).await.unwrap().len(), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn dead_letters_are_kept_with_their_reason_and_the_event_without() {
        let store = Store::open("memory:///").unwrap();
        let (_, address) = start(&store).await;
        let mut letter = event("1", "training.started");
        letter.extensions.insert(ERROR[0].to_owned(), "http://train/".to_owned());
        letter.extensions.insert(ERROR[1].to_owned(), "503".to_owned());
        assert_eq!(post(&format!("{address}/dead"), &letter).await, 204);
        letter.extensions.insert(ERROR[0].to_owned(), "http://other/".to_owned());
        assert_eq!(post(&format!("{address}/dead"), &letter).await, 204);
        let (_, other) = start(&store).await;
        for address in [&address, &other] {
            let dead = get(&format!("{address}/v1/deliveries?state=dead")).await;
            assert_eq!(dead["deliveries"].as_array().unwrap().len(), 2, "{dead}");
            assert_eq!(dead["deliveries"][0]["code"], "503");
            assert!(get(&format!("{address}/v1/deliveries?state=pending")).await["deliveries"] == json!([]));
            let run = get(&format!("{address}/v1/runs/0123456789abcdef")).await;
            assert_eq!(run["events"], json!([event_as_stored(&letter)]));
        }
    }

    fn event_as_stored(letter: &Event) -> Value {
        let mut event = letter.clone();
        event.extensions.retain(|name, _| !ERROR.contains(&name.as_str()));
        json!(event)
    }

    #[test]
    fn a_damaged_index_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.sqlite");
        let path = path.to_str().unwrap();
        drop(Index::open(path).unwrap());
        let whole = std::fs::read(path).unwrap();
        let torn: Vec<u8> = whole[..4096].iter().copied().chain(vec![7; whole.len() - 4096]).collect();
        for bytes in [b"no database".repeat(1000), torn] {
            std::fs::write(path, &bytes).unwrap();
            Index::open(path).unwrap().add(&event("1", "training.started")).unwrap();
            assert_eq!(std::fs::read(format!("{path}.damaged")).unwrap(), bytes);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_entry_hides_no_other() {
        let store = Store::open("memory:///").unwrap();
        let good = event("1", "training.started");
        keep(&store, &good).await.unwrap();
        store.create_entry(EVENTS, "00", &json!({ "no": "event" })).await.unwrap();
        let (_, address) = start(&store).await;
        assert_eq!(get(&format!("{address}/v1/runs")).await["runs"].as_array().unwrap().len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_could_not_be_read_back_is_refused_and_mistakes_are_told() {
        let store = Store::open("memory:///").unwrap();
        let (_, address) = start(&store).await;
        let mut deep = event("deep", "training.started");
        let nested = (0..126).fold(json!(1), |inner, _| json!([inner]));
        deep.data = crate::event::Data::Json(json!([nested]).into());
        assert_eq!(post(&address, &deep).await, 400);
        assert!(store.entries(EVENTS).await.unwrap().is_empty());
        let answer = client().get(format!("{address}/v1/runs?where=cost>1")).send().await.unwrap();
        assert_eq!(answer.status(), 400);
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["column"], 1);
        for path in ["v1/runs/none", "v1/lineage/none", "v1/lineage/sha256:00000000"] {
            let answer = client().get(format!("{address}/{path}")).send().await.unwrap();
            assert_eq!(answer.status(), 404, "{path}");
        }
        assert_eq!(client().get(format!("{address}/v1/runs?limit=x")).send().await.unwrap().status(), 400);
    }
}
