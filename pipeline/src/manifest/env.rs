//! The variables of a container, as Kubernetes makes them: `envFrom`, then `env` in order, `$(NAME)` from those before.

use std::collections::BTreeMap;

use super::reader::{Fields, Value};
use super::scalar;
use super::set::{MissingSecret, Set};

/// Bytes of `NAME=VALUE` that Linux passes to a program.
const MAX_VARIABLE: usize = 128 * 1024 - 1;
/// Set by Knative and by the local engine: `K_SERVICE` and the like in a Service, `K_EVENT_PATH` in a job.
const RESERVED: [&str; 6] =
    ["K_SERVICE", "K_CONFIGURATION", "K_REVISION", "K_EVENT_PATH", "K_EXECUTION_MODE", "K_CE_OVERRIDES"];
/// Set in a Service, and free in a job.
const PORT: &str = "PORT";
/// Set by the local engine in place of the cluster's.
const REPLACED: [&str; 4] = ["LISTEN_ADDRESS", "K_SINK", "BATON_ARTIFACTS", "BATON_SERVER"];

/// What kind of object a container belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Service,
    Job,
}

#[derive(Debug, Clone)]
struct Variable {
    value: String,
    /// A secret, or made of one.
    is_secret: bool,
}

/// The variables of one container.
#[derive(Debug, Default)]
pub(super) struct Variables(BTreeMap<String, Variable>);

impl Variables {
    /// Reads `envFrom` and `env` of a container.
    pub(super) fn read<'a>(container: &Fields<'_, 'a>, role: Role, set: &Set<'a>) -> Self {
        let mut variables = Self::default();
        for source in container.get("envFrom").and_then(|value| value.list()).unwrap_or_default() {
            variables.take_config(&source, role, set);
        }
        let mut own: BTreeMap<String, ()> = BTreeMap::new();
        for entry in container.get("env").and_then(|value| value.list()).unwrap_or_default() {
            entry.fields(|fields| {
                let name =
                    fields.required("name").and_then(|value| Some((value.parsed(scalar::env_name)?, value)));
                let value = fields.get("value");
                let from = fields.get("valueFrom");
                if value.is_some() && from.is_some() {
                    entry.refuse("has both value and valueFrom");
                }
                let label = name.as_ref().map(|(name, _)| name.as_str()).unwrap_or_default();
                let found = match from {
                    Some(from) => referenced(&from, label, set),
                    None => value.map_or(Some(Found::plain("")), |value| variables.plain(&value)),
                };
                let (name, place) = name?;
                if own.insert(name.clone(), ()).is_some() {
                    place.refuse(format!("{name} is there twice: a cluster takes the last; remove one"));
                }
                if let Found::Value(variable) = found? {
                    variables.insert(name, variable, &place, role);
                }
                Some(())
            });
        }
        variables
    }

    /// Names and values; those that the engine sets itself are left out.
    pub(super) fn values(&self) -> BTreeMap<String, String> {
        let own = self.0.iter().filter(|(name, _)| !REPLACED.contains(&name.as_str()));
        own.map(|(name, variable)| (name.clone(), variable.value.clone())).collect()
    }

    /// As [`Self::values`], without what is secret: a rotated secret is no other revision.
    pub(super) fn open(&self) -> BTreeMap<&str, &str> {
        let own = self
            .0
            .iter()
            .filter(|(name, variable)| !variable.is_secret && !REPLACED.contains(&name.as_str()));
        own.map(|(name, variable)| (name.as_str(), variable.value.as_str())).collect()
    }

    /// Replaces `$(NAME)` in a word of a command. Not by a secret: whoever is on this machine can read command lines.
    pub(super) fn expanded(&self, value: &Value<'_>, text: &str) -> Option<String> {
        match self.expand(text) {
            Ok((text, false)) => Some(text),
            Ok((_, true)) => {
                value.refuse(format!(
                    "{text:?} puts a secret on the command line, which everybody on this machine can read: read the variable in \
                     the program"
                ));
                None
            }
            Err(reason) => {
                value.refuse(reason);
                None
            }
        }
    }

    fn plain(&self, value: &Value<'_>) -> Option<Found> {
        let text = value.text()?;
        match self.expand(text) {
            Ok((value, is_secret)) => Some(Found::Value(Variable { value, is_secret })),
            Err(reason) => {
                value.refuse(reason);
                None
            }
        }
    }

    fn take_config<'a>(&mut self, source: &Value<'a>, role: Role, set: &Set<'a>) {
        source.fields(|fields| {
            fields.refused("secretRef", "name each variable with valueFrom.secretKeyRef");
            let prefix = fields.get("prefix").and_then(|value| value.text()).unwrap_or_default();
            let reference = fields.required("configMapRef")?;
            let (name, optional) = reference.fields(|fields| {
                let name = fields.required("name").and_then(|value| value.parsed(scalar::subdomain));
                let optional = fields.get("optional").and_then(|value| value.flag()).unwrap_or(false);
                Some((name?, optional))
            })?;
            match set.configs.get(&name) {
                Some(config) => {
                    for (key, value) in config {
                        let variable = Variable { value: value.clone(), is_secret: false };
                        match scalar::env_name(&format!("{prefix}{key}")) {
                            Ok(name) => self.insert(name, variable, &reference, role),
                            Err(reason) => reference.refuse(reason),
                        }
                    }
                }
                None if optional => {}
                None => reference.refuse(format!("names the ConfigMap {name:?}, which is not in the set")),
            }
            Some(())
        });
    }

    fn insert(&mut self, name: String, variable: Variable, place: &Value<'_>, role: Role) {
        if RESERVED.contains(&name.as_str()) || (role == Role::Service && name == PORT) {
            return place.refuse(format!(
                "{name} is set by Knative and by the local engine: remove it, or call it otherwise"
            ));
        }
        if name.len() + variable.value.len() > MAX_VARIABLE {
            return place.refuse(format!(
                "{name} has more than {MAX_VARIABLE} bytes, which Linux passes to no program"
            ));
        }
        if variable.value.contains('\0') {
            return place.refuse(format!("{name} has a zero byte in it"));
        }
        self.0.insert(name, variable);
    }

    /// `$(NAME)` becomes the value, if there is one; `$$` is one `$`. The second value: whether a secret went in.
    /// Kubernetes' own rules (`third_party/forked/golang/expansion`), but for names that only a running instance knows.
    fn expand(&self, text: &str) -> Result<(String, bool), String> {
        let mut result = String::with_capacity(text.len());
        let mut is_secret = false;
        let mut rest = text;
        while let Some(index) = rest.find('$') {
            result.push_str(&rest[..index]);
            rest = &rest[index + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                result.push('$');
                rest = after;
            } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'))
            {
                if [&RESERVED[..], &REPLACED[..], &[PORT]].concat().contains(&name) {
                    return Err(format!(
                        "$({name}) is known only when an instance starts: read the variable {name} in the program"
                    ));
                }
                match self.0.get(name) {
                    Some(variable) => {
                        result.push_str(&variable.value);
                        is_secret |= variable.is_secret;
                    }
                    None => result.push_str(&format!("$({name})")),
                }
                rest = after;
            } else {
                result.push('$');
            }
            if result.len() > MAX_VARIABLE {
                return Err(format!("expands to more than {MAX_VARIABLE} bytes"));
            }
        }
        result.push_str(rest);
        Ok((result, is_secret))
    }
}

enum Found {
    Value(Variable),
    /// Optional, and not there.
    Nothing,
}

impl Found {
    fn plain(value: &str) -> Self {
        Found::Value(Variable { value: value.to_owned(), is_secret: false })
    }
}

/// `valueFrom`: a key of a ConfigMap or of a Secret.
fn referenced<'a>(from: &Value<'a>, variable: &str, set: &Set<'a>) -> Option<Found> {
    from.fields(|fields| {
        for key in ["fieldRef", "resourceFieldRef", "fileKeyRef"] {
            fields.refused(key, "configMapKeyRef and secretKeyRef are");
        }
        let config = fields.get("configMapKeyRef");
        let secret = fields.get("secretKeyRef");
        let (place, is_secret) = match (config, secret) {
            (Some(config), None) => (config, false),
            (None, Some(secret)) => (secret, true),
            _ => {
                fields.whole().refuse("is not exactly one of configMapKeyRef and secretKeyRef");
                return None;
            }
        };
        let (name, key, optional) = place.fields(|fields| {
            let name = fields.required("name").and_then(|value| value.parsed(scalar::subdomain));
            let key = fields.required("key").and_then(|value| value.parsed(scalar::data_key));
            let optional = fields.get("optional").and_then(|value| value.flag()).unwrap_or(false);
            Some((name?, key?, optional))
        })?;
        let (kind, all) = if is_secret { ("Secret", &set.secrets) } else { ("ConfigMap", &set.configs) };
        let value = match all.get(&name) {
            Some(entries) => entries.get(&key).cloned(),
            None if is_secret => (set.environment)(variable),
            None => None,
        };
        match value {
            Some(value) => Some(Found::Value(Variable { value, is_secret })),
            None if optional => Some(Found::Nothing),
            None if all.contains_key(&name) => {
                place.refuse(format!(
                    "names the key {key:?}, which the {kind} {name:?} of the set does not have"
                ));
                None
            }
            None if is_secret => {
                missing_secret(&place, &name, variable, set);
                // It has no value yet and is a secret all the same.
                Some(Found::Value(Variable { value: String::new(), is_secret }))
            }
            None => {
                place.refuse(format!("names the ConfigMap {name:?}, which is not in the set"));
                None
            }
        }
    })
}

fn missing_secret(place: &Value<'_>, name: &str, variable: &str, set: &Set<'_>) {
    match set.missing_secret {
        MissingSecret::Refused => place.refuse(format!(
            "names the Secret {name:?}, which is not in the set: set the environment variable {variable} before you start, \
             or say optional: true"
        )),
        MissingSecret::Noted => set.report.note(format!(
            "{}: the Secret {name} is not in the set: the environment variable {variable} must be set when the pipeline starts",
            place.object()
        )),
    }
}
