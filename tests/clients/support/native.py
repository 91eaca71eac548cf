"""Native models: those that `make native` built, and small ones in C that are compiled here."""

import os
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import requests

from .runner import REPOSITORY

SOURCES = REPOSITORY / "tests/clients/native"
BUILT = Path(os.environ.get("BATON_NATIVE", REPOSITORY / "target/native"))


def built(name: str) -> bytes:
    """A library of `make native`: `iris`, `spikes/model` or `hostile/<sin>`."""
    path = BUILT / f"{name}.so"
    assert path.is_file(), f"{path} is missing: run `make native`"
    return path.read_bytes()


@cache
def compiled(source: str, *options: str) -> bytes:
    """A library made of C source text."""
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder, "model.c")).write_text(source)
        library = Path(folder, "model.so")
        include = [f"-I{REPOSITORY / 'model-abi/include'}", f"-I{SOURCES}"]
        command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", *options, *include, "-o", str(library), str(path), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return library.read_bytes()


def library(name: str, *options: str) -> bytes:
    """A model of tests/clients/native."""
    return compiled((SOURCES / f"{name}.c").read_text(), *options)


def metric(server, name: str, **labels: str) -> float:
    """The sum of a metric's series that have these labels."""
    lines = requests.get(f"http://{server.admin}/metrics", timeout=10).text.splitlines()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    found = [line for line in lines if line.split("{")[0] == name and all(each in line for each in wanted)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


def holders(address: str) -> set[int]:
    """The processes that listen at an address."""
    port = int(address.rpartition(":")[2])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
    assert inodes, f"nobody listens at {address}"
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) in inodes:
                found.add(int(link.parts[2]))
        except OSError:
            continue
    return found


def children(parent: int) -> set[int]:
    """The processes that a process has started and that are still there."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent_of_it = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent_of_it) == parent and state != "Z":
            found.add(int(path.parts[2]))
    return found


@contextmanager
def calling(*clients):
    """Clients that call without a pause until the block ends; how often each has so far. A failure of one is the block's."""
    over = threading.Event()
    counts = [0] * len(clients)

    def repeat(index: int) -> None:
        while not over.is_set():
            clients[index]()
            counts[index] += 1

    with ThreadPoolExecutor(len(clients)) as pool:
        running = [pool.submit(repeat, index) for index in range(len(clients))]
        try:
            yield counts
        finally:
            over.set()
    for each in running:
        each.result()
