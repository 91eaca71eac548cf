#!/bin/sh
# Builds the container image and uses it as a person would: start, push, call, swap, restart, stop; once more with a read-only
# root, and under a user id that the image does not know. `make docker-test` calls this.
#
# Needs docker, curl, python3. Stops at the first failure, shows the container's log, and removes the containers and volumes that it
# made (never an image, so that the next run is quick).
set -eu
cd "$(dirname "$0")/../.."

image=baton:test
name=baton-test-$$
passed=0
work=$(mktemp -d)

finish() {
    code=$?
    docker rm -f -v "$name" "$name-read-only" "$name-any-user" >/dev/null 2>&1 || true
    docker volume rm -f "$name" "$name-any-user" >/dev/null 2>&1 || true
    rm -rf "$work"
    # Any way out but the last line is a failure.
    if [ "$code" = 0 ]; then echo "$passed passed, 0 failed"; else echo "$passed passed, 1 failed"; fi
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# check WHAT COMMAND... - one PASS or FAIL line; a failure shows what the command and the container of this step said.
# `set -e` does not hold inside COMMAND (it is a condition), so the functions below chain their steps themselves.
check() {
    what=$1
    shift
    if "$@" >"$work/output" 2>&1; then
        echo "PASS  $what"
        passed=$((passed + 1))
    else
        echo "FAIL  $what"
        tail -n 40 "$work/output"
        if docker logs "${container:-}" >"$work/log" 2>&1; then
            echo "--- last lines of the container's log"
            tail -n 40 "$work/log"
        fi
        exit 1
    fi
}

build() {
    # The engine's older builder keeps the container of a step that fails, unless it is told not to.
    set -- --force-rm
    # Without a value docker takes what the environment has, and drops the argument when there is nothing.
    for setting in HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy PIP_INDEX_URL; do
        set -- "$@" --build-arg "$setting"
    done
    # What this machine trusts beside the public authorities (a company's proxy), the build has to trust too.
    extra_ca=$(cat /usr/local/share/ca-certificates/*.crt 2>/dev/null || true)
    [ -z "$extra_ca" ] || set -- "$@" --build-arg "EXTRA_CA=$extra_ca"
    docker build "$@" -t "$image" .
}

# start NAME OPTION... - a container with a data port of its own on loopback. `container` is the one that the next checks talk to.
start() {
    container=$1
    shift
    # The image's interval suits a service; a test would spend its time waiting.
    docker run -d --name "$container" -p 127.0.0.1::8080 --health-interval 1s "$@" "$image"
}

healthy() {
    for _ in $(seq 120); do
        state=$(docker inspect -f '{{.State.Status}} {{.State.Health.Status}}' "$container")
        case $state in
            "running healthy") return 0 ;;
            "running starting") sleep 0.5 ;;
            *) break ;;
        esac
    done
    echo "container is: $state"
    return 1
}

# push VERSION - from inside the container, since the admin port is on its loopback.
push() {
    docker cp "sample-models/iris/v$1" "$container:/tmp/iris-v$1" &&
        docker exec "$container" baton push iris "/tmp/iris-v$1/model.onnx"
}

# serves VERSION - the data port answers from the host, and says that this version did.
serves() {
    # Asked each time: docker may choose another port when it restarts a container.
    address=$(docker port "$container" 8080/tcp) &&
        curl -sS --fail-with-body -m 10 -H 'Content-Type: application/json' \
            -d '{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [5.1, 3.5, 1.4, 0.2]}]}' \
            "http://$address/v2/models/iris/infer" -o "$work/answer" &&
        python3 - "$1" "$work/answer" <<'PYTHON'
import json, sys
answer = json.load(open(sys.argv[2]))
outputs = {output["name"]: output["data"] for output in answer["outputs"]}
assert answer["model_version"] == sys.argv[1], answer
assert outputs["label"] == [0], answer
PYTHON
}

runs_as() { [ "$(docker exec "$container" id -u)" = "$1" ]; }

stops() {
    # docker kills after 10 s; that would show as 137.
    docker stop -t 10 "$container" && code=$(docker inspect -f '{{.State.ExitCode}}' "$container") || return 1
    echo "exit code $code"
    [ "$code" = 0 ]
}

check "base images are there" deploy/docker/base-images.sh
check "image builds" build

check "container starts" start "$name" -v "$name:/var/lib/baton"
check "health becomes healthy" healthy
check "runs as user 10001" runs_as 10001
check "push of version 1" push 1
check "version 1 answers" serves 1
check "push of version 2" push 2
check "version 2 answers" serves 2
check "container restarts" docker restart "$container"
check "health becomes healthy again" healthy
check "version 2 still answers" serves 2
check "docker stop ends it with exit code 0" stops

check "read-only root: container starts on the same store" \
    start "$name-read-only" -v "$name:/var/lib/baton" --read-only --cap-drop ALL --security-opt no-new-privileges
check "read-only root: health becomes healthy" healthy
check "read-only root: version 2 answers" serves 2
check "read-only root: docker stop ends it with exit code 0" stops

check "any user: container starts on a fresh store" start "$name-any-user" -v "$name-any-user:/var/lib/baton" --user 12345
check "any user: health becomes healthy" healthy
check "any user: runs as user 12345" runs_as 12345
check "any user: push of version 1" push 1
check "any user: version 1 answers" serves 1
check "any user: docker stop ends it with exit code 0" stops

echo "image size: $(($(docker image inspect -f '{{.Size}}' "$image") / 1000000)) MB"
