//! When a candidate is good enough.

use serde::{Deserialize, Serialize};

use super::metric::{Metric, Metrics};

/// The variable with the rule, TOML.
const VARIABLE: &str = "BATON_RULE";

/// The rule; every field may be left out.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Rule {
    /// What decides. Classification: `accuracy`, `f1_macro`, `log_loss`; regression: `rmse`, `mae`, `r2`.
    pub metric: Metric,
    /// The candidate is refused below this value (above it, for errors and losses).
    pub at_least: Option<f64>,
    /// The candidate must be better than the active model by this much; a negative value lets it be worse by as much.
    pub margin: f64,
    /// The holdout's label column; the bundle's if nothing is said.
    pub label: Option<String>,
    /// The output that is the prediction; found by its type if nothing is said.
    pub output: Option<String>,
    /// Rows of the holdout that are used, from its beginning.
    pub max_rows: usize,
    /// Milliseconds that one row may take at the median.
    pub max_latency_ms: Option<f64>,
    /// How many times slower than the active model one row may be.
    pub max_latency_ratio: Option<f64>,
    /// Refuse a candidate that comes without holdout.
    pub holdout_required: bool,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            metric: Metric::Accuracy,
            at_least: None,
            margin: 0.0,
            label: None,
            output: None,
            max_rows: 100_000,
            max_latency_ms: None,
            max_latency_ratio: None,
            holdout_required: true,
        }
    }
}

/// Why a candidate is refused.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Reason {
    pub code: String,
    pub text: String,
}

impl Reason {
    pub(super) fn new(code: &str, text: impl Into<String>) -> Self {
        Self { code: code.to_owned(), text: text.into() }
    }
}

impl Rule {
    /// That of this process's environment; the default if it has none.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(super) fn from_environment() -> Result<Self, String> {
        match std::env::var(VARIABLE) {
            Ok(text) => Self::parse(&text),
            Err(_) => Ok(Self::default()),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let rule: Self = toml::from_str(text)
            .map_err(|error| format!("{VARIABLE} is no rule: {}", error.to_string().trim()))?;
        let numbers = [Some(rule.margin), rule.at_least, rule.max_latency_ms, rule.max_latency_ratio];
        if numbers.into_iter().flatten().any(|number| !number.is_finite()) {
            return Err(format!("{VARIABLE}: numbers must be finite"));
        }
        if rule.max_rows == 0 {
            return Err(format!("{VARIABLE}: max_rows must be at least 1"));
        }
        Ok(rule)
    }

    /// In words, for the record.
    pub(super) fn text(&self) -> String {
        let metric = self.metric.name();
        let (at_least, better) =
            if self.metric.higher_is_better() { ("at least", "active + ") } else { ("at most", "active - ") };
        let mut text = format!("{metric} {at_least} {better}{}", self.margin);
        if let Some(bound) = self.at_least {
            text.push_str(&format!(", {at_least} {bound}"));
        }
        if let Some(bound) = self.max_latency_ms {
            text.push_str(&format!(", a row in at most {bound} ms"));
        }
        if let Some(bound) = self.max_latency_ratio {
            text.push_str(&format!(", a row in at most {bound} times the active model's time"));
        }
        text
    }

    /// Why these figures are not good enough; empty if they are.
    pub(super) fn judge(&self, candidate: &Metrics, active: Option<&Metrics>) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let name = self.metric.name();
        // So that "better" means greater.
        let sign = if self.metric.higher_is_better() { 1.0 } else { -1.0 };
        let Some(ours) = candidate.value(self.metric) else {
            return vec![Reason::new(
                "NO_METRIC",
                format!("{name} cannot be computed from the candidate's answers"),
            )];
        };
        if let Some(bound) = self.at_least
            && sign * ours < sign * bound
        {
            let relation = if sign > 0.0 { "below" } else { "above" };
            reasons.push(Reason::new("BELOW_BOUND", format!("{name} {ours:.4} is {relation} {bound}")));
        }
        if let Some(theirs) = active.and_then(|active| active.value(self.metric))
            && sign * ours < sign * theirs + self.margin
        {
            reasons.push(Reason::new(
                "WORSE",
                format!(
                    "{name} {ours:.4} against {theirs:.4} of the active model on the same rows (margin {})",
                    self.margin
                ),
            ));
        }
        if let Some(bound) = self.max_latency_ms
            && candidate.latency_ms > bound
        {
            let text = format!("a row takes {:.3} ms, at most {bound} are allowed", candidate.latency_ms);
            reasons.push(Reason::new("SLOW", text));
        }
        if let (Some(bound), Some(active)) = (self.max_latency_ratio, active)
            && candidate.latency_ms > bound * active.latency_ms
        {
            let text = format!(
                "a row takes {:.3} ms, the active model's {:.3} ms, at most {bound} times that is allowed",
                candidate.latency_ms, active.latency_ms
            );
            reasons.push(Reason::new("SLOW", text));
        }
        reasons
    }
}
