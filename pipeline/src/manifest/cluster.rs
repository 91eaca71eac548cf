//! What only a cluster reads: fields and whole objects that mean nothing on one machine and do no harm there.
//!
//! They are checked for their shape, so that a misspelt field is refused here as it would be there, and then left alone. What
//! is not in these tables is refused. `docs/pipeline-manifests.md` lists them for users.

use super::reader::Value;
use super::scalar;

/// What may stand somewhere.
pub(super) enum Shape {
    Text,
    Whole,
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// The name of an object.
    Name,
    /// A port: a number or a text.
    Scalar,
    Quantity,
    Labels,
    Annotations,
    /// Quantities by resource of a container.
    Quantities,
    List(&'static Shape),
    Map(&'static [(&'static str, Shape)]),
}

impl Shape {
    /// Refuses what does not fit.
    pub(super) fn check(&self, value: &Value<'_>) {
        match self {
            Shape::Text => drop(value.text()),
            Shape::Whole => drop(value.whole(0, MAX_NUMBER)),
            Shape::Flag => drop(value.flag()),
            Shape::Word(known) => {
                if let Some(text) = value.text()
                    && !known.contains(&text)
                {
                    let known: Vec<String> = known.iter().map(|word| format!("{word:?}")).collect();
                    value.refuse(format!("{text:?} is none of {}", known.join(", ")));
                }
            }
            Shape::Name => drop(value.parsed(scalar::subdomain)),
            Shape::Scalar => drop(value.number_or_text()),
            Shape::Quantity => {
                if let Some(Err(reason)) = value.number_or_text().map(|text| scalar::quantity(&text)) {
                    value.refuse(reason);
                }
            }
            Shape::Labels => {
                for (key, value) in keyed(value) {
                    if value
                        .parsed(scalar::label_value)
                        .is_some_and(|text| key == VISIBILITY && text != "cluster-local")
                    {
                        value.refuse("is none of Knative's: cluster-local is");
                    }
                }
            }
            Shape::Annotations => keyed(value).iter().for_each(|(_, value)| Shape::Text.check(value)),
            Shape::Quantities => {
                for (name, value) in value.free().unwrap_or_default() {
                    // Resources of others have a domain in front.
                    let is_foreign = name.contains('/') && scalar::label_key(name).is_ok();
                    if !RESOURCES.contains(&name) && !is_foreign {
                        value.refuse(format!("{name} is no resource: {}", RESOURCES.join(", ")));
                    }
                    Shape::Quantity.check(&value);
                }
            }
            Shape::List(shape) => {
                for item in value.list().unwrap_or_default() {
                    shape.check(&item);
                }
            }
            Shape::Map(known) => {
                value.fields(|fields| {
                    for (key, shape) in *known {
                        fields.cluster_only(key, shape);
                    }
                    Some(())
                });
            }
        }
    }
}

/// The largest number of most fields of Kubernetes.
pub(super) const MAX_NUMBER: u32 = i32::MAX.unsigned_abs();
const RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const VISIBILITY: &str = "networking.knative.dev/visibility";

/// The entries of labels or annotations; keys that are none are refused.
fn keyed<'a>(value: &Value<'a>) -> Vec<(&'a str, Value<'a>)> {
    let entries = value.free().unwrap_or_default();
    for (key, value) in &entries {
        if let Err(reason) = scalar::label_key(key) {
            value.refuse(reason);
        }
    }
    entries
}

use Shape::{Annotations, Flag, Labels, List, Map, Name, Quantities, Quantity, Scalar, Text, Whole, Word};

/// The spec of an object that only a cluster reads, or its fields beside `metadata`; `None` for kinds that are not known.
pub(super) fn object(api_version: &str, kind: &str) -> Option<&'static [(&'static str, Shape)]> {
    Some(match (api_version, kind) {
        ("v1", "Namespace") => NAMESPACE,
        ("v1", "ServiceAccount") => SERVICE_ACCOUNT,
        ("v1", "Service") => CORE_SERVICE,
        ("v1", "PersistentVolumeClaim") => CLAIM,
        ("apps/v1", "Deployment") => DEPLOYMENT,
        ("networking.k8s.io/v1", "NetworkPolicy") => NETWORK_POLICY,
        ("eventing.knative.dev/v1alpha1", "EventPolicy") => EVENT_POLICY,
        _ => return None,
    })
}

/// `securityContext` of a container.
pub(super) const SECURITY: Shape = Map(&[
    ("allowPrivilegeEscalation", Flag),
    ("privileged", Flag),
    ("readOnlyRootFilesystem", Flag),
    ("runAsNonRoot", Flag),
    ("runAsUser", Whole),
    ("runAsGroup", Whole),
    ("capabilities", Map(&[("add", List(&Text)), ("drop", List(&Text))])),
    ("seccompProfile", SECCOMP),
]);

/// `securityContext` of a pod.
pub(super) const POD_SECURITY: Shape = Map(&[
    ("fsGroup", Whole),
    ("fsGroupChangePolicy", Text),
    ("runAsNonRoot", Flag),
    ("runAsUser", Whole),
    ("runAsGroup", Whole),
    ("supplementalGroups", List(&Whole)),
    ("seccompProfile", SECCOMP),
]);

const SECCOMP: Shape =
    Map(&[("type", Word(&["RuntimeDefault", "Localhost", "Unconfined"])), ("localhostProfile", Text)]);

/// Fields of a pod that say where and as whom it runs.
pub(super) const POD: &[(&str, Shape)] = &[
    ("automountServiceAccountToken", Flag),
    ("enableServiceLinks", Flag),
    ("imagePullSecrets", List(&NAME)),
    ("nodeSelector", Labels),
    ("priorityClassName", Name),
    ("runtimeClassName", Name),
    ("schedulerName", Text),
    ("securityContext", POD_SECURITY),
    ("serviceAccountName", Name),
    (
        "tolerations",
        List(&Map(&[
            ("key", Text),
            ("operator", Word(&["Exists", "Equal"])),
            ("value", Text),
            ("effect", Word(&["NoSchedule", "PreferNoSchedule", "NoExecute"])),
            ("tolerationSeconds", Whole),
        ])),
    ),
];

/// Fields of a container that the local command stands for, or that guard it.
pub(super) const CONTAINER: &[(&str, Shape)] = &[
    ("imagePullPolicy", PULL_POLICY),
    ("securityContext", SECURITY),
    ("terminationMessagePath", Text),
    ("terminationMessagePolicy", Word(&["File", "FallbackToLogsOnError"])),
    ("workingDir", Text),
];

const PULL_POLICY: Shape = Word(&["Always", "IfNotPresent", "Never"]);

/// How often a probe asks: the local engine asks in its own time.
pub(super) const PROBE: [&str; 5] =
    ["failureThreshold", "initialDelaySeconds", "periodSeconds", "successThreshold", "timeoutSeconds"];

const NAME: Shape = Map(&[("name", Name)]);

/// `spec.config` of a broker.
pub(super) const BROKER_CONFIG: Shape =
    Map(&[("apiVersion", Text), ("kind", Text), ("name", Text), ("namespace", Text)]);

const REQUIREMENTS: Shape = List(&Map(&[("key", Text), ("operator", Text), ("values", List(&Text))]));

const SELECTOR: Shape = Map(&[("matchLabels", Labels), ("matchExpressions", REQUIREMENTS)]);

const NAMESPACE: &[(&str, Shape)] = &[];

const SERVICE_ACCOUNT: &[(&str, Shape)] =
    &[("automountServiceAccountToken", Flag), ("imagePullSecrets", List(&NAME))];

const CORE_SERVICE: &[(&str, Shape)] = &[(
    "spec",
    Map(&[
        ("clusterIP", Text),
        (
            "ports",
            List(&Map(&[
                ("name", Text),
                ("port", Whole),
                ("targetPort", Scalar),
                ("protocol", Text),
                ("appProtocol", Text),
            ])),
        ),
        ("selector", Labels),
        ("type", Text),
    ]),
)];

const STORAGE: Shape = Map(&[("storage", Quantity)]);

const CLAIM: &[(&str, Shape)] = &[(
    "spec",
    Map(&[
        ("accessModes", List(&Text)),
        ("resources", Map(&[("requests", STORAGE), ("limits", STORAGE)])),
        ("storageClassName", Text),
        ("volumeMode", Text),
    ]),
)];

const PEER: Shape = Map(&[
    ("podSelector", SELECTOR),
    ("namespaceSelector", SELECTOR),
    ("ipBlock", Map(&[("cidr", Text), ("except", List(&Text))])),
]);

const POLICY_PORTS: Shape = List(&Map(&[("port", Scalar), ("endPort", Whole), ("protocol", Text)]));

const NETWORK_POLICY: &[(&str, Shape)] = &[(
    "spec",
    Map(&[
        ("podSelector", SELECTOR),
        ("policyTypes", List(&Text)),
        ("ingress", List(&Map(&[("from", List(&PEER)), ("ports", POLICY_PORTS)]))),
        ("egress", List(&Map(&[("to", List(&PEER)), ("ports", POLICY_PORTS)]))),
    ]),
)];

const REFERENCE: Shape = Map(&[("apiVersion", Text), ("kind", Text), ("name", Text), ("namespace", Text)]);

const EVENT_POLICY: &[(&str, Shape)] = &[(
    "spec",
    Map(&[
        ("from", List(&Map(&[("ref", REFERENCE), ("sub", Text)]))),
        (
            "to",
            List(&Map(&[
                ("ref", Map(&[("apiVersion", Text), ("kind", Text), ("name", Text)])),
                (
                    "selector",
                    Map(&[
                        ("apiVersion", Text),
                        ("kind", Text),
                        ("matchLabels", Labels),
                        ("matchExpressions", REQUIREMENTS),
                    ]),
                ),
            ])),
        ),
    ]),
)];

const KEY: Shape = Map(&[("name", Text), ("key", Text), ("optional", Flag)]);

const CLUSTER_PROBE: Shape = Map(&[
    ("httpGet", Map(&[("path", Text), ("port", Scalar), ("scheme", Text), ("host", Text)])),
    ("tcpSocket", Map(&[("port", Scalar), ("host", Text)])),
    ("failureThreshold", Whole),
    ("initialDelaySeconds", Whole),
    ("periodSeconds", Whole),
    ("successThreshold", Whole),
    ("timeoutSeconds", Whole),
]);

const VOLUME: Shape = Map(&[
    ("name", Text),
    ("emptyDir", EMPTY_DIR),
    ("persistentVolumeClaim", Map(&[("claimName", Text), ("readOnly", Flag)])),
    ("secret", Map(&[("secretName", Text), ("optional", Flag), ("defaultMode", Whole)])),
    ("configMap", Map(&[("name", Text), ("optional", Flag), ("defaultMode", Whole)])),
]);

/// A scratch folder.
pub(super) const EMPTY_DIR: Shape = Map(&[("medium", Word(&["", "Memory"])), ("sizeLimit", Quantity)]);

const DEPLOYMENT: &[(&str, Shape)] = &[(
    "spec",
    Map(&[
        ("replicas", Whole),
        ("revisionHistoryLimit", Whole),
        ("progressDeadlineSeconds", Whole),
        ("minReadySeconds", Whole),
        (
            "strategy",
            Map(&[
                ("type", Text),
                ("rollingUpdate", Map(&[("maxSurge", Scalar), ("maxUnavailable", Scalar)])),
            ]),
        ),
        ("selector", SELECTOR),
        (
            "template",
            Map(&[
                ("metadata", Map(&[("labels", Labels), ("annotations", Annotations)])),
                (
                    "spec",
                    Map(&[
                        ("automountServiceAccountToken", Flag),
                        ("enableServiceLinks", Flag),
                        ("imagePullSecrets", List(&NAME)),
                        ("nodeSelector", Labels),
                        ("priorityClassName", Text),
                        ("securityContext", POD_SECURITY),
                        ("serviceAccountName", Name),
                        ("terminationGracePeriodSeconds", Whole),
                        ("volumes", List(&VOLUME)),
                        (
                            "containers",
                            List(&Map(&[
                                ("name", Text),
                                ("image", Text),
                                ("imagePullPolicy", PULL_POLICY),
                                ("command", List(&Text)),
                                ("args", List(&Text)),
                                (
                                    "env",
                                    List(&Map(&[
                                        ("name", Text),
                                        ("value", Text),
                                        (
                                            "valueFrom",
                                            Map(&[
                                                ("configMapKeyRef", KEY),
                                                ("secretKeyRef", KEY),
                                                (
                                                    "fieldRef",
                                                    Map(&[("apiVersion", Text), ("fieldPath", Text)]),
                                                ),
                                            ]),
                                        ),
                                    ])),
                                ),
                                (
                                    "ports",
                                    List(&Map(&[
                                        ("name", Text),
                                        ("containerPort", Whole),
                                        ("protocol", Text),
                                    ])),
                                ),
                                ("resources", Map(&[("requests", Quantities), ("limits", Quantities)])),
                                ("securityContext", SECURITY),
                                ("readinessProbe", CLUSTER_PROBE),
                                ("livenessProbe", CLUSTER_PROBE),
                                ("startupProbe", CLUSTER_PROBE),
                                (
                                    "volumeMounts",
                                    List(&Map(&[
                                        ("name", Text),
                                        ("mountPath", Text),
                                        ("readOnly", Flag),
                                        ("subPath", Text),
                                    ])),
                                ),
                            ])),
                        ),
                    ]),
                ),
            ]),
        ),
    ]),
)];
