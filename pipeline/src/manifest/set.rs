//! The objects of a set, and what they may refer to: names first, then each object by its kind.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use base64::Engine as _;

use super::cluster;
use super::code::Code;
use super::delivery::Partial;
use super::error::Report;
use super::files::{Document, Loaded};
use super::node::Node;
use super::reader::{Fields, Origin, Value};
use super::{Pipeline, job, ping, scalar, service, trigger};

const EVENTING: &str = "eventing.knative.dev/v1";
pub(super) const SERVING: &str = "serving.knative.dev/v1";
const SINKS: &str = "sinks.knative.dev/v1alpha1";
const SOURCES: &str = "sources.knative.dev/v1";

/// What happens with a secret that is neither in the set nor in the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingSecret {
    Refused,
    Noted,
}

/// What objects may refer to.
pub(super) struct Set<'a> {
    pub(super) report: &'a Report,
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
    pub(super) missing_secret: MissingSecret,
    pub(super) code: Code,
    pub(super) configs: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) secrets: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) services: BTreeSet<String>,
    pub(super) jobs: BTreeSet<String>,
    pub(super) broker: String,
    /// The one namespace of the set, once an object has named it.
    namespace: RefCell<Option<String>>,
}

/// `metadata` of an object or a template.
pub(super) struct Metadata<'a> {
    pub(super) name: String,
    pub(super) annotations: Annotations<'a>,
}

/// Annotations by name.
pub(super) type Annotations<'a> = BTreeMap<&'a str, Value<'a>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Broker,
    Trigger,
    Service,
    JobSink,
    PingSource,
    ConfigMap,
    Secret,
}

fn kind(api_version: &str, kind: &str) -> Option<Kind> {
    Some(match (api_version, kind) {
        (EVENTING, "Broker") => Kind::Broker,
        (EVENTING, "Trigger") => Kind::Trigger,
        (SERVING, "Service") => Kind::Service,
        (SINKS, "JobSink") => Kind::JobSink,
        (SOURCES, "PingSource") => Kind::PingSource,
        ("v1", "ConfigMap") => Kind::ConfigMap,
        ("v1", "Secret") => Kind::Secret,
        _ => return None,
    })
}

/// Reads all objects; faults go to the report. The second value lists what only a cluster reads.
pub(super) fn read(
    loaded: Loaded,
    environment: &dyn Fn(&str) -> Option<String>,
    missing_secret: MissingSecret,
    report: &Report,
) -> (Pipeline, Vec<String>) {
    let mut set = Set {
        report,
        environment,
        missing_secret,
        code: Code::new(loaded.no_code),
        configs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        services: BTreeSet::new(),
        jobs: BTreeSet::new(),
        broker: "default".into(),
        namespace: RefCell::default(),
    };
    let mut objects = Vec::new();
    let mut cluster_only = Vec::new();
    let mut seen: BTreeMap<(&str, &str, &str), &Document> = BTreeMap::new();
    let mut brokers = 0;
    for document in &loaded.documents {
        let root = root(document, report);
        let [Some(api), Some(name)] =
            ["apiVersion", "kind"].map(|key| document.node.get(key).and_then(Node::text))
        else {
            root.refuse("is no object of Kubernetes: apiVersion and kind are missing, or are no texts");
            continue;
        };
        let (api_version, kind_name) = (api, name);
        let name =
            document.node.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Node::text);
        if let Some(name) = name
            && let Some(first) = seen.insert((api_version, kind_name, name), document)
        {
            root.refuse(format!(
                "is there twice: first in {}, document {}",
                first.file.display(),
                first.index
            ));
            continue;
        }
        if let Some(fields) = cluster::object(api_version, kind_name) {
            set.cluster_object(&root, fields);
            cluster_only.push(document.object.clone());
            continue;
        }
        let Some(kind) = kind(api_version, kind_name) else {
            root.refuse(unknown_kind(api_version, kind_name));
            continue;
        };
        let name = name.unwrap_or_default().to_owned();
        match kind {
            Kind::Service => drop(set.services.insert(name)),
            Kind::JobSink => drop(set.jobs.insert(name)),
            Kind::ConfigMap => {
                if let Some((name, data)) = set.config_map(&root) {
                    set.configs.insert(name, data);
                }
            }
            Kind::Secret => {
                if let Some((name, data)) = set.secret(&root) {
                    set.secrets.insert(name, data);
                }
            }
            Kind::Broker => {
                brokers += 1;
                if brokers > 1 {
                    root.refuse("is a second Broker: the local engine has one; give each its own set");
                }
                set.broker = name;
            }
            Kind::Trigger | Kind::PingSource => {}
        }
        objects.push((kind, root));
    }
    one_namespace(&loaded.documents, report);
    (set.pipeline(&objects), cluster_only)
}

/// Refuses objects without a namespace beside those that name one: a cluster puts them elsewhere.
fn one_namespace(documents: &[Document], report: &Report) {
    let namespace = |document: &Document| {
        let value = document.node.get("metadata").and_then(|metadata| metadata.get("namespace"));
        value.and_then(Node::text).map(str::to_owned)
    };
    let is_namespaced = |document: &&Document| {
        document.node.get("kind").and_then(Node::text) != Some("Namespace") && !document.placed
    };
    let Some(first) = documents.iter().filter(is_namespaced).find_map(namespace) else { return };
    for document in documents.iter().filter(is_namespaced).filter(|document| namespace(document).is_none()) {
        root(document, report).refuse(format!(
            "has no namespace, and others of the set are in {first:?}: write metadata.namespace, or leave it out everywhere"
        ));
    }
}

fn root<'a>(document: &'a Document, report: &'a Report) -> Value<'a> {
    let origin = Origin { file: &document.file, document: document.index, object: &document.object, report };
    Value::root(&document.node, origin)
}

fn unknown_kind(api_version: &str, kind: &str) -> String {
    let known = "eventing.knative.dev/v1 Broker and Trigger, serving.knative.dev/v1 Service, \
                 sinks.knative.dev/v1alpha1 JobSink, sources.knative.dev/v1 PingSource, v1 ConfigMap and Secret";
    let others = "v1 Namespace, ServiceAccount, Service and PersistentVolumeClaim, apps/v1 Deployment, \
                  networking.k8s.io/v1 NetworkPolicy, eventing.knative.dev/v1alpha1 EventPolicy";
    format!("{api_version} {kind} is not read. Read are {known}; accepted for the cluster only are {others}")
}

impl<'a> Set<'a> {
    fn pipeline(&self, objects: &[(Kind, Value<'a>)]) -> Pipeline {
        let of = |wanted: Kind| objects.iter().filter(move |(kind, _)| *kind == wanted).map(|(_, root)| root);
        let broker = of(Kind::Broker).next().and_then(|root| self.broker(root)).unwrap_or_default();
        Pipeline {
            broker: self.broker.clone(),
            triggers: of(Kind::Trigger).filter_map(|root| trigger::read(root, &broker, self)).collect(),
            services: of(Kind::Service).filter_map(|root| service::read(root, self)).collect(),
            jobs: of(Kind::JobSink).filter_map(|root| job::read(root, self)).collect(),
            pings: of(Kind::PingSource).filter_map(|root| ping::read(root, self)).collect(),
        }
    }

    fn broker(&self, root: &Value<'a>) -> Option<Partial> {
        root.fields(|fields| {
            let metadata = self.metadata(fields, scalar::label);
            if let Some(metadata) = &metadata {
                foreign(&metadata.annotations, &[]);
            }
            let spec = fields.get("spec").map(|spec| {
                spec.fields(|fields| {
                    fields.cluster_only("config", &cluster::BROKER_CONFIG);
                    fields
                        .get("delivery")
                        .map_or(Some(Partial::default()), |value| Partial::read(&value, self))
                })
            });
            metadata?;
            spec.unwrap_or(Some(Partial::default()))
        })
    }

    /// `apiVersion`, `kind` and `metadata`, whose name `parse` accepts.
    pub(super) fn metadata(
        &self,
        fields: &Fields<'_, 'a>,
        parse: fn(&str) -> Result<String, String>,
    ) -> Option<Metadata<'a>> {
        fields.get("apiVersion");
        fields.get("kind");
        fields.written_by_cluster("status");
        fields.required("metadata")?.fields(|fields| {
            let name = fields.required("name").and_then(|name| name.parsed(parse));
            if let Some(value) = fields.get("namespace")
                && let Some(namespace) = value.parsed(scalar::label)
            {
                let first = self.namespace.borrow_mut().get_or_insert_with(|| namespace.clone()).clone();
                if first != namespace {
                    value.refuse(format!(
                        "is not {first:?}, the namespace of the objects before: a set lives in one namespace"
                    ));
                }
            }
            let annotations = template_metadata(fields);
            Some(Metadata { name: name?, annotations: annotations? })
        })
    }

    /// Whether a reference may name this namespace.
    pub(super) fn is_namespace(&self, namespace: &str) -> bool {
        self.namespace.borrow_mut().get_or_insert_with(|| namespace.to_owned()) == namespace
    }

    fn config_map(&self, root: &Value<'a>) -> Option<(String, BTreeMap<String, String>)> {
        root.fields(|fields| {
            let metadata = self.metadata(fields, scalar::subdomain);
            if let Some(metadata) = &metadata {
                foreign(&metadata.annotations, &[]);
            }
            fields.cluster_only("immutable", &cluster::Shape::Flag);
            fields.refused("binaryData", "variables hold text; use data");
            let data = fields.get("data").map(|data| entries(&data, |value| value.text().map(str::to_owned)));
            Some((metadata?.name, data.unwrap_or_default()))
        })
    }

    fn secret(&self, root: &Value<'a>) -> Option<(String, BTreeMap<String, String>)> {
        root.fields(|fields| {
            let metadata = self.metadata(fields, scalar::subdomain);
            if let Some(metadata) = &metadata {
                foreign(&metadata.annotations, &[]);
            }
            fields.cluster_only("immutable", &cluster::Shape::Flag);
            fields.cluster_only("type", &cluster::Shape::Text);
            let data = fields.get("data").map(|data| entries(&data, |value| value.parsed(decoded)));
            let plain =
                fields.get("stringData").map(|data| entries(&data, |value| value.text().map(str::to_owned)));
            let mut all = data.unwrap_or_default();
            all.extend(plain.unwrap_or_default());
            Some((metadata?.name, all))
        })
    }

    fn cluster_object(&self, root: &Value<'a>, known: &'static [(&'static str, cluster::Shape)]) {
        root.fields(|fields| {
            self.metadata(fields, scalar::subdomain);
            for (key, shape) in known {
                fields.cluster_only(key, shape);
            }
            Some(())
        });
    }

    /// The folder that `annotation`, relative to the manifest's folder, names.
    pub(super) fn folder(&self, root: &Value<'a>, annotation: Option<&Value<'a>>) -> Option<PathBuf> {
        let base = root.file().parent().filter(|parent| !parent.as_os_str().is_empty());
        let base = base.map_or_else(|| PathBuf::from("."), PathBuf::from);
        let folder = match annotation {
            Some(value) => {
                let path = value.word()?;
                if path.starts_with('/') {
                    value.refuse(format!("{path:?} is not relative to the manifest's folder"));
                    return None;
                }
                base.join(path)
            }
            None => base,
        };
        let reason = match std::fs::canonicalize(&folder) {
            Ok(folder) if folder.is_dir() => return Some(folder),
            Ok(_) => "no folder".to_owned(),
            Err(error) => format!("not there: {error}"),
        };
        annotation.unwrap_or(root).refuse(format!("the folder {} is {reason}", folder.display()));
        None
    }
}

/// What the metadata of a template may have, and those of an object besides its name: the annotations are left to the caller.
pub(super) fn template_metadata<'a>(fields: &Fields<'_, 'a>) -> Option<Annotations<'a>> {
    fields.written_by_cluster("creationTimestamp");
    fields.cluster_only("labels", &cluster::Shape::Labels);
    let Some(value) = fields.get("annotations") else { return Some(Annotations::new()) };
    cluster::Shape::Annotations.check(&value);
    Some(value.free()?.into_iter().collect())
}

/// Refuses annotations that would change what happens, but for those that the caller reads; all others are left to the cluster.
pub(super) fn foreign(annotations: &Annotations<'_>, read: &[&str]) {
    for (name, value) in annotations.iter().filter(|(name, _)| !read.contains(*name)) {
        if *name == "serving.knative.dev/rollout-duration" {
            value.parsed(scalar::whole_seconds);
        } else if name.starts_with("autoscaling.knative.dev/") {
            value.refuse(
                "is not implemented here: min-scale, max-scale, window and scale-to-zero-pod-retention-period are, on \
                 spec.template.metadata of a Service",
            );
        } else if name.starts_with("baton.dev/") {
            value.refuse(
                "is not known: there are baton.dev/local-command and baton.dev/local-folder, on the metadata of a \
                 Service's or a job's template",
            );
        } else if *name == "kafka.eventing.knative.dev/delivery.order" && value.text() != Some("unordered") {
            value.refuse(
                "is not implemented: events are delivered side by side; functions must not need an order",
            );
        }
    }
}

fn entries(value: &Value<'_>, read: impl Fn(&Value<'_>) -> Option<String>) -> BTreeMap<String, String> {
    let mut result = BTreeMap::new();
    for (key, value) in value.free().unwrap_or_default() {
        match scalar::data_key(key) {
            Ok(key) => {
                if let Some(text) = read(&value) {
                    result.insert(key, text);
                }
            }
            Err(reason) => value.refuse(reason),
        }
    }
    result
}

fn decoded(text: &str) -> Result<String, String> {
    let compact: String = text.split_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(compact)
        .map_err(|error| format!("is no base64 ({error}): stringData takes plain text"))?;
    String::from_utf8(bytes).map_err(|_| "is no UTF-8 text: variables hold text".into())
}
