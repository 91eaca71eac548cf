"""The workflows of deploy/ci, as they are, against a server: GitHub's by `act` on this machine, GitLab's lines by a
shell."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import requests
import yaml
from support import pipeline
from support.pipeline import PIPELINE
from support.runner import BINARY, REPOSITORY, Runner

CI = REPOSITORY / "deploy/ci"
DIGITS = REPOSITORY / "pipeline/sample/digits"
HELPER = REPOSITORY / "pipeline/python"
TOKEN = "a token of a CI job"
SECONDS = 250
# What docs/pipeline-training.md begins with.
TRAINER = """
from sklearn.linear_model import LogisticRegression
from baton_pipeline import main

def train(run):
    model = LogisticRegression(C=run.parameter("C", 1.0), max_iter=50).fit(run.features, run.labels)
    accuracy = model.score(run.features, run.labels)
    run.finish(model, metrics={"accuracy": accuracy}, input_name="pixels")

main(train)
"""
WITH_CONTRACT = ('input_name="pixels"', 'input_name="pixels", contract=__import__("pathlib").Path("contract.proto")')
BREAKING = ("repeated float probabilities = 2;", "repeated float probabilities = 3;")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    subprocess.run([str(pipeline.PYTHON), str(DIGITS / "make_data.py"), str(folder)], check=True, timeout=60)
    return folder / "v1.csv"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The helper as docs/ci.md has it made."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = shutil.copytree(HELPER, folder / "python", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    command = [str(pipeline.PYTHON), "-m", "pip", "wheel", "-q", "--no-index", "--no-build-isolation", "--no-deps"]
    subprocess.run([*command, "-w", str(folder), str(copy)], check=True, timeout=120)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A machine's Python, which has what the helper builds on, but not the helper."""
    folder = tmp_path_factory.mktemp("python")
    subprocess.run([str(pipeline.PYTHON), "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    (packages,) = (pipeline.PIPELINE / "lib").glob("python*/site-packages")
    (site,) = (folder / "lib").glob("python*/site-packages")
    for entry in packages.iterdir():
        if "baton_pipeline" not in entry.name:
            (site / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def repository(tmp_path, data, wheel, python):
    """A user's repository: trainer, its contract, its data, the helper's wheel, in git, with all workflows."""
    folder = tmp_path / "repository"
    (folder / "data").mkdir(parents=True)
    (folder / "train.py").write_text(TRAINER)
    shutil.copy(DIGITS / "contract.proto", folder)
    shutil.copy(data, folder / "data/digits.csv")
    (folder / "wheels").mkdir()
    shutil.copy(wheel, folder / "wheels")
    (folder / "requirements.txt").write_text(f"./wheels/{wheel.name}[sklearn]\n")
    (tmp_path / "python").symlink_to(python)
    shutil.copytree(CI / "github", folder / ".github/workflows")
    shutil.copy(CI / "gitlab/.gitlab-ci.yml", folder)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder)
    return folder


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=somebody", "-c", "user.email=somebody@localhost", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "feat: a change")


def variables(folder: Path) -> dict[str, str]:
    """Of a machine for CI jobs: `python` is on its path, and another `baton` than the one that BATON names."""
    bin_folder = folder.parent / "bin"
    bin_folder.mkdir(exist_ok=True)
    # act loses what a step wrote in its last milliseconds, about once in fifteen times; CI systems do not.
    for name, program in (("my-baton", BINARY), ("baton", "/bin/false"), ("curl", shutil.which("curl"))):
        (bin_folder / name).write_text(f'#!/bin/sh\n"{program}" "$@"; code=$?; sleep 0.3; exit $code\n')
        (bin_folder / name).chmod(0o755)
    path = [str(bin_folder), str(folder.parent / "python/bin"), os.environ["PATH"]]
    environment = pipeline.clean_environment()
    return {**environment, "PATH": ":".join(path), "BATON_PARAM_C": "0.5", "PIP_NO_INDEX": "1"}


def by_act(folder: Path, workflow: str, server: str, token: str) -> subprocess.CompletedProcess:
    home = folder.parent / "home"
    (home / ".config/act").mkdir(parents=True, exist_ok=True)
    # Without the file it asks which image to use.
    (home / ".config/act/actrc").write_text("")
    command = [
        str(PIPELINE / "bin/act"),
        "push",
        "-W",
        f".github/workflows/{workflow}",
        "-P",
        "ubuntu-latest=-self-hosted",
    ]
    command += [
        "--action-offline-mode",
        "--no-cache-server",
        "--var",
        f"BATON_SERVER={server}",
        "--var",
        f"BATON={folder.parent}/bin/my-baton",
        "--secret",
        "BATON_TOKEN",
    ]
    command += ["--env", "BATON_PARAM_C=0.5"]
    environment = {**variables(folder), "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "BATON_TOKEN": token}
    return run(command, folder, environment)


def by_shell(folder: Path, job: str, server: str, token: str) -> subprocess.CompletedProcess:
    """The lines of a job as GitLab's shell executor runs them: one script that ends at the first failure."""
    jobs = yaml.safe_load((folder / ".gitlab-ci.yml").read_text())
    lines = jobs[jobs[job]["extends"]]["before_script"] + jobs[job]["script"]
    assert all(isinstance(line, str) for line in lines)
    environment = {**variables(folder), "BATON_SERVER": server, "BATON_TOKEN": token, "BATON": "my-baton"}
    environment.update(CI_COMMIT_SHA=git(folder, "rev-parse", "HEAD"), CI_JOB_URL="https://gitlab.example/jobs/1")
    return run(["bash", "-e", "-o", "pipefail", "-c", "\n".join(lines)], folder, environment)


def run(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )


JOBS = {
    "github": lambda *arguments: by_act(*arguments[:1], "push-model.yml", *arguments[1:]),
    "github-curl": lambda *arguments: by_act(*arguments[:1], "push-model-curl.yml", *arguments[1:]),
    "gitlab": lambda *arguments: by_shell(*arguments[:1], "push-model", *arguments[1:]),
    "gitlab-curl": lambda *arguments: by_shell(*arguments[:1], "push-model-curl", *arguments[1:]),
}


@pytest.fixture
def guarded(start, tmp_path):
    """A server that asks for a token on its admin port."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    return start("--admin-token-file", str(tmp_path / "token"))


def asked(server, path: str) -> dict:
    answer = requests.get(f"http://{server.admin}{path}", headers={"authorization": f"Bearer {TOKEN}"}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("job", JOBS)
def test_a_ci_job_trains_and_pushes_and_fails_with_the_reason_when_it_is_refused(repository, guarded, job):
    address = f"http://{guarded.admin}"
    done = JOBS[job](repository, address, TOKEN)
    assert done.returncode == 0, done.stdout
    first = asked(guarded, "/v1/models/digits")
    assert (first["active"], first["state"]) == ("1", "serving")
    (entry,) = asked(guarded, "/v1/history?model=digits")["entries"]
    provenance = entry["provenance"]
    assert provenance["metrics"]["accuracy"] > 0.5 and provenance["parameters"] == {"C": 0.5}
    # git knows the commit, whoever pushes.
    assert provenance["code"]["commit"].startswith(git(repository, "rev-parse", "HEAD"))
    if not job.endswith("curl"):
        assert provenance["commit"] == git(repository, "rev-parse", "HEAD") and "://" in provenance["ci"]

    trainer = repository / "train.py"
    trainer.write_text(TRAINER.replace(*WITH_CONTRACT))
    commit(repository)
    done = JOBS[job](repository, address, TOKEN)
    assert done.returncode == 0, done.stdout
    first = asked(guarded, "/v1/models/digits")
    contract = repository / "contract.proto"
    contract.write_text(contract.read_text().replace(*BREAKING))
    commit(repository)
    refused = JOBS[job](repository, address, TOKEN)
    assert refused.returncode != 0
    assert "CONTRACT_BREAKING" in refused.stdout and "probabilities" in refused.stdout, refused.stdout
    assert TOKEN not in refused.stdout
    assert asked(guarded, "/v1/models/digits")["digest"] == first["digest"]


def test_a_ci_job_without_a_valid_token_fails_with_the_reason(repository, guarded):
    done = JOBS["gitlab"](repository, f"http://{guarded.admin}", "another token")
    assert done.returncode != 0 and "NO_CREDENTIALS" in done.stdout, done.stdout


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
def test_a_model_that_is_to_be_compared_first_enters_the_pipeline(tmp_path):
    """The bundle in the store, once, and `artifact.pushed` with it; label and classes are those of the provenance."""
    out, at, sink = tmp_path / "out", tmp_path / "store", pipeline.Sink()
    out.mkdir()
    (out / "model.onnx").write_bytes(b"model")
    known = {
        "label": "kind",
        "features": ["a"],
        "classes": ["no", "yes"],
        "dataset": {"name": "d", "digest": "sha256:1"},
    }
    (out / "provenance.json").write_text(json.dumps(known))
    (tmp_path / "holdout.csv").write_text("a,kind\n1,yes\n")
    environment = {**pipeline.clean_environment(), "BATON_ARTIFACTS": f"file://{at}/", "K_SINK": sink.url}
    command = ["sh", str(CI / "evaluate.sh"), "digits", str(out), str(tmp_path / "holdout.csv")]
    try:
        for label in ([], [], ["other"]):
            subprocess.run([*command, *label], env=environment, check=True, timeout=30)
        first, again, other = sink.taken
    finally:
        sink.close()
    assert first == again and (first["type"], first["subject"]) == ("dev.baton.artifact.pushed.v1", "digits")
    bundle = json.loads(pipeline.blob(at, first["data"]["bundle"]))
    parts = bundle.pop("parts")
    assert bundle == {
        **{name: known[name] for name in ("label", "features", "classes")},
        **{"model": "digits", "dataset": "d", "dataset_digest": "sha256:1", "holdout": first["data"]["holdout"]},
    }
    assert pipeline.blob(at, parts["model.onnx"]) == b"model" and set(parts) == {"model.onnx", "provenance.json"}
    assert pipeline.blob(at, bundle["holdout"]) == (tmp_path / "holdout.csv").read_bytes()
    assert json.loads(pipeline.blob(at, other["data"]["bundle"]))["label"] == "other"
    assert not [path for path in at.rglob("*") if "#" in path.name]


@pytest.mark.parametrize("path", sorted(CI.rglob("*.yml")), ids=lambda path: path.name)
def test_the_workflows_are_what_their_systems_take(path):
    content = yaml.safe_load(path.read_text())
    if path.parent.name == "github":
        # YAML 1.1 reads `on` as a truth value.
        assert {"name", "jobs", "permissions", "concurrency"} <= set(content) and (True in content or "on" in content)
        for job in content["jobs"].values():
            assert job["runs-on"] and all(("run" in step) != ("uses" in step) for step in job["steps"])
    else:
        for name, job in content.items():
            assert job.get("script") or name.startswith("."), name
            assert job.get("extends", name) in content


# What the examples stand on.


def push(server: str, folder: Path, *arguments: str) -> subprocess.Popen:
    environment = {**pipeline.clean_environment(), "BATON_SERVER": server, "BATON_TOKEN": TOKEN}
    command = [BINARY, "push", "simple", str(folder), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


SIMPLE = REPOSITORY / "sample-models/simple"


def test_a_push_that_waits_outlives_a_server_that_is_away(tmp_path):
    port = pipeline.free_port()
    waiting = push(f"http://127.0.0.1:{port}", SIMPLE, "--wait=60", "--json")
    line = waiting.stderr.readline()
    assert "cannot reach" in line and "trying again" in line
    server = Runner(tmp_path / "store", admin_listen=f"127.0.0.1:{port}")
    try:
        out, err = waiting.communicate(timeout=60)
        assert waiting.returncode == 0, err
        change = json.loads(out)
        assert (change["version"], change["state"]) == ("1", "active")
        assert requests.get(f"http://{server.data}/v2/models/simple/ready", timeout=10).status_code == 200
    finally:
        assert server.stop() == 0


def test_a_push_that_waits_gives_up_in_time():
    waiting = push(f"http://127.0.0.1:{pipeline.free_port()}", SIMPLE, "--wait=1")
    _, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 69 and "cannot reach" in err.splitlines()[-1]


def test_a_push_that_waits_does_not_wait_for_what_stays_refused(server, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    refused = push(f"http://{server.admin}", tmp_path, "--wait")
    _, err = refused.communicate(timeout=30)
    assert refused.returncode == 1 and "WRONG_FORMAT" in err and "trying again" not in err


@pytest.mark.parametrize("arguments", [["--wait", "--stage"], ["--wait", "--dry-run"], ["--wait=soon"], ["--wait=-1"]])
def test_waiting_for_what_never_comes_is_wrong_usage(arguments):
    wrong = push("http://127.0.0.1:1", SIMPLE, *arguments)
    _, err = wrong.communicate(timeout=30)
    assert wrong.returncode in (2, 64) and "--wait" in err
