"""A large table is read by page ranges; the rows of each are durable as soon as it is read.

A killed run loses only the page range that it was reading. The next run uses the ranges whose rows
are the same in its own snapshot and reads the others, so that all are as they are at its LSN.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from cdc_core.full_load.table_reading import TableRanges
from cdc_core.ports.progress import Note
from cdc_core.values.checkpoint import PartialReading, WrittenRange
from cdc_core.values.merges import LoadBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdc_core.full_load.table_reading import TableReading
    from cdc_core.ports.catalog import SourceTable
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.progress import Progress
    from cdc_core.ports.snapshot_source import Snapshot
    from cdc_core.values.checkpoint import Checkpoint, TableState
    from cdc_core.values.merges import SchemaStep

#: A table with fewer bytes, by the source's statistics, is read in one go: that takes half a
#: minute, and page ranges cost a sixth more.
LARGE_BYTES = 2 << 30


def divide_table(
    snapshot: Snapshot,
    table: SourceTable,
    state: TableState,
    destination: Destination,
    before: PartialReading | None,
    progress: Progress,
) -> TableRanges:
    """Divide a table into page ranges, without those read `before` that are still the same.

    `state` is the table's state once it is read.
    """
    relation = table.relation
    reading = PartialReading(relation.oid, _description(table, state), snapshot.horizon)
    if before is not None and (before.oid, before.description) == (
        relation.oid,
        reading.description,
    ):
        there = destination.written()
        ranges = tuple(
            found
            for found in before.ranges
            if found.name in there
            and snapshot.unchanged(relation, found.page_range, found.rows, before.horizon)
        )
        reading = replace(reading, ranges=ranges)
        progress.emit(
            Note(
                f"table {relation.table}: continuing; {len(ranges)} of the {len(before.ranges)} "
                "page ranges read before are unchanged"
            )
        )
    elif 0 < table.total_bytes < LARGE_BYTES:  # without statistics the size is not known
        return TableRanges(reading)
    read = [found.page_range for found in reading.ranges]
    return TableRanges(reading, tuple(snapshot.page_ranges(relation, read)))


def write_ranges(
    table: TableReading, steps: Sequence[SchemaStep], checkpoint: Checkpoint
) -> Checkpoint:
    """Write all page ranges but the last, and make each durable; return the checkpoint that names
    them.

    `steps` are done first. Unrepresentable values are loaded with each range.
    """
    checkpoint = replace(checkpoint, reading=table.ranges.reading)
    for page_range in table.ranges.unread[:-1]:
        reading = checkpoint.reading
        assert reading is not None
        ranges = (*reading.ranges, WrittenRange(page_range, *table.write(page_range)))
        checkpoint = replace(checkpoint, reading=replace(reading, ranges=ranges))
        values = table.unrepresentable.take()
        table.destination.load(LoadBatch(steps=tuple(steps), unrepresentable=values), checkpoint)
        steps = ()
    return checkpoint


def _description(table: SourceTable, state: TableState) -> str:
    """Return a hash of the table's definition and of its columns at the destination."""
    described = (table.relation, table.fingerprint, table.rules, state.columns)
    return hashlib.sha256(repr(described).encode()).hexdigest()[:32]
