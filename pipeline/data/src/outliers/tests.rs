//! Planted outliers are found, by every method and deterministically. That results equal scikit-learn's is tested in
//! `tests/clients/test_dataset_checks.py`.

use super::*;
use crate::sniff::sniff;
use crate::table::read;

/// A cloud of `rows` points in `columns` columns, with the last `planted` far away.
fn cloud(rows: usize, columns: usize, planted: usize) -> String {
    let mut random = Random::new(7);
    let mut normal = || (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
    let names: Vec<String> = (0..columns).map(|column| format!("c{column}")).collect();
    let mut text = format!("{}\n", names.join(","));
    for row in 0..rows {
        let far = if row >= rows - planted { 12.0 + row as f64 * 0.01 } else { 0.0 };
        let cells: Vec<String> = (0..columns).map(|_| format!("{:.6}", normal() + far)).collect();
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text
}

fn find_in(text: &str, policy: &str) -> Outcome {
    let policy = Policy::parse(policy).expect("a policy");
    let sniffed = sniff("a.csv", text.as_bytes(), &policy.limits).expect("text");
    find(&read(&sniffed, &policy).expect("a table").0, &policy, None)
}

#[test]
fn every_method_finds_what_was_planted() {
    let text = cloud(600, 3, 6);
    for method in ["sigma", "box", "dbscan", "isolation_forest", "random_cut_forest", "auto"] {
        let outcome = find_in(&text, &format!("outliers = {{ methods = [\"{method}\"] }}"));
        let report = &outcome.report.methods[0];
        for row in 595..=600 {
            assert!(report.rows.contains(&row), "{method} misses row {row}: {report:?}");
        }
        assert!(report.flagged <= 30, "{method} marks {} of 600 rows", report.flagged);
        assert!(outcome.report.scatter.as_ref().is_some_and(|scatter| scatter.points.len() <= MOST_POINTS));
        let again = find_in(&text, &format!("outliers = {{ methods = [\"{method}\"] }}"));
        assert_eq!(again.report, outcome.report, "{method} differs from run to run");
    }
}

#[test]
fn the_automatic_choice_follows_the_data() {
    for (rows, columns, method) in [
        (200, 1, "box"),
        (200, 3, "dbscan"),
        (200, 8, "isolation_forest"),
        (6000, 3, "isolation_forest"),
        (100, 40, "random_cut_forest"),
    ] {
        let outcome = find_in(&cloud(rows, columns, 1), "");
        assert_eq!(outcome.report.methods[0].method, method, "{rows} rows, {columns} columns");
        assert!(!outcome.report.methods[0].why.is_empty());
    }
}

#[test]
fn the_policy_says_what_follows() {
    let text = cloud(100, 2, 2);
    assert_eq!(find_in(&text, "").reasons.len(), 0);
    assert_eq!(find_in(&text, "outliers = { action = \"reject\" }").reasons[0].code, Code::Outliers);
    assert_eq!(find_in(&text, "outliers = { max_share = 0.01 }").reasons[0].code, Code::Outliers);
    assert_eq!(find_in(&text, "outliers = { max_share = 0.5 }").reasons.len(), 0);
    assert!(find_in(&text, "outliers = { methods = [] }").report.methods.is_empty());
    let missing = find_in(&text, "outliers = { columns = [\"c0\", \"zz\"] }");
    assert_eq!((missing.report.columns.as_slice(), missing.warnings.len()), (&["c0".to_owned()][..], 1));
}

#[test]
fn odd_tables_are_survived() {
    let all = "outliers = { methods = [\"sigma\", \"box\", \"dbscan\", \"isolation_forest\", \"random_cut_forest\"] }";
    let constant = format!("a,b\n{}", "1,2\n".repeat(50));
    let copies = format!("a,b\n{}9,9\n", "1,2\n".repeat(50));
    let huge = format!("a,b\n{}1e308,-1e308\n-1e308,1e308\n", "1,2\n3,1\n".repeat(20));
    let tiny = format!("a,b\n{}", "5e-324,1\n1e-323,2\n".repeat(20));
    let empty = format!("a,b\n{}", "NA,NA\n".repeat(20));
    let text = format!("a\n{}", "x\n".repeat(20));
    for (name, table, most) in [
        ("constant", constant, 0),
        ("copies", copies, 1),
        ("huge", huge, 42),
        ("tiny", tiny, 40),
        ("empty", empty, 0),
        ("text", text, 0),
        ("three rows", "a,b\n1,2\n2,3\n3,4\n".to_owned(), 0),
    ] {
        let outcome = find_in(&table, all);
        assert!(outcome.report.flagged <= most, "{name}: {:?}", outcome.report);
        for (method, scores) in &outcome.scores {
            assert!(
                scores.iter().all(|score| score.is_finite()),
                "{name}: {method} has a score that is no number"
            );
        }
    }
    assert_eq!(find_in(&format!("a,b\n{}9,9\n", "1,2\n".repeat(50)), all).report.flagged, 1);
}

#[test]
fn missing_values_are_no_outliers() {
    let mut text = cloud(100, 2, 0);
    text.push_str("NA,NA\n,\n");
    let outcome = find_in(&text, "outliers = { methods = [\"sigma\", \"box\", \"dbscan\"] }");
    assert!(!outcome.marked[100] && !outcome.marked[101]);
}
