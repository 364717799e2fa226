"""Definitions of Delta tables: reading, creating and altering them.

Sources: delta-rs documentation, "Delta Lake schema evolution", `DeltaTable.alter`.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.dlt_destination.columns import with_columns
from adapters.dlt_destination.delta.column_order import order_columns
from adapters.dlt_destination.delta.folders import (
    is_folder,
    last_part,
    location,
    log_folder,
    open_table,
)
from adapters.dlt_destination.delta.parquet_rows import as_reader, chunks, writer_properties
from adapters.dlt_destination.delta.upkeep import PROPERTIES
from adapters.dlt_destination.dlt.filesystem_client import storage_options
from adapters.dlt_destination.sql import unrepresentable_sql
from adapters.dlt_destination.sql.dialect import DATAFUSION
from cdc_core.values.merges import UNREPRESENTABLE_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cdc_core.values.merges import Rename
    from cdc_core.values.table_rules import ClusterBy


class SchemasOnDemand(MutableMapping[str, pa.Schema]):
    """Columns of tables by name, read on first use: a batch changes few of many tables."""

    def __init__(self, names: Iterable[str], read: Callable[[str], pa.Schema]) -> None:
        self._schemas: dict[str, pa.Schema | None] = dict.fromkeys(names)
        self._read = read

    def __getitem__(self, name: str) -> pa.Schema:
        schema = self._schemas[name]
        if schema is None:
            schema = self._schemas[name] = self._read(name)
        return schema

    def __setitem__(self, name: str, schema: pa.Schema) -> None:
        self._schemas[name] = schema

    def __delitem__(self, name: str) -> None:
        del self._schemas[name]

    def __contains__(self, name: object) -> bool:
        return name in self._schemas

    def __iter__(self) -> Iterator[str]:
        return iter(self._schemas)

    def __len__(self) -> int:
        return len(self._schemas)


class Definitions:
    """The part of the store that knows columns."""

    def columns(self, client: Any) -> MutableMapping[str, pa.Schema]:
        return SchemasOnDemand(self._tables(client), lambda table: schema_of(client, table))

    def _tables(self, client: Any) -> list[str]:
        files = client.fs_client
        files.invalidate_cache()
        if not is_folder(files, client.dataset_path):
            return []
        folders = [
            last_part(entry["name"].rstrip("/\\"))
            for entry in files.ls(client.dataset_path, detail=True)
            if entry["type"] == "directory"
        ]
        return sorted(
            name
            for name in folders
            if not name.startswith("_dlt") and is_folder(files, log_folder(client, name))
        )

    def current(self, client: Any, table: str) -> pa.Schema | None:
        client.fs_client.invalidate_cache()
        there = is_folder(client.fs_client, log_folder(client, table))
        return schema_of(client, table) if there else None

    def columns_of(self, client: Any, table: str) -> pa.Schema:
        """Return the columns of one table; an empty schema if it is missing."""
        found = self.current(client, table)
        return pa.schema([]) if found is None else found

    def create(
        self,
        client: Any,
        table: str,
        fields: Sequence[pa.Field],
        cluster_by: ClusterBy,  # noqa: ARG002 - delta-rs has no layout
    ) -> None:
        from deltalake import DeltaTable

        if not client.is_storage_initialized():
            client.initialize_storage()
        DeltaTable.create(
            location(client, table),
            schema=nullable(fields),
            mode="ignore",
            configuration=PROPERTIES,
            storage_options=storage_options(client),
        )

    def add_columns(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        """Add columns before the metadata columns."""
        from deltalake import Schema

        names = with_columns(self.columns_of(client, table).names, fields)
        added = Schema.from_arrow(nullable(fields)).fields
        open_table(client, table).alter.add_columns(added)
        self.order(client, table, names)

    def order(self, client: Any, table: str, names: Sequence[str]) -> None:
        log = log_folder(client, table)
        order_columns(open_table(client, table), client.fs_client, log, names)

    def widen(self, client: Any, table: str, fields: Sequence[pa.Field]) -> None:
        wider = {field.name: field.type for field in fields}
        self._rewrite(client, table, lambda f: f.with_type(wider[f.name]) if f.name in wider else f)

    def rename_column(self, client: Any, table: str, old: str, new: str) -> None:
        self._rewrite(client, table, lambda f: f.with_name(new) if f.name == old else f)

    def _rewrite(self, client: Any, table: str, change: Callable[[pa.Field], pa.Field]) -> None:
        """Rewrite the table with another schema, in one commit."""
        from deltalake import write_deltalake

        delta = open_table(client, table)
        dataset = delta.to_pyarrow_dataset()
        schema = pa.schema([change(field) for field in dataset.schema])
        batches = (
            rows.rename_columns(schema.names).cast(schema)
            for rows in chunks(dataset, dataset.schema.names)
        )
        write_deltalake(
            delta,
            as_reader(batches, schema),
            mode="overwrite",
            schema_mode="overwrite",
            writer_properties=writer_properties(),
        )

    def rename_table(self, client: Any, old: str, new: str) -> None:
        source, target = (client.pathlib.join(client.dataset_path, name) for name in (old, new))
        if is_folder(client.fs_client, target):
            # Not a table, so it was left by a killed rename or removal. To move a folder onto an
            # existing folder would move it into that folder.
            client.fs_client.rm(target, recursive=True)
        client.fs_client.mv(source, target, recursive=True)

    def rename_unrepresentable(self, client: Any, rename: Rename) -> None:
        values, where = unrepresentable_sql.renamed(DATAFUSION, rename)
        open_table(client, UNREPRESENTABLE_TABLE).update(
            values, predicate=where, writer_properties=writer_properties()
        )

    def forget_unrepresentable(self, client: Any, table: str) -> None:
        where = unrepresentable_sql.of_table(DATAFUSION, table)
        open_table(client, UNREPRESENTABLE_TABLE).delete(
            where, writer_properties=writer_properties()
        )


def schema_of(client: Any, table: str) -> pa.Schema:
    return pa.schema(open_table(client, table).schema().to_arrow())


def nullable(fields: Iterable[pa.Field]) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in fields])
