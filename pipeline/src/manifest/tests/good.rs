//! Good sets, and the values that are read from them.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::super::*;
use super::{SMALL, read_paths, read_text, repository};

fn exact(kind: &str) -> Filter {
    Filter::Exact(BTreeMap::from([("type".to_owned(), kind.to_owned())]))
}

fn small(from: &str, to: &str) -> Pipeline {
    assert!(SMALL.contains(from), "{from}");
    read_text(&SMALL.replacen(from, to, 1)).unwrap_or_else(|errors| panic!("{errors}")).pipeline
}

fn web(pipeline: &Pipeline) -> &Service {
    &pipeline.services[0]
}

#[test]
fn the_sample_is_read() {
    let pipeline = read_paths(&[repository("pipeline/sample/digits/pipeline.yaml")])
        .unwrap_or_else(|errors| panic!("{errors}"))
        .pipeline;
    assert_eq!(pipeline.broker, "default");
    let names: Vec<&str> = pipeline.triggers.iter().map(|trigger| trigger.name.as_str()).collect();
    assert_eq!(names, ["validate", "train", "evaluate-trained", "evaluate-pushed", "deploy"]);
    let train = &pipeline.triggers[1];
    assert_eq!(train.filter, exact("dev.baton.dataset.validated.v1"));
    assert_eq!(train.subscriber, Destination::Job { name: "train".into() });
    let validate = web(&pipeline);
    assert_eq!(validate.run.command, Command::BuiltIn(vec!["fn".into(), "validate".into()]));
    assert!(validate.run.env["BATON_POLICY"].contains("dataset = \"digits\""));
    assert_eq!((validate.concurrency, validate.min_scale, validate.max_scale), (1, 0, 2));
    assert_eq!((validate.timeout, validate.idle), (Duration::from_secs(300), Duration::from_secs(60)));
    let job = &pipeline.jobs[0];
    assert_eq!(job.run.command, Command::Program(vec!["python3".into(), "train.py".into()]));
    assert!(job.run.folder.ends_with("pipeline/sample/digits"), "{:?}", job.run.folder);
    assert_eq!((job.run.memory, job.run.cpu_millis), (Some(2 << 30), Some(1000)));
    assert_eq!((job.backoff_limit, job.deadline, job.keep.as_secs()), (1, Duration::from_secs(3600), 86_400));
}

#[test]
fn the_set_for_a_cluster_is_the_set_for_one_machine() {
    let found = read_paths(&[repository("deploy/knative")]).unwrap_or_else(|errors| panic!("{errors}"));
    let names: Vec<&str> = found.pipeline.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["validate", "evaluate", "deploy", "history", "sweep"]);
    assert!(found.pipeline.jobs[0].run.folder.ends_with("pipeline/sample/digits"));
    assert_eq!(found.pipeline.pings[0].sink, Destination::Broker);
    for only in
        ["Namespace/baton", "Deployment/runner", "NetworkPolicy/trainer", "EventPolicy/this-namespace"]
    {
        assert!(found.cluster_only.iter().any(|object| object == only), "{only}: {:?}", found.cluster_only);
    }
    let dead = Some(Destination::Service { name: "history".into(), path: "/dead".into() });
    assert!(found.pipeline.triggers.iter().all(|trigger| trigger.delivery.dead_letter == dead));
}

#[test]
fn everything_of_the_small_set_has_its_value() {
    let found = read_text(SMALL).unwrap_or_else(|errors| panic!("{errors}"));
    let Pipeline { broker, triggers, services, jobs, pings } = found.pipeline;
    assert_eq!(broker, "main");
    let dead = Some(Destination::Service { name: "web".into(), path: "/dead".into() });
    let attributes = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    let any = Filter::Any(vec![
        exact("a"),
        Filter::Prefix(attributes(&[("type", "b."), ("source", "/x")])),
        Filter::Not(Box::new(Filter::Suffix(attributes(&[("type", ".z")])))),
    ]);
    let delivery = Delivery {
        retry: 7,
        backoff: Backoff::Linear,
        delay: Duration::from_secs(2),
        timeout: Some(Duration::from_secs(60)),
        dead_letter: dead.clone(),
    };
    let subscriber = Destination::Service { name: "web".into(), path: "/in?x=1".into() };
    assert_eq!(
        triggers[0],
        Trigger { name: "to-web".into(), filter: Filter::All(vec![any]), subscriber, delivery }
    );
    assert_eq!(triggers[1].filter, Filter::Exact(attributes(&[("type", "c"), ("subject", "")])));
    assert_eq!((triggers[1].delivery.retry, triggers[1].delivery.timeout), (3, None));
    assert_eq!(triggers[1].delivery.dead_letter, dead);

    let web = &services[0];
    let words = ["python3", "-m", "web", "--level", "one two", "$(A)"].map(str::to_owned).to_vec();
    assert_eq!(web.run.command, Command::Program(words));
    let env = attributes(&[
        ("A", "one"),
        ("B", "two"),
        ("LITERAL", "xone-$(NOBODY)-$(A)"),
        ("OPEN", "two"),
        ("HIDDEN", "hidden"),
        ("MADE", "h:hidden"),
        ("TOKEN", "secret-1"),
    ]);
    assert_eq!(web.run.env, env);
    let shown = format!("{:?}", web.run);
    assert!(shown.contains("HIDDEN") && !shown.contains("hidden") && !shown.contains("secret-1"), "{shown}");
    assert_eq!((web.run.memory, web.run.cpu_millis), (Some(256 << 20), Some(1500)));
    assert_eq!((web.concurrency, web.min_scale, web.max_scale), (2, 1, 3));
    assert_eq!((web.timeout, web.idle), (Duration::from_secs(20), Duration::from_secs(90)));
    assert_eq!(web.ready, Ready::Path("/ready".into()));

    assert_eq!((jobs[0].backoff_limit, jobs[0].deadline.as_secs(), jobs[0].keep.as_secs()), (0, 60, 30));
    assert!(jobs[0].run.env.is_empty(), "{:?}", jobs[0].run.env);
    let ping = Ping {
        name: "timer".into(),
        schedule: "*/5 * * * *".into(),
        timezone: Some("Europe/Berlin".into()),
        content_type: Some("application/json".into()),
        data: Some("{\"a\": 1}".into()),
        sink: Destination::Broker,
    };
    assert_eq!(pings, [ping]);
    assert_eq!(found.cluster_only, ["ServiceAccount/robot"]);
}

#[test]
fn what_is_not_said_is_as_in_knative_or_stated() {
    let text = "apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: f}
spec: {template: {spec: {containers: [{image: baton, command: [/usr/local/bin/baton], args: [fn, validate]}]}}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: t}
spec: {broker: default, subscriber: {ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: f}}}
---
apiVersion: sinks.knative.dev/v1alpha1
kind: JobSink
metadata: {name: j}
spec: {job: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: j, image: baton, args: [fn, history]}]}}}}}
";
    let found = read_text(text).unwrap_or_else(|errors| panic!("{errors}"));
    let Pipeline { broker, triggers, services, jobs, .. } = found.pipeline;
    assert_eq!(broker, "default");
    assert_eq!(triggers[0].filter, Filter::All(vec![]));
    let delivery = &triggers[0].delivery;
    assert_eq!(
        (delivery.retry, delivery.backoff, delivery.delay),
        (10, Backoff::Exponential, Duration::from_millis(200))
    );
    let service = &services[0];
    assert_eq!(service.run.command, Command::BuiltIn(vec!["fn".into(), "validate".into()]));
    assert_eq!(
        (service.concurrency, service.min_scale, service.max_scale),
        (UNLIMITED_CONCURRENCY, 0, UNLIMITED_SCALE)
    );
    assert_eq!((service.timeout, service.idle), (Duration::from_secs(300), Duration::from_secs(60)));
    assert_eq!(
        (service.ready.clone(), service.run.memory, service.run.cpu_millis),
        (Ready::Port, None, None)
    );
    assert_eq!(
        (jobs[0].backoff_limit, jobs[0].deadline, jobs[0].keep),
        (6, UNLIMITED_DEADLINE, UNLIMITED_KEEP)
    );
    for word in ["containerConcurrency", "max-scale", "activeDeadlineSeconds", "ttlSecondsAfterFinished"] {
        assert!(found.notes.iter().any(|note| note.contains(word)), "{word}: {:?}", found.notes);
    }
}

#[test]
fn another_code_or_setting_is_another_revision_and_another_secret_is_not() {
    let base = small("HIDDEN", "HIDDEN");
    let revision = |from, to| web(&small(from, to)).run.revision.clone();
    let same = [
        ("aGlkZGVu", "b3RoZXI="),
        ("example/web", "example/web:2"),
        ("s3://bucket", "s3://other"),
        ("timezone: Europe/Berlin", "timezone: UTC"),
        ("labels: {app: web}", "labels: {app: other}"),
    ];
    for (from, to) in same {
        assert_eq!(revision(from, to), web(&base).run.revision, "{from}");
    }
    let other = [
        ("A: one", "A: three"),
        ("containerConcurrency: 2", "containerConcurrency: 1"),
        ("min-scale: \"1\"", "min-scale: \"2\""),
        ("timeoutSeconds: 20", "timeoutSeconds: 21"),
        ("window: 30s", "window: 31s"),
        ("memory: 256Mi", "memory: 257Mi"),
        ("-m web", "-m web2"),
        ("path: /ready", "path: /other"),
    ];
    for (from, to) in other {
        assert_ne!(revision(from, to), web(&base).run.revision, "{from}");
    }
    let folder = tempfile::tempdir().unwrap();
    let read = || {
        let revision = web(&read_paths(&[folder.path().to_owned()]).unwrap().pipeline).run.revision.clone();
        assert_eq!(revision.len(), 16);
        assert!(revision.bytes().all(|byte| byte.is_ascii_hexdigit()), "{revision}");
        revision
    };
    fs::write(folder.path().join("set.yaml"), SMALL).unwrap();
    let without = read();
    assert_eq!(without, web(&base).run.revision, "the folder's name is no part of it");
    fs::write(folder.path().join("web.py"), "1").unwrap();
    let with = read();
    assert_ne!(with, without);
    fs::write(folder.path().join("set.yaml"), format!("# remark\n{SMALL}")).unwrap();
    assert_eq!(with, read(), "manifests are no code");
}

#[test]
fn what_differs_from_a_cluster_is_noted() {
    let noted = |from: &str, to: &str, part: &str| {
        assert!(SMALL.contains(from), "{from}");
        let found = read_text(&SMALL.replacen(from, to, 1)).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(found.notes.iter().any(|note| note.contains(part)), "{part}: {:?}", found.notes);
    };
    noted(
        "backoffDelay: PT2S",
        "backoffDelay: PT2M",
        "pauses grow to 360 s in a cluster; here none is longer than 300 s",
    );
    noted("A: one", "A: one", "Service/web: Knative refuses nodeSelector, tolerations");
    noted("drop: [ALL]", "add: [NET_RAW]", "nodeSelector, tolerations, capabilities.add");
    noted("A: one", "A: one", "limits.cpu is kept by a cluster");
}

#[test]
fn what_a_tool_prints_with_nothing_in_it_is_read() {
    let text = format!("\u{feff}{SMALL}status: {{}}\n")
        .replace("{name: robot, namespace: ns}", "{name: robot, namespace: ns, creationTimestamp: null}")
        .replace("        metadata: {annotations", "        metadata: {creationTimestamp: null, annotations");
    read_text(&text).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn folders_that_are_written_while_it_runs_are_no_code() {
    let folder = tempfile::tempdir().unwrap();
    let (root, state) = (folder.path().to_owned(), folder.path().join("state"));
    fs::write(root.join("set.yaml"), SMALL).unwrap();
    fs::create_dir(&state).unwrap();
    let revision = || {
        let secret = |_: &str| Some("secret-1".to_owned());
        let found = inspected(
            std::slice::from_ref(&root),
            std::slice::from_ref(&state),
            &secret,
            MissingSecret::Refused,
        );
        web(&found.unwrap().pipeline).run.revision.clone()
    };
    let before = revision();
    fs::write(state.join("ledger.db"), "1").unwrap();
    assert_eq!(before, revision());
}

#[test]
fn a_kustomization_puts_all_into_one_namespace() {
    let folder = tempfile::tempdir().unwrap();
    let mixed = SMALL.replace("{name: robot, namespace: ns}", "{name: robot}");
    fs::write(folder.path().join("set.yaml"), mixed).unwrap();
    fs::write(folder.path().join("kustomization.yaml"), "resources: [set.yaml]\nnamespace: ns\n").unwrap();
    read_paths(&[folder.path().to_owned()]).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn files_are_read_in_the_order_of_their_names_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let documents: Vec<&str> = SMALL.split("---\n").collect();
    for (index, document) in documents.iter().enumerate() {
        // What refers to something is read before it.
        fs::write(folder.path().join(format!("{:02}.yml", 99 - index)), document).unwrap();
    }
    fs::write(folder.path().join("notes.txt"), "no manifest").unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/bad.yaml"), "bad: 1").unwrap();
    let whole = read_text(SMALL).unwrap().pipeline;
    let parts = read_paths(&[folder.path().to_owned(), folder.path().join("99.yml")]).unwrap().pipeline;
    let names = |pipeline: &Pipeline| {
        pipeline.triggers.iter().map(|trigger| trigger.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&parts), ["to-job", "to-web"]);
    assert_eq!(names(&whole), ["to-web", "to-job"]);
    assert_eq!(parts.services[0].run.env, whole.services[0].run.env);
}

#[test]
fn a_kustomization_says_which_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("base")).unwrap();
    fs::write(folder.path().join("base/set.yaml"), SMALL).unwrap();
    fs::write(folder.path().join("base/bad.yaml"), "bad: 1").unwrap();
    fs::write(folder.path().join("base/kustomization.yaml"), "resources: [set.yaml]\nnamespace: other\n")
        .unwrap();
    fs::create_dir(folder.path().join("overlay")).unwrap();
    fs::write(folder.path().join("overlay/kustomization.yaml"), "resources: [../base]\n").unwrap();
    let whole = read_text(SMALL).unwrap().pipeline;
    for path in ["base", "overlay", "base/kustomization.yaml"] {
        let found = read_paths(&[folder.path().join(path)]).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(found.pipeline.triggers, whole.triggers, "{path}");
    }
}
