//! From paths to documents: files, folders, and folders with a `kustomization.yaml`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::cluster::Shape;
use super::error::{Fault, Report};
use super::node::{self, Node};
use super::reader::{Origin, Value};

/// Bytes of one manifest file.
pub const MAX_FILE: u64 = 1024 * 1024;
/// Files of one set.
pub const MAX_FILES: usize = 1000;
const MAX_NESTING: usize = 8;
/// Standard input, as a path; its functions' code is looked for in the working directory.
const STDIN: &str = "-";
const KUSTOMIZATION: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// One YAML document of a file.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) file: PathBuf,
    /// Counted from 1.
    pub(super) index: usize,
    /// `Kind/name`, as far as they can be read.
    pub(super) object: String,
    pub(super) node: Node,
    /// A kustomization puts it into a namespace.
    pub(super) placed: bool,
}

/// All documents of a set, in order.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) documents: Vec<Document>,
    /// The files that were read, canonical, and whatever else is no code.
    pub(super) no_code: BTreeSet<PathBuf>,
}

/// Reads every file that `paths` name. What cannot be read is a fault; the rest is read all the same.
pub(super) fn load(paths: &[PathBuf], report: &Report) -> Loaded {
    let mut loader = Loader { report, loaded: Loaded::default(), placing: false };
    for path in paths {
        if path == Path::new(STDIN) {
            loader.file(path);
            continue;
        }
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => loader.folder(path, 0),
            Ok(_) if is_kustomization(path) => loader.kustomization(path, 0),
            Ok(_) => loader.file(path),
            Err(error) => report.file(path, format!("cannot be read: {error}")),
        }
    }
    loader.loaded
}

struct Loader<'a> {
    report: &'a Report,
    loaded: Loaded,
    /// The kustomization that is read puts all into a namespace.
    placing: bool,
}

impl Loader<'_> {
    fn folder(&mut self, folder: &Path, nesting: usize) {
        if let Some(name) = KUSTOMIZATION.iter().find(|name| folder.join(name).is_file()) {
            return self.kustomization(&folder.join(name), nesting);
        }
        let names: Result<BTreeSet<PathBuf>, std::io::Error> = fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
        match names {
            Ok(names) => {
                let is_yaml = |path: &&PathBuf| {
                    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
                };
                let manifests: Vec<&PathBuf> = names.iter().filter(is_yaml).collect();
                if manifests.is_empty() {
                    self.report.file(folder, "has no *.yaml and no *.yml");
                }
                for path in manifests {
                    self.file(path);
                }
            }
            Err(error) => self.report.file(folder, format!("cannot be listed: {error}")),
        }
    }

    fn file(&mut self, path: &Path) {
        let Some(documents) = self.parse(path) else { return };
        self.loaded.documents.extend(documents);
    }

    /// Reads the resources that a kustomization names, and nothing else of the folder.
    fn kustomization(&mut self, path: &Path, nesting: usize) {
        if nesting > MAX_NESTING {
            return self.report.file(path, format!("is nested more than {MAX_NESTING} deep"));
        }
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let Some(documents) = self.parse(path) else { return };
        let mut resources = Vec::new();
        let outer = self.placing;
        for document in &documents {
            let origin = Origin {
                file: &document.file,
                document: document.index,
                object: "Kustomization",
                report: self.report,
            };
            Value::root(&document.node, origin).fields(|fields| {
                fields.cluster_only("apiVersion", &Shape::Text);
                fields.cluster_only("kind", &Shape::Text);
                fields.cluster_only("namespace", &Shape::Text);
                self.placing |= fields.get("namespace").is_some();
                fields.cluster_only("labels", LABELS);
                fields.cluster_only("images", IMAGES);
                let listed = fields.required("resources").and_then(|value| value.list()).unwrap_or_default();
                for value in listed {
                    let Some(name) = value.word() else { continue };
                    let path = folder.join(name);
                    let is_folder = path.is_dir();
                    if Path::new(name).is_absolute() || name.contains("://") {
                        value.refuse("is no path below this folder: nothing is fetched from elsewhere");
                    } else if !is_folder && name.split('/').any(|part| part == "..") {
                        value.refuse("is a file above this folder, which kustomize refuses too");
                    } else if !path.exists() {
                        value.refuse(format!("{} is not there", path.display()));
                    } else {
                        resources.push((path, is_folder));
                    }
                }
                Some(())
            });
        }
        for (path, is_folder) in resources {
            if is_folder {
                self.folder(&path, nesting + 1);
            } else {
                self.file(&path);
            }
        }
        self.placing = outer;
    }

    /// The documents of a file; `None` if it was read before or cannot be read, which is then reported.
    fn parse(&mut self, path: &Path) -> Option<Vec<Document>> {
        let text = match read(path) {
            Ok(text) => text,
            Err(reason) => {
                self.report.file(path, reason);
                return None;
            }
        };
        let canonical = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if !self.loaded.no_code.insert(canonical) {
            return None;
        }
        if self.loaded.no_code.len() > MAX_FILES {
            self.report.file(path, format!("is one file too many: a set has at most {MAX_FILES}"));
            return None;
        }
        let mut documents = Vec::new();
        for document in node::documents(&text) {
            match document {
                Ok((index, node)) => {
                    let object = label(&node);
                    documents.push(Document {
                        file: path.to_owned(),
                        index,
                        object,
                        node,
                        placed: self.placing,
                    });
                }
                Err(unreadable) => self.report.fault(Fault {
                    file: path.to_owned(),
                    document: Some(unreadable.document),
                    line: unreadable.line,
                    object: String::new(),
                    field: String::new(),
                    text: format!("is no YAML that can be read: {}", unreadable.text),
                }),
            }
        }
        Some(documents)
    }
}

const LABELS: &Shape = &Shape::List(&Shape::Map(&[
    ("pairs", Shape::Labels),
    ("includeSelectors", Shape::Flag),
    ("includeTemplates", Shape::Flag),
]));

const IMAGES: &Shape = &Shape::List(&Shape::Map(&[
    ("name", Shape::Text),
    ("newName", Shape::Text),
    ("newTag", Shape::Text),
    ("digest", Shape::Text),
]));

fn is_kustomization(path: &Path) -> bool {
    path.file_name().is_some_and(|name| KUSTOMIZATION.iter().any(|known| name == *known))
}

fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let all = if path == Path::new(STDIN) {
        std::io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut bytes)
    } else {
        let meta = fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
        if !meta.is_file() {
            return Err("is no regular file".into());
        }
        let file = fs::File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)
    };
    all.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("has more than {MAX_FILE} bytes (1 MiB), which a manifest never needs"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "is no UTF-8 text")?;
    // Some editors begin a file with a byte order mark.
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(text)
}

fn label(node: &Node) -> String {
    let kind = node.get("kind").and_then(Node::text).unwrap_or_default();
    match node.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Node::text) {
        Some(name) => format!("{kind}/{name}"),
        None => kind.to_owned(),
    }
}
