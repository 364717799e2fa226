"""Slots that are lost or held, by the command line: refused with code 3; `snapshot` recovers."""

from __future__ import annotations

import os
import signal

import psycopg

from adapters.embedded_postgres import EmbeddedPostgres
from tests.support.postgres import BIN

CONFIRMED = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'"


def test_a_slot_whose_wal_is_gone(shop):
    settings = {"max_wal_size": "32MB", "max_slot_wal_keep_size": "1MB"}
    with EmbeddedPostgres(bin_dir=os.environ.get(BIN), settings=settings) as server:
        shop.environ["SOURCES__PG_REPLICATION__CREDENTIALS"] = server.dsn
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute("CREATE TABLE t (id int PRIMARY KEY, x text)")
            admin.execute("INSERT INTO t VALUES (1, 'a')")
            shop.run("snapshot")
            for _ in range(6):
                admin.execute("UPDATE t SET x = x || 'b'")
                admin.execute("SELECT pg_switch_wal()")
            admin.execute("CHECKPOINT")
            told = "is lost (wal_status = lost); raise max_slot_wal_keep_size or run cdc more often"
            for arguments in (["cdc"], ["cdc", "--follow"], ["snapshot", "--tables", "t"]):
                assert told in shop.run(*arguments, code=3).line
            status = shop.run("status").out
            assert "run: pgbronze snapshot" in status.replace("\n", " ")
            assert "needs snapshot" in status
            assert "streaming" not in status
            assert any(
                line.startswith("fail ") and told in line
                for line in shop.run("check", code=3).out.splitlines()
            )
            shop.run("snapshot")
            assert "streaming" in shop.run("status").out
            admin.execute("INSERT INTO t VALUES (2, 'c')")
            shop.run("cdc")
            rows = admin.execute("SELECT id, x FROM t ORDER BY id").fetchall()
    assert shop.lake_sql("SELECT id, x FROM bronze.t ORDER BY id") == rows


def test_a_slot_that_a_second_destination_takes_over(shop):
    shop.sql("CREATE TABLE t (id int PRIMARY KEY)")
    first = shop.run("snapshot")
    assert "WARNING" not in first.error
    second = {"PIPELINE__NAME": "second", "DESTINATION__DUCKDB__CREDENTIALS": "second.duckdb"}
    told = shop.run("snapshot", **second).error
    assert f"WARNING slot {shop.database} has no usable checkpoint in this destination" in told
    assert "its own sources.pg_replication.slot_name and pub_name" in told
    shop.sql("INSERT INTO t VALUES (1)")
    for command in (["cdc"], ["snapshot", "--tables", "t"]):
        refused = shop.run(*command, code=3).line
        assert "it was recreated, or something else read from it" in refused
        assert "set sources.pg_replication.slot_name to another" in refused
    shop.run("cdc", **second)
    # With a slot of its own each goes on.
    own = {"SOURCES__PG_REPLICATION__SLOT_NAME": f"{shop.database}_own"}
    try:
        assert "WARNING" not in shop.run("snapshot", **own).error
        shop.run("cdc", **second)
        assert shop.lake_sql("SELECT id FROM bronze.t") == [(1,)]
    finally:
        shop.run("slot", "drop", **own)


def test_a_slot_of_another_database_or_program_is_left_alone(shop):
    slot = shop.database
    shop.sql("CREATE TABLE t (id int PRIMARY KEY)")
    shop.run("snapshot")
    shop.sql(f"CREATE DATABASE {slot}_other")
    before = dict(shop.environ)
    dsn = before["SOURCES__PG_REPLICATION__CREDENTIALS"]
    other = f"{dsn.removesuffix(slot)}{slot}_other"
    try:
        shop.environ["SOURCES__PG_REPLICATION__CREDENTIALS"] = other
        shop.environ["DESTINATION__DUCKDB__CREDENTIALS"] = "other.duckdb"
        told = f"replication slot '{slot}' belongs to database '{slot}'"
        for command in (["snapshot"], ["slot", "drop"], ["cleanup", "--yes"]):
            assert told in shop.run(*command, code=3).line
        assert f"belongs to database '{slot}'" in shop.run("check", code=3).out
        for kind, arguments, has in (
            ("logical", f"'{slot}_else', 'test_decoding'", "has the output plugin 'test_decoding'"),
            ("physical", f"'{slot}_else'", "is a physical slot"),
        ):
            with psycopg.connect(other, autocommit=True) as sql:
                sql.execute(f"SELECT pg_create_{kind}_replication_slot({arguments})")
                shop.environ["SOURCES__PG_REPLICATION__SLOT_NAME"] = f"{slot}_else"
                assert has in shop.run("snapshot", code=3).line
                assert has in shop.run("slot", "drop", code=3).line
                sql.execute("SELECT pg_drop_replication_slot(%s)", [f"{slot}_else"])
    finally:
        shop.sql(f"DROP DATABASE {slot}_other WITH (FORCE)")
    shop.environ.update(before)
    shop.run("cdc")


def test_the_second_of_two_runs_ends_at_once(shop):
    shop.sql("CREATE TABLE t (id int PRIMARY KEY)")
    shop.run("snapshot")
    before = shop.sql(CONFIRMED.format(shop.database))
    with shop.spawn("cdc", "--follow") as first:
        shop.sql("INSERT INTO t VALUES (1)")
        while shop.sql(CONFIRMED.format(shop.database)) == before:
            assert first.poll() is None
        for command in ("cdc", "snapshot", "verify"):
            assert f"process {first.pid} on" in shop.run(command, code=3).line
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=60)
        assert first.returncode == 0
    shop.run("cdc")


def test_what_other_databases_write_does_not_pin_wal(shop):
    shop.sql("CREATE TABLE t (id int PRIMARY KEY)")
    shop.run("snapshot")
    with psycopg.connect(shop.server.dsn, autocommit=True) as other:
        other.execute(
            "CREATE TABLE filler AS SELECT g, repeat('x', 500) FROM generate_series(1, 40000) g"
        )
        # The server notes by itself, every 15 seconds, that no transaction is open any more.
        other.execute("DROP TABLE filler")
        other.execute("CHECKPOINT")
        written = other.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
        shop.run("cdc")
        row = other.execute(
            "SELECT confirmed_flush_lsn >= %s, pg_current_wal_lsn() - restart_lsn < 8000000"
            " FROM pg_replication_slots WHERE slot_name = %s",
            [written[0], shop.database],
        ).fetchone()
    assert row == (True, True)
