#!/bin/sh
# `make run`: a server in the foreground with a store in ./.baton; meanwhile the sample models are pushed through the
# ordinary push path, and what to try next is printed. Ctrl-C answers what was accepted and ends the server.
set -eu
cd "$(dirname "$0")/.."
baton=target/release/baton

push_samples() {
    tries=0
    until "$baton" doctor --live 2>/dev/null; do
        tries=$((tries + 1))
        # The server is this script's own process after the exec below; without it there is nothing to wait for.
        if [ "$tries" -gt 100 ] || ! kill -0 "$$" 2>/dev/null; then exit 0; fi
        sleep 0.1
    done
    "$baton" push simple sample-models/simple
    for model in iris digits; do
        "$baton" push "$model" "sample-models/$model/v1"
        "$baton" push "$model" "sample-models/$model/v2"
    done
    "$baton" push magika .cache/models/magika
    "$baton" push spikes target/native/spikes
    cat <<'TEXT'

Baton is running. Five things to try, from another terminal in this folder:

  call iris as the typed service of its contract (the same path takes gRPC, CSV and protobuf):
    curl -s http://127.0.0.1:8080/iris.v1.IrisClassifier/Classify -d '{"sepal_length":5.1,"sepal_width":3.5,"petal_length":1.4,"petal_width":0.2}'
    grpcurl -plaintext -d '{"petal_length":5,"petal_width":2}' 127.0.0.1:8080 iris.v1.IrisClassifier/Classify

  call iris with tensors:
    curl -s http://127.0.0.1:8080/v2/models/iris/infer -d '{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"data":[5.1,3.5,1.4,0.2]}]}'

  go back to the version before, without a lost request, and look:
    target/release/baton rollback iris && target/release/baton show iris

  ask a native model, written in Rust and run in a process of its own, whether the last value of a series is a spike:
    curl -s http://127.0.0.1:8080/spikes.v1.SpikeDetector/Score -d '{"series":[41,40,43,41,39,42,42,40,39,42,41,58]}'

  tell the types of the files in a folder, with a production model:
    python3 sample-models/magika/file_types.py docs

With tritonclient (pip install 'tritonclient[http]'):
    python3 -c 'import tritonclient.http as t; print(t.InferenceServerClient("127.0.0.1:8080").get_model_metadata("iris"))'

Documentation of the admin API and the typed services: http://127.0.0.1:8081/docs     Metrics: http://127.0.0.1:8081/metrics
Stop with Ctrl-C.

TEXT
}

if "$baton" doctor --live >/dev/null 2>&1; then
    echo "A Baton runs on 127.0.0.1:8080 already, and would get the samples. End it first." >&2
    exit 1
fi
push_samples &
exec "$baton" serve --store .baton
