//! Whole checks by the crate's public face: which codes a file and a policy give, what the parts hold, and that no input
//! breaks anything.

#![allow(clippy::expect_used, reason = "a test says what is wrong by failing where it is")]

use std::collections::BTreeSet;

use baton_data::{
    Checked, Code, Input, Outside, Policy, Previous, Report, Verdict, check, html, read_report,
};
use proptest::prelude::*;

fn run(file: &str, bytes: &[u8], policy: &str, previous: Option<(&[u8], &Report)>) -> Checked {
    let policy = Policy::parse(policy).expect("a policy");
    let input = Input {
        dataset: "d",
        file,
        digest: "sha256:now",
        origin: Some("ci"),
        bytes,
        policy_digest: "sha256:policy",
    };
    let previous = previous.map(|(bytes, report)| Previous {
        digest: "sha256:before",
        file,
        bytes: Some(bytes),
        report: Some(report),
    });
    check(&input, &policy, &Outside { previous, ..Outside::NOTHING })
}

/// A table of 40 good rows, and what follows them.
fn people(rest: &str) -> String {
    let row = |row: usize| {
        format!("{row},{},{},{}\n", 20 + row % 30, ["a", "b", "c"][row % 3], ["yes", "no"][row % 2])
    };
    format!("id,age,group,label\n{}{rest}", (0..40).map(row).collect::<String>())
}

fn codes<'a>(findings: impl IntoIterator<Item = &'a baton_data::Finding>) -> BTreeSet<&'static str> {
    findings.into_iter().map(|finding| finding.code.id()).collect()
}

#[test]
fn the_policy_is_enforced_with_rows_and_columns() {
    let age = "[columns.age]\n";
    let cases: &[(&str, &str, &[&str])] = &[
        ("", "", &[]),
        ("[columns.age]\ntype = \"integer\"\nmin = 0\nmax = 150", "", &[]),
        ("[columns.age]\nmin = 0", "99,-4,a,yes\n", &["BELOW_MIN"]),
        ("[columns.age]\nmax = 45", "99,46,a,yes\n", &["ABOVE_MAX"]),
        ("[columns.age]\ntype = \"integer\"", "99,4.5,a,yes\n", &["BAD_TYPE"]),
        ("", "99,old,a,yes\n", &["MIXED_TYPES"]),
        ("refuse_mixed = false\n[columns.age]\nmin = 0", "99,old,a,yes\n", &["BAD_TYPE"]),
        ("[columns.group]\nmax = 150", "", &["BAD_TYPE"]),
        ("features = [\"age\", \"heigth\"]", "", &["COLUMN_MISSING"]),
        ("features = [\"age\"]", "", &[]),
        ("refuse_mixed = false", "99,old,a,yes\n", &[]),
        ("[columns.group]\nvalues = [\"a\", \"b\", \"c\"]", "99,4,z,yes\n", &["VALUE_UNKNOWN"]),
        ("[columns.group]\npattern = \"[a-c]\"", "99,4,ab,yes\n", &["PATTERN"]),
        ("[columns.group]\nnulls = 0.0", "99,4,NA,yes\n", &["TOO_MANY_NULLS"]),
        ("[columns.group]\nnulls = 0.1", "99,4,NA,yes\n", &[]),
        ("[columns.id]\nunique = true", "0,4,a,yes\n", &["NOT_UNIQUE"]),
        ("[columns.mail]", "", &["COLUMN_MISSING"]),
        ("[columns.mail]\nrequired = false", "", &[]),
        ("extra_columns = \"refuse\"\n[columns.age]", "", &["COLUMN_EXTRA"]),
        ("label = \"label\"", "99,4,a,\n", &["LABEL_NULL"]),
        ("label = \"class\"", "", &["LABEL_MISSING"]),
        ("key = \"id\"", "0,4,a,yes\n", &["KEY_DUPLICATE"]),
        ("key = \"id\"", ",4,a,yes\n", &["KEY_NULL"]),
        ("key = \"name\"", "", &["KEY_MISSING"]),
        ("max_duplicates = 0.01", "0,20,a,yes\n", &["DUPLICATE_ROWS"]),
        ("max_duplicates = 0.1", "0,20,a,yes\n", &[]),
        ("dataset = \"e\"", "", &["WRONG_DATASET"]),
        ("origins = [\"cron\"]", "", &["ORIGIN_UNKNOWN"]),
        ("origins = [\"ci\"]", "", &[]),
        ("outliers = { action = \"reject\", columns = [\"age\"] }", "99,4000,a,yes\n", &["OUTLIERS"]),
    ];
    assert!(cases.iter().any(|(policy, ..)| policy.starts_with(age)));
    for (policy, rest, wanted) in cases {
        let report = run("d.csv", people(rest).as_bytes(), policy, None).report;
        assert_eq!(
            codes(&report.reasons),
            wanted.iter().copied().collect(),
            "{policy:?} {rest:?}: {:?}",
            report.reasons
        );
        let verdict = match *wanted {
            [] => Verdict::Accepted,
            ["ORIGIN_UNKNOWN"] => Verdict::NeedsReview,
            _ => Verdict::Rejected,
        };
        assert_eq!(report.verdict, verdict, "{policy:?}");
    }
}

#[test]
fn a_finding_about_a_cell_names_the_row() {
    let report =
        run("d.csv", people("99,-4,a,yes\n98,-5,a,no\n").as_bytes(), "[columns.age]\nmin = 0", None).report;
    let finding = &report.reasons[0];
    assert_eq!(
        (finding.column.as_deref(), finding.rows.as_slice(), finding.count),
        (Some("age"), &[41, 42][..], 2)
    );
}

#[test]
fn a_private_column_leaves_nothing_in_the_report() {
    let row = |row: usize| format!("Ann{row},77{row:03},{},x\n", ["secret", "geheim"][row % 2]);
    let text = format!("name,number,label,w\n{}aged,aged,,x\n", (0..40).map(row).collect::<String>());
    let policy = "label = \"label\"\nrefuse_mixed = false\nmask.columns = { name = \"hash\", number = \"bucket=10\", label = \
                  \"hash\" }\n[columns.name]\npattern = \"[0-9]+\"\n[columns.number]\nmax = 5";
    let first = run("d.csv", text.as_bytes(), policy, None).report;
    let report =
        run("d.csv", text.replace("geheim", "hidden").as_bytes(), policy, Some((text.as_bytes(), &first)))
            .report;
    assert_eq!(codes(&report.reasons), BTreeSet::from(["ABOVE_MAX", "BAD_TYPE", "LABEL_NULL", "PATTERN"]));
    let told = serde_json::to_string(&report).expect("JSON") + &html(&report);
    for private in ["Ann", "77", "secret", "geheim", "hidden", "aged"] {
        assert!(!told.contains(private), "{private}");
    }
}

#[test]
fn large_whole_numbers_are_told_apart() {
    let ids: String = (0..100_u64).map(|at| format!("{}\n", (1 << 53) + at)).collect();
    let report = run("d.csv", format!("id\n{ids}").as_bytes(), "", None).report;
    assert_eq!(report.profile.expect("a profile").columns[0].distinct, 100);
    let policy = |limit: &str| format!("holdout = 0.0\ncolumns.id = {{ {limit} }}");
    let near = "id\n9007199254740992\n9007199254740993\n9007199254740992\n";
    for (limit, wanted) in [
        ("max = 9007199254740992", Some("ABOVE_MAX")),
        ("max = 9007199254740993", None),
        ("max = 9007199254740992.0", Some("ABOVE_MAX")),
        ("min = 9007199254740993", Some("BELOW_MIN")),
        ("min = 9007199254740992", None),
        ("type = \"number\", max = 9007199254740992", Some("ABOVE_MAX")),
        ("max = 1e300", None),
    ] {
        let report = run("d.csv", near.as_bytes(), &policy(limit), None).report;
        assert_eq!(codes(&report.reasons), wanted.into_iter().collect(), "{limit}");
        let distinct = report.profile.expect("a profile").columns[0].distinct;
        // As floats, which the policy may ask for, they are one.
        assert_eq!(
            (distinct, codes(&report.warnings).contains("CONSTANT")),
            if limit.contains("type") { (1, true) } else { (2, false) }
        );
    }
    let crossed = Policy::parse(&policy("min = 9007199254740993, max = 9007199254740992"));
    assert!(crossed.is_err_and(|error| error.to_string().contains("above max")));
}

#[test]
fn a_constant_is_one_however_it_is_written() {
    for (rows, warned) in
        [("1\n1.0\n\"\"\n1\n", true), ("a\nNA\n a\n", true), ("1\n1\n01\n", true), ("1\n2\n", false)]
    {
        let report = run("d.csv", format!("x\n{rows}").as_bytes(), "holdout = 0.0", None).report;
        assert_eq!(codes(&report.warnings).contains("CONSTANT"), warned, "{rows:?}");
        assert_eq!(report.profile.expect("a profile").columns[0].distinct == 1, warned, "{rows:?}");
    }
    let text = "holdout = 0.0\ncolumns.x.type = \"text\"";
    let report = run("d.csv", b"x\na\n a\n", text, None).report;
    assert!(
        codes(&report.warnings).contains("CONSTANT")
            && report.profile.expect("a profile").columns[0].distinct == 1
    );
}

#[test]
fn parts_have_empty_cells_for_no_value_and_a_row_each() {
    for rows in 2..12 {
        let text: String = (0..rows).map(|row| format!("{row}, NA ,x\n")).collect();
        let checked = run("d.csv", format!("id,a,b\n{text}").as_bytes(), "", None);
        assert_eq!(checked.report.verdict, Verdict::Accepted, "{rows} rows");
        let split = checked.report.split.expect("parts");
        assert!(split.training_rows > 0 && split.holdout_rows > 0);
        assert!(!String::from_utf8_lossy(&[checked.training, checked.holdout].concat()).contains("NA"));
    }
}

#[test]
fn a_blank_around_a_cell_moves_no_row() {
    let text = people("");
    let blanks = text.replace(",a,", ", a,");
    let holdout = |text: &str| {
        let checked = run("d.csv", text.as_bytes(), "", None);
        String::from_utf8(checked.holdout).expect("text").replace(' ', "")
    };
    assert_eq!(holdout(&text), holdout(&blanks));
}

#[test]
fn oddities_are_warnings() {
    let text = "a,b,c,label\n".to_owned() + &"1,,x,yes\n2,,x,yes\n3,,x,yes\n".repeat(20);
    let report = run("d.csv", text.as_bytes(), "holdout = 0.0", None).report;
    assert_eq!(codes(&report.warnings), BTreeSet::from(["CONSTANT", "DUPLICATE_ROWS", "NULL_COLUMN"]));
    let labelled = run("d.csv", text.as_bytes(), "label = \"label\"\nholdout = 0.0", None).report;
    assert_eq!(codes(&labelled.reasons), BTreeSet::from(["LABEL_CONSTANT"]));
}

#[test]
fn what_came_and_went_since_the_version_before_is_told() {
    let before = people("");
    let first = run("d.csv", before.as_bytes(), "label = \"label\"", None).report;
    let now = before.replace("id,age,group,label", "id,years,group,label").replace(",yes\n", ",maybe\n");
    let report = run("d.csv", now.as_bytes(), "label = \"label\"", Some((before.as_bytes(), &first))).report;
    let warned = codes(&report.warnings);
    for code in ["COLUMN_ADDED", "COLUMN_REMOVED", "LABEL_NEW", "LABEL_GONE", "DRIFT"] {
        assert!(warned.contains(code), "{code}: {:?}", report.warnings);
    }
    let empty = run("d.csv", now.as_bytes(), "", Some((b"not, a\ntable", &first))).report;
    assert!(codes(&empty.warnings).contains("NO_COMPARISON"));
}

#[test]
fn sizes_are_handed_down_from_report_to_report() {
    let mut before: Option<(String, Report)> = None;
    for version in 0..5 {
        let text = people(&"77,33,a,yes\n".repeat(version));
        let previous = before.as_ref().map(|(text, report)| (text.as_bytes(), report));
        let report = run("d.csv", text.as_bytes(), "", previous).report;
        assert_eq!(report.history.len(), version);
        before = Some((text, report));
    }
    let (text, report) = before.expect("five versions");
    let huge = people(&"77,33,a,yes\n".repeat(5000));
    let reject = "growth = { action = \"reject\" }";
    let grown = run("d.csv", huge.as_bytes(), reject, Some((text.as_bytes(), &report))).report;
    assert_eq!(codes(&grown.reasons), BTreeSet::from(["GROWTH"]));
}

#[test]
fn parts_hold_every_row_once_and_copies_together() {
    let text = people(&people("").lines().skip(1).map(|line| format!("{line}\n")).collect::<String>());
    let checked = run("d.csv", text.as_bytes(), "holdout = 0.4", None);
    let rows = |part: &[u8]| -> Vec<String> {
        String::from_utf8(part.to_vec()).expect("text").lines().skip(1).map(str::to_owned).collect()
    };
    let (training, holdout) = (rows(&checked.training), rows(&checked.holdout));
    let mut all: Vec<String> = training.iter().chain(&holdout).cloned().collect();
    all.sort();
    let mut wanted: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
    wanted.sort();
    assert_eq!(all, wanted);
    assert!(holdout.iter().all(|row| !training.contains(row)) && !holdout.is_empty());
}

#[test]
fn a_report_is_read_as_it_was_written() {
    let before = people("");
    let first = run("d.csv", before.as_bytes(), "label = \"label\"", None).report;
    let report = run(
        "d.csv",
        people("99,4000,a,yes\n").as_bytes(),
        "label = \"label\"",
        Some((before.as_bytes(), &first)),
    )
    .report;
    let json = serde_json::to_vec(&report).expect("JSON");
    assert_eq!(read_report(&json).expect("a report"), report);
    let later = String::from_utf8(json).expect("text").replacen("\"format\":3", "\"format\":4", 1);
    assert!(read_report(later.as_bytes()).expect_err("a later format").contains("format 4"));
    assert!(read_report(later.replacen("\"format\":4", "\"format\":1", 1).as_bytes()).is_ok());
    assert!(read_report(b"{}").is_err());
}

#[test]
fn every_code_is_in_the_documentation_with_its_meaning() {
    let page = include_str!("../../../docs/dataset-checks.md");
    for code in Code::ALL {
        let line = format!("| `{}` | {} |", code.id(), code.meaning());
        assert!(page.contains(&line), "docs/dataset-checks.md lacks: {line}");
    }
}

const EVERYTHING: &str = "label = \"b\"\nkey = \"a\"\n[outliers]\nmethods = [\"sigma\", \"box\", \"dbscan\", \
     \"isolation_forest\", \"random_cut_forest\"]\naction = \"impute\"\nisolation_forest = { trees = 5 }\n\
     random_cut_forest = { trees = 5 }\n[columns.c]\nrequired = false\nunique = true\nmin = 0";

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever comes is answered with a verdict and a page, and compared with itself has not changed.
    #[test]
    fn no_table_breaks_a_check(
        rows in proptest::collection::vec("([-+.0-9eE]{0,6}|[a-z<&\"=@]{0,3}|1e308|-1e308|NA|inf|é|2026-01-02),[ab]{0,1},[-0-9.]{0,4}", 0..30),
        header in "(a,b,c|a,b|c,a,b|[a-c,]{0,6})",
    ) {
        let text = format!("{header}\n{}\n", rows.join("\n"));
        let first = run("d.csv", text.as_bytes(), EVERYTHING, None).report;
        let again = run("d.csv", text.as_bytes(), EVERYTHING, Some((text.as_bytes(), &first))).report;
        prop_assert_eq!(first.reasons.is_empty(), first.verdict == Verdict::Accepted);
        let page = html(&again);
        prop_assert!(page.ends_with("</html>\n") && !page.contains("NaN"));
        if let Some(change) = &again.change {
            prop_assert_eq!((change.added, change.removed), (0, 0));
        }
        prop_assert!(again.largest_drift().unwrap_or(0.0).abs() < 1e-9, "{:?}", again.drift);
        let json = serde_json::to_vec(&again).expect("JSON");
        prop_assert_eq!(read_report(&json).expect("a report"), again);
    }

    #[test]
    fn no_bytes_break_a_check(bytes in proptest::collection::vec(any::<u8>(), 0..600), start in 0..8_usize) {
        let starts: [&[u8]; 8] = [b"", b"PK\x03\x04", b"\x1f\x8b\x08", b"\x80\x04", b"(lp0\n", b"a,b\n", b"{\"a\":1}\n", b"PK\x01\x02"];
        let bytes = [starts[start], &bytes].concat();
        for name in ["d", "d.csv", "d.csv.gz", "d.jsonl"] {
            let report = run(name, &bytes, "", None).report;
            prop_assert!(report.verdict == Verdict::Accepted || !report.reasons.is_empty());
        }
    }
}
