"""States in which a command must refuse: exit code, one line with the cure, and no leak at DEBUG.

Every output of every run here is searched for the password and for the values of the rows.
"""

from __future__ import annotations

import json
import os
from urllib.parse import quote

import duckdb
import psycopg
import pytest

from adapters.pgoutput.embedded import EmbeddedPostgres
from tests.support.postgres import BIN

PASSWORD = "Zebra-Crossing/77"
TEXT = "alice.rowvalue@example.com"
NUMBER = 918273645
SECRETS = (PASSWORD, quote(PASSWORD, safe=""), TEXT, str(NUMBER))

ROLE = "app_with_password"


@pytest.fixture
def filled(shop):
    """A source with telltale rows and a role with a telltale password, which it owns."""
    shop.sql(
        f"DO $$ BEGIN CREATE ROLE {ROLE} LOGIN REPLICATION PASSWORD '{PASSWORD}';"
        " EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    shop.sql(f"ALTER DATABASE {shop.database} OWNER TO {ROLE}")
    shop.environ["SOURCES__PG_REPLICATION__CREDENTIALS"] = shop.server.database_dsn(
        shop.database, ROLE, quote(PASSWORD, safe="")
    )
    shop.sql(
        f"CREATE TABLE people (id int PRIMARY KEY, mail text, n int);"
        f"INSERT INTO people VALUES ({NUMBER}, '{TEXT}', {NUMBER});"
        f"ALTER TABLE people OWNER TO {ROLE}"
    )
    shop.environ["LOG_LEVEL"] = "DEBUG"
    return shop


def _refused(shop, *arguments, code, told, **environ):
    done = shop.run(*arguments, code=code, **environ)
    assert told in done.line, done.line
    assert done.line.startswith("wal2delta: ")
    for secret in SECRETS:
        assert secret not in done.out + done.error
    assert "Traceback" not in done.error
    return done


def test_runs_that_work_leak_nothing_either(filled):
    for arguments in ("snapshot", "cdc", "slot show"):
        done = filled.run(*arguments.split())
        for secret in SECRETS:
            assert secret not in done.out + done.error


CONNECTIONS = [
    ("{role}:wrong@127.0.0.1:{port}/{db}", 2, "password authentication failed"),
    ("nobody_here:x@127.0.0.1:{port}/{db}", 2, "authentication failed"),
    ("{role}:{password}@127.0.0.1:{port}/no_such_db", 2, "does not exist"),
    ("{role}:{password}@127.0.0.1:1/{db}", 1, "cannot be reached"),
    ("{role}:{password}@no-such-host.invalid/{db}", 1, "cannot be reached"),
    ("{role}:{password}@127.0.0.1:{port}/{db}?sslmode=require", 2, "SSL"),
    ("{role}:{password}@127.0.0.1:{port}/{db}?sslmode=verify-ca&sslrootcert=/x", 2, "SSL"),
    ("{role}:{password}@127.0.0.1:{port}/{db}?service=none", 2, 'service "none" not found'),
    ("{role}:{password}@127.0.0.1:{port}/{db}?options=garbage", 2, "invalid command-line"),
    ("{role}:{password}@127.0.0.1:{port}/{db}?options=-cnosuch%3D1", 2, "unrecognized"),
]


@pytest.mark.parametrize(("authority", "code", "told"), CONNECTIONS)
def test_connection_refused(authority, code, told, filled):
    dsn = "postgresql://" + authority.format(
        role=ROLE, password=quote(PASSWORD, safe=""), port=filled.server.port, db=filled.database
    )
    for command in (["snapshot"], ["status"], ["simulate", "1", "1", "1"]):
        _refused(filled, *command, code=code, told=told, SOURCES__PG_REPLICATION__CREDENTIALS=dsn)


def test_cdc_before_any_snapshot(filled):
    _refused(filled, "cdc", code=3, told="run: wal2delta snapshot")


def test_slot_dropped(filled):
    filled.run("snapshot")
    filled.run("slot", "drop")
    _refused(filled, "cdc", code=3, told="does not exist; every table needs a new snapshot")
    states = {line["state"] for line in json.loads(filled.run("status", "--json").out)["tables"]}
    assert states == {"needs snapshot"}
    filled.run("snapshot")
    filled.run("cdc")


def test_slot_recreated(filled):
    filled.run("snapshot")
    filled.run("slot", "drop")
    filled.sql("INSERT INTO people VALUES (2, 'x', 2)")
    filled.run("slot", "create")
    _refused(filled, "cdc", code=3, told="past the checkpoint")


def test_slot_with_two_phase(filled):
    filled.run("snapshot")
    filled.run("slot", "drop")
    filled.sql(
        f"SELECT pg_create_logical_replication_slot('{filled.database}', 'pgoutput', false, true)"
    )
    told = f"replication slot '{filled.database}' has two_phase"
    _refused(filled, "cdc", code=3, told=told)
    assert told in filled.run("check", code=3).out
    filled.run("snapshot")
    filled.run("cdc")


def test_slot_of_another_database(filled):
    filled.run("snapshot")
    other = filled.server.database_dsn("postgres")
    _refused(filled, "cdc", code=3, told="database", SOURCES__PG_REPLICATION__CREDENTIALS=other)


def test_slot_setting_changed(filled):
    filled.run("snapshot")
    _refused(filled, "cdc", code=3, told="slot", SOURCES__PG_REPLICATION__SLOT_NAME="other_slot")


def test_role_without_replication(filled):
    filled.sql(f"CREATE ROLE {filled.database}_plain LOGIN PASSWORD '{PASSWORD}'")
    # As it is from PostgreSQL 15 on.
    filled.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    dsn = filled.server.database_dsn(
        filled.database, f"{filled.database}_plain", quote(PASSWORD, safe="")
    )
    _refused(filled, "snapshot", code=3, told="", SOURCES__PG_REPLICATION__CREDENTIALS=dsn)
    _refused(
        filled, "simulate", "1", "0", "0", code=3, told="GRANT CREATE",
        SOURCES__PG_REPLICATION__CREDENTIALS=dsn,
    )  # fmt: skip


def test_schema_that_does_not_exist(filled):
    _refused(
        filled, "simulate", "1", "0", "0", code=2, told="'nope' does not exist",
        SOURCES__PG_REPLICATION__SCHEMAS="nope",
    )  # fmt: skip
    warned = filled.run("snapshot", SOURCES__PG_REPLICATION__SCHEMAS="nope")
    assert "WARNING no table was found" in warned.error


def test_server_without_logical_wal(filled):
    with EmbeddedPostgres(bin_dir=os.environ.get(BIN), settings={"wal_level": "replica"}) as server:
        _refused(
            filled, "snapshot", code=3, told="wal_level",
            SOURCES__PG_REPLICATION__CREDENTIALS=server.dsn,
        )  # fmt: skip


@pytest.mark.parametrize("command", ["snapshot", "cdc", "status", "cleanup --yes"])
def test_destination_is_no_database(command, filled):
    filled.lake.write_text("not a database, but 16 bytes and more of text" * 200)
    _refused(filled, *command.split(), code=1, told="")


def test_destination_folder_is_a_file(filled):
    (filled.folder / "lakehouse").write_text("a file")
    _refused(filled, "snapshot", "--destination", "delta", code=1, told="")


def test_destination_cannot_hold_a_value(filled):
    """The destination's own error would quote the row."""
    filled.run("snapshot")
    filled.sql(f"INSERT INTO people VALUES (3, '{TEXT}', {NUMBER})")
    with duckdb.connect(str(filled.lake)) as lake:
        lake.execute("CREATE UNIQUE INDEX one_mail ON bronze.people (mail)")
    _refused(filled, "cdc", code=1, told="bronze")
    with duckdb.connect(str(filled.lake)) as lake:
        lake.execute("DROP INDEX bronze.one_mail")
    assert "cdc done: 1 changes" in filled.run("cdc").error


def test_table_that_breaks_a_constraint_of_the_simulation(filled):
    filled.run("simulate", "5", "0", "0")
    filled.sql("ALTER TABLE demo_orders ADD CONSTRAINT refused CHECK (quantity < 0) NOT VALID")
    filled.sql("ALTER TABLE demo_customers ADD CONSTRAINT refused CHECK (balance > 1e9) NOT VALID")
    filled.sql("ALTER TABLE demo_documents ADD CONSTRAINT refused CHECK (revision < 0) NOT VALID")
    done = _refused(filled, "simulate", "5", "0", "0", code=1, told="SQLSTATE 23514")
    assert "demo_* of schema" in done.line
    assert "GRANT" not in done.line


def test_table_that_is_not_of_the_simulation(filled):
    filled.sql(
        f"CREATE TABLE demo_orders (id int PRIMARY KEY);ALTER TABLE demo_orders OWNER TO {ROLE};"
    )
    done = _refused(filled, "simulate", "50", "0", "0", code=1, told="demo_* of schema")
    assert "GRANT" not in done.line


def test_publication_of_a_dba_is_used_and_its_absence_is_named(filled):
    filled.sql("ALTER TABLE people OWNER TO postgres")
    filled.sql(f"GRANT SELECT ON people TO {ROLE}")
    filled.sql(f"ALTER DATABASE {filled.database} OWNER TO postgres")
    _refused(filled, "snapshot", code=3, told="CREATE PUBLICATION")
    filled.sql("CREATE PUBLICATION dlt_cdc_pub FOR TABLE people")
    filled.run("snapshot")
    filled.run("cdc")


def test_connection_is_cut_while_a_run_reads(filled):
    """The server goes away in the middle; the next run mends it."""
    filled.run("snapshot")
    filled.sql("INSERT INTO people SELECT i, 'x', i FROM generate_series(1, 200000) AS i")
    with filled.spawn("cdc") as process:
        with psycopg.connect(filled.server.dsn, autocommit=True) as admin:
            while process.poll() is None:
                admin.execute(
                    b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    (filled.database,),
                )
        out, error = process.communicate()
    assert process.returncode == 1, error
    assert error.splitlines()[-1].startswith("wal2delta: PostgreSQL")
    for secret in SECRETS:
        assert secret not in out + error
    assert "cdc done: 200,000 changes" in filled.run("cdc").error
