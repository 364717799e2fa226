"""`information_schema` of a catalog: schemata, tables, columns, volumes, tags, constraints.

It is read from the folders, or, while the catalog has a lag, from what it was so many seconds ago:
the real one shows definitions some time after they were made, which DESCRIBE and SHOW do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from . import errors
from .catalog import INFORMATION_SCHEMA, Name
from .delta_log import Metadata, latest_version, read_metadata
from .type_names import data_type, precision_and_scale, sql_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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

_TABLE = [("catalog_name", pa.string()), ("schema_name", pa.string()), ("table_name", pa.string())]
_TAG = [("tag_name", pa.string()), ("tag_value", pa.string())]
_TABLE_TAGS = pa.schema([*_TABLE, *_TAG])
_COLUMN_TAGS = pa.schema([*_TABLE, ("column_name", pa.string()), *_TAG])
_CHECKS = pa.schema(
    [
        ("constraint_catalog", pa.string()),
        ("constraint_schema", pa.string()),
        ("constraint_name", pa.string()),
        ("check_clause", pa.string()),
    ]
)
_ROW_FILTERS = pa.schema(
    [
        ("table_catalog", pa.string()),
        ("table_schema", pa.string()),
        ("table_name", pa.string()),
        ("filter_name", pa.string()),
        ("target_columns", pa.string()),
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
    if name.object not in _VIEWS:
        raise errors.table_not_found(str(name))
    if catalog.lag.seconds:
        return catalog.lag.shown()[name.catalog, name.object]
    return _now(catalog, name.catalog, name.object)


def start_lag(catalog: Catalog, seconds: float) -> None:
    """Show definitions so many seconds after they are made; 0: at once."""
    catalog.lag.start(seconds, _all(catalog))


def remember(catalog: Catalog) -> None:
    """Keep what is so now, where it is to be shown later."""
    if catalog.lag.seconds:
        catalog.lag.remember(_all(catalog))


def _all(catalog: Catalog) -> dict[tuple[str, str], pa.Table]:
    return {(of, view): _now(catalog, of, view) for of in catalog.catalogs() for view in _VIEWS}


def _now(catalog: Catalog, of: str, view: str) -> pa.Table:
    rows, schema = _VIEWS[view]
    return pa.Table.from_pylist(list(rows(catalog, of)), schema=schema)


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
        info = catalog.info(path)
        for position, column in enumerate(metadata(path).fields, start=1):
            full = sql_type(column["type"])
            precision, scale = precision_and_scale(full)
            yield {
                "table_catalog": of,
                "table_schema": schema,
                "table_name": table,
                "column_name": column["name"],
                "ordinal_position": position,
                "column_default": info.rules(column["name"]).get("default"),
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


def _table_tags(catalog: Catalog, of: str) -> Iterator[dict[str, Any]]:
    for schema, table, path in _each_table(catalog, of):
        place = {"catalog_name": of, "schema_name": schema, "table_name": table}
        for name, value in catalog.info(path).tags.items():
            yield {**place, "tag_name": name, "tag_value": value}


def _column_tags(catalog: Catalog, of: str) -> Iterator[dict[str, Any]]:
    for schema, table, path in _each_table(catalog, of):
        names = {name.lower(): name for name in metadata(path).column_names}
        place = {"catalog_name": of, "schema_name": schema, "table_name": table}
        for column, rules in catalog.info(path).columns.items():
            for name, value in rules.get("tags", {}).items():
                own = {"column_name": names[column], "tag_name": name, "tag_value": value}
                yield {**place, **own}


def _check_constraints(catalog: Catalog, of: str) -> Iterator[dict[str, Any]]:
    for schema, _, path in _each_table(catalog, of):
        place = {"constraint_catalog": of, "constraint_schema": schema}
        for name, text in catalog.info(path).checks.items():
            yield {**place, "constraint_name": name, "check_clause": text}


def _row_filters(catalog: Catalog, of: str) -> Iterator[dict[str, Any]]:
    for schema, table, path in _each_table(catalog, of):
        if text := catalog.info(path).row_filter:
            function, _, columns = text.partition(" ON ")
            yield {
                "table_catalog": of,
                "table_schema": schema,
                "table_name": table,
                "filter_name": function.strip(),
                "target_columns": columns.strip(" ()"),
            }


_VIEWS: dict[str, tuple[Callable[[Catalog, str], Iterator[dict[str, Any]]], pa.Schema]] = {
    "schemata": (_schemata, _SCHEMATA),
    "tables": (_tables, _TABLES),
    "columns": (_columns, _COLUMNS),
    "volumes": (_volumes, _VOLUMES),
    "table_tags": (_table_tags, _TABLE_TAGS),
    "column_tags": (_column_tags, _COLUMN_TAGS),
    "check_constraints": (_check_constraints, _CHECKS),
    "row_filters": (_row_filters, _ROW_FILTERS),
}
