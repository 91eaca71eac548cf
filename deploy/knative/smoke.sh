#!/usr/bin/env bash
# Sends a dataset through the pipeline of a cluster and waits for `model.deployed`.
#
#   SMOKE_FILE=digits.csv deploy/knative/smoke.sh
#
# KUBECONFIG and the current context say which cluster. If the namespace `baton` is not there, the set is applied and the namespace
# deleted in the end; if it is there, the pipeline in it is used as it is. Only what this script made is taken away.
#
#   SMOKE_FILE               CSV of the dataset `digits`, at most 900 KiB
#   SMOKE_SECONDS            how long to wait for the model, 900
#   SMOKE_ACCESS_KEY_ID, SMOKE_SECRET_ACCESS_KEY
#                            keys for the store, if the Secret baton-store is to be made
#   SMOKE_KEEP=1             leave everything where it is, to look at it
#
# Ends with 0 for a deployed model, 1 for a refused one or none in time, 64 for wrong usage.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
file=${SMOKE_FILE:-}
seconds=${SMOKE_SECONDS:-900}
namespace=baton
made_namespace=no
label=app.kubernetes.io/part-of=baton-smoke

usage() { echo "smoke: $*" >&2; exit 64; }
[ -f "$file" ] && [ -r "$file" ] || usage "SMOKE_FILE names no file that can be read"
[ "$(stat -c %s "$file")" -le 921600 ] || usage "$file has more than 900 KiB, which no ConfigMap holds"
[[ $seconds =~ ^[0-9]+$ ]] || usage "SMOKE_SECONDS is no number"
[ -z "${SMOKE_ACCESS_KEY_ID:-}" ] || [ -n "${SMOKE_SECRET_ACCESS_KEY:-}" ] || usage "SMOKE_SECRET_ACCESS_KEY is missing"
answer=$(kubectl --request-timeout=10s version 2>&1) || usage "no cluster answers (KUBECONFIG says which): ${answer##*$'\n'}"
for kind in brokers.eventing.knative.dev services.serving.knative.dev jobsinks.sinks.knative.dev; do
    answer=$(kubectl --request-timeout=10s get crd "$kind" 2>&1) ||
        usage "the cluster has no $kind (Knative Serving and Eventing are needed): ${answer##*$'\n'}"
done

kube() { kubectl --namespace "$namespace" "$@"; }

clean_up() {
    code=$?
    trap - EXIT
    if [ "$code" -ne 0 ]; then
        for what in "get broker,trigger,ksvc,jobsink,job,pod" "get events --sort-by=.lastTimestamp" \
            "logs smoke-push" "logs --selector app.kubernetes.io/component=trainer --tail=50"; do
            # shellcheck disable=SC2086 # words on purpose
            kube $what >&2 || true
        done
    fi
    if [ "${SMOKE_KEEP:-}" = 1 ]; then
        echo "smoke: left in the namespace $namespace" >&2
    elif [ "$made_namespace" = yes ]; then
        kubectl delete namespace "$namespace" --wait=false >/dev/null 2>&1 || true
    else
        kube delete trigger,pod,service,networkpolicy,configmap --selector "$label" --wait=false >/dev/null 2>&1 || true
    fi
    exit "$code"
}

if kubectl get namespace "$namespace" >/dev/null 2>&1; then
    echo "smoke: the namespace $namespace is there: its pipeline is used as it is"
    if [ -n "$(kube get pod,trigger --selector "$label" --output name)" ]; then
        usage "another smoke test runs, or left something: kubectl -n $namespace delete trigger,pod,service,networkpolicy,configmap -l $label"
    fi
    trap clean_up EXIT
else
    trap clean_up EXIT
    kubectl create -f "$here/namespace.yaml"
    made_namespace=yes
    # Through a pipe: what is on a command line, everybody on this machine can read.
    secret() {
        printf 'apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\ndata: {%s: %s, %s: %s}\n' \
            "$1" "$2" "$(printf %s "$3" | base64 -w0)" "$4" "$(printf %s "$5" | base64 -w0)" | kube create -f -
    }
    secret baton-token token "$(head -c 32 /dev/urandom | base64 -w0)" data-token "$(head -c 32 /dev/urandom | base64 -w0)"
    if [ -n "${SMOKE_ACCESS_KEY_ID:-}" ]; then
        secret baton-store access-key-id "$SMOKE_ACCESS_KEY_ID" secret-access-key "$SMOKE_SECRET_ACCESS_KEY"
    fi
    kubectl apply -k "$here"
fi

echo "smoke: waiting for the pipeline"
for objects in broker/default jobsink/train "trigger --all" "ksvc --all"; do
    # shellcheck disable=SC2086 # two words on purpose
    kube wait --for=condition=Ready --timeout=300s $objects
done
kube rollout status deployment/runner --timeout=300s

broker=$(kube get broker default --output 'jsonpath={.status.address.url}')
image=$(kube get ksvc validate --output 'jsonpath={.spec.template.spec.containers[0].image}')
trainer=$(kube get jobsink train --output 'jsonpath={.spec.job.spec.template.spec.containers[0].image}')
sink=$(kube get jobsink train --output 'jsonpath={.spec.job.spec.template.spec.containers[0].env[?(@.name=="K_SINK")].value}')
[ "$sink" = "$broker" ] || { echo "smoke: train.yaml has K_SINK $sink, the Broker is at $broker" >&2; exit 1; }

kube create configmap smoke-data --from-file=data.csv="$file"
kube label configmap smoke-data "$label"
objects=$(sed -e "s|BATON_IMAGE|$image|; s|TRAINER_IMAGE|$trainer|; s|BROKER_URL|$broker|" "$here/smoke/objects.yaml")
# The watcher first, so that it misses nothing.
select_objects() { awk -v RS='---\n' -v push="$1" '(/name: smoke-push/ ? "yes" : "no") == push { print "---"; print }' <<<"$objects"; }
select_objects no | kube create -f -
kube wait --for=condition=Ready --timeout=120s pod/smoke-watch trigger/smoke-watch
select_objects yes | kube create -f -
phase=Pending
for ((tries = 0; tries < 90; tries++)); do
    phase=$(kube get pod smoke-push --output 'jsonpath={.status.phase}')
    case $phase in Succeeded | Failed) break ;; esac
    sleep 2
done
[ "$phase" = Succeeded ] || { echo "smoke: the push did not succeed: its pod is $phase" >&2; exit 1; }

echo "smoke: the dataset is pushed; waiting up to $seconds s for the model"
end=$((SECONDS + seconds))
while [ "$SECONDS" -lt "$end" ]; do
    events=$(kube logs smoke-watch)
    for type in model.deployed model.rejected training.failed dataset.rejected; do
        if grep -q "^EVENT dev\.baton\.${type//./\\.}\.v1 digits$" <<<"$events"; then
            printf '%s\n' "$events"
            echo "smoke: $type"
            [ "$type" = model.deployed ] && exit 0
            exit 1
        fi
    done
    sleep 2
done
printf '%s\n' "$events" >&2
echo "smoke: no model within $seconds s" >&2
exit 1
