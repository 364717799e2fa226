"""Commits that the engine cannot make, written to the Delta log as one version each.

Delta protocol: github.com/delta-io/delta/blob/master/PROTOCOL.md, "Actions". A version is one new
file of the log; that creating it fails when it exists is what makes a commit atomic.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import DeltaTable

from .errors import SqlError

if TYPE_CHECKING:
    from pathlib import Path

Json = dict[str, Any]

#: Writer features that are reader features too.
_READER_FEATURES = {
    "columnMapping",
    "deletionVectors",
    "timestampNtz",
    "typeWidening",
    "variantType",
}
_COLUMN_ID = "delta.columnMapping.id"
_PHYSICAL_NAME = "delta.columnMapping.physicalName"
_MAX_COLUMN_ID = "delta.columnMapping.maxColumnId"
_MODE = "delta.columnMapping.mode"


@dataclass(frozen=True)
class Metadata:
    """What a version of a table says of itself."""

    version: int
    id: str
    fields: tuple[Json, ...]
    configuration: dict[str, str]
    partition_columns: tuple[str, ...]
    created_time: int | None
    min_reader: int
    min_writer: int
    features: frozenset[str]
    description: str | None = None
    name: str | None = field(default=None)

    @property
    def column_names(self) -> list[str]:
        return [column["name"] for column in self.fields]

    @property
    def mapped(self) -> bool:
        return self.configuration.get(_MODE, "none") != "none"

    def index_of(self, name: str) -> int:
        for index, column in enumerate(self.fields):
            if column["name"].lower() == name.lower():
                return index
        raise SqlError(
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
            f"A column with name `{name}` cannot be resolved. Did you mean one of the following? "
            f"{self.column_names}.",
        )

    def with_columns(self, new: tuple[Json, ...], at: int | None = None) -> Metadata:
        """This with more columns, at the end or before position `at`."""
        columns = list(self.fields)
        configuration = dict(self.configuration)
        added = [dict(column, metadata=dict(column.get("metadata", {}))) for column in new]
        if self.mapped:
            top = int(configuration.get(_MAX_COLUMN_ID, "0"))
            for column in added:
                top += 1
                column["metadata"][_COLUMN_ID] = top
                column["metadata"][_PHYSICAL_NAME] = f"col-{uuid.uuid4()}"
            configuration[_MAX_COLUMN_ID] = str(top)
        position = len(columns) if at is None else at
        columns[position:position] = added
        return replace(self, fields=tuple(columns), configuration=configuration)

    def with_column_mapping(self) -> Metadata:
        """This with mapping by name, present columns keeping their names in the files."""
        columns = []
        for number, column in enumerate(self.fields, start=1):
            extra = {_COLUMN_ID: number, _PHYSICAL_NAME: column["name"]}
            columns.append(dict(column, metadata={**column.get("metadata", {}), **extra}))
        configuration = {**self.configuration, _MODE: "name", _MAX_COLUMN_ID: str(len(columns))}
        return replace(self, fields=tuple(columns), configuration=configuration).with_features(
            frozenset({"columnMapping"})
        )

    def with_features(self, wanted: frozenset[str]) -> Metadata:
        """This with a protocol that has `wanted`."""
        if wanted <= self.features:
            return self
        kept = self.features | {"appendOnly", "invariants"}
        return replace(self, min_reader=3, min_writer=7, features=kept | wanted)

    def actions(self) -> list[Json]:
        protocol: Json = {"minReaderVersion": self.min_reader, "minWriterVersion": self.min_writer}
        if self.min_writer >= 7:
            protocol["writerFeatures"] = sorted(self.features)
            if self.min_reader >= 3:
                protocol["readerFeatures"] = sorted(self.features & _READER_FEATURES)
        schema = {"type": "struct", "fields": list(self.fields)}
        meta = {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps(schema),
            "partitionColumns": list(self.partition_columns),
            "createdTime": self.created_time,
            "configuration": self.configuration,
        }
        return [{"protocol": protocol}, {"metaData": meta}]


def log_file(path: Path, version: int) -> Path:
    return path / "_delta_log" / f"{version:020d}.json"


def latest_version(path: Path) -> int:
    versions = [int(f.stem) for f in (path / "_delta_log").glob("*.json") if f.stem.isdigit()]
    return max(versions)


def read_metadata(path: Path) -> Metadata:
    table = DeltaTable(str(path))
    meta, protocol = table.metadata(), table.protocol()
    features = set(protocol.writer_features or ()) | set(protocol.reader_features or ())
    return Metadata(
        version=table.version(),
        id=str(meta.id),
        fields=tuple(json.loads(table.schema().to_json())["fields"]),
        configuration=dict(meta.configuration),
        partition_columns=tuple(meta.partition_columns),
        created_time=meta.created_time,
        min_reader=protocol.min_reader_version,
        min_writer=protocol.min_writer_version,
        features=frozenset(features),
        description=meta.description,
        name=meta.name,
    )


def commit(path: Path, version: int, operation: str, actions: list[Json]) -> None:
    """Write `version`; raises DELTA_CONCURRENT_WRITE when another writer was first."""
    info = {"timestamp": int(time.time() * 1000), "operation": operation, "operationParameters": {}}
    lines = [{"commitInfo": info}, *actions]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    pending = path / "_delta_log" / f".{uuid.uuid4().hex}.tmp"
    pending.write_text(text)
    try:
        log_file(path, version).hardlink_to(pending)
    except FileExistsError:
        raise SqlError(
            "DELTA_CONCURRENT_WRITE", f"Version {version} was written by another statement."
        ) from None
    finally:
        pending.unlink()


def commit_metadata(path: Path, changed: Metadata, operation: str) -> None:
    commit(path, changed.version + 1, operation, changed.actions())


def undo(path: Path, version: int) -> None:
    """Take the versions after `version` off the log."""
    for newer in range(latest_version(path), version, -1):
        file = log_file(path, newer)
        file.unlink(missing_ok=True)
        file.with_suffix(".crc").unlink(missing_ok=True)


def operation_metrics(path: Path, version: int) -> dict[str, int]:
    """Numbers of the engine's commit, for the row counts that a statement returns."""
    file = log_file(path, version)
    for line in file.read_text().splitlines() if file.exists() else ():
        action = json.loads(line)
        if "commitInfo" in action:
            metrics: dict[str, int] = action["commitInfo"].get("operationMetrics", {})
            return metrics
    return {}


def remove_actions(path: Path) -> list[Json]:
    """What takes every row of the latest version away."""
    actions = pa.table(DeltaTable(str(path)).get_add_actions())
    now = int(time.time() * 1000)
    return [
        {"remove": {"path": name, "deletionTimestamp": now, "dataChange": True}}
        for name in actions.column("path").to_pylist()
    ]


def publish(scratch: Path, target: Path, operation: str) -> None:
    """Make the table at `scratch` the content and schema of `target`, in one version of it.

    `scratch` is used up. Columns become nullable unless `scratch` came from a column list, as the
    columns of a CREATE TABLE AS are.
    """
    meta = read_metadata(scratch)
    adds: dict[str, Json] = {}
    for version in range(meta.version + 1):
        for line in log_file(scratch, version).read_text().splitlines():
            action = json.loads(line)
            if "add" in action:
                adds[action["add"]["path"]] = action["add"]
            elif "remove" in action:
                adds.pop(action["remove"]["path"], None)
    if operation.endswith("AS SELECT"):
        meta = replace(meta, fields=tuple(dict(column, nullable=True) for column in meta.fields))
    removes: list[Json] = []
    if (target / "_delta_log").exists():
        old = read_metadata(target)
        removes = remove_actions(target)
        meta = replace(meta, id=old.id, created_time=old.created_time, version=old.version + 1)
    else:
        (target / "_delta_log").mkdir(parents=True)
        meta = replace(meta, version=0)
    for name in adds:
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).rename(file)
    actions = [*meta.actions(), *removes, *({"add": add} for add in adds.values())]
    commit(target, meta.version, operation, actions)
