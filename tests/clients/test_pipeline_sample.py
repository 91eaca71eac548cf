"""`make pipeline`, whole: data arrive, drift, are poisoned, are noise; every act must come out, and no call may be lost."""

import os
import pathlib
import signal
import subprocess

import pytest

from support.pipeline import PYTHON, free_port
from support.runner import BINARY, ONNXRUNTIME, REPOSITORY


def sample(work):
    """The command and its environment."""
    ports = [f"--{name}-port=127.0.0.1:{free_port()}" for name in ("data", "admin", "engine")]
    command = [str(PYTHON), str(REPOSITORY / "pipeline/sample/digits/demo.py"), "--once", f"--work={work}", *ports]
    return command, os.environ | {"BATON_BIN": BINARY, "ORT_DYLIB_PATH": ONNXRUNTIME}


@pytest.mark.timeout(600)
def test_every_act_of_the_sample_comes_out(tmp_path):
    command, environment = sample(tmp_path / "work")
    played = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert played.returncode == 0, played.stdout[-6000:] + played.stderr[-2000:]
    assert "NOT" not in played.stdout.split("=== What came out")[1]


def test_who_ends_the_sample_again_and_again_leaves_nothing_of_it(tmp_path):
    command, environment = sample(tmp_path / "work")
    played = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert b"=== 1." in played.stdout.readline() + played.stdout.readline()
    # As a shell, make and whoever is impatient do it.
    while played.poll() is None:
        played.send_signal(signal.SIGTERM)
    assert played.returncode == 143
    commands = [path.read_bytes() for path in pathlib.Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [command for command in commands if str(tmp_path).encode() in command]
