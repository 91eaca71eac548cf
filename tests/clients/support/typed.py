"""Typed services as their users call them: four clients of one contract, and what each must say of a refusal."""

import importlib
import itertools
import json
import math
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import grpc
import onnx.parser
import requests
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc

from . import calls
from .admin import LEAKS
from .runner import BINARY, REPOSITORY

OPTIONS_FOLDER = REPOSITORY / "proto"
WELL_KNOWN = Path(protoc.__file__).parent / "_proto"
IDENTITY = ("baton-model-version", "baton-generation", "baton-digest")
PROTOBUF = "application/protobuf"
_packages = itertools.count(1)
_stems = itertools.count(1)


def package() -> str:
    """A package that no other contract of this run has."""
    return f"t{next(_packages)}.v1"


def proto(body: str, package: str, *, imports=()) -> str:
    """A contract: `body` under the usual head."""
    lines = ['syntax = "proto3";', f"package {package};", *(f'import "{name}";' for name in imports)]
    return "\n".join(lines) + "\n" + body


def contract(body: str, package: str) -> str:
    """A contract of `body`; without a service in it, of one with the method Call(Q) returns (A)."""
    if not re.search(r"\bservice\b", body):
        body = "service S { rpc Call(Q) returns (A); }\n" + body
    imports = [name for word, name in IMPORTS.items() if word in body]
    return proto(body, package, imports=imports)


IMPORTS = {
    "(baton.": "baton/options.proto",
    "google.protobuf.Timestamp": "google/protobuf/timestamp.proto",
    "google.protobuf.Struct": "google/protobuf/struct.proto",
    "google.protobuf.Any": "google/protobuf/any.proto",
    "google.protobuf.Empty": "google/protobuf/empty.proto",
    "Value ": "google/protobuf/wrappers.proto",
}


def graph(inputs: str, outputs: str, *nodes: str, constants: str = "") -> bytes:
    """A model in ONNX's own text form: `graph("float[N,4] X", "float[N] Y", "Y = MatMul(X, w)", constants=...)`."""
    body = "\n".join(nodes)
    head = f'<ir_version: 9, opset_import: ["": 19, "ai.onnx.ml": 3]>\ng ({inputs}) => ({outputs})'
    constants = f" <{constants}>" if constants else ""
    return onnx.parser.parse_model(f"{head}{constants} {{\n{body}\n}}").SerializeToString()


def renamed(model: bytes, **names: str) -> bytes:
    """The model with other names of inputs and outputs, such as ONNX's text form has no letters for."""
    loaded = onnx.load_from_string(model)
    for value in (*loaded.graph.input, *loaded.graph.output):
        value.name = names.get(value.name, value.name)
    for node in loaded.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return loaded.SerializeToString()


# Refusals.


@dataclass
class Refused(Exception):
    """A call that was refused: gRPC's name of the status, and Baton's code and text."""

    status: str
    code: str
    text: str
    http: int | None = None

    def __str__(self):
        return f"{self.status} {self.code}: {self.text}"


GRPC_OF_HTTP = {
    400: {"INVALID_ARGUMENT", "OUT_OF_RANGE", "RESOURCE_EXHAUSTED"},
    404: {"NOT_FOUND", "UNIMPLEMENTED"},
    412: {"FAILED_PRECONDITION"},
    413: {"RESOURCE_EXHAUSTED"},
    415: {"INVALID_ARGUMENT", "UNIMPLEMENTED"},
    422: {"INVALID_ARGUMENT"},
    500: {"INTERNAL", "UNKNOWN"},
    501: {"UNIMPLEMENTED"},
    503: {"UNAVAILABLE"},
    504: {"DEADLINE_EXCEEDED"},
}


def refusal_of_grpc(error: grpc.RpcError) -> Refused:
    details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    code = re.search(rb"[A-Z]+(?:_[A-Z]+)+", details)
    return Refused(error.code().name, code.group().decode() if code else "", error.details() or "")


def refusal_of_http(response: requests.Response) -> Refused:
    assert response.headers["content-type"].startswith("application/json"), (response.headers, response.text[:300])
    body = response.json()
    assert not LEAKS.search(response.text), response.text
    return Refused("", body["code"], body["error"], response.status_code)


# Comparing answers.


def same(got, wanted, tolerance: float = 1e-6) -> bool:
    """Equal, numbers up to `tolerance`; numbers may be strings, as 64-bit integers in JSON are."""
    if isinstance(got, dict) and isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(same(got[key], wanted[key], tolerance) for key in got)
    if isinstance(got, list) and isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(lambda a, b: same(a, b, tolerance), got, wanted))
    if isinstance(got, bool) or isinstance(wanted, bool):
        return got is wanted
    if isinstance(got, float) or isinstance(wanted, float):
        try:
            one, other = float(got), float(wanted)
        except (TypeError, ValueError):
            return False
        return math.isnan(one) and math.isnan(other) or math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(got, (int, str)) and isinstance(wanted, (int, str)):
        return str(got) == str(wanted)
    return got == wanted


def assert_same(got, wanted, what: str = "", tolerance: float = 1e-6) -> None:
    assert same(got, wanted, tolerance), f"{what}: {got}\ninstead of {wanted}"


def as_dict(message) -> dict:
    """Every field, under its original name."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


# Generated code and reflection.


def generate(source: bytes):
    """What `python -m grpc_tools.protoc` makes of a contract: its messages' module and its stubs' module."""
    stem = f"contract{next(_stems)}"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"{stem}.proto").write_bytes(source)
        files = [f"{stem}.proto"] + (["baton/options.proto"] if b"baton/options.proto" in source else [])
        include = [f"-I{folder}", f"-I{WELL_KNOWN}", f"-I{OPTIONS_FOLDER}"]
        command = ["protoc", *include, f"--python_out={folder}", f"--grpc_python_out={folder}", *files]
        assert protoc.main(command) == 0, source.decode(errors="replace")
        sys.path.insert(0, folder)
        try:
            importlib.invalidate_caches()
            return importlib.import_module(f"{stem}_pb2"), importlib.import_module(f"{stem}_pb2_grpc")
        finally:
            sys.path.remove(folder)


def compiled(source: bytes | str) -> descriptor_pool.DescriptorPool:
    """A contract in a pool of its own: several versions of a message may exist side by side."""
    source = source.encode() if isinstance(source, str) else source
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "contract.proto").write_bytes(source)
        include = [f"-I{folder}", f"-I{WELL_KNOWN}", f"-I{OPTIONS_FOLDER}"]
        out = Path(folder, "set")
        assert (
            protoc.main(["protoc", *include, "--include_imports", f"--descriptor_set_out={out}", "contract.proto"]) == 0
        )
        return pool_of_set(out.read_bytes())


def pool_of_set(data: bytes) -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    return pool


def reflected(channel: grpc.Channel) -> descriptor_pool.DescriptorPool:
    return descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))


def message_class(descriptor):
    return message_factory.GetMessageClass(descriptor)


# A typed service.


class Service:
    """The services of one package on a server. Methods are named `Method`, or `Service/Method` if there are several."""

    CLIENTS = ("reflection", "stubs", "json", "protobuf")

    def __init__(self, server, model: str, package: str):
        self.server = server
        self.model = model
        self.package = package

    @cached_property
    def channel(self) -> grpc.Channel:
        return calls.grpc_channel(self.server)

    def source(self, version: str | None = None) -> bytes:
        """The contract, read back: what is being served, or that of a version."""
        where = f"versions/{version}/contract" if version else "contract"
        response = requests.get(f"http://{self.server.admin}/v1/models/{self.model}/{where}", timeout=30)
        assert response.status_code == 200, response.text
        return response.content

    @cached_property
    def generated(self):
        return generate(self.source())

    @cached_property
    def pool(self) -> descriptor_pool.DescriptorPool:
        return reflected(self.channel)

    @cached_property
    def services(self) -> dict:
        """Descriptors through reflection alone: nothing here knows the contract."""
        names = ProtoReflectionDescriptorDatabase(self.channel).get_services()
        mine = [name for name in names if name.rpartition(".")[0] == self.package]
        return {name.rpartition(".")[2]: self.pool.FindServiceByName(name) for name in mine}

    def method(self, name: str):
        service, _, method = name.rpartition("/")
        candidates = [self.services[service]] if service else self.services.values()
        found = [each.methods_by_name[method] for each in candidates if method in each.methods_by_name]
        assert found, f"reflection shows no method {name} in {sorted(self.services)} of {self.package}"
        return found[0]

    def path(self, name: str) -> str:
        method = self.method(name)
        return f"/{method.containing_service.full_name}/{method.name}"

    def url(self, name: str) -> str:
        return f"http://{self.server.data}{self.path(name)}"

    def classes(self, name: str):
        method = self.method(name)
        return message_class(method.input_type), message_class(method.output_type)

    # The four clients. A request is a dict in JSON form, an answer a dict of every field.

    def reflection(self, name: str, request: dict, **options) -> dict:
        return as_dict(self.reflected_call(name)(self._message(name, request), timeout=30, **options))

    def reflected_call(self, name: str):
        """A callable of grpcio made from reflection, of the method's kind."""
        method = self.method(name)
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        _, answer = self.classes(name)
        return getattr(self.channel, kind)(
            self.path(name), request_serializer=lambda m: m.SerializeToString(), response_deserializer=answer.FromString
        )

    def stubs(self, name: str, request: dict) -> dict:
        messages, stubs = self.generated
        method = self.method(name)
        stub = getattr(stubs, f"{method.containing_service.name}Stub")(self.channel)
        own = messages.DESCRIPTOR.services_by_name[method.containing_service.name].methods_by_name[method.name]
        message = json_format.ParseDict(request, message_class(own.input_type)())
        return as_dict(getattr(stub, method.name)(message, timeout=30))

    def json(self, name: str, request: dict, **headers) -> dict:
        response = self.post_json(name, request, **headers)
        if response.status_code != 200:
            raise refusal_of_http(response)
        assert response.headers["content-type"].startswith("application/json"), response.headers
        answer = json_format.Parse(response.text, self.classes(name)[1]())
        lower_camel = json_format.MessageToDict(answer, always_print_fields_with_no_presence=True)
        assert_same(response.json(), lower_camel, "JSON in the protobuf mapping")
        return as_dict(answer)

    def protobuf(self, name: str, request: dict, **headers) -> dict:
        response = self.post(name, self._message(name, request).SerializeToString(), PROTOBUF, **headers)
        if response.status_code != 200:
            raise refusal_of_http(response)
        assert response.headers["content-type"] in (PROTOBUF, "application/proto", "application/x-protobuf")
        return as_dict(self.classes(name)[1].FromString(response.content))

    def call(self, client: str, name: str, request: dict) -> dict:
        try:
            return getattr(self, client)(name, request)
        except grpc.RpcError as error:
            raise refusal_of_grpc(error) from None

    def call_all(self, name: str, request: dict) -> dict:
        """One answer that all four clients got."""
        answers = {client: self.call(client, name, request) for client in self.CLIENTS}
        first = answers[self.CLIENTS[0]]
        for client, answer in answers.items():
            assert_same(answer, first, f"{client} against {self.CLIENTS[0]}", 0)
        return first

    def check(self, name: str, request: dict, wanted: dict, tolerance: float = 1e-5) -> None:
        assert_same(self.call_all(name, request), wanted, name, tolerance)

    def refuses(self, name: str, request: dict, code: str = "BAD_FIELD", status: int = 400, *texts: str) -> str:
        """All four clients are refused in the same words; the words."""
        refusals = {}
        for client in self.CLIENTS:
            try:
                answer = self.call(client, name, request)
            except Refused as refused:
                refusals[client] = refused
            else:
                raise AssertionError(f"{client} got {answer} instead of {code} for {request}")
        for client, refused in refusals.items():
            assert refused.code == code, f"{client}: {refused} instead of {code}"
            assert refused.http in (None, status), f"{client}: {refused.http} instead of {status}"
            assert refused.http or refused.status in GRPC_OF_HTTP[status], f"{client}: {refused}"
            for text in texts:
                assert text in refused.text, f"{client}: {text!r} is not in {refused.text!r}"
        assert len({refused.text for refused in refusals.values()}) == 1, refusals
        return refusals["json"].text

    # By hand.

    def post(self, name: str, body, content_type: str | None, **headers) -> requests.Response:
        headers = {key.replace("_", "-"): value for key, value in headers.items()}
        headers |= {"content-type": content_type} if content_type else {}
        return requests.post(self.url(name), data=body, headers=headers, timeout=60)

    def post_json(self, name: str, request, **headers) -> requests.Response:
        body = request if isinstance(request, (str, bytes)) else json.dumps(request)
        return self.post(name, body, "application/json", **headers)

    def csv(self, name: str, text, **headers) -> str:
        """The answer to a CSV file, as CSV."""
        response = self.post(name, text.encode() if isinstance(text, str) else text, "text/csv", **headers)
        if response.status_code != 200:
            raise refusal_of_http(response)
        assert response.headers["content-type"].startswith("text/csv"), response.headers
        return response.text

    def _message(self, name: str, request: dict):
        return json_format.ParseDict(request, self.classes(name)[0]())


def baton(*arguments: str, server: str | None = None, input: str | None = None) -> subprocess.CompletedProcess:
    """The command-line client."""
    command = [BINARY, *arguments] + (["--server", f"http://{server}"] if server else [])
    return subprocess.run(command, capture_output=True, text=True, timeout=60, input=input)
