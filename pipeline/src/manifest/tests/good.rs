//! Good sets, and the values that are read from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::*;

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn the_sample_is_read() {
    let pipeline = read(&[sample("sample/digits/pipeline.yaml")]).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(pipeline.broker, "default");
    let names: Vec<&str> = pipeline.triggers.iter().map(|trigger| trigger.name.as_str()).collect();
    assert_eq!(names, ["validate", "train", "evaluate-trained", "evaluate-pushed", "deploy"]);
    let train = &pipeline.triggers[1];
    let wanted = BTreeMap::from([("type".to_owned(), "dev.baton.dataset.validated.v1".to_owned())]);
    assert_eq!(train.filter, Filter::Exact(wanted));
    assert_eq!(train.subscriber, Destination::Job { name: "train".into() });
    assert_eq!(
        train.delivery,
        Delivery {
            retry: 5,
            backoff: Backoff::Exponential,
            delay: Duration::from_millis(500),
            timeout: None,
            dead_letter: None,
        }
    );
    let validate = &pipeline.services[0];
    assert_eq!(validate.run.command, Command::BuiltIn(vec!["fn".into(), "validate".into()]));
    assert!(validate.run.env["BATON_POLICY"].contains("dataset = \"digits\""));
    assert_eq!((validate.concurrency, validate.min_scale, validate.max_scale), (1, 0, 2));
    assert_eq!((validate.timeout, validate.idle), (Duration::from_secs(300), Duration::from_secs(60)));
    let job = &pipeline.jobs[0];
    assert_eq!(job.run.command, Command::Program(vec!["python3".into(), "train.py".into()]));
    assert!(job.run.folder.ends_with("pipeline/sample/digits"), "{:?}", job.run.folder);
    assert_eq!((job.run.memory, job.run.cpu_millis), (Some(2 << 30), Some(1000)));
    assert_eq!((job.backoff_limit, job.deadline, job.keep.as_secs()), (1, Duration::from_secs(3600), 86_400));
    assert_eq!(job.run.revision.len(), 16);
}
