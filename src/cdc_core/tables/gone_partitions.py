"""Rows of partitions that were detached or dropped: removed by their bounds.

Where no partition that is there may have rows within the bounds of one that is gone, no row within
them is the source's any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdc_core.values.partition_bounds import comparable, disjoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from cdc_core.values.checkpoint import TableState
    from cdc_core.values.fingerprint import Fingerprint
    from cdc_core.values.lsn import Lsn


@dataclass(frozen=True)
class Removal:
    """The rows of these partitions are to be removed, once all that committed before `after` is
    loaded: no more of them come then."""

    gone: frozenset[int]
    after: Lsn


def in_the_way(state: TableState, now: Fingerprint) -> frozenset[int] | None:
    """Partitions that may have rows within the bounds of one that is gone, unless they are empty.

    None where the rows of one that is gone cannot be told by its bounds.
    """
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
    return {c.attnum: schema.field(c.target).type for c in state.columns if not c.dropped}
