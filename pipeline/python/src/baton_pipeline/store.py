"""The artifact store: blobs by their digest and small entries, created once and never changed.

The same layout as the pipeline's own functions use (docs/pipeline-reference.md), in a folder or in S3.
"""

import hashlib
import json
import os
import re
import secrets
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from .errors import EventError, StoreError, UsageError, missing

CHUNK = 1024 * 1024
DIGEST = re.compile("sha256:[0-9a-f]{64}")
# As long as the sink is tried: a trained model is not thrown away for a server that is away for a moment.
PATIENCE_S = 300.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class Reference:
    """Names a blob: `sha256:` and 64 hex digits, and its size in bytes."""

    digest: str
    size: int

    @classmethod
    def of(cls, content: bytes) -> "Reference":
        return cls("sha256:" + hashlib.sha256(content).hexdigest(), len(content))

    @classmethod
    def parse(cls, value: Any, what: str) -> "Reference":
        """From an event's data; `what` is named in the `EventError`."""
        digest, size = (value.get("digest"), value.get("size")) if isinstance(value, dict) else (None, None)
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest) or type(size) is not int:
            raise EventError(f'{what} is no reference, {{"digest": "sha256:...", "size": 1}}: {value!r:.200}')
        return cls(digest, size)

    def json(self) -> dict[str, Any]:
        return {"digest": self.digest, "size": self.size}

    @property
    def key(self) -> str:
        return "blobs/sha256/" + self.digest.removeprefix("sha256:")


def digest_of(path: Path) -> Reference:
    """A file, read piece by piece. Raises `OSError`."""
    size, digest = 0, hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Reference("sha256:" + digest.hexdigest(), size)


class Store(ABC):
    """One store. Every method raises `StoreError`."""

    def put(self, content: bytes) -> Reference:
        """Stores a blob; storing it again costs a read. A damaged one under its name is an error, not a success."""
        reference = Reference.of(content)
        if not self._create(reference.key, content):
            self.get(reference)
        return reference

    def get(self, reference: Reference) -> bytes:
        """A blob, verified."""
        with self.file(reference) as path:
            return path.read_bytes()

    @contextmanager
    def file(self, reference: Reference) -> Iterator[Path]:
        """A blob as a file that must not be changed, verified; it may be gone after the block."""
        with self._file(reference.key) as path:
            if path is None:
                raise StoreError(f"the store has no {reference.key}")
            found = digest_of(path)
            if found.digest != reference.digest:
                raise StoreError(f"{reference.key} is damaged: its bytes have the digest {found.digest}")
            if found.size != reference.size:
                raise StoreError(f"{reference.key} has {found.size} bytes, the reference says {reference.size}")
            yield path

    def has(self, reference: Reference) -> bool:
        """Is there such a blob, whole?"""
        try:
            with self.file(reference):
                return True
        except StoreError:
            return False

    def memo(self, stage: str, key: str) -> dict[str, Any] | None:
        """What a stage answered for these inputs, if it did; `key` is a hex SHA-256."""
        with self._file(f"memo/{stage}/{key}.json") as path:
            if path is None:
                return None
            try:
                answer = json.loads(path.read_bytes())
            except ValueError as error:
                raise StoreError(f"memo/{stage}/{key}.json is damaged: {error}") from error
        return answer if isinstance(answer, dict) else None

    def remember(self, stage: str, key: str, answer: Mapping[str, Any]) -> bool:
        """Keeps what a stage answered; the first answer stays. Was this one it?"""
        return self._create(f"memo/{stage}/{key}.json", json.dumps(answer, indent=2, allow_nan=False).encode())

    @abstractmethod
    def _create(self, key: str, content: bytes) -> bool:
        """Creates an entry, whole or not at all; `False` if there was one."""

    @abstractmethod
    @contextmanager
    def _file(self, key: str) -> Iterator[Path | None]:
        """An entry as a file; `None` if there is none."""


class FolderStore(Store):
    """A folder. Entries are written beside their place, synced, and linked there: a link fails if there is one."""

    def __init__(self, folder: Path):
        self.folder = folder

    def _create(self, key: str, content: bytes) -> bool:
        path = self.folder / key
        # `#` and digits: what the pipeline's own writers use, and readers skip.
        staged = path.with_name(f"{path.name}#{secrets.randbelow(10**12)}")
        try:
            self._make_folders(path.parent)
            if path.exists():
                return False
            try:
                with staged.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(staged, path)
            except FileExistsError:
                return False
            finally:
                staged.unlink(missing_ok=True)
            _sync(path.parent)
        except OSError as error:
            raise StoreError(f"cannot write {key} in {self.folder}: {error.strerror or error}") from error
        return True

    def _make_folders(self, folder: Path) -> None:
        if folder.is_dir():
            return
        if folder != folder.parent:
            self._make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)

    @contextmanager
    def _file(self, key: str) -> Iterator[Path | None]:
        path = self.folder / key
        try:
            found = path.is_file()
        except OSError as error:
            raise StoreError(f"cannot read {key} in {self.folder}: {error.strerror or error}") from error
        if found and not os.access(path, os.R_OK):
            raise StoreError(f"cannot read {key} in {self.folder}: permission denied")
        yield path if found else None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class S3Store(Store):
    """A bucket, with credentials, region and endpoint from the usual `AWS_*` variables."""

    def __init__(self, bucket: str, prefix: str):
        try:
            import boto3
            from botocore import exceptions
        except ImportError as error:
            raise missing("a store in S3 needs boto3", "s3", error) from error
        self.bucket, self.prefix = bucket, prefix.strip("/")
        self._refused, self._failed = exceptions.ClientError, exceptions.BotoCoreError
        self._passing = (exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.IncompleteReadError)
        self._lasting = (exceptions.SSLError, exceptions.ProxyConnectionError)
        environment = os.environ
        # The pipeline's functions take these names too; boto3 alone would know only the longer one of each.
        endpoint = environment.get("AWS_ENDPOINT_URL") or environment.get("AWS_ENDPOINT")
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
        self._client = boto3.client("s3", endpoint_url=endpoint, region_name=region)

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _create(self, key: str, content: bytes) -> bool:
        def put() -> bool:
            try:
                self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=content, IfNoneMatch="*")
            except self._refused as error:
                if _status(error) == 412:
                    return False
                raise
            return True

        return self._patiently("write", key, put)

    def _patiently(self, verb: str, key: str, call: Callable[[], bool]) -> bool:
        """Calls until it works; for `PATIENCE_S` while the server cannot be reached, is busy or has a fault of its own."""
        deadline, pause = time.monotonic() + PATIENCE_S, FIRST_PAUSE_S
        while True:
            try:
                return call()
            except (self._refused, self._failed) as error:
                problem = StoreError(f"cannot {verb} {key} in s3://{self.bucket}: {error}")
                # 409: another writer is at it; who came first is known at the next try.
                passes = _status(error) in (409, 429) or _status(error) >= 500 or isinstance(error, self._passing)
                if not passes or isinstance(error, self._lasting) or time.monotonic() + pause > deadline:
                    raise problem from error
            print(f"baton-pipeline: {problem}; trying again", file=sys.stderr, flush=True)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    @contextmanager
    def _file(self, key: str) -> Iterator[Path | None]:
        with tempfile.NamedTemporaryFile(prefix="baton-") as file:
            found = self._download(key, file.file)
            file.flush()
            yield Path(file.name) if found else None

    def _download(self, key: str, to: IO[bytes]) -> bool:
        def get() -> bool:
            to.seek(0)
            to.truncate()
            try:
                body = self._client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"]
            except self._refused as error:
                if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                    return False
                raise
            for chunk in body.iter_chunks(CHUNK):
                to.write(chunk)
            return True

        return self._patiently("read", key, get)


def _status(error: Any) -> int:
    """Of a refusal; 0 for what is none."""
    return int(getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def open_store(address: str) -> Store:
    """A folder, `file:///...` or `s3://bucket/prefix`. Raises `UsageError`."""
    if "://" not in address:
        return FolderStore(Path(address))
    parts = urlsplit(address)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return FolderStore(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        return S3Store(parts.netloc, parts.path)
    raise UsageError(f"BATON_ARTIFACTS is no store: {address!r}; a folder, file:///... or s3://bucket/prefix is")
