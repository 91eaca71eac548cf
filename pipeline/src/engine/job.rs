//! Jobs: a process that gets one event, runs as long as it needs to, and posts its answers itself.
//!
//! A job is a row before it is a process, made in the same transaction that ends its delivery, under a name that follows from the
//! event: a second delivery of the same event finds it. Jobs run in the order of their rows, a fixed number at a time. One that was running
//! when the engine ended is started again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Engine;
use super::deliveries::{self, Accepted, Due, Kind, now};
use super::ledger::LedgerError;
use super::process::{Process, describe};
use super::router::Router;
use super::supervise::Report;
use crate::event::{Event, REVISION, hex};
use crate::manifest::JobSink;
use crate::store::checked_name;

/// Added to the niceness of jobs: requests go first.
const NICE: i32 = 10;
/// The pause before the second attempt; doubled for each further one, up to the second.
const RESTART: Duration = Duration::from_secs(1);
const SLOWEST_RESTART: Duration = Duration::from_secs(60);
/// Bytes of what is quoted from an event, characters of an error, in `training.failed`.
const SHORT: usize = 256;
const MAX_ERROR: usize = 4096;
/// Whose jobs must answer: those that these events start.
const ANSWERED: [&str; 2] = ["dataset.validated", "training.requested"];

/// What wakes the runner of jobs.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    /// There is another job.
    pub(crate) work: Notify,
    /// A job has ended, so a folder will have to go.
    ended: Notify,
}

/// A job that is to run.
#[derive(Debug, Clone)]
struct Job {
    name: String,
    sink: String,
    event: Event,
}

/// How a job ended.
#[derive(Debug)]
struct End {
    /// `done`, or the reason of `training.failed`: `exit`, `deadline`, `memory`.
    result: &'static str,
    error: String,
    cost: Cost,
}

#[derive(Debug, Default, Clone, Copy)]
struct Cost {
    cpu_s: f64,
    wall_s: f64,
    max_rss_mb: f64,
}

/// Makes the job of an event, and ends the delivery. The name: the sink's and the first 12 hex digits of the SHA-256 of the event's source, id,
/// for one that is delivered again on purpose its mark, and for a dead letter, which may be one of several, its delivery's number.
pub(crate) fn create(
    transaction: &Transaction,
    router: &Router,
    sink: &str,
    due: &Due,
) -> rusqlite::Result<Accepted> {
    let event = &due.event;
    let mut parts = vec![event.source.as_bytes(), event.id.as_bytes()];
    parts.extend(event.extensions.get(REVISION).map(String::as_bytes));
    let number = due.id.to_string();
    if due.kind == Kind::DeadLetter {
        parts.extend([b"dead", number.as_bytes()]);
    }
    let name = format!("{sink}-{}", &hex(&parts)[..12]);
    transaction
        .prepare_cached(
            "INSERT INTO job (name, sink, event, delivery, created) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
        )?
        .execute(params![name, sink, due.seq, due.id, now()])?;
    deliveries::done(transaction, router, due, None, None)
}

/// Runs jobs until the engine ends; then kills those that run, which are started again with the next engine.
pub(crate) async fn run_all(engine: Arc<Engine>) {
    let mut running: JoinSet<()> = JoinSet::new();
    loop {
        while running.try_join_next().is_some() {}
        let free = engine.settings.jobs.max(1).saturating_sub(running.len());
        match engine.ledger.write(move |transaction| take(transaction, free)).await {
            Ok(jobs) => {
                for job in jobs {
                    running.spawn(run(engine.clone(), job));
                }
            }
            Err(error) => {
                tracing::error!("jobs cannot be read: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                engine.jobs.work.notify_one();
            }
        }
        tokio::select! {
            () = engine.jobs.work.notified() => {}
            Some(_) = running.join_next(), if !running.is_empty() => {}
            () = engine.shutdown.begun() => break,
        }
    }
    while running.join_next().await.is_some() {}
}

/// At the start: what was running is waiting again. Gives how many.
pub(crate) fn recover(transaction: &Transaction) -> rusqlite::Result<usize> {
    transaction.execute("UPDATE job SET state = 'waiting' WHERE state = 'running'", [])
}

/// Takes the next jobs: from now on they run. One whose event cannot be read has ended.
fn take(transaction: &Transaction, limit: usize) -> rusqlite::Result<Vec<Job>> {
    let mut jobs = Vec::new();
    while jobs.len() < limit {
        let next: Option<(String, String, i64)> = transaction
            .prepare_cached(
                "SELECT name, sink, delivery FROM job WHERE state = 'waiting' ORDER BY created, rowid LIMIT 1",
            )?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((name, sink, delivery)) = next else { break };
        match deliveries::read(transaction, delivery) {
            Ok(due) => {
                transaction
                    .prepare_cached(
                        "UPDATE job SET state = 'running', folder = 1, started = ?2,
                         since = coalesce(since, (SELECT max(seq) FROM event)) WHERE name = ?1",
                    )?
                    .execute(params![name, now()])?;
                jobs.push(Job { name, sink, event: due.event });
            }
            Err(rusqlite::Error::FromSqlConversionFailure(_, _, error)) => {
                tracing::error!(job = name, "ended, the event cannot be read: {error}");
                transaction.execute(
                    "UPDATE job SET state = 'ended', ended = ?2, result = 'exit',
                     error = 'the event cannot be read: ' || ?3 WHERE name = ?1",
                    params![name, now(), error.to_string()],
                )?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(jobs)
}

/// Runs one job to its end, and records that.
async fn run(engine: Arc<Engine>, job: Job) {
    let sink = engine.job_sinks().find(|sink| sink.name == job.sink).cloned();
    let end = match sink {
        Some(sink) => attempts(&engine, &job, &sink).await,
        None => Some(End {
            result: "exit",
            error: format!("the job {} is no longer in the manifests", job.sink),
            cost: Cost::default(),
        }),
    };
    // The engine ends: the job runs again.
    let Some(end) = end else { return };
    if end.result == "done" {
        tracing::info!(job = job.name, "ended after {:.1} s", end.cost.wall_s);
    } else {
        tracing::warn!(job = job.name, "failed ({}): {}", end.result, end.error);
    }
    let router = engine.router.clone();
    let model = model_of(&engine, &job);
    let end = Arc::new(end);
    // That a job has ended must not be forgotten because the disk is full for a while.
    loop {
        let (job, router, model, end) = (job.clone(), router.clone(), model.clone(), end.clone());
        let written =
            engine.ledger.write(move |transaction| finish(transaction, &router, &job, &model, &end)).await;
        match written {
            Ok(accepted) => {
                engine.wake(&accepted);
                break;
            }
            Err(LedgerError::Gone) => return,
            Err(error) => {
                tracing::error!("the end of a job cannot be recorded: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    engine.jobs.ended.notify_one();
}

/// The model that a job trains: the event's, the one that its manifest sets, or that with its name.
fn model_of(engine: &Engine, job: &Job) -> String {
    let given = job.event.object();
    let set = || engine.job_sinks().find(|sink| sink.name == job.sink)?.run.env.get("BATON_MODEL").cloned();
    let asked = given.get("model").and_then(Value::as_str).map(str::to_owned);
    asked.or_else(set).filter(|name| checked_name(name).is_ok()).unwrap_or_else(|| job.sink.clone())
}

/// All attempts; `None` if the engine ends meanwhile.
async fn attempts(engine: &Arc<Engine>, job: &Job, sink: &JobSink) -> Option<End> {
    let deadline = Instant::now() + sink.deadline;
    let mut cost = Cost::default();
    let mut pause = RESTART;
    for attempt in 0..=sink.backoff_limit {
        let name = job.name.clone();
        let counted = engine.ledger.write(move |transaction| {
            transaction.execute("UPDATE job SET attempts = attempts + 1 WHERE name = ?1", [name])
        });
        if let Err(error) = counted.await {
            tracing::error!(job = job.name, "{error}");
        }
        let (result, error) = match start(engine, job, sink) {
            Ok(process) => watch(engine, &process, deadline, &mut cost).await?,
            Err(error) => ("exit", format!("{} cannot be started: {error}", job.name)),
        };
        if result == "done" || result == "deadline" || attempt == sink.backoff_limit {
            return Some(End { result, error, cost });
        }
        tracing::warn!(job = job.name, attempt, "{error}");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = engine.shutdown.begun() => return None,
        }
        pause = (pause * 2).min(SLOWEST_RESTART);
    }
    None
}

fn folder(data: &Path, name: &str) -> PathBuf {
    data.join("jobs").join(name)
}

/// Writes the event and starts the process.
fn start(engine: &Engine, job: &Job, sink: &JobSink) -> std::io::Result<Process> {
    let folder = folder(&engine.starter.data, &job.name);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("event"), job.event.to_json())?;
    // Part of the ids of its answers: those of a repetition are others. What is before the last hyphen is the name.
    let revision = job.event.extensions.get(REVISION).unwrap_or(&sink.run.revision).replace('-', ".");
    let variables = vec![
        ("K_EVENT_PATH", folder.display().to_string()),
        ("K_EXECUTION_MODE", "batch".to_owned()),
        ("K_REVISION", format!("{}-{revision}", sink.name)),
    ];
    engine.starter.start(&sink.run, &job.name, NICE, variables)
}

/// Waits for the end of one attempt, which it brings about at the deadline, for memory, or because the engine ends (`None`).
async fn watch(
    engine: &Engine,
    process: &Process,
    deadline: Instant,
    cost: &mut Cost,
) -> Option<(&'static str, String)> {
    let peak = AtomicU64::new(0);
    let killed = tokio::select! {
        _ = process.ended() => None,
        text = process.watch_memory(&peak) => Some(("memory", text)),
        () = tokio::time::sleep_until(deadline) => {
            process.terminate();
            Some(("deadline", "killed: its deadline has passed".to_owned()))
        }
        () = engine.shutdown.begun() => {
            process.kill();
            process.ended().await;
            return None;
        }
    };
    let report = tokio::select! {
        report = process.ended() => report,
        // It has a grace after its deadline, but the engine waits for nobody.
        () = engine.shutdown.begun() => {
            process.kill();
            process.ended().await
        }
    };
    cost.cpu_s += report.cpu_s;
    cost.wall_s += report.wall_s;
    cost.max_rss_mb = cost.max_rss_mb.max(peak.load(Ordering::Relaxed) as f64 / 1e6);
    if report.code == Some(0) && killed.is_none() {
        return Some(("done", String::new()));
    }
    let (result, text) = killed.unwrap_or_else(|| ("exit", describe_end(&report)));
    Some((result, format!("{text}\n{}", process.last_words()).trim().to_owned()))
}

fn describe_end(report: &Report) -> String {
    format!("the job {}", describe(report))
}

/// Records the end; and says that a training failed if the job did not say how it went.
fn finish(
    transaction: &Transaction,
    router: &Router,
    job: &Job,
    model: &str,
    end: &End,
) -> rusqlite::Result<Accepted> {
    let cost = end.cost;
    transaction.execute(
        "UPDATE job SET state = 'ended', ended = ?2, result = ?3, error = nullif(?4, ''), cpu_s = ?5, wall_s = ?6, max_rss_mb = ?7
         WHERE name = ?1",
        params![job.name, now(), end.result, end.error, cost.cpu_s, cost.wall_s, cost.max_rss_mb],
    )?;
    if !job.event.short_kind().is_some_and(|kind| ANSWERED.contains(&kind)) || has_answered(transaction, job)?
    {
        return Ok(Accepted::default());
    }
    let (reason, error) = match end.result {
        "done" => ("lost", "the job ended, but never said how it went".to_owned()),
        reason => (reason, end.error.clone()),
    };
    let given = job.event.object();
    // Of an event that may say anything only what is as it should be: this one must be fit to be stored.
    let short = |name: &str| given.get(name)?.as_str().filter(|text| text.len() <= SHORT);
    let data = json!({
        "run": job.event.run(),
        "model": model,
        "dataset": short("dataset"),
        "dataset_digest": short("digest").or(short("dataset_digest")),
        "reason": reason,
        "error": error.chars().take(MAX_ERROR).collect::<String>(),
        "cost": {"cpu_s": cost.cpu_s, "wall_s": cost.wall_s, "max_rss_mb": cost.max_rss_mb},
    });
    let id = hex(&[job.name.as_bytes(), b"lost"]);
    let failed = Event::new("/baton/engine", &id, "training.failed", model, &job.event.run(), data);
    deliveries::accept_for_job(transaction, router, &failed, &job.name)
}

/// Whether a training of this run was said to have ended since the job was started, by the job or by somebody who is no other job.
fn has_answered(connection: &Connection, job: &Job) -> rusqlite::Result<bool> {
    connection
        .query_row(
            "SELECT 1 FROM event WHERE run = ?1 AND type IN ('dev.baton.training.finished.v1', 'dev.baton.training.failed.v1')
             AND seq > (SELECT since FROM job WHERE name = ?2)
             AND (source = '/baton/jobs/' || ?3 OR source NOT LIKE '/baton/jobs/%' AND source <> '/baton/engine') LIMIT 1",
            params![job.event.run(), job.name, job.sink],
            |_| Ok(()),
        )
        .optional()
        .map(|found| found.is_some())
}

/// Removes the folders and logs of jobs that ended long enough ago, and sleeps until the next is due.
pub(crate) async fn clean(engine: Arc<Engine>) {
    loop {
        let keep = |sink: &str| {
            let sink = engine.job_sinks().find(|known| known.name == sink);
            sink.map_or(0, |sink| i64::try_from(sink.keep.as_millis()).unwrap_or(i64::MAX))
        };
        let ended = engine.ledger.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT name, sink, ended FROM job WHERE folder = 1 AND state = 'ended' ORDER BY ended",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<rusqlite::Result<Vec<(String, String, i64)>>>()
        });
        let mut next = None;
        for (name, sink, ended) in ended.await.unwrap_or_default() {
            let goes = ended.saturating_add(keep(&sink));
            if goes > now() {
                next = Some(next.map_or(goes, |other: i64| other.min(goes)));
                continue;
            }
            let data = &engine.starter.data;
            let log = data.join("logs").join(format!("{name}.log"));
            let _ = std::fs::remove_dir_all(folder(data, &name));
            let _ = std::fs::remove_file(log.with_added_extension("1"));
            let _ = std::fs::remove_file(log);
            let removed = engine.ledger.write(move |transaction| {
                transaction.execute("UPDATE job SET folder = 0 WHERE name = ?1", [name])
            });
            if let Err(error) = removed.await {
                tracing::error!("{error}");
            }
        }
        tokio::select! {
            () = sleep_until(next) => {}
            () = engine.jobs.ended.notified() => {}
            () = engine.shutdown.begun() => return,
        }
    }
}

/// Sleeps until a time in milliseconds since 1970; for ever if there is none. Wakes early if the clock was set back or the time is far off.
pub(crate) async fn sleep_until(time: Option<i64>) {
    const FAR: u64 = 24 * 3600 * 1000;
    match time {
        Some(time) => {
            let left = u64::try_from(time.saturating_sub(now())).unwrap_or(0).min(FAR);
            tokio::time::sleep(Duration::from_millis(left)).await;
        }
        None => std::future::pending().await,
    }
}

/// Jobs that run or wait, and those that ended last, for `/v1/functions`.
pub(crate) fn list(connection: &Connection, sink: &JobSink) -> rusqlite::Result<Value> {
    let jobs = connection
        .prepare_cached(
            "SELECT job.name, state, attempts, job.created, started, ended, result, error, cpu_s, wall_s, max_rss_mb, event.source, event.id, event.run
             FROM job JOIN event ON event.seq = job.event WHERE sink = ?1
             ORDER BY state = 'ended', job.created DESC LIMIT 50",
        )?
        .query_map([&sink.name], |row| {
            Ok(json!({
                "name": row.get::<_, String>(0)?,
                "state": row.get::<_, String>(1)?,
                "attempts": row.get::<_, i64>(2)?,
                "created": time(row.get(3)?),
                "started": time(row.get(4)?),
                "ended": time(row.get(5)?),
                "result": row.get::<_, Option<String>>(6)?,
                "error": row.get::<_, Option<String>>(7)?,
                "cost": {
                    "cpu_s": row.get::<_, Option<f64>>(8)?,
                    "wall_s": row.get::<_, Option<f64>>(9)?,
                    "max_rss_mb": row.get::<_, Option<f64>>(10)?,
                },
                "event": {"source": row.get::<_, String>(11)?, "id": row.get::<_, String>(12)?},
                "run": row.get::<_, String>(13)?,
            }))
        })?
        .collect::<rusqlite::Result<Vec<Value>>>()?;
    Ok(json!({"kind": "job", "name": sink.name, "revision": sink.run.revision, "jobs": jobs}))
}

/// Milliseconds since 1970 as RFC 3339.
pub(crate) fn time(milliseconds: Option<i64>) -> Option<String> {
    jiff::Timestamp::from_millisecond(milliseconds?).ok().map(|time| time.to_string())
}
