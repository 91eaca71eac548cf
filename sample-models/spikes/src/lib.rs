//! Finds spikes in time series: how far is the last value from what the values before it lead to expect?
//!
//! Median and median absolute deviation instead of mean and standard deviation, as one old spike among the values
//! would hide a new one otherwise. Source: B. Iglewicz, D. C. Hoaglin, How to Detect and Handle Outliers, 1993.

use baton_model_abi::{Datatype, Error, Inputs, Model, Outputs, Signature, export_model};

/// Fewer values give no idea of the usual spread.
const FEWEST_KNOWN: usize = 8;
/// Scores above are spikes: the limit of Iglewicz and Hoaglin.
const LIMIT: f32 = 3.5;
/// Makes the median absolute deviation of normally distributed values their standard deviation.
const PER_MEDIAN_DEVIATION: f64 = 1.4826;
/// The same for the mean absolute deviation: the root of half of pi.
const PER_MEAN_DEVIATION: f64 = 1.253_314;

struct Spikes;

impl Model for Spikes {
    fn create() -> Result<Self, Error> {
        Ok(Self)
    }

    fn signature(&self) -> Signature {
        Signature::new()
            // Rows are series of equal length, oldest value first; NaN is a missing value.
            .input("series", Datatype::Fp32, &[-1, -1])
            .output("score", Datatype::Fp32, &[-1])
            .output("expected", Datatype::Fp32, &[-1])
            .output("is_spike", Datatype::Bool, &[-1])
    }

    fn run(&self, inputs: &Inputs<'_>, outputs: &mut Outputs<'_>) -> Result<(), Error> {
        let (shape, values) = inputs.f32("series")?;
        let &[rows, length] = shape else {
            return Err(Error::failed("series has two dimensions by the signature"));
        };
        if rows > 0 && length == 0 {
            return Err(Error::invalid_input("a series needs values, these have none"));
        }
        // Without series there are no values either, and any length of the pieces will do.
        let length = usize::try_from(length).map_err(Error::failed)?.max(1);
        let judge = |(row, series)| {
            judge(series).map_err(|reason| Error::invalid_input(format!("series {row} {reason}")))
        };
        let judgements = values.chunks_exact(length).enumerate().map(judge).collect::<Result<Vec<_>, _>>()?;

        let column = |of: fn(&Judgement) -> f32| judgements.iter().map(of).collect::<Vec<_>>();
        let are_spikes: Vec<bool> = judgements.iter().map(|judgement| judgement.score > LIMIT).collect();
        outputs.put("score", &[rows], &column(|judgement| judgement.score))?;
        outputs.put("expected", &[rows], &column(|judgement| judgement.expected))?;
        outputs.put("is_spike", &[rows], &are_spikes)
    }
}

export_model!(Spikes);

#[derive(Debug, PartialEq)]
struct Judgement {
    /// Distance of the last value from the expected one, in standard deviations. NaN if the last value is missing,
    /// infinite if the values before are all the same and the last one is another.
    score: f32,
    /// Median of the values before the last one.
    expected: f32,
}

/// Judges the last value of a series.
///
/// # Errors
/// What is wrong with the series, as the end of a sentence that begins with it.
fn judge(series: &[f32]) -> Result<Judgement, String> {
    let (last, before) = series.split_last().ok_or("is empty")?;
    if let Some(position) = series.iter().position(|value| value.is_infinite()) {
        return Err(format!("has an infinite value at position {position}"));
    }
    let mut known: Vec<f64> =
        before.iter().filter(|value| !value.is_nan()).map(|value| f64::from(*value)).collect();
    if known.len() < FEWEST_KNOWN {
        return Err(format!(
            "needs at least {FEWEST_KNOWN} known values before its last one, and has {}",
            known.len()
        ));
    }
    let expected = median(&mut known);
    let mut deviations: Vec<f64> = known.iter().map(|value| (value - expected).abs()).collect();
    // If more than half of the values are the same, their median deviation is 0; the mean is then what is left to
    // measure with. Iglewicz and Hoaglin leave this case open.
    let spread = match PER_MEDIAN_DEVIATION * median(&mut deviations) {
        0.0 => PER_MEAN_DEVIATION * deviations.iter().sum::<f64>() / deviations.len() as f64,
        spread => spread,
    };
    let distance = (f64::from(*last) - expected).abs();
    // As 0 / 0 is no number: a value as expected is none that is missing.
    let score = if distance == 0.0 { 0.0 } else { distance / spread };
    Ok(Judgement { score: score as f32, expected: expected as f32 })
}

/// The middle one, or the mean of the two middle ones, of at least one value. Sorts them.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len().is_multiple_of(2) {
        true => (values[middle - 1] + values[middle]) / 2.0,
        false => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(series: &[f32], expected: f32, score: f32) {
        let judgement = judge(series).expect("a judgement");
        assert_eq!(judgement.expected, expected, "{series:?}");
        let near = (judgement.score - score).abs() <= 1e-5 * score;
        let same = judgement.score == score || (judgement.score.is_nan() && score.is_nan());
        assert!(near || same, "{series:?}: {}", judgement.score);
    }

    #[test]
    fn the_distance_is_measured_in_median_deviations() {
        // Median 4.5; deviations 0.5, 0.5, 1.5, 1.5, 2.5, 2.5, 3.5, 3.5.
        check(&[8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0, 10.5], 4.5, 6.0 / (1.4826 * 2.0));
        check(&[8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0, -1.5], 4.5, 6.0 / (1.4826 * 2.0));
        check(&[8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0, 4.5], 4.5, 0.0);
        // Missing values are none: the same, and an odd number of them.
        let gaps = [f32::NAN, 8.0, 1.0, 7.0, f32::NAN, 2.0, 6.0, 3.0, 5.0, 4.0, f32::NAN, 10.5];
        check(&gaps, 4.5, 6.0 / (1.4826 * 2.0));
        check(&[9.0, 8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0, 10.0], 5.0, 5.0 / (1.4826 * 2.0));
    }

    #[test]
    fn values_that_do_not_vary_have_a_score_too() {
        // Seven of eight are the same; the mean deviation is 1.
        check(&[2.0, 2.0, 2.0, 10.0, 2.0, 2.0, 2.0, 2.0, 12.0], 2.0, 10.0 / 1.253_314);
        check(&[2.0; 9], 2.0, 0.0);
        check(&[2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.5], 2.0, f32::INFINITY);
    }

    #[test]
    fn a_missing_last_value_has_no_score() {
        check(&[8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0, f32::NAN], 4.5, f32::NAN);
        check(&[2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, f32::NAN], 2.0, f32::NAN);
    }

    #[test]
    fn what_cannot_be_judged_is_refused_with_a_reason() {
        for (series, reason) in [
            (&[][..], "is empty"),
            (&[1.0; 8], "needs at least 8 known values before its last one, and has 7"),
            (&[f32::NAN; 20], "needs at least 8 known values before its last one, and has 0"),
            (&[1.0, f32::INFINITY, 1.0], "has an infinite value at position 1"),
        ] {
            assert_eq!(judge(series), Err(reason.to_owned()));
        }
    }

    #[test]
    fn the_golden_rows_are_answered() {
        let rows = include_str!("../v1/golden.jsonl");
        let floats = |value: &serde_json::Value| -> Vec<f32> {
            let one = |value: &serde_json::Value| match value.as_str() {
                Some(text) => text.parse().expect("NaN or Infinity"),
                None => value.as_f64().expect("a number") as f32,
            };
            value.as_array().expect("a list").iter().map(one).collect()
        };
        for row in rows.lines() {
            let row: serde_json::Value = serde_json::from_str(row).expect("JSON");
            let outputs = &row["outputs"];
            let (scores, expected) = (floats(&outputs["score"]), floats(&outputs["expected"]));
            for (index, series) in row["inputs"]["series"].as_array().expect("rows").iter().enumerate() {
                check(&floats(series), expected[index], scores[index]);
                assert_eq!(outputs["is_spike"][index], scores[index] > LIMIT, "{}", row["name"]);
            }
        }
        assert!(rows.lines().count() >= 5);
    }
}
