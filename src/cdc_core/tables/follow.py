"""The tables of a run that continues from a checkpoint, compared with source and destination."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdc_core.tables.followed_tables import FollowedTables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdc_core.ports.catalog import Catalog
    from cdc_core.ports.destination import Destination
    from cdc_core.values.checkpoint import Checkpoint
    from cdc_core.values.lsn import Lsn


def follow_tables(
    checkpoint: Checkpoint,
    catalog: Catalog,
    destination: Destination,
    *,
    first_schema: str,
    position: Callable[[], Lsn],
    until: Lsn,
    freeze: bool = False,
    unread: Mapping[int, str] | None = None,
) -> FollowedTables:
    """Return the tables as the next run finds them; the WAL has reached `until`.

    `unread` are tables to read in any case, by oid, with the reason.
    """
    tables = FollowedTables(
        checkpoint, first_schema, catalog, position, destination.columns, freeze, destination.naming
    )
    tables.refresh(until)
    tables.read_lost(checkpoint.tables)
    for oid, why in (unread or {}).items():
        if oid in tables.sources.keys() - tables.set_aside.keys():  # it may have been dropped
            tables.read_again(oid, why)
    tables.forget_written_ranges()
    return tables
