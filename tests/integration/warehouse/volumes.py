"""PUT, GET, REMOVE and LIST of volume files, and the presigned addresses that carry the bytes.

The server never sees the client's files: it answers a row that tells the connector which request to
make, to an address of this same server that is good for one path and one method.
"""

from __future__ import annotations

import re
import secrets
import threading
from typing import TYPE_CHECKING

import pyarrow as pa

from . import errors
from .queries import rows
from .session import Result

if TYPE_CHECKING:
    from pathlib import Path

    from .catalog import Catalog

_PUT = re.compile(
    r"PUT\s+'(?P<local>[^']*)'\s+INTO\s+'(?P<path>[^']*)'(?P<over>\s+OVERWRITE)?", re.IGNORECASE
)
_GET = re.compile(r"GET\s+'(?P<path>[^']*)'\s+TO\s+'(?P<local>[^']*)'", re.IGNORECASE)
_REMOVE = re.compile(r"REMOVE\s+'(?P<path>[^']*)'", re.IGNORECASE)
_LIST = re.compile(r"LIST\s+'(?P<path>[^']*)'(?:\s+LIMIT\s+(?P<limit>\d+))?", re.IGNORECASE)
PRESIGNED = "/_presigned/"
#: docs.databricks.com, "LIST": the default limit, and the greatest there is.
LISTED_AT_MOST = 1001


class Volumes:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._granted: dict[str, tuple[str, Path]] = {}
        self.listed_at_most = LISTED_AT_MOST
        #: Where this server is reached; set once it listens.
        self.base_url = ""

    def presign(self, method: str, path: Path) -> str:
        token = secrets.token_hex(16)
        with self._lock:
            self._granted[token] = (method, path)
        return f"{self.base_url}{PRESIGNED}{token}/{path.name}"

    def granted(self, method: str, token: str) -> Path | None:
        with self._lock:
            allowed, path = self._granted.get(token, ("", None))
        return path if allowed == method else None

    def execute(self, text: str) -> Result:
        if match := _PUT.fullmatch(text):
            file = self._catalog.volume_file(match["path"])
            if file.exists() and not match["over"]:
                raise errors.SqlError(
                    "STAGING_FILE_ALREADY_EXISTS", f"The file {match['path']} already exists."
                )
            return self._transfer("PUT", file, match["local"])
        if match := _GET.fullmatch(text):
            file = self._catalog.volume_file(match["path"])
            if not file.is_file():
                raise _not_found(match["path"])
            return self._transfer("GET", file, match["local"])
        if match := _REMOVE.fullmatch(text):
            # A path that is not there, or a folder, is no error: object stores have no folders.
            return self._transfer("REMOVE", self._catalog.volume_file(match["path"]), None)
        if match := _LIST.fullmatch(text):
            return self._list(match["path"], int(match["limit"] or 0))
        raise errors.syntax_error(f"near '{text.split(maxsplit=1)[0]}'")

    def _transfer(self, operation: str, file: Path, local: str | None) -> Result:
        method = "DELETE" if operation == "REMOVE" else operation
        table = rows(
            operation=[operation],
            presignedUrl=[self.presign(method, file)],
            headers=["{}"],
            localFile=[local],
        )
        return Result(table, staging=True)

    def _list(self, path: str, limit: int) -> Result:
        folder = self._catalog.volume_file(path)
        if not folder.is_dir():
            raise _not_found(path)
        found = sorted(folder.iterdir())[: min(limit or self.listed_at_most, self.listed_at_most)]
        base = path.rstrip("/")
        return Result(
            pa.table(
                {
                    "path": pa.array(
                        [f"{base}/{f.name}" + "/" * f.is_dir() for f in found], pa.string()
                    ),
                    "name": pa.array([f.name + "/" * f.is_dir() for f in found], pa.string()),
                    "size": pa.array(
                        [0 if f.is_dir() else f.stat().st_size for f in found], pa.int64()
                    ),
                    "modification_time": pa.array(
                        [int(f.stat().st_mtime * 1000) for f in found], pa.int64()
                    ),
                }
            )
        )


def store(file: Path, data: bytes) -> None:
    """Write a file so that it is whole or absent."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pending = file.with_name(f".{secrets.token_hex(8)}.tmp")
    pending.write_bytes(data)
    pending.rename(file)


def remove(file: Path) -> None:
    """Take a file away; an emptied folder stays away too, as in an object store."""
    if file.is_dir():
        if not any(file.iterdir()):
            file.rmdir()
        return
    file.unlink(missing_ok=True)


def _not_found(path: str) -> errors.SqlError:
    return errors.SqlError("PATH_NOT_FOUND", f"Path does not exist: {path}.")
