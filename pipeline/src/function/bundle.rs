//! A bundle in the store, and what events say of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Failure;
use super::runner::PARTS;
use crate::event::Event;
use crate::store::{Reference, Store, checked_name};

/// Bytes of a bundle's own JSON.
const MAX_BUNDLE: u64 = 1024 * 1024;
/// Bytes of one part.
pub(super) const MAX_PART: u64 = 2 * 1024 * 1024 * 1024;

/// What a trainer uploaded; parts by file name. Fields: `docs/pipeline-reference.md`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Bundle {
    /// The name that it was made for.
    model: Option<String>,
    pub parts: BTreeMap<String, Reference>,
    pub dataset: Option<String>,
    pub dataset_digest: Option<String>,
    pub holdout: Option<Reference>,
    /// The column that the model predicts.
    pub label: Option<String>,
    /// The columns that the model sees, in its order; all but the label if nothing is said.
    pub features: Option<Vec<String>>,
    /// What the columns of its scores stand for, in their order.
    pub classes: Option<Vec<String>>,
}

impl Bundle {
    /// # Errors
    /// [`Failure::Never`] if the store lacks it or it is none.
    pub(super) async fn read(store: &Store, reference: &Reference) -> Result<Self, Failure> {
        serde_json::from_slice(&store.read(reference, MAX_BUNDLE).await?)
            .map_err(|error| Failure::Never(format!("{} is no bundle: {error}", reference.digest)))
    }

    /// The model's file name and reference.
    pub(super) fn artifact(&self) -> Option<(&str, &Reference)> {
        ["model.onnx", "model.so"].into_iter().find_map(|name| Some((name, self.parts.get(name)?)))
    }
}

/// The event's `model` and `bundle`, and the bundle itself.
#[derive(Debug)]
pub(super) struct Candidate {
    pub model: String,
    pub reference: Reference,
    pub bundle: Bundle,
    /// The event's data.
    pub data: Map<String, Value>,
}

impl Candidate {
    /// What an event of `training.finished`, `artifact.pushed` or `model.evaluated` speaks of.
    ///
    /// # Errors
    /// [`Failure::Never`] if the data lack it or the store lacks the bundle.
    pub(super) async fn of(event: &Event, store: &Store) -> Result<Self, Failure> {
        let data = event.object();
        let model = data
            .get("model")
            .and_then(Value::as_str)
            .ok_or_else(|| Failure::Never("data.model is missing: the name to serve it under".into()))?;
        let model = checked_name(model)?.to_owned();
        let reference = reference(&data, "bundle")?.ok_or_else(|| {
            Failure::Never("data.bundle is missing: {\"digest\": ..., \"size\": ...}".into())
        })?;
        let bundle = Bundle::read(store, &reference).await?;
        if let Some(other) = bundle.model.as_ref().filter(|other| **other != model) {
            return Err(Failure::Never(format!("the bundle is one of {other:?}, data.model is {model:?}")));
        }
        Ok(Self { model, reference, bundle, data })
    }

    /// What the runner takes of the bundle, by the names of its form.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn parts(&self, store: &Store) -> Result<BTreeMap<&'static str, Bytes>, Failure> {
        let mut parts = BTreeMap::new();
        for (file, part) in PARTS {
            if let Some(reference) = self.bundle.parts.get(file) {
                parts.insert(part, store.read(reference, MAX_PART).await?);
            }
        }
        Ok(parts)
    }
}

/// A field of an event's data as a reference; `None` if it is absent or null.
///
/// # Errors
/// [`Failure::Never`] if it is something else.
pub(super) fn reference(data: &Map<String, Value>, field: &str) -> Result<Option<Reference>, Failure> {
    match data.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => Reference::deserialize(value)
            .map(Some)
            .map_err(|error| Failure::Never(format!("data.{field} is no reference: {error}"))),
    }
}
