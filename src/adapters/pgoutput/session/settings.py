"""Settings of the source adapter: where PostgreSQL is; which slot, publication and tables."""

from __future__ import annotations

from dataclasses import dataclass, field

#: The setting for the connection string, for messages.
CREDENTIALS_KEY = "sources.pg_replication.credentials"


@dataclass(frozen=True)
class SourceSettings:
    """Settings of one source; `conninfo` is libpq's (URI or keywords) and a secret.

    `include` and `exclude` are globs over `schema.table`. A batch ends with the first transaction
    that reaches `batch_max_rows` messages, `batch_max_bytes`, or, from a walsender,
    `batch_max_seconds` since the first message.
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
    #: Sessions that read tables of a snapshot at the same time.
    parallelism: int = 2
    connect_timeout_seconds: int = 15
    #: For our DDL: the application's statements queue behind one that waits for a lock.
    lock_timeout_seconds: float = 5.0
    #: For statements on the catalog. Reads of changes and rows have no limit.
    statement_timeout_seconds: float = 60.0
    #: PostgreSQL 17 and newer: the slot is synchronised to standbys.
    failover: bool = False
