# The entry point. Everything that CI does stands behind `make test`.
SHELL := /bin/sh
PYTHON ?= python3
BATON := target/release/baton
ONNXRUNTIME := .cache/onnxruntime/libonnxruntime.so.1.31.1
VENV := .venv/clients
VENV_READY := $(VENV)/.ready
# Trainers of pipelines, and what the pipeline's tests start; apart, because func-python and kserve want different releases of cloudevents.
PIPELINE := .venv/pipeline
PIPELINE_READY := $(PIPELINE)/.ready
FRAMEWORK_READY := .venv/functions-framework/.ready

NATIVE := target/native

.PHONY: help run build native onnxruntime models test check test-rust test-clients pipeline bench-quick bench bench-pipeline pipeline-conformance-lambda soak fuzz docker-test clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

run: build native models ## build, start a server on 8080 and 8081, push the sample models, print what to try
	@sh sample-models/run.sh

pipeline: build $(PIPELINE_READY) ## changed data become a better model, under load: a runner, an engine and the sample pipeline
	$(PIPELINE)/bin/python pipeline/sample/digits/demo.py

build: onnxruntime ## the release binary and its ONNX Runtime
	cargo build --locked --release -p baton

native: ## the native sample models and the harmful ones of the tests
	sh sample-models/build-native.sh $(NATIVE)

onnxruntime: $(ONNXRUNTIME) ## fetch the pinned ONNX Runtime

$(ONNXRUNTIME): third_party/onnxruntime.txt
	sh third_party/fetch-onnxruntime.sh $@

models: .cache/models/magika/model.onnx ## fetch the sample model that is not in the repository

.cache/models/magika/model.onnx: third_party/magika.txt $(wildcard sample-models/magika/*)
	sh sample-models/magika/fetch.sh .cache/models/magika

test: check test-rust test-clients ## everything that CI runs

check: ## formatting and lints
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

test-rust: build native ## all Rust tests, among them the black-box tests on the release binary
	BATON_BIN=$(abspath $(BATON)) ORT_DYLIB_PATH=$(abspath $(ONNXRUNTIME)) cargo nextest run --locked --workspace

test-clients: build native models $(VENV_READY) $(PIPELINE_READY) $(FRAMEWORK_READY) ## black-box tests with the Python clients
	cargo build --locked --release -p baton-pipeline --example seen
	$(PIPELINE)/bin/python -m pytest -q -p no:cacheprovider tests/manifests
	BATON_BIN=$(abspath $(BATON)) $(VENV)/bin/python -m pytest -q tests/clients

.venv/%/.ready:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

$(VENV_READY): tests/clients/requirements.txt
$(FRAMEWORK_READY): tests/clients/requirements-functions-framework.txt
.venv/lambda/.ready: tests/clients/requirements-lambda.txt

$(PIPELINE_READY): tests/clients/requirements-pipeline.txt pipeline/python/pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable pipeline/python
	touch $@

bench-quick: build native ## Baton against empty servers with the same bytes, in one run
	cargo run --locked --release -q -p baton-bench -- quick

bench: build native ## the same, longer
	cargo run --locked --release -q -p baton-bench -- long

bench-pipeline: build $(PIPELINE_READY) ## functions that scale to zero against services that are always up, on the same engine
	$(PIPELINE)/bin/python bench/pipeline/bench.py

pipeline-conformance-lambda: build $(VENV_READY) $(PIPELINE_READY) .venv/lambda/.ready ## the corpus of events against a function on AWS Lambda's emulator (builds for minutes)
	BATON_CARGO_LAMBDA=$(abspath .venv/lambda/bin/cargo-lambda) $(VENV)/bin/python -m pytest -q tests/clients/test_functions.py -k aws_lambda

docker-test: ## build the image and run it for real
	sh deploy/docker/test.sh

SOAK ?= 20
soak: build native ## the loads and crash rounds of the tests, SOAK times as long
	BATON_SOAK=$(SOAK) BATON_BIN=$(abspath $(BATON)) cargo nextest run --locked -p baton-tests --no-capture \
	  -E 'binary(handover) or binary(typed) or binary(native) or test(kill_9)'

CASES ?= 200000
fuzz: onnxruntime ## the property tests with CASES cases each (short form: part of `make test`)
	PROPTEST_CASES=$(CASES) cargo nextest run --locked -p baton-runner -E 'test(json) or test(mutants) or test(oracle) or test(elf)'

clean: ## remove what was built and fetched
	rm -rf target .cache .venv
