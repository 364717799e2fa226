"""Partitions that were detached or dropped: their rows can be removed by their bounds.

This is safe if no existing partition can have rows within these bounds: then the source has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdc_core.values.partition_bounds import comparable, disjoint
from cdc_core.values.table_rules import ColumnRule

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from cdc_core.values.checkpoint import TableState
    from cdc_core.values.fingerprint import Fingerprint
    from cdc_core.values.lsn import Lsn


@dataclass(frozen=True)
class Removal:
    """Rows of partitions to remove once everything that committed before `after` is loaded: then
    the stream sends no more of them."""

    gone: frozenset[int]
    after: Lsn


def in_the_way(state: TableState, now: Fingerprint) -> frozenset[int] | None:
    """Return the partitions that can have rows within the bounds of one that is gone, unless they
    are empty. None if the bounds of one that is gone do not identify its rows."""
    before = state.fingerprint
    types = _types(state)
    held = {oid: b for oid, b in before.bounds if comparable(b, types)}
    gone = now.gone(before)
    if not (state.key and gone <= held.keys()):
        return None
    there = {oid: b for oid, b in now.bounds if comparable(b, types)}
    return frozenset(
        oid
        for oid, *_ in now.partitions
        if oid not in there or not all(disjoint(held[one], there[oid], types) for one in gone)
    )


def _types(state: TableState) -> Mapping[int, pa.DataType]:
    schema = state.target_table.schema
    # Bounds say nothing of values that a rule changes.
    kept = [c for c in state.columns if c.rule is ColumnRule.KEEP and not c.dropped]
    return {c.attnum: schema.field(c.target).type for c in kept}
