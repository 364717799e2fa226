"""A snapshot exported by creating a slot, at the LSN where the stream starts.

The connection that created the slot stays idle and open. Guards keep the snapshot in addition.
Manual: "Streaming Replication Protocol", CREATE_REPLICATION_SLOT.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from adapters.pgoutput.session.connection import connect, server_major
from adapters.pgoutput.session.sql_text import quote
from adapters.pgoutput.session.wal_position import require_logical_wal
from adapters.pgoutput.slot.slot import announce_wait, slot_creation_errors
from adapters.pgoutput.snapshot.guards import SnapshotGuards
from cdc_core.values.errors import OperatorNeeded
from cdc_core.values.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.session.settings import SourceSettings


@dataclass(frozen=True)
class ExportedSnapshot:
    """The slot's consistent point, and the name under which its snapshot can be adopted."""

    lsn: Lsn
    name: str


@contextmanager
def exported_snapshot(settings: SourceSettings, *, create_slot: bool) -> Iterator[ExportedSnapshot]:
    """Create the slot or a temporary one. The snapshot lives until the end of the block."""
    with connect(settings, replication=True) as connection:
        require_logical_wal(connection)
        yield _create_slot_exporting(connection, settings, create_slot=create_slot)


@contextmanager
def guarded_snapshot(
    settings: SourceSettings, *, create_slot: bool
) -> Iterator[tuple[SnapshotGuards, ExportedSnapshot]]:
    """An exported snapshot and its guards, until the end of the block."""
    with (
        exported_snapshot(settings, create_slot=create_slot) as exported,
        closing(SnapshotGuards(settings, exported.name)) as guards,
    ):
        yield guards, exported


def _create_slot_exporting(
    connection: Connection, settings: SourceSettings, *, create_slot: bool
) -> ExportedSnapshot:
    announce_wait(connection)
    major = server_major(connection)
    name = settings.slot_name if create_slot else f"pgbronze_snapshot_{uuid4().hex[:12]}"
    options = ["SNAPSHOT 'export'"]
    if create_slot and settings.failover and major >= 17:
        options.append("FAILOVER true")
    statement = (
        f"CREATE_REPLICATION_SLOT {quote(name)} {'' if create_slot else 'TEMPORARY '}"
        f"LOGICAL {quote(settings.plugin_name)} "
        + (f"({', '.join(options)})" if major >= 15 else "EXPORT_SNAPSHOT")
    )
    with slot_creation_errors(name, connection.info.user):
        row: Any = connection.execute(statement.encode()).fetchone()
    if row is None or row[2] is None:
        raise OperatorNeeded(f"replication slot {name!r} was created without a snapshot")
    return ExportedSnapshot(Lsn.parse(row[1]), row[2])
