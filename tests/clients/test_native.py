"""Native models as their callers see them: beside ONNX, of every datatype, while they are slow and while they die."""

import csv
import io
import json
import queue
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import requests
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support import calls, dtypes, kserve_calls
from support.admin import Admin, changed, check_error, ok
from support.native import built, calling, children, compiled, holders, library, metric
from support.runner import REPOSITORY, START_SECONDS, Runner, eventually
from support.typed import Service, assert_same, baton, package, proto
from support.typed import compiled as compiled_contract

IRIS = REPOSITORY / "sample-models/iris"
FIELDS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
IN_PROCESS = 'execution = "in-process"\n'
CLIENTS = ["triton-http-binary", "triton-grpc"]

LENGTHS = """service Lengths { rpc Measure(Text) returns (Measures); }
message Text { repeated string words = 1; } message Measures { repeated int64 lengths = 1; }
"""


@pytest.fixture(scope="module")
def permissive(tmp_path_factory):
    """A server that lets native models into its own process."""
    runner = Runner(tmp_path_factory.mktemp("permissive") / "store", "--allow-native-in-process")
    eventually(runner.is_ready, "ready", START_SECONDS)
    yield runner
    assert runner.stop() == 0, runner.log[-4000:]


@pytest.fixture(scope="module", params=["isolated", "in-process"])
def hosted(request, server, permissive):
    """Serves libraries both ways: `hosted(name, library) -> server`."""

    def serve(name: str, model: bytes):
        runner = server if request.param == "isolated" else permissive
        admin = Admin(runner.admin)
        admin.must_push(name, model, manifest=f'execution = "{request.param}"\n[workers]\ncount = 1\n')
        assert len(admin.model(name)["workers"]) == (1 if request.param == "isolated" else 0)
        return runner

    return serve


def floats(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, dtype=np.float32)}


def post_floats(server, model: str, *values: float, **parameters) -> requests.Response:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [len(values)], "data": values}]}
    return calls.post_infer(server, model, body | {"parameters": parameters})


# In place of an ONNX model, and of any other.


@pytest.fixture
def iris(server, admin, name):
    """The ONNX model with its contract, in a package of its own, and its golden rows."""
    mine = package()
    contract = (IRIS / "v2/contract.proto").read_text().replace("iris.v1", mine)
    golden = (IRIS / "v2/golden.jsonl").read_bytes()
    admin.must_push(name, (IRIS / "v2/model.onnx").read_bytes(), contract=contract, golden=golden)
    return Service(server, name, mine)


def test_iris_in_onnx_and_in_c_under_one_contract_without_a_failed_call(request, server, admin, iris, tmp_path):
    name = iris.model
    before = server.process.pid, server.data, server.admin
    assert holders(server.data) == holders(server.admin) == {server.process.pid}
    rows = np.random.default_rng(7).uniform(0.1, 8, size=(12, 4)).astype(np.float32)
    flowers = [dict(zip(FIELDS, map(float, row), strict=True)) for row in rows]
    wanted = iris.call_all("ClassifyBatch", {"rows": flowers})["rows"]
    assert {each["label"] for each in wanted} > {"SETOSA", "VIRGINICA"}

    messages, stubs = iris.generated
    stub = stubs.IrisClassifierStub(iris.channel)
    asked = [messages.Features(**flower) for flower in flowers]
    labels = ["SETOSA", "VERSICOLOR", "VIRGINICA"]
    versions, local = set(), threading.local()

    def check(index: int, label: str, probabilities) -> None:
        answer = {"label": label, "probabilities": list(map(float, probabilities))}
        assert_same(answer, wanted[index], f"row {index}", 1e-5)

    def check_message(index: int, answer) -> None:
        check(index, labels[answer.label], answer.probabilities)

    def session() -> requests.Session:
        local.session = getattr(local, "session", None) or requests.Session()
        return local.session

    def one():
        index = random.randrange(len(rows))
        answer, call = stub.Classify.with_call(asked[index], timeout=10)
        check_message(index, answer)
        versions.add(dict(call.initial_metadata())["baton-model-version"])

    reflected = iris.reflected_call("ClassifyBatch")
    batch_message = iris.classes("ClassifyBatch")[0](rows=flowers)

    def batch():
        answer = reflected(batch_message, timeout=10)
        assert len(answer.rows) == len(rows)
        for index, each in enumerate(answer.rows):
            check_message(index, each)

    def stream():
        answers = list(stub.ClassifyStream(iter(asked), timeout=10))
        assert len(answers) == len(rows)
        for index, each in enumerate(answers):
            check_message(index, each)

    open_requests = queue.Queue()
    open_stream = stub.ClassifyStream(iter(open_requests.get, None), timeout=60)
    request.addfinalizer(lambda: (open_requests.put(None), open_stream.cancel()))

    def one_stream_over_all_swaps():
        index = random.randrange(len(rows))
        open_requests.put(asked[index])
        check_message(index, next(open_stream))

    def as_json():
        index = random.randrange(len(rows))
        answer = session().post(iris.url("Classify"), json=flowers[index], timeout=10)
        assert answer.status_code == 200, answer.text
        check(index, answer.json()["label"], answer.json()["probabilities"])

    table = "\n".join([",".join(FIELDS), *(",".join(map(str, flower.values())) for flower in flowers)])

    def as_csv():
        answer = session().post(iris.url("Classify"), data=table, headers={"content-type": "text/csv"}, timeout=10)
        assert answer.status_code == 200, answer.text
        lines = list(csv.DictReader(io.StringIO(answer.text)))
        assert len(lines) == len(rows)
        for index, line in enumerate(lines):
            check(index, line["label"], [line[f"probabilities[{column}]"] for column in range(3)])

    def tensors():
        answer = calls.triton_grpc_raw(server, name, {"X": rows})
        for index, label in enumerate(answer["label"]):
            check(index, labels[label], answer["probabilities"][index])

    (tmp_path / "iris.so").write_bytes(built("iris"))
    source = (IRIS / "c/iris.c").read_text()
    assert "{-0.159836248f" in source
    wrong = compiled(source.replace("{-0.159836248f", "{9.0f"))
    with calling(one, batch, stream, one_stream_over_all_swaps, as_json, as_csv, tensors) as counts:
        time.sleep(0.2)
        done = baton("push", name, str(tmp_path / "iris.so"), server=server.admin)
        assert done.returncode == 0, done.stderr
        assert requests.get(f"http://{server.data}/v2/models/{name}", timeout=10).json()["platform"] == "baton_native"
        error = check_error(admin.push(name, wrong), 422, "GOLDEN_FAILED")
        assert "taken over" in error["error"], "the golden rows of the ONNX model judge the native one"
        swaps, deadline = 0, time.monotonic() + 60
        # On a busy machine the slowest of them needs longer.
        while swaps < 4 or min(counts) <= 10 and time.monotonic() < deadline:
            swaps += 1
            time.sleep(0.2)
            changed(admin.roll_back(name))
            assert admin.model(name)["active"] == "1"
            time.sleep(0.2)
            changed(admin.activate(name, "2"))
            assert admin.model(name)["active"] == "2"
        changed(admin.roll_back(name))
        time.sleep(0.2)
    assert min(counts) > 10, counts
    assert versions == {"1", "2"}
    assert dict(open_stream.initial_metadata())["baton-model-version"] == "1"
    open_requests.put(None)
    assert list(open_stream) == []

    onnx, native = sorted(admin.model(name)["versions"], key=lambda version: version["version"])
    for part in ("contract", "golden"):
        assert native["parts"][part] == onnx["parts"][part]
    assert metric(server, "baton_failures_total", model=name) == 0
    assert (server.process.pid, server.data, server.admin) == before
    assert server.is_running()
    assert holders(server.data) == holders(server.admin) == {server.process.pid}


@pytest.mark.parametrize("way", ["admin", "command-line"])
def test_an_unrelated_native_model_takes_over_the_name(server, admin, iris, tmp_path, way):
    name, old_url = iris.model, iris.url("Classify")
    flower = dict.fromkeys(FIELDS, 2.0)
    wanted = iris.call_all("Classify", flower)
    messages, stubs = iris.generated
    old_stub = stubs.IrisClassifierStub(iris.channel)
    old_call = iris.reflected_call("Classify")

    mine = package()
    parts = {"contract": proto(LENGTHS, mine), "golden": json.dumps(
        {"name": "two", "inputs": {"words": ["ab", ""]}, "outputs": {"lengths": [2, 0]}})}  # fmt: skip
    refused = check_error(admin.push(name, library("lengths"), **parts), 409, "CONTRACT_BREAKING")
    assert iris.package in refused["error"]
    assert iris.call_all("Classify", flower) == wanted

    if way == "admin":
        change = admin.must_push(name, library("lengths"), query={"on_breaking": "allow"}, **parts)
        assert (change["version"], change["model"]) == ("2", name)
    else:
        for part, content in (parts | {"model": library("lengths")}).items():
            (tmp_path / part).write_bytes(content.encode() if isinstance(content, str) else content)
        arguments = [f"--{part}={tmp_path / part}" for part in ("contract", "golden")]
        done = baton("push", name, str(tmp_path / "model"), *arguments, "--allow-breaking", server=server.admin)
        assert done.returncode == 0, done.stderr

    Service(server, name, mine).check("Measure", {"words": ["", "four", "grün"]}, {"lengths": [0, 4, 5]})
    assert not Service(server, name, iris.package).services
    path = old_url.removeprefix(f"http://{server.data}")
    for call, message in ((old_stub.Classify, messages.Features()), (old_call, iris.classes("Classify")[0]())):
        with pytest.raises(grpc.RpcError) as failure:
            call(message, timeout=10)
        assert failure.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert path in failure.value.details()
    for content_type, body in (("application/json", "{}"), ("text/csv", ",".join(FIELDS) + "\n1,2,3,4\n")):
        answer = requests.post(old_url, data=body, headers={"content-type": content_type}, timeout=10)
        assert path in check_error(answer, 404, "ROUTE_UNKNOWN")["error"]
    head = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [0] * 4}]}
    assert "words" in check_error(calls.post_infer(server, name, head), 400, "INPUT_NAMES")["error"]

    changed(admin.roll_back(name))
    assert iris.call_all("Classify", flower) == wanted


def test_the_sample_in_rust_is_served_with_its_contract_and_golden_rows(server, admin, name):
    folder, mine = REPOSITORY / "sample-models/spikes/v1", package()
    contract = (folder / "contract.proto").read_text().replace("spikes.v1", mine)
    manifest, golden = (folder / part for part in ("baton.toml", "golden.jsonl"))
    admin.must_push(
        name, built("spikes/model"), contract=contract, manifest=manifest.read_bytes(), golden=golden.read_bytes()
    )
    service = Service(server, name, mine)
    usual = [41.2, 39.8, 43.1, 40.5, 38.9, 42.4, 41.7, 40.1, 39.3, 42.0, 40.8]
    wanted = {"score": 11.601241, "expected": 40.8, "is_spike": True}
    service.check("Score", {"series": [*usual, 58]}, wanted, 1e-4)
    rows = service.call_all("ScoreBatch", {"rows": [{"series": [*usual, last]} for last in (58, 41, "NaN")]})["rows"]
    assert [row["is_spike"] for row in rows] == [True, False, False]
    assert "series 1" in service.refuses(
        "ScoreBatch", {"rows": [{"series": usual}, {"series": ["NaN"] * 11}]}, "INPUT_REFUSED"
    )
    assert {worker["restarts"] for worker in admin.model(name)["workers"]} == {0}


# Elements and sizes.


def random_bits(dtype: dtypes.Dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Any bits that an element can have, so NaNs of all kinds among them."""
    if dtype.name in ("BOOL", "BYTES"):
        return dtype.array(shape)
    count = int(np.prod(shape, dtype=np.int64))
    content = np.random.default_rng(3).bytes(count * np.dtype(dtype.numpy).itemsize)
    return np.frombuffer(content, dtype=dtype.numpy).reshape(shape)


def assert_same_bits(got: np.ndarray, wanted: np.ndarray, what: str) -> None:
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), what
    assert calls.raw_bytes(got) == calls.raw_bytes(wanted), what


def assert_echo(server, name: str, client: str, sent: dict[str, np.ndarray]) -> None:
    got = calls.ALL[client](server, name, sent)
    assert [each.replace("y", "x", 1) for each in got] == list(sent)
    for tensor, array in sent.items():
        assert_same_bits(got[tensor.replace("x", "y", 1)], array, f"{tensor} {array.shape}")


def test_an_echo_answers_every_datatype_and_shape_bit_by_bit(hosted, name):
    server = hosted(name, library("echo"))
    ranks = {0: (), 1: (0,), 2: (2, 3), 5: (1, 2, 1, 3, 2)}
    for shapes in (ranks, ranks | {1: (11,), 2: (0, 3), 5: (2, 1, 0, 1, 2)}, ranks | {1: (100_000,)}):
        sent = {
            f"x_{dtype.name}_{rank}": random_bits(dtype, shape)
            for dtype in sorted(dtypes.DTYPES, key=lambda dtype: ORDER.index(dtype.name))
            for rank, shape in shapes.items()
        }
        assert len(sent) == 56
        for client in CLIENTS:
            assert_echo(server, name, client, sent)


ORDER = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64",
         "BYTES", "BF16")  # fmt: skip


def test_text_may_be_empty_hold_nul_and_be_large(hosted, name):
    server = hosted(name, library("echo", "-DFIRST=BATON_BYTES", "-DLAST=BATON_BYTES"))
    megabyte = random.Random(5).randbytes(1 << 20)
    words = [b"", b"\0", b"", b"a\0b\0", megabyte, b"\0" * (1 << 20), b"\xff\xfe", b"end", b""]

    def array(elements: list[bytes], *shape: int) -> np.ndarray:
        flat = np.empty(len(elements), dtype=np.object_)
        flat[:] = elements
        return flat.reshape(shape)

    small = {"x_BYTES_0": array([b""]), "x_BYTES_2": array([b""] * 6, 2, 3), "x_BYTES_5": array([], 1, 0, 1, 1, 1)}
    large = {"x_BYTES_0": array([megabyte]), "x_BYTES_2": array(words[:8], 2, 4),
             "x_BYTES_5": array(words[:6], 1, 2, 1, 3, 1)}  # fmt: skip
    for vector, others in ((words, small), ([], large), ([b"\0" * 3] * 1000, large)):
        sent = {"x_BYTES_1": array(vector, len(vector))} | others
        for client in CLIENTS:
            assert_echo(server, name, client, dict(sorted(sent.items())))


def test_an_output_is_as_large_as_the_input_says(hosted, name):
    server = hosted(name, library("grows"))

    def ask(count: int, client: str = "triton-grpc"):
        return calls.ALL[client](server, name, {"count": np.array([count], dtype=np.int64)})

    for count in (1, 100, 5000, 1 << 20):  # 8 MB
        answer = ask(count)
        assert np.array_equal(answer["values"], np.arange(count))
        assert answer["text"].tolist() == [b"%04d" % index for index in range(min(count, 1000))]
        assert answer["runs"][0] == 2 or count == 1, "the first buffers were too small"
    for count in (1, 0, 1 << 20, 7, 3, 1 << 20):
        for client in CLIENTS:
            answer = ask(count, client)
            assert np.array_equal(answer["values"], np.arange(count)), count
            assert len(answer["text"]) == min(count, 1000)

    def refused(count: int) -> requests.Response:
        head = {"inputs": [{"name": "count", "datatype": "INT64", "shape": [1], "data": [count]}]}
        return calls.post_infer(server, name, head)

    check_error(refused(1 << 24), 422, "OUTPUT_TOO_LARGE")  # 128 MB
    assert "between 0 and 2^28" in check_error(refused(-1), 400, "INPUT_REFUSED")["error"]
    assert len(ask(2)["values"]) == 2


def test_thirty_megabytes_go_to_a_worker_and_back(server, admin, name):
    admin.must_push(name, library("sleeps"))
    sent = np.random.default_rng(1).normal(size=7_500_000).astype(np.float32)
    sent[0] = 0
    assert sent.nbytes == 30_000_000
    for client in CLIENTS:
        got = calls.ALL[client](server, name, {"x": sent})
        assert got["y"].shape == sent.shape and got["y"].tobytes() == (2 * sent).tobytes(), client
    assert {worker["restarts"] for worker in admin.model(name)["workers"]} == {0}


# Contracts.


def test_a_contract_is_inferred_for_a_native_model(server, admin, name):
    plain = name.replace("-", "")
    admin.must_push(plain, built("iris"))
    text = requests.get(f"http://{server.admin}/v1/models/{plain}/contract", timeout=10).text
    assert compiled_contract(text).FindFileByName("contract.proto").package == f"baton.models.{plain}"
    service = Service(server, plain, f"baton.models.{plain}")
    answer = service.call_all("Predict", {"rows": [{"x": [5.1, 3.5, 1.4, 0.2]}, {"x": [6.7, 3.0, 5.2, 2.3]}]})
    assert [row["label"] for row in answer["rows"]] == ["0", "2"]
    assert answer["rows"][1]["probabilities"] == pytest.approx([0.000109357534, 0.06109566, 0.938795], abs=1e-5)
    service.refuses("Predict", {"rows": [{"x": [1, 2, 3]}]}, "BAD_SHAPE")


def try_it(server, **parts) -> requests.Response:
    files = {part: (NAMES.get(part, part), content) for part, content in parts.items()}
    return requests.post(f"http://{server.admin}/v1/try", files=files, timeout=30)


NAMES = {"input": "input.json"}


def test_a_library_is_tried_without_a_push_and_leaves_nothing(server, admin):
    before, workers = admin.get("/v1/models").text, children(server.process.pid)
    text = proto(LENGTHS, package())
    words = {"words": ["ab", "", "grün"]}
    assert ok(try_it(server, model=library("lengths"), contract=text, input=json.dumps(words))) == {
        "lengths": ["2", "0", "5"]
    }
    inferred = try_it(server, model=built("iris"), input='{"rows": [{"x": [5.1, 3.5, 1.4, 0.2]}]}')
    assert ok(inferred)["rows"][0]["label"] == "0"
    segv = built("hostile/segv")
    assert ok(try_it(server, model=segv, input='{"rows": [{"x": 3}]}')) == {"rows": [{"y": 6}]}
    check_error(try_it(server, model=segv, input='{"rows": [{"x": 1000}]}'), 503, "WORKER_LOST")
    check_error(try_it(server, model=built("hostile/no_note"), input="{}"), 422, "DYLIB_ABI")
    check_error(try_it(server, model=built("hostile/ctor_exit"), input="{}"), 422, "PREPARE_FAILED")
    mismatch = proto(LENGTHS.replace("repeated string words", "repeated float words"), package())
    check_error(try_it(server, model=library("lengths"), contract=mismatch, input="{}"), 422, "CONTRACT_MODEL_MISMATCH")
    assert admin.get("/v1/models").text == before
    assert server.staged_files() == []
    eventually(lambda: children(server.process.pid) <= workers, "the workers of the trials end")


def test_the_command_line_infers_the_contract_of_a_library(server, admin, name, tmp_path):
    (tmp_path / "flowers.so").write_bytes(built("iris"))
    (tmp_path / "sample.csv").write_text("sepal length,sepal width,petal length,petal width\n5.1,3.5,1.4,0.2\n")
    plain = baton("contract", "infer", str(tmp_path / "flowers.so"))
    assert plain.returncode == 0, plain.stderr
    assert "package baton.models.flowers;" in plain.stdout
    named = baton("contract", "infer", str(tmp_path / "flowers.so"), "--sample", str(tmp_path / "sample.csv"))
    assert named.returncode == 0, named.stderr
    mine = package()
    admin.must_push(name, built("iris"), contract=named.stdout.replace("baton.models.flowers", mine))
    answer = Service(server, name, mine).csv("Predict", ",".join(FIELDS) + "\n5.1,3.5,1.4,0.2\n6.7,3.0,5.2,2.3\n")
    assert [line["label"] for line in csv.DictReader(io.StringIO(answer))] == ["0", "2"]
    for sin, code in (("wrong_abi", "DYLIB_ABI"), ("ctor_crash", "PREPARE_FAILED")):
        (tmp_path / "bad.so").write_bytes(built(f"hostile/{sin}"))
        done = baton("contract", "infer", str(tmp_path / "bad.so"))
        assert done.returncode == 1 and code in done.stderr and done.stdout == "", (sin, done)


# What clients are told.


def test_clients_see_what_a_native_model_is(server, admin, name):
    admin.must_push(name, built("iris"))
    with triton_http.InferenceServerClient(server.data) as http, triton_grpc.InferenceServerClient(server.data) as g:
        for client, options in ((http, {}), (g, {"as_json": True})):
            assert client.is_model_ready(name)
            metadata = client.get_model_metadata(name, **options)
            assert metadata["platform"] == "baton_native"
            tensors = [(each["name"], each["datatype"], [int(size) for size in each["shape"]])
                       for each in metadata["inputs"] + metadata["outputs"]]  # fmt: skip
            assert tensors == [("X", "FP32", [-1, 4]), ("label", "INT64", [-1]), ("probabilities", "FP32", [-1, 3])]
            config = client.get_model_config(name, **options)
            config = config.get("config", config)
            assert (config["name"], config["platform"]) == (name, "baton_native")
            configured = [(each["name"], each["data_type"], [int(size) for size in each["dims"]])
                          for each in config["input"] + config["output"]]  # fmt: skip
            assert configured == [(tensor, f"TYPE_{datatype}", shape) for tensor, datatype, shape in tensors]
    assert kserve_calls.run("rest_health", server.data, name) == (True, True, True)
    assert kserve_calls.run("grpc_health", server.data, name) == (True, True, True)
    for client in ("kserve-rest", "kserve-grpc"):
        answer = calls.ALL[client](server, name, {"X": np.array([[5.1, 3.5, 1.4, 0.2]], dtype=np.float32)})
        assert answer["label"].tolist() == [0]


def test_a_native_model_is_not_said_to_run_in_onnx_runtime(server, admin, name):
    admin.must_push(name, built("iris"))
    config = ok(requests.get(f"http://{server.data}/v2/models/{name}/config", timeout=10))
    assert "onnx" not in json.dumps(config), config


SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def test_health_tells_that_workers_die_again_and_again_and_that_they_work_again(server, admin, name):
    plain = name.replace("-", "")
    admin.must_push(plain, built("hostile/segv"))
    names = (plain, f"baton.models.{plain}.Model")
    with calls.grpc_channel(server) as channel, triton_http.InferenceServerClient(server.data) as http:
        health = health_pb2_grpc.HealthStub(channel)

        def status() -> list[int]:
            requested = [health_pb2.HealthCheckRequest(service=each) for each in names]
            return [health.Check(each, timeout=10).status for each in requested]

        watched: dict[str, list[int]] = {each: [] for each in names}
        streams = [health.Watch(health_pb2.HealthCheckRequest(service=each), timeout=60) for each in names]

        def follow(stream, seen):
            try:
                for answer in stream:
                    seen.append(answer.status)
            except grpc.RpcError:
                pass

        threads = [threading.Thread(target=follow, args=each) for each in zip(streams, watched.values(), strict=True)]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: list(watched.values()) == [[SERVING]] * 2, "watched")
            assert status() == [SERVING] * 2 and http.is_model_ready(plain)
            for _ in range(4):
                error = check_error(post_floats(server, plain, 1000), 503, "WORKER_LOST")
                assert "SIGSEGV" in error["error"]
            assert status() == [NOT_SERVING] * 2
            assert not http.is_model_ready(plain)
            assert kserve_calls.run("grpc_health", server.data, plain) == (True, True, False)
            assert admin.model(plain)["degraded"] is True
            assert metric(server, "baton_worker_deaths_total", model=plain, cause="crash") == 4
            eventually(lambda: list(watched.values()) == [[SERVING, NOT_SERVING]] * 2, f"told: {watched}")

            eventually(lambda: post_floats(server, plain, 4).status_code == 200, "a good answer", 10)
            assert status() == [SERVING] * 2 and http.is_model_ready(plain)
            assert admin.model(plain)["degraded"] is False
            eventually(lambda: list(watched.values()) == [[SERVING, NOT_SERVING, SERVING]] * 2, f"told: {watched}")
        finally:
            for stream in streams:
                stream.cancel()
            for thread in threads:
                thread.join(5)


def test_show_tells_the_workers(server, admin, name):
    admin.must_push(name, built("hostile/segv"), manifest="[workers]\ncount = 3\n")

    def workers() -> list[dict]:
        shown = baton("show", name, "--json", server=server.admin)
        assert shown.returncode == 0, shown.stderr
        return json.loads(shown.stdout)["workers"]

    before = workers()
    assert [(each["state"], each["restarts"], each["last_death"]) for each in before] == [("ready", 0, None)] * 3
    pids = {each["pid"] for each in before}
    assert len(pids) == 3 and pids <= children(server.process.pid)
    assert all(1 << 20 < each["resident_bytes"] < 1 << 30 for each in before), before

    check_error(post_floats(server, name, 1000), 503, "WORKER_LOST")
    eventually(lambda: [each["state"] for each in workers()] == ["ready"] * 3, "the worker is replaced")
    after = workers()
    assert sorted(each["restarts"] for each in after) == [0, 0, 1]
    (dead,) = (each for each in after if each["restarts"])
    assert "SIGSEGV" in dead["last_death"] and dead["pid"] not in pids
    assert len({each["pid"] for each in after} & pids) == 2

    shown = baton("show", name, server=server.admin)
    assert shown.returncode == 0, shown.stderr
    head, *lines = [line.split() for line in shown.stdout.splitlines() if "SIGSEGV" in line or "ready" in line or
                    line.startswith("WORKER")]  # fmt: skip
    assert head == ["WORKER", "STATE", "RESTARTS", "MEMORY", "LAST", "DEATH"]
    assert {int(line[0]) for line in lines} == {each["pid"] for each in after}
    assert any(line[:3] == [str(dead["pid"]), "ready", "1"] and "SIGSEGV" in line[-1] for line in lines), lines


BAD_SETTINGS = {
    "no-workers": ("[workers]\ncount = 0\n", "count"),
    "too-many-workers": ("[workers]\ncount = 100000\n", "count"),
    "workers-as-text": ('[workers]\ncount = "two"\n', "count"),
    "little-memory": ("[workers]\nmemory_mb = 1\n", "memory_mb"),
    "negative-memory": ("[workers]\nmemory_mb = -1\n", "memory_mb"),
    "degraded-from-the-start": ("[workers]\nrestarts = 0\n", "restarts"),
    "unknown-key": ("[workers]\nthreads = 2\n", "threads"),
    "unknown-reaction": ('[workers]\non_degraded = "panic"\n', "on_degraded"),
    "unknown-execution": ('execution = "elsewhere"\n', "execution"),
    "execution-of-workers": ('[workers]\nexecution = "elsewhere"\n', "execution"),
}


@pytest.mark.parametrize(("manifest", "key"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings_are_refused_by_key(admin, name, manifest, key):
    error = check_error(admin.push(name, library("lengths"), manifest=manifest), 400, "BAD_MANIFEST")
    assert key in error["error"]
    check_error(admin.get(f"/v1/models/{name}"), 404, "MODEL_UNKNOWN")


def test_a_native_model_enters_the_servers_process_only_where_that_is_allowed(admin, permissive, name):
    error = check_error(admin.push(name, library("sleeps"), manifest=IN_PROCESS), 422, "EXECUTION_REFUSED")
    assert "--allow-native-in-process" in error["error"]
    Admin(permissive.admin).must_push(name, library("sleeps"), manifest=IN_PROCESS)
    assert calls.triton_grpc_raw(permissive, name, floats(0))["pid"] == [permissive.process.pid]


# Time.


def test_workers_run_at_once_and_what_waits_is_measured(server, admin, name):
    admin.must_push(name, library("sleeps"), manifest="[workers]\ncount = 4\n")
    callers, rounds, sleep = 16, 8, 0.02
    ready = threading.Barrier(callers + 1)

    def caller(_):
        spans = []
        with triton_grpc.InferenceServerClient(server.data) as client:
            inputs = calls.triton_inputs(triton_grpc, floats(1000 * sleep, 21))
            assert client.is_model_ready(name)
            ready.wait(30)
            for _ in range(rounds):
                result = client.infer(name, inputs)
                assert result.as_numpy("y").tolist() == [2000 * sleep, 42]
                spans.append((*result.as_numpy("span"), result.as_numpy("pid")[0]))
        return spans

    with ThreadPoolExecutor(callers) as pool:
        running = [pool.submit(caller, index) for index in range(callers)]
        ready.wait(30)
        began = time.monotonic()
        spans = [span for each in running for span in each.result(timeout=60)]
        wall = time.monotonic() - began
    assert len(spans) == callers * rounds

    changes = sorted([(begin, 1) for begin, _, _ in spans] + [(end, -1) for _, end, _ in spans])
    at_once = np.cumsum([change for _, change in changes])
    assert 3 <= at_once.max() <= 4
    assert {pid for _, _, pid in spans} == {worker["pid"] for worker in admin.model(name)["workers"]}
    # On average more than two at once, so at some time three: four would need a quarter of the whole time.
    assert wall < callers * rounds * sleep / 2, wall

    def mean(phase: str) -> float:
        total, count = (metric(server, f"baton_phase_seconds_{part}", model=name, phase=phase)
                        for part in ("sum", "count"))  # fmt: skip
        assert count == callers * rounds
        return total / count

    assert mean("compute") >= sleep
    assert mean("queue") > sleep, "12 of 16 wait for one of four workers"
    assert metric(server, "baton_failures_total", model=name) == 0


def test_an_impatient_caller_does_not_cost_the_worker(server, admin, name):
    plain = name.replace("-", "")
    admin.must_push(plain, library("sleeps"), manifest="[workers]\ncount = 1\n")
    service = Service(server, plain, f"baton.models.{plain}")
    (worker,) = admin.model(plain)["workers"]

    def answers_again() -> None:
        answer = calls.triton_grpc_raw(server, plain, floats(0, 4))
        assert (answer["y"].tolist(), answer["pid"][0]) == ([0, 8], worker["pid"])

    with triton_grpc.InferenceServerClient(server.data) as client:
        with pytest.raises(triton_grpc.InferenceServerException) as failure:
            client.infer(plain, calls.triton_inputs(triton_grpc, floats(300)), client_timeout=0.05)
        assert failure.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    answers_again()

    with pytest.raises(grpc.RpcError) as failure:
        service.reflected_call("Predict")(service._message("Predict", {"x": 300}), timeout=0.05)
    assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    answers_again()

    began = time.monotonic()
    check_error(post_floats(server, plain, 300, timeout=50_000), 504, "DEADLINE")
    assert time.monotonic() - began < 0.25, "the caller need not wait for the model"
    answers_again()

    call = service.reflected_call("Predict").future(service._message("Predict", {"x": 300}), timeout=10)
    eventually(lambda: admin.model(plain)["workers"][0]["state"] == "busy", "it runs")
    call.cancel()
    answers_again()

    with calls.grpc_channel(server) as channel:
        raw = channel.unary_unary(service.path("Predict"))
        calls_at_once = [raw.future(service._message("Predict", {"x": 300}).SerializeToString(), timeout=0.05)
                         for _ in range(5)]  # fmt: skip
        assert [each.code() for each in calls_at_once] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 5
    began = time.monotonic()
    answers_again()
    assert time.monotonic() - began < 0.9, "those that gave up in the queue never run"

    (after,) = admin.model(plain)["workers"]
    assert (after["pid"], after["restarts"], after["last_death"]) == (worker["pid"], 0, None)
    assert metric(server, "baton_worker_deaths_total", model=plain) == 0


def test_the_models_own_time_limit_costs_the_worker(server, admin, name):
    manifest = "[workers]\ncount = 1\n[limits]\nrequest_timeout_ms = 100\n"
    admin.must_push(name, library("sleeps"), manifest=manifest)
    (before,) = admin.model(name)["workers"]
    began = time.monotonic()
    check_error(post_floats(server, name, 20_000), 504, "DEADLINE")
    eventually(lambda: post_floats(server, name, 0, 4).status_code == 200, "another worker")
    assert time.monotonic() - began < 5
    (after,) = admin.model(name)["workers"]
    assert after["restarts"] == 1 and after["pid"] != before["pid"]
    assert "100 ms" in after["last_death"]
    assert metric(server, "baton_worker_deaths_total", model=name, cause="deadline") == 1
