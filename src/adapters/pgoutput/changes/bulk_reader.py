"""Reads a slot in bulk through SQL: in most cases several times as fast as a walsender.

This never moves the slot itself. `choose_reader` knows when a walsender is better. Manual:
"Replication Management Functions".
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import psycopg

from adapters.pgoutput.changes.bulk_steps import Steps, read_query
from adapters.pgoutput.session.connection import server_major
from adapters.pgoutput.session.sql_text import plugin_options
from adapters.pgoutput.session.wal_position import wait_until_readable
from adapters.pgoutput.wire.message_run import (
    arrow_of_lengths,
    cut_batches,
    end_of_batch,
    message_run_of_arrow,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.session.settings import SourceSettings
    from adapters.pgoutput.wire.message_run import MessageRun
    from cdc_core.values.lsn import Lsn

#: Too few slots, no right to copy one, temp_file_limit, disk full, a row too large for SQL.
_REFUSALS = ("53", "54", "42501", "0A")

#: Up to this much WAL, a separate session does not pay off.
_SMALL_BYTES = 2 << 20


class BulkRefused(Exception):
    """The server refuses to read in bulk. A walsender may work."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class BulkReader:
    """`WireReader` by `pg_logical_slot_peek_binary_changes` and
    `pg_logical_slot_get_binary_changes`.

    `control` is a connection for short statements. `binary` requests values in binary format. The
    slot's position is `confirmed`, and it decodes from `restart_lsn`. Changes up to `after` are
    already known. Raises `BulkRefused` and the driver's errors.

    Call `start` before `read` to let the server begin early.
    """

    def __init__(
        self,
        settings: SourceSettings,
        control: Connection,
        confirmed: Lsn,
        restart_lsn: Lsn | None,
        after: Lsn,
        *,
        binary: bool = False,
    ) -> None:
        self._settings = settings
        self._options = plugin_options(settings.pub_name, binary=binary)
        self._control = control
        self._confirmed = confirmed
        self._restart_lsn = restart_lsn or confirmed
        self._position = max(after, confirmed)
        self._steps: Steps | None = None

    @property
    def copy_restarts_at(self) -> Lsn | None:
        """Where a copy of the slot will decode from next; None if no copy is read."""
        steps = self._steps
        return steps.restart_lsn if steps is not None and steps.use_copies else None

    @property
    def position(self) -> Lsn:
        """All that committed before this LSN was handed over."""
        return self._position

    def start(self, until: Lsn) -> None:
        """Start a read up to `until`, unless it is too small to pay off."""
        wait_until_readable(self._control, until)
        if not self._is_small(until):
            self._steps = self._new_steps(until)

    def read(self, until: Lsn, stop: Callable[[], bool]) -> Iterator[MessageRun]:
        """See `WireReader.read`. If `start` was called, `until` must be the same."""
        settings = self._settings
        try:
            if self._steps is None:
                self.start(until)
            runs = self._steps.read(stop) if self._steps else self._peek_small(until)
            for run in cut_batches(runs, settings.batch_max_rows, settings.batch_max_bytes):
                if run.reached is not None:
                    self._position = max(self._position, run.reached)
                yield run
                del run
        except psycopg.Error as error:
            if (error.sqlstate or "").startswith(_REFUSALS):
                raise BulkRefused(f"SQLSTATE {error.sqlstate}") from error
            raise

    def close(self) -> None:
        if self._steps is not None:
            self._steps.close()

    def _is_small(self, until: Lsn) -> bool:
        return until - self._restart_lsn <= min(_SMALL_BYTES, self._settings.batch_max_bytes)

    def _new_steps(self, until: Lsn) -> Steps:
        return Steps(
            self._settings,
            server_major(self._control),
            self._options,
            self._confirmed,
            self._restart_lsn,
            self._position,
            until,
        )

    def _peek_small(self, until: Lsn) -> Iterator[MessageRun]:
        """Read a small amount on the connection that is already open."""
        query = read_query("peek", self._settings.slot_name, until, self._options)
        buffer, lengths = bytearray(), array("q")
        rows: Any = self._control.execute(query.encode(), binary=True).fetchall()
        for (message,) in rows:
            buffer += message
            lengths.append(len(message))
        if lengths:
            yield message_run_of_arrow(arrow_of_lengths(buffer, lengths))
        yield end_of_batch(until)
