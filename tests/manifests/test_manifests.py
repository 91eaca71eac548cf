"""The manifests as a cluster would judge them: kustomize, the schemas of Kubernetes, the models of Knative.

Needs the environment of requirements-pipeline.txt and kubectl, but no server and no cluster:

    .venv/pipeline/bin/python -m pytest tests/manifests

kubernetes-validate is strict. The Knative models (cloudcoil) take unknown fields and forget them; hence each object is read and
written again, and must come out as it went in.
"""

import copy
import os
import pathlib
import shutil
import subprocess
import warnings

import kubernetes_validate
import pydantic
import pytest
import yaml

with warnings.catch_warnings():
    # The models' Channel has a field that shadows its parent's.
    warnings.simplefilter("ignore", UserWarning)
    from cloudcoil.models.knative_eventing.eventing import v1 as eventing
    from cloudcoil.models.knative_eventing.eventing import v1alpha1 as eventing_alpha
    from cloudcoil.models.knative_eventing.sinks import v1alpha1 as sinks
    from cloudcoil.models.knative_eventing.sources import v1 as sources
    from cloudcoil.models.knative_serving.serving import v1 as serving

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "deploy" / "knative"
SAMPLE = ROOT / "pipeline" / "sample" / "digits" / "pipeline.yaml"
KUBERNETES = "1.36"

KNATIVE = {
    ("eventing.knative.dev/v1", "Broker"): eventing.Broker,
    ("eventing.knative.dev/v1", "Trigger"): eventing.Trigger,
    ("eventing.knative.dev/v1alpha1", "EventPolicy"): eventing_alpha.EventPolicy,
    ("serving.knative.dev/v1", "Service"): serving.Service,
    ("sinks.knative.dev/v1alpha1", "JobSink"): sinks.JobSink,
    ("sources.knative.dev/v1", "PingSource"): sources.PingSource,
}


def kustomized():
    """The objects of deploy/knative as `kubectl apply -k` sends them."""
    result = subprocess.run(["kubectl", "kustomize", str(CLUSTER)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def objects():
    found = []
    if shutil.which("kubectl"):
        found += [("deploy/knative", document) for document in kustomized()]
    for source, path in (("sample", SAMPLE), ("smoke", CLUSTER / "smoke" / "objects.yaml")):
        found += [(source, document) for document in yaml.safe_load_all(path.read_text()) if document]
    return found


def name_of(document):
    return f"{document['kind']}/{document['metadata']['name']}"


def complaints(document):
    """What the schemas say against an object; empty if nothing."""
    key = (document["apiVersion"], document["kind"])
    if key not in KNATIVE:
        return kubernetes_complaints(document)
    try:
        model = KNATIVE[key].model_validate(document)
    except pydantic.ValidationError as error:
        return [str(error)]
    written = model.model_dump(by_alias=True, exclude_unset=True, mode="json")
    found = differences(document, written, "")
    if document["kind"] == "JobSink":
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, **document["spec"]["job"]}
        found += kubernetes_complaints(job)
    return found


def kubernetes_complaints(document):
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        return [str(error)]
    return []


def differences(given, written, path):
    """Fields that were given and not written again, at any depth. What a job is, Knative's own schema leaves open."""
    if path == ".spec.job":
        return []
    if isinstance(given, dict) and isinstance(written, dict):
        found = [f"{path}.{key} is not known" for key in given if key not in written]
        for key in given.keys() & written.keys():
            found += differences(given[key], written[key], f"{path}.{key}")
        return found
    if isinstance(given, list) and isinstance(written, list):
        found = [] if len(given) == len(written) else [f"{path} has another length"]
        for index, (left, right) in enumerate(zip(given, written)):
            found += differences(left, right, f"{path}[{index}]")
        return found
    return [] if given == written else [f"{path} is {written!r} in place of {given!r}"]


@pytest.mark.parametrize("document", [pytest.param(d, id=f"{s}:{name_of(d)}") for s, d in objects()])
def test_a_cluster_takes_the_object(document):
    assert complaints(document) == []


@pytest.mark.parametrize("kind", ["Broker", "Trigger", "Service", "JobSink", "PingSource", "EventPolicy", "Deployment"])
def test_a_misspelt_field_would_be_found(kind):
    """The check itself can fail, at every depth it claims to look at."""
    document = next(d for _, d in objects() if d["kind"] == kind and d["apiVersion"] != "v1")
    broken = copy.deepcopy(document)
    place = broken["spec"]
    if kind in ("Service", "Deployment"):
        place = place["template"]["spec"]["containers"][0]
    elif kind == "JobSink":
        place = place["job"]["spec"]["template"]["spec"]["containers"][0]
    place["imagePulPolicy"] = "Always"
    assert complaints(broken), kind


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_the_set_is_whole():
    found = kustomized()
    names = [name_of(document) for document in found]
    assert len(names) == len(set(names)), names
    # No secret is in the set, and everything but the namespace is in it.
    assert not [name for name in names if name.startswith("Secret/")]
    assert {d["metadata"].get("namespace") for d in found if d["kind"] != "Namespace"} == {"baton"}
    settings = {d["metadata"]["name"]: d["data"] for d in found if d["kind"] == "ConfigMap"}
    accounts = {d["metadata"]["name"] for d in found if d["kind"] == "ServiceAccount"}
    for document in found:
        for pod in pods(document):
            assert pod["serviceAccountName"] in accounts, name_of(document)
            for container in pod["containers"]:
                check_references(container, settings, name_of(document))


def check_references(container, settings, name):
    for entry in container.get("env", []):
        reference = entry.get("valueFrom", {}).get("configMapKeyRef")
        if reference:
            assert reference["key"] in settings[reference["name"]], (name, entry)
    for source in container.get("envFrom", []):
        assert source["configMapRef"]["name"] in settings, name


def pods(document):
    """Pod specs inside an object."""
    spec = document.get("spec", {})
    if document["kind"] == "JobSink":
        spec = spec["job"]["spec"]
    pod = spec.get("template", {}).get("spec")
    return [pod] if pod else []


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_every_pod_keeps_to_the_restricted_standard():
    """What the namespace's label pod-security.kubernetes.io/enforce: restricted asks for, and limits."""
    checked = 0
    for document in kustomized():
        for pod in pods(document):
            pod_context = pod.get("securityContext", {})
            assert pod["automountServiceAccountToken"] is False, name_of(document)
            for container in pod["containers"]:
                context = {**pod_context, **container["securityContext"]}
                assert context["allowPrivilegeEscalation"] is False, name_of(document)
                assert context["capabilities"] == {"drop": ["ALL"]}, name_of(document)
                assert context["readOnlyRootFilesystem"] is True, name_of(document)
                assert context["runAsNonRoot"] is True and context["runAsUser"] > 0, name_of(document)
                assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name_of(document)
                assert {"cpu", "memory"} <= container["resources"]["limits"].keys(), name_of(document)
                checked += 1
    assert checked == 7


FAKE_KUBECTL = """#!/bin/bash
case "$*" in
*"get namespace baton"*) exit 1 ;;
*"get crd"*) [ -z "$FAKE_BARE" ] || { echo 'Error from server: no such crd' >&2; exit 1; } ;;
*"get broker,trigger"*) echo "STATE of the objects" ;;
*"get events"*) echo "EVENTS of the namespace" ;;
*"get pod smoke-push"*) echo -n Failed ;;
*"logs smoke-push"*) echo "LOG of the push" ;;
*"delete namespace"*) echo deleted >>"$FAKE_LOG" ;;
*"create -f -"*) cat >/dev/null ;;
esac
"""


@pytest.fixture(name="smoke")
def fixture_smoke(tmp_path):
    """Runs smoke.sh with a kubectl that answers as a cluster where the push fails. Second value: whether the namespace was deleted."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(FAKE_KUBECTL)
    kubectl.chmod(0o755)
    (tmp_path / "digits.csv").write_text("a,b\n1,2\n")

    def run(**variables):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SMOKE_FILE": str(tmp_path / "digits.csv"),
            "FAKE_LOG": str(log),
            **variables,
        }
        result = subprocess.run(
            [str(CLUSTER / "smoke.sh")], env=environment, capture_output=True, text=True, timeout=60
        )
        return result, log.exists()

    return run


def test_a_failed_smoke_test_shows_why_before_it_cleans_up(smoke):
    result, deleted = smoke()
    assert result.returncode == 1, result.stderr
    for part in ("its pod is Failed", "STATE of the objects", "EVENTS of the namespace", "LOG of the push"):
        assert part in result.stderr, result.stderr
    assert deleted
    kept, deleted = smoke(SMOKE_KEEP="1")
    assert kept.returncode == 1 and not deleted, kept.stderr


def test_the_smoke_test_says_what_kubectl_said(smoke):
    result, deleted = smoke(FAKE_BARE="1")
    assert result.returncode == 64 and "no such crd" in result.stderr, result.stderr
    result, deleted = smoke(SMOKE_ACCESS_KEY_ID="x")
    assert result.returncode == 64 and "SMOKE_SECRET_ACCESS_KEY" in result.stderr and not deleted, result.stderr
    result, deleted = smoke(SMOKE_FILE="/tmp")
    assert result.returncode == 64 and not deleted, result.stderr
