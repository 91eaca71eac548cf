"""The real binary as a child process: started on free ports, watched, stopped."""

import os
import queue
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
BINARY = os.environ.get("BATON_BIN", str(REPOSITORY / "target/release/baton"))
ONNXRUNTIME = os.environ.get("BATON_ONNXRUNTIME", str(REPOSITORY / ".cache/onnxruntime/libonnxruntime.so.1.31.1"))
START_SECONDS = 30
STOP_SECONDS = 45
# A line of stdout; the log on stderr says the same in its own words.
LISTENING = re.compile(r"(data|admin) listening on (\S+:\d+)\n?")


class Runner:
    """A running `baton serve`. `data` and `admin` are `host:port`."""

    def __init__(self, store: Path, *arguments: str, admin_listen: str = "127.0.0.1:0"):
        self.store = store
        self.lines: list[str] = []
        self._addresses: queue.Queue = queue.Queue()
        command = [BINARY, "serve", "--store", str(store), "--onnxruntime", ONNXRUNTIME]
        command += ["--listen", "127.0.0.1:0", "--admin-listen", admin_listen, *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BATON_")}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", env=environment
        )
        self._readers = [
            threading.Thread(target=self._read, args=(pipe,), daemon=True)
            for pipe in (self.process.stdout, self.process.stderr)
        ]
        for reader in self._readers:
            reader.start()
        addresses = dict([self._next_address(), self._next_address()])
        self.data, self.admin = addresses["data"], addresses["admin"]

    def _read(self, pipe) -> None:
        for line in pipe:
            self.lines.append(line)
            if pipe is self.process.stdout and (found := LISTENING.fullmatch(line)):
                self._addresses.put(found.groups())
        if pipe is self.process.stdout:
            self._addresses.put(None)

    def _next_address(self) -> tuple[str, str]:
        try:
            address = self._addresses.get(timeout=START_SECONDS)
        except queue.Empty:
            address = None
        if address is None:
            self.kill()
            for reader in self._readers:
                reader.join(timeout=5)
            raise RuntimeError(f"baton did not start, exit code {self.process.returncode}:\n{self.log}")
        return address

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def is_ready(self) -> bool:
        """Are all models that were active before the start being served again?"""
        try:
            return urllib.request.urlopen(f"http://{self.data}/readyz", timeout=10).status == 200
        except urllib.error.HTTPError:
            return False

    def is_running(self) -> bool:
        return self.process.poll() is None

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        try:
            code = self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"baton did not stop within {STOP_SECONDS} s:\n{self.log}") from None
        for reader in self._readers:
            reader.join(timeout=5)
        return code

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.is_running():
            self.terminate()
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def staged_files(self) -> list[Path]:
        return [path for path in (self.store / "staging").rglob("*") if path.is_file()]


def eventually(condition, what: str, seconds: float = 5.0) -> None:
    """Polls until `condition()` holds; fails with `what` when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
