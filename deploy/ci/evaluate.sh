#!/bin/sh
# Hands a trained model to a pipeline, which compares it with the one that is served and deploys it only if it is better:
#
#   evaluate.sh MODEL FOLDER HOLDOUT.csv [LABEL]
#
# FOLDER has the parts of the bundle, as train.py writes them; HOLDOUT has rows that were not trained on (docs/ci.md). LABEL is the
# column to predict, if FOLDER/provenance.json does not say. BATON_ARTIFACTS: the pipeline's store, a folder or s3://bucket/prefix
# (then with AWS's command line); K_SINK: where it takes events; BATON_PIPELINE_TOKEN: its token, if it asks for one. Needs jq, curl.
set -eu
model=$1 folder=$2 holdout=$3 label=${4:-}
store=${BATON_ARTIFACTS#file://}
store=${store%/}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Creates a blob under its digest, if there is none, and prints the reference to it.
put() {
  hex=$(sha256sum <"$1" | cut -d ' ' -f 1)
  case $store in
  s3://*)
    path=${store#s3://}/blobs/sha256/$hex
    aws s3api head-object --bucket "${path%%/*}" --key "${path#*/}" >/dev/null 2>&1 \
      || aws s3api put-object --bucket "${path%%/*}" --key "${path#*/}" --body "$1" --if-none-match '*' >/dev/null \
      || return
    ;;
  *)
    if [ ! -e "$store/blobs/sha256/$hex" ]; then
      # Whole or not at all: a rename happens at once.
      mkdir -p "$store/blobs/sha256" && cp "$1" "$store/blobs/sha256/$hex#$$" &&
        mv "$store/blobs/sha256/$hex#$$" "$store/blobs/sha256/$hex" || return
    fi
    ;;
  esac
  printf '{"digest":"sha256:%s","size":%d}' "$hex" "$(wc -c <"$1")"
}

parts={}
for name in model.onnx model.so contract.proto baton.toml golden.jsonl provenance.json outlier.onnx; do
  [ -f "$folder/$name" ] || continue
  reference=$(put "$folder/$name")
  parts=$(printf %s "$parts" | jq -c --arg name "$name" --argjson reference "$reference" '.[$name] = $reference')
done
known={}
[ ! -f "$folder/provenance.json" ] || known=$(cat "$folder/provenance.json")
held=$(put "$holdout")
printf %s "$known" | jq -c --arg model "$model" --arg column "$label" --argjson parts "$parts" --argjson holdout "$held" \
  '{model: $model, parts: $parts, holdout: $holdout, label: (if $column == "" then .label else $column end), features, classes,
    dataset: .dataset.name?, dataset_digest: .dataset.digest?} | with_entries(select(.value != null))' >"$scratch/bundle.json"
bundle=$(put "$scratch/bundle.json")
jq -n --arg model "$model" --argjson bundle "$bundle" --argjson holdout "$held" \
  '{specversion: "1.0", id: $bundle.digest, source: "/ci", type: "dev.baton.artifact.pushed.v1", subject: $model,
    datacontenttype: "application/json", data: {model: $model, bundle: $bundle, holdout: $holdout}}' >"$scratch/event.json"
set --
[ -z "${BATON_PIPELINE_TOKEN:-}" ] || set -- -H "Authorization: Bearer $BATON_PIPELINE_TOKEN"
curl --silent --show-error --fail-with-body --retry 10 --retry-connrefused --retry-max-time 300 \
  -H 'content-type: application/cloudevents+json' --data-binary "@$scratch/event.json" "$@" "$K_SINK"
printf '\nbundle %s\n' "$(printf %s "$bundle" | jq -r .digest)"
