//! `fn validate`: `dataset.updated` in, `dataset.validated` or `dataset.rejected` out.
//!
//! The checks themselves are in the crate `baton-data`, which knows no store and no network; here is what they need from
//! outside, and what is kept of them. What is said of a version is said once: the answer is remembered by the digests of
//! data and policy, and a repeat answers the same event, which starts nothing a second time. An acceptance depends on
//! nothing else. A rejection may be one because of the version before, the active model or its contract; it is remembered
//! with these, so that the same data is checked again when they have changed.

mod contract;
mod forest;
mod surroundings;

use std::sync::Arc;

use baton_data::{Checked, Finding, Input, Policy, Report, Verdict};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::cost::{Cost, Meter};
use super::{Call, Context, Failure};
use crate::event::{Event, hex};
use crate::store::{Digest, Reference, Store, StoreError, checked_name};

pub use surroundings::{Before, Served, Surroundings, served_contract};

/// The stage's name in the store.
const STAGE: &str = "validate";
/// The log of accepted versions.
pub(crate) const LOG: &str = "datasets";
/// Attempts to append to the log while others do.
const APPENDS: usize = 32;
/// Reasons that an event carries; the report has all.
const MOST_REASONS: usize = 20;
/// Characters of a reason in an event.
const REASON: usize = 500;
/// Bytes of a file's name or an origin: they come back in the answer.
const MOST_NAME: usize = 255;

/// What `dataset.updated` says.
#[derive(Debug, Clone)]
pub(crate) struct Updated {
    pub(crate) dataset: String,
    pub(crate) digest: Digest,
    pub(crate) file: String,
    pub(crate) origin: Option<String>,
    size: Option<u64>,
    /// It is to be checked, and to become the newest version, whatever was answered before.
    again: bool,
}

/// What is kept of an accepted version, and read again: a part of the data of `dataset.validated`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Accepted {
    pub(crate) digest: Digest,
    pub(crate) file: String,
    pub(crate) report: Reference,
}

impl Updated {
    /// Reads an event's data.
    ///
    /// # Errors
    /// [`Failure::Never`] naming what is missing or malformed.
    pub(crate) fn read(event: &Event) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Form {
            dataset: String,
            digest: String,
            #[serde(default)]
            size: Option<u64>,
            #[serde(default)]
            file: Option<String>,
            #[serde(default)]
            origin: Option<String>,
            #[serde(default)]
            again: bool,
        }
        let never = |text: String| {
            Failure::Never(format!("event {} of {} cannot be checked: {text}", event.id, event.source))
        };
        if event.short_kind() != Some("dataset.updated") {
            return Err(never(format!("it is a {}, not a dev.baton.dataset.updated.v1", event.kind)));
        }
        let form: Form = serde_json::from_value(Value::Object(event.object()))
            .map_err(|error| never(format!("its data is not that of dataset.updated: {error}")))?;
        checked_name(&form.dataset).map_err(|error| never(error.to_string()))?;
        let digest = form.digest.parse().map_err(|error: StoreError| never(error.to_string()))?;
        for (name, text) in [("file", &form.file), ("origin", &form.origin)] {
            if let Some(length) = text.as_ref().map(String::len).filter(|length| *length > MOST_NAME) {
                return Err(never(format!("{name} has {length} bytes, at most {MOST_NAME} are allowed")));
            }
        }
        let file = form.file.filter(|file| !file.is_empty()).unwrap_or_else(|| form.dataset.clone());
        Ok(Self {
            dataset: form.dataset,
            digest,
            file,
            origin: form.origin,
            size: form.size,
            again: form.again,
        })
    }
}

/// The function.
pub(super) fn call(context: Arc<Context>, event: Event) -> Call {
    Box::pin(async move { validate(&context, &event).await.map(Some) })
}

async fn validate(context: &Context, event: &Event) -> Result<Event, Failure> {
    let store = &context.store;
    let updated = Updated::read(event)?;
    let policy = Policy::parse(&context.policy).map_err(|error| Failure::Never(error.to_string()))?;
    let policy_digest = Digest::of(context.policy.as_bytes());
    let accepted_as = memo_key(&context.name, &updated, &policy_digest, "");
    if !updated.again
        && let Some(answer) = remembered(store, &accepted_as).await?
    {
        return Ok(answer);
    }
    let (bytes, size) = match store.get(&updated.digest, policy.limits.max_bytes).await {
        Ok(bytes) => (Some(bytes.clone()), bytes.len() as u64),
        Err(StoreError::TooLarge(..)) => (None, updated.size.unwrap_or(policy.limits.max_bytes + 1)),
        Err(error) => return Err(error.into()),
    };
    if let Some(said) = updated.size.filter(|said| *said != size) {
        return Err(Failure::Never(format!(
            "the event says that {} has {said} bytes, it has {size}",
            updated.digest
        )));
    }
    let surroundings = Surroundings::of(context, &policy, &updated.dataset, &updated.digest).await?;
    let rejected_as = memo_key(&context.name, &updated, &policy_digest, &surroundings.digest());
    if !updated.again
        && let Some(answer) = remembered(store, &rejected_as).await?
    {
        return Ok(answer);
    }
    let model = policy.model.clone().unwrap_or_else(|| updated.dataset.clone());
    let (label, key, features) = (policy.label.clone(), policy.key.clone(), policy.features.clone());
    let (checked, cost) = checked(&updated, bytes, size, policy, &policy_digest, surroundings).await?;
    let report = store.put(json_of(&checked.report)?).await?;
    let accepted = checked.report.verdict == Verdict::Accepted;
    let answer = match accepted {
        true => {
            let training = store.put(checked.training).await?;
            let holdout = store.put(checked.holdout).await?;
            let data = json!({
                "dataset": updated.dataset,
                "digest": updated.digest,
                "file": updated.file,
                "model": model,
                "label": label,
                "key": key,
                "features": features,
                "rows": checked.report.profile.as_ref().map_or(0, |profile| profile.rows),
                "report": report,
                "training": training,
                "holdout": holdout,
                "flagged": checked.report.outliers.as_ref().map_or(0, |outliers| outliers.flagged),
                "drift": checked.report.largest_drift(),
                "policy": policy_digest,
                "cost": cost,
            });
            append(store, &updated, &data).await?;
            event.reply(&context.name, "dataset.validated", &updated.dataset, data)
        }
        false => {
            let data = json!({
                "dataset": updated.dataset,
                "digest": updated.digest,
                "file": updated.file,
                "report": report,
                "reasons": reasons(&checked.report.reasons),
                "cost": cost,
            });
            event.reply(&context.name, "dataset.rejected", &updated.dataset, data)
        }
    };
    let key = if accepted { accepted_as } else { rejected_as };
    if !updated.again
        && !store.remember(STAGE, &key, &answer).await?
        && let Some(first) = remembered(store, &key).await?
    {
        // Somebody checked the same at the same time and was first: there is one answer.
        return Ok(first);
    }
    Ok(answer)
}

/// What an answer depends on: everything that a report says but for the version before and the active model, which are in
/// `surroundings`.
fn memo_key(function: &str, updated: &Updated, policy: &Digest, surroundings: &str) -> Digest {
    let format = baton_data::FORMAT.to_string();
    let digest = updated.digest.to_string();
    let origin = updated.origin.as_deref().map_or_else(String::new, |origin| format!("from {origin}"));
    let parts =
        [&digest, policy.hex(), &format, function, &updated.dataset, &updated.file, &origin, surroundings];
    Digest::of(hex(&parts.map(str::as_bytes)).as_bytes())
}

async fn remembered(store: &Store, key: &Digest) -> Result<Option<Event>, Failure> {
    let Some(answer) = store.memo::<Value>(STAGE, key).await? else { return Ok(None) };
    Event::from_json(answer.to_string().as_bytes()).map(Some).map_err(|error| {
        Failure::Never(format!("the remembered answer memo/{STAGE}/{}.json is damaged: {error}", key.hex()))
    })
}

/// Runs the checks on a thread of their own: they take seconds of a processor, and others are waiting.
async fn checked(
    updated: &Updated,
    bytes: Option<Bytes>,
    size: u64,
    policy: Policy,
    policy_digest: &Digest,
    surroundings: Surroundings,
) -> Result<(Checked, Cost), Failure> {
    let (updated, policy_digest) = (updated.clone(), policy_digest.to_string());
    let work = move || {
        let meter = Meter::of_thread();
        let digest = updated.digest.to_string();
        let input = Input {
            dataset: &updated.dataset,
            file: &updated.file,
            digest: &digest,
            origin: updated.origin.as_deref(),
            bytes: bytes.as_deref().unwrap_or_default(),
            policy_digest: &policy_digest,
        };
        let checked = match bytes {
            Some(_) => surroundings.check(&input, &policy)?,
            None => baton_data::too_large(&input, size, &policy),
        };
        Ok((checked, meter.cost()))
    };
    #[allow(clippy::disallowed_methods, reason = "functions are on no request path of the runner")]
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::Never(format!("the check did not end: {error}")))?
}

/// Appends an accepted version to the dataset's log, unless it is the last one there: a delivery may come twice. The same data
/// under another policy is appended: what is trained on and compared with is what the newest entry names.
async fn append(store: &Store, updated: &Updated, entry: &Value) -> Result<(), Failure> {
    let is_same = |last: &Value| {
        ["digest", "training", "holdout", "policy"].iter().all(|name| last[name] == entry[name])
    };
    for _ in 0..APPENDS {
        let after = match store.last::<Value>(LOG, &updated.dataset).await? {
            Some((_, last)) if is_same(&last) => return Ok(()),
            Some((number, _)) => number,
            None => 0,
        };
        if store.append(LOG, &updated.dataset, after, entry).await? {
            return Ok(());
        }
    }
    Err(Failure::Later(format!("others keep appending to the log of {}", updated.dataset)))
}

/// The newest entry of a dataset's log that `is` is true of.
async fn newest<T: DeserializeOwned>(
    store: &Store,
    dataset: &str,
    is: impl Fn(&T) -> bool,
) -> Result<Option<T>, StoreError> {
    // Nearly always it is one of the last two.
    let mut limit = 2;
    loop {
        let entries: Vec<T> = store.log(LOG, dataset, limit).await?;
        let is_all = (entries.len() as u64) < limit;
        match entries.into_iter().rev().find(&is) {
            None if !is_all => limit *= 4,
            found => return Ok(found),
        }
    }
}

/// Does the log know this version of a dataset, and names none of its entries this holdout?
pub(crate) async fn is_other_holdout(
    store: &Store,
    dataset: &str,
    version: &str,
    holdout: &Digest,
) -> Result<bool, StoreError> {
    let is_version = |entry: &Value| entry["digest"] == json!(version);
    let is_named = |entry: &Value| is_version(entry) && entry["holdout"]["digest"] == json!(holdout);
    Ok(newest(store, dataset, is_named).await?.is_none()
        && newest(store, dataset, is_version).await?.is_some())
}

fn reasons(findings: &[Finding]) -> Vec<Map<String, Value>> {
    let one = |finding: &Finding| {
        let mut reason = Map::new();
        reason.insert("code".into(), finding.code.id().into());
        reason.insert("text".into(), finding.text.chars().take(REASON).collect::<String>().into());
        reason.extend(finding.column.clone().map(|column| ("column".to_owned(), column.into())));
        reason
    };
    findings.iter().take(MOST_REASONS).map(one).collect()
}

/// A report's bytes, the same for the same report.
pub(crate) fn json_of(report: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec_pretty(report)
        .map_err(|error| Failure::Never(format!("the report cannot be written: {error}")))
}

/// Reads a report from the store; `None` if there is none that can be read.
async fn report_of(store: &Store, reference: &Reference) -> Result<Option<Report>, Failure> {
    const MOST: u64 = 256 << 20;
    match store.get(&reference.digest, MOST).await {
        Ok(bytes) => Ok(baton_data::read_report(&bytes).ok()),
        Err(error) if error.is_transient() => Err(error.into()),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
