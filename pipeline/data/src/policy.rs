//! What is expected of a dataset: the policy, written in TOML by people.
//!
//! Every field has a default, so that an empty policy checks what can be checked of any dataset. A name that is not
//! known is refused: a misspelt limit must not pass for none.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::table::Kind;

/// Columns that `max_columns` may allow at most.
pub(crate) const MOST_COLUMNS: u64 = 100_000;

/// Why a text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("the policy is no TOML of the documented form: {0}")]
    Syntax(String),
    #[error("the policy's {field} {text}")]
    Value { field: String, text: String },
}

/// The whole policy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The dataset that it is for; an event about another one is refused. Default: any.
    pub dataset: Option<String>,
    /// The model that is trained on it: its training data and contract are compared with. Default: none.
    pub model: Option<String>,
    /// The column that is to be predicted. Default: none.
    pub label: Option<String>,
    /// The column that names a row. Default: none; rows are what their cells are.
    pub key: Option<String>,
    /// The columns that the model gets, in this order. Default: all but label and key.
    pub features: Option<Vec<String>>,
    /// The share of rows that is kept from training, 0 to 0.9. Default 0.2.
    pub holdout: f64,
    /// Who may say that the dataset has changed. Default: everybody.
    pub origins: Option<Vec<String>>,
    /// Cells that stand for no value, beside the empty one.
    pub null_values: Vec<String>,
    /// What happens to a column that the policy does not name; only if it names any. Default `ignore`.
    pub extra_columns: ExtraColumns,
    /// Is a column of numbers with a few cells of text refused? Default true.
    pub refuse_mixed: bool,
    /// The largest share of rows that may be copies of others. Default: none, copies are told.
    pub max_duplicates: Option<f64>,
    /// The contract that rows must fit.
    pub contract: Option<ContractPolicy>,
    pub limits: Limits,
    pub columns: BTreeMap<String, ColumnPolicy>,
    pub outliers: OutlierPolicy,
    pub drift: DriftPolicy,
    pub growth: GrowthPolicy,
    pub mask: MaskPolicy,
}

/// Bounds of a file. They bound the memory of a check too: a cell costs about 16 bytes beside its text.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of the file, and of what it unpacks to. Default 268435456, at most 1 GiB.
    pub max_bytes: u64,
    /// Default 10,000,000.
    pub max_rows: u64,
    /// Default 1.
    pub min_rows: u64,
    /// Default 1,000, at most 100,000.
    pub max_columns: u64,
    /// Rows times columns. Default 50,000,000.
    pub max_cells: u64,
    /// Default 65,536.
    pub max_cell_bytes: u64,
}

/// What a column must be.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnPolicy {
    /// Default: what its cells look like.
    #[serde(rename = "type")]
    pub kind: Option<Kind>,
    /// Smallest number. With it or `max` a column is one of numbers.
    pub min: Option<Amount>,
    /// Largest number.
    pub max: Option<Amount>,
    /// All the values that there may be, as text.
    pub values: Option<Vec<String>>,
    /// Largest share of empty cells. Default 1.
    pub nulls: Option<f64>,
    /// Must it be there? Default true: it is named.
    pub required: Option<bool>,
    /// No value twice. Default false.
    pub unique: bool,
    /// A regular expression (the `regex` crate's) that a cell must fit as a whole.
    pub pattern: Option<String>,
}

impl ColumnPolicy {
    /// Are there smallest or largest numbers?
    pub(crate) fn has_bounds(&self) -> bool {
        self.min.is_some() || self.max.is_some()
    }

    /// Is the type said, by its name or by bounds?
    pub(crate) fn is_typed(&self) -> bool {
        self.kind.is_some() || self.has_bounds()
    }
}

/// A number as it is written: of whole ones beyond 2^53 several share a float.
#[derive(Debug, Clone, Copy)]
pub enum Amount {
    Whole(i64),
    Number(f64),
}

impl Amount {
    /// A cell's, whose number is known.
    pub(crate) fn of_cell(cell: &str, number: f64) -> Self {
        cell.trim().parse().map_or(Self::Number(number), Self::Whole)
    }

    fn number(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            Self::Number(number) => number,
        }
    }

    fn whole(self) -> Option<i64> {
        /// 2^63, the first that is too large.
        const END: f64 = 9_223_372_036_854_775_808.0;
        match self {
            Self::Whole(number) => Some(number),
            Self::Number(number) => (number.fract() == 0.0 && number.abs() < END).then_some(number as i64),
        }
    }
}

impl PartialOrd for Amount {
    /// Exact between whole numbers, else of floats.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.whole(), other.whole()) {
            (Some(one), Some(other)) => Some(one.cmp(&other)),
            _ => self.number().partial_cmp(&other.number()),
        }
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(formatter),
            Self::Number(number) => number.fmt(formatter),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl serde::de::Visitor<'_> for Written {
            type Value = Amount;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Amount, E> {
                Ok(Amount::Whole(number))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Amount, E> {
                Ok(Amount::Number(number))
            }
        }
        deserializer.deserialize_any(Written)
    }
}

/// What happens to a column that the policy does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtraColumns {
    Refuse,
    Warn,
    Ignore,
}

/// `"served"`, or the text of a `.proto` file, or that with a method's name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum ContractPolicy {
    /// `"served"`: that of the active model. Anything else is the text of a `.proto`.
    Text(String),
    Named(NamedContract),
}

/// A contract of which one method's or message's rows count.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedContract {
    /// `"served"`, or the text of a `.proto`.
    pub proto: String,
    /// The method whose rows these are (`Service/Method`); needed if there are several.
    pub method: Option<String>,
    /// Or the message that is a row.
    pub message: Option<String>,
}

/// How outliers are looked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutlierPolicy {
    /// Default `["auto"]`; `[]` for none.
    pub methods: Vec<MethodName>,
    /// Default: all columns of numbers but label and key.
    pub columns: Option<Vec<String>>,
    /// What happens to rows that are marked. Default `annotate`.
    pub action: Action,
    /// The share of marked rows from which on the dataset is rejected. Default: none.
    pub max_share: Option<f64>,
    /// Of all random choices. Default 0.
    pub seed: u64,
    pub sigma: SigmaPolicy,
    #[serde(rename = "box")]
    pub box_plot: BoxPolicy,
    pub dbscan: DbscanPolicy,
    pub isolation_forest: ForestPolicy,
    pub random_cut_forest: ForestPolicy,
}

/// A method of looking for outliers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodName {
    Auto,
    Sigma,
    Box,
    Dbscan,
    IsolationForest,
    RandomCutForest,
}

impl MethodName {
    /// As in policies and reports.
    pub fn id(self) -> &'static str {
        match self {
            MethodName::Auto => "auto",
            MethodName::Sigma => "sigma",
            MethodName::Box => "box",
            MethodName::Dbscan => "dbscan",
            MethodName::IsolationForest => "isolation_forest",
            MethodName::RandomCutForest => "random_cut_forest",
        }
    }
}

/// What happens to marked rows, in the training part only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// They are listed in the report, and stay.
    Annotate,
    /// They are left out of the training part.
    Drop,
    /// The deviating cells are replaced.
    Impute,
    /// The dataset is rejected if there is one.
    Reject,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SigmaPolicy {
    /// Standard deviations from the mean. Default 3.
    pub k: f64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BoxPolicy {
    /// Widths of the box beyond its ends. Default 1.5.
    pub whisker: f64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DbscanPolicy {
    /// Radius in standard deviations. Default: from the distances to the `min_samples`-th neighbours.
    pub eps: Option<f64>,
    /// Neighbours that make a point a core point, itself among them. Default: twice the columns, at least 5.
    pub min_samples: Option<usize>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ForestPolicy {
    /// Default 100.
    pub trees: Option<usize>,
    /// Rows a tree. Default 256.
    pub sample: Option<usize>,
    /// Rows with a higher score are marked.
    pub threshold: Option<f64>,
    /// Or: the scores' quantile from which on rows are marked, e.g. 0.99. Default for both: what lies two box widths
    /// above the scores' box.
    pub quantile: Option<f64>,
}

/// How far columns may move. PSI: population stability index.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriftPolicy {
    /// Told from here on. Default 0.1.
    pub psi_warn: f64,
    /// Rejected from here on. Default: never.
    pub psi_reject: Option<f64>,
    /// Bins of a histogram, 2 to 100. Default 10.
    pub bins: usize,
    /// Columns that are expected to move. The key and columns of times are left out anyway. Default: none.
    pub ignore: Vec<String>,
}

/// What is done about an unlikely size.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrowthPolicy {
    /// Robust z above which a size is unlikely. Default 3.5.
    pub z: f64,
    /// Versions that there must be before. Default 4.
    pub min_history: usize,
    /// Default `warn`.
    pub action: GrowthAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrowthAction {
    Warn,
    Reject,
}

/// How private columns are made unreadable.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaskPolicy {
    /// The dataset that the masked rows make. Default: the name of the dataset with `-masked` behind it.
    pub into: Option<String>,
    /// By column: `hash`, `remove`, `redact`, or `bucket=WIDTH`.
    pub columns: BTreeMap<String, String>,
}

/// What happens to a private column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mask {
    /// Replaced by a salted hash: equal values stay equal.
    Hash,
    /// The column is left out.
    Remove,
    /// Every value becomes `***`.
    Redact,
    /// A number becomes the lower end of its bucket of this width.
    Bucket(f64),
}

impl Default for Policy {
    fn default() -> Self {
        let nulls = ["NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None"];
        Self {
            dataset: None,
            model: None,
            label: None,
            key: None,
            features: None,
            holdout: 0.2,
            origins: None,
            null_values: nulls.map(str::to_owned).to_vec(),
            extra_columns: ExtraColumns::Ignore,
            refuse_mixed: true,
            max_duplicates: None,
            contract: None,
            limits: Limits::default(),
            columns: BTreeMap::new(),
            outliers: OutlierPolicy::default(),
            drift: DriftPolicy::default(),
            growth: GrowthPolicy::default(),
            mask: MaskPolicy::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
            max_rows: 10_000_000,
            min_rows: 1,
            max_columns: 1_000,
            max_cells: 50_000_000,
            max_cell_bytes: 64 << 10,
        }
    }
}

impl Default for OutlierPolicy {
    fn default() -> Self {
        Self {
            methods: vec![MethodName::Auto],
            columns: None,
            action: Action::Annotate,
            max_share: None,
            seed: 0,
            sigma: SigmaPolicy::default(),
            box_plot: BoxPolicy::default(),
            dbscan: DbscanPolicy::default(),
            isolation_forest: ForestPolicy::default(),
            random_cut_forest: ForestPolicy::default(),
        }
    }
}

impl Default for SigmaPolicy {
    fn default() -> Self {
        Self { k: 3.0 }
    }
}

impl Default for BoxPolicy {
    fn default() -> Self {
        Self { whisker: 1.5 }
    }
}

impl Default for DriftPolicy {
    fn default() -> Self {
        Self { psi_warn: 0.1, psi_reject: None, bins: 10, ignore: Vec::new() }
    }
}

impl Default for GrowthPolicy {
    fn default() -> Self {
        Self { z: 3.5, min_history: 4, action: GrowthAction::Warn }
    }
}

impl ContractPolicy {
    /// The text of the `.proto`, or `None` for the served one.
    pub fn proto(&self) -> Option<&str> {
        let (ContractPolicy::Text(text) | ContractPolicy::Named(NamedContract { proto: text, .. })) = self;
        (text.trim() != "served").then_some(text)
    }

    /// The method whose rows are meant.
    pub fn method(&self) -> Option<&str> {
        match self {
            ContractPolicy::Text(_) => None,
            ContractPolicy::Named(named) => named.method.as_deref(),
        }
    }

    /// The message that is a row.
    pub fn message(&self) -> Option<&str> {
        match self {
            ContractPolicy::Text(_) => None,
            ContractPolicy::Named(named) => named.message.as_deref(),
        }
    }
}

impl MaskPolicy {
    /// What happens to each column, by name.
    ///
    /// # Errors
    /// A word that is none of [`Mask`]'s.
    pub fn masks(&self) -> Result<BTreeMap<String, Mask>, PolicyError> {
        let parsed = self.columns.iter().map(|(column, word)| {
            let mask = match (word.as_str(), word.strip_prefix("bucket=")) {
                ("hash", _) => Some(Mask::Hash),
                ("remove", _) => Some(Mask::Remove),
                ("redact", _) => Some(Mask::Redact),
                (_, Some(width)) => width
                    .trim()
                    .parse()
                    .ok()
                    .filter(|width: &f64| width.is_finite() && *width > 0.0)
                    .map(Mask::Bucket),
                _ => None,
            };
            let text = || format!("is {word:?}; hash, remove, redact and bucket=WIDTH are known");
            mask.map(|mask| (column.clone(), mask))
                .ok_or_else(|| bad(format!("mask.columns.{column}"), text()))
        });
        parsed.collect()
    }
}

fn bad(field: impl Into<String>, text: impl Into<String>) -> PolicyError {
    PolicyError::Value { field: field.into(), text: text.into() }
}

impl Policy {
    /// Reads and checks a policy; an empty text is the default one.
    ///
    /// # Errors
    /// See [`PolicyError`]; the text names the field.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let policy: Self =
            toml::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string().trim().to_owned()))?;
        policy.checked()
    }

    fn checked(self) -> Result<Self, PolicyError> {
        let within = |field: &str, value: Option<f64>, low: f64, high: f64| match value {
            Some(value) if !(low..=high).contains(&value) => {
                Err(bad(field, format!("is {value}; it must be from {low} to {high}")))
            }
            _ => Ok(()),
        };
        within("holdout", Some(self.holdout), 0.0, 0.9)?;
        within("max_duplicates", self.max_duplicates, 0.0, 1.0)?;
        within("limits.max_bytes", Some(self.limits.max_bytes as f64), 1.0, (1_u64 << 30) as f64)?;
        within("limits.max_columns", Some(self.limits.max_columns as f64), 1.0, MOST_COLUMNS as f64)?;
        within("outliers.max_share", self.outliers.max_share, 0.0, 1.0)?;
        within("outliers.sigma.k", Some(self.outliers.sigma.k), 0.0, 1e6)?;
        within("outliers.box.whisker", Some(self.outliers.box_plot.whisker), 0.0, 1e6)?;
        within("outliers.dbscan.eps", self.outliers.dbscan.eps, f64::MIN_POSITIVE, 1e6)?;
        let samples = self.outliers.dbscan.min_samples.map(|count| count as f64);
        within("outliers.dbscan.min_samples", samples, 1.0, 10_000.0)?;
        for (name, forest) in [
            ("isolation_forest", &self.outliers.isolation_forest),
            ("random_cut_forest", &self.outliers.random_cut_forest),
        ] {
            let field = |part: &str| format!("outliers.{name}.{part}");
            within(&field("trees"), forest.trees.map(|count| count as f64), 1.0, 1_000.0)?;
            within(&field("sample"), forest.sample.map(|count| count as f64), 2.0, 4_096.0)?;
            within(&field("threshold"), forest.threshold, 0.0, 1e12)?;
            within(&field("quantile"), forest.quantile, 0.0, 1.0)?;
            if forest.threshold.is_some() && forest.quantile.is_some() {
                return Err(bad(field("threshold"), "and quantile exclude each other"));
            }
        }
        within("drift.psi_warn", Some(self.drift.psi_warn), 0.0, 1e6)?;
        within("drift.psi_reject", self.drift.psi_reject, 0.0, 1e6)?;
        within("drift.bins", Some(self.drift.bins as f64), 2.0, 100.0)?;
        within("growth.z", Some(self.growth.z), 0.0, 1e6)?;
        within("growth.min_history", Some(self.growth.min_history as f64), 2.0, 100.0)?;
        let refused = |is: bool, field: &str, text: &str| if is { Err(bad(field, text)) } else { Ok(()) };
        let is_apart = |name: &String| self.is_label(name) || self.is_key(name);
        let features = self.features.as_deref();
        refused(features.is_some_and(|names| names.is_empty()), "features", "is empty")?;
        refused(features.is_some_and(|names| names.iter().any(is_apart)), "features", "name label or key")?;
        refused(self.label.is_some() && self.label == self.key, "key", "is the label")?;
        let limits = &self.limits;
        refused(limits.max_rows == 0 || limits.max_cells == 0, "limits", "allow no row or no cell")?;
        refused(limits.min_rows > limits.max_rows, "limits.min_rows", "is above max_rows")?;
        let is_below = self.drift.psi_reject.is_some_and(|reject| reject < self.drift.psi_warn);
        refused(is_below, "drift.psi_reject", "is below psi_warn")?;
        let looked_at = self.outliers.columns.as_deref();
        refused(
            looked_at.is_some_and(|names| names.is_empty()),
            "outliers.columns",
            "is empty; for none say methods = []",
        )?;
        let is_private = looked_at.is_some_and(|names| names.iter().any(|name| self.is_masked(name)));
        refused(is_private, "outliers.columns", "name a masked column, whose values are in no report")?;
        for (name, column) in &self.columns {
            refused(
                column.values.as_ref().is_some_and(Vec::is_empty),
                &format!("columns.{name}.values"),
                "is empty",
            )?;
            within(&format!("columns.{name}.nulls"), column.nulls, 0.0, 1.0)?;
            for (field, value) in [("min", column.min), ("max", column.max)] {
                if value.is_some_and(|value| !value.number().is_finite()) {
                    return Err(bad(format!("columns.{name}.{field}"), "is no number"));
                }
            }
            if let (Some(min), Some(max)) = (column.min, column.max)
                && min > max
            {
                return Err(bad(format!("columns.{name}.min"), format!("is {min}, above max, {max}")));
            }
            let numeric = column.kind.is_none_or(|kind| matches!(kind, Kind::Number | Kind::Integer));
            if !numeric && (column.min.is_some() || column.max.is_some()) {
                return Err(bad(format!("columns.{name}.min"), "and max are for columns of numbers"));
            }
            if let Some(pattern) = &column.pattern {
                compiled(pattern).map_err(|text| bad(format!("columns.{name}.pattern"), text))?;
            }
        }
        self.mask.masks()?;
        Ok(self)
    }

    /// The policy for a column, if it names it.
    pub(crate) fn column(&self, name: &str) -> Option<&ColumnPolicy> {
        self.columns.get(name)
    }

    pub(crate) fn is_label(&self, name: &str) -> bool {
        self.label.as_deref() == Some(name)
    }

    /// Is the column private? Its values are in no report then.
    pub fn is_masked(&self, name: &str) -> bool {
        self.mask.columns.contains_key(name)
    }

    pub(crate) fn is_key(&self, name: &str) -> bool {
        self.key.as_deref() == Some(name)
    }
}

/// The pattern, to be fitted as a whole. Linear in time whatever the pattern; its program is bounded here.
pub(crate) fn compiled(pattern: &str) -> Result<regex::Regex, String> {
    let built = |pattern: &str| {
        let mut builder = regex::RegexBuilder::new(pattern);
        let built = builder.size_limit(1 << 20).dfa_size_limit(4 << 20).build();
        built.map_err(|error| format!("is no regular expression: {error}"))
    };
    // Alone first: `a)|(?:b` would be one only within the brackets, and not be anchored.
    built(pattern)?;
    built(&format!("^(?:{pattern})$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_policy_has_the_documented_defaults() {
        let policy = Policy::parse("").expect("a policy");
        assert_eq!((policy.holdout, policy.limits.max_bytes, policy.drift.bins), (0.2, 256 << 20, 10));
        assert_eq!(policy.outliers.methods, [MethodName::Auto]);
        assert_eq!((policy.outliers.sigma.k, policy.outliers.box_plot.whisker), (3.0, 1.5));
    }

    #[test]
    fn everything_that_the_reference_names_is_read() {
        let policy = Policy::parse(
            r#"
            dataset = "iris"
            model = "iris"
            label = "species"
            key = "id"
            features = ["age", "mail"]
            holdout = 0.25
            origins = ["ci"]
            extra_columns = "refuse"
            contract = { proto = "served", method = "Classify" }
            [limits]
            max_bytes = 1000
            [columns.age]
            type = "integer"
            min = 0
            max = 150
            nulls = 0.1
            unique = false
            [columns.mail]
            pattern = ".+@.+"
            required = false
            [outliers]
            methods = ["sigma", "box", "dbscan", "isolation_forest", "random_cut_forest"]
            action = "impute"
            max_share = 0.1
            [outliers.dbscan]
            eps = 0.5
            [outliers.isolation_forest]
            quantile = 0.99
            [drift]
            psi_reject = 0.5
            [growth]
            action = "reject"
            [mask.columns]
            mail = "hash"
            age = "bucket=10"
            "#,
        )
        .expect("a policy");
        assert_eq!(policy.contract.as_ref().and_then(ContractPolicy::proto), None);
        assert_eq!(policy.mask.masks().expect("masks")["age"], Mask::Bucket(10.0));
        assert_eq!(policy.columns["age"].kind, Some(Kind::Integer));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("hold_out = 0.2", "hold_out"),
            ("holdout = 1.0", "holdout"),
            ("holdout = nan", "holdout"),
            ("[columns.a]\nkind = \"number\"", "kind"),
            ("[columns.a]\nmin = 2\nmax = 1", "columns.a.min"),
            ("[columns.a]\ntype = \"text\"\nmin = 2", "columns.a.min"),
            ("[columns.a]\npattern = \"(\"", "columns.a.pattern"),
            ("[columns.a]\npattern = \"a)|(?:b\"", "columns.a.pattern"),
            ("[columns.a]\nvalues = []", "columns.a.values"),
            ("[columns.a]\nmax = inf", "columns.a.max"),
            ("features = [\"a\", \"id\"]\nkey = \"id\"", "features"),
            ("label = \"a\"\nkey = \"a\"", "key is the label"),
            ("drift = { psi_reject = 0.05 }", "drift.psi_reject"),
            ("limits = { min_rows = 5, max_rows = 4 }", "limits.min_rows"),
            ("outliers = { columns = [\"a\"] }\nmask.columns.a = \"hash\"", "outliers.columns"),
            ("[columns.a]\npattern = \"a{1000}{1000}{1000}\"", "columns.a.pattern"),
            ("[limits]\nmax_bytes = 99999999999", "limits.max_bytes"),
            ("[outliers]\nmethods = [\"magic\"]", "magic"),
            ("[outliers.isolation_forest]\nthreshold = 0.5\nquantile = 0.5", "exclude"),
            ("[mask.columns]\na = \"bucket=-1\"", "mask.columns.a"),
            ("[drift]\nbins = 1", "drift.bins"),
            ("[[", "TOML"),
        ] {
            let error = Policy::parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
