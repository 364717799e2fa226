"""The one row layout: the target's columns, metadata columns, control columns, else NULL.

The stream, full loads, repairs and removals all make their rows here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cdc_core.values.merges import (
    COMMITTED_AT_COLUMN,
    KEYED_CONTROL_FIELDS,
    LSN_COLUMN,
    METADATA_FIELDS,
    MULTISET_CONTROL_FIELDS,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from cdc_core.ports.snapshot_source import Snapshot
    from cdc_core.values.merges import TargetTable

    #: The values of one column; a scalar is the value of every row.
    Values: TypeAlias = pa.Array | pa.ChunkedArray | pa.Scalar[Any]


def keyed_schema(target: TargetTable) -> pa.Schema:
    """The columns of the rows of a `KeyedMerge`."""
    return pa.schema([*target.schema, *METADATA_FIELDS, *KEYED_CONTROL_FIELDS])


def multiset_schema(target: TargetTable) -> pa.Schema:
    """The columns of the rows of a `MultisetMerge`."""
    return pa.schema([*target.schema, *METADATA_FIELDS, *MULTISET_CONTROL_FIELDS])


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


def values_of(rows: pa.Table) -> dict[str, Values]:
    """The columns of a table, by name."""
    return dict(zip(rows.column_names, rows.columns, strict=True))


def metadata_of(snapshot: Snapshot) -> dict[str, Values]:
    """The metadata of rows that were read in a snapshot."""
    lsn, committed_at = METADATA_FIELDS
    return {
        LSN_COLUMN: pa.scalar(int(snapshot.lsn), lsn.type),
        COMMITTED_AT_COLUMN: pa.scalar(snapshot.taken_at, committed_at.type),
    }


def _column(values: Values | None, field: pa.Field, count: int) -> pa.Array | pa.ChunkedArray:
    if values is None:
        return pa.nulls(count, field.type)
    if isinstance(values, pa.Scalar):
        return pa.repeat(values.cast(field.type), count)
    return values if values.type == field.type else values.cast(field.type)
