"""Reads row ranges of a table in one session: what a worker does.

A lost session is opened again and continues within its range, as in a full load of one process.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from adapters.pgoutput.session.connection import connect
from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.snapshot.guards import adopt_snapshot
from adapters.pgoutput.snapshot.range_readers import RangeReaders
from adapters.pgoutput.snapshot.row_sessions import SEGMENT_BYTES
from adapters.pgoutput.snapshot.table_scan import open_session_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.snapshot.row_ranges import RowRange
    from adapters.pgoutput.snapshot.table_scan import TableScan
    from adapters.pgoutput.wire.query_rows import ReadRows


def read_ranges(
    settings: SourceSettings, snapshots: Sequence[str], scan: TableScan
) -> Iterator[ReadRows]:
    """Yield the rows of a scan's ranges. One session is open at a time.

    Closing the iterator ends the session. Raises `CdcError`.
    """
    adopt = partial(adopt_snapshot, snapshots)
    readers = RangeReaders(partial(open_session_in, settings, adopt), 1, SEGMENT_BYTES)
    with closing(readers):
        readers.expect(scan.relation.oid, lambda: scan.query(partial(_found_again, settings)))
        yield from readers.read()


def check_session(settings: SourceSettings, snapshots: Sequence[str]) -> None:
    """Open a session in the snapshot and close it. Raises `CdcError`."""
    with source_errors("adopting the snapshot"):
        open_session_in(settings, partial(adopt_snapshot, snapshots)).close()


def _found_again(settings: SourceSettings, lost: RowRange) -> RowRange:
    with connect(settings) as session:
        return lost.found_again(session)
