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

/// A thing or a run. `id` is its digest, `run:NAME` or `run:NAME/MODEL`.
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
    let digest = by_digest(connection, subject)?;
    let (subject, mut rows) = match digest {
        Some(found) => found,
        None => by_name(connection, subject)?,
    };
    let truncated = rows.len() > MAX_RUNS;
    rows.truncate(MAX_RUNS);
    let mut document = connection.prepare_cached("SELECT document FROM run WHERE rowid = ?1")?;
    let mut runs = Vec::new();
    for row in rows {
        let text: String = document.query_row([row], |row| row.get(0))?;
        runs.extend(serde_json::from_str::<Value>(&text));
    }
    let mut lineage =
        Lineage { subject, runs, earlier: BTreeMap::new(), nodes: Vec::new(), edges: Vec::new(), truncated };
    lineage.add_earlier(connection)?;
    lineage.draw();
    Ok(lineage)
}

type Found = (Subject, Vec<i64>);

fn by_digest(connection: &Connection, text: &str) -> Result<Option<Found>, RecordsError> {
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
    // A link of a run's shared part is one of all its models.
    let rows = connection
        .prepare_cached(
            "SELECT DISTINCT run.rowid FROM link
             JOIN run ON run.run = link.run AND (link.model = '' OR link.model = run.model)
             WHERE digest = ?1 AND document IS NOT NULL
                 AND (NOT ?2 OR role NOT IN ('replaced', 'compared', 'restored'))
             ORDER BY run.started DESC, run.run, run.model LIMIT ?3",
        )?
        .query_map(params![digest, has_central, MAX_RUNS as i64 + 1], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let subject = Subject { kind: "digest".to_owned(), value: format!("sha256:{digest}"), roles };
    Ok(Some((subject, rows)))
}

fn by_name(connection: &Connection, name: &str) -> Result<Found, RecordsError> {
    let rows = |condition: &str, values: &[&str]| -> rusqlite::Result<Vec<i64>> {
        let sql = format!(
            "SELECT rowid FROM run WHERE document IS NOT NULL AND {condition}
             ORDER BY started DESC, run, model LIMIT {}",
            MAX_RUNS + 1
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
        let version = rows("model = ?1 AND json_extract(document, '$.version') = ?2", &[model, version])?;
        return match version.is_empty() {
            false => Ok((subject("version"), version)),
            true => Err(RecordsError::Unknown(format!("no run made {name}"))),
        };
    }
    let model = rows("model = ?1", &[name])?;
    if !model.is_empty() {
        // Of a model, the run that made what is served; if none did, the last.
        let deployed = "model = ?1 AND json_extract(document, '$.state') = 'deployed'";
        let served = rows(deployed, &[name])?.first().copied();
        return Ok((subject("model"), vec![served.unwrap_or(model[0])]));
    }
    let dataset = rows("dataset = ?1", &[name])?;
    if !dataset.is_empty() {
        return Ok((subject("dataset"), dataset));
    }
    Err(unknown())
}

impl Lineage {
    fn add_earlier(&mut self, connection: &Connection) -> Result<(), RecordsError> {
        let mut before = connection.prepare_cached(
            "SELECT document FROM run WHERE dataset = ?1 AND started <= ?2 AND document IS NOT NULL
             ORDER BY started DESC, run, model LIMIT 1000",
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
            drawing.run(run);
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

#[derive(Default)]
struct Drawing {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    known: BTreeSet<String>,
}

impl Drawing {
    fn run(&mut self, document: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (run, model) = (text(&document["run"]), text(&document["model"]));
        let id = if model.is_empty() { format!("run:{run}") } else { format!("run:{run}/{model}") };
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
    use crate::event::Event;
    use crate::records::tests::{digest, event, records, whole_run};

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
