"""`make pipeline`, whole: data arrive, drift, are poisoned, are noise; every act must come out, and no call may be lost."""

import os
import subprocess

import pytest

from support.pipeline import PYTHON, free_port
from support.runner import BINARY, ONNXRUNTIME, REPOSITORY


@pytest.mark.timeout(600)
def test_every_act_of_the_sample_comes_out(tmp_path):
    ports = [f"--{name}-port=127.0.0.1:{free_port()}" for name in ("data", "admin", "engine")]
    command = [str(PYTHON), str(REPOSITORY / "pipeline/sample/digits/demo.py"), "--once", f"--work={tmp_path / 'work'}"]
    environment = os.environ | {"BATON_BIN": BINARY, "ORT_DYLIB_PATH": ONNXRUNTIME}
    played = subprocess.run([*command, *ports], env=environment, capture_output=True, text=True, timeout=500)
    assert played.returncode == 0, played.stdout[-6000:] + played.stderr[-2000:]
    assert "NOT" not in played.stdout.split("=== What came out")[1]
