//! Native models: what they do to themselves they do to nobody else, and nothing of them is left behind.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use baton_tests::{Load, Options, Runner, native, onnx, soak_factor};
use serde_json::{Value, json};

/// A call of a sinner: status, code or first value, and the answer's text.
fn call(runner: &Runner, model: &str, values: &[f32]) -> (u16, Value) {
    let inputs = json!([{ "name": "x", "datatype": "FP32", "shape": [values.len()], "data": values }]);
    let url = format!("http://{}/v2/models/{model}/infer", runner.data());
    let response = runner.http().post(url).json(&json!({ "inputs": inputs })).send().expect("an answer");
    (response.status().as_u16(), response.json().unwrap_or_default())
}

fn assert_good(runner: &Runner, model: &str) {
    let (status, answer) = call(runner, model, &[3.0, 4.0]);
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([6.0, 8.0])), "{model}: {answer}");
}

fn push_with(runner: &Runner, model: &str, library: &[u8], manifest: &str) -> (u16, Value) {
    let part = |bytes: &[u8]| reqwest::blocking::multipart::Part::bytes(bytes.to_vec());
    let form = reqwest::blocking::multipart::Form::new()
        .part("model", part(library))
        .part("manifest", part(manifest.as_bytes()));
    let url = format!("http://{}/v1/models/{model}", runner.admin());
    let response = runner.http().put(url).multipart(form).send().expect("an answer");
    (response.status().as_u16(), response.json().unwrap_or_default())
}

/// Processes whose parent is the server.
fn workers(runner: &Runner) -> BTreeSet<u32> {
    let task = std::fs::read_dir(format!("/proc/{}/task", runner.pid())).expect("threads");
    task.flatten()
        .flat_map(|thread| {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}

fn exists(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// Ends a process, unless it has ended meanwhile.
fn kill(pid: u32) {
    std::process::Command::new("kill").args(["-9", &pid.to_string()]).output().expect("kill runs");
}

fn within(time: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < time, "{what}: not within {time:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn sinners_at_the_push_are_refused_and_the_old_version_stays() {
    let runner = Runner::start();
    runner.push("good", &native::built("hostile/globals_2"));
    for (sin, status, codes) in [
        ("no_symbol", 422, &["DYLIB_SYMBOL"][..]),
        ("wrong_abi", 422, &["DYLIB_ABI"]),
        ("wrong_table_abi", 422, &["DYLIB_ABI"]),
        ("no_note", 422, &["DYLIB_ABI"]),
        ("two_notes", 422, &["DYLIB_ABI"]),
        ("short_table", 422, &["DYLIB_ABI", "DYLIB_SYMBOL"]),
        ("null_functions", 422, &["DYLIB_ABI"]),
        ("missing_library", 422, &["DYLIB_DEPENDENCY"]),
        ("undefined_symbol", 422, &["DYLIB_DEPENDENCY"]),
        ("ctor_exit", 422, &["PREPARE_FAILED"]),
        ("ctor_crash", 422, &["PREPARE_FAILED"]),
        ("ctor_sleep", 504, &["PREPARE_DEADLINE"]),
        ("dies_at_create", 422, &["PREPARE_FAILED"]),
        ("fails_at_create", 422, &["PREPARE_FAILED"]),
        ("panic_in_create", 422, &["PREPARE_FAILED"]),
        ("bad_description_not_json", 422, &["PREPARE_FAILED"]),
        ("bad_description_not_utf8", 422, &["PREPARE_FAILED"]),
        ("bad_description_datatype", 422, &["PREPARE_FAILED"]),
        ("bad_description_shape", 422, &["PREPARE_FAILED"]),
        ("bad_description_twice", 422, &["PREPARE_FAILED"]),
        ("bad_description_many", 422, &["PREPARE_FAILED"]),
        ("bad_description_no_outputs", 422, &["PREPARE_FAILED"]),
        ("bad_description_size", 422, &["PREPARE_FAILED"]),
        ("bad_description_endless", 422, &["PREPARE_FAILED"]),
        ("bad_description_crash", 422, &["PREPARE_FAILED"]),
    ] {
        let library = native::built(&format!("hostile/{sin}"));
        let (got, answer) = runner.try_push("good", &library, "").expect("an answer");
        let code = answer["code"].as_str().unwrap_or_default();
        assert!(got == status && codes.contains(&code), "{sin}: {got} {answer}");
        assert_good(&runner, "good");
    }
    assert_eq!(runner.active("good").as_deref(), Some("1"));
    within(Duration::from_secs(2), "only the good model's workers are left", || workers(&runner).len() == 2);
}

#[test]
fn sinners_at_a_call_harm_nobody_else() {
    let runner = Runner::start();
    runner.push("bystander", &native::built("hostile/globals_2"));
    for (sin, status, code) in [
        ("panic", 500, "MODEL_PANIC"),
        ("panic_payload", 500, "MODEL_PANIC"),
        ("abort", 503, "WORKER_LOST"),
        ("segv", 503, "WORKER_LOST"),
        ("fpe", 503, "WORKER_LOST"),
        ("overflow", 503, "WORKER_LOST"),
        ("exit", 503, "WORKER_LOST"),
        ("loop", 504, "DEADLINE"),
        ("memory", 503, "MODEL_MEMORY"),
        ("overrun", 500, "MODEL_OVERRUN"),
        ("overrun_small", 500, "MODEL_OVERRUN"),
        ("bad_status", 500, "MODEL_CONTRACT"),
        ("bad_size", 500, "MODEL_CONTRACT"),
        ("bad_rank", 500, "MODEL_CONTRACT"),
        ("bad_datatype", 500, "MODEL_CONTRACT"),
        ("bad_pointer", 500, "MODEL_CONTRACT"),
        ("negative_shape", 500, "MODEL_CONTRACT"),
        ("wrong_shape", 500, "MODEL_CONTRACT"),
        ("bad_text", 500, "MODEL_CONTRACT"),
        ("more_forever", 500, "MODEL_CONTRACT"),
        ("more_of_nothing", 500, "MODEL_CONTRACT"),
        ("huge_more", 422, "OUTPUT_TOO_LARGE"),
    ] {
        let library = native::built(&format!("hostile/{sin}"));
        let manifest = "[limits]\nrequest_timeout_ms = 1000\n[workers]\nmemory_mb = 256\n";
        let (pushed, answer) = push_with(&runner, sin, &library, manifest);
        assert_eq!(pushed, 201, "{sin}: {answer}");
        assert_good(&runner, sin);
        let (got, answer) = call(&runner, sin, &[1000.0, 1.0]);
        assert_eq!((got, answer["code"].as_str()), (status, Some(code)), "{sin}: {answer}");
        assert!(code == "DEADLINE" || answer["source"] == "model", "{sin}: {answer}");
        assert_good(&runner, sin);
        assert_good(&runner, "bystander");
        // What a worker died of is shown.
        if ["WORKER_LOST", "MODEL_MEMORY", "MODEL_OVERRUN", "DEADLINE"].contains(&code) {
            let died = |worker: &Value| worker["restarts"] == 1 && worker["last_death"].is_string();
            within(Duration::from_secs(2), sin, || {
                runner.model(sin)["workers"].as_array().is_some_and(|workers| workers.iter().any(died))
            });
        }
        assert_eq!(
            runner
                .http()
                .delete(format!("http://{}/v1/models/{sin}?force=true", runner.admin()))
                .send()
                .expect("an answer")
                .status(),
            204
        );
    }
    let metrics = runner.get_admin("/metrics").expect("an answer").text().expect("text");
    for expected in [
        "baton_worker_deaths_total{cause=\"crash\",model=\"segv\"} 1",
        "baton_worker_deaths_total{cause=\"memory\",model=\"memory\"} 1",
        "baton_worker_deaths_total{cause=\"overrun\",model=\"overrun\"} 1",
        "baton_worker_deaths_total{cause=\"deadline\",model=\"loop\"} 1",
        "baton_workers{model=\"bystander\",state=\"ready\"} 2",
    ] {
        assert!(metrics.contains(expected), "{expected} is not in\n{metrics}");
    }
}

#[test]
fn models_that_disturb_their_process_disturb_no_other() {
    let runner = Runner::start();
    runner.push("bystander", &native::built("hostile/globals_3"));
    for sin in
        ["close_fds", "fork_child", "chatter", "signals", "threads", "tls", "panic_in_drop", "globals_2"]
    {
        let manifest = "[limits]\nrequest_timeout_ms = 1000\n";
        let (pushed, answer) = push_with(&runner, sin, &native::built(&format!("hostile/{sin}")), manifest);
        assert_eq!(pushed, 201, "{sin}: {answer}");
        for _ in 0..3 {
            let (status, answer) = call(&runner, sin, &[1000.0]);
            let lost = ["WORKER_LOST", "DEADLINE"].map(Some).contains(&answer["code"].as_str());
            assert!(status == 200 || lost, "{sin}: {status} {answer}");
        }
        within(Duration::from_secs(5), sin, || call(&runner, sin, &[3.0]).0 == 200);
        let (status, answer) = call(&runner, "bystander", &[3.0]);
        assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([9.0])), "{sin}: {answer}");
    }
    let children = workers(&runner);
    for sin in
        ["close_fds", "fork_child", "chatter", "signals", "threads", "tls", "panic_in_drop", "globals_2"]
    {
        let url = format!("http://{}/v1/models/{sin}?force=true", runner.admin());
        assert_eq!(runner.http().delete(url).send().expect("an answer").status(), 204, "{sin}");
    }
    within(Duration::from_secs(10), "all their workers end", || workers(&runner).len() == 2);
    assert_eq!(children.into_iter().filter(|pid| exists(*pid)).count(), 2, "the bystander's");
}

#[test]
fn swaps_between_onnx_and_native_under_load_lose_nothing() {
    let runner = Runner::start();
    let models = [onnx::add(1.0), native::add(2), native::add(3)];
    for model in &models {
        runner.push("add", model);
    }
    let load = Load::start(runner.data(), "add", 300, |version| version.parse().ok());
    let swaps = 100 * soak_factor();
    for swap in 0..swaps {
        let version = swap % 3 + 1;
        assert_eq!(runner.post(&format!("/v1/models/add/versions/{version}:activate")).0, 200);
        std::thread::sleep(Duration::from_millis(20));
    }
    let ledger = load.finish();
    println!(
        "{swaps} swaps, by version {:?}, p50 {:.2} ms, p99 {:.2} ms",
        ledger.versions(),
        ledger.quantile_ms(0.5),
        ledger.quantile_ms(0.99)
    );
    ledger.assert_whole();
    assert_eq!(ledger.versions().len(), 3, "all three answered");
}

#[test]
fn nothing_is_left_of_many_isolated_swaps() {
    let runner = Runner::start();
    for k in 1..=3 {
        runner.push("add", &native::add(k));
    }
    let swap = |count: u32| {
        for index in 0..count {
            let version = index % 3 + 1;
            let (status, answer) = runner.post(&format!("/v1/models/add/versions/{version}:activate"));
            assert_eq!(status, 200, "{answer}\n{}", runner.log());
            assert_eq!(runner.call_add("add").0, f64::from(version));
        }
        within(Duration::from_secs(10), "the workers of two versions are left", || {
            workers(&runner).len() == 4
        });
        // Idle helper threads end after a second.
        std::thread::sleep(Duration::from_secs(2));
        runner.resources()
    };
    let base = swap(6);
    let swaps = 999 * soak_factor();
    let after = swap(swaps);
    println!("{swaps} isolated swaps: {base:?} -> {after:?}");
    assert!(after.resident_kib < base.resident_kib + 8_000, "{base:?} -> {after:?}");
    assert!(after.threads <= base.threads + 1, "{base:?} -> {after:?}");
    assert!(after.descriptors <= base.descriptors + 2, "{base:?} -> {after:?}");
    assert!(after.mappings <= base.mappings + 20, "{base:?} -> {after:?}");
    assert!(!std::fs::read_dir("/dev/shm").is_ok_and(|files| {
        files.flatten().any(|file| file.file_name().to_string_lossy().contains("baton"))
    }));
}

#[test]
fn killed_workers_are_back_within_a_second() {
    let runner = Runner::start();
    runner.push("add", &native::add(1));
    let url = format!("http://{}/v2/models/add/infer", runner.data());
    let body =
        json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0] }] });
    let call = || runner.http().post(&url).json(&body).send().expect("an answer");
    let (mut lost, mut good, mut slowest) = (0, 0, Duration::ZERO);
    for _ in 0..20 * soak_factor() {
        let killed = workers(&runner);
        for pid in &killed {
            kill(*pid);
        }
        let start = Instant::now();
        loop {
            let response = call();
            if response.status() == 200 {
                break;
            }
            lost += 1;
            assert_eq!(response.status(), 503);
            assert!(response.headers().contains_key("retry-after"));
            assert_eq!(response.json::<Value>().expect("JSON")["code"], "WORKER_LOST");
        }
        slowest = slowest.max(start.elapsed());
        // A process that was told to die may still take one request before it does.
        within(Duration::from_secs(1), "they are gone", || !killed.iter().any(|pid| exists(*pid)));
        for _ in 0..20 {
            assert_eq!(call().status(), 200);
            good += 1;
        }
    }
    println!("both workers killed again and again: {good} good, {lost} lost, slowest recovery {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert!(good > lost, "{good} good, {lost} lost");
}

#[test]
fn workers_end_with_the_server() {
    let mut runner = Runner::start();
    runner.push("add", &native::add(1));
    let children = workers(&runner);
    assert_eq!(children.len(), 2);
    runner.kill();
    within(Duration::from_secs(2), "orphans", || !children.iter().any(|pid| exists(*pid)));

    let mut runner = Runner::start();
    runner.push("add", &native::add(1));
    let children = workers(&runner);
    runner.terminate();
    assert_eq!(runner.wait().code(), Some(0));
    within(Duration::from_secs(2), "orphans", || !children.iter().any(|pid| exists(*pid)));
}

#[test]
fn workers_that_die_in_a_row_degrade_the_version_and_a_good_answer_heals_it() {
    let runner = Runner::start();
    let (status, answer) = push_with(&runner, "segv", &native::built("hostile/segv"), "");
    assert_eq!(status, 201, "{answer}");
    for _ in 0..4 {
        assert_eq!(call(&runner, "segv", &[1000.0]).0, 503);
    }
    let ready = || runner.get_data("/v2/models/segv/ready").expect("an answer").status();
    assert_eq!(runner.model("segv")["degraded"], true);
    assert_eq!(ready(), 503);
    within(Duration::from_secs(5), "a good answer", || call(&runner, "segv", &[1.0]).0 == 200);
    assert_eq!(runner.model("segv")["degraded"], false);
    assert_eq!(ready(), 200);
}

#[test]
fn a_degraded_version_is_rolled_back_if_its_manifest_says_so() {
    let runner = Runner::start();
    runner.push("model", &native::built("hostile/globals_2"));
    let manifest = "[workers]\nrestarts = 2\non_degraded = \"rollback\"\n";
    let (status, answer) = push_with(&runner, "model", &native::built("hostile/segv"), manifest);
    assert_eq!(status, 201, "{answer}");
    for _ in 0..2 {
        assert_eq!(call(&runner, "model", &[1000.0]).0, 503);
    }
    within(Duration::from_secs(2), "a roll-back", || runner.active("model").as_deref() == Some("1"));
    assert_eq!(call(&runner, "model", &[1000.0]).0, 200);
    let reason = runner.model("model")["reason"].as_str().map(str::to_owned);
    assert!(reason.as_deref().is_some_and(|text| text.contains("version 2")), "{reason:?}");
}

#[test]
fn in_process_needs_permission_and_never_runs_old_code() {
    let manifest = "execution = \"in-process\"\n";
    let runner = Runner::start();
    let (status, answer) = push_with(&runner, "add", &native::add(1), manifest);
    assert_eq!((status, answer["code"].as_str()), (422, Some("EXECUTION_REFUSED")), "{answer}");

    let runner = Options::default().argument("--allow-native-in-process").argument("--keep-ready=0").start();
    runner.wait_ready();
    for k in 1..=5 {
        let (status, answer) = push_with(&runner, "add", &native::add(k), manifest);
        assert_eq!(status, 201, "{answer}");
        assert_eq!(runner.call_add("add").0, f64::from(k));
    }
    assert!(workers(&runner).is_empty());
    let swaps = 1000 * soak_factor();
    let base = runner.resources();
    for index in 0..swaps {
        let version = index % 5 + 1;
        assert_eq!(runner.post(&format!("/v1/models/add/versions/{version}:activate")).0, 200);
        assert_eq!(runner.call_add("add"), (f64::from(version), version.to_string()));
    }
    std::thread::sleep(Duration::from_secs(2));
    let after = runner.resources();
    println!("{swaps} swaps in process: {base:?} -> {after:?}");
    assert!(after.descriptors <= base.descriptors + 3, "{base:?} -> {after:?}");
    assert!(after.mappings <= base.mappings + 20, "{base:?} -> {after:?}");
    assert_eq!(runner.model("add")["pinned_libraries"], json!([]));
}

#[test]
fn libraries_that_stay_mapped_are_shown_and_counted() {
    let runner = Options::default().argument("--allow-native-in-process").argument("--keep-ready=0").start();
    runner.wait_ready();
    let manifest = "execution = \"in-process\"\n";
    let mut refused = None;
    for round in 0..40_u8 {
        // Bytes behind the end of the file make another bundle of the same code.
        let mut library = native::built("hostile/threads");
        library.extend([0, round]);
        let (status, answer) = push_with(&runner, "threads", &library, manifest);
        if status != 201 {
            refused = Some((status, answer));
            break;
        }
        assert_eq!(call(&runner, "threads", &[1000.0]).0, 200);
    }
    let (status, answer) = refused.expect("a limit");
    assert_eq!((status, answer["code"].as_str()), (503, Some("LIBRARY_PINNED")), "{answer}");
    let pinned = runner.model("threads")["pinned_libraries"].as_array().map_or(0, Vec::len);
    assert_eq!(pinned, 16);
    let metrics = runner.get_admin("/metrics").expect("an answer").text().expect("text");
    assert!(metrics.contains("baton_native_libraries_pinned 16"), "{metrics}");
    assert_eq!(call(&runner, "threads", &[2.0]).0, 200, "the last version that was taken answers");
}

#[test]
fn onnx_models_can_be_isolated() {
    let runner = Runner::start();
    let (status, answer) = push_with(&runner, "add", &onnx::add(1.0), "execution = \"isolated\"\n");
    assert_eq!(status, 201, "{answer}");
    assert_eq!(workers(&runner).len(), 2);
    assert_eq!(runner.call_add("add").0, 1.0);
    for pid in workers(&runner) {
        kill(pid);
    }
    let restarted = |model: &Value| {
        model["workers"].as_array().is_some_and(|workers| {
            workers.iter().all(|worker| worker["restarts"] == 1 && worker["state"] == "ready")
        })
    };
    within(Duration::from_secs(3), "workers are back", || restarted(&runner.model("add")));
    assert_eq!(runner.call_add("add").0, 1.0);
    let broken = b"\x08\x08\x12\x00not a model";
    let (status, answer) = push_with(&runner, "add", broken, "execution = \"isolated\"\n");
    assert_eq!(status, 422, "{answer}");
}

#[test]
fn damaged_libraries_are_refused_and_the_server_lives() {
    let runner = Runner::start();
    let good = native::add(1);
    runner.push("add", &good);
    for percent in 0..100 {
        let cut = &good[..good.len() * percent / 100];
        let (status, answer) = runner.try_push("add", cut, "?dry_run=true").expect("an answer");
        assert!((400..500).contains(&status), "{percent} %: {status} {answer}");
    }
    let mut seed = 1_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let mut taken = 0;
    for round in 0..500 * soak_factor() {
        let mut mutant = good.clone();
        for _ in 0..=random() % 32 {
            // Half of them where the headers and tables are.
            let range = if round % 2 == 0 { mutant.len().min(4096) } else { mutant.len() };
            let at = random() % range;
            mutant[at] = random() as u8;
        }
        let (status, answer) = runner.try_push("add", &mutant, "?dry_run=true").expect("an answer");
        match status {
            200 => taken += 1,
            status => assert!([400, 422, 504].contains(&status), "{status} {answer}"),
        }
    }
    println!("of 500 mutants {taken} are taken: what was changed is not used");
    assert_eq!(runner.call_add("add"), (1.0, "1".to_owned()));
}

#[test]
fn workers_start_under_the_limits_that_the_server_has() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let script = folder.path().join("limited");
    let binary = baton_tests::runner::binary();
    let text = format!("#!/bin/sh\nulimit -n 512\nulimit -d 2000000\nexec {} \"$@\"\n", binary.display());
    std::fs::write(&script, text).expect("written");
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, permissions).expect("executable");
    let runner = Options::default().binary(&script).start();
    runner.wait_ready();
    runner.push("add", &native::add(1));
    assert_eq!(runner.call_add("add").0, 1.0);
    let (status, answer) = push_with(&runner, "onnx", &onnx::add(2.0), "execution = \"isolated\"\n");
    assert_eq!(status, 201, "{answer}");
    assert_eq!(runner.call_add("onnx").0, 2.0);
}
