"""Where a model comes from: the trainer's code, its environment, who ran it."""

import getpass
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UsageError

# A trainer with more files than this was started in somebody's home folder.
MAX_FILES = 2000


@dataclass(frozen=True)
class Code:
    """`digest` is over names and digests of the files, `commit` what git calls it: `-dirty` if the folder was changed
    since."""

    digest: str
    commit: str | None
    files: dict[str, str]

    def json(self) -> dict[str, Any]:
        return {"digest": self.digest, "commit": self.commit}


@dataclass(frozen=True)
class Environment:
    """`digest` is over the Python version and all installed packages."""

    digest: str
    python: str
    packages: dict[str, str]

    def json(self) -> dict[str, Any]:
        return {"digest": self.digest, "python": self.python, "packages": self.packages}


def code(files: Iterable[str | Path] | None = None) -> Code:
    """The code in these files and folders (relative to the program's folder); by default all `*.py` in that folder and
    below. The engine's revision of the job covers its other files.

    More than is needed rather than less: a file too many trains once too often, one too few takes an old model for a
    new one. Raises `UsageError`.
    """
    program = Path(getattr(sys.modules["__main__"], "__file__", None) or sys.argv[0] or ".").resolve()
    root = program.parent if program.is_file() else Path.cwd()
    found: dict[str, str] = {}
    python = (path for path in _below(root) if path.suffix == ".py")
    for path in python if files is None else _given(root, files):
        name = os.path.relpath(path, root)
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        if len(found) > MAX_FILES:
            raise UsageError(
                f"more than {MAX_FILES} files of code below {root}: say which with main(train, code=[...])"
            )
    if not found:
        raise UsageError(f"no code found below {root}: say where with main(train, code=[...])")
    listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(found.items()))
    return Code("sha256:" + hashlib.sha256(listing.encode()).hexdigest(), _commit(root), found)


def _below(root: Path) -> Iterable[Path]:
    for folder, folders, names in os.walk(root):
        # Hidden folders and virtual environments are not the trainer's.
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in ("__pycache__", "node_modules")
            and not (Path(folder) / name / "pyvenv.cfg").exists()
        )
        files = (Path(folder) / name for name in sorted(names) if not name.startswith("."))
        yield from (path for path in files if path.is_file())


def _given(root: Path, files: Iterable[str | Path]) -> Iterable[Path]:
    for entry in files:
        path = root / entry
        if path.is_dir():
            yield from _below(path)
        elif path.is_file():
            yield path
        else:
            raise UsageError(f"code=[...]: there is no {path}")


def _commit(root: Path) -> str | None:
    """From the variable BATON_COMMIT (an image has no git), else git; `None` outside a repository."""
    if commit := os.environ.get("BATON_COMMIT"):
        return commit[:200]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def environment() -> Environment:
    """Python and every installed package, by its name in lower case with `-`."""
    packages: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        if name := distribution.metadata["Name"]:
            # The first on the path is the one that is imported.
            packages.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    packages = dict(sorted(packages.items()))
    python = platform.python_version()
    text = json.dumps({"packages": packages, "python": python}, sort_keys=True, separators=(",", ":"))
    return Environment("sha256:" + hashlib.sha256(text.encode()).hexdigest(), python, packages)


def who() -> str:
    """BATON_WHO, else user@host."""
    if name := os.environ.get("BATON_WHO"):
        return name[:200]
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
