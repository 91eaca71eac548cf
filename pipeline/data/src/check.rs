//! All checks in order, and the report.

use serde::{Deserialize, Serialize};

use crate::change::{self, Change, Drift};
use crate::finding::{Code, Finding, shown};
use crate::growth::{self, Growth, MOST_HISTORY, Size};
use crate::outliers::{self, Forest, OutlierReport};
use crate::policy::{GrowthAction, Policy};
use crate::profile::{self, Profile};
use crate::rules::{self, Found};
use crate::sniff::{Content, sniff};
use crate::split;
pub use crate::split::SplitReport;
use crate::table::{Table, read};

/// The file that is checked.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub dataset: &'a str,
    /// What the file is called.
    pub file: &'a str,
    /// `sha256:...` of the bytes.
    pub digest: &'a str,
    /// Who says that the dataset has changed.
    pub origin: Option<&'a str>,
    pub bytes: &'a [u8],
    /// Digest of the policy's text.
    pub policy_digest: &'a str,
}

/// The accepted version before.
#[derive(Debug, Clone, Copy)]
pub struct Previous<'a> {
    pub digest: &'a str,
    pub file: &'a str,
    /// `None` if they cannot be had any more.
    pub bytes: Option<&'a [u8]>,
    pub report: Option<&'a Report>,
}

/// What the active model was trained on.
#[derive(Debug, Clone, Copy)]
pub struct Training<'a> {
    pub report: &'a Report,
}

/// The contract that rows must fit.
#[derive(Clone, Copy)]
pub enum Contract<'a> {
    /// The policy asks for none.
    NotAsked,
    /// It asks for one that cannot be had, and why.
    Absent(&'a str),
    /// Finds what does not fit.
    Check(&'a dyn Fn(&Table) -> Vec<Finding>),
}

/// What a check cannot do itself.
#[derive(Clone, Copy)]
pub struct Outside<'a> {
    pub previous: Option<Previous<'a>>,
    pub training: Option<Training<'a>>,
    pub contract: Contract<'a>,
    pub forest: Option<&'a dyn Forest>,
}

impl Outside<'_> {
    /// Nothing.
    pub const NOTHING: Self =
        Self { previous: None, training: None, contract: Contract::NotAsked, forest: None };
}

/// What becomes of the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Accepted,
    Rejected,
    /// Nothing is wrong with the data, but nobody known has sent it.
    NeedsReview,
}

/// The report. Its JSON is documented in `docs/dataset-checks.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this schema.
    pub format: u32,
    pub verdict: Verdict,
    pub dataset: String,
    pub digest: String,
    pub file: String,
    /// Bytes of the file.
    pub size: u64,
    pub origin: Option<String>,
    /// Digest of the policy's text.
    pub policy: String,
    pub label: Option<String>,
    pub key: Option<String>,
    /// Why it is not accepted; empty if it is.
    pub reasons: Vec<Finding>,
    /// What should be looked at.
    pub warnings: Vec<Finding>,
    /// `None`, as all that follows, if the file cannot be read.
    pub content: Option<Content>,
    pub profile: Option<Profile>,
    pub change: Option<Change>,
    pub drift: Vec<Drift>,
    pub growth: Option<Growth>,
    pub outliers: Option<OutlierReport>,
    pub split: Option<SplitReport>,
    /// Sizes of the versions before, oldest first, at most 100.
    pub history: Vec<Size>,
}

impl Report {
    /// The largest population stability index of all columns and references.
    pub fn largest_drift(&self) -> Option<f64> {
        self.drift.iter().flat_map(|drift| &drift.columns).map(|column| column.psi).max_by(f64::total_cmp)
    }
}

/// Reads a report's JSON.
///
/// # Errors
/// It is none, or one of a later version.
pub fn read_report(json: &[u8]) -> Result<Report, String> {
    let report: Report = serde_json::from_slice(json).map_err(|error| format!("no report: {error}"))?;
    match report.format {
        // Those before have the same members; format 1 has bins that hide more.
        1..=crate::FORMAT => Ok(report),
        other => Err(format!("a report of format {other}; 1 to {} are understood", crate::FORMAT)),
    }
}

/// What a check gives.
#[derive(Debug)]
pub struct Checked {
    pub report: Report,
    /// CSV; empty if the file cannot be read.
    pub training: Vec<u8>,
    pub holdout: Vec<u8>,
    /// Outlier scores: method, one number a row.
    pub scores: Vec<(String, Vec<f64>)>,
    /// Is the row marked?
    pub marked: Vec<bool>,
}

/// Checks a file.
pub fn check(input: &Input<'_>, policy: &Policy, outside: &Outside<'_>) -> Checked {
    let mut checked = Checked::begin(input, policy, outside.previous);
    match opened(input.file, input.bytes, policy) {
        Ok((content, table, warnings)) => {
            checked.report.content = Some(content);
            checked.report.warnings = warnings;
            check_table(&table, input, policy, outside, &mut checked);
        }
        Err((content, reasons)) => {
            checked.report.content = content;
            checked.report.reasons = reasons;
        }
    }
    checked.conclude(input, policy);
    checked
}

/// The report of a file that nobody needs to read: its `size` in bytes is beyond the policy's limit. `input.bytes` are not
/// looked at.
pub fn too_large(input: &Input<'_>, size: u64, policy: &Policy) -> Checked {
    let mut checked = Checked::begin(input, policy, None);
    checked.report.size = size;
    let text = format!("the file has {size} bytes, max_bytes is {}", policy.limits.max_bytes);
    checked.report.reasons.push(Finding::new(Code::TooLarge, text));
    checked.conclude(input, policy);
    checked
}

impl Checked {
    fn begin(input: &Input<'_>, policy: &Policy, previous: Option<Previous<'_>>) -> Self {
        let report = Report {
            format: crate::FORMAT,
            verdict: Verdict::Accepted,
            dataset: input.dataset.to_owned(),
            digest: input.digest.to_owned(),
            file: input.file.to_owned(),
            size: input.bytes.len() as u64,
            origin: input.origin.map(str::to_owned),
            policy: input.policy_digest.to_owned(),
            label: policy.label.clone(),
            key: policy.key.clone(),
            reasons: Vec::new(),
            warnings: Vec::new(),
            content: None,
            profile: None,
            change: None,
            drift: Vec::new(),
            growth: None,
            outliers: None,
            split: None,
            history: history(previous),
        };
        Self { report, training: Vec::new(), holdout: Vec::new(), scores: Vec::new(), marked: Vec::new() }
    }
}

type Opened = Result<(Content, Table, Vec<Finding>), (Option<Content>, Vec<Finding>)>;

fn opened(file: &str, bytes: &[u8], policy: &Policy) -> Opened {
    let mut sniffed = sniff(file, bytes, &policy.limits).map_err(|finding| (None, vec![finding]))?;
    let mut warnings = std::mem::take(&mut sniffed.warnings);
    let (table, found) =
        read(&sniffed, policy).map_err(|reasons| (Some(sniffed.content.clone()), reasons))?;
    warnings.extend(found);
    Ok((sniffed.content, table, warnings))
}

fn check_table(
    table: &Table,
    input: &Input<'_>,
    policy: &Policy,
    outside: &Outside<'_>,
    checked: &mut Checked,
) {
    let hashes = table.row_hashes(&table.names());
    let profile = profile::profile(table, &hashes, policy);
    let mut found = rules::check(table, &profile, policy);
    match outside.contract {
        Contract::NotAsked => {}
        Contract::Absent(why) => found.warnings.push(Finding::new(Code::ContractAbsent, why)),
        Contract::Check(check) => found.reasons.extend(check(table)),
    }
    rules::duplicates(profile.duplicate_rows, profile.rows, policy, &mut found);
    let report = &mut checked.report;
    compare(table, &profile, policy, outside, report, &mut found);
    let size = Size { digest: input.digest.to_owned(), bytes: report.size, rows: profile.rows };
    let (growth, unlikely) = growth::growth(&size, &report.history, &policy.growth);
    report.growth = Some(growth);
    match policy.growth.action {
        GrowthAction::Warn => found.warnings.extend(unlikely),
        GrowthAction::Reject => found.reasons.extend(unlikely),
    }
    let mut outcome = outliers::find(table, policy, outside.forest);
    found.reasons.append(&mut outcome.reasons);
    found.warnings.append(&mut outcome.warnings);
    let parts = split::split(table, &hashes, &outcome, policy);
    found.reasons.extend(parts.reasons);
    found.warnings.extend(parts.warnings);
    report.profile = Some(profile);
    report.outliers = Some(outcome.report);
    report.split = Some(parts.report);
    report.reasons.extend(found.reasons);
    report.warnings.extend(found.warnings);
    checked.training = parts.training;
    checked.holdout = parts.holdout;
    checked.scores = outcome.scores;
    checked.marked = outcome.marked;
}

/// Against the version before, and against the active model's training data.
fn compare(
    table: &Table,
    profile: &Profile,
    policy: &Policy,
    outside: &Outside<'_>,
    report: &mut Report,
    found: &mut Found,
) {
    if let Some(previous) = outside.previous {
        match previous.bytes.map(|bytes| opened(previous.file, bytes, policy)) {
            Some(Ok((_, before, _))) => {
                let change = change::change(previous.digest, &before, table, policy);
                found.warnings.extend(change::column_findings(&change));
                report.change = Some(change);
            }
            _ => found.warnings.push(Finding::new(
                Code::NoComparison,
                format!(
                    "the version before, {}, cannot be read any more; its rows are not compared",
                    previous.digest
                ),
            )),
        }
    }
    let before = outside.previous.and_then(|previous| previous.report);
    let trained = outside.training.map(|training| training.report);
    // A model that was trained on the version before needs no second comparison.
    let trained = trained.filter(|trained| before.is_none_or(|before| before.digest != trained.digest));
    for (reference, there) in [("previous", before), ("training", trained)] {
        let Some((there, profile_there)) = there.and_then(|report| Some((report, report.profile.as_ref()?)))
        else {
            continue;
        };
        let drift = change::drift(reference, &there.digest, profile_there, table, policy);
        let (reasons, warnings) = change::drift_findings(&drift, policy);
        found.reasons.extend(reasons);
        found.warnings.extend(warnings);
        if let Some(label) = policy.label.as_deref() {
            found.warnings.extend(change::class_findings(profile_there, profile, label));
        }
        report.drift.push(drift);
    }
}

/// The sizes of the versions before: those that the previous report knows, and its own.
fn history(previous: Option<Previous<'_>>) -> Vec<Size> {
    let Some(report) = previous.and_then(|previous| previous.report) else { return Vec::new() };
    let mut history = report.history.clone();
    history.extend(report.profile.as_ref().map(|profile| Size {
        digest: report.digest.clone(),
        bytes: report.size,
        rows: profile.rows,
    }));
    history.split_off(history.len().saturating_sub(MOST_HISTORY))
}

impl Checked {
    fn conclude(&mut self, input: &Input<'_>, policy: &Policy) {
        let report = &mut self.report;
        if let Some(dataset) = policy.dataset.as_deref().filter(|dataset| *dataset != input.dataset) {
            let text =
                format!("the policy is for {}, the event is about {}", shown(dataset), shown(input.dataset));
            report.reasons.push(Finding::new(Code::WrongDataset, text));
        }
        let wrong = !report.reasons.is_empty();
        let unknown = policy.origins.as_ref().is_some_and(|origins| {
            !input.origin.is_some_and(|origin| origins.iter().any(|known| known == origin))
        });
        if unknown {
            let who =
                input.origin.map_or_else(|| "nobody".to_owned(), |origin| format!("{:?}", shown(origin)));
            let text = format!(
                "{who} has sent it, who is none of the policy's origins; look at the report, then add the origin to the \
                 policy or push again with a known one"
            );
            report.reasons.push(Finding::new(Code::OriginUnknown, text));
        }
        report.verdict = match (wrong, report.reasons.is_empty()) {
            (true, _) => Verdict::Rejected,
            (false, false) => Verdict::NeedsReview,
            (false, true) => Verdict::Accepted,
        };
    }
}
