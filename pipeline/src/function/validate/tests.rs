//! The function against a real store in memory: what it answers, what it keeps, what a repeat does.

use super::*;

const POLICY: &str = "label = \"y\"\nmodel = \"m\"\n";

struct World {
    store: Store,
    policy: String,
}

impl World {
    fn new(policy: &str) -> Self {
        Self { store: Store::open("memory:///").expect("a store"), policy: policy.to_owned() }
    }

    async fn put(&self, text: &str) -> Digest {
        self.store.put(text.as_bytes().to_vec()).await.expect("stored").digest
    }

    async fn send(&self, id: &str, data: Value) -> Result<Event, Failure> {
        let context = Context {
            name: "validate".into(),
            store: self.store.clone(),
            server: "http://127.0.0.1:1".into(),
            token: None,
            policy: self.policy.clone(),
        };
        let event = Event::new("/ci", id, "dataset.updated", "d", "run", data);
        call(Arc::new(context), event).await.map(|answer| answer.expect("an event"))
    }

    async fn check(&self, id: &str, text: &str) -> Event {
        let digest = self.put(text).await;
        self.send(id, json!({ "dataset": "d", "digest": digest, "file": "d.csv" })).await.expect("an answer")
    }

    async fn report(&self, answer: &Event) -> Report {
        let reference: Reference =
            serde_json::from_value(answer.object()["report"].clone()).expect("a reference");
        report_of(&self.store, &reference).await.expect("readable").expect("a report")
    }

    async fn versions(&self) -> usize {
        self.store.log::<Value>(LOG, "d", 100).await.expect("a log").len()
    }
}

fn table(rows: std::ops::Range<usize>) -> String {
    let line = |row: usize| format!("{row},{},{}\n", (row * 7) % 11, ["a", "b"][row % 2]);
    format!("x,z,y\n{}", rows.map(line).collect::<String>())
}

fn codes(answer: &Event) -> Vec<String> {
    let reasons = answer.object()["reasons"].as_array().expect("reasons").clone();
    reasons.iter().map(|reason| reason["code"].as_str().expect("a code").to_owned()).collect()
}

#[tokio::test]
async fn an_accepted_version_is_split_logged_and_answered() {
    let world = World::new(POLICY);
    let answer = world.check("1", &table(0..200)).await;
    assert_eq!(answer.short_kind(), Some("dataset.validated"));
    let data = answer.object();
    for (name, part) in
        [("dataset", json!("d")), ("rows", json!(200)), ("file", json!("d.csv")), ("drift", Value::Null)]
    {
        assert_eq!(data[name], part, "{name}");
    }
    let mut rows = 0;
    for part in ["training", "holdout"] {
        let reference: Reference = serde_json::from_value(data[part].clone()).expect("a reference");
        let bytes = world.store.get(&reference.digest, 1 << 20).await.expect("stored");
        rows += std::str::from_utf8(&bytes).expect("text").lines().count() - 1;
    }
    assert_eq!((rows, world.versions().await), (200, 1));
    assert!(data["cost"]["cpu_s"].is_number());
}

#[tokio::test]
async fn the_trainer_is_told_what_is_a_feature() {
    let world = World::new("label = \"y\"\nkey = \"x\"\nfeatures = [\"z\"]");
    let data = world.check("1", &table(0..200)).await.object();
    assert_eq!((&data["key"], &data["features"]), (&json!("x"), &json!(["z"])));
    let data = World::new(POLICY).check("1", &table(0..200)).await.object();
    assert_eq!((&data["key"], &data["features"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_repeat_answers_the_same_event_and_keeps_nothing_twice() {
    let world = World::new(POLICY);
    let first = world.check("1", &table(0..200)).await;
    assert_eq!(world.check("1", &table(0..200)).await, first, "a redelivery");
    assert_eq!(world.check("2", &table(0..200)).await, first, "another event about the same data");
    let second = world.check("3", &table(0..260)).await;
    assert_ne!(second, first);
    assert_eq!(world.check("4", &table(0..200)).await, first, "also after another version");
    assert_eq!(world.versions().await, 2);
    let bad = world.check("5", "x,x\n1,2\n").await;
    assert_eq!(world.check("6", "x,x\n1,2\n").await, bad, "rejections too");
}

#[tokio::test]
async fn older_data_can_be_made_the_newest_again() {
    let world = World::new(POLICY);
    let first = world.check("1", &table(0..200)).await;
    world.check("2", &table(0..260)).await;
    let digest = world.put(&table(0..200)).await;
    let data = json!({ "dataset": "d", "digest": digest, "file": "d.csv", "again": true });
    let again = world.send("3", data.clone()).await.expect("an answer");
    assert_ne!(again.id, first.id, "another event, so that what follows goes on");
    assert_eq!(again.object()["training"], first.object()["training"]);
    assert_eq!(world.send("3", data).await.expect("an answer").id, again.id, "a redelivery");
    assert_eq!(world.versions().await, 3);
}

#[tokio::test]
async fn the_log_names_the_holdout_of_every_policy_that_the_data_was_split_by() {
    let mut world = World::new(POLICY);
    world.check("1", &table(0..160)).await;
    let narrow = world.check("2", &table(0..200)).await;
    world.policy = format!("{POLICY}holdout = 0.5");
    let wide = world.check("3", &table(0..200)).await;
    assert_ne!(narrow.object()["holdout"], wide.object()["holdout"]);
    let entries: Vec<Value> = world.store.log(LOG, "d", 100).await.expect("a log");
    assert_eq!(entries.len(), 3);
    assert_eq!(Value::Object(wide.object()), entries[2]);
    assert_eq!(world.check("4", &table(0..200)).await, wide, "a redelivery");
    let data = json!({ "dataset": "d", "digest": wide.object()["digest"], "file": "d.csv", "again": true });
    world.send("5", data).await.expect("an answer");
    assert_eq!(world.versions().await, 3);
    // Not with itself.
    let report = world.report(&wide).await;
    assert_eq!(report.change.expect("a comparison").against, entries[0]["digest"]);
    assert_eq!(report.history.len(), 1);
    let next = world.report(&world.check("6", &table(0..240)).await).await;
    assert_eq!(next.change.expect("a comparison").against, entries[2]["digest"]);
    assert_eq!(next.history.len(), 2, "each version once");
    // An evaluation knows both, and no other.
    let digest = |value: &Value| value.as_str().expect("a digest").parse::<Digest>().expect("a digest");
    let version = wide.object()["digest"].clone();
    let version = version.as_str().expect("a digest");
    for (holdout, is_other) in [
        (digest(&narrow.object()["holdout"]["digest"]), false),
        (digest(&wide.object()["holdout"]["digest"]), false),
        (Digest::of(b"rows that the trainer has seen"), true),
    ] {
        let answer = is_other_holdout(&world.store, "d", version, &holdout).await.expect("a log");
        assert_eq!(answer, is_other);
    }
    let unknown = Digest::of(b"a version of somewhere else");
    assert!(!is_other_holdout(&world.store, "d", &unknown.to_string(), &unknown).await.expect("a log"));
}

#[tokio::test]
async fn the_version_before_is_found_behind_many_policies() {
    let mut world = World::new(POLICY);
    let first = world.check("1", &table(0..160)).await;
    for share in 1..8 {
        world.policy = format!("{POLICY}holdout = 0.{share}");
        let answer = world.check("2", &table(0..200)).await;
        let change = world.report(&answer).await.change.expect("a comparison");
        assert_eq!(change.against, first.object()["digest"]);
    }
    assert_eq!(world.versions().await, 8);
}

#[tokio::test]
async fn two_at_once_give_one_answer() {
    let world = World::new(POLICY);
    let text = table(0..200);
    let (one, two) = tokio::join!(world.check("1", &text), world.check("2", &text));
    assert_eq!((one, world.versions().await), (two, 1));
}

#[tokio::test]
async fn a_version_is_compared_with_the_one_before() {
    let world = World::new("label = \"y\"\ndrift = { psi_reject = 0.5 }");
    world.check("1", &table(0..400)).await;
    let grown = world.check("2", &table(0..440)).await;
    let change = world.report(&grown).await.change.expect("a comparison");
    assert_eq!((change.kept, change.added, change.removed), (400, 40, 0));
    let moved = world.check("3", &table(4000..4400)).await;
    assert_eq!((moved.short_kind(), codes(&moved)), (Some("dataset.rejected"), vec!["DRIFT".to_owned()]));
    assert_eq!(world.report(&grown).await.history.len(), 1);
    assert_eq!(world.versions().await, 2, "a rejected version is none");
}

#[tokio::test]
async fn rows_stay_on_their_side_as_the_dataset_grows() {
    let world = World::new(POLICY);
    let mut sides = Vec::new();
    for rows in [300, 400] {
        let data = world.check(&rows.to_string(), &table(0..rows)).await.object();
        let reference: Reference = serde_json::from_value(data["holdout"].clone()).expect("a reference");
        let bytes = world.store.get(&reference.digest, 1 << 20).await.expect("stored");
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        sides.push(text.lines().map(str::to_owned).collect::<Vec<_>>());
    }
    assert!(sides[0].iter().all(|row| sides[1].contains(row)));
    let known: Vec<&str> = table(0..300).leak().lines().collect();
    assert!(sides[1].iter().all(|row| sides[0].contains(row) || !known.contains(&row.as_str())));
    assert!((40..=85).contains(&sides[0].len()), "{}", sides[0].len());
}

#[tokio::test]
async fn the_active_models_data_is_a_reference() {
    let world = World::new(POLICY);
    let trained = world.check("1", &table(0..400)).await;
    let bundle = json!({ "model": "m", "parts": {}, "report": trained.object()["report"] });
    let bundle = world.store.put(bundle.to_string()).await.expect("stored");
    world.store.append("active", "m", 0, &json!({ "model": "m", "bundle": bundle })).await.expect("deployed");
    world.check("2", &table(200..600)).await;
    let report = world.report(&world.check("3", &table(400..800)).await).await;
    let references: Vec<&str> = report.drift.iter().map(|drift| drift.reference.as_str()).collect();
    assert_eq!(references, ["previous", "training"]);
}

#[tokio::test]
async fn what_cannot_be_checked_is_never_tried_again() {
    let world = World::new(POLICY);
    let digest = world.put(&table(0..50)).await;
    let cases = [
        (json!({ "dataset": "d" }), "missing field `digest`"),
        (json!({ "digest": digest }), "missing field `dataset`"),
        (json!({ "dataset": "../d", "digest": digest }), "cannot be a name"),
        (json!({ "dataset": "d", "digest": "sha256:12" }), "no digest"),
        (json!({ "dataset": "d", "digest": Digest::of(b"nowhere") }), "the store has no"),
        (json!({ "dataset": "d", "digest": digest, "size": 3 }), "the event says"),
        (json!({ "dataset": "d", "digest": digest, "file": "x".repeat(300) }), "file has 300 bytes"),
        (json!([1]), "missing field"),
    ];
    for (data, part) in cases {
        match world.send("1", data.clone()).await {
            Err(Failure::Never(text)) => assert!(text.contains(part), "{data}: {text}"),
            other => panic!("{data}: {other:?}"),
        }
    }
    let broken = World::new("holdout = \"much\"");
    let digest = broken.put("x\n1\n").await;
    let answer = broken.send("1", json!({ "dataset": "d", "digest": digest })).await;
    assert!(matches!(&answer, Err(Failure::Never(text)) if text.contains("holdout")), "{answer:?}");
    assert_eq!(world.versions().await, 0);
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_an_answer() {
    for (policy, text, code) in [
        ("", "", "EMPTY_FILE"),
        ("limits = { max_bytes = 10 }", "x\n1\n2\n3\n4\n5\n6\n", "TOO_LARGE"),
        ("origins = [\"ci\"]\nholdout = 0.0", "x\n1\n2\n", "ORIGIN_UNKNOWN"),
        ("dataset = \"other\"\nholdout = 0.0", "x\n1\n2\n", "WRONG_DATASET"),
        ("", "x\n1\n", "SPLIT_EMPTY"),
    ] {
        let answer = World::new(policy).check("1", text).await;
        assert_eq!(
            (answer.short_kind(), codes(&answer)),
            (Some("dataset.rejected"), vec![code.to_owned()]),
            "{text:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_fits_an_event_whatever_is_wrong() {
    let names: Vec<String> = (0..900).map(|at| format!("{}{at}", "\u{1f600}".repeat(200))).collect();
    let policy: String = names.iter().map(|name| format!("[columns.\"{name}\"]\n")).collect();
    let answer = World::new(&policy).check("1", "x\n1\n2\n").await;
    let data = Value::Object(answer.object()).to_string();
    assert!(
        codes(&answer).len() == MOST_REASONS && data.len() <= crate::event::MAX_DATA,
        "{} bytes",
        data.len()
    );
}

const PROTO: &str = "syntax = \"proto3\"; package p; service S { rpc F(Rows) returns (Rows); } \
    message Rows { repeated Row rows = 1; } message Row { float x = 1; int32 z = 2; }";

#[tokio::test]
async fn rows_must_fit_the_contract() {
    let policy = |rest: &str| format!("label = \"y\"\nholdout = 0.0\n{rest}contract = '{PROTO}'");
    for (rest, text, code) in [
        ("", "x,z,y\n1.5,2,a\n2.5,3,b\n", None),
        ("", "z,y,x\n2,a,1.5\n3,b,NA\n", None),
        ("", "x,z,w,y\n1.5,2,9,a\n2.5,3,8,b\n", None),
        ("extra_columns = \"refuse\"\n", "x,z,w,y\n1.5,2,9,a\n2.5,3,8,b\n", Some("CONTRACT")),
        ("", "x,y\n1.5,a\n2.5,b\n", Some("CONTRACT")),
        ("", "x,z,y\n1.5,2.5,a\n2.5,3,b\n", Some("CONTRACT")),
        ("", "x,z,y\n1e300,2,a\n2.5,3,b\n", Some("CONTRACT")),
    ] {
        let answer = World::new(&policy(rest)).check("1", text).await;
        let found = (answer.short_kind() == Some("dataset.rejected")).then(|| codes(&answer).join(","));
        assert_eq!(found.as_deref(), code, "{text:?} {rest}");
    }
    let text = "x,z,y\n1e301,2,a\n2.5,3,b\n";
    for (mask, is_quoted) in [("", true), ("mask.columns.x = \"remove\"\n", false)] {
        let answer = World::new(&policy(mask)).check("1", text).await;
        let reasons = answer.object()["reasons"].to_string();
        assert_eq!(reasons.contains("1e301"), is_quoted, "{reasons}");
    }
    let broken = World::new("contract = 'nonsense'");
    let digest = broken.put("x\n1\n").await;
    let answer = broken.send("1", json!({ "dataset": "d", "digest": digest })).await;
    assert!(matches!(&answer, Err(Failure::Never(text)) if text.contains("contract")), "{answer:?}");
    let served = World::new("model = \"m\"\ncontract = \"served\"");
    let digest = served.put("x\n1\n").await;
    let answer = served.send("1", json!({ "dataset": "d", "digest": digest })).await;
    assert!(matches!(&answer, Err(Failure::Later(_))), "a runner that is away may come back: {answer:?}");
}
