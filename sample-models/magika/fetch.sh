#!/bin/sh
# Lays out the magika bundle in the folder DEST: the model and what its clients need from the wheel pinned in
# third_party/magika.txt, the other parts from this folder.
#
#   sample-models/magika/fetch.sh [DEST]     (default: .cache/models/magika)
#
# Uses no network when the model is there. pip checks the wheel; the model's own digest is that of provenance.json, so
# that a file which was damaged or replaced later is found too. The model comes last and under its final name only when
# it is whole, so an interrupted run leaves nothing that looks finished.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
dest=${1:-$root/.cache/models/magika}

fail() {
    echo "fetch magika: $*" >&2
    exit 1
}

command -v python3 >/dev/null || fail "python3 is missing; on Debian and Ubuntu: apt-get install python3 python3-venv"

mkdir -p "$dest"
dest=$(cd "$dest" && pwd)

# is_model FILE - is it the file that provenance.json names?
is_model() {
    [ -f "$1" ] && python3 - "$1" "$here/provenance.json" <<'PYTHON'
import hashlib, json, sys
model, provenance = sys.argv[1:]
with open(provenance) as record, open(model, "rb") as content:
    sys.exit(json.load(record)["source"]["digest"] != "sha256:" + hashlib.sha256(content.read()).hexdigest())
PYTHON
}

cp "$here/baton.toml" "$here/golden.jsonl" "$here/provenance.json" "$dest"

if is_model "$dest/model.onnx" && [ -s "$dest/config.min.json" ] && [ -s "$dest/content_types_kb.min.json" ]; then
    # Else make would come back each time that the pin is younger.
    touch "$dest/model.onnx"
    exit 0
fi

# Inside DEST, so that the last step is a rename inside one file system.
work=$(mktemp -d "$dest/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

python=python3
if ! $python -m pip --version >/dev/null 2>&1; then
    # Debian's python3 comes without pip; a virtual environment brings its own where ensurepip is installed.
    $python -m venv "$work/venv" >"$work/venv.log" 2>&1 ||
        fail "python3 has neither pip nor a working venv; on Debian and Ubuntu: apt-get install python3-venv"
    python=$work/venv/bin/python3
fi

echo "fetching the magika model" >&2
$python -m pip download --quiet --disable-pip-version-check \
    --no-deps --only-binary :all: --require-hashes --platform any \
    -r "$root/third_party/magika.txt" -d "$work" >&2

# unzip may be missing; Python is there.
$python - "$work"/magika-*.whl "$work" <<'PYTHON'
import pathlib, sys, zipfile
wheel, work = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    for member in (
        "magika/models/standard_v3_3/model.onnx",
        "magika/models/standard_v3_3/config.min.json",
        "magika/config/content_types_kb.min.json",
    ):
        pathlib.Path(work, pathlib.PurePosixPath(member).name).write_bytes(archive.read(member))
PYTHON

is_model "$work/model.onnx" || fail "the wheel holds another model than provenance.json says"
chmod 644 "$work"/*.json "$work/model.onnx"
mv "$work/config.min.json" "$work/content_types_kb.min.json" "$dest"
mv "$work/model.onnx" "$dest/model.onnx"
