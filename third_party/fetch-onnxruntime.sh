#!/bin/sh
# Puts the pinned ONNX Runtime library at DEST (default: .cache/onnxruntime/libonnxruntime.so.<version>), its licence beside it.
#
#   third_party/fetch-onnxruntime.sh [DEST]
#
# Does nothing when DEST is there. pip checks the wheel against the hash in onnxruntime.txt; the library appears under its final
# name only when it is complete, so an interrupted run leaves nothing that looks finished.
# Not done in a build script: a build that downloads breaks `cargo build --offline` and sandboxes.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
pin=$here/onnxruntime.txt
version=$(sed -n 's/^onnxruntime==\([0-9.]*\).*/\1/p' "$pin")
library=libonnxruntime.so.$version
dest=${1:-$(dirname "$here")/.cache/onnxruntime/$library}

fail() {
    echo "fetch-onnxruntime: $*" >&2
    exit 1
}

[ -s "$dest" ] && exit 0

[ "$(uname -s)" = Linux ] || fail "only the Linux library is pinned; on $(uname -s) set ORT_DYLIB_PATH to a library of your own (1.24 or newer)"
case $(uname -m) in
    x86_64 | amd64) arch=x86_64 ;;
    aarch64 | arm64) arch=aarch64 ;;
    *) fail "no wheel is pinned for $(uname -m); set ORT_DYLIB_PATH to a library of your own (1.24 or newer)" ;;
esac

command -v python3 >/dev/null || fail "python3 is missing; on Debian and Ubuntu: apt-get install python3 python3-venv"

mkdir -p "$(dirname "$dest")"
dest=$(cd "$(dirname "$dest")" && pwd)/$(basename "$dest")
# Beside DEST, so that the last step is a rename inside one file system.
work=$(mktemp -d "$dest.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

python=python3
if ! $python -m pip --version >/dev/null 2>&1; then
    # Debian's python3 comes without pip; a virtual environment brings its own where ensurepip is installed.
    $python -m venv "$work/venv" >"$work/venv.log" 2>&1 ||
        fail "python3 has neither pip nor a working venv; on Debian and Ubuntu: apt-get install python3-venv"
    python=$work/venv/bin/python3
fi

echo "fetching ONNX Runtime $version for $arch" >&2
$python -m pip download --quiet --disable-pip-version-check \
    --no-deps --only-binary :all: --require-hashes \
    --platform "manylinux_2_28_$arch" --python-version 3.12 --implementation cp \
    -r "$pin" -d "$work" >&2

# `python3 -m zipfile -e` would unpack the whole wheel and unzip may be missing; only the library is wanted, and its licence,
# which has to travel with every copy that is handed on (the container image).
$python - "$work"/onnxruntime-*.whl "$library" "$work" <<'PYTHON'
import shutil, sys, zipfile
wheel, library, work = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    for target, members in {
        library: [f"onnxruntime/capi/{library}"],
        "licence.txt": ["onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt"],
    }.items():
        with open(f"{work}/{target}", "wb") as sink:
            for member in members:
                with archive.open(member) as source:
                    shutil.copyfileobj(source, sink)
PYTHON

chmod 644 "$work/$library" "$work/licence.txt"
mv "$work/licence.txt" "$dest.licence.txt"
mv "$work/$library" "$dest"
