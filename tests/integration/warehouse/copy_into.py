"""COPY INTO by its documented rules: files once each by path, types exact, one version a statement.

docs.databricks.com, "COPY INTO". Parquet only.
"""

from __future__ import annotations

import contextlib
import re
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from . import errors
from .ddl import NAME, parse_properties, require_ntz, split_list, split_name
from .delta_log import Metadata, commit_metadata, read_metadata
from .engine import quote
from .session import Result
from .type_names import delta_type, spark_class, sql_type

if TYPE_CHECKING:
    from pathlib import Path

    from .catalog import Catalog
    from .engine import Engine
    from .session import Session

_SHAPE = re.compile(
    rf"COPY\s+INTO\s+(?P<table>{NAME})\s+(?P<sub>BY\s+POSITION\s+)?FROM\s+(?P<source>'[^']+'|\(.*?\))"
    r"(?P<credential>\s+WITH\s*\(.*?\)\s*\))?"
    r"\s+FILEFORMAT\s*=\s*(?P<format>\w+)(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)


def _option(text: str, name: str) -> str | None:
    match = re.search(rf"\b{name}\s*=?\s*\((?P<value>[^)]*)\)", text, re.IGNORECASE)
    return match["value"] if match else None


class CopyInto:
    def __init__(self, catalog: Catalog, engine: Engine) -> None:
        self._catalog = catalog
        self._engine = engine

    def execute(self, session: Session, text: str) -> Result:
        shape = _SHAPE.fullmatch(text)
        if shape is None or shape["sub"]:
            raise errors.syntax_error("COPY INTO in a form that is not known here")
        if not shape["source"].startswith("'"):
            raise errors.unsupported("COPY INTO from a SELECT")
        if shape["format"].upper() != "PARQUET":
            raise errors.unsupported(f"COPY INTO from {shape['format']}")
        copy_options = parse_properties(_option(shape["rest"], "COPY_OPTIONS") or "")
        format_options = parse_properties(_option(shape["rest"], "FORMAT_OPTIONS") or "")
        path = self._catalog.require_table(session.name(split_name(shape["table"])))
        found = self._files(shape["source"][1:-1], shape["rest"])
        with self._catalog.table_lock(path):
            info = self._catalog.info(path)
            force = copy_options.get("force") == "true"
            new = [f for f in found if force or f not in set(info.loaded_files)]
            if not new:
                return _copied(0)
            merge = "true" in {copy_options.get("mergeSchema"), format_options.get("mergeSchema")}
            self._match_schema(session, shape["table"], path, [found[f] for f in new], merge=merge)
            count = self._append(path, [found[f] for f in new])
            info.loaded_files = sorted({*info.loaded_files, *new})
            self._catalog.save_info(path, info)
        return _copied(count)

    def _files(self, source: str, rest: str) -> dict[str, Path]:
        """Files to load, by the path that is remembered for them."""
        location = self._catalog.volume_file(source)
        root = "/" + source.removeprefix("dbfs:").strip("/")
        listed = _option(rest, "FILES")
        match = re.search(r"\bPATTERN\s*=\s*'(?P<glob>[^']*)'", rest, re.IGNORECASE)
        if location.is_file():
            return {root: location}
        if not location.is_dir():
            raise errors.SqlError("PATH_NOT_FOUND", f"Path does not exist: {source}.")
        if listed is not None:
            names = [item.strip("'\"") for item in split_list(listed)]
        else:
            files = (f for f in location.rglob("*") if f.is_file())
            names = sorted(str(f.relative_to(location)) for f in files)
            # As Spark lists them: names that begin with _ or . are not data.
            names = [n for n in names if not any(p[0] in "_." for p in n.split("/"))]
        if match:
            names = [n for n in names if fnmatch(n, match["glob"])]
        found = {f"{root}/{name}": location / name for name in names}
        for name, file in found.items():
            if not file.is_file():
                raise errors.SqlError("PATH_NOT_FOUND", f"Path does not exist: {name}.")
        if not found:
            raise errors.SqlError(
                "COPY_INTO_SOURCE_SCHEMA_INFERENCE_FAILED",
                f"The source directory {source} did not contain any parsable files of PARQUET.",
            )
        return found

    def _match_schema(
        self, session: Session, table: str, path: Path, files: list[Path], *, merge: bool
    ) -> None:
        """Refuse what differs from the table; with mergeSchema, add what is new."""
        metadata = read_metadata(path)
        for file in files:
            new = []
            for column in pq.read_schema(file):
                kind = _delta_type_of(column)
                index = _find(metadata, column.name)
                if index is None:
                    new.append(
                        {"name": column.name, "type": kind, "nullable": True, "metadata": {}}
                    )
                elif kind not in ("void", metadata.fields[index]["type"]) and isinstance(kind, str):
                    raise _different(column.name, metadata.fields[index]["type"], kind)
            if new and not merge:
                names = ", ".join(column["name"] for column in new)
                raise errors.SqlError(
                    "COPY_INTO_SCHEMA_MISMATCH_WITH_TARGET_TABLE",
                    f"A schema mismatch was detected while copying data into the Delta table "
                    f"(Table: {table}): the table has no column {names}. This may indicate an "
                    "issue with the incoming data, or the Delta table schema can be evolved "
                    "automatically by setting: COPY_OPTIONS ('mergeSchema' = 'true').",
                )
            if new:
                if any(c["type"] == "timestamp_ntz" for c in new):
                    require_ntz(metadata)
                commit_metadata(path, metadata.with_columns(tuple(new)), "ADD COLUMNS")
                metadata = read_metadata(path)

    def _append(self, path: Path, files: list[Path]) -> int:
        metadata = read_metadata(path)
        selects = []
        count = 0
        with contextlib.ExitStack() as links:
            for file in files:
                parquet = pq.ParquetFile(file)
                count += parquet.metadata.num_rows
                present = {name.lower(): name for name in parquet.schema_arrow.names}
                items = []
                for column in metadata.fields:
                    own = present.get(column["name"].lower())
                    kind = sql_type(column["type"])
                    value = f"CAST(NULL AS {kind})" if own is None else quote(own)
                    items.append(f"{value} AS {quote(column['name'])}")
                    if not column["nullable"]:
                        _check_not_null(parquet, own, column["name"])
                # The engine reads a location as a URL and a glob; a file may have any name.
                plain = self._catalog.scratch().with_suffix(".parquet")
                plain.hardlink_to(file)
                links.callback(plain.unlink)
                selects.append(f"SELECT {', '.join(items)} FROM parquet.{quote(str(plain))}")
            with self._engine.named(path) as table:
                self._engine.run(f"INSERT INTO {table} " + " UNION ALL ".join(selects))
        return count


def _delta_type_of(column: pa.Field) -> Any:
    kind = delta_type(column.type)
    if kind is None:
        raise errors.SqlError(
            "FAILED_READ_FILE.PARQUET_COLUMN_DATA_TYPE_MISMATCH",
            f"Illegal Parquet type of column {column.name}: {str(column.type).upper()}.",
        )
    return kind


def _find(metadata: Metadata, name: str) -> int | None:
    lower = [column.lower() for column in metadata.column_names]
    return lower.index(name.lower()) if name.lower() in lower else None


def _different(name: str, wanted: Any, given: Any) -> errors.SqlError:
    decimals = str(wanted).startswith("decimal") and str(given).startswith("decimal")
    reason = (
        f"Failed to merge decimal types with incompatible precision and scale {wanted} and {given}."
        if decimals
        else f"Failed to merge incompatible data types {spark_class(wanted)} and "
        f"{spark_class(given)}."
    )
    return errors.SqlError(
        "DELTA_FAILED_TO_MERGE_FIELDS",
        f"Failed to merge fields '{name}' and '{name}'. "
        f"[DELTA_MERGE_INCOMPATIBLE_DATATYPE] {reason}",
    )


def _check_not_null(parquet: pq.ParquetFile, own: str | None, name: str) -> None:
    if parquet.metadata.num_rows == 0:
        return
    if own is None or parquet.read([own]).column(0).null_count:
        raise errors.SqlError(
            "DELTA_NOT_NULL_CONSTRAINT_VIOLATED",
            f"NOT NULL constraint violated for column: {name}.",
        )


def _copied(count: int) -> Result:
    columns = {
        "num_affected_rows": pa.array([count], pa.int64()),
        "num_inserted_rows": pa.array([count], pa.int64()),
        "num_skipped_corrupt_files": pa.array([0], pa.int64()),
    }
    return Result(pa.table(columns), modified=count)
