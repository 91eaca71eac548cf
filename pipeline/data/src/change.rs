//! A version against the one before, and against the data that the active model was trained on.
//!
//! Drift is the population stability index: `PSI = sum over bins of (a - e) * ln(a / e)`, where `e` and `a` are the bin's
//! shares in reference and new data. Bins are the reference's own: its deciles and frequent numbers, or a category's values,
//! and one more for cells without a value; those that are empty on both sides are left out. Half a row is added to every bin, so that an
//! empty one does not make the sum infinite: a fixed smallest share, as others have, makes any small sample drift. With
//! equal distributions PSI is about `(1/n + 1/m) * chi-square(bins - 1)` (Yurdakul 2018): of small samples it is large by
//! chance alone, so what lies below the 99.9 % quantile of that is no drift.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::finding::{Code, Finding, Rows, shown};
use crate::policy::Policy;
use crate::profile::{ColumnProfile, Histogram, Profile, Shape, quantile_counts};
use crate::table::{Column, Kind, Table};

/// Rows that are added to every bin.
const SMOOTHING: f64 = 0.5;
/// Standard normal quantile at 99.9 %.
const Z999: f64 = 3.090_232_306_167_813;

/// What has changed since the version before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The version before.
    pub against: String,
    /// Rows in columns that both have, counted as often as they occur.
    pub kept: u64,
    pub added: u64,
    pub removed: u64,
    /// With a key only: keys that are in both versions with other cells, and the first rows of these.
    pub changed: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed_rows: Vec<u64>,
    pub columns_added: Vec<String>,
    pub columns_removed: Vec<String>,
    /// Column, type before, type now.
    pub columns_retyped: Vec<(String, Kind, Kind)>,
    /// Do the columns that both have come in another order?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub columns_reordered: bool,
}

/// How far all columns have moved from a reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// `previous` or `training`.
    pub reference: String,
    /// The dataset's version that is the reference.
    pub against: String,
    /// Most first.
    pub columns: Vec<ColumnDrift>,
}

/// How far one column has moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnDrift {
    pub column: String,
    pub psi: f64,
    /// What chance alone exceeds once in a thousand times.
    pub chance: f64,
    /// Is it the label?
    pub label: bool,
    /// Shares of the bins; the last is that of cells without a value.
    pub expected: Vec<f64>,
    pub actual: Vec<f64>,
    /// The reference's, for drawing.
    pub shape: Option<Shape>,
}

/// Compares two tables.
pub(crate) fn change(against: &str, before: &Table, now: &Table, policy: &Policy) -> Change {
    let (old, new) = (before.names(), now.names());
    let both: Vec<&str> = new.iter().copied().filter(|name| before.column(name).is_some()).collect();
    let absent = |from: &[&str], other: &Table| -> Vec<String> {
        from.iter().filter(|name| other.column(name).is_none()).map(|name| shown(name)).collect()
    };
    let both_before = old.iter().copied().filter(|name| now.column(name).is_some());
    let (was, is) = (before.row_hashes(&both), now.row_hashes(&both));
    // Without a column in common all rows are equal in none.
    let kept = if both.is_empty() { 0 } else { in_both(&was, &is) };
    let mut change = Change {
        against: against.to_owned(),
        kept,
        added: is.len() as u64 - kept,
        removed: was.len() as u64 - kept,
        changed: None,
        changed_rows: Vec::new(),
        columns_added: absent(&new, before),
        columns_removed: absent(&old, now),
        columns_retyped: Vec::new(),
        columns_reordered: !both_before.eq(both.iter().copied()),
    };
    for name in &both {
        if let (Some(old), Some(new)) = (before.column(name), now.column(name))
            && old.kind != new.kind
        {
            change.columns_retyped.push((shown(name), old.kind, new.kind));
        }
    }
    let keys = policy.key.as_deref().and_then(|key| Some((before.column(key)?, now.column(key)?)));
    if let Some((old, new)) = keys {
        let known: HashMap<&str, u128> =
            was.iter().enumerate().map(|(row, hash)| (old.cell(row).trim(), *hash)).collect();
        let mut rows = Rows::default();
        for (row, hash) in is.iter().enumerate() {
            if known.get(new.cell(row).trim()).is_some_and(|known| known != hash) {
                rows.add(row);
            }
        }
        change.changed = Some(rows.count);
        change.changed_rows = rows.first().to_vec();
    }
    change
}

/// Elements that two multisets share.
fn in_both(one: &[u128], other: &[u128]) -> u64 {
    let (mut one, mut other) = (one.to_vec(), other.to_vec());
    one.sort_unstable();
    other.sort_unstable();
    let (mut at, mut shared) = (0, 0);
    for hash in one {
        while other.get(at).is_some_and(|next| *next < hash) {
            at += 1;
        }
        if other.get(at) == Some(&hash) {
            at += 1;
            shared += 1;
        }
    }
    shared
}

/// What is to be said of columns that came, went or changed their type.
pub(crate) fn column_findings(change: &Change) -> Vec<Finding> {
    let added = change
        .columns_added
        .iter()
        .map(|name| Finding::new(Code::ColumnAdded, format!("column {name} is new")).in_column(name));
    let removed = change
        .columns_removed
        .iter()
        .map(|name| Finding::new(Code::ColumnRemoved, format!("column {name} is gone")).in_column(name));
    let retyped = change.columns_retyped.iter().map(|(name, before, now)| {
        let text = format!("column {name} was of type {}, it is {} now", before.id(), now.id());
        Finding::new(Code::ColumnRetyped, text).in_column(name)
    });
    let reordered = change.columns_reordered.then(|| {
        let text = "the columns come in another order than before; what takes them by position gets others";
        Finding::new(Code::ColumnReordered, text)
    });
    added.chain(removed).chain(retyped).chain(reordered).collect()
}

/// Measures the drift of every column that a reference has too.
pub(crate) fn drift(
    reference: &str,
    against: &str,
    profile: &Profile,
    table: &Table,
    policy: &Policy,
) -> Drift {
    let mut columns: Vec<ColumnDrift> = profile
        .columns
        .iter()
        .filter(|column| !policy.drift.ignore.contains(&column.name) && !policy.is_key(&column.name))
        .filter_map(|column| {
            let now = table.column(&column.name)?;
            column_drift(column, now, table.rows(), policy.is_label(&column.name))
        })
        .collect();
    columns.sort_by(|one, other| other.psi.total_cmp(&one.psi).then_with(|| one.column.cmp(&other.column)));
    Drift { reference: reference.to_owned(), against: against.to_owned(), columns }
}

fn column_drift(before: &ColumnProfile, now: &Column, rows: usize, label: bool) -> Option<ColumnDrift> {
    let (expected, actual) = match before.histogram.as_ref()? {
        Histogram::Quantiles { edges, counts, nulls } => {
            if now.numbers().is_empty() {
                return None;
            }
            let mut now_counts = quantile_counts(edges, now.values().into_iter());
            if now_counts.len() != counts.len() {
                return None;
            }
            // A cell of another type counts as one without a value.
            now_counts.push(now.numbers().iter().filter(|value| !value.is_finite()).count() as u64);
            let expected: Vec<u64> = counts.iter().copied().chain([*nulls]).collect();
            (expected, now_counts)
        }
        Histogram::Values { values, counts, other, nulls } => {
            let places: HashMap<&str, usize> =
                values.iter().enumerate().map(|(at, value)| (value.as_str(), at)).collect();
            let mut now_counts = vec![0_u64; values.len() + 2];
            for row in 0..rows {
                let at = match now.is_null(row) {
                    true => values.len() + 1,
                    false => places.get(now.cell(row).trim()).copied().unwrap_or(values.len()),
                };
                now_counts[at] += 1;
            }
            if counts.len() != values.len() {
                return None;
            }
            let expected: Vec<u64> = counts.iter().copied().chain([*other, *nulls]).collect();
            (expected, now_counts)
        }
    };
    let (rows_before, rows_now) = (expected.iter().sum::<u64>(), actual.iter().sum::<u64>());
    if rows_before == 0 || rows_now == 0 {
        return None;
    }
    let used = expected.iter().zip(&actual).filter(|(e, a)| **e > 0 || **a > 0).count();
    let shares = |counts: &[u64], all: u64| counts.iter().map(|count| *count as f64 / all as f64).collect();
    Some(ColumnDrift {
        column: now.name.clone(),
        psi: psi(&expected, &actual),
        chance: (1.0 / rows_before as f64 + 1.0 / rows_now as f64) * chi_square_999(used.saturating_sub(1)),
        expected: shares(&expected, rows_before),
        actual: shares(&actual, rows_now),
        label,
        shape: before.shape.clone(),
    })
}

/// The population stability index of bins' counts.
fn psi(expected: &[u64], actual: &[u64]) -> f64 {
    let used: Vec<(f64, f64)> = expected
        .iter()
        .zip(actual)
        .filter(|(expected, actual)| **expected > 0 || **actual > 0)
        .map(|(expected, actual)| (*expected as f64 + SMOOTHING, *actual as f64 + SMOOTHING))
        .collect();
    let (before, now) = used.iter().fold((0.0, 0.0), |(before, now), (e, a)| (before + e, now + a));
    used.iter().map(|(e, a)| (a / now - e / before) * ((a / now) / (e / before)).ln()).sum()
}

/// The 99.9 % quantile of chi-square: the approximation of Wilson and Hilferty (1931), which is off by up to 4 %, mended by
/// Newton's steps.
fn chi_square_999(degrees: usize) -> f64 {
    /// Each doubles the digits that are right.
    const STEPS: usize = 6;
    if degrees == 0 {
        return 0.0;
    }
    let freedom = degrees as f64;
    let part = 2.0 / (9.0 * freedom);
    let mut quantile = freedom * (1.0 - part + Z999 * part.sqrt()).powi(3);
    for _ in 0..STEPS {
        let (share, density) = chi_square(degrees, quantile);
        quantile -= (share - 0.999) / density;
    }
    quantile
}

/// The share of chi-square below `at`, and its density there: the regularised incomplete gamma function by its series
/// (Abramowitz, Stegun: Handbook of Mathematical Functions, 6.5.29), whose terms are all positive.
fn chi_square(degrees: usize, at: f64) -> (f64, f64) {
    let (shape, at) = (degrees as f64 / 2.0, at / 2.0);
    // The gamma function of shape + 1, from that of 1 or of 1/2, which is the square root of pi.
    let (first, logarithm) =
        if degrees.is_multiple_of(2) { (1.0, 0.0) } else { (0.5, std::f64::consts::PI.ln() / 2.0) };
    let steps = 0..degrees.div_ceil(2);
    let gamma: f64 = logarithm + steps.map(|step| (first + step as f64).ln()).sum::<f64>();
    let first_term = (shape * at.ln() - at - gamma).exp();
    let (mut sum, mut term, mut divisor) = (0.0, first_term, shape);
    while term > sum * f64::EPSILON {
        sum += term;
        divisor += 1.0;
        term *= at / divisor;
    }
    (sum, first_term * shape / at / 2.0)
}

/// What is to be said of drift: reasons, and warnings.
pub(crate) fn drift_findings(drift: &Drift, policy: &Policy) -> (Vec<Finding>, Vec<Finding>) {
    let (mut reasons, mut warnings) = (Vec::new(), Vec::new());
    for column in drift.columns.iter().filter(|column| column.psi > column.chance) {
        let what = if column.label { "the label " } else { "" };
        let found = |limit: f64| {
            let text = format!(
                "{what}{} is distributed otherwise than in the {} data: PSI {:.3}, the limit is {limit}",
                shown(&column.column),
                drift.reference,
                column.psi
            );
            Finding::new(Code::Drift, text).in_column(&column.column)
        };
        match policy.drift.psi_reject {
            Some(limit) if column.psi >= limit => reasons.push(found(limit)),
            _ if column.psi >= policy.drift.psi_warn => warnings.push(found(policy.drift.psi_warn)),
            _ => {}
        }
    }
    (reasons, warnings)
}

/// The label's classes in shares of all rows, by name.
pub fn class_shares(profile: &Profile) -> Vec<(String, f64)> {
    let all: u64 = profile.classes.iter().map(|(_, count)| count).sum();
    let mut shares: Vec<(String, f64)> = profile
        .classes
        .iter()
        .map(|(class, count)| (class.clone(), *count as f64 / all.max(1) as f64))
        .collect();
    shares.sort_by(|one, other| one.0.cmp(&other.0));
    shares
}

/// Classes that came or went.
pub(crate) fn class_findings(before: &Profile, now: &Profile, label: &str) -> Vec<Finding> {
    if before.classes.is_empty() || now.classes.is_empty() {
        return Vec::new();
    }
    let lacks = |profile: &Profile, class: &str| !profile.classes.iter().any(|(known, _)| known == class);
    let new = now.classes.iter().filter(|(class, _)| lacks(before, class)).map(|(class, count)| {
        let text = format!("the label {:?} is new ({count} rows)", shown(class));
        Finding::new(Code::LabelNew, text).in_column(label)
    });
    let gone = before.classes.iter().filter(|(class, _)| lacks(now, class)).map(|(class, count)| {
        let text = format!("the label {:?} is gone (it had {count} rows)", shown(class));
        Finding::new(Code::LabelGone, text).in_column(label)
    });
    new.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::profile;
    use crate::sniff::sniff;
    use crate::table::read;

    fn table(text: &str) -> Table {
        let policy = Policy::default();
        read(&sniff("a.csv", text.as_bytes(), &policy.limits).expect("text"), &policy).expect("a table").0
    }

    #[test]
    fn psi_is_the_documented_sum() {
        // By hand: with half a row more, and without the bin that is empty on both sides.
        let by_hand = 0.25 * 2_f64.ln() - 0.25 * (0.5_f64 / 0.75).ln();
        assert!((psi(&[3, 11, 0], &[7, 7, 0]) - psi(&[11, 3], &[7, 7])).abs() < 1e-12);
        let shares = [(3.5, 7.5), (11.5, 7.5)].map(|(e, a): (f64, f64)| (a / 15.0 - e / 15.0) * (a / e).ln());
        assert!((psi(&[3, 11, 0], &[7, 7, 0]) - shares.iter().sum::<f64>()).abs() < 1e-12);
        assert!((psi(&[250_000, 750_000], &[500_000, 500_000]) - by_hand).abs() < 1e-5);
        assert_eq!(psi(&[3, 7], &[3, 7]), 0.0);
    }

    #[test]
    fn the_quantile_of_chi_square_is_scipys() {
        // scipy.stats.chi2.ppf(0.999, [1, 2, 3, 4, 9, 30, 51, 300])
        let there = [
            (1, 10.8275661707),
            (2, 13.815510558),
            (3, 16.2662361962),
            (4, 18.4668269529),
            (9, 27.8771648713),
            (30, 59.7030643044),
            (51, 87.9679804756),
            (300, 381.42524852),
        ];
        for (degrees, quantile) in there {
            assert!((chi_square_999(degrees) / quantile - 1.0).abs() < 1e-9, "{degrees}");
        }
        assert_eq!(chi_square_999(0), 0.0);
    }

    #[test]
    fn rows_are_compared_as_multisets_and_by_key() {
        let before = table("id,x\n1,a\n2,b\n3,c\n3,c\n");
        let now = table("x,id\nb,2\na,1\nd,3\nc,3\nz,9\n");
        let plain = change("v1", &before, &now, &Policy::default());
        assert_eq!((plain.kept, plain.added, plain.removed, plain.changed), (3, 2, 1, None));
        assert!(plain.columns_reordered && !change("v1", &now, &now, &Policy::default()).columns_reordered);
        let apart = change("v1", &before, &table("k,v\n1,a\n"), &Policy::default());
        assert_eq!((apart.kept, apart.added, apart.removed), (0, 1, 4));
        let keyed = Policy::parse("key = \"id\"").expect("a policy");
        let blank = change("v1", &table("id,x\n 5,a\n"), &table("id,x\n5,b\n"), &keyed);
        assert_eq!(blank.changed, Some(1));
        let by_key = change("v1", &before, &now, &keyed);
        assert_eq!((by_key.changed, by_key.changed_rows), (Some(1), vec![3]));
    }

    #[test]
    fn columns_that_come_go_or_change_are_told() {
        let before = table("a,b,c\n1,2,3\n4,5,6\n");
        let now = table("a,b,d\n1,x,3\n4,y,6\n");
        let change = change("v1", &before, &now, &Policy::default());
        assert_eq!(
            (change.columns_added, change.columns_removed),
            (vec!["d".to_owned()], vec!["c".to_owned()])
        );
        assert_eq!(change.columns_retyped, [("b".to_owned(), Kind::Integer, Kind::Category)]);
        // Rows are compared in what both have.
        assert_eq!((change.kept, change.added), (0, 2));
    }

    #[test]
    fn what_moves_between_frequent_values_drifts() {
        let columns = |value: &dyn Fn(usize) -> String| {
            format!("a\n{}", (0..2000).map(|row| format!("{}\n", value(row))).collect::<String>())
        };
        type Value = fn(usize) -> String;
        let cases: [(Value, Value); 6] = [
            (|row| u8::from(row % 20 != 0).to_string(), |row| u8::from(row % 20 == 0).to_string()),
            (|row| [0, 1, 2][(row % 20).min(2)].to_string(), |row| [2, 1, 0][(row % 20).min(2)].to_string()),
            (|_| "5".into(), |_| "3".into()),
            (|_| "5.5".into(), |_| "-1e9".into()),
            // Many other values beside the frequent one, in the first bin and elsewhere.
            (
                |row| if row % 12 > 0 { "0".into() } else { format!("{}.5", row) },
                |row| if row % 12 > 0 { "-100".into() } else { format!("{}.5", row) },
            ),
            (|row| row.to_string(), |row| if row < 200 { "-1e9".into() } else { row.to_string() }),
        ];
        let policy = Policy::default();
        for (at, (before, now)) in cases.iter().enumerate() {
            let before = table(&columns(before));
            let reference = profile(&before, &before.row_hashes(&before.names()), &policy);
            let moved = drift("previous", "v1", &reference, &table(&columns(now)), &policy);
            assert!(moved.columns[0].psi > 0.3, "case {at}: {}", moved.columns[0].psi);
            let still = drift("previous", "v1", &reference, &before, &policy);
            assert!(still.columns[0].psi.abs() < 1e-9, "case {at}");
        }
    }

    #[test]
    fn a_moved_column_drifts_and_a_still_one_does_not() {
        let text = |shift: usize, word: &str| {
            let rows = (0..500).map(|row| {
                format!(
                    "{},{},{}\n",
                    (row * 7919) % 503,
                    (row * 7919) % 503 + shift,
                    if row % 3 == 0 { word } else { "b" }
                )
            });
            format!("still,moved,word\n{}", rows.collect::<String>())
        };
        let policy = Policy::default();
        let before = table(&text(0, "a"));
        let reference = profile(&before, &before.row_hashes(&before.names()), &policy);
        let drift = drift("previous", "v1", &reference, &table(&text(200, "z")), &policy);
        let psi = |name: &str| drift.columns.iter().find(|column| column.column == name).expect(name).psi;
        assert!(psi("moved") > 0.5 && psi("word") > 0.5, "{drift:?}");
        assert!(psi("still").abs() < 1e-9);
        let (reasons, warnings) = drift_findings(&drift, &policy);
        assert_eq!((reasons.len(), warnings.len()), (0, 2));
        let strict = Policy::parse("drift = { psi_reject = 0.5 }").expect("a policy");
        assert_eq!(drift_findings(&drift, &strict).0.len(), 2);
    }
}
