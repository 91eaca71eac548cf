//! Crashes and faults in the middle of a push: what was acknowledged survives, what was not leaves no trace.

use std::time::{Duration, Instant};

use baton_tests::{Options, Runner, onnx, soak_factor};

/// The publish protocol's points at which a push can be cut, and whether its version may be served afterwards.
const BEFORE_ACTIVE: [&str; 10] = [
    "stage.write",
    "stage.sync",
    "blob.link",
    "blob.dirsync",
    "prepare",
    "version.write",
    "version.link",
    "version.dirsync",
    "active.write",
    "active.link",
];
const ACTIVE: [&str; 2] = ["active.dirsync", "swap"];

fn start(store: &std::path::Path, failpoints: &str) -> Runner {
    let runner = Options::default().store(store).environment("BATON_FAILPOINTS", failpoints).start();
    runner.wait_ready();
    runner
}

#[test]
fn an_abort_at_any_step_leaves_old_or_new_and_never_neither() {
    for point in BEFORE_ACTIVE.iter().chain(&ACTIVE) {
        let store = tempfile::TempDir::new().expect("a folder");
        let mut runner = start(store.path(), "");
        runner.push("add", &onnx::add(1.0));
        runner.kill();
        let mut runner = start(store.path(), &format!("{point}=abort"));
        assert!(
            runner.try_push("add", &onnx::add(2.0), "").is_err(),
            "{point}: the process ends before it answers"
        );
        assert!(!runner.wait().success(), "{point}");
        let runner = start(store.path(), "");
        let (k, version) = runner.call_add("add");
        assert_eq!(k.to_string(), version, "{point}");
        // Whether the pointer's entry survives an abort right before its folder is synced is the kernel's choice.
        let allowed: &[&str] = if BEFORE_ACTIVE.contains(point) { &["1"] } else { &["1", "2"] };
        assert!(allowed.contains(&version.as_str()), "{point}: version {version} is served");
        assert_eq!(std::fs::read_dir(store.path().join("staging")).expect("a folder").count(), 0, "{point}");
        // The store takes pushes again, with numbers that were never given out.
        let answer = runner.push("add", &onnx::add(3.0));
        assert!(answer["version"].as_str() > Some("1"), "{point}: {answer}");
    }
}

#[test]
fn a_disk_error_at_any_step_is_answered_and_the_old_version_goes_on() {
    for (action, status, code) in [("full", 507, "STORE_FULL"), ("error", 503, "STORE_IO")] {
        for point in BEFORE_ACTIVE.iter().filter(|point| **point != "prepare").chain(&["active.dirsync"]) {
            let store = tempfile::TempDir::new().expect("a folder");
            let mut runner = start(store.path(), "");
            runner.push("add", &onnx::add(1.0));
            runner.kill();
            let mut runner = start(store.path(), &format!("{point}={action}"));
            let (got, answer) = runner.try_push("add", &onnx::add(2.0), "").expect("an answer");
            assert_eq!((got, answer["code"].as_str()), (status, Some(code)), "{point}: {answer}");
            let text = answer["error"].as_str().expect("a text");
            assert!(!text.contains(store.path().to_str().expect("UTF-8")), "{point}: a path in {text}");
            assert_eq!(runner.call_add("add"), (1.0, "1".to_owned()), "{point}");
            assert_eq!(
                std::fs::read_dir(store.path().join("staging")).expect("a folder").count(),
                0,
                "{point}"
            );
            // And after a restart: what was refused does not come back.
            runner.kill();
            let runner = start(store.path(), "");
            assert_eq!(runner.call_add("add"), (1.0, "1".to_owned()), "{point} after the restart");
        }
    }
}

#[test]
fn kill_9_at_random_moments_loses_nothing_acknowledged() {
    let store = tempfile::TempDir::new().expect("a folder");
    let mut acknowledged = 0_u64;
    let mut next = 1_u64;
    // A small generator: moments differ from round to round and are the same in every run.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let rounds = 25 * soak_factor();
    for round in 0..rounds {
        let mut runner = start(store.path(), "");
        if acknowledged > 0 {
            let (k, _) = runner.call_add("add");
            assert!(
                k >= acknowledged as f64,
                "round {round}: {k} is served, {acknowledged} was acknowledged"
            );
            next = next.max(k as u64 + 1);
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let end = Instant::now() + Duration::from_micros(random % 60_000);
        let pusher = std::thread::scope(|scope| {
            let pushing = scope.spawn(|| {
                let mut last = None;
                // Each push is one above the last, so that what is served tells how far it got.
                for k in next.. {
                    match runner.try_push("add", &onnx::add(k as f32), "") {
                        // 200: stored by a push that was cut off before its answer, activated now.
                        Ok((200 | 201, _)) => last = Some(k),
                        Ok((status, answer)) => panic!("{status} {answer}"),
                        Err(_) => break,
                    }
                }
                last
            });
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
            let killed = std::process::Command::new("kill").args(["-9", &runner.pid().to_string()]).status();
            assert!(killed.expect("kill runs").success());
            pushing.join().expect("the pusher ends")
        });
        runner.wait();
        if let Some(last) = pusher {
            acknowledged = acknowledged.max(last);
            next = next.max(last + 1);
        }
    }
    println!("{rounds} kills, {acknowledged} pushes acknowledged, 0 lost, 0 failed starts");
    assert!(acknowledged > 0, "some pushes were acknowledged");
}

#[test]
fn a_damaged_blob_is_not_served_and_the_one_before_is() {
    let store = tempfile::TempDir::new().expect("a folder");
    let mut runner = start(store.path(), "");
    let (first, second) = (onnx::add(1.0), onnx::add(2.0));
    runner.push("add", &first);
    let artifact = runner.push("add", &second);
    runner.kill();
    let digest = {
        let runner = start(store.path(), "");
        let model = runner.model("add");
        model["versions"][0]["parts"]["artifact"]["digest"].as_str().expect("a digest").to_owned()
    };
    let blob = store.path().join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let mut bytes = std::fs::read(&blob).expect("the blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&blob, bytes).expect("damaged");
    let runner = start(store.path(), "");
    assert_eq!(runner.call_add("add"), (1.0, "1".to_owned()));
    assert!(
        runner.model("add")["reason"].as_str().is_some_and(|reason| reason.contains("version 2")),
        "{artifact}"
    );
    assert!(runner.log().contains("STORE_CORRUPT"));
    // The same bundle pushed again heals the blob.
    assert_eq!(runner.push("add", &second)["version"], "2");
    assert_eq!(runner.call_add("add"), (2.0, "2".to_owned()));
}

#[test]
fn a_second_server_on_the_same_store_is_refused() {
    let store = tempfile::TempDir::new().expect("a folder");
    let mut first = start(store.path(), "");
    let second = Options::default().store(store.path()).try_start();
    assert_eq!(second.err().and_then(|status| status.code()), Some(75));
    // A lock left by a killed process is none.
    first.kill();
    start(store.path(), "");
}

#[test]
fn sigterm_answers_what_was_accepted() {
    const ROWS: usize = 60_000;
    let mut runner = Runner::start();
    runner.push("slow", &onnx::slow(1_000));
    let url = format!("http://{}/v2/models/slow/infer", runner.data());
    let values = vec!["0.5"; 4 * ROWS].join(",");
    let body =
        format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[{ROWS},4],"data":[{values}]}}]}}"#);
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let (http, url, body) = (runner.http().clone(), url.clone(), body.clone());
            std::thread::spawn(move || {
                http.post(url).body(body).send().map(|response| response.status().as_u16())
            })
        })
        .collect();
    let in_flight = || {
        let metrics = runner.get_admin("/metrics").expect("metrics").text().expect("text");
        metrics.lines().any(|line| line == "baton_requests_in_flight{model=\"slow\"} 6")
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !in_flight() {
        assert!(Instant::now() < deadline, "six slow calls are in flight at once");
        std::thread::sleep(Duration::from_millis(5));
    }
    runner.terminate();
    for call in calls {
        assert_eq!(call.join().expect("ended").expect("answered"), 200);
    }
    assert_eq!(runner.wait().code(), Some(0));
}
