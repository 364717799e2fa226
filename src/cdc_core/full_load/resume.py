"""A large table read in parts, each kept at the destination as soon as it is read.

A run that is killed loses the part in hand only. The next one keeps those parts that have the same
rows in its own snapshot, and reads the others: so all are as they are at its LSN.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from cdc_core.full_load.table_reading import Parts
from cdc_core.ports.progress import Note
from cdc_core.values.checkpoint import KeptPart, PartialReading
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

#: A table of fewer bytes, by the source's statistics, is read whole: it takes half a minute, and
#: parts cost a sixth more.
LARGE_BYTES = 2 << 30


def plan_parts(
    snapshot: Snapshot,
    table: SourceTable,
    state: TableState,
    destination: Destination,
    before: PartialReading | None,
    progress: Progress,
) -> Parts:
    """Divide a table, less what was read of it `before` and is the same now; `state` is the
    table's own after the reading."""
    relation = table.relation
    reading = PartialReading(relation.oid, _description(table, state), snapshot.horizon)
    if before is not None and (before.oid, before.description) == (
        relation.oid,
        reading.description,
    ):
        there = destination.kept()
        parts = tuple(
            kept
            for kept in before.parts
            if kept.name in there
            and snapshot.unchanged(relation, kept.part, kept.rows, before.horizon)
        )
        reading = replace(reading, parts=parts)
        progress.emit(
            Note(
                f"going on with table {relation.table}: of {len(before.parts)} parts that were "
                f"read {len(parts)} are as they were"
            )
        )
    elif 0 < table.total_bytes < LARGE_BYTES:  # a table without statistics has no known size
        return Parts(reading)
    return Parts(reading, tuple(snapshot.parts(relation, [kept.part for kept in reading.parts])))


def keep_parts(
    table: TableReading,
    steps: Sequence[SchemaStep],
    destination: Destination,
    checkpoint: Checkpoint,
) -> Checkpoint:
    """Read all parts but the last and keep them; the checkpoint with them. `steps` are done first.

    The values that they could not hold are loaded with them.
    """
    checkpoint = replace(checkpoint, reading=table.parts.reading)
    target = table.state.target_table
    for part in table.parts.unread[:-1]:
        reading = checkpoint.reading
        assert reading is not None
        # No two snapshots of a slot have one LSN: what a killed run left has another name.
        name = f"{reading.oid}-{table.snapshot.lsn:X}-{len(reading.parts)}"
        kept = KeptPart(part, name, destination.keep(name, target, table.rows(part)))
        checkpoint = replace(checkpoint, reading=replace(reading, parts=(*reading.parts, kept)))
        cells = table.cells.take()
        destination.load(LoadBatch(steps=tuple(steps), unrepresentable=cells), checkpoint)
        steps = ()
    return checkpoint


def _description(table: SourceTable, state: TableState) -> str:
    """Of this table as it is, and of its columns in the destination."""
    described = (table.relation, table.fingerprint, state.columns)
    return hashlib.sha256(repr(described).encode()).hexdigest()[:32]
