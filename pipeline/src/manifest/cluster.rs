//! What only a cluster reads: fields and whole objects that mean nothing on one machine and do no harm there.
//!
//! They are checked for their shape, so that a misspelt field is refused here as it would be there, and then left alone. What
//! is not in these tables is refused. `docs/pipeline-manifests.md` lists them for users.

use super::reader::Value;

/// What may stand somewhere.
pub(super) enum Shape {
    Text,
    Whole,
    Flag,
    /// A quantity, a port: a number or a text.
    Scalar,
    /// Texts by keys of the user's choice: labels, selectors.
    Texts,
    /// Quantities by resource.
    Quantities,
    List(&'static Shape),
    Map(&'static [(&'static str, Shape)]),
}

impl Shape {
    /// Refuses what does not fit.
    pub(super) fn check(&self, value: &Value<'_>) {
        match self {
            Shape::Text => drop(value.text()),
            Shape::Whole => drop(value.whole(0, u32::MAX)),
            Shape::Flag => drop(value.flag()),
            Shape::Scalar => drop(value.number_or_text()),
            Shape::Texts => each(value, &Shape::Text),
            Shape::Quantities => {
                for (name, value) in value.free().unwrap_or_default() {
                    // Resources of others have a domain in front.
                    if !RESOURCES.contains(&name) && !name.contains('/') {
                        value.refuse(format!("{name} is no resource: {}", RESOURCES.join(", ")));
                    }
                    if let Some(text) = value.number_or_text()
                        && let Err(reason) = super::scalar::quantity(&text)
                    {
                        value.refuse(reason);
                    }
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

const RESOURCES: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "storage"];

fn each(value: &Value<'_>, shape: &Shape) {
    for (_, value) in value.free().unwrap_or_default() {
        shape.check(&value);
    }
}

use Shape::{Flag, List, Map, Quantities, Scalar, Text, Texts, Whole};

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

const SECCOMP: Shape = Map(&[("type", Text), ("localhostProfile", Text)]);

/// Fields of a pod that say where and as whom it runs.
pub(super) const POD: &[(&str, Shape)] = &[
    ("automountServiceAccountToken", Flag),
    ("enableServiceLinks", Flag),
    ("imagePullSecrets", List(&NAME)),
    ("nodeSelector", Texts),
    ("priorityClassName", Text),
    ("runtimeClassName", Text),
    ("schedulerName", Text),
    ("securityContext", POD_SECURITY),
    ("serviceAccountName", Text),
    (
        "tolerations",
        List(&Map(&[
            ("key", Text),
            ("operator", Text),
            ("value", Text),
            ("effect", Text),
            ("tolerationSeconds", Whole),
        ])),
    ),
];

/// Fields of a container that the local command stands for, or that guard it.
pub(super) const CONTAINER: &[(&str, Shape)] = &[
    ("image", Text),
    ("imagePullPolicy", Text),
    ("securityContext", SECURITY),
    ("terminationMessagePath", Text),
    ("terminationMessagePolicy", Text),
    ("workingDir", Text),
];

/// How often a probe asks: the local engine asks in its own time.
pub(super) const PROBE: &[(&str, Shape)] = &[
    ("failureThreshold", Whole),
    ("initialDelaySeconds", Whole),
    ("periodSeconds", Whole),
    ("successThreshold", Whole),
    ("timeoutSeconds", Whole),
];

const NAME: Shape = Map(&[("name", Text)]);

/// `spec.config` of a broker.
pub(super) const BROKER_CONFIG: Shape =
    Map(&[("apiVersion", Text), ("kind", Text), ("name", Text), ("namespace", Text)]);

const REQUIREMENTS: Shape = List(&Map(&[("key", Text), ("operator", Text), ("values", List(&Text))]));

const SELECTOR: Shape = Map(&[("matchLabels", Texts), ("matchExpressions", REQUIREMENTS)]);

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
        ("selector", Texts),
        ("type", Text),
    ]),
)];

const CLAIM: &[(&str, Shape)] = &[(
    "spec",
    Map(&[
        ("accessModes", List(&Text)),
        ("resources", Map(&[("requests", Quantities), ("limits", Quantities)])),
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
                        ("matchLabels", Texts),
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
pub(super) const EMPTY_DIR: Shape = Map(&[("medium", Text), ("sizeLimit", Scalar)]);

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
                ("metadata", Map(&[("labels", Texts), ("annotations", Texts)])),
                (
                    "spec",
                    Map(&[
                        ("automountServiceAccountToken", Flag),
                        ("enableServiceLinks", Flag),
                        ("imagePullSecrets", List(&NAME)),
                        ("nodeSelector", Texts),
                        ("priorityClassName", Text),
                        ("securityContext", POD_SECURITY),
                        ("serviceAccountName", Text),
                        ("terminationGracePeriodSeconds", Whole),
                        ("volumes", List(&VOLUME)),
                        (
                            "containers",
                            List(&Map(&[
                                ("name", Text),
                                ("image", Text),
                                ("imagePullPolicy", Text),
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

/// Labels and the like.
pub(super) const LABELS: Shape = Texts;
