"""The model repository extension: index on both ports, load and unload on the admin port only."""

import numpy as np
import pytest
import requests
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from support import calls, models

ROW = {"X": np.zeros((1, 4), dtype=np.float32)}
MODULES = pytest.mark.parametrize("module", [triton_http, triton_grpc], ids=["http", "grpc"])


def index(client) -> dict[str, dict]:
    options = {"as_json": True} if isinstance(client, triton_grpc.InferenceServerClient) else {}
    listed = client.get_model_repository_index(**options)
    listed = listed.get("models", []) if isinstance(listed, dict) else listed
    return {entry["name"]: entry for entry in listed}


@MODULES
def test_the_index_lists_models_on_both_ports(server, simple, module):
    for address in (server.data, server.admin):
        with module.InferenceServerClient(address) as client:
            entry = index(client)[simple]
            assert (entry["version"], entry["state"]) == ("1", "READY")


@MODULES
def test_load_and_unload_are_announced_and_work_on_the_admin_port(server, admin, name, module):
    admin.must_push(name, models.adds(1))
    with module.InferenceServerClient(server.admin) as control, module.InferenceServerClient(server.data) as data:
        assert "model_repository" in _extensions(control)
        control.unload_model(name)
        assert data.is_model_ready(name) is False
        assert index(data)[name]["state"] == "UNAVAILABLE"
        with pytest.raises(InferenceServerException) as failure:
            data.infer(name, calls.triton_inputs(module, ROW))
        assert failure.value.status() in ("503", "StatusCode.UNAVAILABLE")
        control.unload_model(name)  # what is not loaded is unloaded already
        control.load_model(name)
        assert data.is_model_ready(name) is True
        assert data.infer(name, calls.triton_inputs(module, ROW)).as_numpy("Y")[0, 0] == 1


@MODULES
def test_loading_a_loaded_model_keeps_it(server, admin, name, module):
    push = admin.must_push(name, models.adds(1))
    with module.InferenceServerClient(server.admin) as control:
        control.load_model(name)
    assert admin.model(name)["active"] == push["version"]
    assert calls.triton_grpc_raw(server, name, ROW)["Y"][0, 0] == 1


@MODULES
def test_load_and_unload_are_refused_on_the_data_port(server, simple, module):
    with module.InferenceServerClient(server.data) as client:
        assert "model_repository" not in _extensions(client)
        for call in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException) as failure:
                call(simple)
            assert failure.value.status() in ("404", "StatusCode.UNIMPLEMENTED")
        assert client.is_model_ready(simple)


@MODULES
def test_loading_an_unknown_model_is_not_found(server, module):
    with module.InferenceServerClient(server.admin) as control:
        for call in (control.load_model, control.unload_model):
            with pytest.raises(InferenceServerException) as failure:
                call("no-such-model")
            assert failure.value.status() in ("404", "StatusCode.NOT_FOUND")


@MODULES
def test_load_with_files_is_refused_with_the_way_to_push(server, simple, module):
    with module.InferenceServerClient(server.admin) as control:
        with pytest.raises(InferenceServerException, match="push"):
            control.load_model(simple, config="{}", files={"file:1/model.onnx": b"x"})


def test_the_index_takes_an_empty_body_and_the_ready_filter(server, admin, name):
    admin.must_push(name, models.adds(1))
    with triton_http.InferenceServerClient(server.admin) as control:
        control.unload_model(name)
    url = f"http://{server.data}/v2/repository/index"
    for body in (b"", b"{}", b'{"ready": false}'):
        assert name in {entry["name"] for entry in requests.post(url, data=body, timeout=10).json()}
    ready = requests.post(url, data=b'{"ready": true}', timeout=10).json()
    assert name not in {entry["name"] for entry in ready}
    assert {entry["state"] for entry in ready} == {"READY"}


def test_the_whole_protocol_is_served_on_the_admin_port_too(server, simple):
    pair = np.ones((1, 16), dtype=np.int32)
    for module in (triton_http, triton_grpc):
        with module.InferenceServerClient(server.admin) as client:
            result = client.infer(simple, calls.triton_inputs(module, {"INPUT0": pair, "INPUT1": pair}))
            assert result.as_numpy("OUTPUT0").tolist() == (pair + pair).tolist()


def _extensions(client) -> list[str]:
    metadata = client.get_server_metadata()
    return list(metadata["extensions"] if isinstance(metadata, dict) else metadata.extensions)
