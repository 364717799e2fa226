"""The replication slot: state, creation, advance, drop.

Manual: "Logical Decoding", "Replication Slots", `pg_replication_slots`.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import psycopg

from adapters.pgoutput.session.connection import server_major
from adapters.pgoutput.session.source_errors import replication_cure, source_errors
from adapters.pgoutput.session.sql_text import quote
from adapters.pgoutput.session.wal_position import require_logical_wal
from adapters.pgoutput.slot.writer_lock import end_if_dead, is_ours, who
from cdc_core.ports.change_source import SlotState
from cdc_core.slot.continuity import RESNAPSHOT, has_two_phase
from cdc_core.values.errors import ContinuityLost, OperatorNeeded, WriterBusy
from cdc_core.values.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.session.settings import SourceSettings

_log = logging.getLogger(__name__)

FREE_SLOT_CURE = (
    "raise max_replication_slots and restart PostgreSQL, or ask the owner of an unused slot to "
    "drop it (SELECT slot_name, active FROM pg_replication_slots)"
)

#: A session of ours ends within a second or two after it was closed or its process died.
_IN_USE_SECONDS = 10.0

_SLOT_USER = """
SELECT a.pid, coalesce(a.application_name, ''), coalesce(host(a.client_addr), 'local'),
  a.backend_start
FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = %s
"""


def read_slot(connection: Connection, name: str) -> SlotState | None:
    """The slot; None if it does not exist. An invalidated slot has `wal_status` lost."""
    major = server_major(connection)
    invalid = "false"
    if major >= 17:
        invalid = "invalidation_reason IS NOT NULL"
    elif major == 16:
        invalid = "coalesce(conflicting, false)"
    with source_errors(f"reading replication slot {name!r}"):
        row: Any = connection.execute(
            f"""SELECT coalesce(plugin, '')::text, coalesce(database, '')::text, active_pid,
                  restart_lsn::text, confirmed_flush_lsn::text,
                  CASE WHEN {invalid} THEN 'lost' ELSE coalesce(wal_status, 'lost') END,
                  coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery()
                      THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                    restart_lsn), 0)::bigint,
                  safe_wal_size, two_phase
                FROM pg_replication_slots WHERE slot_name = %s""",
            [name],
        ).fetchone()
    if row is None:
        return None
    plugin, database, active_pid, restart, confirmed, status, retained, safe, two_phase = row
    return SlotState(
        name,
        plugin,
        database,
        active_pid,
        None if restart is None else Lsn.parse(restart),
        None if confirmed is None else Lsn.parse(confirmed),
        status,
        max(retained, 0),
        safe,
        two_phase,
    )


def usable_slot(connection: Connection, settings: SourceSettings) -> tuple[SlotState, Lsn]:
    """The slot and its `confirmed_flush_lsn`. Raises if it cannot be read."""
    slot = read_slot(connection, settings.slot_name)
    name = settings.slot_name
    if slot is None:
        raise ContinuityLost(f"replication slot {name!r} does not exist", RESNAPSHOT)
    _require_own(slot, connection, settings)
    if slot.lost or slot.confirmed_flush_lsn is None:
        raise ContinuityLost(
            f"replication slot {name!r} is lost (wal_status = {slot.wal_status})",
            f"raise max_slot_wal_keep_size or run cdc more often; {RESNAPSHOT}",
        )
    if slot.two_phase:
        raise has_two_phase(name)
    return slot, slot.confirmed_flush_lsn


def _require_own(slot: SlotState, connection: Connection, settings: SourceSettings) -> None:
    """Slots belong to the cluster: this one may be another database's or another program's."""
    cure = "set sources.pg_replication.slot_name to another name"
    if slot.database and slot.database != connection.info.dbname:
        raise OperatorNeeded(
            f"replication slot {slot.name!r} belongs to database {slot.database!r}", cure
        )
    if slot.plugin != settings.plugin_name:
        has = f"has the output plugin {slot.plugin!r}" if slot.plugin else "is a physical slot"
        raise OperatorNeeded(
            f"replication slot {slot.name!r} {has}, not {settings.plugin_name!r}", cure
        )


_OPEN_TRANSACTIONS = """
SELECT count(*), min(xact_start)::text FROM (
  SELECT xact_start FROM pg_stat_activity
  WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
  UNION ALL SELECT prepared FROM pg_prepared_xacts
) AS open_transactions
"""


def announce_wait(connection: Connection) -> None:
    """Log that creating a slot will wait for open transactions, if there are any."""
    with source_errors("checking for open transactions"):
        row: Any = connection.execute(_OPEN_TRANSACTIONS).fetchone()
    if row[0]:
        _log.info(
            "creating the replication slot waits for %d open transactions, the oldest since %s",
            *row,
        )


def create_slot(connection: Connection, settings: SourceSettings) -> Lsn:
    """Create the slot and return its consistent point. Waits for open transactions to end."""
    require_logical_wal(connection)
    name = settings.slot_name
    failover = settings.failover and server_major(connection) >= 17
    announce_wait(connection)
    with slot_creation_errors(name, connection.info.user):
        row: Any = connection.execute(
            "SELECT lsn::text FROM pg_create_logical_replication_slot(%s, %s"
            + (", failover => true)" if failover else ")"),
            [name, settings.plugin_name],
        ).fetchone()
    return Lsn.parse(row[0])


class slot_creation_errors:  # noqa: N801 - used as a statement, like its parts
    """Translates errors of creating a slot, by SQL or by the replication protocol."""

    def __init__(self, name: str, role: str) -> None:
        self._name = name
        self._role = quote(role)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or not isinstance(error, psycopg.Error):
            return
        doing = f"creating replication slot {self._name!r}"
        if error.sqlstate == "42710":
            raise OperatorNeeded(
                f"replication slot {self._name!r} exists already",
                "set sources.pg_replication.slot_name to another name, or, if nothing else reads "
                "this slot: pgbronze slot drop",
            ) from error
        refused = error.sqlstate == "42501"
        cure = replication_cure(self._role) if refused else FREE_SLOT_CURE
        with source_errors(doing, cure, self._role):
            raise error


def advance(connection: Connection, name: str, lsn: Lsn) -> None:
    connection.execute("SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", [name, str(lsn)])


def drop_slot(connection: Connection, settings: SourceSettings) -> bool:
    """Drop the slot; False if it does not exist. Raises `WriterBusy` while another process uses it,
    and `OperatorNeeded` if it does not belong to this pipeline."""
    name = settings.slot_name
    slot = read_slot(connection, name)
    if slot is None:
        return False
    _require_own(slot, connection, settings)

    def drop() -> None:
        connection.execute("SELECT pg_drop_replication_slot(%s)", [name])

    cure = replication_cure(quote(connection.info.user))
    with source_errors(f"dropping replication slot {name!r}", cure):
        when_not_in_use(connection, name, drop)
    return True


def when_not_in_use(connection: Connection, name: str, action: Callable[[], None]) -> None:
    """Run an action that needs a slot not in use. Waits for ending sessions of our own.

    Raises `WriterBusy` with the process that uses the slot, and the driver's errors.
    """
    deadline = time.monotonic() + _IN_USE_SECONDS
    while True:
        try:
            action()
            return  # noqa: TRY300 - the loop's other way out is an error
        except psycopg.errors.ObjectInUse:
            user: Any = connection.execute(_SLOT_USER, [name]).fetchone()
            if user is not None:
                pid, application, address, started = user
                dead = end_if_dead(connection, pid, application, started)
                ending = dead or is_ours(application)
                if not ending or time.monotonic() > deadline:
                    raise WriterBusy(
                        f"replication slot {name!r} is in use by {who(pid, application, address)}",
                        f"end it there (SELECT pg_terminate_backend({pid})), then run again",
                    ) from None
            time.sleep(0.02)
