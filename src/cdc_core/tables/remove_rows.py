"""Remove the rows of partitions that are gone; their bounds identify them at the destination."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cdc_core.fold.row_layout import arrange, keyed_schema, metadata_at, values_of
from cdc_core.tables.history_of_rows import difference
from cdc_core.tables.live_rows import scan_live
from cdc_core.values.merges import DELETE, OP_COLUMN, KeyedMerge, LoadBatch
from cdc_core.values.partition_bounds import rows_within

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cdc_core.ports.destination import Destination
    from cdc_core.values.checkpoint import TableState
    from cdc_core.values.history import Moment

#: Bytes of keys held while a table is scanned, and rows staged at a time.
HELD_BYTES = 256 << 20
STAGED_ROWS = 200_000


class UnknownRows(Exception):
    """A value is NULL because its column could not hold it, so the row's partition is unknown."""


def removals(
    state: TableState, gone: Collection[int], destination: Destination, at: Moment
) -> Iterator[LoadBatch]:
    """Yield loads that remove the rows of these partitions; all rows there are older than `at`.

    Load each before you request the next. Raises `UnknownRows` before the first. The log gets
    numbers from the one of `state` on.
    """
    while True:
        keys, whole = _keys(state, gone, destination)
        if len(keys):
            *staged, last = [
                _deletes(state, keys.slice(start, STAGED_ROWS), at)
                for start in range(0, len(keys), STAGED_ROWS)
            ]
            rows = tuple(destination.stage(part) for part in staged)
            merge = KeyedMerge(
                state.target_table,
                state.target_key,
                last,
                staged=rows,
                soft_deletes=state.soft_deletes,
                history=difference(state, at, destination),
            )
            yield LoadBatch(merges=(merge,))
        if whole:
            return


def _keys(
    state: TableState, gone: Collection[int], destination: Destination
) -> tuple[pa.Table, bool]:
    """Return keys of rows in these partitions, up to `HELD_BYTES`, and whether these are all."""
    bounds = [found for oid, found in state.fingerprint.bounds if oid in gone]
    names = {c.attnum: c.target for c in state.columns if not c.dropped}
    key = state.target_key
    bounding = {names[bound.attnum] for levels in bounds for bound in levels}
    columns = list(dict.fromkeys([*key, *sorted(bounding)]))
    types = pa.schema([state.target_table.schema.field(name) for name in columns])
    found = [types.empty_table().select(list(key))]
    # The scan ends before the table that it reads is written.
    for chunk in scan_live(destination, state, columns):
        rows = chunk.cast(types)
        if any(rows.column(name).null_count for name in bounding):
            raise UnknownRows
        within = np.zeros(len(rows), np.bool_)
        for levels in bounds:
            within |= rows_within(rows, levels, names)
        found.append(rows.select(list(key)).filter(pa.array(within)))
        if sum(part.nbytes for part in found) >= HELD_BYTES:
            return pa.concat_tables(found), False
    return pa.concat_tables(found), True


def _deletes(state: TableState, keys: pa.Table, at: Moment) -> pa.Table:
    control = {**metadata_at(at), OP_COLUMN: pa.scalar(DELETE)}
    return arrange(keyed_schema(state.target_table), {**values_of(keys), **control}, len(keys))
