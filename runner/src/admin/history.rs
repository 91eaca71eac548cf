//! The log of what was served when.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::wire::{History, HistoryEntry};
use crate::bundle::PartKind;
use crate::error::Result;
use crate::error::extract::Query;
use crate::model::{Entry, Models};
use crate::store::{ModelName, Reason, VersionState};

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// One model only.
    model: Option<String>,
    /// At most this many, the newest; 100 if not given.
    limit: Option<usize>,
}

/// What was served when, newest first.
#[utoipa::path(get, path = "/v1/history", tag = "models", params(HistoryQuery), responses((status = 200, body = History)))]
pub(super) async fn history(
    State(models): State<Arc<Models>>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<History>> {
    let entries = match &query.model {
        Some(model) => {
            let model: ModelName = model.parse()?;
            let entry = models.entry(&model)?;
            vec![(model, entry)]
        }
        None => models.entries(),
    };
    let mut history: Vec<_> = entries
        .iter()
        .flat_map(|(model, entry)| entry.log.iter().map(move |pointer| (model, entry, pointer)))
        .collect();
    history.sort_by_key(|(_, _, pointer)| std::cmp::Reverse((pointer.at, pointer.generation)));
    let newest = history.into_iter().take(query.limit.unwrap_or(100));
    let describe = |(model, entry, pointer): (&ModelName, &Entry, &crate::store::Pointer)| HistoryEntry {
        model: model.to_string(),
        generation: pointer.generation,
        version: pointer.version.map(|version| version.to_string()),
        digest: pointer.digest.map(|digest| digest.to_string()),
        reason: reason_name(pointer.reason).to_owned(),
        at: rfc3339(pointer.at),
        broken_rules: pointer.broken_rules.clone(),
        provenance: pointer.version.and_then(|version| provenance(&models, entry, version)),
    };
    Ok(Json(History { entries: newest.map(describe).collect() }))
}

/// A version's provenance record, if it has one that is still stored.
fn provenance(
    models: &Models,
    entry: &Entry,
    version: crate::store::VersionNumber,
) -> Option<serde_json::Value> {
    let record = entry.records.iter().find(|record| record.number == version)?;
    let part = record.manifest.part(PartKind::Provenance).filter(|_| record.state == VersionState::Stored)?;
    let bytes = tokio::task::block_in_place(|| models.store().read_blob(part)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Push => "push",
        Reason::Activate => "activate",
        Reason::Rollback => "rollback",
        Reason::Unload => "unload",
        Reason::Remove => "remove",
    }
}

/// `2026-11-21T04:33:00Z`
pub(super) fn rfc3339(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(0);
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}
