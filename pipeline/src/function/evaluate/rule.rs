//! When a candidate is good enough.

use serde::{Deserialize, Serialize};

use super::RULE;
use super::metric::{Metric, Metrics};

/// Figures that differ by less are the same: 0.3 is no less than 0.1 + 0.2.
const SAME: f64 = 1e-9;

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
        match std::env::var(RULE) {
            Ok(text) => Self::parse(&text),
            Err(_) => Ok(Self::default()),
        }
    }

    /// Reads a rule; the default if the text is empty.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let rule: Self = toml::from_str(text)
            .map_err(|error| format!("{RULE} is no rule: {}", error.to_string().trim()))?;
        let numbers = [Some(rule.margin), rule.at_least, rule.max_latency_ms, rule.max_latency_ratio];
        if numbers.into_iter().flatten().any(|number| !number.is_finite()) {
            return Err(format!("{RULE}: numbers must be finite"));
        }
        if [rule.max_latency_ms, rule.max_latency_ratio].into_iter().flatten().any(|bound| bound <= 0.0) {
            return Err(format!("{RULE}: max_latency_ms and max_latency_ratio must be above 0"));
        }
        if rule.max_rows == 0 {
            return Err(format!("{RULE}: max_rows must be at least 1"));
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
            return vec![Reason::new("NO_METRIC", candidate.why_not(self.metric))];
        };
        if let Some(bound) = self.at_least
            && sign * ours < sign * bound - SAME
        {
            let relation = if sign > 0.0 { "below" } else { "above" };
            reasons.push(Reason::new(
                "BELOW_BOUND",
                format!("{name} {} is {relation} {bound}", digits(ours, bound)),
            ));
        }
        match active.map(|active| (active.value(self.metric), active)) {
            Some((Some(theirs), _)) if sign * ours < sign * theirs + self.margin - SAME => {
                reasons.push(Reason::new(
                    "WORSE",
                    format!(
                        "{name} {} against {} of the active model on the same rows (margin {})",
                        digits(ours, theirs),
                        digits(theirs, ours),
                        self.margin
                    ),
                ));
            }
            // A figure beyond all bounds is worse than any; but where there is none, nothing was compared.
            Some((None, active)) if !active.values.contains_key(name) => {
                reasons.push(Reason::new(
                    "ACTIVE_FAILED",
                    format!("the active model cannot be compared with: {}", active.why_not(self.metric)),
                ));
            }
            _ => {}
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

/// A figure with four digits, or so many that it does not look like the other one.
fn digits(figure: f64, other: f64) -> String {
    let shown = |digits: usize| (format!("{figure:.digits$}"), format!("{other:.digits$}"));
    let (text, _) = (4..17).map(shown).find(|(text, other)| text != other).unwrap_or_else(|| shown(4));
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn metrics(figure: &'static str, value: f64) -> Metrics {
        Metrics { values: BTreeMap::from([(figure, value)]), ..Metrics::none() }
    }

    fn reasons(rule: &str, ours: Metrics, theirs: Metrics) -> Vec<Reason> {
        Rule::parse(rule).expect("a rule").judge(&ours, Some(&theirs))
    }

    #[test]
    fn a_margin_that_is_just_met_is_met() {
        for (ours, theirs, margin) in [(0.3, 0.1, 0.2), (0.29, 0.28, 0.01)] {
            let rule = format!("margin = {margin}");
            assert_eq!(reasons(&rule, metrics("accuracy", ours), metrics("accuracy", theirs)), []);
        }
        let worse = reasons("margin = 0.2", metrics("accuracy", 0.29999), metrics("accuracy", 0.1));
        assert_eq!(worse[0].code, "WORSE");
    }

    #[test]
    fn a_figure_never_looks_like_the_bound_that_it_misses() {
        let missed = reasons("at_least = 0.95", metrics("accuracy", 0.94999), metrics("accuracy", 0.0));
        assert_eq!(missed[0].text, "accuracy 0.94999 is below 0.95");
    }

    #[test]
    fn nothing_is_replaced_that_was_not_compared_with() {
        let rule = "metric = \"log_loss\"";
        let mut unknown = metrics("accuracy", 1.0);
        unknown.no_log_loss = Some("no names".into());
        let refused = reasons(rule, metrics("log_loss", 0.1), unknown);
        assert_eq!((refused[0].code.as_str(), refused[0].text.contains("no names")), ("ACTIVE_FAILED", true));
        let rmse = "metric = \"rmse\"";
        assert_eq!(reasons(rmse, metrics("rmse", 1.0), metrics("rmse", f64::NAN)), []);
    }

    #[test]
    fn a_time_that_no_model_can_keep_is_no_bound() {
        assert!(Rule::parse("max_latency_ms = -1").is_err());
    }
}
