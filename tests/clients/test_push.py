"""The life of a model through the admin API: push, swap, roll back, stage, check, read back, remove."""

import hashlib
import json
import re
import subprocess
import threading

import numpy as np
import pytest
import requests

from support import calls, models
from support.admin import changed, check_error, ok

ROW = {"X": np.zeros((1, 4), dtype=np.float32)}
MANIFEST = b'description = "adds"\n[golden]\nabsolute = 0.001\n'
PROVENANCE = {"dataset": "sha256:abc", "accuracy": 0.97, "code": "1234567"}


def contract(name: str) -> bytes:
    """A contract whose service no other model has."""
    package = name.replace("-", "_").replace(".", "_")
    return (
        f'syntax = "proto3";\npackage {package}.v1;\nservice Adder {{ rpc Add(Row) returns (Sum); }}\n'
        "message Row { repeated float x = 1; }\nmessage Sum { repeated float y = 1; }\n"
    ).encode()


def golden(amount: float, name: str = "ones", **tolerance) -> bytes:
    row = {"name": name, "inputs": {"X": [[1, 1, 1, 1]]}, "outputs": {"Y": [[1 + amount] * 4]}}
    if tolerance:
        row["tolerance"] = tolerance
    return json.dumps(row).encode() + b"\n"


def answer(server, name: str) -> tuple[float, str, str, str]:
    """The first element of Y for zeros, and version, generation, digest of who gave it."""
    response = calls.post_infer(server, name, {"inputs": [calls.json_tensor("X", ROW["X"])]})
    assert response.status_code == 200, response.text
    return response.json()["outputs"][0]["data"][0], *calls.who(response)


def identity(change: dict) -> tuple[str, str, str]:
    return change["version"], str(change["generation"]), change["digest"]


def test_push_activate_and_roll_back_in_order(server, admin, name):
    first = admin.must_push(name, models.adds(1))
    assert (first["model"], first["version"], first["state"], first["unchanged"]) == (name, "1", "active", False)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", first["digest"])
    assert answer(server, name) == (1, *identity(first))

    second = admin.must_push(name, models.adds(2))
    assert (second["version"], second["generation"]) == ("2", first["generation"] + 1)
    assert second["digest"] != first["digest"]
    assert answer(server, name) == (2, *identity(second))

    back = changed(admin.activate(name, "1"))
    assert (back["version"], back["digest"], back["state"]) == ("1", first["digest"], "active")
    assert back["generation"] == second["generation"] + 1
    assert answer(server, name) == (1, *identity(back))


def test_roll_back_goes_back_until_there_is_nothing(server, admin, name):
    for amount in (1, 2, 3):
        admin.must_push(name, models.adds(amount))
    for version in ("2", "1"):
        change = changed(admin.roll_back(name))
        assert change["version"] == version
        assert answer(server, name) == (float(version), *identity(change))
    check_error(admin.roll_back(name), 409, "NOTHING_TO_ROLL_BACK")
    assert answer(server, name)[0] == 1


def test_roll_back_of_a_first_version_has_nowhere_to_go(admin, name):
    admin.must_push(name, models.adds(1))
    check_error(admin.roll_back(name), 409, "NOTHING_TO_ROLL_BACK")


def test_a_push_after_a_roll_back_gets_a_new_number(server, admin, name):
    for amount in (1, 2):
        admin.must_push(name, models.adds(amount))
    admin.roll_back(name)
    third = admin.must_push(name, models.adds(3))
    assert third["version"] == "3"
    assert changed(admin.roll_back(name))["version"] == "1"


def test_the_same_bytes_again_change_nothing(server, admin, name):
    first = admin.must_push(name, models.adds(1))
    again = changed(admin.push(name, models.adds(1)), 200)
    assert again["unchanged"] is True
    assert identity(again) == identity(first)
    raw = changed(admin.push_raw(name, models.adds(1)), 200)
    assert raw["unchanged"] is True


def test_the_bytes_of_an_older_version_activate_that_version(server, admin, name):
    first = admin.must_push(name, models.adds(1))
    second = admin.must_push(name, models.adds(2))
    again = changed(admin.push(name, models.adds(1)), 200)
    assert (again["version"], again["digest"]) == (first["version"], first["digest"])
    assert (again["generation"], again["unchanged"]) == (second["generation"] + 1, False)
    assert answer(server, name) == (1, *identity(again))
    assert len(ok(admin.get(f"/v1/models/{name}/versions"))["versions"]) == 2


def test_a_raw_push_is_the_same_as_a_multipart_push(server, admin, name):
    raw = changed(admin.push_raw(name, models.adds(1)), 201)
    assert changed(admin.push(name, models.adds(1)))["digest"] == raw["digest"]
    assert answer(server, name)[0] == 1


def test_a_raw_push_may_be_chunked(server, admin, name):
    body = models.two_answers(1, padding=300_000)
    chunks = (body[start : start + 7000] for start in range(0, len(body), 7000))
    changed(admin.push_raw(name, chunks), 201)
    assert ok(admin.get(f"/v1/models/{name}/versions/1"))["parts"]["artifact"]["size"] == len(body)


def curl(*arguments: str) -> dict:
    command = ["curl", "-sS", "--fail-with-body", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("padding", [0, 600_000], ids=["small", "large"])
def test_curl_pushes_and_predicts_as_the_documentation_says(server, admin, name, tmp_path, version, padding):
    file = tmp_path / "model.onnx"
    file.write_bytes(models.two_answers(4, padding))
    url = f"http://{server.admin}/v1/models/{name}"
    assert curl(version, "-T", str(file), f"{url}/artifact")["version"] == "1"
    assert curl(version, "-X", "PUT", "-F", f"model=@{file}", url)["unchanged"] is True
    assert curl(version, "-X", "PUT", "-T", str(file), "-H", "Transfer-Encoding: chunked", f"{url}/artifact")[
        "unchanged"
    ]
    body = json.dumps({"inputs": [calls.json_tensor("X", ROW["X"])]})
    answered = curl(version, "-d", body, f"http://{server.data}/v2/models/{name}/infer")
    assert answered["outputs"][0]["data"] == [4, 4, 4, 4]


def test_an_announced_digest_is_compared(admin, name):
    body = models.adds(1)
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    changed(admin.push_raw(name, body, headers={"baton-digest": digest}), 201)


# Stage and dry run.


def test_stage_stores_without_activating(server, admin, name):
    first = admin.must_push(name, models.adds(1))
    staged = changed(admin.push(name, models.adds(2), query={"stage": "true"}), 201)
    assert (staged["version"], staged["state"], staged["generation"]) == ("2", "stored", first["generation"])
    assert answer(server, name) == (1, *identity(first))
    active = changed(admin.activate(name, "2"))
    assert answer(server, name) == (2, *identity(active))


def test_stage_of_a_first_version_serves_nothing_yet(server, admin, name):
    staged = changed(admin.push_raw(name, models.adds(1), query={"stage": "true"}), 201)
    assert staged["state"] == "stored"
    refused = calls.post_infer(server, name, {"inputs": [calls.json_tensor("X", ROW["X"])]})
    check_error(refused, 503, "MODEL_NOT_READY")
    assert "retry-after" in refused.headers
    admin.activate(name, "1")
    assert answer(server, name)[0] == 1


def test_a_dry_run_checks_and_keeps_nothing(server, admin, name):
    for push in (admin.push, admin.push_raw):
        checked = changed(push(name, models.adds(1), query={"dry_run": "true"}), 200)
        assert checked["version"] is None and checked["unchanged"] is False
    check_error(admin.get(f"/v1/models/{name}"), 404, "MODEL_UNKNOWN")
    check_error(admin.push(name, b"nonsense", query={"dry_run": "true"}), 422, "WRONG_FORMAT")
    first = admin.must_push(name, models.adds(1))
    changed(admin.push(name, models.adds(2), query={"dry_run": "true"}), 200)
    assert answer(server, name) == (1, *identity(first))
    assert len(ok(admin.get(f"/v1/models/{name}/versions"))["versions"]) == 1


def test_a_dry_run_tells_the_digest_that_the_push_will_have(admin, name):
    checked = changed(admin.push(name, models.adds(1), query={"dry_run": "true"}))
    assert admin.must_push(name, models.adds(1))["digest"] == checked["digest"]


def test_stage_and_dry_run_exclude_each_other(admin, name):
    check_error(admin.push(name, models.adds(1), query={"stage": "true", "dry_run": "true"}), 400, "BAD_REQUEST")
    check_error(admin.get(f"/v1/models/{name}"), 404, "MODEL_UNKNOWN")


@pytest.mark.parametrize("query", [{"staged": "true"}, {"stage": "maybe"}])
def test_unknown_query_parameters_are_errors(admin, name, query):
    check_error(admin.push(name, models.adds(1), query=query), 400, "BAD_REQUEST")


# Conditions.


def test_if_match_lets_only_the_seen_generation_through(server, admin, name):
    first = admin.must_push(name, models.adds(1))
    stale = first["generation"] + 5
    check_error(admin.push(name, models.adds(2), if_match=stale), 412, "GENERATION_STALE")
    assert answer(server, name) == (1, *identity(first))
    second = admin.must_push(name, models.adds(2), if_match=first["generation"])
    check_error(admin.push(name, models.adds(3), if_match=first["generation"]), 412, "GENERATION_STALE")
    check_error(admin.activate(name, "1", if_match=first["generation"]), 412, "GENERATION_STALE")
    assert answer(server, name) == (2, *identity(second))
    changed(admin.activate(name, "1", if_match=second["generation"]))


def test_a_malformed_if_match_is_an_error(admin, name):
    refused = admin.push_raw(name, models.adds(1), headers={"If-Match": '"seven"'})
    check_error(refused, 400, "BAD_REQUEST")


# Golden rows.


def test_golden_rows_that_pass_are_kept(server, admin, name):
    admin.must_push(name, models.adds(1), golden=golden(1))
    assert answer(server, name)[0] == 1
    assert admin.get(f"/v1/models/{name}/versions/1/golden").content == golden(1)


def test_a_golden_row_that_fails_is_shown_as_a_difference(server, admin, name):
    first = admin.must_push(name, models.adds(1))
    refused = admin.push(name, models.adds(2), golden=golden(2, "right") + golden(3, "wrong"))
    details = check_error(refused, 422, "GOLDEN_FAILED")["details"]
    shown = json.dumps(details)
    assert "wrong" in shown and "right" not in shown
    (failure,) = details["failures"]
    difference = failure["differences"][0]
    assert (difference["output"], float(difference["expected"]), float(difference["got"])) == ("Y", 4, 3)
    assert "wrong" in refused.json()["error"]
    assert answer(server, name) == (1, *identity(first))


def test_golden_rows_gate_staging_and_dry_runs_too(admin, name):
    for query in ({"stage": "true"}, {"dry_run": "true"}):
        check_error(admin.push(name, models.adds(1), golden=golden(2), query=query), 422, "GOLDEN_FAILED")


def test_golden_rows_carry_over_to_the_next_model(server, admin, name):
    first = admin.must_push(name, models.adds(1), golden=golden(1))
    check_error(admin.push_raw(name, models.adds(2)), 422, "GOLDEN_FAILED")
    assert answer(server, name) == (1, *identity(first))


@pytest.mark.parametrize(
    ("rows", "passes"),
    [
        (golden(1.001, absolute=0.01), True),
        (golden(1.001, absolute=0.0001, relative=0.0), False),
        (golden(1.001, relative=0.01), True),
        (golden(1.0000001), True),
    ],
)
def test_the_tolerance_of_a_row_counts(admin, name, rows, passes):
    reply = admin.push(name, models.adds(1), golden=rows)
    changed(reply, 201) if passes else check_error(reply, 422, "GOLDEN_FAILED")


def test_golden_rows_of_text_integers_and_scalars(admin, name):
    rows = {"inputs": {"A": [["ä", "b"]], "B": [["c", ""]]}, "outputs": {"A_OUT": [["c", ""]], "B_OUT": [["ä", "b"]]}}
    admin.must_push(name, models.simple_text(), golden=json.dumps(rows).encode())


@pytest.mark.parametrize("rows", [b"nonsense", b'{"inputs": {}}', b"[]", b'{"inputs": {}, "outputs": {}, "x": 1}'])
def test_unreadable_golden_rows_are_named_by_line(admin, name, rows):
    body = check_error(admin.push(name, models.adds(1), golden=golden(1) + rows), 400, "BAD_GOLDEN")
    assert "line 2" in body["error"]


@pytest.mark.parametrize(
    "row",
    [
        {"inputs": {"Z": [[1]]}, "outputs": {}},
        {"inputs": {"X": [[1, 1, 1]]}, "outputs": {}},
        {"inputs": {"X": [[1, 1, 1, 1]]}, "outputs": {"Z": [1]}},
        {"inputs": {"X": [[1, 1, 1, 1]]}, "outputs": {"Y": [2, 2]}},
    ],
)
def test_golden_rows_that_do_not_fit_the_model_fail(admin, name, row):
    check_error(admin.push(name, models.adds(1), golden=json.dumps(row).encode()), 422, "GOLDEN_FAILED")


# Parts.


def test_every_part_is_read_back_byte_for_byte(admin, name):
    parts = {
        "model": models.adds(1),
        "contract": contract(name),
        "manifest": MANIFEST,
        "golden": golden(1),
        "provenance": json.dumps(PROVENANCE).encode(),
    }
    model = parts.pop("model")
    admin.must_push(name, model, **parts)
    for part, content in {"artifact": model, **parts}.items():
        stored = admin.get(f"/v1/models/{name}/versions/1/{part}")
        assert (stored.status_code, stored.content) == (200, content), part
    check_error(admin.get(f"/v1/models/{name}/versions/1/signature"), 404, "PART_MISSING")
    check_error(admin.get(f"/v1/models/{name}/versions/1/nonsense"), 404, {"PART_MISSING", "ROUTE_UNKNOWN"})
    listed = ok(admin.get(f"/v1/models/{name}/versions/1"))["parts"]
    assert listed["artifact"]["digest"] == "sha256:" + hashlib.sha256(model).hexdigest()


def test_one_part_at_a_time_the_others_stay(server, admin, name):
    admin.must_push(name, models.adds(1), manifest=MANIFEST)
    changed(admin.push_raw(name, contract(name), "contract"), 201)
    changed(admin.push_raw(name, models.adds(2)), 201)
    last = changed(admin.push_raw(name, b'description = "two"\n', "manifest"), 201)
    assert last["version"] == "4"
    at = f"/v1/models/{name}/versions/4"
    assert admin.get(f"{at}/contract").content == contract(name)
    assert admin.get(f"{at}/artifact").content == models.adds(2)
    assert admin.get(f"{at}/manifest").content == b'description = "two"\n'
    assert answer(server, name)[0] == 2


def test_a_first_push_without_a_model_is_empty(admin, name):
    check_error(admin.push_raw(name, MANIFEST, "manifest"), 400, "UPLOAD_EMPTY")
    check_error(admin.push(name, contract=contract(name)), 400, "UPLOAD_EMPTY")
    check_error(admin.get(f"/v1/models/{name}"), 404, "MODEL_UNKNOWN")


# Looking.


def test_the_model_and_its_versions_are_shown(admin, name):
    first = admin.must_push(name, models.adds(1))
    second = admin.must_push(name, models.adds(2))
    shown = admin.model(name)
    assert (shown["model"], shown["active"], shown["generation"]) == (name, "2", second["generation"])
    assert shown["digest"] == second["digest"]
    states = {version["version"]: version["state"] for version in shown["versions"]}
    assert states["2"] == "active" and states["1"] in ("ready", "stored")
    listed = ok(admin.get(f"/v1/models/{name}/versions"))["versions"]
    assert [version["version"] for version in listed] == ["2", "1"]
    assert ok(admin.get(f"/v1/models/{name}/versions/1"))["digest"] == first["digest"]
    assert name in {model["model"] for model in ok(admin.get("/v1/models"))["models"]}


def test_history_tells_every_change_newest_first(admin, name):
    admin.must_push(name, models.adds(1), provenance=json.dumps(PROVENANCE).encode())
    admin.must_push(name, models.adds(2))
    admin.activate(name, "1")
    admin.activate(name, "2")
    admin.roll_back(name)
    entries = admin.history(name)
    assert [(entry["version"], entry["reason"]) for entry in entries] == [
        ("1", "rollback"),
        ("2", "activate"),
        ("1", "activate"),
        ("2", "push"),
        ("1", "push"),
    ]
    generations = [entry["generation"] for entry in entries]
    assert generations == sorted(generations, reverse=True) and len(set(generations)) == 5
    assert entries[-1]["provenance"] == PROVENANCE
    assert all(re.match(r"\d{4}-\d\d-\d\dT", entry["at"]) for entry in entries)


@pytest.mark.parametrize("path", ["", "/versions", "/versions/1", "/versions/1/artifact"])
def test_looking_at_an_unknown_model_is_not_found(admin, path):
    check_error(admin.get(f"/v1/models/nobody{path}"), 404, "MODEL_UNKNOWN")


@pytest.mark.parametrize("version", ["9", "0", "01", "latest", "-1", "99999999999999999999"])
def test_unknown_versions_are_not_found(admin, adder, version):
    name = adder[0]
    check_error(admin.get(f"/v1/models/{name}/versions/{version}"), 404, "VERSION_UNKNOWN")
    check_error(admin.activate(name, version), 404, "VERSION_UNKNOWN")
    check_error(admin.remove(name, version), 404, "VERSION_UNKNOWN")


def test_changes_of_an_unknown_model_are_not_found(admin):
    for response in (admin.activate("nobody", "1"), admin.roll_back("nobody"), admin.remove("nobody", force=True)):
        check_error(response, 404, "MODEL_UNKNOWN")


# Removing.


def test_a_served_version_is_not_removed(server, admin, name):
    admin.must_push(name, models.adds(1))
    check_error(admin.remove(name, "1"), 409, "VERSION_IN_USE")
    check_error(admin.remove(name), 409, "VERSION_IN_USE")
    assert answer(server, name)[0] == 1


def test_a_removed_version_is_gone_and_its_number_too(server, admin, name):
    for amount in (1, 2):
        admin.must_push(name, models.adds(amount))
    assert admin.remove(name, "1").status_code in (200, 204)
    assert [version["version"] for version in admin.model(name)["versions"]] == ["2"]
    assert admin.activate(name, "1").status_code in (404, 409)
    assert admin.roll_back(name).status_code == 409
    assert admin.get(f"/v1/models/{name}/versions/1/artifact").status_code in (404, 409)
    assert answer(server, name)[0] == 2
    assert admin.must_push(name, models.adds(1))["version"] == "3"


def test_a_removed_model_is_gone_and_can_come_back(server, admin, name):
    for amount in (1, 2):
        last = admin.must_push(name, models.adds(amount))
    assert admin.remove(name, force=True).status_code in (200, 204)
    check_error(admin.get(f"/v1/models/{name}"), 404, "MODEL_UNKNOWN")
    body = {"inputs": [calls.json_tensor("X", ROW["X"])]}
    check_error(calls.post_infer(server, name, body), 404, "MODEL_UNKNOWN")
    again = admin.must_push(name, models.adds(1))
    assert again["version"] == "3"
    assert again["generation"] > last["generation"]
    assert answer(server, name)[0] == 1


# Unrelated models, one name.


def test_a_name_can_change_to_an_unrelated_model_and_back(server, admin, name):
    admin.must_push(name, models.adds(1))
    admin.must_push(name, models.simple_text())
    text = np.array([["a"]], dtype=object)
    assert calls.triton_grpc_raw(server, name, {"A": text, "B": text})["A_OUT"].tolist() == [[b"a"]]
    check_error(calls.post_infer(server, name, {"inputs": [calls.json_tensor("X", ROW["X"])]}), 400, "INPUT_NAMES")
    admin.roll_back(name)
    assert answer(server, name)[0] == 1


def test_many_models_are_pushed_at_once(server, admin, name):
    failures = []

    def push(number: int):
        response = requests.put(
            f"http://{server.admin}/v1/models/{name}-{number}/artifact", data=models.adds(number), timeout=60
        )
        if response.status_code != 201:
            failures.append(response.text)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [answer(server, f"{name}-{number}")[0] for number in range(6)] == list(range(6))


def test_names_of_every_allowed_form_work(server, admin):
    for model in ("a", "0", "con", "resnet-50_v1.5", "x" * 63):
        admin.must_push(model, models.adds(1))
        assert answer(server, model)[0] == 1
        assert calls.triton_grpc_raw(server, model, ROW)["Y"][0, 0] == 1


# The pages of the admin port.


@pytest.mark.parametrize("path", ["/metrics", "/openapi.json", "/livez", "/readyz", "/v1/limits"])
def test_pages_of_the_admin_port_answer(admin, path):
    assert admin.get(path).status_code == 200


def test_docs_show_swagger_ui_from_the_document(admin):
    page = admin.get("/docs")
    assert page.status_code == 200 and "swagger" in page.text.lower()
    document = ok(admin.get("/openapi.json"))
    assert document["openapi"].startswith("3.1")
    assert {"/v1/models", "/v1/models/{model}", "/v1/history"} <= set(document["paths"])


def test_metrics_count_requests_by_model_and_forget_the_removed(server, admin, name):
    admin.must_push(name, models.adds(1))
    for _ in range(3):
        answer(server, name)
    lines = [line for line in admin.get("/metrics").text.splitlines() if f'"{name}"' in line]
    assert any(line.endswith(" 3") and "request" in line for line in lines), lines
    admin.remove(name, force=True)
    remaining = [line for line in admin.get("/metrics").text.splitlines() if f'"{name}"' in line]
    assert not [line for line in remaining if "version" in line], remaining
