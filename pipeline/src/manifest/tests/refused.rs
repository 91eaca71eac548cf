//! Every refusal: a good set with one thing changed, the field that is named, and what is said.

use std::fs;

use proptest::prelude::*;

use super::super::ManifestErrors;
use super::{SMALL, read_paths, read_text};

/// Replaces `from` in the small set and expects a fault at `field` whose text has `said` in it.
fn check(cases: &[(&str, &str, &str, &str)]) {
    for (from, to, field, said) in cases {
        assert_eq!(SMALL.matches(from).count(), 1, "{from:?} is not in the set exactly once");
        let errors = read_text(&SMALL.replace(from, to)).map(|_| ()).expect_err(to);
        expect(&errors, field, said, to);
        for fault in &errors.faults {
            assert!(fault.document.is_some() && fault.line.is_some(), "{to}: {fault}");
            assert!(!fault.text.contains("hidden"), "a secret is shown: {fault}");
        }
    }
}

fn expect(errors: &ManifestErrors, field: &str, said: &str, case: &str) {
    let found = errors.faults.iter().any(|fault| fault.field == field && fault.text.contains(said));
    assert!(found, "{case}: no fault at {field:?} saying {said:?} in\n{errors}");
}

#[test]
fn brokers_and_deliveries() {
    check(&[
        ("retry: 3", "retry: -1", "spec.delivery.retry", "-1 is not from 0 to 100"),
        ("retry: 3", "retry: 101", "spec.delivery.retry", "from 0 to 100"),
        ("retry: 3", "retry: \"3\"", "spec.delivery.retry", "a text where a whole number belongs"),
        (
            "backoffPolicy: linear",
            "backoffPolicy: quadratic",
            "spec.delivery.backoffPolicy",
            "neither linear nor",
        ),
        ("backoffDelay: PT2S", "backoffDelay: 2s", "spec.delivery.backoffDelay", "ISO 8601"),
        (
            "    backoffDelay: PT2S",
            "    retryAfterMax: PT2S",
            "spec.delivery.retryAfterMax",
            "not implemented",
        ),
        ("    backoffDelay: PT2S", "    format: json", "spec.delivery.format", "binary mode"),
        ("timeout: PT1M", "timeout: PT601S", "spec.delivery.timeout", "longer work is a JobSink"),
        ("timeout: PT1M", "timeout: PT0S", "spec.delivery.timeout", "more than PT0S"),
        ("retry: 7, timeout: PT1M", "retry: 20, backoffPolicy: exponential", "", "more than a day"),
        (
            "name: web}, uri: /dead",
            "name: nobody}, uri: /dead",
            "spec.delivery.deadLetterSink.ref",
            "not in the set",
        ),
        ("uri: /dead", "uri: dead", "spec.delivery.deadLetterSink.uri", "is no path"),
        ("uri: /dead", "uri: //other/dead", "spec.delivery.deadLetterSink.uri", "is no path"),
        (
            "{ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: web}, uri: /dead}",
            "{ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: main}}",
            "",
            "again and again",
        ),
        (
            "metadata: {name: main, namespace: ns}",
            "metadata: {name: Main, namespace: ns}",
            "metadata.name",
            "DNS label",
        ),
        ("metadata: {name: main, namespace: ns}", "metadata: {namespace: ns}", "metadata", "name is missing"),
        (
            "metadata: {name: main, namespace: ns}",
            "metadata: {name: main, namespace: ns, generateName: x}",
            "metadata.generateName",
            "nothing is ignored",
        ),
    ]);
}

#[test]
fn triggers_and_filters() {
    let filter = "  filter: {attributes: {type: c, subject: \"\"}}";
    check(&[
        (filter, "  filter: {attributes: {type: c}}\n  filters: []", "spec.filters", "beside filter"),
        (filter, "  filter: {attributes: {Type: c}}", "spec.filter.attributes.Type", "is no attribute"),
        (filter, "  filter: {attributes: {type: 1}}", "spec.filter.attributes.type", "write \"1\""),
        (filter, "  filter: {attributes: {type: yes}}", "spec.filter.attributes.type", "write \"yes\""),
        (filter, "  filter: {attributes: {type: 007}}", "spec.filter.attributes.type", "write \"007\""),
        (filter, "  filter: {sourceAndType: {type: c}}", "spec.filter.sourceAndType", "nothing is ignored"),
        (filter, "  filters: [{cesql: \"type = 'c'\"}]", "spec.filters[0].cesql", "CESQL"),
        (filter, "  filters: [{sql: \"type = 'c'\"}]", "spec.filters[0].sql", "CESQL"),
        (filter, "  filters: [{}]", "spec.filters[0]", "exactly one of"),
        (filter, "  filters: [{exact: {type: a}, prefix: {type: b}}]", "spec.filters[0]", "exactly one of"),
        (filter, "  filters: [{any: []}]", "spec.filters[0].any", "is empty"),
        (filter, "  filters: [{exact: {}}]", "spec.filters[0].exact", "is empty"),
        (filter, "  filters: [{exact: {type: \"\"}}]", "spec.filters[0].exact.type", "is empty"),
        (filter, "  filters: {exact: {type: a}}", "spec.filters", "a list belongs"),
        (
            filter,
            "  filters: [{not: {not: {not: {not: {not: {not: {not: {not: {not: {exact: {type: a}}}}}}}}}}}]",
            "spec.filters[0].not.not.not.not.not.not.not.not.not",
            "nested",
        ),
        (
            "kind: JobSink, name: work",
            "kind: JobSink, name: nobody",
            "spec.subscriber.ref",
            "names JobSink \"nobody\", which is not in the set",
        ),
        ("kind: JobSink, name: work", "kind: JobSink", "spec.subscriber.ref", "name is missing"),
        (
            "sinks.knative.dev/v1alpha1, kind: JobSink, name: work",
            "v1, kind: Service, name: work",
            "spec.subscriber.ref",
            "events go to a",
        ),
        (
            "sinks.knative.dev/v1alpha1, kind: JobSink, name: work",
            "eventing.knative.dev/v1, kind: Broker, name: main",
            "spec.subscriber",
            "is the Broker itself",
        ),
        (
            "kind: JobSink, name: work}",
            "kind: JobSink, name: work, namespace: other}",
            "spec.subscriber.ref.namespace",
            "another namespace",
        ),
        (
            "kind: JobSink, name: work}",
            "kind: JobSink, name: work}, uri: /x",
            "spec.subscriber.uri",
            "has none",
        ),
        (
            "kind: JobSink, name: work}",
            "kind: JobSink, name: work}, audience: x",
            "spec.subscriber.audience",
            "overlay",
        ),
        (
            "{ref: {apiVersion: sinks.knative.dev/v1alpha1, kind: JobSink, name: work}}",
            "{}",
            "spec.subscriber",
            "names nothing",
        ),
        (
            "{ref: {apiVersion: sinks.knative.dev/v1alpha1, kind: JobSink, name: work}}",
            "{uri: \"ftp://x/\"}",
            "spec.subscriber.uri",
            "http or https",
        ),
        (
            "{ref: {apiVersion: sinks.knative.dev/v1alpha1, kind: JobSink, name: work}}",
            "{uri: \"http://work.ns.svc.cluster.local./\"}",
            "spec.subscriber.uri",
            "use ref",
        ),
        (
            "{ref: {apiVersion: sinks.knative.dev/v1alpha1, kind: JobSink, name: work}}",
            "{uri: \"http://u:p@x/\"}",
            "spec.subscriber.uri",
            "password",
        ),
        ("{name: to-job, namespace: ns}", "{name: to-web, namespace: ns}", "", "is there twice"),
        (
            "{name: to-job, namespace: ns}",
            "{name: to-job, namespace: other}",
            "metadata.namespace",
            "one namespace",
        ),
        (
            "{name: to-job, namespace: ns}",
            "{name: to-job, annotations: {kafka.eventing.knative.dev/delivery.order: ordered}}",
            "metadata.annotations[\"kafka.eventing.knative.dev/delivery.order\"]",
            "side by side",
        ),
    ]);
    let other = SMALL.replacen("  broker: main\n  filters", "  broker: nobody\n  filters", 1);
    expect(
        &read_text(&other).unwrap_err(),
        "spec.broker",
        "is no Broker of the set, which is \"main\"",
        "broker",
    );
}

#[test]
fn services() {
    let annotation = "autoscaling.knative.dev/window: 30s";
    let spec = "spec.template.spec";
    check(&[
        ("timeoutSeconds: 20", "timeoutSeconds: 601", "spec.template.spec.timeoutSeconds", "from 0 to 600"),
        (
            "timeoutSeconds: 20",
            "idleTimeoutSeconds: 20",
            "spec.template.spec.idleTimeoutSeconds",
            "timeoutSeconds is",
        ),
        (
            "containerConcurrency: 2",
            "containerConcurrency: 1001",
            "spec.template.spec.containerConcurrency",
            "from 0 to 1000",
        ),
        (
            "min-scale: \"1\"",
            "min-scale: 1",
            "spec.template.metadata.annotations[\"autoscaling.knative.dev/min-scale\"]",
            "write \"1\"",
        ),
        (
            "min-scale: \"1\"",
            "min-scale: \"4\"",
            "spec.template.metadata.annotations[\"autoscaling.knative.dev/min-scale\"]",
            "min-scale 4 is more than max-scale 3",
        ),
        (
            "max-scale: \"3\"",
            "max-scale: \"-1\"",
            "spec.template.metadata.annotations[\"autoscaling.knative.dev/max-scale\"]",
            "no whole number",
        ),
        (
            annotation,
            "autoscaling.knative.dev/window: 1s",
            "spec.template.metadata.annotations[\"autoscaling.knative.dev/window\"]",
            "from 6s to 1h",
        ),
        (
            annotation,
            "autoscaling.knative.dev/target: \"5\"",
            "spec.template.metadata.annotations[\"autoscaling.knative.dev/target\"]",
            "is not implemented",
        ),
        (
            annotation,
            "baton.dev/local-comand: x",
            "spec.template.metadata.annotations[\"baton.dev/local-comand\"]",
            "there are baton.dev/local-command",
        ),
        (
            annotation,
            "baton.dev/local-folder: nowhere",
            "spec.template.metadata.annotations[\"baton.dev/local-folder\"]",
            "is not there",
        ),
        (
            "metadata: {name: web, namespace: ns}\nspec:\n",
            "metadata: {name: web, annotations: {autoscaling.knative.dev/min-scale: \"1\"}}\nspec:\n",
            "metadata.annotations[\"autoscaling.knative.dev/min-scale\"]",
            "on spec.template.metadata",
        ),
        (
            "metadata: {name: web, namespace: ns}\nspec:\n",
            "metadata: {name: web}\nspec:\n  traffic: []\n",
            "spec.traffic",
            "every request",
        ),
        (
            "python3 -m web --level '$(A) $(B)' $$(A)",
            "python3 'web",
            "spec.template.metadata.annotations[\"baton.dev/local-command\"]",
            "is no command line",
        ),
        (
            "python3 -m web --level '$(A) $(B)' $$(A)",
            "\"\"",
            "spec.template.metadata.annotations[\"baton.dev/local-command\"]",
            "names no program",
        ),
        (
            "python3 -m web --level '$(A) $(B)' $$(A)",
            "web --token $(HIDDEN)",
            "spec.template.metadata.annotations[\"baton.dev/local-command\"]",
            "secret on the command line",
        ),
        (
            "python3 -m web --level '$(A) $(B)' $$(A)",
            "web --token $(MADE)",
            "spec.template.metadata.annotations[\"baton.dev/local-command\"]",
            "secret on the command line",
        ),
        (
            "python3 -m web --level '$(A) $(B)' $$(A)",
            "web $(PORT)",
            "spec.template.metadata.annotations[\"baton.dev/local-command\"]",
            "known only when an instance starts",
        ),
        (
            "        baton.dev/local-command: python3 -m web --level '$(A) $(B)' $$(A)\n",
            "",
            "spec.template.spec.containers[0]",
            "baton.dev/local-command",
        ),
        (
            "ports: [{containerPort: 9000}]",
            "ports: [{containerPort: 9000, name: h2c}]",
            "spec.template.spec.containers[0].ports[0].name",
            "HTTP/1.1",
        ),
        (
            "ports: [{containerPort: 9000}]",
            "ports: [{containerPort: 9000}, {containerPort: 1}]",
            "spec.template.spec.containers[0].ports",
            "more than one port",
        ),
        (
            "ports: [{containerPort: 9000}]",
            "ports: [{containerPort: 0}]",
            "spec.template.spec.containers[0].ports[0].containerPort",
            "from 1 to 65535",
        ),
        (
            "port: 9000}, periodSeconds: 5",
            "port: 9001}, periodSeconds: 5",
            "spec.template.spec.containers[0].readinessProbe.httpGet.port",
            "another port",
        ),
        (
            "path: /ready",
            "path: ready",
            "spec.template.spec.containers[0].readinessProbe.httpGet.path",
            "is no path",
        ),
        (
            "path: /ready",
            "scheme: HTTPS",
            "spec.template.spec.containers[0].readinessProbe.httpGet.scheme",
            "HTTP is",
        ),
        (
            "readinessProbe: {httpGet: {path: /ready, port: 9000}, periodSeconds: 5}",
            "readinessProbe: {exec: {command: [x]}}",
            "spec.template.spec.containers[0].readinessProbe.exec",
            "httpGet and tcpSocket are",
        ),
        (
            "readinessProbe: {httpGet: {path: /ready, port: 9000}, periodSeconds: 5}",
            "readinessProbe: {httpGet: {}, tcpSocket: {}}",
            "spec.template.spec.containers[0].readinessProbe",
            "both",
        ),
        (
            "readinessProbe: {httpGet: {path: /ready, port: 9000}, periodSeconds: 5}",
            "livenessProbe: {httpGet: {path: /}}",
            "spec.template.spec.containers[0].livenessProbe",
            "timeoutSeconds",
        ),
        (
            "memory: 256Mi",
            "memory: 63Mi",
            "spec.template.spec.containers[0].resources.requests.memory",
            "more than the limit",
        ),
        (
            "memory: 256Mi",
            "memory: 256m",
            "spec.template.spec.containers[0].resources.limits.memory",
            "thousandths of a byte",
        ),
        (
            "memory: 256Mi",
            "memory: 256mb",
            "spec.template.spec.containers[0].resources.limits.memory",
            "is no quantity",
        ),
        (
            "memory: 256Mi",
            "nvidia.com/gpu: 1",
            "spec.template.spec.containers[0].resources.limits[\"nvidia.com/gpu\"]",
            "cpu and memory are",
        ),
        (
            "cpu: 1500m",
            "cpu: fast",
            "spec.template.spec.containers[0].resources.limits.cpu",
            "is no quantity",
        ),
        (
            "cpu: 100m",
            "cpu: fast",
            "spec.template.spec.containers[0].resources.requests.cpu",
            "is no quantity",
        ),
        (
            "imagePullPolicy: Always",
            "imagePulPolicy: Always",
            "spec.template.spec.containers[0].imagePulPolicy",
            "known here: imagePullPolicy, securityContext",
        ),
        (
            "{runAsNonRoot: true, ",
            "{runAsNoRoot: true, ",
            "spec.template.spec.containers[0].securityContext.runAsNoRoot",
            "nothing is ignored",
        ),
        (
            "volumes: [{name: scratch, emptyDir: {}}]",
            "volumes: [{name: scratch, hostPath: {path: /}}]",
            "spec.template.spec.volumes[0].hostPath",
            "only emptyDir",
        ),
        (
            "mountPath: /tmp",
            "mountPath: /data",
            "spec.template.spec.containers[0].volumeMounts[0].mountPath",
            "is not /tmp",
        ),
        (
            "volumeMounts: [{name: scratch,",
            "volumeMounts: [{name: other,",
            "spec.template.spec.containers[0].volumeMounts[0].name",
            "no volume of this pod",
        ),
        (
            "      nodeSelector: {disk: fast}",
            "      initContainers: []",
            "spec.template.spec.initContainers",
            "program's start",
        ),
        ("      nodeSelector: {disk: fast}", "      affinity: {}", &format!("{spec}.affinity"), "overlay"),
        (
            "        - name: web\n          image: example/web",
            "        - name: side\n          image: side\n          args: [fn, history]\n        - name: web\n          image: example/web",
            "spec.template.spec.containers",
            "has 2 containers",
        ),
    ]);
}

/// What Knative's webhook or the API server would refuse.
#[test]
fn what_a_cluster_refuses() {
    let container = "spec.template.spec.containers[0]";
    let at = |rest: &str| format!("{container}.{rest}");
    let volumes = "volumes: [{name: scratch, emptyDir: {}}]";
    let mounts = "volumeMounts: [{name: scratch, mountPath: /tmp}]";
    let annotated =
        |annotation: &str| format!("metadata: {{name: web, namespace: ns, annotations: {{{annotation}}}}}");
    check(&[
        ("          image: example/web\n", "", container, "image is missing"),
        ("image: example/web", "image: \"Foo Bar:::\"", &at("image"), "is no image"),
        ("- name: web\n", "- name: queue-proxy\n", &at("name"), "its own container"),
        ("containerPort: 9000", "containerPort: 8012", &at("ports[0].containerPort"), "a port of Knative's"),
        (
            "imagePullPolicy: Always",
            "imagePullPolicy: Sometimes",
            &at("imagePullPolicy"),
            "none of \"Always\"",
        ),
        (
            "imagePullPolicy: Always",
            "terminationMessagePolicy: Foo",
            &at("terminationMessagePolicy"),
            "none of \"File\"",
        ),
        (
            "window: 30s",
            "window: 6500ms",
            "spec.template.metadata.annotations[\"autoscaling.knative.dev/window\"]",
            "whole number of seconds",
        ),
        (
            "metadata: {name: web, namespace: ns}",
            &annotated("serving.knative.dev/rollout-duration: banana"),
            "metadata.annotations[\"serving.knative.dev/rollout-duration\"]",
            "is no duration",
        ),
        (
            "metadata: {name: web, namespace: ns}",
            &annotated("\"bad key!\": x"),
            "metadata.annotations[\"bad key!\"]",
            "is no key",
        ),
        (
            "labels: {app: web}",
            "labels: {app: \"no label!\"}",
            "spec.template.metadata.labels.app",
            "value of a label",
        ),
        (
            "labels: {app: web}",
            "labels: {networking.knative.dev/visibility: everywhere}",
            "spec.template.metadata.labels[\"networking.knative.dev/visibility\"]",
            "cluster-local is",
        ),
        (
            "periodSeconds: 5",
            "failureThreshold: 3",
            &at("readinessProbe.failureThreshold"),
            "without periodSeconds",
        ),
        (
            "{runAsNonRoot: true, ",
            "{runAsUser: 4294967295, ",
            &at("securityContext.runAsUser"),
            "is not from 0",
        ),
        (
            "{runAsNonRoot: true, ",
            "{seccompProfile: {type: Foo}, ",
            &at("securityContext.seccompProfile.type"),
            "none of \"RuntimeDefault\"",
        ),
        ("cpu: 100m", "storage: 1Gi", &at("resources.requests.storage"), "is no resource"),
        (mounts, "volumeMounts: []", "spec.template.spec.volumes[0]", "is not mounted"),
        (
            mounts,
            "volumeMounts: [{name: scratch, mountPath: /tmp}, {name: scratch, mountPath: /tmp}]",
            &at("volumeMounts[1]"),
            "second mount",
        ),
        (
            volumes,
            "volumes: [{name: scratch, emptyDir: {}}, {name: scratch, emptyDir: {}}]",
            "spec.template.spec.volumes[1]",
            "name of another",
        ),
        (
            volumes,
            "volumes: [{name: scratch, emptyDir: {medium: Disk, sizeLimit: 1Gi}}]",
            "spec.template.spec.volumes[0].emptyDir.medium",
            "none of \"\", \"Memory\"",
        ),
        (
            volumes,
            "volumes: [{name: scratch, emptyDir: {sizeLimit: lots}}]",
            "spec.template.spec.volumes[0].emptyDir.sizeLimit",
            "is no quantity",
        ),
        (
            "operator: Exists",
            "operator: Perhaps",
            "spec.template.spec.tolerations[0].operator",
            "none of \"Exists\"",
        ),
        (
            "nodeSelector: {disk: fast}",
            "automountServiceAccountToken: true",
            "spec.template.spec.automountServiceAccountToken",
            "false is accepted",
        ),
        (
            "nodeSelector: {disk: fast}",
            "serviceAccountName: \"Not Valid\"",
            "spec.template.spec.serviceAccountName",
            "is no name",
        ),
        ("metadata: {name: robot, namespace: ns}", "metadata: {name: robot}", "", "has no namespace"),
        (
            "metadata: {name: robot, namespace: ns}",
            "metadata: {name: robot, namespace: other}",
            "metadata.namespace",
            "one namespace",
        ),
    ]);
    let renamed = SMALL.replace("name: web", "name: 1web");
    expect(&read_text(&renamed).unwrap_err(), "metadata.name", "wants a letter", "1web");
}

#[test]
fn only_the_functions_of_baton_are_built_in() {
    let local = "        baton.dev/local-command: python3 -m web --level '$(A) $(B)' $$(A)\n";
    let image = "image: example/web\n";
    let without = SMALL.replace(local, "");
    for (words, field, said) in [
        ("args: [fn, validat]", ".args[1]", "one name of validate, mask"),
        ("args: [fn, validate, --bogus]", ".args[1]", "settings of a function are variables"),
        ("args: [fn]", "", "one name of"),
        ("command: [fn, validate]", "", "images are not run here"),
        ("command: [sh, -c]\n          args: [fn, validate]", "", "images are not run here"),
    ] {
        let text = without.replace(image, &format!("{image}          {words}\n"));
        let field = format!("spec.template.spec.containers[0]{field}");
        expect(&read_text(&text).unwrap_err(), &field, said, words);
    }
    for words in ["args: [fn, validate]", "command: [/usr/local/bin/baton]\n          args: [fn, validate]"] {
        let text = without.replace(image, &format!("{image}          {words}\n"));
        read_text(&text).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

#[test]
fn variables() {
    let env = "spec.template.spec.containers[0].env";
    let at = |index: usize, rest: &str| format!("{env}[{index}]{rest}");
    let literal = "{name: LITERAL, value: \"x$(A)-$(NOBODY)-$$(A)\"}";
    let maybe = "{secretKeyRef: {name: elsewhere, key: token, optional: true}}";
    check(&[
        (literal, "{name: 1A, value: x}", &at(0, ".name"), "is no name of a variable"),
        (literal, "{value: x}", &at(0, ""), "name is missing"),
        (literal, "{name: X, value: 5}", &at(0, ".value"), "write \"5\""),
        (literal, "{name: X, value: true}", &at(0, ".value"), "write \"true\""),
        (literal, "{name: X, value: off}", &at(0, ".value"), "write \"off\""),
        (literal, "{name: X, value: \"\\0\"}", &at(0, ".name"), "zero byte"),
        (literal, "{name: PORT, value: \"1\"}", &at(0, ".name"), "set by Knative"),
        (literal, "{name: K_CE_OVERRIDES, value: \"1\"}", &at(0, ".name"), "set by Knative"),
        (literal, "{name: OPEN, value: \"1\"}", &at(1, ".name"), "is there twice"),
        (literal, "{name: X, value: $(K_SINK)}", &at(0, ".value"), "known only when an instance starts"),
        (
            literal,
            "{name: X, value: y, valueFrom: {configMapKeyRef: {name: settings, key: A}}}",
            &at(0, ""),
            "both value and valueFrom",
        ),
        (
            "{configMapKeyRef: {name: settings, key: B}}",
            "{configMapKeyRef: {name: nobody, key: B}}",
            &at(1, ".valueFrom.configMapKeyRef"),
            "not in the set",
        ),
        (
            "{configMapKeyRef: {name: settings, key: B}}",
            "{configMapKeyRef: {name: settings, key: C}}",
            &at(1, ".valueFrom.configMapKeyRef"),
            "does not have",
        ),
        (
            "{configMapKeyRef: {name: settings, key: B}}",
            "{fieldRef: {fieldPath: x}}",
            &at(1, ".valueFrom.fieldRef"),
            "configMapKeyRef and secretKeyRef are",
        ),
        ("{configMapKeyRef: {name: settings, key: B}}", "{}", &at(1, ".valueFrom"), "exactly one of"),
        (
            "{secretKeyRef: {name: keys, key: key}}",
            "{secretKeyRef: {name: keys, key: nothing}}",
            &at(2, ".valueFrom.secretKeyRef"),
            "does not have",
        ),
        (
            "{name: TOKEN, ",
            "{name: UNSET, ",
            &at(4, ".valueFrom.secretKeyRef"),
            "set the environment variable UNSET",
        ),
        (
            maybe,
            "{secretKeyRef: {name: elsewhere, key: token, optional: yes}}",
            &at(5, ".valueFrom.secretKeyRef.optional"),
            "true or false",
        ),
        (
            "envFrom: [{configMapRef: {name: settings}}]",
            "envFrom: [{configMapRef: {name: nobody}}]",
            "spec.template.spec.containers[0].envFrom[0].configMapRef",
            "not in the set",
        ),
        (
            "envFrom: [{configMapRef: {name: settings}}]",
            "envFrom: [{secretRef: {name: keys}}]",
            "spec.template.spec.containers[0].envFrom[0].secretRef",
            "secretKeyRef",
        ),
        (
            "  A: one",
            "  1st: one",
            "spec.template.spec.containers[0].envFrom[0].configMapRef",
            "is no name of a variable",
        ),
        ("  A: one", "  a/b: one", "data[\"a/b\"]", "is no key"),
        ("  A: one", "  A: 1", "data.A", "write \"1\""),
        ("{key: aGlkZGVu}", "{key: \"%%\"}", "data.key", "is no base64"),
        ("{key: aGlkZGVu}", "{key: /w==}", "data.key", "is no UTF-8"),
    ]);
    let large = format!("A: \"{}\"", "x".repeat(131_072));
    check(&[(
        "A: one",
        &large,
        "spec.template.spec.containers[0].envFrom[0].configMapRef",
        "Linux passes to no program",
    )]);
}

#[test]
fn jobs_and_timers() {
    check(&[
        ("backoffLimit: 0", "backoffLimit: 21", "spec.job.spec.backoffLimit", "from 0 to 20"),
        (
            "activeDeadlineSeconds: 60",
            "activeDeadlineSeconds: 0",
            "spec.job.spec.activeDeadlineSeconds",
            "from 1 to",
        ),
        (
            "ttlSecondsAfterFinished: 30",
            "ttlSecondsAfterFinished: -1",
            "spec.job.spec.ttlSecondsAfterFinished",
            "from 0 to",
        ),
        ("backoffLimit: 0", "parallelism: 2", "spec.job.spec.parallelism", "from 1 to 1"),
        ("backoffLimit: 0", "suspend: true", "spec.job.spec.suspend", "starts with its event"),
        ("backoffLimit: 0", "completionMode: Indexed", "spec.job.spec.completionMode", "NonIndexed is"),
        (
            "backoffLimit: 0",
            "podFailurePolicy: {rules: []}",
            "spec.job.spec.podFailurePolicy",
            "backoffLimit counts",
        ),
        (
            "restartPolicy: Never",
            "restartPolicy: OnFailure",
            "spec.job.spec.template.spec.restartPolicy",
            "Never is",
        ),
        (
            "restartPolicy: Never",
            "hostNetwork: true",
            "spec.job.spec.template.spec",
            "restartPolicy is missing",
        ),
        (
            "restartPolicy: Never",
            "hostNetwork: true",
            "spec.job.spec.template.spec.hostNetwork",
            "nothing is ignored",
        ),
        (
            "{name: K_SINK, value: \"http://cluster\"}",
            "{name: K_EVENT_PATH, value: /x}",
            "spec.job.spec.template.spec.containers[0].env[0].name",
            "set by Knative",
        ),
        (
            "containers: [{name: work, image",
            "containers: [{image",
            "spec.job.spec.template.spec.containers[0]",
            "name is missing",
        ),
        ("schedule: \"*/5 * * * *\"", "schedule: \"@daily\"", "spec.schedule", "five fields"),
        ("schedule: \"*/5 * * * *\"", "schedule: \"0 0 0 * * *\"", "spec.schedule", "five fields"),
        ("schedule: \"*/5 * * * *\"", "schedule: \"99 * * * *\"", "spec.schedule", "is no minute"),
        ("schedule: \"*/5 * * * *\"", "schedule: \"0 0 31 2 *\"", "spec.schedule", "never comes"),
        ("timezone: Europe/Berlin", "timezone: Mars/Olympus", "spec.timezone", "IANA"),
        ("timezone: Europe/Berlin", "timezone: ../etc/passwd", "spec.timezone", "IANA"),
        ("'{\"a\": 1}'", "'{\"a\": '", "spec.data", "is no JSON"),
        ("contentType: application/json", "contentType: json", "spec.contentType", "is no content type"),
        ("  contentType: application/json", "  ceOverrides: {}", "spec.ceOverrides", "filter on the type"),
        (
            "kind: Broker, name: main, namespace: ns}",
            "kind: Broker, name: other}",
            "spec.sink.ref",
            "not in the set",
        ),
    ]);
    let large = format!("data: \"{}\"", "x".repeat(65_537));
    check(&[("data: '{\"a\": 1}'", &large, "spec.data", "at most 65536")]);
}

#[test]
fn objects_and_yaml() {
    check(&[
        ("kind: ServiceAccount", "kind: Pod", "", "v1 Pod is not read"),
        (
            "apiVersion: sources.knative.dev/v1\n",
            "apiVersion: sources.knative.dev/v1beta2\n",
            "",
            "is not read",
        ),
        (
            "apiVersion: v1\nkind: ServiceAccount",
            "kind: ServiceAccount",
            "",
            "apiVersion and kind are missing",
        ),
        (
            "kind: ServiceAccount\n",
            "kind: ServiceAccount\nstatus: {a: 1}\n",
            "status",
            "written by the cluster",
        ),
        (
            "metadata: {name: robot, namespace: ns}",
            "metadata: {name: robot, name: robot}",
            "",
            "duplicate key \"name\"",
        ),
        ("metadata: {name: robot, namespace: ns}", "metadata: [", "", "is no YAML"),
        ("metadata: {name: robot, namespace: ns}", "metadata: !x {name: robot}", "", "without a tag"),
        (
            "metadata: {name: robot, namespace: ns}",
            "metadata: robot",
            "metadata",
            "a text where a mapping belongs",
        ),
    ]);
}

#[test]
fn all_faults_are_said_at_once_with_their_lines() {
    let text = SMALL
        .replace("retry: 3", "retry: 300")
        .replace("timeoutSeconds: 20", "timeoutSeconds: 2000")
        .replace("restartPolicy: Never", "restartPolicy: Always");
    let errors = read_text(&text).unwrap_err();
    let line = |part: &str| text.lines().position(|line| line.contains(part)).unwrap() + 1;
    let found: Vec<(usize, &str)> =
        errors.faults.iter().map(|fault| (fault.line.unwrap(), fault.object.as_str())).collect();
    let mut wanted = [
        (line("retry: 300"), "Broker/main"),
        (line("timeoutSeconds: 2000"), "Service/web"),
        (line("restartPolicy: Always"), "JobSink/work"),
    ];
    wanted.sort_unstable();
    assert_eq!(
        {
            let mut found = found;
            found.sort_unstable();
            found
        },
        wanted,
        "{errors}"
    );
    let shown = errors.to_string();
    assert!(
        shown.contains("set.yaml:6: document 1: Broker/main: spec.delivery.retry: 300 is not from 0 to 100"),
        "{shown}"
    );
}

#[test]
fn a_flood_of_faults_is_counted_and_ends() {
    let fields: String = (0..20_000).map(|index| format!("f{index}: 1\n")).collect();
    let errors = read_text(&format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: a}}\n{fields}"))
        .unwrap_err();
    assert_eq!((errors.faults.len(), errors.more), (100, 19_900));
    assert!(errors.to_string().ends_with("and 19900 more"), "{}", errors.faults.len());
}

#[test]
fn files_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("large.yaml"), "#".repeat(1024 * 1024 + 1)).unwrap();
    fs::write(root.join("latin.yaml"), [b'a', b':', b' ', 0xe4]).unwrap();
    fs::write(root.join("blank.yaml"), "# nothing\n---\n").unwrap();
    for (name, text) in [
        ("patched", "resources: [set.yaml]\npatches: []\n"),
        ("above", "resources: [../set.yaml]\n"),
        ("remote", "resources: [\"https://example.com/set.yaml\"]\n"),
        ("absent", "resources: [gone.yaml]\n"),
        ("round", "resources: [../round]\n"),
    ] {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("set.yaml"), SMALL).unwrap();
        fs::write(root.join(name).join("kustomization.yaml"), text).unwrap();
    }
    fs::write(root.join("set.yaml"), SMALL).unwrap();
    for (name, field, said) in [
        ("nowhere.yaml", "", "cannot be read"),
        ("empty", "", "has no *.yaml"),
        ("large.yaml", "", "1 MiB"),
        ("latin.yaml", "", "UTF-8"),
        ("blank.yaml", "", "no object"),
        ("patched", "patches", "nothing is ignored"),
        ("above", "resources[0]", "above this folder"),
        ("remote", "resources[0]", "nothing is fetched"),
        ("absent", "resources[0]", "is not there"),
        ("round", "", "no object"),
    ] {
        expect(&read_paths(&[root.join(name)]).expect_err(name), field, said, name);
    }
    let fifo = root.join("pipe.yaml");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    expect(&read_paths(&[fifo]).unwrap_err(), "", "no regular file", "fifo");
}

#[test]
fn too_much_code_is_a_fault_of_the_container() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("set.yaml"), SMALL).unwrap();
    fs::File::create(folder.path().join("data.bin")).unwrap().set_len(48 * 1024 * 1024 + 1).unwrap();
    let errors = read_paths(&[folder.path().to_owned()]).unwrap_err();
    expect(&errors, "spec.template.spec.containers[0]", "48 MiB", "code");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Bytes cut out, doubled or replaced at will: an answer comes, a pipeline or faults, and no panic.
    #[test]
    fn whatever_is_done_to_a_set_an_answer_comes(
        start in 0..SMALL.len(), length in 0..200_usize, with in "[a-z0-9:{}\\[\\]&*!|>'\"#,\\- \n\t]{0,40}", twice: bool,
    ) {
        let end = (start + length).min(SMALL.len());
        let kept = if twice { &SMALL[start..end] } else { "" };
        let text = format!("{}{kept}{with}{kept}{}", &SMALL[..start], &SMALL[end..]);
        if let Err(errors) = read_text(&text) {
            prop_assert!(!errors.faults.is_empty() && !errors.to_string().is_empty());
        }
    }
}
