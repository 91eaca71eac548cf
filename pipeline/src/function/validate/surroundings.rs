//! What a check needs beside file and policy: the version before, what the active model was trained on and left behind,
//! and the contract.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_data::{
    Checked, Contract, Forest, Input, Kind, Outside, Policy, Previous, Report, Table, Training,
};
use bytes::Bytes;
use serde::Deserialize;

use super::contract::{RowContract, is_inferred};
use super::forest::OnnxForest;
use super::{Accepted, newest, report_of};
use crate::event::hex;
use crate::function::{Context, Failure};
use crate::store::{Digest, Reference, Store, StoreError};

/// Bytes of a bundle's description.
const MOST_BUNDLE: u64 = 1 << 20;
/// Bytes of a forest.
const MOST_FOREST: u64 = 256 << 20;
/// Bytes of a contract.
const MOST_CONTRACT: usize = 256 << 10;

/// The contract that the policy asks for.
#[derive(Debug, Clone, Default)]
pub enum Served {
    /// None is asked for.
    #[default]
    NotAsked,
    /// Why there is none.
    Absent(String),
    /// The text of the `.proto`.
    Source(String),
}

/// The version before, with what of it could be had.
#[derive(Debug)]
pub struct Before {
    pub digest: String,
    pub file: String,
    pub bytes: Option<Bytes>,
    pub report: Option<Report>,
}

/// All that a check compares with.
#[derive(Debug, Default)]
pub struct Surroundings {
    pub previous: Option<Before>,
    /// The report of the data that the active model was trained on.
    pub training: Option<Report>,
    pub contract: Served,
    /// `outlier.onnx`.
    pub forest: Option<Vec<u8>>,
}

/// The parts of `model.deployed` that are read.
#[derive(Deserialize)]
struct Deployed {
    bundle: Reference,
}

/// The parts of a bundle that are read.
#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    parts: BTreeMap<String, Reference>,
    #[serde(default)]
    report: Option<Reference>,
}

impl Surroundings {
    /// Looks them up.
    pub(super) async fn of(
        context: &Context,
        policy: &Policy,
        dataset: &str,
        digest: &Digest,
    ) -> Result<Self, Failure> {
        let store = &context.store;
        let previous = match before(store, dataset, digest).await? {
            Some(entry) => Some(Before {
                bytes: optional(store.get(&entry.digest, policy.limits.max_bytes).await)?,
                report: report_of(store, &entry.report).await?,
                digest: entry.digest.to_string(),
                file: entry.file,
            }),
            None => None,
        };
        let mut surroundings = Self { previous, ..Self::default() };
        if let Some(model) = policy.model.as_deref()
            && let Some((_, deployed)) = store.last::<Deployed>("active", model).await?
            && let Some(bundle) =
                optional(store.get_json::<Bundle>(&deployed.bundle.digest, MOST_BUNDLE).await)?
        {
            if let Some(report) = &bundle.report {
                surroundings.training = report_of(store, report).await?;
            }
            if let Some(forest) = bundle.parts.get("outlier.onnx") {
                let bytes = optional(store.get(&forest.digest, MOST_FOREST).await)?;
                surroundings.forest = bytes.map(|bytes| bytes.to_vec());
            }
        }
        surroundings.contract = served_contract(policy, &context.server, context.token.as_deref()).await?;
        Ok(surroundings)
    }

    /// What an answer may depend on, as a hash.
    pub(super) fn digest(&self) -> String {
        let digest = |report: Option<&Report>| report.map(|report| report.digest.clone()).unwrap_or_default();
        let previous = self.previous.as_ref();
        let contract = match &self.contract {
            Served::NotAsked => String::new(),
            Served::Absent(why) => format!("absent: {why}"),
            Served::Source(source) => source.clone(),
        };
        let forest =
            self.forest.as_deref().map(Digest::of).map(|digest| digest.to_string()).unwrap_or_default();
        let parts = [
            previous.map(|before| before.digest.clone()).unwrap_or_default(),
            // What cannot be read today may be readable tomorrow.
            digest(previous.and_then(|before| before.report.as_ref())),
            previous.is_some_and(|before| before.bytes.is_some()).to_string(),
            digest(self.training.as_ref()),
            contract,
            forest,
        ];
        hex(&parts.each_ref().map(String::as_bytes))
    }

    /// Runs the checks.
    ///
    /// # Errors
    /// [`Failure::Never`] if the policy's contract cannot be compiled.
    pub fn check(&self, input: &Input<'_>, policy: &Policy) -> Result<Checked, Failure> {
        let compiled = match (&self.contract, &policy.contract) {
            (Served::Source(source), Some(wanted)) => {
                let compiled = RowContract::compile(source, wanted);
                Some(compiled.map_err(|text| Failure::Never(format!("the policy's contract: {text}")))?)
            }
            _ => None,
        };
        let check = |table: &Table| {
            compiled.as_ref().map(|contract| contract.check(table, policy)).unwrap_or_default()
        };
        let contract = match &self.contract {
            Served::NotAsked => Contract::NotAsked,
            Served::Absent(why) => Contract::Absent(why),
            Served::Source(_) => Contract::Check(&check),
        };
        let trained_on = self.training.as_ref().and_then(|report| numbers_of(report, policy));
        let forest = self.forest.clone().map(|forest| OnnxForest::load(forest, trained_on));
        let refused = match &forest {
            Some(Err(text)) => Some(Unusable(text.clone())),
            _ => None,
        };
        let forest: Option<&dyn Forest> = match (&forest, &refused) {
            (Some(Ok(forest)), _) => Some(forest),
            (_, Some(refused)) => Some(refused),
            _ => None,
        };
        let previous = self.previous.as_ref().map(|before| Previous {
            digest: &before.digest,
            file: &before.file,
            bytes: before.bytes.as_deref(),
            report: before.report.as_ref(),
        });
        let training = self.training.as_ref().map(|report| Training { report });
        Ok(baton_data::check(input, policy, &Outside { previous, training, contract, forest }))
    }
}

/// The columns of numbers that a trainer gets of the data of this report, in their order.
fn numbers_of(report: &Report, policy: &Policy) -> Option<Vec<String>> {
    let apart = |name: &String| [&policy.label, &policy.key].contains(&&Some(name.clone()));
    let columns = report.profile.as_ref()?.columns.iter();
    let numbers = columns.filter(|column| matches!(column.kind, Kind::Number | Kind::Integer));
    Some(numbers.map(|column| column.name.clone()).filter(|name| !apart(name)).collect())
}

/// A forest that could not be loaded: the report says why, and the data is judged by one of its own.
struct Unusable(String);

impl Forest for Unusable {
    fn judge(&self, _: &baton_data::Matrix) -> Result<baton_data::ForestAnswer, String> {
        Err(self.0.clone())
    }
}

/// The newest accepted version with another digest: one that was accepted under several policies is not compared with itself.
async fn before(store: &Store, dataset: &str, digest: &Digest) -> Result<Option<Accepted>, Failure> {
    Ok(newest(store, dataset, |entry: &Accepted| entry.digest != *digest).await?)
}

/// What is gone or damaged is as if it had never been; the report says so. What fails for now is tried again.
fn optional<T>(found: Result<T, StoreError>) -> Result<Option<T>, Failure> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_transient() => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// The contract that the policy asks for: its own text, or that of the active model from the runner.
///
/// # Errors
/// [`Failure::Later`] if the runner cannot be asked now, [`Failure::Never`] if it refuses, or the policy names no model.
pub async fn served_contract(policy: &Policy, server: &str, token: Option<&str>) -> Result<Served, Failure> {
    let Some(wanted) = &policy.contract else { return Ok(Served::NotAsked) };
    if let Some(source) = wanted.proto() {
        return Ok(Served::Source(source.to_owned()));
    }
    let Some(model) = policy.model.as_deref() else {
        return Err(Failure::Never("the policy asks for the served contract and names no model".to_owned()));
    };
    crate::store::checked_name(model)?;
    let later = |error: reqwest::Error| {
        Failure::Later(format!("the runner at {server} cannot be asked for the contract of {model}: {error}"))
    };
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(10))
        .build()
        .map_err(later)?;
    let mut request = client.get(format!("{}/v1/models/{model}/contract", server.trim_end_matches('/')));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let mut answer = request.send().await.map_err(later)?;
    match answer.status().as_u16() {
        200 => {}
        404 => {
            return Ok(Served::Absent(format!(
                "model {model} is not served yet, so there is no contract to compare with"
            )));
        }
        status @ (408 | 429 | 500..) => {
            return Err(Failure::Later(format!(
                "the runner at {server} answered {status} for the contract of {model}"
            )));
        }
        status => {
            return Err(Failure::Never(format!(
                "the runner at {server} answered {status} for the contract of {model}"
            )));
        }
    }
    let mut source = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(later)? {
        source.extend_from_slice(&chunk);
        if source.len() > MOST_CONTRACT {
            return Err(Failure::Never(format!(
                "the contract of {model} is larger than {MOST_CONTRACT} bytes"
            )));
        }
    }
    let source = String::from_utf8(source)
        .map_err(|_| Failure::Never(format!("the contract of {model} is no text")))?;
    Ok(match is_inferred(&source, model) {
        true => Served::Absent(format!(
            "model {model} was pushed without a contract; the inferred one promises nothing"
        )),
        false => Served::Source(source),
    })
}
