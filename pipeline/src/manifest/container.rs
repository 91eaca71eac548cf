//! A pod's one container, and what stands for it on this machine.

use std::collections::BTreeMap;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::cluster::{self, CONTAINER, EMPTY_DIR, POD, PROBE, Shape};
use super::env::{Role, Variables};
use super::reader::{Fields, Value};
use super::set::{Annotations, Set};
use super::{Command, LocalRun, Ready, scalar};

/// What `baton fn` runs.
pub const FUNCTIONS: [&str; 6] = ["validate", "mask", "evaluate", "deploy", "history", "sweep"];
/// Annotation of a template: what is run here in place of the image.
pub const LOCAL_COMMAND: &str = "baton.dev/local-command";
/// Annotation of a template: where it is run, relative to the manifest's folder.
pub const LOCAL_FOLDER: &str = "baton.dev/local-folder";

/// Knative's own container in the pod of a Service, and its ports.
const PROXY: &str = "queue-proxy";
const PROXY_PORTS: [u32; 6] = [8008, 8012, 8013, 8022, 9090, 9091];
/// Fields of a pod that Knative Serving takes only if they are switched on (`config-features`).
const FLAGGED: [&str; 6] = [
    "nodeSelector",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "tolerations",
];

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
    let mut scratch = scratch_volumes(pod);
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
        if let Some(image) = fields.required("image") {
            image.parsed(scalar::image);
        }
        if let Some(name) = fields.get("name") {
            if name.parsed(scalar::label).is_some_and(|name| name == PROXY) {
                name.refuse("is what Knative calls its own container");
            }
        } else if role == Role::Job {
            place.refuse("the field name is missing");
        }
        if role == Role::Service {
            of_a_service(pod, fields, set);
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
        mounts(fields, &mut scratch);
        for (name, volume) in &scratch {
            volume.refuse(format!("{name:?} is not mounted, which Knative refuses: remove it"));
        }
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
        if cpu_millis.is_some() {
            set.report.note(
                "limits.cpu is kept by a cluster; here nothing is slowed down, and no more jobs run at a time than --jobs says"
                    .into(),
            );
        }
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

/// What Knative refuses in a Service, or takes only if its administrator has switched it on.
fn of_a_service(pod: &Fields<'_, '_>, container: &Fields<'_, '_>, set: &Set<'_>) {
    if let Some(value) = pod.get("automountServiceAccountToken")
        && value.flag() == Some(true)
    {
        value.refuse("is refused by Knative: false is accepted");
    }
    let mut flagged: Vec<&str> = FLAGGED.into_iter().filter(|key| pod.get(key).is_some()).collect();
    if let Some(security) = container.get("securityContext") {
        let entries = security.free().unwrap_or_default();
        let has = |key| entries.iter().find(|(name, _)| *name == key).map(|(_, value)| value);
        if has("privileged").is_some_and(|value| value.flag() == Some(true)) {
            flagged.push("privileged");
        }
        if has("capabilities")
            .and_then(Value::free)
            .unwrap_or_default()
            .iter()
            .any(|(name, _)| *name == "add")
        {
            flagged.push("capabilities.add");
        }
    }
    if !flagged.is_empty() {
        set.report.note(format!(
            "{}: Knative refuses {} in a Service unless its ConfigMap config-features switches them on",
            container.whole().object(),
            flagged.join(", ")
        ));
    }
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

/// The command: the annotation, or a function of this binary, as the arguments of its image or of the program `baton`.
fn command<'a>(
    fields: &Fields<'_, 'a>,
    annotations: &Annotations<'a>,
    variables: &Variables,
) -> Option<Command> {
    let words = ["command", "args"].map(|key| {
        let list = fields.get(key).map_or(Some(Vec::new()), |value| value.list())?;
        list.into_iter().map(|value| Some((value.text()?, value))).collect::<Option<Vec<_>>>()
    });
    if let Some(value) = annotations.get(LOCAL_COMMAND) {
        return local_command(value, variables).map(Command::Program);
    }
    let [command, args] = words;
    let (command, args) = (command?, args?);
    let is_baton = |word: &str| word == "baton" || word.ends_with("/baton");
    let words = match command.split_first() {
        Some(((program, _), rest)) => is_baton(program).then(|| [rest, &args[..]].concat()),
        None => Some(args),
    };
    match words.as_deref() {
        Some([("fn", _), (name, _)]) if FUNCTIONS.contains(name) => {
            Some(Command::BuiltIn(vec!["fn".to_owned(), (*name).to_owned()]))
        }
        Some([("fn", _), rest @ ..]) => {
            let place = rest.first().map_or(fields.whole(), |(_, value)| value);
            place.refuse(format!(
                "is not fn and one name of {}: the settings of a function are variables",
                FUNCTIONS.join(", ")
            ));
            None
        }
        _ => {
            fields.whole().refuse(format!(
                "runs an image, and images are not run here: say what is run instead in the annotation {LOCAL_COMMAND} of \
                 the template, for example \"python3 train.py\" (only the args [fn, NAME] need none)"
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
        let limits = limits.unwrap_or_default();
        if let Some(requests) = fields.get("requests") {
            Shape::Quantities.check(&requests);
            requested(&requests, limits);
        }
        Some(limits)
    });
    read.unwrap_or_default()
}

/// Refuses a request that is more than its limit.
fn requested(requests: &Value<'_>, (cpu_millis, memory): (Option<u32>, Option<u64>)) {
    for (name, value) in requests.free().unwrap_or_default() {
        let limit = match name {
            "cpu" => cpu_millis.map(u128::from),
            "memory" => memory.map(|bytes| u128::from(bytes) * 1_000),
            _ => None,
        };
        let request = value.number_or_text().and_then(|text| scalar::quantity(&text).ok());
        if limit.zip(request).is_some_and(|(limit, request)| request > limit) {
            value.refuse("is more than the limit");
        }
    }
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
        let port = fields.get("containerPort")?;
        let number = port.whole(1, 65_535)?;
        if PROXY_PORTS.contains(&number) {
            port.refuse(format!("{number} is a port of Knative's own container: choose another"));
        }
        Some(number)
    })
}

fn ready(probe: &Value<'_>, container_port: Option<u32>) -> Option<Ready> {
    probe.fields(|fields| {
        let numbers: BTreeMap<&str, u32> = PROBE
            .into_iter()
            .filter_map(|key| Some((key, fields.get(key)?.whole(0, cluster::MAX_NUMBER)?)))
            .collect();
        let is_set = |key| numbers.get(key).is_some_and(|number| *number > 0);
        for key in ["failureThreshold", "timeoutSeconds"] {
            if !is_set("periodSeconds")
                && is_set(key)
                && let Some(value) = fields.get(key)
            {
                value.refuse("is refused by Knative without periodSeconds: add it");
            }
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

/// Volumes that are scratch folders, by name; others are refused.
fn scratch_volumes<'a>(pod: &Fields<'_, 'a>) -> BTreeMap<String, Value<'a>> {
    let mut scratch = BTreeMap::new();
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
            if scratch.insert(name?, volume.clone()).is_some() {
                volume.refuse("has the name of another volume");
            }
            Some(())
        });
    }
    scratch
}

/// A scratch folder is mounted where every machine has one: `/tmp`. What is mounted is taken out of `scratch`.
fn mounts(container: &Fields<'_, '_>, scratch: &mut BTreeMap<String, Value<'_>>) {
    let mounts = container.get("volumeMounts").and_then(|value| value.list()).unwrap_or_default();
    for (index, mount) in mounts.iter().enumerate() {
        if index > 0 {
            mount.refuse("is a second mount: there is one scratch folder, at /tmp");
        }
        mount.fields(|fields| {
            if let Some(name) = fields.required("name")
                && let Some(text) = name.text()
                && scratch.remove(text).is_none()
                && index == 0
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
