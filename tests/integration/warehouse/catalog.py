"""Unity Catalog as folders: `<root>/<catalog>/<schema>/tables/<table>` and `.../volumes/<volume>`.

Names of catalogs, schemas, tables and volumes are case-insensitive and kept in lower case. What
Delta does not hold (grants, clustering, files already copied) is a small file beside the data.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from . import errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INFORMATION_SCHEMA = "information_schema"
_FORBIDDEN = re.compile(r"[\s./\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Name:
    """A three-part name, already in lower case."""

    catalog: str
    schema: str
    object: str

    def __str__(self) -> str:
        return f"`{self.catalog}`.`{self.schema}`.`{self.object}`"


@dataclass(frozen=True)
class Clustering:
    """The clause CLUSTER BY of a statement."""

    columns: list[str] = field(default_factory=list)
    auto: bool = False


@dataclass
class TableInfo:
    """What is known of a table beside its Delta log."""

    #: Properties that a client set and the log does not have: the engine would act on them.
    hidden_properties: dict[str, str] = field(default_factory=dict)
    cluster_by: list[str] = field(default_factory=list)
    #: CLUSTER BY AUTO: Databricks chooses the columns.
    cluster_by_auto: bool = False
    #: Paths that COPY INTO has loaded.
    loaded_files: list[str] = field(default_factory=list)
    grants: list[tuple[str, str]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    comment: str | None = None
    #: By column, in lower case: `default`, `generated`, `identity`, `tags` (`column_rules`).
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: CHECK constraints by name, and those that are never enforced (keys), as they were written.
    checks: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    row_filter: str | None = None

    def rules(self, column: str) -> dict[str, Any]:
        return self.columns.get(column.lower(), {})


class Lag:
    """What `information_schema` showed, by time; it shows what was so `seconds` ago."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._kept: list[tuple[float, dict[tuple[str, str], Any]]] = []
        self._lock = threading.Lock()

    def start(self, seconds: float, now: dict[tuple[str, str], Any]) -> None:
        """Lag from now on; what is so `now` is shown at once."""
        with self._lock:
            self.seconds = seconds
            self._kept = [(0.0, now)] if seconds else []

    def remember(self, now: dict[tuple[str, str], Any]) -> None:
        with self._lock:
            self._kept.append((time.monotonic(), now))

    def shown(self) -> dict[tuple[str, str], Any]:
        with self._lock:
            until = time.monotonic() - self.seconds
            return next(found for when, found in reversed(self._kept) if when <= until)


class ReadWriteLock:
    """Many statements, or one that takes tables away (DROP, RENAME), which goes first."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._readers = 0
        self._waiting = 0
        self._writing = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._writing and not self._waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._condition:
                self._readers -= 1
                self._condition.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._condition:
            self._waiting += 1
            self._condition.wait_for(lambda: not self._writing and self._readers == 0)
            self._waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._condition:
                self._writing = False
                self._condition.notify_all()


class Catalog:
    """Finds, makes and removes schemas, tables and volumes. Raises `SqlError`."""

    def __init__(self, root: Path, catalogs: tuple[str, ...] = ("main",)) -> None:
        self.root = root.resolve()
        self.gate = ReadWriteLock()
        self.lag = Lag()
        self._table_locks: dict[Path, threading.RLock] = {}
        self._lock = threading.Lock()
        self._state = self.root / ".warehouse"
        self._state.mkdir(parents=True, exist_ok=True)
        for catalog in catalogs:
            self.create_catalog(catalog)

    # -- places

    def scratch(self) -> Path:
        """A path of its own, for a file or folder that does not outlive the statement."""
        folder = self._state / "scratch"
        folder.mkdir(exist_ok=True)
        return folder / uuid.uuid4().hex

    def discard(self, path: Path) -> None:
        """Take a folder away at once, whatever its size."""
        if path.exists():
            trash = self.scratch()
            path.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)

    def catalog_path(self, catalog: str) -> Path:
        return self.root / catalog.lower()

    def schema_path(self, catalog: str, schema: str) -> Path:
        return self.catalog_path(catalog) / schema.lower()

    def table_path(self, name: Name) -> Path:
        folder = folder_of(name.object)
        return self.schema_path(name.catalog, name.schema) / "tables" / folder

    def volume_path(self, name: Name) -> Path:
        return self.schema_path(name.catalog, name.schema) / "volumes" / name.object

    # -- catalogs and schemas

    def catalogs(self) -> list[str]:
        return sorted(p.name for p in self.root.iterdir() if p.is_dir() and p.name[0] != ".")

    def create_catalog(self, catalog: str) -> None:
        self.catalog_path(_valid(catalog)).mkdir(exist_ok=True)

    def require_catalog(self, catalog: str) -> None:
        if not self.catalog_path(catalog).is_dir():
            raise errors.SqlError(
                "NO_SUCH_CATALOG_EXCEPTION", f"Catalog '{catalog}' was not found."
            )

    def schemas(self, catalog: str) -> list[str]:
        self.require_catalog(catalog)
        return sorted(p.name for p in self.catalog_path(catalog).iterdir() if p.is_dir())

    def schema_exists(self, catalog: str, schema: str) -> bool:
        return self.schema_path(catalog, schema).is_dir()

    def require_schema(self, catalog: str, schema: str) -> None:
        self.require_catalog(catalog)
        if not self.schema_exists(catalog, schema):
            raise errors.schema_not_found(f"`{catalog}`.`{schema}`")

    def create_schema(self, catalog: str, schema: str, *, if_not_exists: bool) -> None:
        self.require_catalog(catalog)
        path = self.schema_path(catalog, _valid(schema))
        with self._lock:
            if path.exists():
                if if_not_exists:
                    return
                raise errors.SqlError(
                    "SCHEMA_ALREADY_EXISTS",
                    f"Cannot create schema `{catalog}`.`{schema}` because it already exists.",
                )
            staged = self.scratch()
            (staged / "tables").mkdir(parents=True)
            (staged / "volumes").mkdir()
            staged.rename(path)

    def drop_schema(self, catalog: str, schema: str, *, if_exists: bool, cascade: bool) -> None:
        self.require_catalog(catalog)
        if not self.schema_exists(catalog, schema):
            if if_exists:
                return
            raise errors.schema_not_found(f"`{catalog}`.`{schema}`")
        if not cascade and (self.tables(catalog, schema) or self.volumes(catalog, schema)):
            raise errors.SqlError(
                "SCHEMA_NOT_EMPTY",
                f"Cannot drop a schema `{schema}` because it contains objects. Use DROP SCHEMA ... "
                "CASCADE to drop the schema and all its objects.",
            )
        self.discard(self.schema_path(catalog, schema))

    # -- tables

    def tables(self, catalog: str, schema: str) -> list[str]:
        self.require_schema(catalog, schema)
        folder = self.schema_path(catalog, schema) / "tables"
        return sorted(name_of(p.name) for p in folder.iterdir() if (p / "_delta_log").is_dir())

    def table_exists(self, name: Name) -> bool:
        return (self.table_path(name) / "_delta_log").is_dir()

    def require_table(self, name: Name) -> Path:
        if not self.table_exists(name):
            raise errors.table_not_found(str(name))
        return self.table_path(name)

    def drop_table(self, name: Name, *, if_exists: bool) -> None:
        self.require_schema(name.catalog, name.schema)
        if not self.table_exists(name):
            if if_exists:
                return
            raise errors.table_not_found(str(name))
        self.discard(self.table_path(name))

    def rename_table(self, old: Name, new: Name) -> None:
        path = self.require_table(old)
        self.require_schema(new.catalog, new.schema)
        if self.table_exists(new):
            raise table_exists(new)
        _valid(new.object)
        path.rename(self.table_path(new))

    def info(self, path: Path) -> TableInfo:
        file = path / "_warehouse.json"
        return TableInfo(**json.loads(file.read_text())) if file.exists() else TableInfo()

    def save_info(self, path: Path, info: TableInfo) -> None:
        pending = self.scratch()
        pending.write_text(json.dumps(asdict(info)))
        pending.rename(path / "_warehouse.json")

    def table_lock(self, path: Path) -> threading.RLock:
        """One writer a table at a time; readers need none, they read a version."""
        with self._lock:
            return self._table_locks.setdefault(path, threading.RLock())

    # -- volumes

    def volumes(self, catalog: str, schema: str) -> list[str]:
        self.require_schema(catalog, schema)
        return sorted(p.name for p in (self.schema_path(catalog, schema) / "volumes").iterdir())

    def volume_exists(self, name: Name) -> bool:
        return self.volume_path(name).is_dir()

    def create_volume(self, name: Name, *, if_not_exists: bool) -> None:
        self.require_schema(name.catalog, name.schema)
        path = self.volume_path(Name(name.catalog, name.schema, _valid(name.object)))
        try:
            path.mkdir()
        except FileExistsError:
            if not if_not_exists:
                raise errors.SqlError(
                    "VOLUME_ALREADY_EXISTS", f"Volume {name} already exists."
                ) from None

    def drop_volume(self, name: Name, *, if_exists: bool) -> None:
        self.require_schema(name.catalog, name.schema)
        if self.volume_exists(name):
            self.discard(self.volume_path(name))
        elif not if_exists:
            raise errors.SqlError("VOLUME_DOES_NOT_EXIST", f"Volume {name} does not exist.")

    def volume_file(self, path: str) -> Path:
        """The local path of `/Volumes/<catalog>/<schema>/<volume>/...`."""
        parts = [part for part in path.removeprefix("dbfs:").split("/") if part]
        if len(parts) < 4 or parts[0] != "Volumes" or ".." in parts:
            raise errors.SqlError(
                "INVALID_PARAMETER_VALUE",
                f"Not a path of a volume: {path} (/Volumes/<catalog>/<schema>/<volume>/...).",
            )
        name = Name(*(part.lower() for part in parts[1:4]))
        self.require_schema(name.catalog, name.schema)
        if not self.volume_exists(name):
            raise errors.SqlError("VOLUME_DOES_NOT_EXIST", f"Volume {name} does not exist.")
        return self.volume_path(name).joinpath(*parts[4:])

    def wipe(self) -> None:
        """Remove every schema of every catalog."""
        with self.gate.exclusive():
            for catalog in self.catalogs():
                for schema in self.schemas(catalog):
                    self.discard(self.schema_path(catalog, schema))


def folder_of(table: str) -> str:
    """A table's folder: the engine reads a location as a URL, so only plain characters are kept."""
    return re.sub(r"[^a-z0-9_]", lambda match: f"-{ord(match[0]):x}-", table.lower())


def name_of(folder: str) -> str:
    return re.sub(r"-([0-9a-f]+)-", lambda match: chr(int(match[1], 16)), folder)


def table_exists(name: Name) -> errors.SqlError:
    return errors.SqlError(
        "TABLE_OR_VIEW_ALREADY_EXISTS",
        f"Cannot create table or view {name} because it already exists. Choose a different name, "
        "drop or replace the existing object, or add the IF NOT EXISTS clause.",
    )


def _valid(name: str) -> str:
    if not name or len(name) > 255 or _FORBIDDEN.search(name):
        raise errors.SqlError(
            "INVALID_PARAMETER_VALUE",
            f'name "{name}" is not a valid name. Names cannot contain periods, spaces, forward '
            "slashes or control characters.",
        )
    return name
