"""A connection pooler in front of the source: every command refuses it before it sets anything."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest

from adapters.pgoutput.session.arrow_session import ArrowSession
from adapters.pgoutput.session.connection import connect
from adapters.pgoutput.session.settings import SourceSettings
from adapters.pgoutput.snapshot.exported_snapshot import ExportedSnapshot
from adapters.pgoutput.snapshot.sql_database import _Engine
from cdc_core.values.errors import PoolerInFront
from cdc_core.values.lsn import ZERO_LSN
from tests.support.pgbouncer import PROGRAM, pgbouncer, session_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.cli.conftest import Shop

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="needs PgBouncer: apt-get install pgbouncer"
)

MODES = ("transaction", "statement", "session")
#: A pooler that takes what it does not know, and drops it.
LENIENT = {"ignore_startup_parameters": "options,extra_float_digits,replication"}
COMMANDS = (
    ("check",),
    ("snapshot",),
    ("cdc",),
    ("status",),
    ("verify",),
    ("simulate", "3", "1", "1"),
    ("cleanup", "--yes"),
    ("slot", "show"),
    ("slot", "create"),
    ("slot", "drop"),
)


@pytest.fixture
def loaded(shop: Shop) -> Shop:
    shop.sql("CREATE TABLE people (id int PRIMARY KEY, v interval); INSERT INTO people VALUES (1)")
    shop.run("snapshot")
    return shop


@pytest.fixture(params=[*MODES, "transaction, strict"])
def pool(request: pytest.FixtureRequest, loaded: Shop) -> Iterator[str]:
    mode, _, strict = request.param.partition(", ")
    with pgbouncer(loaded.dsn, mode, **({} if strict else LENIENT)) as dsn:
        yield dsn


def test_every_command_refuses_and_leaves_nothing(loaded: Shop, pool: str) -> None:
    before, catalog = session_state(pool), _source(loaded)
    for command in COMMANDS:
        told = loaded.run(*command, code=2, SOURCES__PG_REPLICATION__CREDENTIALS=pool)
        assert "connection pooler" in told.line, command
        assert "to the host and port of PostgreSQL itself" in told.line
        assert len(told.error.splitlines()) == 1
        assert session_state(pool) == before, command
    assert _source(loaded) == catalog
    # Past the pooler all goes on as if nothing had been.
    loaded.sql("INSERT INTO people VALUES (2)")
    loaded.run("cdc")
    loaded.run("verify")


def _source(shop: Shop) -> list[tuple[object, ...]]:
    return shop.sql(
        "SELECT slot_name::text, confirmed_flush_lsn::text FROM pg_replication_slots"
        " UNION ALL SELECT pubname::text, xmin::text FROM pg_publication"
        " UNION ALL SELECT relname::text, relfilenode::text FROM pg_class WHERE oid > 16384"
        " ORDER BY 1"
    )


def test_the_server_is_named(loaded: Shop) -> None:
    with pgbouncer(loaded.dsn, "transaction", **LENIENT) as pool:
        told = loaded.run("status", code=2, SOURCES__PG_REPLICATION__CREDENTIALS=pool)
    assert f"which the pooler reaches at 127.0.0.1:{loaded.server.port}" in told.line


def test_every_kind_of_session_refuses(loaded: Shop, pool: str) -> None:
    settings = replace(SourceSettings(loaded.dsn), conninfo=pool)
    before = session_state(pool)
    snapshot = ExportedSnapshot(ZERO_LSN, "0")
    for replication in (False, True):
        with pytest.raises(PoolerInFront):
            connect(settings, replication=replication)
    with pytest.raises(PoolerInFront):
        ArrowSession(settings, 18)
    with pytest.raises(PoolerInFront):
        _Engine(settings, snapshot.name).engine.connect()
    assert session_state(pool) == before


def test_the_same_process_by_luck_is_refused_too(loaded: Shop) -> None:
    """One client, one server session: all statements go to the same process."""
    with pgbouncer(loaded.dsn, "transaction", **LENIENT) as pool:
        with psycopg.connect(pool, autocommit=True) as client:
            query = "SELECT pg_backend_pid()"
            assert client.execute(query).fetchone() == client.execute(query).fetchone()
        with pytest.raises(PoolerInFront):
            connect(SourceSettings(pool))
