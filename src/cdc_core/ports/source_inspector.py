"""What the source is and allows, as facts without a judgement; changes nothing there.

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
    """Who runs the server, judged by its settings and roles; privileges differ."""

    SELF = "self-managed"
    RDS = "Amazon RDS or Aurora"
    CLOUD_SQL = "Google Cloud SQL"
    AZURE = "Azure Database"
    SUPABASE = "Supabase"
    NEON = "Neon"


@dataclass(frozen=True)
class Role:
    """The role of our connection and what it may do in this database.

    `replication`: it may use replication slots (as superuser or by the provider's own role, too).
    """

    name: str
    replication: bool
    create_publications: bool
    read_control_data: bool


@dataclass(frozen=True)
class PublicationFacts:
    """`manageable`: our role may alter it. `statement` creates it, for the tables of now."""

    name: str
    exists: bool
    manageable: bool
    statement: str = ""


@dataclass(frozen=True)
class TableFacts:
    """What our role may do with a discovered table, and what the stream leaves out of it.

    `hidden_rows`: row level security would hide rows from our role. `generated_columns` are not
    sent, `virtual_columns` are those of them that no version sends; `unlisted_columns` and
    `row_filter` (an SQL expression) are the publication's. `relations_locked`: how many relations
    a session locks while it reads from the table, indexes among them.
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
    """A transaction whose end the creation of a slot waits for. `prepared` is its identifier, of a
    two-phase commit, else empty; no backend has it then."""

    seconds: float
    backend_pid: int | None = None
    application: str = ""
    prepared: str = ""


@dataclass(frozen=True)
class SourceFacts:
    """Sizes in bytes, times in seconds; None: no limit. `version` is `server_version_num`.

    `max_sessions` counts connections and prepared transactions; `readers` are the sessions of a run
    that read tables side by side.
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
    #: WAL that the slot retains which retains most: a limit below it would end that slot.
    most_retained: int = 0
    #: From PostgreSQL 19 on; it may be higher than `wal_level`.
    effective_wal_level: str | None = None
    max_locks_per_transaction: int = 64
    max_sessions: int = 100
    readers: int = 2

    @property
    def lock_room(self) -> int:
        """The locks for which the server's lock table is made."""
        return self.max_locks_per_transaction * self.max_sessions


class SourceInspector(Protocol):
    def facts(self) -> SourceFacts:
        """Look at the source; takes no lock and needs no privilege beyond connecting.

        Raises `OperatorNeeded` for a version that is not supported, `SettingsError` or
        `SourceUnavailable` where there is no connection.
        """
        ...
