"""The rows of a destination table that are not marked as deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.compute as pc

from cdc_core.values.merges import DELETED_AT_COLUMN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from cdc_core.ports.destination import Destination
    from cdc_core.values.checkpoint import TableState


def scan_live(
    destination: Destination, state: TableState, columns: Sequence[str]
) -> Iterator[pa.Table]:
    """Yield the live rows of a table in chunks of limited size, with these columns."""
    if not state.soft_deletes:
        yield from destination.scan(state.target, columns)
        return
    for chunk in destination.scan(state.target, [*columns, DELETED_AT_COLUMN]):
        live = pc.is_null(chunk.column(DELETED_AT_COLUMN))
        yield chunk.filter(live).select(list(columns))
