"""Fixtures: a server for the whole run, servers for single tests, their admin clients."""

import itertools
import os

import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from support import dtypes, models
from support import typed as typed_services
from support.admin import Admin
from support.runner import BINARY, ONNXRUNTIME, START_SECONDS, Runner, eventually

_numbers = itertools.count(1)


def pytest_configure(config):
    for path, variable in ((BINARY, "BATON_BIN"), (ONNXRUNTIME, "BATON_ONNXRUNTIME")):
        if not os.path.isfile(path):
            raise pytest.UsageError(f"{path} is missing: run `make test-clients`, or set {variable}")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The server that most tests share. Its end is a test too: SIGTERM must lead to exit code 0."""
    runner = Runner(tmp_path_factory.mktemp("shared") / "store")
    yield runner
    code = runner.stop()
    assert code == 0, f"exit code {code}:\n{runner.log[-4000:]}"


@pytest.fixture(scope="session")
def admin(server):
    return Admin(server.admin)


@pytest.fixture
def start(tmp_path):
    """Starts servers that only this test sees; those still running at its end must stop with exit code 0."""
    runners = []

    def start_one(*arguments, wait=True):
        runner = Runner(tmp_path / "store", *arguments)
        runners.append(runner)
        if wait:
            eventually(runner.is_ready, "ready", START_SECONDS)
        return runner

    yield start_one
    codes = [runner.stop() for runner in runners if runner.is_running()]
    assert all(code == 0 for code in codes), codes


@pytest.fixture
def name():
    """A model name that no other test uses."""
    return f"model-{next(_numbers)}"


@pytest.fixture
def typed(server, admin, name):
    """Serves models under contracts: `typed(model, body) -> Service`, each in a package of its own."""
    numbers = itertools.count(1)

    def serve(model, body, *, package=None, **parts):
        package = package or typed_services.package()
        at = f"{name}-{next(numbers)}"
        parts = {part: content.replace("PACKAGE", package) for part, content in parts.items()}
        contract = typed_services.contract(body.replace("PACKAGE", package), package)
        admin.must_push(at, model, contract=contract, **parts)
        return typed_services.Service(server, at, package)

    return serve


@pytest.fixture(scope="session")
def http(server):
    with triton_http.InferenceServerClient(server.data) as client:
        yield client


@pytest.fixture(scope="session")
def grpc(server):
    with triton_grpc.InferenceServerClient(server.data) as client:
        yield client


@pytest.fixture(scope="session")
def identities(admin):
    """An identity model for each datatype, of any shape: names by datatype."""
    names = {dtype.name: f"identity-{dtype.name.lower()}" for dtype in dtypes.DTYPES}
    for dtype in dtypes.DTYPES:
        admin.must_push(names[dtype.name], models.identity(dtype.onnx))
    return names


@pytest.fixture(scope="session")
def simple(admin):
    """Triton's example model."""
    admin.must_push("simple", models.simple())
    return "simple"


@pytest.fixture(scope="session")
def adder(admin):
    """Y = X + 1, FP32 [n,4]; as (name, reply to its push)."""
    return "adder", admin.must_push("adder", models.adds(1))


@pytest.fixture(scope="session")
def slow(admin):
    """A model that takes as long as its input says."""
    admin.must_push("slow", models.spins())
    return "slow"
