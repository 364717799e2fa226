"""Facts about the source: version, settings, privileges, tables. Changes nothing there.

Manual: "System Catalogs", `pg_settings`, `pg_roles`, `pg_stat_activity`, `pg_prepared_xacts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdc_core.ports.change_source import SlotState
    from cdc_core.values.checkpoint import SourceIdentity


class Provider(Enum):
    """Who runs the server, as its settings and roles show. Privileges differ."""

    SELF = "self-managed"
    RDS = "Amazon RDS or Aurora"
    CLOUD_SQL = "Google Cloud SQL"
    AZURE = "Azure Database"
    SUPABASE = "Supabase"
    NEON = "Neon"


@dataclass(frozen=True)
class Role:
    """The role of our connection and its privileges in this database.

    `replication`: it may use replication slots, also as a superuser or through a provider's role.
    """

    name: str
    replication: bool
    create_publications: bool
    read_control_data: bool


@dataclass(frozen=True)
class PublicationFacts:
    """`manageable`: our role may alter it. `statement` creates it, with today's tables."""

    name: str
    exists: bool
    manageable: bool
    statement: str = ""


@dataclass(frozen=True)
class TableFacts:
    """Our role's privileges on a table, and what the stream omits from it.

    `hidden_rows`: row level security would hide rows from our role. `generated_columns` are not
    sent; no version sends those of them in `virtual_columns`. The publication omits
    `unlisted_columns`, and rows outside `row_filter` (an SQL expression). `relations_locked`: the
    number of relations, including indexes, that a session locks while it reads the table.
    """

    schema_usage: bool
    select: bool
    owner: bool
    hidden_rows: bool
    generated_columns: Sequence[str] = ()
    virtual_columns: Sequence[str] = ()
    unlisted_columns: Sequence[str] = ()
    row_filter: str = ""
    relations_locked: int = 1


@dataclass(frozen=True)
class OpenTransaction:
    """A transaction that the creation of a slot waits for.

    `prepared` is the identifier of a prepared transaction, which has no backend; otherwise empty.
    """

    seconds: float
    backend_pid: int | None = None
    application: str = ""
    prepared: str = ""


@dataclass(frozen=True)
class SourceFacts:
    """Sizes in bytes, times in seconds; None: no limit. `version` is `server_version_num`.

    `max_sessions` counts connections and prepared transactions. `readers` is the number of sessions
    of a run that read tables in parallel.
    """

    version: int
    database: str
    provider: Provider
    identity: SourceIdentity | None
    wal_level: str
    standby: bool
    hot_standby_feedback: bool
    role: Role
    publication: PublicationFacts
    slot_name: str
    slot: SlotState | None
    max_replication_slots: int
    replication_slots: int
    max_wal_senders: int
    wal_senders: int
    slot_wal_limit: int | None
    slot_idle_limit: float | None
    sender_timeout: float | None
    transactions: Sequence[OpenTransaction]
    #: By oid.
    tables: Mapping[int, TableFacts]
    #: WAL retained by the slot that retains most. A limit below it would invalidate that slot.
    most_retained: int = 0
    #: From PostgreSQL 19 on; it may be higher than `wal_level`.
    effective_wal_level: str | None = None
    max_locks_per_transaction: int = 64
    max_sessions: int = 100
    readers: int = 2

    @property
    def lock_room(self) -> int:
        """The number of locks that the server's lock table has room for."""
        return self.max_locks_per_transaction * self.max_sessions


class SourceInspector(Protocol):
    def facts(self) -> SourceFacts:
        """Return the facts. Takes no lock and needs no privilege except to connect.

        Raises `OperatorNeeded` for an unsupported version, `SettingsError` or `SourceUnavailable`
        without a connection.
        """
        ...
