"""A snapshot that Spark's workers can read in, kept open by the driver.

with open_snapshot("postgresql://…") as snapshot:
    frame = spark.read.format("pgbronze").options(**snapshot.options, table="orders").load()
    frame.write.saveAsTable("bronze.orders")
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adapters.pgoutput.session.settings import SourceSettings
from adapters.pgoutput.snapshot.exported_snapshot import guarded_snapshot
from adapters.pgoutput.snapshot.guards import CHECK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.pgoutput.snapshot.guards import SnapshotGuards
    from cdc_core.values.lsn import Lsn


@dataclass(frozen=True)
class OpenedSnapshot:
    """Every commit at or before `lsn` is visible, none after it."""

    lsn: Lsn
    _credentials: str = field(repr=False)
    _guards: SnapshotGuards = field(repr=False)

    @property
    def options(self) -> dict[str, str]:
        """Options of the data source, with the credentials."""
        return {"credentials": self._credentials, "snapshot": ",".join(self._guards.names)}


@contextmanager
def open_snapshot(credentials: str) -> Iterator[OpenedSnapshot]:
    """Open a snapshot of the database. It lives until the end of the block.

    A temporary replication slot gives the LSN, so the role needs REPLICATION and the server
    `wal_level = logical`. Raises `CdcError`.
    """
    with guarded_snapshot(SourceSettings(credentials), create_slot=False) as (guards, exported):
        ended = threading.Event()
        keeper = threading.Thread(
            target=_keep, args=(guards, ended), name="pgbronze-snapshot", daemon=True
        )
        keeper.start()
        try:
            yield OpenedSnapshot(exported.lsn, credentials, guards)
        finally:
            ended.set()
            keeper.join()


def _keep(guards: SnapshotGuards, ended: threading.Event) -> None:
    while not ended.wait(CHECK_SECONDS):
        guards.keep()
