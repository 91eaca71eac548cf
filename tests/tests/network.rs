//! Slow, silent and broken connections are cut, and cost nobody else anything.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use baton_tests::{Options, Runner, onnx};

/// Sends `first`, then waits until the server closes the connection; what it said, and how long it took.
fn until_closed(address: &str, first: &[u8]) -> (String, Duration) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.write_all(first).expect("sent");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let start = Instant::now();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    (String::from_utf8_lossy(&said).into_owned(), start.elapsed())
}

#[test]
fn slow_senders_are_cut_after_ten_seconds_and_idle_connections_are_not() {
    let runner = Runner::start();
    runner.push("add", &onnx::add(1.0));
    let get = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut idle = TcpStream::connect(runner.data()).expect("connected");
    std::thread::scope(|scope| {
        let cut = |port: &'static str, first: &'static [u8], status: &'static str| {
            let address = if port == "admin" { runner.admin() } else { runner.data() };
            scope.spawn(move || {
                let (said, time) = until_closed(address, first);
                assert!((9..15).contains(&time.as_secs()), "{first:?}: cut after {time:?}");
                assert!(said.starts_with(status), "{first:?}: {said}");
            });
        };
        cut("data", b"GET /livez HTTP/1.1\r\nHos", "");
        cut("data", b"PRI * HTTP/2.0\r\n", "");
        cut(
            "data",
            b"POST /v2/models/add/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc",
            "HTTP/1.1 408",
        );
        cut(
            "admin",
            b"PUT /v1/models/add/artifact HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nabc",
            "HTTP/1.1 408",
        );
        // Meanwhile a connection without a request stays, before and after one.
        let mut answer = [0; 512];
        for _ in 0..2 {
            idle.write_all(get).expect("sent");
            let length = idle.read(&mut answer).expect("answered");
            assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
            std::thread::sleep(Duration::from_secs(6));
        }
    });
    idle.write_all(get).expect("an idle connection is open after twelve seconds");
    assert!(idle.read(&mut [0; 512]).expect("answered") > 0);
    assert_eq!(std::fs::read_dir(runner.store().join("staging")).expect("a folder").count(), 0);
    assert_eq!(runner.call_add("add").1, "1");
}

#[test]
fn the_listener_outlives_a_lack_of_descriptors() {
    let runner = {
        // The limit is inherited by the server alone.
        let script = std::env::temp_dir().join(format!("baton-few-descriptors-{}", std::process::id()));
        std::fs::write(
            &script,
            format!("#!/bin/sh\nulimit -n 64\nexec {} \"$@\"\n", baton_tests::runner::binary().display()),
        )
        .expect("written");
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
        let runner = Options::default().binary(&script).start();
        runner.wait_ready();
        let _ = std::fs::remove_file(&script);
        runner
    };
    runner.push("add", &onnx::add(1.0));
    let held: Vec<TcpStream> = (0..100).filter_map(|_| TcpStream::connect(runner.data()).ok()).collect();
    assert!(held.len() > 64);
    std::thread::sleep(Duration::from_millis(300));
    drop(held);
    assert_eq!(runner.call_add("add").1, "1");
    assert!(runner.log().contains("cannot accept a connection"), "the limit was met: {}", runner.log());
}

#[test]
fn a_client_that_leaves_stops_its_run() {
    let runner = Runner::start();
    runner.push("slow", &onnx::slow(20_000));
    let metric = |name: &str| -> Option<String> {
        let text = runner.get_admin("/metrics").expect("metrics").text().expect("text");
        text.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
    };
    let values = vec!["0.5"; 4 * 20_000].join(",");
    let body =
        format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[20000,4],"data":[{values}]}}]}}"#);
    let mut stream = TcpStream::connect(runner.data()).expect("connected");
    let head =
        format!("POST /v2/models/slow/infer HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(body.as_bytes()).expect("sent");
    let in_flight = "baton_requests_in_flight{model=\"slow\"}";
    let wait = |value: &str| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while metric(in_flight).as_deref() != Some(value) {
            assert!(Instant::now() < deadline, "{in_flight} never was {value}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait("1");
    drop(stream);
    wait("0");
    // The thread is free again: the run was stopped between two kernels, not waited for.
    let start = Instant::now();
    let small = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[0,0,0,0]}]}"#;
    for _ in 0..2 {
        let url = format!("http://{}/v2/models/slow/infer", runner.data());
        assert_eq!(runner.http().post(url).body(small).send().expect("answered").status(), 200);
    }
    println!("answered {:?} after the client left", start.elapsed());
}

#[test]
fn a_port_in_use_is_refused_even_by_another_baton() {
    let runner = Runner::start();
    for (flag, address) in [("--listen", runner.data()), ("--admin-listen", runner.admin())] {
        let second = Options::default().argument(flag).argument(address).try_start();
        assert_eq!(second.err().and_then(|status| status.code()), Some(64), "{flag} {address}");
    }
}
