"""The admin API through `requests`, and the checks that every reply of it must pass."""

import re

import requests

TIMEOUT = 60
LEAKS = re.compile(r"/tmp/|/root/|/home/|/usr/|onnxruntime_src|\.rs:\d+|0x[0-9a-f]{8,}|panicked")
SOURCES = {"request", "model", "runner", "dependency"}
CHANGE_FIELDS = {"model", "version", "digest", "generation", "state", "unchanged", "warnings"}


class Admin:
    """A client of one server's admin port. Calls return the response; `expect_*` check it."""

    def __init__(self, address: str):
        self.address = address
        self.base = f"http://{address}"
        self.session = requests.Session()

    def call(self, method: str, path: str, **options) -> requests.Response:
        return self.session.request(method, self.base + path, timeout=TIMEOUT, **options)

    def get(self, path: str, **options) -> requests.Response:
        return self.call("GET", path, **options)

    def push(self, name: str, model: bytes | None = None, *, if_match: int | None = None, query=None, **parts):
        """Multipart push of `model` and the other parts by name."""
        if model is not None:
            parts["model"] = model
        files = {part: (part, content) for part, content in parts.items()}
        return self.call("PUT", f"/v1/models/{name}", files=files, params=query, headers=_condition(if_match))

    def push_raw(self, name: str, body, part: str = "artifact", *, headers=None, query=None):
        return self.call("PUT", f"/v1/models/{name}/{part}", data=body, headers=headers, params=query)

    def activate(self, name: str, version: str, if_match: int | None = None):
        return self.call("POST", f"/v1/models/{name}/versions/{version}:activate", headers=_condition(if_match))

    def roll_back(self, name: str):
        return self.call("POST", f"/v1/models/{name}:rollback")

    def remove(self, name: str, version: str | None = None, force: bool = False):
        path = f"/v1/models/{name}" + (f"/versions/{version}" if version else "")
        return self.call("DELETE", path, params={"force": "true"} if force else None)

    def model(self, name: str) -> dict:
        return ok(self.get(f"/v1/models/{name}"))

    def history(self, name: str) -> list[dict]:
        return ok(self.get("/v1/history", params={"model": name}))["entries"]

    def must_push(self, name: str, model: bytes | None = None, **options) -> dict:
        """A push that makes a new version."""
        return changed(self.push(name, model, **options), 201)


def _condition(generation: int | None) -> dict:
    return {} if generation is None else {"If-Match": f'"{generation}"'}


def ok(response: requests.Response, status: int = 200) -> dict:
    assert response.status_code == status, f"{response.status_code}: {response.text}"
    return response.json()


def changed(response: requests.Response, status: int = 200) -> dict:
    """The reply to a change of what is served, complete."""
    change = ok(response, status)
    assert set(change) >= CHANGE_FIELDS, change
    return change


def check_error(response, status: int, code: str | set[str]) -> dict:
    """An error in the form that every route must give, free of paths and of a library's own words."""
    codes = {code} if isinstance(code, str) else code
    assert response.status_code == status, f"{response.status_code} instead of {status}: {response.text[:500]}"
    assert response.headers["content-type"].startswith("application/json"), response.headers
    body = response.json()
    assert body["code"] in codes, body
    assert body["source"] in SOURCES, body
    assert isinstance(body["request_id"], str) and body["request_id"], body
    assert isinstance(body["error"], str) and body["error"].strip(), body
    assert not LEAKS.search(response.text), response.text
    return body
