"""Settings of the source adapter: where PostgreSQL is; which slot, publication and tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from adapters.pgoutput.session.login import Login

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class SourceSettings:
    """Settings of one source. For `conninfo`, a secret, and how it is replaced, see `Login`.

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
    #: Have the slot send every value as text: a rule needs the text of columns.
    text_format: bool = False
    #: PostgreSQL 17 and newer: the slot is synchronised to standbys.
    failover: bool = False
    password_command: tuple[str, ...] = field(default=(), repr=False)
    read_again: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    redact: Callable[[str], None] = field(default=lambda _: None, repr=False, compare=False)

    @cached_property
    def login(self) -> Login:
        """The credentials that the sessions of these settings share."""
        return Login(self.conninfo, self.password_command, self.read_again, self.redact)
