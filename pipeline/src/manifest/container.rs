//! A pod's one container, and what stands for it on this machine.

use std::collections::BTreeMap;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::cluster::{CONTAINER, EMPTY_DIR, POD, PROBE, Shape};
use super::env::{Role, Variables};
use super::reader::{Fields, Value};
use super::set::{Annotations, Set};
use super::{Command, LocalRun, Ready, scalar};

/// Annotation of a template: what is run here in place of the image.
pub const LOCAL_COMMAND: &str = "baton.dev/local-command";
/// Annotation of a template: where it is run, relative to the manifest's folder.
pub const LOCAL_FOLDER: &str = "baton.dev/local-folder";

/// A container as it is run here, without the revision, which needs the rest of the object.
pub(super) struct Container<'a> {
    pub(super) run: LocalRun,
    pub(super) ready: Ready,
    place: Value<'a>,
    open_env: BTreeMap<String, String>,
}

/// Reads the fields of a pod that services and jobs have in common, and its one container.
pub(super) fn read<'a>(
    pod: &Fields<'_, 'a>,
    annotations: &Annotations<'a>,
    role: Role,
    set: &Set<'a>,
) -> Option<Container<'a>> {
    for (key, shape) in POD {
        pod.cluster_only(key, shape);
    }
    let scratch = scratch_volumes(pod);
    let mut containers = pod.required("containers").and_then(|value| {
        let list = value.list()?;
        if list.len() != 1 {
            value.refuse(format!("has {} containers: exactly one is run here", list.len()));
        }
        Some(list)
    })?;
    let place = (!containers.is_empty()).then(|| containers.remove(0))?;
    place.fields(|fields| {
        for (key, shape) in CONTAINER {
            fields.cluster_only(key, shape);
        }
        if let Some(name) = fields.get("name") {
            name.parsed(scalar::label);
        } else if role == Role::Job {
            place.refuse("the field name is missing");
        }
        for (key, advice) in [
            ("lifecycle", "do at the program's start and end what it does"),
            (
                "livenessProbe",
                "a call that does not end is ended by timeoutSeconds; put it into an overlay of the cluster",
            ),
            (
                "startupProbe",
                "the readiness probe is asked from the start; put it into an overlay of the cluster",
            ),
        ] {
            fields.refused(key, advice);
        }
        mounts(fields, &scratch);
        let port = if role == Role::Service { port(fields) } else { None };
        let ready = match role {
            Role::Service => {
                fields.get("readinessProbe").map_or(Some(Ready::Port), |probe| ready(&probe, port))
            }
            Role::Job => {
                fields.refused("readinessProbe", "a job is not asked; remove it");
                Some(Ready::Port)
            }
        };
        let variables = Variables::read(fields, role, set);
        let (cpu_millis, memory) = resources(fields);
        let command = command(fields, annotations, &variables);
        let folder = match &command {
            Some(Command::Program(_)) => set.folder(&place, annotations.get(LOCAL_FOLDER)),
            _ => set.folder(&place, None),
        };
        if matches!(command, Some(Command::BuiltIn(_)))
            && let Some(value) = annotations.get(LOCAL_FOLDER)
        {
            value.refuse("says where a program runs, but this is a function of baton itself: remove it");
        }
        let open_env =
            variables.open().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let run = LocalRun {
            command: command?,
            folder: folder?,
            env: variables.values(),
            memory,
            cpu_millis,
            revision: String::new(),
        };
        Some(Container { run, ready: ready?, place: place.clone(), open_env })
    })
}

impl Container<'_> {
    /// Completes the revision: `rest` is what else of the object makes a new one.
    pub(super) fn revised(mut self, name: &str, rest: serde_json::Value, set: &Set<'_>) -> Option<LocalRun> {
        let (kind, words, code) = match &self.run.command {
            // Another build of this binary is another code, as another image is.
            Command::BuiltIn(words) => ("built-in", words, env!("CARGO_PKG_VERSION").to_owned()),
            Command::Program(words) => {
                let digest =
                    set.code.digest(&self.run.folder).map_err(|reason| self.place.refuse(reason)).ok()?;
                ("program", words, digest)
            }
        };
        // A list, not an object: its order does not hang on a feature of serde_json.
        let canonical = json!([
            name,
            kind,
            words,
            code,
            self.open_env.iter().collect::<Vec<_>>(),
            self.run.memory,
            self.run.cpu_millis,
            rest
        ]);
        let digest = Sha256::digest(canonical.to_string());
        self.run.revision = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Some(self.run)
    }
}

/// The command: the annotation, or a function of this binary.
fn command<'a>(
    fields: &Fields<'_, 'a>,
    annotations: &Annotations<'a>,
    variables: &Variables,
) -> Option<Command> {
    let words = ["command", "args"].map(|key| {
        let Some(list) = fields.get(key).and_then(|value| value.list()) else { return Some(Vec::new()) };
        let words: Vec<Option<String>> =
            list.iter().map(|value| variables.expanded(value, value.text()?)).collect();
        words.into_iter().collect::<Option<Vec<String>>>()
    });
    if let Some(value) = annotations.get(LOCAL_COMMAND) {
        return local_command(value, variables).map(Command::Program);
    }
    let [command, args] = words;
    let (command, args) = (command?, args?);
    let is_baton = |word: &String| word == "baton" || word.ends_with("/baton");
    let words = match command.split_first() {
        Some((first, rest)) if is_baton(first) => [rest, &args[..]].concat(),
        _ => [&command[..], &args[..]].concat(),
    };
    match words.split_first() {
        Some((first, rest)) if first == "fn" && !rest.is_empty() => Some(Command::BuiltIn(words)),
        _ => {
            fields.whole().refuse(format!(
                "runs an image, and images are not run here: say what is run instead in the annotation {LOCAL_COMMAND} of \
                 the template, for example \"python3 train.py\" (only \"fn NAME\" needs none)"
            ));
            None
        }
    }
}

fn local_command(value: &Value<'_>, variables: &Variables) -> Option<Vec<String>> {
    let line = value.text()?;
    let words = match shell_words::split(line) {
        Ok(words) => words,
        Err(error) => {
            value.refuse(format!("is no command line: {error}"));
            return None;
        }
    };
    if words.first().is_none_or(String::is_empty) {
        value.refuse("names no program");
        return None;
    }
    if words.iter().any(|word| word.contains('\0')) {
        value.refuse("has a zero byte in it");
        return None;
    }
    let expanded: Vec<Option<String>> = words.iter().map(|word| variables.expanded(value, word)).collect();
    expanded.into_iter().collect()
}

/// Cores and memory: `limits` are kept here, `requests` are for the cluster's scheduler.
fn resources(container: &Fields<'_, '_>) -> (Option<u32>, Option<u64>) {
    let Some(value) = container.get("resources") else { return (None, None) };
    let read = value.fields(|fields| {
        fields.cluster_only("requests", &Shape::Quantities);
        let limits = fields.get("limits").and_then(|value| {
            value.fields(|fields| {
                for key in ["ephemeral-storage", "nvidia.com/gpu", "amd.com/gpu"] {
                    fields.refused(key, "cpu and memory are; put it into an overlay of the cluster");
                }
                let cpu = fields.get("cpu").and_then(|value| parsed(&value, scalar::cores));
                let memory = fields.get("memory").and_then(|value| parsed(&value, scalar::bytes));
                Some((cpu, memory))
            })
        });
        Some(limits.unwrap_or_default())
    });
    read.unwrap_or_default()
}

fn parsed<T>(value: &Value<'_>, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
    parse(&value.number_or_text()?).map_err(|reason| value.refuse(reason)).ok()
}

/// The container's port: the engine chooses another and says it in `PORT`, as Knative does.
fn port(container: &Fields<'_, '_>) -> Option<u32> {
    let value = container.get("ports")?;
    let list = value.list()?;
    if list.len() > 1 {
        value.refuse("has more than one port, which Knative refuses");
    }
    list.first()?.fields(|fields| {
        if let Some(name) = fields.get("name")
            && let Some(text) = name.text()
            && text != "http1"
        {
            name.refuse(format!("{text:?} is not implemented: functions are called over HTTP/1.1, http1"));
        }
        if let Some(protocol) = fields.get("protocol")
            && let Some(text) = protocol.text()
            && text != "TCP"
        {
            protocol.refuse(format!("{text:?} is not implemented: TCP is"));
        }
        fields.get("containerPort").and_then(|value| value.whole(1, 65_535))
    })
}

fn ready(probe: &Value<'_>, container_port: Option<u32>) -> Option<Ready> {
    probe.fields(|fields| {
        for (key, shape) in PROBE {
            fields.cluster_only(key, shape);
        }
        for key in ["exec", "grpc"] {
            fields.refused(key, "httpGet and tcpSocket are");
        }
        let http = fields.get("httpGet").map(|value| {
            value.fields(|fields| {
                fields.refused("httpHeaders", "the probe has no headers of its own");
                fields.refused("host", "the instance itself is asked");
                if let Some(scheme) = fields.get("scheme")
                    && let Some(text) = scheme.text()
                    && text != "HTTP"
                {
                    scheme.refuse(format!("{text:?} is not implemented: HTTP is"));
                }
                probe_port(fields, container_port);
                let path = fields.get("path").map_or(Some("/".to_owned()), |value| {
                    let text = value.text()?;
                    if !text.starts_with('/')
                        || text.contains(|symbol: char| symbol.is_whitespace() || symbol.is_control())
                    {
                        value.refuse(format!("{text:?} is no path: such as /health/readiness"));
                        return None;
                    }
                    Some(text.to_owned())
                });
                path.map(Ready::Path)
            })
        });
        let tcp = fields.get("tcpSocket").map(|value| {
            value.fields(|fields| {
                fields.refused("host", "the instance itself is asked");
                probe_port(fields, container_port);
                Some(Ready::Port)
            })
        });
        match (http, tcp) {
            (Some(ready), None) | (None, Some(ready)) => ready,
            (None, None) => Some(Ready::Port),
            (Some(_), Some(_)) => {
                fields.whole().refuse("has both httpGet and tcpSocket");
                None
            }
        }
    })
}

/// A probe may only ask the port that the container listens on: 8080 if nothing is said, as in Knative.
fn probe_port(fields: &Fields<'_, '_>, container_port: Option<u32>) {
    if let Some(value) = fields.get("port")
        && let Some(port) = value.whole(0, 65_535)
        && port != 0
        && port != container_port.unwrap_or(8080)
    {
        value.refuse("is another port than the container's: an instance has one port here; leave it out");
    }
}

/// Names of volumes that are scratch folders; others are refused.
fn scratch_volumes(pod: &Fields<'_, '_>) -> Vec<String> {
    let mut names = Vec::new();
    for volume in pod.get("volumes").and_then(|value| value.list()).unwrap_or_default() {
        volume.fields(|fields| {
            for key in ["configMap", "secret", "persistentVolumeClaim", "hostPath", "projected", "csi", "nfs"]
            {
                fields.refused(key, "only emptyDir is; use variables for settings and the store for data");
            }
            let name = fields.required("name").and_then(|value| value.parsed(scalar::label));
            if fields.get("emptyDir").is_none() {
                volume.refuse("has no emptyDir: {}");
            }
            fields.cluster_only("emptyDir", &EMPTY_DIR);
            names.push(name?);
            Some(())
        });
    }
    names
}

/// A scratch folder is mounted where every machine has one: `/tmp`.
fn mounts(container: &Fields<'_, '_>, scratch: &[String]) {
    for mount in container.get("volumeMounts").and_then(|value| value.list()).unwrap_or_default() {
        mount.fields(|fields| {
            if let Some(name) = fields.required("name")
                && let Some(text) = name.text()
                && !scratch.iter().any(|known| known == text)
            {
                name.refuse(format!("{text:?} is no volume of this pod"));
            }
            if let Some(path) = fields.required("mountPath")
                && let Some(text) = path.text()
                && text != "/tmp"
            {
                path.refuse(format!(
                    "{text:?} is not /tmp, the one folder that is there to write to on every machine"
                ));
            }
            Some(())
        });
    }
}
