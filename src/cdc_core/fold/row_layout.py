"""The one row layout: the target's columns, metadata columns, control columns, else NULL.

The stream, full loads, comparisons, repairs and removals all make their rows here. The rules of
columns apply here and nowhere else: a value that a rule masks never leaves this module unmasked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cdc_core.values.history import LOG_CONTROL_FIELDS, LOG_FIELDS, Moment
from cdc_core.values.masks import last4
from cdc_core.values.merges import (
    COMMITTED_AT_COLUMN,
    KEYED_CONTROL_FIELDS,
    LSN_COLUMN,
    METADATA_FIELDS,
    MULTISET_CONTROL_FIELDS,
)
from cdc_core.values.table_rules import ColumnRule

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from cdc_core.ports.snapshot_source import Snapshot
    from cdc_core.values.checkpoint import ColumnState, TableState
    from cdc_core.values.masks import Hasher
    from cdc_core.values.merges import TargetTable

    #: The values of one column; a scalar is the value of every row.
    Values: TypeAlias = pa.Array | pa.ChunkedArray | pa.Scalar[Any]


@dataclass(frozen=True)
class RowLayout:
    """Which target column each column of the source is, by its name there, with its rule.

    `hasher` hashes the columns with that rule.
    """

    columns: Mapping[str, ColumnState]
    hasher: Hasher | None = None

    @classmethod
    def of(cls, state: TableState, hasher: Hasher | None) -> RowLayout:
        """The layout of a table whose columns have the names of `state`."""
        return cls(state.sent, hasher)

    def values(self, rows: pa.Table) -> dict[str, Values]:
        """Return the values of target columns, by name, under the column rules.

        `rows` has columns of the source. A column without values is NULL.
        """
        return {
            self.columns[name].target: self._ruled(rows.column(name), self.columns[name])
            for name in rows.column_names
            if name in self.columns and self.columns[name].rule.is_read
        }

    def shown(self, name: str) -> str | None:
        """Return the target column that has a source column's values as they are; None if none."""
        column = self.columns.get(name)
        return column.target if column is not None and column.rule.shows_values else None

    def _ruled(self, values: pa.ChunkedArray, column: ColumnState) -> pa.ChunkedArray:
        match column.rule:
            case ColumnRule.HASH:
                assert self.hasher is not None
                return self.hasher(values)
            case ColumnRule.LAST4:
                return last4(values)
            case _:
                return values


def keyed_schema(target: TargetTable) -> pa.Schema:
    """The columns of the rows of a `KeyedMerge`."""
    return pa.schema([*target.schema, *METADATA_FIELDS, *KEYED_CONTROL_FIELDS])


def multiset_schema(target: TargetTable) -> pa.Schema:
    """The columns of the rows of a `MultisetMerge`."""
    return pa.schema([*target.schema, *METADATA_FIELDS, *MULTISET_CONTROL_FIELDS])


def log_schema(target: TargetTable) -> pa.Schema:
    """The columns of the rows of a `LogAppend`."""
    return pa.schema([*target.schema, *LOG_FIELDS, *LOG_CONTROL_FIELDS])


def loaded_schema(target: TargetTable) -> pa.Schema:
    """The columns of the rows of a `Replacement`."""
    return pa.schema([*target.schema, *METADATA_FIELDS])


def arrange(schema: pa.Schema, values: Mapping[str, Values], count: int) -> pa.Table:
    """Return `count` rows with exactly the columns of `schema`, by name.

    A column without values is NULL. Values of another type are cast; `ArrowInvalid` if one does not
    fit.
    """
    columns = [_column(values.get(field.name), field, count) for field in schema]
    return pa.table(columns, schema=schema)


def relaid(rows: pa.Table, before: TargetTable, target: TargetTable) -> pa.Table:
    """Return rows that were laid out for `before` in the columns of `target`.

    Columns keep their positions when a table changes. They may have new names or wider types, and
    columns may be added, in which older rows are NULL.
    """
    own = len(before.schema)
    columns = [
        rows.column(place).cast(field.type) if place < own else pa.nulls(len(rows), field.type)
        for place, field in enumerate(target.schema)
    ]
    control = list(rows.schema)[own:]
    return pa.table([*columns, *rows.columns[own:]], schema=pa.schema([*target.schema, *control]))


def values_of(rows: pa.Table) -> dict[str, Values]:
    """The columns of a table, by name."""
    return dict(zip(rows.column_names, rows.columns, strict=True))


def metadata_of(snapshot: Snapshot) -> dict[str, Values]:
    """The metadata of rows that were read in a snapshot."""
    return metadata_at(Moment(snapshot.lsn, snapshot.taken_at))


def metadata_at(moment: Moment) -> dict[str, Values]:
    """The metadata of rows that all have one moment."""
    lsn, committed_at = METADATA_FIELDS
    return {
        LSN_COLUMN: pa.scalar(int(moment.lsn), lsn.type),
        COMMITTED_AT_COLUMN: pa.scalar(moment.committed_at, committed_at.type),
    }


def _column(values: Values | None, field: pa.Field, count: int) -> pa.Array | pa.ChunkedArray:
    if values is None:
        return pa.nulls(count, field.type)
    if isinstance(values, pa.Scalar):
        return pa.repeat(values.cast(field.type), count)
    return values if values.type == field.type else values.cast(field.type)
