"""What was acknowledged is found again after a stop, a kill, and a kill in the middle of a push."""

import subprocess
import threading

import numpy as np
import pytest

from support import calls, models
from support.admin import Admin, changed, check_error, ok
from support.runner import BINARY, ONNXRUNTIME, eventually

ROW = calls.json_tensor("X", np.zeros((1, 4), dtype=np.float32))


def answer(server, name: str) -> tuple[float, str, str, str]:
    response = calls.post_infer(server, name, {"inputs": [ROW]})
    assert response.status_code == 200, response.text
    return response.json()["outputs"][0]["data"][0], *calls.who(response)


def fill(server) -> dict:
    """Models in every state that a store can hold; what each answers."""
    admin = Admin(server.admin)
    for amount in (1, 2, 3):
        admin.must_push("three", models.adds(amount))
    admin.roll_back("three")
    admin.must_push("one", models.adds(10), golden=b"", manifest=b'description = "kept"\n')
    admin.must_push("staged", models.adds(5))
    changed(admin.push("staged", models.adds(6), query={"stage": "true"}), 201)
    admin.must_push("unloaded", models.adds(7))
    admin.call("POST", "/v2/repository/models/unloaded/unload")
    admin.must_push("removed", models.adds(8))
    admin.remove("removed", force=True)
    return {name: answer(server, name) for name in ("three", "one", "staged")}


def check_same(server, answers: dict) -> None:
    admin = Admin(server.admin)
    assert {name: answer(server, name) for name in answers} == answers
    assert admin.model("three")["active"] == "2"
    check_error(calls.post_infer(server, "unloaded", {"inputs": [ROW]}), 503, "MODEL_NOT_READY")
    check_error(calls.post_infer(server, "removed", {"inputs": [ROW]}), 404, "MODEL_UNKNOWN")
    assert changed(admin.activate("staged", "2"))["version"] == "2"
    assert changed(admin.roll_back("three"))["version"] == "1"
    assert admin.must_push("three", models.adds(4))["version"] == "4"
    assert admin.get("/v1/models/one/versions/1/manifest").content == b'description = "kept"\n'


def test_a_restart_serves_what_was_active(start):
    server = start()
    answers = fill(server)
    history = ok(Admin(server.admin).get("/v1/history"))
    assert server.stop() == 0
    again = start()
    assert ok(Admin(again.admin).get("/v1/history")) == history
    check_same(again, answers)


def test_a_kill_loses_nothing_that_was_acknowledged(start):
    server = start()
    answers = fill(server)
    server.kill()
    check_same(start(), answers)


def test_once_ready_every_active_model_answers(start):
    server = start()
    names = [f"large-{number}" for number in range(5)]
    for number, name in enumerate(names):
        Admin(server.admin).must_push(name, models.two_answers(number, padding=2_000_000))
    server.kill()
    again = start()
    for name in names:
        assert calls.triton_grpc_raw(again, name, {"X": np.zeros((1, 4), np.float32)})["third"].shape == (1,)


def test_a_push_before_the_server_is_ready_is_not_undone_by_the_start(start):
    server = start()
    for number in range(8):
        Admin(server.admin).must_push(f"m-{number}", models.two_answers(number, padding=1_000_000))
    server.kill()
    again = start(wait=False)
    admin = Admin(again.admin)
    pushed = admin.must_push("m-7", models.two_answers(100))
    eventually(again.is_ready, "ready", 20)
    assert admin.model("m-7")["digest"] == pushed["digest"]
    assert calls.triton_grpc_raw(again, "m-7", {"X": np.zeros((1, 4), np.float32)})["first"][0, 0] == 100


def test_kills_at_random_moments_of_pushes_lose_no_acknowledged_version(start):
    random = np.random.default_rng(11)
    acknowledged: list[dict] = []
    amount = 0
    for _ in range(6):
        server = start()
        admin = Admin(server.admin)
        if acknowledged:
            check_kept(server, admin, acknowledged)
        killer = threading.Timer(float(random.uniform(0.02, 0.25)), server.kill)
        killer.start()
        try:
            while True:
                amount += 1
                acknowledged.append(admin.must_push("m", models.two_answers(amount, padding=50_000)))
        except OSError:
            pass  # the server was killed
        killer.join()
    server = start()
    check_kept(server, Admin(server.admin), acknowledged)
    assert not server.staged_files()


def check_kept(server, admin, acknowledged: list[dict]) -> None:
    """All acknowledged versions are listed; what is active is the last of them, or one pushed after it."""
    listed = {version["version"]: version["digest"] for version in admin.model("m")["versions"]}
    for change in acknowledged:
        assert listed.get(change["version"]) == change["digest"]
    active = admin.model("m")
    assert active["generation"] >= acknowledged[-1]["generation"]
    response = calls.post_infer(server, "m", {"inputs": [ROW]})
    assert response.status_code == 200, response.text
    assert response.headers["baton-digest"] == listed[active["active"]]


def test_a_second_server_on_the_same_store_is_refused(start):
    start()
    with pytest.raises(RuntimeError, match="exit code 75") as failure:
        start()
    assert "another process" in str(failure.value)


def test_an_exposed_port_without_a_token_is_refused_with_the_way_out(tmp_path):
    for flag, token in (("--listen", "--data-token-file"), ("--admin-listen", "--admin-token-file")):
        command = [BINARY, "serve", "--store", str(tmp_path), "--onnxruntime", ONNXRUNTIME, flag, "0.0.0.0:0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode == 64, done
        assert token in done.stderr


def test_an_admin_token_is_required_where_one_is_set(start, tmp_path, name):
    token = tmp_path / "token"
    token.write_text("secret-canary-token\n")
    server = start("--admin-token-file", str(token))
    admin = Admin(server.admin)
    for response in (admin.get("/v1/models"), admin.push_raw(name, models.adds(1)), admin.get("/metrics")):
        check_error(response, 401, "NO_CREDENTIALS")
        assert response.headers["www-authenticate"].startswith("Bearer")
    for wrong in ("Bearer wrong", "Basic c2VjcmV0", "Bearer", "secret-canary-token"):
        check_error(admin.get("/v1/models", headers={"Authorization": wrong}), 401, "NO_CREDENTIALS")
    right = {"Authorization": "Bearer secret-canary-token"}
    changed(admin.push_raw(name, models.adds(1), headers=right), 201)
    assert answer(server, name)[0] == 1
    assert admin.get("/livez").status_code == 200
    assert server.stop() == 0
    assert "secret-canary-token" not in server.log


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
def test_web_pages_and_foreign_hosts_are_refused_on_the_admin_port(server, admin, adder, method):
    path = f"/v1/models/{adder[0]}"
    foreign = admin.call(method, path, headers={"Origin": "http://evil.example"})
    check_error(foreign, 403, "ORIGIN_REFUSED")
    rebound = admin.call(method, path, headers={"Host": "evil.example"})
    check_error(rebound, 403, "HOST_REFUSED")
    assert "access-control-allow-origin" not in foreign.headers
    assert answer(server, adder[0])[0] == 1
