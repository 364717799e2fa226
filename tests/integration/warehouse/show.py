"""SHOW and DESCRIBE, answered from the catalog and the Delta log."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .delta_log import latest_version, log_file, read_metadata
from .engine import NO_STATISTICS, literal, quote
from .queries import rows
from .session import Result
from .type_names import sql_type
from .variants import is_variant

if TYPE_CHECKING:
    from pathlib import Path

    from .catalog import Catalog
    from .session import Session


class Show:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def catalogs(self) -> Result:
        return Result(rows(catalog=list(self._catalog.catalogs())))

    def schemas(self, catalog: str, like: str | None) -> Result:
        found = [s for s in self._catalog.schemas(catalog) if _like(s, like)]
        return Result(rows(databaseName=list(found)))

    def tables(self, catalog: str, schema: str, like: str | None) -> Result:
        found = [t for t in self._catalog.tables(catalog, schema) if _like(t, like)]
        table = rows(database=[schema] * len(found), tableName=list(found))
        temporary = pa.array([False] * len(found), pa.bool_())
        return Result(table.append_column("isTemporary", temporary))

    def volumes(self, catalog: str, schema: str, like: str | None) -> Result:
        found = [v for v in self._catalog.volumes(catalog, schema) if _like(v, like)]
        return Result(rows(database=[schema] * len(found), volume_name=list(found)))

    def _table(self, session: Session, parts: list[str]) -> Path:
        return self._catalog.require_table(session.name(parts))

    def columns(self, session: Session, parts: list[str]) -> Result:
        metadata = read_metadata(self._table(session, parts))
        return Result(rows(col_name=list(metadata.column_names)))

    def describe(self, session: Session, parts: list[str]) -> Result:
        path = self._table(session, parts)
        fields = read_metadata(path).fields
        names: list[str | None] = [f["name"] for f in fields]
        kinds: list[str | None] = [sql_type(f["type"]) for f in fields]
        comments: list[str | None] = [f.get("metadata", {}).get("comment") for f in fields]
        if clustered := self._catalog.info(path).cluster_by:
            names += ["# Clustering Information", "# col_name", *clustered]
            by_name = {f["name"].lower(): sql_type(f["type"]) for f in fields}
            kinds += ["", "data_type", *(by_name[c.lower()] for c in clustered)]
            comments += ["", "comment", *(None for _ in clustered)]
        return Result(rows(col_name=names, data_type=kinds, comment=comments))

    def describe_as_json(self, session: Session, parts: list[str]) -> Result:
        """As documented: docs.databricks.com, "DESCRIBE TABLE", "JSON formatted output"."""
        path, name = self._table(session, parts), session.name(parts)
        info = self._catalog.info(path)
        columns = []
        for field in read_metadata(path).fields:
            column = {"name": field["name"], "type": _json_type(field["type"])}
            if comment := field.get("metadata", {}).get("comment"):
                column["comment"] = comment
            column["nullable"] = field["nullable"]
            if default := info.rules(field["name"]).get("default"):
                column["default"] = default
            columns.append(column)
        found = {
            "table_name": name.object,
            "catalog_name": name.catalog,
            "schema_name": name.schema,
            "namespace": [name.schema],
            "type": "MANAGED",
            "provider": "delta",
            "columns": columns,
            **({"comment": info.comment} if info.comment else {}),
            "table_properties": self._properties(path),
        }
        return Result(rows(json_metadata=[json.dumps(found)]))

    def _properties(self, path: Path) -> dict[str, str]:
        metadata, info = read_metadata(path), self._catalog.info(path)
        found = {k: v for k, v in metadata.configuration.items() if k != NO_STATISTICS}
        found |= {f"delta.constraints.{name}": text for name, text in info.checks.items()}
        found |= {f"delta.feature.{name}": "supported" for name in metadata.features}
        found |= {"clusterByAuto": "true"} if info.cluster_by_auto else {}
        return dict(sorted({**found, **info.hidden_properties}.items()))

    def properties(self, session: Session, parts: list[str]) -> Result:
        found = self._properties(self._table(session, parts))
        return Result(rows(key=list(found), value=list(found.values())))

    def detail(self, session: Session, parts: list[str]) -> Result:
        path = self._table(session, parts)
        metadata, info = read_metadata(path), self._catalog.info(path)
        name = session.name(parts)
        detail = {
            "format": "delta",
            "id": metadata.id,
            "name": f"{name.catalog}.{name.schema}.{name.object}",
            "description": info.comment,
            "location": path.as_uri(),
            "partitionColumns": list(metadata.partition_columns),
            "clusteringColumns": info.cluster_by,
            "properties": list(self._properties(path).items()),
            "minReaderVersion": metadata.min_reader,
            "minWriterVersion": metadata.min_writer,
            "tableFeatures": sorted(metadata.features),
        }
        strings = pa.list_(pa.string())
        schema = pa.schema(
            [
                ("format", pa.string()),
                ("id", pa.string()),
                ("name", pa.string()),
                ("description", pa.string()),
                ("location", pa.string()),
                ("partitionColumns", strings),
                ("clusteringColumns", strings),
                ("properties", pa.map_(pa.string(), pa.string())),
                ("minReaderVersion", pa.int32()),
                ("minWriterVersion", pa.int32()),
                ("tableFeatures", strings),
            ]
        )
        return Result(pa.Table.from_pylist([detail], schema=schema))

    def history(self, session: Session, parts: list[str]) -> Result:
        path = self._table(session, parts)
        found = []
        for version in range(latest_version(path), -1, -1):
            file = log_file(path, version)
            if not file.exists():
                break
            actions = [json.loads(line) for line in file.read_text().splitlines()]
            info: dict[str, Any] = next((a["commitInfo"] for a in actions if "commitInfo" in a), {})
            found.append(
                {
                    "version": version,
                    "timestamp": datetime.fromtimestamp(info.get("timestamp", 0) / 1000, UTC),
                    "operation": info.get("operation"),
                    "operationMetrics": [
                        (key, str(value)) for key, value in info.get("operationMetrics", {}).items()
                    ],
                }
            )
        schema = pa.schema(
            [
                ("version", pa.int64()),
                ("timestamp", pa.timestamp("us", "UTC")),
                ("operation", pa.string()),
                ("operationMetrics", pa.map_(pa.string(), pa.string())),
            ]
        )
        return Result(pa.Table.from_pylist(found, schema=schema))

    def create_table(self, session: Session, parts: list[str]) -> Result:
        path = self._table(session, parts)
        info = self._catalog.info(path)
        columns = ",\n  ".join(
            f"{quote(f['name'])} {sql_type(f['type']).upper()}"
            + " NOT NULL" * (not f["nullable"])
            + _rules_text(info.rules(f["name"]))
            for f in read_metadata(path).fields
        )
        text = f"CREATE TABLE {session.name(parts)} (\n  {columns})\nUSING delta"
        if clustered := self._catalog.info(path).cluster_by:
            text += f"\nCLUSTER BY ({', '.join(quote(c) for c in clustered)})"
        elif self._catalog.info(path).cluster_by_auto:
            text += "\nCLUSTER BY AUTO"
        pairs = self._properties(path).items()
        text += f"\nTBLPROPERTIES ({', '.join(f'{literal(k)} = {literal(v)}' for k, v in pairs)})"
        return Result(rows(createtab_stmt=[text]))

    def grants(self, session: Session, parts: list[str]) -> Result:
        found = self._catalog.info(self._table(session, parts)).grants
        count = len(found)
        return Result(
            rows(
                Principal=[principal for principal, _ in found],
                ActionType=[privilege for _, privilege in found],
                ObjectType=["TABLE"] * count,
                ObjectKey=[str(session.name(parts)).replace("`", "")] * count,
            )
        )


def _rules_text(rules: dict[str, Any]) -> str:
    if "generated" in rules:
        return f" GENERATED ALWAYS AS ({rules['generated']})"
    if identity := rules.get("identity"):
        verb = "ALWAYS" if identity["always"] else "BY DEFAULT"
        return f" GENERATED {verb} AS IDENTITY (INCREMENT BY {identity['step']})"
    return f" DEFAULT {rules['default']}" if "default" in rules else ""


def _json_type(delta_type: Any) -> dict[str, Any]:
    if not isinstance(delta_type, str):
        return {"name": "variant" if is_variant(delta_type) else delta_type["type"]}
    if match := re.fullmatch(r"decimal\((\d+),(\d+)\)", delta_type):
        return {"name": "decimal", "precision": int(match[1]), "scale": int(match[2])}
    return {"name": {"timestamp": "timestamp_ltz"}.get(delta_type, sql_type(delta_type))}


def _like(name: str, pattern: str | None) -> bool:
    if pattern is None:
        return True
    return any(fnmatch(name, one.lower()) for one in pattern.split("|"))
