#!/bin/sh
# A trainer in any language, without the Python helper:
#
#   sh train.sh PROGRAM [ARGUMENT...]
#
# runs PROGRAM [ARGUMENT...] TRAINING.csv LABEL FOLDER, which writes model.onnx (or model.so) and other parts of the bundle into FOLDER,
# and does the rest of docs/pipeline-training.md, "Without the helper". For a store in a folder; needs curl and jq.
set -eu
event=$K_EVENT_PATH/event
# A revision is NAME-DIGEST.
export job="${K_REVISION%-*}"
store=${BATON_ARTIFACTS#file://}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Creates a blob under its digest, if there is none, and prints the reference to it.
put() {
  hex=$(sha256sum <"$1" | cut -d ' ' -f 1)
  if [ ! -e "$store/blobs/sha256/$hex" ]; then
    # Whole or not at all: a rename happens at once.
    mkdir -p "$store/blobs/sha256" && cp "$1" "$store/blobs/sha256/$hex#$$" &&
      mv "$store/blobs/sha256/$hex#$$" "$store/blobs/sha256/$hex" || return
  fi
  printf '{"digest":"sha256:%s","size":%d}' "$hex" "$(wc -c <"$1")"
}

# say KIND JSON: answers the event. The id follows from it, so that a job that is started again says nothing new.
say() {
  id=$(jq -j --arg kind "$1" '[.source, .id, env.job, env.K_REVISION, $kind] | join("\u0000")' "$event" |
    sha256sum | cut -d ' ' -f 1)
  jq --arg id "$id" --arg kind "$1" --arg started "$started" --argjson more "$2" \
    '{specversion: "1.0", $id, source: "/baton/jobs/\(env.job)", type: "dev.baton.\($kind).v1", subject: .data.model,
      datacontenttype: "application/json", pipelinerun: .pipelinerun,
      data: ({run: .pipelinerun, model: .data.model, dataset: .data.dataset, dataset_digest: .data.digest, $started} + $more)}' \
    "$event" >"$scratch/answer.json"
  curl --silent --show-error --fail-with-body --retry 10 --retry-connrefused --retry-max-time 300 \
    -H 'content-type: application/cloudevents+json' --data-binary "@$scratch/answer.json" "$K_SINK"
}

started=$(date -u +%Y-%m-%dT%H:%M:%SZ)
training=$(jq -r '.data.training.digest | ltrimstr("sha256:")' "$event")
label=$(jq -r '.data.label // env.BATON_LABEL' "$event")
say training.started '{}'
cp "$store/blobs/sha256/$training" "$scratch/training.csv"
echo "$training  $scratch/training.csv" | sha256sum --check --quiet
mkdir "$scratch/out"
if ! "$@" "$scratch/training.csv" "$label" "$scratch/out" 2>"$scratch/error"; then
  cat "$scratch/error" >&2
  say training.failed "$(tail -c 2000 "$scratch/error" | jq -Rs '{reason: "error", error: .}')"
  exit 1
fi

parts={}
for name in model.onnx model.so contract.proto baton.toml golden.jsonl provenance.json; do
  [ -f "$scratch/out/$name" ] || continue
  reference=$(put "$scratch/out/$name")
  parts=$(printf %s "$parts" | jq -c --arg name "$name" --argjson reference "$reference" '.[$name] = $reference')
done
jq -c --argjson parts "$parts" --arg column "$label" \
  '{model: .data.model, $parts, run: .pipelinerun, dataset: .data.dataset, dataset_digest: .data.digest, label: $column,
    features: .data.features, holdout: .data.holdout, report: .data.report} | with_entries(select(.value != null))' \
  "$event" >"$scratch/bundle.json"
bundle=$(put "$scratch/bundle.json")
say training.finished "$(jq --argjson bundle "$bundle" --arg finished "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
  '{$bundle, $finished, metrics: {}, holdout: .data.holdout, report: .data.report}' "$event")"
