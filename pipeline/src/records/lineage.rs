//! From a digest to all that is known of it: what it was made from, by whom, at what cost, and what was made from it.
//!
//! One step is enough: the run. Its document names every thing that went in and came out, so the graph around a digest is
//! that of the runs that name it. Rejected: walking on from there (other runs on the same code, and theirs), which soon is
//! everything.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RecordsError;
use super::seen::Part;
use super::view::{Past, as_it_was};

/// Runs that one answer holds, the newest of all.
const MAX_RUNS: usize = 200;
/// Versions of a dataset that are told before the one that a run used, the newest of all.
const MAX_EARLIER: usize = 20;
/// Hex digits that are enough to name a digest.
const MIN_PREFIX: usize = 8;

/// What roles say that a run only took note of something, and did not make or use it.
const BYSTANDER: &[&str] = &["replaced", "compared", "restored"];

/// What is known of one thing.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lineage {
    pub subject: Subject,
    /// The documents of the runs that made or used it, newest first.
    pub runs: Vec<Value>,
    /// Of the data of each run, by its digest: the versions of the dataset before, oldest first.
    pub earlier: BTreeMap<String, Vec<DatasetVersion>>,
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
    /// There are more runs than these.
    pub truncated: bool,
}

/// What was asked for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Subject {
    /// `digest`, `run`, `version`, `model` or `dataset`.
    pub kind: String,
    /// A digest in full, however short it was asked for.
    pub value: String,
    /// For a digest, what it is to the runs: `served`, `bundle`, `dataset`, `code`, `environment`, `report` ...
    pub roles: BTreeSet<String>,
}

/// A version of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetVersion {
    pub digest: String,
    pub file: Option<String>,
    pub rows: Option<u64>,
    /// The run that accepted it.
    pub run: String,
    pub started: Option<String>,
}

/// A thing or a run. `id` is its digest, `run:NAME` or `run:NAME/MODEL`; of several attempts at a model in one answer
/// `run:NAME/MODEL/BUNDLE`, with the first digits of the bundle that each made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub id: String,
    pub kind: String,
    pub label: String,
}

/// `from` stands before `to`, in the direction of time: what a run used points to it, and it to what it made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    pub from: String,
    pub to: String,
    pub relation: String,
}

/// Looks for a digest (`sha256:...`, or at least 8 of its hex digits), a run, `MODEL@VERSION`, a model or a dataset, in this order.
///
/// # Errors
/// [`RecordsError::Unknown`] if nothing is known by that name, or a shortened digest could be several.
pub fn find(connection: &Connection, subject: &str) -> Result<Lineage, RecordsError> {
    let (subject, mut rows) = rows(connection, subject, MAX_RUNS + 1)?;
    let truncated = rows.len() > MAX_RUNS;
    rows.truncate(MAX_RUNS);
    let past = match (&*subject.kind, subject.value.rsplit_once('@')) {
        ("version", Some((_, version))) => Some(Past::Version(version)),
        ("digest", _) => Some(Past::Digest(subject.value.trim_start_matches("sha256:"), BYSTANDER)),
        _ => None,
    };
    let mut known =
        connection.prepare_cached("SELECT document, run, model, bundle FROM run WHERE rowid = ?1")?;
    let mut runs = Vec::new();
    for row in rows {
        let (text, run, part): (Option<String>, String, Part) = known.query_row([row], |row| {
            Ok((row.get(0)?, row.get(1)?, Part { model: row.get(2)?, bundle: row.get(3)? }))
        })?;
        let shown: Option<Value> = text.and_then(|text| serde_json::from_str(&text).ok());
        let was = match &past {
            // All events of the run are read only for what its document says no more.
            Some(past) if !shown.as_ref().is_some_and(|document| past.is_told_by(document)) => {
                as_it_was(connection, &run, &part, shown.is_some(), past)?
            }
            _ => None,
        };
        runs.extend(was.or(shown));
    }
    let mut lineage =
        Lineage { subject, runs, earlier: BTreeMap::new(), nodes: Vec::new(), edges: Vec::new(), truncated };
    lineage.add_earlier(connection)?;
    lineage.draw();
    Ok(lineage)
}

type Found = (Subject, Vec<i64>);

/// The rows of the table `run` that made or used it, the newest first.
pub(super) fn rows(connection: &Connection, subject: &str, limit: usize) -> Result<Found, RecordsError> {
    match by_digest(connection, subject, limit)? {
        Some(found) => Ok(found),
        None => by_name(connection, subject, limit),
    }
}

fn by_digest(connection: &Connection, text: &str, limit: usize) -> Result<Option<Found>, RecordsError> {
    let text = &*text.to_ascii_lowercase();
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !is_hex || hex.len() < MIN_PREFIX || hex.len() > 64 {
        return match text.strip_prefix("sha256:") {
            Some(_) => Err(RecordsError::Unknown(format!(
                "{text:?} is no digest: sha256: and {MIN_PREFIX} to 64 of the digits 0-9 a-f"
            ))),
            None => Ok(None),
        };
    }
    // All digests with this beginning stand between it and it with a letter after `f`.
    let digests: Vec<String> = connection
        .prepare_cached("SELECT DISTINCT digest FROM link WHERE digest >= ?1 AND digest < ?1 || 'g' LIMIT 2")?
        .query_map([hex], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let digest = match &digests[..] {
        [digest] => digest,
        [] if text.starts_with("sha256:") || hex.len() == 64 => {
            return Err(RecordsError::Unknown(format!("no run knows {text}")));
        }
        [] => return Ok(None),
        _ => {
            return Err(RecordsError::Unknown(format!("several digests begin with {text}; give more of it")));
        }
    };
    let roles: BTreeSet<String> = connection
        .prepare_cached("SELECT DISTINCT role FROM link WHERE digest = ?1")?
        .query_map([digest], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    // What was only replaced or compared with is told only if nobody is known to have made it.
    let has_central = roles.iter().any(|role| !BYSTANDER.contains(&role.as_str()));
    let roles =
        roles.into_iter().filter(|role| !has_central || !BYSTANDER.contains(&role.as_str())).collect();
    // A link of a run's shared part is one of all its documents, and what a roll-back restored one of all its model's. What else a
    // model's part names is of an attempt that names it too; if none does, of one that made nothing, which may have no document.
    let rows = connection
        .prepare_cached(
            "SELECT DISTINCT run.rowid FROM link
             JOIN run ON run.run = link.run AND CASE
                 WHEN link.model = '' THEN run.document IS NOT NULL
                 WHEN link.role = 'restored' AND link.bundle = ''
                     THEN run.model = link.model AND run.document IS NOT NULL
                 ELSE run.model = link.model AND run.bundle = link.bundle END
             WHERE link.digest = ?1 AND (NOT ?2 OR link.role NOT IN ('replaced', 'compared', 'restored'))
                 AND (run.document IS NOT NULL OR NOT EXISTS (
                     SELECT 1 FROM link AS other WHERE other.digest = link.digest AND other.run = link.run
                         AND (other.model = '' OR other.model = link.model AND other.bundle <> '')
                         AND (NOT ?2 OR other.role NOT IN ('replaced', 'compared', 'restored'))))
             ORDER BY run.started DESC, run.run, run.model, run.since DESC, run.bundle LIMIT ?3",
        )?
        .query_map(params![digest, has_central, limit as i64], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let subject = Subject { kind: "digest".to_owned(), value: format!("sha256:{digest}"), roles };
    Ok(Some((subject, rows)))
}

fn by_name(connection: &Connection, name: &str, limit: usize) -> Result<Found, RecordsError> {
    let rows = |condition: &str, values: &[&str]| -> rusqlite::Result<Vec<i64>> {
        let sql = format!(
            "SELECT rowid FROM run WHERE document IS NOT NULL AND {condition}
             ORDER BY started DESC, run, model, since DESC, bundle LIMIT {limit}"
        );
        let mut statement = connection.prepare_cached(&sql)?;
        statement.query_map(rusqlite::params_from_iter(values), |row| row.get(0))?.collect()
    };
    let subject =
        |kind: &str| Subject { kind: kind.to_owned(), value: name.to_owned(), roles: BTreeSet::new() };
    let unknown = || {
        RecordsError::Unknown(format!(
            "nothing is known of {name:?}; a digest (sha256:... or {MIN_PREFIX} of its digits), a run, MODEL@VERSION, \
             a model or a dataset is looked for"
        ))
    };
    if name.is_empty() {
        return Err(unknown());
    }
    let run = rows("run = ?1", &[name])?;
    if !run.is_empty() {
        return Ok((subject("run"), run));
    }
    if let Some((model, version)) = name.rsplit_once('@') {
        let mut made = rows("model = ?1 AND json_extract(document, '$.version') = ?2", &[model, version])?;
        if made.is_empty() {
            // An attempt that was deployed again has several; its document has the last.
            let deployed =
                "model = ?1 AND (run, bundle) IN (SELECT run, coalesce(json_extract(body, '$.data.bundle.digest'), '')
                FROM event WHERE type = 'dev.baton.model.deployed.v1' AND coalesce(json_extract(body, '$.data.model'), subject) = ?1
                AND CAST(json_extract(body, '$.data.version') AS TEXT) = ?2)";
            made = rows(deployed, &[model, version])?;
        }
        return match made.is_empty() {
            false => Ok((subject("version"), made)),
            true => Err(RecordsError::Unknown(format!("no run made {name}"))),
        };
    }
    let model = rows("model = ?1", &[name])?;
    if !model.is_empty() {
        // Of a model, the run that made what was deployed last, whenever it began; if none did, the last.
        let served = connection
            .prepare_cached(
                "SELECT rowid FROM run
                 WHERE model = ?1 AND document IS NOT NULL AND json_extract(document, '$.state') = 'deployed'
                 ORDER BY json_extract(document, '$.generation') DESC, json_extract(document, '$.since') DESC, started DESC
                 LIMIT 1",
            )?
            .query_row([name], |row| row.get(0))
            .optional()?;
        return Ok((subject("model"), vec![served.unwrap_or(model[0])]));
    }
    // A dataset is mostly called as its model.
    let name = name.strip_prefix("dataset:").unwrap_or(name);
    let dataset = rows("dataset = ?1", &[name])?;
    if !dataset.is_empty() {
        return Ok((subject("dataset"), dataset));
    }
    Err(unknown())
}

impl Lineage {
    fn add_earlier(&mut self, connection: &Connection) -> Result<(), RecordsError> {
        let mut before = connection.prepare_cached(
            "SELECT document FROM run WHERE dataset = ?1 AND started < ?2 AND document IS NOT NULL
             ORDER BY started DESC, run, model, since DESC, bundle LIMIT 1000",
        )?;
        let mut start = connection
            .prepare_cached("SELECT min(started) FROM run WHERE run = ?1 AND document IS NOT NULL")?;
        for run in &self.runs {
            let data = &run["dataset"];
            let (Some(name), Some(digest), Some(id)) =
                (data["name"].as_str(), data["digest"].as_str(), run["run"].as_str())
            else {
                continue;
            };
            let started: Option<i64> = start.query_row([id], |row| row.get(0)).optional()?.flatten();
            if self.earlier.contains_key(digest) || self.earlier.len() >= MAX_EARLIER {
                continue;
            }
            let mut known = BTreeSet::from([digest.to_owned()]);
            let mut versions = Vec::new();
            let mut rows = before.query(params![name, started])?;
            while let Some(row) = rows.next()?
                && versions.len() < MAX_EARLIER
            {
                let Ok(document) =
                    serde_json::from_str::<Value>(row.get_ref(0)?.as_str().unwrap_or_default())
                else {
                    continue;
                };
                versions.extend(
                    DatasetVersion::accepted(&document).filter(|one| known.insert(one.digest.clone())),
                );
            }
            versions.reverse();
            self.earlier.insert(digest.to_owned(), versions);
        }
        Ok(())
    }

    /// The same as nodes and edges.
    fn draw(&mut self) {
        let mut drawing = Drawing::default();
        for run in &self.runs {
            let attempts =
                self.runs.iter().filter(|other| ["run", "model"].iter().all(|of| other[of] == run[of]));
            drawing.run(run, attempts.count() > 1);
        }
        for (digest, versions) in &self.earlier {
            let digests = versions.iter().map(|version| version.digest.as_str()).chain([digest.as_str()]);
            let digests: Vec<&str> = digests.collect();
            for version in versions {
                drawing.node(&version.digest, "dataset", version.file.as_deref().unwrap_or_default());
            }
            for pair in digests.windows(2) {
                drawing.edge(pair[0], pair[1], "followed by");
            }
        }
        self.nodes = drawing.nodes;
        self.edges = drawing.edges;
    }
}

impl DatasetVersion {
    fn accepted(document: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let data = &document["dataset"];
        // Only what was validated has rows that were counted.
        let rows = data["rows"].as_u64().filter(|_| document["state"] != "rejected")?;
        Some(Self {
            digest: text(&data["digest"])?,
            file: text(&data["file"]),
            rows: Some(rows),
            run: text(&document["run"])?,
            started: text(&document["started"]),
        })
    }
}

/// The first digits of a digest that are enough to name it.
fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(MIN_PREFIX).collect()
}

#[derive(Default)]
struct Drawing {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    known: BTreeSet<String>,
}

impl Drawing {
    fn run(&mut self, document: &Value, has_others_beside: bool) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (run, model) = (text(&document["run"]), text(&document["model"]));
        let bundle = document["bundle"]["digest"].as_str().filter(|_| has_others_beside);
        let id = ["run:".to_owned() + &run, model.clone(), bundle.map(short).unwrap_or_default()];
        let id = id.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        self.node(&id, "run", &text(&document["state"]));
        let used = [
            ("dataset", &document["dataset"]["digest"], text(&document["dataset"]["file"])),
            ("code", &document["code"]["digest"], text(&document["code"]["commit"])),
            ("environment", &document["environment"]["digest"], text(&document["environment"]["python"])),
            ("training", &document["training"]["digest"], String::new()),
            ("holdout", &document["holdout"]["digest"], String::new()),
        ];
        for (kind, digest, label) in used {
            if let Some(digest) = digest.as_str() {
                self.node(digest, kind, &label);
                self.edge(digest, &id, "used by");
            }
        }
        let made = [("report", &document["report"]["digest"]), ("bundle", &document["bundle"]["digest"])];
        for (kind, digest) in made {
            if let Some(digest) = digest.as_str() {
                let relation = if kind == "bundle" && document["reused"] == true { "reused" } else { "made" };
                self.node(digest, kind, &model);
                self.edge(&id, digest, relation);
            }
        }
        let Some(served) = document["digest"].as_str() else { return };
        self.node(served, "served", &format!("{model}@{}", text(&document["version"])));
        self.edge(document["bundle"]["digest"].as_str().unwrap_or(&id), served, "served as");
        if let Some(previous) = document["previous_digest"].as_str() {
            self.node(previous, "served", &model);
            self.edge(previous, served, "replaced by");
        }
        if let Some(restored) = document["rolledback"]["digest"].as_str() {
            let version = text(&document["rolledback"]["version"]);
            self.node(restored, "served", &format!("{model}@{version}"));
            self.edge(served, restored, "rolled back to");
        }
    }

    fn node(&mut self, id: &str, kind: &str, label: &str) {
        if self.known.insert(format!("{kind} {id}")) && !self.nodes.iter().any(|node| node.id == id) {
            self.nodes.push(Node { id: id.to_owned(), kind: kind.to_owned(), label: label.to_owned() });
        }
    }

    fn edge(&mut self, from: &str, to: &str, relation: &str) {
        if self.known.insert(format!("{from} {to} {relation}")) {
            let (from, to, relation) = (from.to_owned(), to.to_owned(), relation.to_owned());
            self.edges.push(Edge { from, to, relation });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{Data, Event};
    use crate::records::tests::{digest, event, records, trained_again, whole_run};

    /// Three versions of a dataset; two models on the last one; one more run that failed on other data.
    fn history() -> Vec<Event> {
        let mut events = whole_run("r1", "iris", 0.8, 0);
        events.extend(whole_run("r2", "iris", 0.9, 100));
        events.extend(whole_run("r3", "iris", 0.95, 200));
        events.extend(whole_run("r3", "wine", 0.6, 220).into_iter().skip(2));
        let other = json!({ "dataset": "other", "digest": digest("other data"), "reasons": [] });
        events.push(event("x", "dataset.rejected", "other", "r4", 300, other));
        events
    }

    fn check(subject: &str, kind: &str, roles: &[&str], runs: &[&str]) {
        let lineage = find(&records(&history()), subject).unwrap();
        assert_eq!(lineage.subject.kind, kind, "{subject}");
        assert_eq!(lineage.subject.roles.iter().map(String::as_str).collect::<Vec<_>>(), roles, "{subject}");
        let found: Vec<String> = lineage
            .runs
            .iter()
            .map(|run| [&run["run"], &run["model"]].map(|part| part.as_str().unwrap_or("-")).join("/"))
            .collect();
        assert_eq!(found, runs, "{subject}");
    }

    #[test]
    fn every_digest_and_name_leads_to_its_runs() {
        check(&digest("served r2 iris"), "digest", &["served"], &["r2/iris"]);
        check(&digest("bundle r3 wine"), "digest", &["bundle"], &["r3/wine"]);
        check(&digest("data r3"), "digest", &["dataset"], &["r3/iris", "r3/wine"]);
        check(&digest("code"), "digest", &["code"], &["r3/iris", "r3/wine", "r2/iris", "r1/iris"]);
        check(
            &digest("environment"),
            "digest",
            &["environment"],
            &["r3/iris", "r3/wine", "r2/iris", "r1/iris"],
        );
        check(
            &digest("holdout")[..20],
            "digest",
            &["holdout"],
            &["r3/iris", "r3/wine", "r2/iris", "r1/iris"],
        );
        check(&digest("report")[7..17], "digest", &["report"], &["r3/iris", "r3/wine", "r2/iris", "r1/iris"]);
        check(&digest("other data"), "digest", &["dataset"], &["r4/-"]);
        check("r3", "run", &[], &["r3/iris", "r3/wine"]);
        check("iris@4", "version", &[], &["r3/iris", "r2/iris", "r1/iris"]);
        check("iris", "model", &[], &["r3/iris"]);
        check("dataset:digits", "dataset", &[], &["r3/iris", "r3/wine", "r2/iris", "r1/iris"]);
        check(&digest("served r2 iris").to_uppercase(), "digest", &["served"], &["r2/iris"]);
        check("digits", "dataset", &[], &["r3/iris", "r3/wine", "r2/iris", "r1/iris"]);
        // Made before anybody took notes: only those that compared and replaced know it.
        check(
            &digest("served before"),
            "digest",
            &["compared", "replaced"],
            &["r3/iris", "r3/wine", "r2/iris", "r1/iris"],
        );
    }

    #[test]
    fn the_graph_goes_from_data_and_code_to_what_is_served() {
        let lineage = find(&records(&history()), &digest("served r2 iris")).unwrap();
        let has = |from: &str, to: &str, relation: &str| {
            let edge = Edge { from: from.to_owned(), to: to.to_owned(), relation: relation.to_owned() };
            assert!(lineage.edges.contains(&edge), "{edge:?} in {:?}", lineage.edges);
            for end in [from, to] {
                assert_eq!(lineage.nodes.iter().filter(|node| node.id == end).count(), 1, "{end}");
            }
        };
        let run = "run:r2/iris";
        has(&digest("data r2"), run, "used by");
        has(&digest("code"), run, "used by");
        has(&digest("environment"), run, "used by");
        has(run, &digest("bundle r2 iris"), "made");
        has(run, &digest("report"), "made");
        has(&digest("bundle r2 iris"), &digest("served r2 iris"), "served as");
        has(&digest("served before"), &digest("served r2 iris"), "replaced by");
        has(&digest("data r1"), &digest("data r2"), "followed by");
    }

    #[test]
    fn a_model_is_what_was_deployed_last_and_a_roll_back_is_drawn() {
        let mut late = whole_run("r1", "iris", 0.8, 0);
        late[5].time = Some("2026-11-18T15:00:00Z".to_owned());
        let [first, second] = [late, whole_run("r2", "iris", 0.9, 100)];
        let connection = records(&[first, second].concat());
        assert_eq!(find(&connection, "iris").unwrap().runs[0]["run"], "r1");

        let mut back = whole_run("r1", "iris", 0.8, 0);
        let restored = json!({ "version": "3", "generation": 8, "digest": digest("served before") });
        back.push(event("back", "model.rolledback", "iris", "r1", 50, restored));
        let lineage = find(&records(&back), "iris@4").unwrap();
        let edge = |edge: &&Edge| edge.relation == "rolled back to";
        let drawn = lineage.edges.iter().find(edge).unwrap();
        assert_eq!((&*drawn.from, &*drawn.to), (&*digest("served r1 iris"), &*digest("served before")));
    }

    #[test]
    fn what_a_run_made_before_its_stages_ran_again_has_its_own_past() {
        let mut events = whole_run("r1", "iris", 0.8, 0);
        let code = |events: &[Event], at: usize| events[at].object()["code"]["digest"].clone();
        // Another code, on the same data, in the same run.
        for (at, mut again) in whole_run("r1", "iris", 0.9, 100).into_iter().enumerate().skip(2) {
            again.id = format!("again-{at}");
            let mut data = again.object();
            if at < 4 {
                data["code"] = json!({ "digest": digest("new code") });
            }
            if at > 2 {
                data["bundle"] = json!({ "digest": digest("new bundle"), "size": 1 });
            }
            if at == 5 {
                data["version"] = "5".into();
                data["digest"] = digest("new served").into();
                data["previous_digest"] = digest("served r1 iris").into();
            }
            again.data = Data::Json(Value::Object(data).into());
            events.push(again);
        }
        let connection = records(&events);
        let told = |subject: &str| find(&connection, subject).unwrap().runs.remove(0);
        for subject in ["iris@4", &digest("served r1 iris"), &digest("bundle r1 iris")] {
            let run = told(subject);
            assert_eq!(
                (&run["version"], &run["metrics"]["accuracy"]),
                (&json!("4"), &json!(0.8)),
                "{subject}"
            );
            assert_eq!(run["code"]["digest"], code(&events, 2), "{subject}");
        }
        for subject in ["iris@5", "iris", &digest("new served"), &digest("new code"), &digest("data r1")] {
            let run = told(subject);
            assert_eq!(
                (&run["version"], &run["metrics"]["accuracy"]),
                (&json!("5"), &json!(0.9)),
                "{subject}"
            );
        }
    }

    #[test]
    fn a_digest_leads_to_the_attempt_that_knows_it() {
        let mut events = whole_run("r1", "iris", 0.8, 0);
        let code = json!({ "digest": digest("failed code") });
        let started = json!({ "model": "iris", "code": code, "parameters": { "depth": 5 } });
        let failed = json!({ "model": "iris", "reason": "memory", "error": "killed" });
        events.push(event("s", "training.started", "iris", "r1", 50, started));
        events.push(event("f", "training.failed", "iris", "r1", 55, failed));
        events.extend(trained_again(&events[..6], 100));
        let connection = records(&events);
        let told = |subject: &str| -> Vec<(Value, Value, Value)> {
            let runs = find(&connection, subject).unwrap().runs;
            let row = |run: &Value| {
                (run["state"].clone(), run["version"].clone(), run["parameters"]["depth"].clone())
            };
            runs.iter().map(row).collect()
        };
        let first = (json!("deployed"), json!("4"), json!(3));
        let second = (json!("deployed"), json!("5"), json!(9));
        for subject in [&digest("code"), &digest("bundle r1 iris"), &digest("served r1 iris"), "iris@4"] {
            assert_eq!(told(subject), std::slice::from_ref(&first), "{subject}");
        }
        for subject in [&digest("new code"), &digest("new bundle"), &digest("new served"), "iris@5", "iris"] {
            assert_eq!(told(subject), std::slice::from_ref(&second), "{subject}");
        }
        for subject in ["r1", &digest("data r1"), &digest("environment"), "digits"] {
            assert_eq!(told(subject), [second.clone(), first.clone()], "{subject}");
        }
        // It made nothing and has no row any more, since another one worked.
        assert_eq!(told(&digest("failed code")), [(json!("failed"), Value::Null, json!(5))]);

        let edges = find(&connection, "r1").unwrap().edges;
        for (code, bundle) in [("code", "bundle r1 iris"), ("new code", "new bundle")] {
            let run = &edges.iter().find(|edge| edge.from == digest(code)).unwrap().to;
            let made = edges.iter().find(|edge| edge.from == *run && edge.to == digest(bundle));
            assert!(made.is_some_and(|edge| edge.relation == "made"), "{run}: {edges:?}");
        }
    }

    #[test]
    fn versions_of_one_moment_are_not_before_each_other() {
        let events = [whole_run("r1", "iris", 0.8, 0), whole_run("r2", "wine", 0.8, 0)].concat();
        for run in ["r1", "r2"] {
            let lineage = find(&records(&events), run).unwrap();
            assert!(lineage.earlier.values().all(Vec::is_empty), "{:?}", lineage.earlier);
        }
    }

    #[test]
    fn the_versions_of_the_data_before_are_told_in_order() {
        let lineage = find(&records(&history()), "iris").unwrap();
        let earlier: Vec<&str> =
            lineage.earlier[&digest("data r3")].iter().map(|version| version.digest.as_str()).collect();
        assert_eq!(earlier, [digest("data r1"), digest("data r2")]);
    }

    #[test]
    fn what_is_not_known_is_said() {
        let records = records(&history());
        let cases = [
            ("", "nothing is known of"),
            ("nobody", "nothing is known of"),
            ("iris@9", "no run made iris@9"),
            ("sha256:00", "is no digest"),
            ("sha256:zz", "is no digest"),
            ("iris' OR 1=1 --", "nothing is known of"),
        ];
        for (subject, reason) in cases {
            let error = find(&records, subject).expect_err(subject).to_string();
            assert!(error.contains(reason), "{subject}: {error}");
        }
        let error = find(&records, &digest("nothing")).expect_err("unknown").to_string();
        assert!(error.contains("no run knows"), "{error}");
    }

    #[test]
    fn a_digest_that_thousands_of_runs_name_gives_the_newest() {
        let events: Vec<Event> = (0..400)
            .flat_map(|run| {
                whole_run(&format!("r{run:03}"), "iris", 0.9, run * 10).into_iter().skip(2).take(2)
            })
            .collect();
        let lineage = find(&records(&events), &digest("code")).unwrap();
        assert!(lineage.truncated);
        assert_eq!(lineage.runs.len(), MAX_RUNS);
        assert_eq!(lineage.runs[0]["run"], "r399");
    }
}
