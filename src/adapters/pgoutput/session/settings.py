"""What the source adapter must be told: where PostgreSQL is; which slot, publication and tables."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Where people set the connection string, for messages.
CREDENTIALS_KEY = "sources.pg_replication.credentials"


@dataclass(frozen=True)
class SourceSettings:
    """Settings of one source; `conninfo` is libpq's (URI or keywords) and a secret.

    `include` and `exclude` are globs over `schema.table`. A batch ends with the first transaction
    that reaches `batch_max_rows` messages, `batch_max_bytes` of them, or, while they come as a
    stream, `batch_max_seconds` since its first.
    """

    conninfo: str = field(repr=False)
    slot_name: str = "dlt_cdc_slot"
    pub_name: str = "dlt_cdc_pub"
    plugin_name: str = "pgoutput"
    schemas: tuple[str, ...] = ("public",)
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    batch_max_rows: int = 1_000_000
    batch_max_bytes: int = 256 << 20
    batch_max_seconds: float = 10.0
    #: Sessions that read a table of a snapshot at a time.
    parallelism: int = 2
    connect_timeout_seconds: int = 15
    #: For our own DDL: a statement that waits longer would make the application's wait behind it.
    lock_timeout_seconds: float = 5.0
    #: For statements on the catalog; reading changes and rows has no limit.
    statement_timeout_seconds: float = 60.0
    #: PostgreSQL 17 and newer: the slot is synchronised to standbys.
    failover: bool = False
