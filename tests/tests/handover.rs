//! The promise: a swap loses no request and mixes no two versions, and gives back what the old version held.

use std::time::Duration;

use baton_tests::{Load, Runner, onnx, soak_factor};

/// Version 1 adds 1, version 2 adds 2, and so on.
fn k_of(version: &str) -> Option<f32> {
    version.parse().ok()
}

#[test]
fn swaps_under_load_lose_nothing_and_mix_nothing() {
    let runner = Runner::start();
    for k in [1.0, 2.0] {
        runner.push("add", &onnx::add(k));
    }
    let load = Load::start(runner.data(), "add", 400, k_of);
    let swaps = 150 * soak_factor();
    for swap in 0..swaps {
        // Alternately by activation, by pushing the bundle again, and by roll-back.
        match swap % 4 {
            0 => assert_eq!(runner.post("/v1/models/add/versions/1:activate").0, 200),
            1 => assert_eq!(runner.push("add", &onnx::add(2.0))["version"], "2"),
            2 => assert_eq!(runner.post("/v1/models/add/versions/1:activate").0, 200),
            _ => assert_eq!(runner.post("/v1/models/add:rollback").0, 200),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let ledger = load.finish();
    println!(
        "{swaps} swaps, {} calls, {} lost, by version {:?}, p50 {:.2} ms, p99 {:.2} ms",
        ledger.sent.load(std::sync::atomic::Ordering::SeqCst),
        ledger.lost(),
        ledger.versions(),
        ledger.quantile_ms(0.5),
        ledger.quantile_ms(0.99),
    );
    ledger.assert_whole();
    assert_eq!(ledger.versions().len(), 2, "both versions answered");
}

#[test]
fn new_versions_under_load_lose_nothing_while_another_large_model_is_swapped() {
    let runner = Runner::start();
    runner.push("add", &onnx::add(1.0));
    let load = Load::start(runner.data(), "add", 300, k_of);
    for round in 0..6 * soak_factor() {
        runner.push("large", &onnx::add_heavy(round as f32 + 1.0, 20_000_000));
        runner.push("add", &onnx::add(round as f32 + 2.0));
    }
    let ledger = load.finish();
    ledger.assert_whole();
    assert!(ledger.versions().len() >= 6, "{:?}", ledger.versions());
}

#[test]
fn memory_threads_descriptors_and_mappings_return_after_many_swaps() {
    let runner = Runner::start();
    for k in [1.0, 2.0, 3.0] {
        runner.push("large", &onnx::add_heavy(k, 45_000_000));
    }
    let swap = |count: u32| {
        for index in 0..count {
            let version = index % 3 + 1;
            assert_eq!(runner.post(&format!("/v1/models/large/versions/{version}:activate")).0, 200);
            assert_eq!(runner.call_add("large").0, f64::from(version));
        }
        // The reaper works behind the answers, and idle helper threads end after a second.
        std::thread::sleep(Duration::from_secs(3));
        runner.resources()
    };
    let base = swap(6);
    let swaps = 30 * soak_factor();
    let after = swap(swaps);
    println!("{swaps} swaps of 45 MB: {base:?} -> {after:?}");
    // One generation of the model is 45 MB; a leak of one swap in ten would show.
    assert!(after.resident_kib < base.resident_kib + base.resident_kib / 4, "{base:?} -> {after:?}");
    assert!(after.threads <= base.threads + 1, "{base:?} -> {after:?}");
    assert!(after.descriptors <= base.descriptors + 2, "{base:?} -> {after:?}");
    assert!(after.mappings <= base.mappings + 40, "{base:?} -> {after:?}");
}

#[test]
fn a_rollback_works_with_the_store_gone() {
    let runner = Runner::start();
    for k in [1.0, 2.0] {
        runner.push("add", &onnx::add(k));
    }
    std::fs::remove_dir_all(runner.store()).expect("the store is removed");
    let (status, answer) = runner.post("/v1/models/add:rollback");
    assert_eq!(status, 200, "{answer}");
    assert!(answer["warnings"][0].as_str().is_some_and(|text| text.contains("restart")), "{answer}");
    assert_eq!(runner.call_add("add"), (1.0, "1".to_owned()));
}

#[test]
fn a_restart_serves_what_was_active() {
    let store = tempfile::TempDir::new().expect("a folder");
    let mut runner = baton_tests::Options::default().store(store.path()).start();
    runner.wait_ready();
    for k in [1.0, 2.0, 3.0] {
        runner.push("add", &onnx::add(k));
    }
    assert_eq!(runner.post("/v1/models/add:rollback").0, 200);
    let before = runner.model("add");
    runner.terminate();
    assert_eq!(runner.wait().code(), Some(0));
    let runner = baton_tests::Options::default().store(store.path()).start();
    runner.wait_ready();
    let after = runner.model("add");
    assert_eq!(
        (&after["active"], &after["generation"], &after["digest"]),
        (&before["active"], &before["generation"], &before["digest"])
    );
    assert_eq!(runner.call_add("add"), (2.0, "2".to_owned()));
    // Numbers and generations go on from there.
    let answer = runner.push("add", &onnx::add(4.0));
    assert_eq!((answer["version"].as_str(), answer["generation"].as_u64()), (Some("4"), Some(5)));
}
