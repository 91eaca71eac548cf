//! The pipeline's engine: nothing accepted is lost or done twice, whatever dies; nothing runs that should not.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use baton_tests::{Pipeline, Service, event, soak_factor};
use serde_json::{Value, json};

/// Two functions in a row: `in` -> first -> `middle` -> second -> `out`.
fn chain() -> Pipeline {
    Pipeline::new()
        .broker(20, 100, None)
        .trigger("first", "in", "service/first")
        .trigger("second", "middle", "service/second")
        .service("first", &Service::replying("middle"))
        .service("second", &Service::replying("out"))
}

/// One function that answers `in` with `out`.
fn single(options: Service) -> Pipeline {
    let env = [options.env.clone(), vec![("REPLY", "out".to_owned())]].concat();
    Pipeline::new()
        .broker(3, 50, None)
        .trigger("work", "in", "service/work")
        .service("work", &Service { env, ..options })
}

fn told(id: &str, what: &str) -> Value {
    event("in", id, json!({"do": {"work": what}}))
}

fn identity(listed: &Value) -> (String, String) {
    let text = |name: &str| listed["event"][name].as_str().expect("an attribute").to_owned();
    (text("source"), text("id"))
}

#[test]
fn a_duplicate_is_accepted_and_changes_nothing() {
    let pipeline = chain();
    let engine = pipeline.start();
    for _ in 0..5 {
        engine.post(&event("in", "same", json!({"a": 1})));
    }
    engine.post(&event("in", "same", json!({"other": "data"})));
    engine.settle();
    for kind in ["in", "middle", "out"] {
        assert_eq!(engine.events(kind).len(), 1, "{kind}");
    }
    assert_eq!(pipeline.notes("calls").len(), 2);
    assert_eq!(engine.events("out")[0]["event"]["data"], json!({"a": 1}), "the first one counts");
    assert_eq!(engine.events("out")[0]["cause"], engine.events("middle")[0]["seq"]);
}

#[test]
fn kill_9_of_the_engine_at_any_moment_loses_nothing_and_doubles_nothing() {
    let number = 300 * soak_factor() as usize;
    let pipeline = chain();
    let mut engine = Some(pipeline.start());
    // The engine is killed while events come in; a sender sends again what was not answered, under the same id.
    let kills = 6;
    let mut left: Vec<usize> = (0..number).rev().collect();
    for kill in 0..=kills {
        let running = engine.take().expect("an engine");
        let until = if kill == kills { 0 } else { number - (kill + 1) * number / (kills + 1) };
        // Sent by four at a time, so that the engine dies in the middle of some.
        while left.len() > until {
            let batch: Vec<usize> = (0..4).filter_map(|_| left.pop()).collect();
            let refused: Vec<usize> = std::thread::scope(|scope| {
                let posts: Vec<_> = batch
                    .iter()
                    .map(|id| (*id, &running))
                    .map(|(id, engine)| {
                        scope.spawn(move || {
                            let taken = engine.try_post(&event("in", &id.to_string(), json!({"n": id})));
                            (taken != Some(202)).then_some(id)
                        })
                    })
                    .collect();
                posts.into_iter().filter_map(|post| post.join().expect("no panic")).collect()
            });
            left.extend(refused);
        }
        if kill == kills {
            engine = Some(running);
            break;
        }
        // An event that may be on disk or not: its sender does not know, and sends it again.
        let address = running.address().to_owned();
        let unsure = left.pop().expect("more events");
        let body = event("in", &unsure.to_string(), json!({"n": unsure})).to_string();
        let mut stream = TcpStream::connect(address).expect("connected");
        write!(
            stream,
            "POST / HTTP/1.1\r\nhost: {}\r\ncontent-type: application/cloudevents+json\r\ncontent-length: {}\r\n\r\n{body}",
            running.address(),
            body.len()
        )
        .expect("written");
        // A different moment each time, from before the event is read to long after.
        std::thread::sleep(Duration::from_millis(7 * kill as u64 * kill as u64));
        running.kill();
        left.push(unsure);
        engine = Some(pipeline.start());
    }
    let engine = engine.expect("an engine");
    engine.settle();
    for kind in ["in", "middle", "out"] {
        let events = engine.events(kind);
        let distinct: BTreeSet<_> = events.iter().map(identity).collect();
        assert_eq!((events.len(), distinct.len()), (number, number), "{kind}");
    }
    let answered: BTreeSet<i64> =
        engine.events("out").iter().filter_map(|listed| listed["event"]["data"]["n"].as_i64()).collect();
    assert_eq!(answered.len(), number, "each event has its own answer");
    assert!(engine.deliveries("dead").is_empty(), "{:?}", engine.deliveries("dead"));
    // A function may be called again for what was in flight, and only for that: at most all slots at each kill.
    let calls = pipeline.notes("calls").len();
    assert!(calls >= 2 * number && calls <= 2 * number + kills * 16, "{calls} calls for {number} events");
}

#[test]
fn what_is_stored_is_delivered_though_its_sender_did_not_wait_for_the_answer() {
    let pipeline = chain();
    let engine = pipeline.start();
    let number = 60;
    for id in 0..number {
        let body = event("in", &id.to_string(), json!({})).to_string();
        let mut stream = TcpStream::connect(engine.address()).expect("connected");
        write!(
            stream,
            "POST / HTTP/1.1\r\nhost: {}\r\ncontent-type: application/cloudevents+json\r\ncontent-length: {}\r\n\r\n{body}",
            engine.address(),
            body.len()
        )
        .expect("written");
        // About the time that a commit takes; each event alone, so that none is found by the way.
        std::thread::sleep(Duration::from_micros(250 * (id % 12)));
        drop(stream);
        if id % 12 == 11 {
            engine.settle();
        }
    }
    engine.settle();
    let stored = engine.events("in").len();
    assert!(stored > 0, "none was stored");
    assert_eq!(engine.events("out").len(), stored);
}

#[test]
fn nothing_of_a_killed_engine_lives_on_not_even_daemons() {
    let pipeline = single(Service::default())
        .trigger("train", "dev.baton.dataset.validated.v1", "job/train")
        .job(0, 600, None);
    let engine = pipeline.start();
    engine.post(&told("1", "daemon"));
    engine.wait_for("an answer", || engine.events("out").len() == 1);
    engine.post(&told("2", "hang"));
    engine.post(&event("dev.baton.dataset.validated.v1", "3", json!({"do": {"job": "sleep 600"}})));
    engine.wait_for("a job", || pipeline.notes("jobs").len() == 1);
    engine.wait_for("a call", || pipeline.notes("calls").len() == 2);
    let before = pipeline.alive();
    assert!(before.len() >= 3, "a function, its daemon, a job: {before:?}");
    let started = Instant::now();
    engine.kill();
    while !pipeline.alive().is_empty() {
        assert!(started.elapsed() < Duration::from_secs(5), "still there: {:?}", pipeline.alive());
        std::thread::sleep(Duration::from_millis(10));
    }
    // And both are done again.
    let engine = pipeline.start();
    engine.wait_for("the job again", || pipeline.notes("jobs").len() == 2);
    engine.wait_for("the call again", || pipeline.notes("calls").len() == 3);
    assert_eq!(engine.function("train")["jobs"][0]["state"], "running");
}

#[test]
fn supervisors_that_are_killed_leave_nothing_either() {
    let pipeline = single(Service::default());
    let engine = pipeline.start();
    engine.post(&told("1", "hang"));
    engine.wait_for("a call", || pipeline.notes("calls").len() == 1);
    let function = pipeline.alive();
    let supervisor = engine.function("work")["instances"][0]["pid"].as_u64().expect("a pid");
    std::process::Command::new("kill").args(["-9", &supervisor.to_string()]).status().expect("kill runs");
    engine.wait_for("a new instance", || pipeline.notes("calls").len() == 2);
    assert!(!pipeline.alive().contains(&function[0]), "the old one is gone");
    // What survives supervisor and engine together is found at the next start.
    let supervisor = engine.function("work")["instances"][0]["pid"].as_u64().expect("a pid");
    let function = pipeline.alive();
    let stop = |signal: &str, pid: u64| {
        std::process::Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill runs")
    };
    stop("-STOP", supervisor);
    engine.wait_for("a supervisor that stands still", || {
        std::fs::read_to_string(format!("/proc/{supervisor}/stat")).is_ok_and(|stat| stat.contains(") T "))
    });
    engine.kill();
    stop("-9", supervisor);
    assert_eq!(pipeline.alive(), function, "an orphan");
    let _engine = pipeline.start();
    assert!(!pipeline.alive().contains(&function[0]), "the orphan is gone before anything is delivered");
}

#[test]
fn calls_and_instances_never_exceed_their_limits_and_idle_ones_end() {
    let pipeline = single(Service { concurrency: 2, max_scale: 3, ..Service::default() });
    let engine = pipeline.start();
    for id in 0..60 {
        engine.post(&told(&id.to_string(), "sleep 0.05"));
    }
    engine.settle();
    assert_eq!(engine.events("out").len(), 60);
    // As the functions themselves have counted.
    assert!((1..=3).contains(&pipeline.most("work instances")), "{}", pipeline.most("work instances"));
    assert!((2..=6).contains(&pipeline.most("work calls")), "{}", pipeline.most("work calls"));
    assert!(engine.instances("work") > 0, "kept for a while");
    engine.wait_for("scaled to zero", || engine.instances("work") == 0);
    assert_eq!(pipeline.alive(), Vec::<String>::new());
    engine.post(&told("again", "reply"));
    engine.settle();
    assert_eq!(engine.events("out").len(), 61, "and from zero");
}

#[test]
fn crashing_instances_are_replaced_within_their_limit() {
    let pipeline = single(Service { concurrency: 1, max_scale: 2, ..Service::default() });
    let engine = pipeline.start();
    for id in 0..10 {
        engine.post(&told(&id.to_string(), "crash 2"));
    }
    engine.settle();
    assert_eq!(engine.events("out").len(), 10, "each crashes twice, then answers");
    assert_eq!(pipeline.notes("calls").len(), 30);
    assert!(pipeline.most("work instances") <= 2, "{}", pipeline.most("work instances"));
    engine.post(&told("hopeless", "crash"));
    engine.settle();
    let dead = engine.deliveries("dead");
    assert_eq!(dead.len(), 1, "{dead:?}");
    let error = dead[0]["error"].as_str().expect("a text");
    assert!(error.contains("exit code 7") && error.contains("about to crash"), "{error}");
}

#[test]
fn a_call_that_hangs_is_given_up_and_its_instance_replaced() {
    let pipeline = single(Service { concurrency: 1, max_scale: 1, timeout: 1, ..Service::default() });
    let engine = pipeline.start();
    engine.post(&told("1", "hang"));
    engine.post(&told("2", "reply"));
    engine.settle();
    assert_eq!(engine.events("out").len(), 1, "the other one is answered");
    let dead = engine.deliveries("dead");
    assert_eq!(dead[0]["status"], Value::Null, "nothing was answered: {dead:?}");
    assert_eq!(dead[0]["failed_attempts"], 4);
    assert!(pipeline.most("work instances") == 1);
}

#[test]
fn a_function_that_holds_too_much_memory_is_killed_and_the_error_says_so() {
    let options = Service { memory: Some("100Mi"), ..Service::default() };
    let pipeline = single(options);
    let engine = pipeline.start();
    engine.post(&told("1", "grow 400"));
    engine.settle();
    let dead = engine.deliveries("dead");
    let error = dead[0]["error"].as_str().expect("a text");
    assert!(error.contains("memory, its limit is 100 MiB"), "{error}");
}

#[test]
fn functions_that_never_start_are_told_apart() {
    let cases = [
        ("sh -c 'echo no module; exit 5'", &["exit code 5", "before it listened", "no module"][..]),
        ("/does/not/exist", &["cannot start /does/not/exist"]),
    ];
    for (command, texts) in cases {
        let pipeline = Pipeline::new()
            .broker(1, 50, None)
            .trigger("work", "in", "service/work")
            .service_running("work", &Service::default(), command);
        let engine = pipeline.start();
        engine.post(&told("1", "reply"));
        engine.settle();
        let dead = engine.deliveries("dead");
        let error = dead[0]["error"].as_str().expect("a text");
        for text in texts {
            assert!(error.contains(text), "{command}: {error}");
        }
        assert_eq!(dead[0]["failed_attempts"], 2, "{command}");
    }
}

#[test]
fn a_foreign_process_on_the_port_is_never_spoken_to() {
    let options = Service { env: vec![("START", "1".into())], max_scale: 1, ..Service::default() };
    let pipeline = single(options);
    let engine = pipeline.start();
    engine.post(&told("1", "reply"));
    engine.wait_for("a port", || !pipeline.notes("ports").is_empty());
    let port: u16 = pipeline.notes("ports")[0].parse().expect("a port");
    // Taken before the function listens, as a stale process would hold it.
    let foreign = TcpListener::bind(("127.0.0.1", port)).expect("bound");
    foreign.set_nonblocking(true).expect("set");
    engine.settle();
    assert!(foreign.accept().is_err(), "nobody has connected");
    assert_eq!(engine.events("out").len(), 1, "the next instance has another port");
}

#[test]
fn answers_decide_whether_a_delivery_is_tried_again() {
    for (what, attempts, done) in [
        ("later 503", 3, true),
        ("later 404", 3, true),
        ("later 429", 3, true),
        ("status 500", 4, false),
        ("status 400", 1, false),
        ("status 301", 1, false),
        ("malformed", 1, false),
        ("silent", 1, true),
    ] {
        let pipeline = single(Service::default());
        let engine = pipeline.start();
        engine.post(&told("1", what));
        engine.settle();
        assert_eq!(pipeline.notes("calls").len(), attempts, "{what}");
        let state = if done { "done" } else { "dead" };
        assert_eq!(engine.deliveries(state).len(), 1, "{what}");
    }
}

#[test]
fn what_was_given_up_is_told_and_can_be_tried_again() {
    let pipeline = Pipeline::new()
        .broker(1, 50, Some("service/sink"))
        .trigger("work", "in", "service/work")
        .service("work", &Service::replying("out"))
        .service("sink", &Service::default());
    let engine = pipeline.start();
    // Refused the first two times it is seen, so the second round succeeds.
    engine.post(&told("1", "later 503"));
    engine.post(&told("2", "status 422"));
    engine.settle();
    assert_eq!(engine.deliveries("dead").len(), 2);
    engine.wait_for("both told", || pipeline.notes("dead").len() == 2);
    let mut told: Vec<Value> =
        pipeline.notes("dead").iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    told.sort_by_key(|dead| dead["knativeerrorcode"].as_str().map(str::to_owned));
    let expected = |code: &str| json!({"knativeerrordest": "service/work", "knativeerrorcode": code, "knativeerrordata": "told to"});
    assert_eq!(told, [expected("422"), expected("503")]);
    assert_eq!(engine.requeue(json!({"trigger": "work", "id": "1"})), 1);
    engine.settle();
    assert_eq!(engine.events("out").len(), 1);
    assert_eq!(engine.deliveries("dead").len(), 1);
    assert_eq!(engine.requeue(json!({})), 1, "the other one");
    engine.settle();
    assert_eq!(engine.deliveries("dead").len(), 1, "it fails again");
    // One that is done is made again only if it is named, and answers another event.
    assert_eq!(engine.requeue(json!({"trigger": "work", "source": "/test"})), 1, "only the dead one");
    engine.settle();
    assert_eq!(engine.requeue(json!({"trigger": "work", "source": "/test", "id": "1"})), 1);
    engine.settle();
    assert_eq!(engine.events("out").len(), 2);
}

#[test]
fn the_history_says_which_runs_have_deliveries_that_were_given_up() {
    let kind = "dev.baton.dataset.updated.v1";
    let pipeline = Pipeline::new()
        .broker(0, 50, None)
        .trigger("work", kind, "service/work")
        .service("work", &Service::replying("out"));
    let engine = pipeline.start();
    let history = || {
        let mut command = std::process::Command::new(baton_tests::runner::binary());
        let output = command.args(["history", "--runs", "--pipeline", engine.address()]).output();
        String::from_utf8(output.expect("it runs").stderr).expect("UTF-8")
    };
    for (id, what) in [("1", "status 422"), ("2", "fine"), ("3", "status 422")] {
        engine.post(&event(kind, id, json!({"do": {"work": what}})));
        engine.settle();
        let expected = ["one of these runs has a", "one of these runs has a", "2 of these runs have"];
        let text = history();
        assert!(text.contains(expected[id.parse::<usize>().expect("a number") - 1]), "{id}: {text}");
    }
}

#[test]
fn a_job_that_is_the_dead_letter_sink_is_told_each_time_and_sees_why() {
    let pipeline = Pipeline::new()
        .broker(0, 50, Some("job/train"))
        .trigger("work", "in", "service/work")
        .trigger("job", "in", "job/train")
        .service("work", &Service::replying("out"))
        .job(0, 30, None);
    let engine = pipeline.start();
    engine.post(&told("1", "status 422"));
    engine.wait_for("it is told", || pipeline.notes("dead").len() == 1);
    engine.wait_for("the event's own job", || pipeline.notes("jobs").len() == 2);
    assert_eq!(engine.requeue(json!({"trigger": "work"})), 1);
    engine.wait_for("it is told again", || pipeline.notes("dead").len() == 2);
    for line in pipeline.notes("dead") {
        let told: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            (&told["knativeerrordest"], &told["knativeerrorcode"]),
            (&json!("service/work"), &json!("422"))
        );
    }
}

#[test]
fn an_event_as_long_as_one_may_be_reaches_a_function() {
    let pipeline =
        Pipeline::new().broker(0, 50, None).trigger("history", "in", "service/history").service_running(
            "history",
            &Service::default(),
            &format!("{} fn history", baton_tests::runner::binary().display()),
        );
    let engine = pipeline.start();
    let mut long = event("in", "long", json!({}));
    for number in 0..25 {
        long[format!("attribute{number}")] = "€".repeat(1_300).into();
    }
    engine.post(&long);
    engine.settle();
    assert_eq!(engine.deliveries("dead"), Vec::<Value>::new());
    assert_eq!(engine.deliveries("done").len(), 1);
}

#[test]
fn a_pipeline_that_feeds_itself_ends() {
    let pipeline = Pipeline::new()
        .broker(0, 50, None)
        .trigger("work", "in", "service/work")
        .service("work", &Service::replying("in"));
    let engine = pipeline.start();
    engine.post(&event("in", "1", json!({})));
    engine.wait_for("the end", || !engine.deliveries("dead").is_empty());
    assert_eq!(engine.events("in").len(), 256);
    let error = engine.deliveries("dead")[0]["error"].to_string();
    assert!(error.contains("feeds itself"), "{error}");
    assert!(engine.deliveries("pending").is_empty());
}

#[test]
fn the_least_number_of_instances_is_kept_up() {
    let pipeline = single(Service { min_scale: 2, max_scale: 3, ..Service::default() });
    let engine = pipeline.start();
    engine.wait_for("two", || engine.instances("work") == 2 && pipeline.notes("pids").len() == 2);
    let pid = pipeline.notes("pids")[0].clone();
    std::process::Command::new("kill").args(["-9", &pid]).status().expect("kill runs");
    engine.wait_for("another one", || pipeline.notes("pids").len() == 3 && engine.instances("work") == 2);
    assert_eq!(pipeline.alive().len(), 2);
}

#[test]
fn what_never_starts_is_tried_again_slower_and_slower() {
    let options = Service { min_scale: 1, ..Service::default() };
    let pipeline =
        Pipeline::new().service_running("work", &options, "sh -c 'echo x >> $NOTES/starts; exit 1'");
    let engine = pipeline.start();
    engine.wait_for("two starts", || pipeline.notes("starts").len() >= 2);
    std::thread::sleep(Duration::from_secs(3));
    // At 0, 1, 3 and 7 s.
    assert!(pipeline.notes("starts").len() <= 4, "{}", pipeline.notes("starts").len());
}

#[test]
fn an_instance_that_takes_no_connections_any_more_is_replaced() {
    let pipeline = single(Service { max_scale: 1, ..Service::default() });
    let engine = pipeline.start();
    engine.post(&told("1", "deaf"));
    engine.wait_for("the first", || engine.events("out").len() == 1);
    for id in ["2", "3"] {
        engine.post(&told(id, "reply"));
    }
    engine.settle();
    assert_eq!(engine.events("out").len(), 3);
    assert!(engine.deliveries("dead").is_empty(), "{:?}", engine.deliveries("dead"));
    assert_eq!(pipeline.notes("pids").len(), 2);
}

#[test]
fn a_slow_target_holds_up_no_other() {
    let pipeline = Pipeline::new()
        .broker(5, 50, None)
        .trigger("slow", "in", "service/slow")
        .trigger("fast", "in", "service/fast")
        .trigger("gone", "in", "http://127.0.0.1:9/")
        .service("slow", &Service { concurrency: 1, max_scale: 1, ..Service::default() })
        .service("fast", &Service::replying("out"));
    let engine = pipeline.start();
    for id in 0..30 {
        engine.post(&event("in", &id.to_string(), json!({"do": {"slow": "sleep 30"}})));
    }
    engine.wait_for("all fast ones", || engine.events("out").len() == 30);
    assert_eq!(engine.function("slow")["deliveries"]["pending"], 30);
}

fn job_event(id: &str, what: &str) -> Value {
    let mut event = event(
        "dev.baton.dataset.validated.v1",
        id,
        json!({"do": {"job": what}, "dataset": "iris", "digest": "sha256:x"}),
    );
    event["pipelinerun"] = format!("run-{id}").into();
    event
}

fn jobs(backoff_limit: u32, deadline: u32, memory: Option<&str>) -> Pipeline {
    Pipeline::new().broker(3, 50, None).trigger("train", "dev.baton.dataset.validated.v1", "job/train").job(
        backoff_limit,
        deadline,
        memory,
    )
}

const FINISHED: &str = "dev.baton.training.finished.v1";
const FAILED: &str = "dev.baton.training.failed.v1";

/// Of this process, and so of the engine.
fn niceness() -> i64 {
    let line = std::fs::read_to_string("/proc/self/stat").expect("readable");
    line.rsplit(')')
        .next()
        .and_then(|rest| rest.split_ascii_whitespace().nth(16)?.parse().ok())
        .expect("a number")
}

#[test]
fn jobs_end_in_one_answer_whatever_they_do() {
    let cases = [
        ("answer", 1, 600, "done", None),
        ("fail 1", 2, 600, "done", None),
        ("fail 9", 1, 600, "exit", Some("exit")),
        ("quiet", 0, 600, "done", Some("lost")),
        ("sleep 60", 3, 1, "deadline", Some("deadline")),
        ("grow 400", 0, 600, "memory", Some("memory")),
    ];
    std::thread::scope(|scope| {
        for (what, backoff_limit, deadline, result, reason) in cases {
            scope.spawn(move || {
                let pipeline = jobs(backoff_limit, deadline, Some("150Mi"));
                let engine = pipeline.start();
                engine.post(&job_event("1", what));
                let ended = || engine.function("train")["jobs"][0]["state"] == "ended";
                engine.wait_for(what, ended);
                let job = engine.function("train")["jobs"][0].clone();
                assert_eq!(job["result"], result, "{what}: {job}");
                let failed = engine.events(FAILED);
                let finished = engine.events(FINISHED).len();
                match reason {
                    None => assert_eq!((finished, failed.len()), (1, 0), "{what}"),
                    Some(reason) => {
                        assert_eq!((finished, failed.len()), (0, 1), "{what}");
                        let event = &failed[0]["event"];
                        assert_eq!(event["data"]["reason"], reason, "{what}: {event}");
                        assert_eq!(event["source"], "/baton/engine");
                        assert_eq!(event["pipelinerun"], "run-1");
                        assert_eq!(event["data"]["dataset"], "iris");
                        assert!(event["data"]["cost"]["wall_s"].as_f64() > Some(0.0), "{event}");
                        assert!(failed[0]["cause"].is_i64());
                        if what.starts_with("fail") {
                            let error = event["data"]["error"].as_str().expect("a text");
                            assert!(error.contains("exit code 3") && error.contains("no luck"), "{error}");
                        }
                    }
                }
                assert_eq!(pipeline.alive(), Vec::<String>::new(), "{what}");
                let notes = pipeline.notes("jobs");
                let expected = format!(" {} batch", (niceness() + 10).min(19));
                assert!(notes.iter().all(|line| line.ends_with(&expected)), "{what}: {expected}: {notes:?}");
            });
        }
    });
}

#[test]
fn whatever_an_event_says_the_failure_of_its_job_is_told_and_holds_nothing_up() {
    let pipeline =
        jobs(0, 600, None).trigger("told", FAILED, "service/told").service("told", &Service::default());
    let engine = pipeline.start();
    let data = [
        json!({"model": ""}),
        json!({"model": "iris\n"}),
        json!({"model": "x".repeat(5000)}),
        json!({"dataset": "x".repeat(60_000), "digest": 5}),
    ];
    for (id, mut data) in data.into_iter().enumerate() {
        data["do"] = json!({"job": "fail 9"});
        let mut event = job_event(&id.to_string(), "");
        event["data"] = data;
        engine.post(&event);
    }
    engine.wait_for("all failures", || engine.events(FAILED).len() == 4);
    engine.settle();
    assert_eq!(pipeline.notes("calls").len(), 4);
}

#[test]
fn a_job_answers_for_itself_alone() {
    let pipeline = jobs(0, 3, None);
    let engine = pipeline.start();
    engine.post(&job_event("1", "sleep 600"));
    engine.wait_for("the job", || pipeline.notes("jobs").len() == 1);
    // Another job of the same run, and what the engine says of another.
    for (id, source) in [("a", "/baton/jobs/other"), ("b", "/baton/engine")] {
        let mut finished = event(FINISHED, id, json!({}));
        finished["source"] = source.into();
        finished["pipelinerun"] = "run-1".into();
        engine.post(&finished);
    }
    engine.wait_for("its own failure", || engine.events(FAILED).len() == 1);
}

#[test]
fn a_job_is_started_once_for_an_event_and_again_after_a_kill() {
    let pipeline = jobs(0, 600, None).argument("--jobs").argument("1");
    let engine = pipeline.start();
    engine.post(&job_event("1", "sleep 3"));
    engine.post(&job_event("1", "sleep 3"));
    engine.post(&job_event("2", "answer"));
    engine.wait_for("the first", || pipeline.notes("jobs").len() == 1);
    assert_eq!(engine.function("train")["jobs"].as_array().map(Vec::len), Some(2), "the second one waits");
    engine.kill();
    let engine = pipeline.start();
    engine.wait_for("both answers", || engine.events(FINISHED).len() == 2);
    let ids: Vec<String> =
        pipeline.notes("jobs").iter().filter_map(|line| line.split(' ').nth(1).map(str::to_owned)).collect();
    assert_eq!(ids, ["1", "1", "2"], "in order, one at a time");
    // Asked for once more by name, it runs once more and answers another event.
    assert_eq!(engine.requeue(json!({"trigger": "train", "source": "/test", "id": "2"})), 1);
    engine.wait_for("another answer", || engine.events(FINISHED).len() == 3);
}

#[test]
fn changed_code_runs_again_and_what_did_not_change_does_not() {
    let pipeline = Pipeline::new()
        .broker(3, 50, None)
        .trigger("first", "in", "service/first")
        .trigger("second", "middle", "service/second")
        .trigger("third", "out", "service/third")
        .service("first", &Service { folder: "one", ..Service::replying("middle") })
        .service("second", &Service { folder: "two", ..Service::replying("out") })
        .service("third", &Service { folder: "one", ..Service::default() });
    pipeline.write_code("one", "");
    pipeline.write_code("two", "");
    let names = |pipeline: &Pipeline| -> Vec<String> {
        pipeline.notes("calls").iter().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
    };
    let engine = pipeline.start();
    for id in ["old", "new"] {
        engine.post(&event("in", id, json!({"n": id})));
        engine.settle();
    }
    assert_eq!(names(&pipeline).len(), 6);
    drop(engine);
    let rounds: [(&str, &str, &[&str]); 6] = [
        ("two", "", &[]),
        ("two", "changed", &["second", "third"]),
        ("two", "changed", &[]),
        // Both the first and what follows: the first alone is delivered again, the others come by themselves.
        ("one", "changed", &["first", "second", "third"]),
        // Back to what it was.
        ("two", "", &["second", "third"]),
        ("two", "", &[]),
    ];
    for (round, (folder, comment, expected)) in rounds.into_iter().enumerate() {
        pipeline.write_code(folder, comment);
        let before = names(&pipeline).len();
        let engine = pipeline.start();
        engine.settle();
        assert_eq!(names(&pipeline)[before..], *expected, "round {round}");
        if let Some(last) = engine.events("out").last() {
            assert_eq!(last["event"]["data"]["n"], "new", "only the newest event of a subject");
        }
    }
}

#[test]
fn files_in_the_inbox_become_datasets_once() {
    let inbox = tempfile::TempDir::new().expect("a folder");
    std::fs::create_dir(inbox.path().join("iris")).expect("a folder");
    std::fs::write(inbox.path().join("iris/a.csv"), "1,2\n").expect("written");
    let pipeline =
        Pipeline::new().broker(1, 50, None).argument("--inbox").argument(&inbox.path().display().to_string());
    const UPDATED: &str = "dev.baton.dataset.updated.v1";
    for round in 0..2 {
        let engine = pipeline.start();
        engine.wait_for("the file", || engine.events(UPDATED).len() == 1);
        if round == 1 {
            // The same data under another name, then other data under the same.
            std::fs::write(inbox.path().join("iris/b.csv"), "1,2\n").expect("written");
            std::fs::write(inbox.path().join("iris/a.csv"), "3,4\n").expect("written");
            engine.wait_for("the new version", || engine.events(UPDATED).len() == 2);
        }
        let last = engine.events(UPDATED).last().expect("an event")["event"].clone();
        assert_eq!(last["source"], "/baton/datasets");
        assert_eq!(last["subject"], "iris");
        let digest = last["data"]["digest"].as_str().expect("a digest");
        assert_eq!(last["id"], format!("iris@{digest}"));
        let blob = reqwest::blocking::get(format!("http://{}/v1/blobs/{digest}", engine.address()))
            .expect("an answer");
        assert_eq!(blob.text().expect("text"), ["1,2\n", "3,4\n"][round]);
    }
}

#[test]
fn sigterm_ends_everything_in_time_and_loses_nothing() {
    let pipeline = single(Service::default())
        .trigger("train", "dev.baton.dataset.validated.v1", "job/train")
        .job(0, 600, None);
    let engine = pipeline.start();
    engine.post(&told("polite", "sleep 0.5"));
    engine.post(&told("deaf", "hang"));
    engine.post(&job_event("job", "sleep 600"));
    engine
        .wait_for("all at work", || pipeline.notes("calls").len() == 2 && pipeline.notes("jobs").len() == 1);
    let (status, took) = engine.terminate();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(12), "{took:?}");
    assert_eq!(pipeline.alive(), Vec::<String>::new());
    let engine = pipeline.start();
    engine.wait_for("the rest again", || {
        pipeline.notes("calls").len() >= 3 && pipeline.notes("jobs").len() == 2
    });
    let pending: Vec<String> =
        engine.deliveries("pending").iter().map(|delivery| delivery["event"]["id"].to_string()).collect();
    assert!(pending.contains(&"\"deaf\"".to_owned()), "{pending:?}");
    assert_eq!(engine.deliveries("pending").last().expect("one")["failed_attempts"], 0, "nobody's failure");
}

#[test]
fn sigterm_does_not_wait_for_what_is_starting() {
    let pipeline = single(Service { env: vec![("START", "40".into())], ..Service::default() });
    let engine = pipeline.start();
    engine.post(&told("1", "reply"));
    engine.wait_for("a start", || !pipeline.notes("ports").is_empty());
    let (status, took) = engine.terminate();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(pipeline.alive(), Vec::<String>::new());
}

#[test]
fn two_engines_do_not_share_a_folder() {
    let pipeline = chain();
    let _engine = pipeline.start();
    let (status, text) = pipeline.refused();
    assert_eq!(status.code(), Some(75), "{text}");
    assert!(text.contains("is in use by another engine"), "{text}");
}

#[test]
fn what_is_no_event_is_refused_with_the_right_status() {
    let pipeline = chain();
    let engine = pipeline.start();
    let http = reqwest::blocking::Client::new();
    let post = |headers: &[(&str, &str)], body: Vec<u8>| {
        let mut request = http.post(format!("http://{}/", engine.address())).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().expect("an answer").status().as_u16()
    };
    let binary = [("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "none"), ("ce-specversion", "1.0")];
    let structured = [("content-type", "application/cloudevents+json")];
    let large = event("none", "large", json!("x".repeat(70_000))).to_string().into_bytes();
    assert_eq!(post(&binary, Vec::new()), 202);
    assert_eq!(post(&binary[1..], Vec::new()), 400);
    assert_eq!(post(&[], b"{}".to_vec()), 415);
    assert_eq!(post(&structured, b"{".to_vec()), 400);
    assert_eq!(post(&structured, large), 413);
    assert_eq!(post(&structured, vec![b' '; 200_000]), 413);
    assert_eq!(post(&[&binary[..], &[("host", "evil.example")]].concat(), Vec::new()), 403);
    assert_eq!(post(&[&binary[..], &[("origin", "http://evil.example")]].concat(), Vec::new()), 403);
    assert_eq!(engine.events("none").len(), 1);
}

#[test]
fn events_are_streamed_from_any_point_on() {
    let pipeline = chain();
    let engine = pipeline.start();
    engine.post(&event("in", "1", json!({})));
    engine.settle();
    let mut stream = TcpStream::connect(engine.address()).expect("connected");
    write!(
        stream,
        "GET /v1/events?after=1 HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n\r\n",
        engine.address()
    )
    .expect("written");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
    let mut types = lines.filter_map(|line| line.strip_prefix("event: ").map(str::to_owned));
    assert_eq!(types.next().as_deref(), Some("middle"));
    assert_eq!(types.next().as_deref(), Some("out"));
    engine.post(&event("in", "2", json!({})));
    for kind in ["in", "middle", "out"] {
        assert_eq!(types.next().as_deref(), Some(kind), "those to come");
    }
}

#[test]
fn beyond_the_loopback_a_token_is_needed() {
    let pipeline = chain().argument("--listen").argument("0.0.0.0:0");
    let (status, text) = pipeline.refused();
    assert_eq!(status.code(), Some(64), "{text}");
    let token = tempfile::NamedTempFile::new().expect("a file");
    token.as_file().write_all(b"0123456789abcdef\n").expect("written");
    let pipeline = jobs(0, 600, None).argument("--token-file").argument(&token.path().display().to_string());
    let engine = pipeline.start();
    assert_eq!(engine.try_post(&job_event("1", "answer")), Some(401));
    let http = reqwest::blocking::Client::new();
    let url = format!("http://{}", engine.address());
    let health = http.get(format!("{url}/health/readiness")).send().expect("an answer");
    assert_eq!(health.status(), 200);
    let post = http
        .post(&url)
        .bearer_auth("0123456789abcdef")
        .header("content-type", "application/cloudevents+json");
    assert_eq!(post.body(job_event("1", "answer").to_string()).send().expect("an answer").status(), 202);
    // The job has no token, and answers all the same.
    engine.wait_for("an answer", || {
        let events = http.get(format!("{url}/v1/events?type={FINISHED}")).bearer_auth("0123456789abcdef");
        let mut text = String::new();
        events.send().expect("an answer").read_to_string(&mut text).expect("text");
        text.contains("/baton/jobs/train")
    });
}

#[test]
fn half_sent_requests_are_cut_and_idle_connections_do_not_hold_up_the_end() {
    let pipeline = single(Service::default());
    let engine = pipeline.start();
    let open = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(engine.address()).expect("a connection");
        stream.write_all(bytes).expect("sent");
        stream
    };
    let headers = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/cloudevents+json\r\ncontent-length: 9\r\n\r\n{";
    let half: Vec<TcpStream> =
        (0..300).map(|number| open(&headers[..headers.len() * (number % 2 + 1) / 2])).collect();
    let idle: Vec<TcpStream> = (0..300).map(|_| open(b"")).collect();
    engine.post(&event("in", "between", json!({})));
    engine.settle();
    assert_eq!(engine.events("out").len(), 1);
    for mut stream in half {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        stream.read_to_end(&mut Vec::new()).expect("its end, not the time limit");
    }
    let (status, took) = engine.terminate();
    assert!(status.success() && took < Duration::from_secs(5), "{status} {took:?}");
    drop(idle);
}

#[test]
fn a_set_from_standard_input_is_checked_like_a_file() {
    let check = |text: &str| {
        let mut command = std::process::Command::new(baton_tests::runner::binary());
        command
            .args(["pipeline", "check", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("an end");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let trigger = "apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: all}\nspec:\n  broker: default\n  \
                   subscriber: {uri: 'http://127.0.0.1:9/'}\n";
    let (code, out, _) = check(trigger);
    assert!(code == Some(0) && out.contains("http://127.0.0.1:9/"), "{code:?} {out}");
    let (code, _, error) = check(&trigger.replace("  broker", "  brokre"));
    assert!(
        code == Some(64) && error.contains("-:5: document 1: Trigger/all: spec.brokre"),
        "{code:?} {error}"
    );
    let (code, _, error) = check("");
    assert!(code == Some(64) && error.starts_with('-'), "{code:?} {error}");
}
