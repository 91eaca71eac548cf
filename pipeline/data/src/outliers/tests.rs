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
    let names: Vec<String> = (0..40).map(|column| column.to_string()).collect();
    let large = Matrix { names, rows: 60_000, values: Vec::new() };
    assert_eq!(automatic(&large, false).0, MethodName::IsolationForest, "too many cells for cuts");
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

fn with_rows(rows: impl IntoIterator<Item = String>) -> String {
    let rows: Vec<String> = rows.into_iter().collect();
    let width = rows[0].split(',').count();
    let names: Vec<String> = (0..width).map(|column| format!("c{column}")).collect();
    format!("{}\n{}\n", names.join(","), rows.join("\n"))
}

fn missed(outcome: &Outcome, planted: usize) -> usize {
    outcome.marked.iter().rev().take(planted).filter(|marked| !**marked).count()
}

#[test]
fn dbscan_finds_the_one_row_that_is_far_from_many_copies() {
    let mut random = Random::new(3);
    let points: Vec<String> =
        (0..20).map(|_| (0..4).map(|_| random.unit().to_string()).collect::<Vec<_>>().join(",")).collect();
    let mut digits = |most: usize, width: usize| -> String {
        (0..width).map(|_| random.below(most).to_string()).collect::<Vec<_>>().join(",")
    };
    let ratings: Vec<String> = (0..2000).map(|_| digits(3, 2)).collect();
    let flags: Vec<String> = (0..2000).map(|_| digits(2, 3)).collect();
    let copies: Vec<String> = (0..2000).map(|row| points[row % 20].clone()).collect();
    for (rows, far) in [
        (ratings, &["1000000,1000000"][..]),
        (flags, &["500,0,1", "1,-700,0"]),
        (copies, &["1000,1000,1000,1000"]),
    ] {
        let text = with_rows(rows.into_iter().chain(far.iter().map(|row| (*row).to_owned())));
        let outcome = find_in(&text, "");
        assert_eq!(outcome.report.methods[0].method, "dbscan");
        assert_eq!((missed(&outcome, far.len()), outcome.report.flagged), (0, far.len() as u64), "{far:?}");
    }
}

#[test]
fn dbscan_counts_all_neighbours_where_it_can_and_fewer_where_it_samples() {
    let dense = "outliers = { methods = [\"dbscan\"], dbscan = { eps = 0.5, min_samples = 10 } }";
    let few = find_in(&cloud(20_100, 2, 0), dense);
    assert_eq!(few.report.methods[0].parameters["clustered_rows"], 20_100);
    let many = find_in(&cloud(25_000, 5, 0), &dense.replace("0.5", "2.0"));
    let parameters = &many.report.methods[0].parameters;
    assert_eq!((&parameters["min_samples"], &parameters["min_samples_there"]), (&json!(10), &json!(8)));
    assert_eq!(many.warnings[0].code, Code::Sampled);
}

#[test]
fn dbscan_leaves_short_and_wide_tables_alone() {
    let outcome = find_in(&cloud(100, 60, 0), "outliers = { methods = [\"dbscan\"] }");
    assert!(outcome.report.flagged < 10, "{} of 100", outcome.report.flagged);
}

#[test]
fn whole_rows_are_replaced_as_far_as_they_deviate() {
    let mut text = cloud(300, 3, 0);
    text.push_str("50,60,70\n");
    let outcome = find_in(&text, "outliers = { methods = [\"dbscan\"] }");
    assert_eq!(outcome.cells.iter().filter(|(row, _)| *row == 300).count(), 3);
    let label =
        find_in(&text, "label = \"c2\"\noutliers = { methods = [\"dbscan\"], columns = [\"c0\", \"c2\"] }");
    assert_eq!(
        label.cells.iter().filter(|(row, _)| *row == 300).collect::<Vec<_>>(),
        [&(300, "c0".to_owned())]
    );
}

#[test]
fn times_are_no_numbers_to_look_at() {
    let rows = (0..40).map(|row| format!("2026-01-{:02},{row}", row % 28 + 1));
    let text = with_rows(rows.chain(["1900-01-01,3".to_owned()]));
    let outcome = find_in(&text, "outliers = { methods = [\"sigma\"], columns = [\"c0\", \"c1\"] }");
    assert_eq!(outcome.report.columns, ["c1"]);
    assert!(outcome.warnings[0].text.contains("no column of numbers"));
}

/// A forest that calls all rows ordinary, and keeps the names of the columns it was given.
struct Recorder(std::cell::RefCell<Vec<String>>);

impl Forest for Recorder {
    fn judge(&self, matrix: &Matrix) -> Result<ForestAnswer, String> {
        self.0.borrow_mut().clone_from(&matrix.names);
        Ok(ForestAnswer { outlier: vec![false; matrix.rows], scores: vec![-0.1; matrix.rows] })
    }
}

#[test]
fn the_active_models_forest_gets_constant_columns_and_keeps_its_own_threshold() {
    let forest = Recorder(Vec::new().into());
    for (policy, warnings) in [("", 0), ("outliers = { isolation_forest = { threshold = 0.6 } }", 1)] {
        let policy = Policy::parse(&format!("key = \"c0\"\n{policy}")).expect("a policy");
        let text = with_rows((0..20).map(|row| format!("{row},5,{}", row % 3)));
        let sniffed = sniff("a.csv", text.as_bytes(), &policy.limits).expect("text");
        let outcome = find(&read(&sniffed, &policy).expect("a table").0, &policy, Some(&forest));
        assert_eq!(*forest.0.borrow(), ["c1", "c2"]);
        assert_eq!((outcome.report.flagged, outcome.warnings.len()), (0, warnings));
    }
}

#[test]
fn the_random_cut_forest_marks_among_ties() {
    let mut random = Random::new(5);
    let mut rare = |width: usize, share: f64| -> String {
        (0..width).map(|_| u8::from(random.unit() < share).to_string()).collect::<Vec<_>>().join(",")
    };
    for (width, share) in [(40, 0.01), (8, 0.05)] {
        let rows: Vec<String> = (0..600).map(|_| rare(width, share)).collect();
        let far = (0..3).map(|row| vec![format!("{}", 50 + row); width].join(","));
        let text = with_rows(rows.into_iter().chain(far));
        let outcome = find_in(&text, "outliers = { methods = [\"random_cut_forest\"] }");
        assert_eq!(missed(&outcome, 3), 0, "{width} columns");
        assert!(outcome.report.flagged <= 30, "{width} columns: {} rows", outcome.report.flagged);
    }
    let mut inflated = |_| -> String {
        let mut cell = || if random.unit() < 0.97 { 0.0 } else { -random.unit().ln() };
        (0..8).map(|_| cell().to_string()).collect::<Vec<_>>().join(",")
    };
    let text = with_rows((0..600).map(&mut inflated));
    let outcome = find_in(&text, "outliers = { methods = [\"random_cut_forest\"] }");
    assert!(outcome.report.flagged <= 30, "{} of 600 rows, most of them zeros", outcome.report.flagged);
}

#[test]
fn dbscan_says_of_how_many_rows_its_radius_is() {
    for (rows, columns, measured) in [(300, 6, 300), (5200, 2, 5200), (5200, 5, 5000)] {
        let outcome = find_in(&cloud(rows, columns, 3), "outliers.methods = [\"dbscan\"]");
        assert_eq!(outcome.report.methods[0].parameters["eps_rows"], json!(measured));
    }
    let given = find_in(&cloud(100, 2, 3), "outliers = { methods = [\"dbscan\"], dbscan = { eps = 0.5 } }");
    assert_eq!(given.report.methods[0].parameters["eps_rows"], json!(0));
}

#[test]
fn a_cell_without_a_value_is_drawn_nowhere() {
    let row = |row: usize| match row % 5 {
        0 => format!(",{row}\n"),
        1 => format!("{row},\n"),
        _ => format!("{row},{}\n", row * 7 % 100),
    };
    let text = format!("a,b\n{}9000,9000\n,9000\n", (0..100).map(row).collect::<String>());
    let outcome = find_in(&text, "outliers.methods = [\"box\"]");
    assert_eq!(outcome.report.flagged, 2);
    let scatter = outcome.report.scatter.expect("a drawing");
    assert_eq!(scatter.points.len(), 61);
    assert_eq!(scatter.points.iter().filter(|point| point.2).count(), 1);
    // The only marked row has no place.
    let text = format!("a,b\n{},9000\n", (0..100).map(row).collect::<String>());
    let outcome = find_in(&text, "outliers.methods = [\"box\"]");
    assert_eq!((outcome.report.flagged, outcome.report.scatter), (1, None));
}

#[test]
fn sigma_finds_what_is_far_among_large_numbers() {
    // Nanoseconds within half a millisecond of each other, and five rows three milliseconds later.
    for offset in [1_760_000_000_000_000_000_i64, (1 << 53) - 10_000_000] {
        let row = |row: i64| {
            let late = if row < 5 { 3_000_000 } else { 0 };
            format!("{}\n", offset + row * 7919 % 1009 * 512 + late)
        };
        let text = format!("a\n{}", (0..2000).map(row).collect::<String>());
        let outcome = find_in(&text, "outliers.methods = [\"sigma\"]");
        assert_eq!(outcome.report.methods[0].rows, [1, 2, 3, 4, 5], "{offset}");
    }
}
