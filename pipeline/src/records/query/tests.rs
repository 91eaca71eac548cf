//! The query language: what it understands, where it points when it does not, and that it judges as an independent reading of
//! its rules does.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Expression, Names, Query, Sort, search};
use crate::event::Event;
use crate::records::tests::{event, records, whole_run};
use crate::records::{RecordsError, insert};

fn names() -> Names<'static> {
    let mut run = whole_run("r1", "iris", 0.97, 0);
    run.push(metrics("dotted", json!({ "val.auc": 0.5, "mode": 2, "one, two": 0.5 })));
    Names::of(Box::leak(Box::new(records(&run))))
}

fn metrics(id: &str, metrics: Value) -> Event {
    event(id, "training.finished", "iris", id, 0, json!({ "metrics": metrics }))
}

fn now() -> jiff::Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn document() -> Value {
    json!({
        "run": "0123456789abcdef", "state": "deployed", "model": "iris", "version": "10", "who": "ΑΣΣΌς", "generation": 7, "reused": false,
        "dataset": { "name": "digits", "rows": 1797, "drift": 0.25, "file": "Digits \"2\".csv" },
        "metrics": { "accuracy": 0.99, "f1-score": 0.5, "macro avg": 0.125, "loss": 1e300, "tiny": 1e-7, "val.auc": 0.5 },
        "candidate": { "accuracy": 0.95 }, "parameters": { "depth": 3, "kind": "tree", "deep": { "er": 1 } },
        "cost": { "cpu_s": 12.5, "stages": { "train": { "cpu_s": 12.0 } } },
        "environment": { "python": "3.11.7", "packages": { "numpy": "2.0", "scikit-learn": "1.9", "ruamel.yaml": "1" } },
        "reasons": [{ "code": "DRIFT", "text": "column Größe" }],
        "started": "2026-11-20T10:00:00Z", "finished": "2026-11-20T10:00:00.5Z",
    })
}

fn check_matches(cases: &[(&str, bool)]) {
    let text = document().to_string();
    for (query, expected) in cases {
        let expression = Expression::parse(query, &names(), now()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(expression.matches(&text), *expected, "{query}");
    }
}

#[test]
fn comparisons_of_numbers_texts_and_flags() {
    check_matches(&[
        ("", true),
        ("  ", true),
        ("generation = 7", true),
        ("generation == 7.0", true),
        ("generation <> 7", false),
        ("generation > 6 and generation < 8", true),
        ("generation >= 7.0001", false),
        ("cost.cpu_s<=12.5", true),
        ("cpu_s < 1.25e1", false),
        ("metrics.loss > 1e299", true),
        ("generation > -7", true),
        ("state = 'deployed'", true),
        ("state == \"Deployed\"", false),
        ("state != 'failed'", true),
        ("reused = false", true),
        ("reused != true", true),
        ("SOMETHING_ELSE = 1", false),
        // A version is a text that looks like a number: 10 is more than 9.
        ("version > 9", true),
        ("version = 10", true),
        ("version = '10'", true),
        ("generation = '7'", true),
        ("model > 5", false),
        ("state = 5", false),
        ("state != 5", true),
    ]);
}

#[test]
fn and_or_not_brackets() {
    check_matches(&[
        ("state = 'failed' or model = 'iris' and generation = 7", true),
        ("(state = 'failed' or model = 'iris') and generation = 8", false),
        ("not state = 'failed' AND NOT (generation = 8 OR generation = 9)", true),
        ("not not not (state = 'failed')", true),
        ("accuracy >= 0.9 and dataset = \"digits\"", true),
        ("cost.cpu_s < 10 or not (state = \"deployed\")", false),
    ]);
}

#[test]
fn membership_presence_and_contents() {
    check_matches(&[
        ("state in ('failed', 'deployed')", true),
        ("state not in ('failed', 'deployed')", false),
        ("generation in (1, 7.0, 'x')", true),
        ("verdict in ('accept')", false),
        ("verdict is null", true),
        ("verdict is not null", false),
        ("verdict exists", false),
        ("candidate exists", true),
        ("metrics.auc is null and metrics.accuracy exists", true),
        ("file ~ 'DIGITS'", true),
        ("file ~ '\\\"2\\\"'", true),
        ("file !~ 'x'", true),
        ("reasons ~ 'drift'", true),
        ("reasons ~ 'GRÖSSE' or reasons ~ 'größe'", true),
        ("parameters ~ 'tree'", true),
        ("who ~ 'ΑΣ' and who ~ 'ας' and who ~ 'σσ' and who ~ 'ΌΣ'", true),
        ("metrics.tiny ~ 1e-7 and metrics.tiny ~ 1E-7 and metrics.tiny ~ 0.0000001", true),
        ("metrics.tiny ~ '1e-7' and (metrics.loss ~ 1e300)", true),
        ("metrics.tiny ~ 2e-7 or metrics.loss ~ 300.5", false),
        ("environment.packages.numpy ~ 2.0 and python ~ 3.11", true),
        ("python ~ 3.110 or environment.packages.numpy ~ 2.00", false),
        ("generation ~ 7 and generation !~ -7", true),
        // What a run lacks equals nothing, and is not in any order to anything.
        ("verdict = 'accept'", false),
        ("verdict != 'accept'", true),
        ("not verdict < 5", true),
        ("verdict ~ 'a'", false),
        ("verdict !~ 'a'", true),
    ]);
}

#[test]
fn names_of_fields() {
    check_matches(&[
        ("dataset = 'digits' and dataset.name = 'digits' and rows = 1797 and drift > 0.2", true),
        // The candidate's figure, which the pipeline measured, before the trainer's.
        ("accuracy = 0.95", true),
        ("metrics.accuracy = 0.99 and candidate.accuracy = 0.95", true),
        ("loss > 1", true),
        ("f1-score = 0.5 and metrics.f1-score = 0.5 and metrics.\"f1-score\" = 0.5", true),
        ("metrics.'macro avg' = 0.125", true),
        ("parameters.depth in (3) and parameters.kind = 'tree' and parameters.deep.er = 1", true),
        ("environment.packages.numpy = '2.0' and environment.packages.scikit-learn = '1.9'", true),
        ("cost.stages.train.cpu_s = 12", true),
        ("python ~ '3.11'", true),
        // Names with dots are names.
        ("metrics.val.auc = 0.5 and val.auc = 0.5", true),
        ("environment.packages.ruamel.yaml = '1'", true),
    ]);
}

#[test]
fn times_are_compared_as_times_and_a_day_is_all_of_its_moments() {
    check_matches(&[
        ("started >= '2026-11-20'", true),
        ("started > '2026-11-20'", false),
        ("started = '2026-11-20'", true),
        ("started = 2026-11-20", true),
        ("started <= '2026-11-20'", true),
        ("started < '2026-11-20'", false),
        ("started != '2026-11-20'", false),
        ("started in ('2026-11-19', '2026-11-20')", true),
        ("started = '2026-11-20T10:00:00Z'", true),
        ("started = '2026-11-20T12:00:00+02:00'", true),
        ("started = 2026-11-20T12:00:00+02:00", true),
        ("started = '2026-11-20T10:00'", true),
        ("finished > '2026-11-20T10:00:00Z'", true),
        ("started > -7d", true),
        ("started > -1d", false),
        ("started > -27h and started < -25h", true),
        ("started > -1.5w", true),
        ("started > -99999999999999999999w", true),
        ("since > '1970-01-01'", false),
        ("started < '9999-12-31' and started < 9999-12-31 and started > '0001-01-01'", true),
        ("started = '9999-12-31' or started > '9999-12-31T23:59'", false),
    ]);
}

#[test]
fn mistakes_are_pointed_at_with_what_was_meant() {
    let deep = format!("{}state = 'x'{}", "(".repeat(60), ")".repeat(60));
    let long = format!("state = '{}'", "x".repeat(9000));
    let cases: &[(&str, usize, &str)] = &[
        ("acuracy > 0.9", 1, "did you mean accuracy"),
        ("model = 'a' and stat = 'b'", 17, "did you mean state"),
        ("STATE = 'deployed'", 1, "did you mean state"),
        ("reused = 'false'", 10, "reused is true or false"),
        ("reused = 0", 10, "reused is true or false"),
        ("reasons = 'x'", 1, "reasons ~"),
        ("cost.stages.train = 1", 1, "is a group"),
        ("cost.stages.nosuch.cpu_s = 1", 1, "there is no field"),
        ("metrics.5xx > 1", 8, "in quotes"),
        ("metrics.acuracy > 1", 1, "did you mean accuracy"),
        ("dataset.nam = 'x'", 1, "did you mean dataset.name"),
        ("dataset.color = 'x'", 1, "dataset.rows"),
        ("nothing.here = 1", 1, "no field nothing.here"),
        ("cost > 5", 1, "cost is a group"),
        ("state", 6, "an operator is expected after state"),
        ("state = ", 9, "a value is expected here, not the end"),
        ("state = deployed", 9, "in quotes: \"deployed\""),
        ("state = null", 9, "state is null"),
        ("state is deployed", 10, "null is expected"),
        ("'state' = 1", 1, "without quotes"),
        ("5 = generation", 1, "a field is expected here, not 5"),
        ("state = 'x' model = 'y'", 13, "and or or is expected"),
        ("(state = 'x'", 13, ") is expected"),
        ("state = 'x')", 12, "and or or is expected"),
        ("state in 'x'", 10, "( is expected after in"),
        ("state in ('x' 'y')", 15, ", or ) is expected"),
        ("state in ()", 11, "a value is expected"),
        ("state = 'x", 9, "has no end"),
        ("state = 'x\\q'", 11, "is no escape"),
        ("state = 'x' && model = 'y'", 13, "write and"),
        ("state = 'x'; DROP TABLE run", 12, "is not understood here"),
        ("started > 5", 11, "started is a time"),
        ("started > 'soon'", 11, "started is a time"),
        ("started > '2026-13-01'", 11, "started is a time"),
        ("started > 7d", 11, "-7d"),
        ("generation > -7d", 14, "generation is no time"),
        ("started > -7y", 11, "no time span"),
        ("generation > 1e999", 14, "larger than any number"),
        ("reused > true", 10, "have no order"),
        ("model ~ iris", 9, "a text is expected"),
        ("metrics. = 1", 10, "a name is expected after the dot"),
        ("", 0, ""),
        (&deep, 52, "brackets"),
        (&long, 8193, "at most 8192"),
    ];
    for (query, column, reason) in cases.iter().filter(|(query, _, _)| !query.is_empty()) {
        let error = Expression::parse(query, &names(), now()).expect_err(query);
        assert!(error.reason.contains(reason), "{query}: {error}");
        assert_eq!(error.column, *column, "{error}");
    }
    let error = Expression::parse("dataset.nam = 'ä'", &names(), now()).expect_err("no such field");
    let shown =
        "column 1: there is no field dataset.nam; did you mean dataset.name?\n  dataset.nam = 'ä'\n  ^";
    assert_eq!(error.to_string(), shown);
    let error = Expression::parse(&format!("state = '{}' or q.q = 1", "ä".repeat(500)), &names(), now());
    let shown = error.expect_err("no such field").to_string();
    let lines: Vec<&str> = shown.lines().collect();
    let marked = lines[1].chars().nth(lines[2].chars().count() - 1);
    assert_eq!(marked, Some('q'), "the mark is below the place: {shown}");
    assert!(shown.len() < 400);
}

#[test]
fn sorting_puts_what_is_missing_last_and_keeps_the_newest_first_otherwise() {
    let mut connection = records(&[]);
    let transaction = connection.transaction().unwrap();
    for (run, accuracy, start) in [("a", 0.9, 0), ("b", 0.7, 10), ("c", 0.9, 20), ("d", 0.8, 30)] {
        for event in whole_run(run, "iris", accuracy, start) {
            insert(&transaction, &event, None).unwrap();
        }
    }
    for event in whole_run("e", "iris", 1.0, 40).into_iter().take(2) {
        insert(&transaction, &event, None).unwrap();
    }
    transaction.commit().unwrap();
    let check = |sort: &str, filter: &str, limit: usize, expected: &str| {
        let query = Query { sort: sort.into(), filter: filter.into(), limit, ..Query::default() };
        let found = search(&connection, &query).unwrap();
        let runs: Vec<String> = found
            .runs
            .iter()
            .map(|run| serde_json::from_str::<Value>(run.get()).unwrap()["run"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(runs.concat(), expected, "sort {sort:?}, where {filter:?}, limit {limit}");
    };
    check("", "", 100, "edcba");
    check("", "", 2, "ed");
    check("", "accuracy > 0.75", 2, "dc");
    check("accuracy", "", 100, "bdcae");
    check("-accuracy", "", 100, "cadbe");
    check("-accuracy, started", "", 100, "acdbe");
    check("-accuracy", "", 1, "c");
    check("started", "", 100, "abcde");
    check("run", "", 100, "abcde");
    check("-metrics.\"loss\",run", "", 0, "");
    check("-cost.cpu_s", "state = 'validated'", 5, "e");
    let many = vec!["run"; 17].join(",");
    let long = "a".repeat(9000);
    let wrong = [
        ("acuracy", 1),
        ("started, -cost", 11),
        ("started, reasons", 10),
        ("a b", 1),
        ("started,", 9),
        ("-", 2),
        (&*many, 65),
        (&*long, 8193),
    ];
    for (sort, column) in wrong {
        let error = Sort::parse(sort, &names()).expect_err(sort);
        assert_eq!(error.column, column, "{error}");
    }
    let wrong = Query { filter: "x.y = 1".into(), ..Query::default() };
    assert!(matches!(search(&connection, &wrong), Err(RecordsError::Query(_))));
}

#[test]
fn fields_of_a_list_may_have_commas_in_quotes() {
    let sort = Sort::parse("-metrics.\"one, two\" , run", &names()).unwrap().unwrap();
    assert_eq!(sort.fields.len(), 2);
    let shown = super::Shown::list("run, metrics.\"one, two\"", &names()).unwrap();
    assert_eq!(shown[1].text(&json!({ "metrics": { "one, two": 0.5 } })), "0.5");
    let error = super::Shown::list("run, acuracy", &names()).expect_err("a slip");
    assert_eq!((error.column, error.reason.contains("did you mean accuracy")), (6, true), "{error}");
}

#[test]
fn without_records_no_name_is_a_slip() {
    for name in ["mode", "stage", "x.y"] {
        Expression::parse(&format!("{name} > 1"), &Names::default(), now()).expect(name);
    }
    Expression::parse("mode > 1", &names(), now()).expect("there is such a metric");
}

#[test]
fn a_metric_among_many_thousands_is_found() {
    let many: serde_json::Map<String, Value> =
        (0..10_600).map(|index| (format!("class_{index:05}"), json!(0.5))).collect();
    let connection = records(&[metrics("r1", many.into())]);
    let query = |filter: &str| Query { filter: filter.into(), limit: 9, ..Query::default() };
    assert_eq!(search(&connection, &query("class_10599 > 0")).unwrap().runs.len(), 1);
    assert!(search(&connection, &query("clas_00001 > 0")).is_err());
}

#[test]
fn whole_numbers_are_compared_exactly_and_zero_has_no_sign() {
    let run = |name: &str, a: Value, b: u64| metrics(name, json!({ "a": a, "b": b }));
    let connection = records(&[
        run("big", json!(12345678901234567u64), 1),
        run("bigger", json!(12345678901234568u64), 2),
        run("zero", json!(-0.0), 4),
        run("nought", json!(0.0), 3),
        run("none", json!(0), 5),
    ]);
    let check = |filter: &str, sort: &str, expected: &[&str]| {
        let query = Query { filter: filter.into(), sort: sort.into(), limit: 9, ..Query::default() };
        let found = search(&connection, &query).unwrap().runs;
        let found: Vec<Value> = found.iter().map(|run| serde_json::from_str(run.get()).unwrap()).collect();
        let found: Vec<&str> = found.iter().map(|run| run["run"].as_str().unwrap()).collect();
        assert_eq!(found, expected, "{filter} {sort}");
    };
    check("a = 12345678901234568", "run", &["bigger"]);
    check("a > 12345678901234567", "run", &["bigger"]);
    check("a in (12345678901234567)", "run", &["big"]);
    check("a = 0", "a,b", &["nought", "zero", "none"]);
    check("", "-a,b", &["bigger", "big", "nought", "zero", "none"]);
}

#[test]
fn a_sorted_search_keeps_the_best_and_a_model_must_be_known() {
    let runs: Vec<Event> =
        (0..50).map(|index| metrics(&format!("r{index:02}"), json!({ "a": (index * 7) % 50 }))).collect();
    let connection = records(&runs);
    let query = |limit| Query { sort: "-a".into(), limit, ..Query::default() };
    let found = search(&connection, &query(3)).unwrap();
    let best: Vec<Value> = found.runs.iter().map(|run| serde_json::from_str(run.get()).unwrap()).collect();
    let best: Vec<&Value> = best.iter().map(|run| &run["metrics"]["a"]).collect();
    assert_eq!((best, found.truncated), (vec![&json!(49), &json!(48), &json!(47)], true));
    assert!(!search(&connection, &query(50)).unwrap().truncated);
    let nobody = Query { model: Some("nobody".into()), ..query(3) };
    assert!(matches!(search(&connection, &nobody), Err(RecordsError::Unknown(_))));
    let filtered = Query { model: Some("iris".into()), filter: "a > 99".into(), ..query(3) };
    assert!(search(&connection, &filtered).unwrap().runs.is_empty());
}

#[test]
fn a_moment_is_a_day_a_time_or_so_long_ago() {
    assert_eq!(super::moment("2026-11-21"), Ok("2026-11-21T00:00:00Z".parse().unwrap()));
    assert_eq!(super::moment("2026-11-21T08:30+02:00"), Ok("2026-11-21T06:30:00Z".parse().unwrap()));
    assert!(super::moment("-7d").unwrap() < jiff::Timestamp::now());
    assert_eq!(super::moment("9999-12-31"), Ok(jiff::Timestamp::MAX));
    for wrong in ["", "soon", "7d", "2026-11-21 x", "'2026-13-01'"] {
        assert!(super::moment(wrong).is_err(), "{wrong}");
    }
}

/// A condition as data, to be written as a query and to be judged by rules that are written down a second time.
#[derive(Debug, Clone)]
enum Test {
    Compare(&'static str, &'static str, Value),
    Contains(&'static str, String),
    Missing(&'static str),
    All(Vec<Test>),
    Any(Vec<Test>),
    Not(Box<Test>),
}

const PATHS: &[&str] =
    &["model", "dataset.name", "dataset.rows", "metrics.accuracy", "parameters.\"'a\\\"b\"", "rule"];

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"))
}

impl Test {
    fn write(&self) -> String {
        let join = |tests: &[Test], word: &str| {
            tests.iter().map(|test| format!("({})", test.write())).collect::<Vec<_>>().join(word)
        };
        match self {
            Test::Compare(path, operator, Value::String(text)) => {
                format!("{path} {operator} {}", quoted(text))
            }
            Test::Compare(path, operator, value) => format!("{path} {operator} {value}"),
            Test::Contains(path, text) => format!("{path}~{}", quoted(text)),
            Test::Missing(path) => format!("{path} is null"),
            Test::All(tests) => join(tests, " and "),
            Test::Any(tests) => join(tests, " or "),
            Test::Not(test) => format!("not ({})", test.write()),
        }
    }

    fn judge(&self, document: &Value) -> bool {
        let at = |path: &str| {
            let pointer = match path {
                "parameters.\"'a\\\"b\"" => "/parameters/'a\"b".to_owned(),
                path => format!("/{}", path.replace('.', "/")),
            };
            document.pointer(&pointer).filter(|value| !value.is_null())
        };
        match self {
            Test::Missing(path) => at(path).is_none(),
            Test::All(tests) => tests.iter().all(|test| test.judge(document)),
            Test::Any(tests) => tests.iter().any(|test| test.judge(document)),
            Test::Not(test) => !test.judge(document),
            Test::Contains(path, text) => match at(path) {
                Some(Value::String(value)) => value.to_lowercase().contains(&text.to_lowercase()),
                Some(Value::Number(value)) => value.to_string().contains(&text.to_lowercase()),
                _ => false,
            },
            Test::Compare(path, operator, literal) => {
                let number = |value: &Value| match value {
                    Value::String(text) => {
                        text.trim().parse::<f64>().ok().filter(|number| number.is_finite())
                    }
                    value => value.as_f64(),
                };
                let order = at(path).and_then(|value| match (value, literal) {
                    (Value::String(value), Value::String(literal)) => Some(value.cmp(literal)),
                    (Value::Bool(value), Value::Bool(literal)) => Some(value.cmp(literal)),
                    (value, literal) if value.is_number() || literal.is_number() => {
                        number(value)?.partial_cmp(&number(literal)?)
                    }
                    _ => None,
                });
                match (*operator, order) {
                    ("!=", None) => true,
                    (_, None) => false,
                    ("=", Some(order)) => order.is_eq(),
                    ("!=", Some(order)) => order.is_ne(),
                    ("<", Some(order)) => order.is_lt(),
                    ("<=", Some(order)) => order.is_le(),
                    (">", Some(order)) => order.is_gt(),
                    (_, Some(order)) => order.is_ge(),
                }
            }
        }
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-3i32..3).prop_map(Value::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        "[ab'\"\\\\%_ßẞ; -]{0,3}".prop_map(Value::from),
        "-?[0-3]{1,2}(\\.5)?".prop_map(Value::from),
    ]
}

fn test() -> impl Strategy<Value = Test> {
    let path = || prop::sample::select(PATHS);
    let operator = prop::sample::select(&["=", "!=", "<", "<=", ">", ">="][..]);
    let leaf = prop_oneof![
        (path(), operator, scalar()).prop_map(|(path, operator, value)| match value {
            Value::Bool(_) => Test::Compare(path, "=", value),
            value => Test::Compare(path, operator, value),
        }),
        (path(), "[ab'\"\\\\%ß]{0,2}").prop_map(|(path, text)| Test::Contains(path, text)),
        path().prop_map(Test::Missing),
    ];
    leaf.prop_recursive(4, 20, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Test::All),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Test::Any),
            inner.prop_map(|test| Test::Not(Box::new(test))),
        ]
    })
}

proptest! {
    #[test]
    fn queries_judge_as_the_rules_say(
        test in test(),
        values in prop::collection::vec(prop::option::of(scalar()), PATHS.len()),
    ) {
        let of = |index: usize| values[index].clone();
        let document = json!({ "before": [{ "model": 1 }], "model": of(0), "dataset": { "x": {}, "name": of(1), "rows": of(2) },
            "metrics": { "accuracy": of(3) }, "parameters": { "'a\"b": of(4) }, "rule": of(5) });
        let query = test.write();
        let expression = Expression::parse(&query, &Names::default(), now());
        let expression = expression.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(expression.matches(&document.to_string()), test.judge(&document), "{}", query);
    }

    #[test]
    fn no_text_brings_the_parser_down(text in "[a-z.(), ='\"<>~!0-9\\\\-]{0,40}|\\PC{0,20}|(not |\\(|state|=|in|'x'|,| |and|-7d|2026-1){0,30}") {
        if let Err(error) = Expression::parse(&text, &Names::default(), now()) {
            prop_assert!(error.column >= 1 && error.column <= text.chars().count() + 1);
            prop_assert!(!error.to_string().is_empty());
        }
        let _ = Sort::parse(&text, &Names::default());
    }

    #[test]
    fn a_damaged_document_matches_nothing_or_something_but_never_fails(cut in 0usize..600) {
        let text = document().to_string();
        let cut = text.floor_char_boundary(cut.min(text.len()));
        let expression = Expression::parse("accuracy > 0.1 and reasons ~ 'x'", &Names::default(), now()).unwrap();
        let _ = expression.matches(&text[..cut]);
    }
}
