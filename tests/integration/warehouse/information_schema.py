"""`information_schema` of a catalog: schemata, tables, columns, volumes, read from the folders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from . import errors
from .catalog import INFORMATION_SCHEMA, Name
from .delta_log import Metadata, latest_version, read_metadata
from .type_names import data_type, precision_and_scale, sql_type

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .catalog import Catalog

_SCHEMATA = pa.schema(
    [("catalog_name", pa.string()), ("schema_name", pa.string()), ("schema_owner", pa.string())]
)
_TABLES = pa.schema(
    [
        ("table_catalog", pa.string()),
        ("table_schema", pa.string()),
        ("table_name", pa.string()),
        ("table_type", pa.string()),
        ("is_insertable_into", pa.string()),
        ("data_source_format", pa.string()),
        ("comment", pa.string()),
    ]
)
_COLUMNS = pa.schema(
    [
        ("table_catalog", pa.string()),
        ("table_schema", pa.string()),
        ("table_name", pa.string()),
        ("column_name", pa.string()),
        ("ordinal_position", pa.int32()),
        ("column_default", pa.string()),
        ("is_nullable", pa.string()),
        ("full_data_type", pa.string()),
        ("data_type", pa.string()),
        ("character_maximum_length", pa.int64()),
        ("numeric_precision", pa.int32()),
        ("numeric_scale", pa.int32()),
        ("comment", pa.string()),
    ]
)
_VOLUMES = pa.schema(
    [
        ("volume_catalog", pa.string()),
        ("volume_schema", pa.string()),
        ("volume_name", pa.string()),
        ("volume_type", pa.string()),
        ("storage_location", pa.string()),
    ]
)

#: Metadata of the last version seen of a table: a version never changes, so this is only a saving.
_seen: dict[tuple[Path, int, int], Metadata] = {}


def metadata(path: Path) -> Metadata:
    """As `read_metadata`, remembered by version."""
    version = latest_version(path)
    # A folder made anew under the path may have the same number, so the entry's time counts too.
    key = (path, version, (path / "_delta_log" / f"{version:020}.json").stat().st_mtime_ns)
    if key not in _seen:
        _seen[key] = read_metadata(path)
    return _seen[key]


def read(catalog: Catalog, name: Name) -> pa.Table:
    """The rows of `<catalog>.information_schema.<name>`."""
    match name.object:
        case "schemata":
            rows, schema = _schemata(catalog, name.catalog), _SCHEMATA
        case "tables":
            rows, schema = _tables(catalog, name.catalog), _TABLES
        case "columns":
            rows, schema = _columns(catalog, name.catalog), _COLUMNS
        case "volumes":
            rows, schema = _volumes(catalog, name.catalog), _VOLUMES
        case _:
            raise errors.table_not_found(str(name))
    return pa.Table.from_pylist(list(rows), schema=schema)


def _schemata(catalog: Catalog, of: str) -> Iterator[dict[str, Any]]:
    for schema in [*catalog.schemas(of), INFORMATION_SCHEMA]:
        yield {"catalog_name": of, "schema_name": schema, "schema_owner": "owner"}


def _each_table(catalog: Catalog, of: str) -> Iterator[tuple[str, str, Path]]:
    for schema in catalog.schemas(of):
        for table in catalog.tables(of, schema):
            yield schema, table, catalog.table_path(Name(of, schema, table))


def _tables(catalog: Catalog, of: str) -> Iterator[dict[str, Any]]:
    for schema, table, path in _each_table(catalog, of):
        yield {
            "table_catalog": of,
            "table_schema": schema,
            "table_name": table,
            "table_type": "MANAGED",
            "is_insertable_into": "YES",
            "data_source_format": "DELTA",
            "comment": catalog.info(path).comment,
        }


def _columns(catalog: Catalog, of: str) -> Iterator[dict[str, Any]]:
    for schema, table, path in _each_table(catalog, of):
        for position, column in enumerate(metadata(path).fields, start=1):
            full = sql_type(column["type"])
            precision, scale = precision_and_scale(full)
            yield {
                "table_catalog": of,
                "table_schema": schema,
                "table_name": table,
                "column_name": column["name"],
                "ordinal_position": position,
                "is_nullable": "YES" if column["nullable"] else "NO",
                "full_data_type": full,
                "data_type": data_type(full),
                "numeric_precision": precision,
                "numeric_scale": scale,
                "comment": column.get("metadata", {}).get("comment"),
            }


def _volumes(catalog: Catalog, of: str) -> Iterator[dict[str, Any]]:
    for schema in catalog.schemas(of):
        for volume in catalog.volumes(of, schema):
            yield {
                "volume_catalog": of,
                "volume_schema": schema,
                "volume_name": volume,
                "volume_type": "MANAGED",
                "storage_location": f"/Volumes/{of}/{schema}/{volume}",
            }
