//! No field is ever ignored: one more field, anywhere in a good manifest, is refused where it stands.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use yaml_serde::Value;

use super::{SMALL, read_paths, repository};

/// Mappings whose keys are the user's.
const FREE: [&str; 12] = [
    "labels",
    "annotations",
    "data",
    "stringData",
    "attributes",
    "exact",
    "prefix",
    "suffix",
    "matchLabels",
    "nodeSelector",
    "pairs",
    // Of a v1 Service; a Deployment's has fields.
    "selector",
];

enum Step {
    Key(String),
    Index(usize),
}

/// Paths of all mappings below `value` whose keys are fields.
fn mappings(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    match value {
        Value::Mapping(mapping) => {
            found.push(path.clone());
            for (key, value) in mapping {
                let key = key.as_str().unwrap();
                path.push(key.to_owned());
                let is_free =
                    FREE.contains(&key) && !(key == "selector" && value.get("matchLabels").is_some());
                if !is_free {
                    mappings(value, path, found);
                }
                path.pop();
            }
        }
        Value::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                mappings(item, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

fn at<'a>(value: &'a mut Value, path: &[String]) -> &'a mut Value {
    path.iter().fold(value, |value, step| {
        let step = match value {
            Value::Sequence(_) => Step::Index(step.parse().unwrap()),
            _ => Step::Key(step.clone()),
        };
        match step {
            Step::Index(index) => &mut value[index],
            Step::Key(key) => &mut value[key.as_str()],
        }
    })
}

/// Inserts a field at every mapping of one file of the set at `set`, one at a time. Returns how many were tried.
fn check_file(set: &Path, file: &Path) -> usize {
    let original = fs::read_to_string(file).unwrap();
    let documents: Vec<Value> = yaml_serde::Deserializer::from_str(&original)
        .map(|document| Value::deserialize(document).unwrap())
        .collect();
    let mut tried = 0;
    for (index, document) in documents.iter().enumerate() {
        let mut paths = Vec::new();
        mappings(document, &mut Vec::new(), &mut paths);
        for path in paths {
            let mut changed = documents.clone();
            let Value::Mapping(mapping) = at(&mut changed[index], &path) else { panic!("{path:?}") };
            mapping.insert("unknownField".into(), 1.into());
            let texts: Vec<String> =
                changed.iter().map(|value| yaml_serde::to_string(value).unwrap()).collect();
            fs::write(file, texts.join("---\n")).unwrap();
            let place = format!("{}, document {}, {path:?}", file.display(), index + 1);
            let errors = read_paths(&[set.to_owned()]).expect_err(&place);
            let fault = errors.faults.iter().find(|fault| fault.field.ends_with("unknownField"));
            let fault = fault.unwrap_or_else(|| panic!("{place}: {errors}"));
            assert_eq!((fault.document, fault.file.as_path()), (Some(index + 1), file), "{place}");
            let line = fault.line.unwrap_or_else(|| panic!("{place}: no line"));
            let text = fs::read_to_string(file).unwrap();
            assert!(text.lines().nth(line - 1).unwrap().contains("unknownField"), "{place}: line {line}");
            tried += 1;
        }
    }
    fs::write(file, original).unwrap();
    tried
}

/// A copy of a folder's manifests at the same place of another tree.
fn copied(tree: &Path, folder: &str) -> (PathBuf, Vec<PathBuf>) {
    let target = tree.join(folder);
    fs::create_dir_all(&target).unwrap();
    let mut files = Vec::new();
    for entry in fs::read_dir(repository(folder)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let copy = target.join(path.file_name().unwrap());
            fs::copy(&path, &copy).unwrap();
            files.push(copy);
        }
    }
    files.sort();
    (target, files)
}

#[test]
fn one_more_field_anywhere_is_refused_where_it_stands() {
    let tree = tempfile::tempdir().unwrap();
    let small = tree.path().join("small");
    fs::create_dir(&small).unwrap();
    fs::write(small.join("set.yaml"), SMALL).unwrap();
    let mut sets = vec![(small.clone(), vec![small.join("set.yaml")])];
    sets.push(copied(tree.path(), "pipeline/sample/digits"));
    sets.push(copied(tree.path(), "deploy/knative"));
    for (set, files) in sets {
        read_paths(std::slice::from_ref(&set)).unwrap_or_else(|errors| panic!("{errors}"));
        let tried: usize = files.iter().map(|file| check_file(&set, file)).sum();
        assert!(tried > 30, "only {tried} mappings in {}", set.display());
    }
}
