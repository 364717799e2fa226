"""The tables of the dataset: their columns, and the changes that make them fit a batch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from adapters.dlt_destination.columns import all_fields, history_fields, plain, same, widens
from adapters.dlt_destination.refused_tables import RefusedTables, UnfitTable
from cdc_core.values.history import LOG_FIELDS, SORT_COLUMN, VERSION_FIELDS, VersionMerge
from cdc_core.values.merges import (
    UNREPRESENTABLE_TABLE,
    ColumnRename,
    ForgetUnrepresentable,
    KeyedMerge,
    LoadBatch,
    TableRename,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, MutableMapping

    from adapters.dlt_destination.store import TableStore
    from cdc_core.values.merges import Rename, Replacement, SchemaStep
    from cdc_core.values.table_rules import ClusterBy


class TableDefinitions:
    """Knows the columns of all tables from their first use on, until `forget`."""

    def __init__(self, store: TableStore) -> None:
        self._store = store
        self._columns: MutableMapping[str, pa.Schema] | None = None

    def forget(self) -> None:
        self._columns = None

    def known(self, client: Any) -> MutableMapping[str, pa.Schema]:
        if self._columns is None:
            self._columns = self._store.columns(client)
        return self._columns

    def current(self, client: Any, table: str) -> pa.Schema | None:
        """Return a table's current columns, the basis of every change of a definition."""
        known, schema = self.known(client), self._store.current(client, table)
        if schema is not None:
            known[table] = schema
        elif table in known:
            del known[table]
        return schema

    def define(self, client: Any, batch: LoadBatch) -> None:
        """Rename, create and alter tables until they fit the batch, before any row is written.

        After a refused table the other tables are still tried, so that one error names all of them.
        """
        tasks: list[tuple[str, Callable[[], None]]] = []
        for step in batch.steps:
            name = step.new if isinstance(step, TableRename) else step.table
            tasks.append((name, partial(self._rename, client, step)))
        for replacement in batch.replacements:
            make_fit = partial(self._store.make_fit, client, replacement)
            tasks.append((replacement.target.name, make_fit))
        replaced = {replacement.target.name for replacement in batch.replacements}
        for merge in batch.merges:
            target, soft_deletes = merge.target, False
            key: tuple[str, ...] = ()
            if isinstance(merge, KeyedMerge):
                key, soft_deletes = merge.key, merge.soft_deletes
            fields = all_fields(target, soft_deletes=soft_deletes)
            cluster_by = target.cluster_by or key
            fit = partial(self.fit, client, target.name, fields, cluster_by)
            # A replacement in the same batch already gives the table its columns.
            if target.name not in replaced:
                tasks.append((target.name, fit))
        tasks += [
            (table, partial(self.fit, client, name, fields, cluster_by))
            for table, name, fields, cluster_by in _history_tables(batch)
        ]
        refused = RefusedTables(self._store, len({name for name, _ in tasks}))
        for name, do in tasks:
            if name in refused:
                continue
            try:
                do()
            except Exception as error:
                if not refused.add(name, error) or refused.for_a_common_cause:
                    raise
        refused.require_none()

    def _rename(self, client: Any, step: SchemaStep) -> None:
        """Rename a table or column, unless that has been done; or forget a table's values."""
        match step:
            case ColumnRename(table, old, new):
                schema = self.current(client, table)
                names = schema.names if schema is not None else []
                if old in names and new not in names:
                    self._rename_unrepresentable(client, step)
                    self._store.rename_column(client, table, old, new)
                    self.current(client, table)
            case TableRename(old, new):
                if self.current(client, old) is not None and self.current(client, new) is None:
                    self._rename_unrepresentable(client, step)
                    self._store.rename_table(client, old, new)
                    self.current(client, old)
                    self.current(client, new)
            case ForgetUnrepresentable(table):
                if self.current(client, UNREPRESENTABLE_TABLE) is not None:
                    self._store.forget_unrepresentable(client, table)

    def _rename_unrepresentable(self, client: Any, step: Rename) -> None:
        """Runs before the rename itself: if the rename is done, so is this."""
        if self.current(client, UNREPRESENTABLE_TABLE) is not None:
            self._store.rename_unrepresentable(client, step)

    def fit(
        self, client: Any, table: str, fields: Iterable[pa.Field], cluster_by: ClusterBy
    ) -> None:
        """Create the table, or add missing columns and widen narrow ones.

        The columns known from the start of the run only decide that nothing has to be done.
        """
        fields = list(fields)
        known = self.known(client)
        if table in known and _unfit(fields, known[table]) == ([], []):
            return
        actual = self.current(client, table)
        if actual is None:
            self._store.create(client, table, fields, cluster_by)
            known[table] = pa.schema(fields)
            return
        missing, narrow = _unfit(fields, actual)
        for field in narrow:
            held = actual.field(field.name).type
            if not widens(held, plain(field.type)):
                raise UnfitTable(
                    f"column {field.name!r} of {table!r} is {held} there and {field.type} at the "
                    "source",
                    "run pgbronze snapshot --tables with this table",
                )
        if missing:
            self._store.add_columns(client, table, missing)
        if narrow:
            self._store.widen(client, table, narrow)
        if missing or narrow:
            self.current(client, table)


def _unfit(fields: Iterable[pa.Field], actual: pa.Schema) -> tuple[list[pa.Field], list[pa.Field]]:
    """Return the columns that a table lacks, and those that are too narrow in it."""
    missing: list[pa.Field] = []
    narrow: list[pa.Field] = []
    for field in fields:
        position = actual.get_field_index(field.name)
        if position < 0:
            missing.append(field)
            continue
        held = actual.field(position).type
        if not (same(held, field.type) or widens(plain(field.type), held)):
            narrow.append(field)
    return missing, narrow


def _history_tables(
    batch: LoadBatch,
) -> Iterator[tuple[str, str, list[pa.Field], tuple[str, ...]]]:
    """Yield the history tables of a batch: the table, the name of its history, the columns of that,
    and those to lay it out by."""
    for step in batch.history:
        target, name = step.table, step.table.name
        if isinstance(step, VersionMerge):
            yield name, step.name, history_fields(target, VERSION_FIELDS), step.key
        else:
            yield name, step.name, history_fields(target, LOG_FIELDS), (SORT_COLUMN,)
    keyed = [merge for merge in batch.merges if isinstance(merge, KeyedMerge)]
    reads: list[Replacement | KeyedMerge] = [*batch.replacements, *keyed]
    for read in reads:
        target, name, difference = read.target, read.target.name, read.history
        if difference is not None and difference.log is not None:
            yield name, difference.log, history_fields(target, LOG_FIELDS), (SORT_COLUMN,)
        if difference is not None and difference.versions is not None:
            yield name, difference.versions, history_fields(target, VERSION_FIELDS), read.key
