"""States in which a command must refuse: exit code, one line with the cure, and no leak at DEBUG.

Every output of every run here is searched for the password and for the values of the rows.
"""

from __future__ import annotations

import json
import os
import time
from urllib.parse import quote

import duckdb
import psycopg
import pytest

from adapters.embedded_postgres import EmbeddedPostgres
from adapters.pgoutput.changes import bulk_reader, reader_choice
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
    assert done.line.startswith("pgbronze: ")
    for secret in SECRETS:
        assert secret not in done.out + done.error
    # Ours has neither quotes nor the texts of errors.
    assert "Traceback (most recent call last):" in done.error
    assert '  File "' not in done.error
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
    ("{role}:{password}@/{db}?port=1", 1, "set host in sources.pg_replication.credentials"),
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
    _refused(filled, "cdc", code=3, told="run: pgbronze snapshot")


def test_slot_dropped(filled):
    filled.run("snapshot")
    filled.run("slot", "drop")
    _refused(filled, "cdc", code=3, told="does not exist; every table needs a new snapshot")
    states = {line["state"] for line in json.loads(filled.run("status", "--json").out)["tables"]}
    assert states == {"needs snapshot"}
    filled.run("snapshot")
    filled.run("cdc")


def test_a_refused_command_leaves_no_session(filled):
    filled.run("snapshot")
    filled.run("slot", "drop")
    for command in ("cdc", "status", "check", "verify"):
        filled.run(command, code=None)
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    give_up = time.monotonic() + 10
    while filled.sql(others) != [(1,)]:  # a backend ends a moment after its connection
        assert time.monotonic() < give_up
        time.sleep(0.05)


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
    tables = filled.lake_sql("SHOW ALL TABLES")
    told = "belongs to database"
    arguments = ("cleanup", "--yes")
    _refused(filled, *arguments, code=3, told=told, SOURCES__PG_REPLICATION__CREDENTIALS=other)
    assert filled.lake_sql("SHOW ALL TABLES") == tables
    filled.run("cdc")


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
    told = "sources.pg_replication.schemas names 'nope', which the source does not have; "
    wrong = {"SOURCES__PG_REPLICATION__SCHEMAS": "public,nope"}
    _refused(filled, "snapshot", code=2, told=told + "it has these schemas: public", **wrong)
    assert "does not exist" in filled.run("slot", "show").out
    assert f"fail tables: {told}" in " ".join(filled.run("check", code=3, **wrong).out.split())
    filled.run("snapshot")
    _refused(filled, "cdc", code=2, told=told, **wrong)


def test_a_schema_that_was_dropped_is_followed(filled):
    filled.environ["SOURCES__PG_REPLICATION__SCHEMAS"] = "public,sales"
    filled.sql(f"CREATE SCHEMA sales; CREATE TABLE sales.bills (id int); GRANT ALL ON SCHEMA sales"
               f" TO {ROLE}; ALTER TABLE sales.bills OWNER TO {ROLE}")  # fmt: skip
    filled.run("snapshot")
    filled.sql("DROP SCHEMA sales CASCADE; INSERT INTO people VALUES (2, 'x', 2)")
    assert "cdc done: 1 changes" in filled.run("cdc").error
    assert "dropped" in filled.run("status").out
    assert "snapshot done: 1 tables" in filled.run("snapshot").error


def test_globs_that_match_no_table_yet(filled):
    filled.environ["SOURCES__PG_REPLICATION__INCLUDE"] = "later_*"
    assert "WARNING no table was found" in filled.run("snapshot").error
    filled.sql(f"CREATE TABLE later_on (id int PRIMARY KEY); ALTER TABLE later_on OWNER TO {ROLE};"
               "INSERT INTO later_on VALUES (1)")  # fmt: skip
    filled.run("cdc")
    assert filled.lake_sql("SELECT id FROM bronze.later_on") == [(1,)]


def test_server_without_logical_wal(filled):
    with EmbeddedPostgres(bin_dir=os.environ.get(BIN), settings={"wal_level": "replica"}) as server:
        _refused(
            filled, "snapshot", code=3, told="wal_level",
            SOURCES__PG_REPLICATION__CREDENTIALS=server.dsn,
        )  # fmt: skip


@pytest.mark.parametrize("command", ["snapshot", "cdc", "status", "cleanup --yes"])
def test_destination_is_no_database(command, filled):
    filled.lake.write_text("not a database, but 16 bytes and more of text" * 200)
    _refused(filled, *command.split(), code=2, told="destination.duckdb.credentials")


def test_destination_folder_is_a_file(filled):
    (filled.folder / "lakehouse").write_text("a file")
    told = "destination.filesystem.bucket_url"
    _refused(filled, "snapshot", "--destination", "delta", code=2, told=told)


def test_destination_cannot_hold_a_value(filled):
    """The destination's own error would quote the row."""
    filled.run("snapshot")
    filled.sql(f"INSERT INTO people VALUES (3, '{TEXT}', {NUMBER})")
    with duckdb.connect(str(filled.lake)) as lake:
        lake.execute("CREATE UNIQUE INDEX one_mail ON bronze.people (mail)")
    _refused(filled, "cdc", code=3, told="public.people")
    with duckdb.connect(str(filled.lake)) as lake:
        lake.execute("DROP INDEX bronze.one_mail")
    filled.run("cdc")
    assert (3,) in filled.lake_sql("SELECT id FROM bronze.people")


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
    assert error.splitlines()[-1].startswith("pgbronze: PostgreSQL")
    for secret in SECRETS:
        assert secret not in out + error
    assert "cdc done: 200,000 changes" in filled.run("cdc").error


def test_a_new_table_that_is_locked_does_not_stop_the_others(shop):
    shop.sql("CREATE TABLE a (id int PRIMARY KEY)")
    shop.run("snapshot")
    shop.sql("INSERT INTO a VALUES (1); CREATE TABLE b (id int PRIMARY KEY)")
    with psycopg.connect(shop.dsn) as other:
        other.execute("LOCK TABLE b")
        line = shop.run("cdc", code=1).line
    assert "not added to the publication: public.b; every other table is up to date; run" in line
    assert shop.lake_sql("SELECT id FROM bronze.a") == [(1,)]
    shop.run("cdc")
    assert shop.lake_sql("SELECT count(*) FROM bronze.b") == [(0,)]


@pytest.fixture
def latin1(shop):
    """A database that holds any bytes; what is executed there is sent as Latin 1."""
    name = f"{shop.database}_bytes"
    with psycopg.connect(shop.server.dsn, autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 "
            "LC_COLLATE 'C' LC_CTYPE 'C'".encode()
        )
    dsn = shop.server.database_dsn(name)
    shop.environ["SOURCES__PG_REPLICATION__CREDENTIALS"] = dsn

    def execute(statement):
        with psycopg.connect(dsn, autocommit=True, client_encoding="SQL_ASCII") as connection:
            result = connection.pgconn.exec_(statement.encode("latin1"))
            assert not result.error_message

    yield execute
    with psycopg.connect(shop.server.dsn, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE database = %s",
            [name],
        )
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_names_that_are_not_utf8_are_named(shop, latin1):
    latin1("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)")
    latin1("CREATE TYPE mood AS ENUM ('gut', 'gen\xfcgend')")
    latin1('CREATE TABLE "caf\xe9" (id int PRIMARY KEY); CREATE TABLE b ("\xfcber" int)')
    told = (
        r"names that are not UTF-8: table public.caf\xe9, column public.b.\xfcber, "
        r"label public.mood.gen\xfcgend; rename them"
    )
    for command in (["snapshot"], ["status"]):
        assert told in shop.run(*command, code=3).line
    assert f"fail source: {told}" in shop.run("check", code=3).out
    latin1('ALTER TABLE "caf\xe9" RENAME TO cafe; ALTER TABLE b RENAME "\xfcber" TO ueber')
    shop.run("snapshot")
    assert shop.lake_sql("SELECT id FROM bronze.a") == [(1,)]


#: What makes each way of reading be taken.
WAYS = {
    "bulk": (bulk_reader, "_SMALL_BYTES", 1 << 40),
    "bulk in steps": (bulk_reader, "_SMALL_BYTES", 1),
    "streaming": (reader_choice, "_OPENING_BYTES", -1 << 40),
}


@pytest.mark.parametrize("way", WAYS)
def test_values_that_are_not_utf8_are_refused_and_nothing_is_lost(shop, latin1, way):
    shop.monkeypatch.setattr(*WAYS[way])
    latin1("CREATE TABLE a (id int PRIMARY KEY, x text); INSERT INTO a VALUES (1, 'x')")
    shop.run("snapshot")
    latin1("INSERT INTO a VALUES (2, 'caf\xe9')")
    for command, where in (("cdc", "replication slot"), ("snapshot", "table public.a")):
        for _ in range(2):
            refused = shop.run(command, code=3)
            line = refused.line
            assert (f"reading by {way.split()[0]}: " in refused.error) == (command == "cdc")
            assert "text that is not UTF-8, in a database of encoding SQL_ASCII" in line
            assert f", while reading {where}" in line
            assert (", at LSN " in line) == (command == "cdc")
            assert "caf" not in line
    mended = line.split("SET x = ")[1].split("), then run")[0]
    latin1(f"UPDATE a SET x = {mended} WHERE id = 2")
    shop.run("snapshot")
    latin1("INSERT INTO a VALUES (3, 'y')")
    shop.run("cdc")
    rows = [(1, "x"), (2, "caf\xe9"), (3, "y")]
    assert shop.lake_sql("SELECT id, x FROM bronze.a ORDER BY id") == rows
