"""The life of a pipeline through the command line, and its equality read from both sides."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import duckdb
import psycopg
import pytest

from adapters.embedded_postgres import EmbeddedPostgres
from entrypoints.demo import simulate
from entrypoints.demo.demo import _compare
from entrypoints.demo.simulate import TABLES
from tests.support.postgres import BIN


def _assert_equal(shop) -> None:
    with psycopg.connect(shop.dsn) as source:
        for table in TABLES:
            found = _compare(source, shop.lake, table)
            assert found.differing == 0, table
            assert found.source.keys() == found.target.keys()


def test_a_run_on_a_loaded_file_imports_no_dlt(shop):
    """The import takes most of a small run's time, which a schedule pays each minute."""
    shop.run("simulate", "5", "0", "0")
    shop.run("snapshot")
    shop.run("simulate", "5", "2", "1")
    code = (
        "import sys; from entrypoints.cli.main import main\n"
        "for command in ('cdc', 'cdc', 'status', 'runs', 'verify'):\n"
        "    assert main([command]) == 0, command\n"
        "heavy = {'dlt', 'sqlalchemy', 'sqlglot', 'pandas', 'requests', 'deltalake', 'pyspark'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    environ = {**os.environ, **shop.environ}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[]", done.stderr
    assert shop.lake_sql("SELECT count(*) FROM bronze._cdc_runs WHERE command = 'cdc'") == [(2,)]


def test_as_many_rows_are_written_as_were_asked_for(shop):
    """Of new tables too, whatever the order of the inserts, updates and deletes."""
    with psycopg.connect(shop.dsn, autocommit=True) as connection:
        simulate.create_tables(connection, "public")
        for seed in range(12):
            connection.execute("TRUNCATE demo_customers, demo_orders, demo_documents")
            done = simulate.write(connection, "public", inserts=5, updates=2, deletes=1, seed=seed)
            assert (done.inserts, done.updates, done.deletes) == (5, 2, 1), seed


def test_life_of_a_pipeline(shop):
    assert "wrote 40 inserts" in shop.run("simulate", "40", "0", "0").error
    snapshot = shop.run("snapshot")
    assert "snapshot done: 3 tables, 40 rows" in snapshot.error
    assert snapshot.out == ""
    _assert_equal(shop)
    checked = shop.run("check").out
    assert "ok" in checked
    assert "fail" not in checked

    shop.run("simulate", "20", "20", "10")
    behind = shop.run("verify", code=1).out
    assert "of WAL behind" in behind
    assert "cdc done:" in shop.run("cdc").error
    _assert_equal(shop)
    assert "cdc done: 0 changes" in shop.run("cdc").error

    assert json.loads(shop.run("verify", "--json").out)["equal"]
    with duckdb.connect(str(shop.lake)) as lake:
        lake.execute(
            "DELETE FROM bronze.demo_orders WHERE id = (SELECT min(id) FROM bronze.demo_orders)"
        )
    verified = json.loads(shop.run("verify", "--tables", "demo_orders", "--json", code=1).out)
    assert [key["kind"] for key in verified["tables"][0]["keys"]] == ["missing"]
    assert "repaired" in shop.run("verify", "--repair").out
    _assert_equal(shop)

    status = json.loads(shop.run("status", "--json").out)
    assert status["problem"] is None
    assert status["slot"]["name"] == shop.database
    assert {table["table"] for table in status["tables"]} == {f"public.{t}" for t in TABLES}
    assert all(table["state"] == "streaming" for table in status["tables"])
    shown = shop.run("status").out
    assert "public.demo_orders" in shown
    assert "WAL retained" in shown

    assert shop.database in shop.run("slot", "show").out
    assert "duckdb has no volumes" in shop.run("volumes").out

    dropped = shop.run("cleanup", "--yes").error
    assert "replication slot" in dropped
    assert "does not exist" in shop.run("slot", "show").out
    assert shop.sql("SELECT count(*) FROM pg_publication") == [(0,)]
    assert "no snapshot was taken" in shop.run("cdc", code=3).line


def test_delta_is_another_destination_of_the_same_commands(shop):
    shop.run("simulate", "10", "0", "0")
    shop.run("snapshot", "--destination", "delta")
    shop.run("simulate", "5", "2", "1")
    assert "cdc done" in shop.run("cdc", "--destination", "delta").error
    status = json.loads(shop.run("status", "--json", "--destination", "delta").out)
    counts = {t["target"]: t["rows"] for t in status["tables"]}
    assert counts == {t: shop.sql(f"SELECT count(*) FROM {t}")[0][0] for t in TABLES}


def test_dlts_own_snapshot_reader(shop):
    shop.run("simulate", "30", "0", "0")
    done = shop.run("snapshot", SOURCES__PG_REPLICATION__SNAPSHOT_READER="sql_database")
    assert "snapshot done: 3 tables, 30 rows" in done.error
    shop.run("simulate", "5", "5", "5")
    shop.run("cdc")
    _assert_equal(shop)


def test_check_names_what_would_go_wrong(shop):
    with EmbeddedPostgres(bin_dir=os.environ.get(BIN), settings={"wal_level": "replica"}) as server:
        found = shop.run("check", code=3, SOURCES__PG_REPLICATION__CREDENTIALS=server.dsn)
    line = next(line for line in found.out.splitlines() if line.startswith("fail"))
    assert "wal_level" in line
    assert "ALTER SYSTEM SET wal_level = logical" in found.out.replace("'", "")


def test_check_of_an_unreachable_source(shop):
    dsn = "postgresql://app:Zebra77@127.0.0.1:1/shop"
    found = shop.run("check", code=3, SOURCES__PG_REPLICATION__CREDENTIALS=dsn)
    assert "cannot be reached" in found.out
    assert "Zebra77" not in found.out + found.error


def test_snapshot_of_some_tables_leaves_the_others(shop):
    shop.run("simulate", "30", "0", "0")
    shop.run("snapshot")
    shop.run("simulate", "5", "5", "5")
    done = shop.run("snapshot", "--tables", "demo_orders", "public.demo_doc*")
    assert "snapshot done: 2 tables" in done.error
    shop.run("cdc")
    _assert_equal(shop)
    assert "matches none of the 3 tables" in shop.run("snapshot", "--tables", "x", code=2).line


def test_globs_that_match_nothing_leave_nothing_at_the_source(shop):
    shop.run("simulate", "3", "0", "0")
    assert "matches none of the 3 tables" in shop.run("snapshot", "--tables", "x", code=2).line
    assert shop.sql("SELECT pubname FROM pg_publication") == []


def test_slot_is_created_and_dropped_on_its_own(shop):
    assert "created replication slot" in shop.run("slot", "create").error
    assert "exists already" in shop.run("slot", "create", code=2).line
    assert "dropped" in shop.run("slot", "drop").error
    assert "does not exist" in shop.run("slot", "drop").error


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("", 2), ("\n", 1), ("y\n", 0)])
def test_cleanup_asks(shop, answer, code):
    shop.run("simulate", "3", "0", "0")
    shop.run("snapshot")
    shop.monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    done = shop.run("cleanup", code=code)
    assert shop.database in done.error
    kept = shop.sql(f"SELECT count(*) FROM pg_replication_slots WHERE slot_name='{shop.database}'")
    assert kept == [(0 if code == 0 else 1,)]


def test_follow_runs_until_sigterm_and_ends_cleanly(shop):
    shop.run("simulate", "10", "0", "0")
    shop.run("snapshot")
    with shop.spawn("cdc", "--follow") as process:
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stderr))
        reader.start()
        shop.run("simulate", "20", "10", "5")
        _wait(lambda: any("loaded" in line for line in lines))
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        reader.join()
    assert any("stopping after the current batch" in line for line in lines)
    assert "cdc done" in lines[-1]
    shop.run("cdc")
    _assert_equal(shop)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_follow_that_is_stopped_while_it_starts_ends_cleanly(shop, number):
    shop.run("simulate", "10", "0", "0")
    shop.run("snapshot")
    shop.run("simulate", "5", "5", "5")

    def sessions():
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        return set(shop.sql(f"{query} AND pid <> pg_backend_pid()"))

    def imports(process):
        # Before it is another program, the child has what this one has imported.
        own = Path(f"/proc/{process.pid}")
        begun = "--follow" in (own / "cmdline").read_text()
        return begun and "pydantic_core" in (own / "maps").read_text()

    def connects(_process):
        return not sessions() <= before

    for begun in (imports, connects):
        before = sessions()
        with shop.start("cdc", "--follow") as process:
            _wait(partial(begun, process))
            process.send_signal(number)
            _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        assert "Traceback" not in error
    shop.run("cdc")
    _assert_equal(shop)


def test_snapshot_that_is_terminated_is_taken_again(shop):
    shop.sql("CREATE TABLE wide (id int PRIMARY KEY, t text)")
    shop.sql("INSERT INTO wide SELECT i, repeat('x', 500) FROM generate_series(1, 200000) AS i")
    with psycopg.connect(shop.dsn) as application, shop.spawn("snapshot") as process:
        assert "snapshot at LSN" in process.stderr.readline()
        # The reading waits behind this, unless it has begun.
        with suppress(psycopg.errors.LockNotAvailable):
            application.execute("LOCK TABLE wide NOWAIT")
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "interrupted" in error.splitlines()[-1]
    assert "Traceback" not in error
    assert "1 tables, 200,000 rows" in shop.run("snapshot").error
    shop.run("cdc")
    found = shop.lake_sql("SELECT count(*), count(DISTINCT id) FROM bronze.wide")
    assert found == [(200000, 200000)]


def test_interrupted_demo_leaves_nothing_running(shop):
    with shop.start("demo") as process:
        port = None
        while port is None:
            port = re.search(r"start PostgreSQL: .* port (\d+)", process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted" in error
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(port[1]))) != 0


def test_demo_shows_equality_and_leaves_the_file(shop):
    (shop.folder / ".dlt").mkdir()
    (shop.folder / ".dlt" / "config.toml").write_text("[broken")
    shop.monkeypatch.setenv("DLT_PROJECT_DIR", str(shop.folder))
    done = shop.run("demo")
    assert "Source and destination are equal" in done.out
    file = Path(re.search(r"yours to query: (\S+)", done.out)[1])
    with duckdb.connect(str(file), read_only=True) as lake:
        assert lake.execute("SELECT count(*) FROM bronze.demo_orders").fetchone()[0] > 1000
    shutil.rmtree(file.parent)


def test_second_run_on_a_slot_is_refused_and_names_the_first(shop):
    shop.run("simulate", "3", "0", "0")
    shop.run("snapshot")
    with shop.spawn("cdc", "--follow") as process:
        _wait(lambda: shop.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"))
        refused = shop.run("cdc", code=3)
        assert str(process.pid) in refused.line
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
        process.communicate()


def _wait(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("destination", ["duckdb", "delta"])
def test_a_command_that_reads_makes_nothing(shop, destination):
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY)")
    place = str(shop.folder / "deep" / "lakehouse")
    told = {
        ("check",): "0 tables, no checkpoint yet",
        ("status",): "no snapshot was taken yet",
        ("volumes",): "has no volumes",
        ("verify",): "no snapshot was taken yet",
        ("cdc",): "no snapshot was taken yet",
        ("cleanup", "--yes"): "there was nothing",
    }
    for command, sentence in told.items():
        outcome = shop.run(
            *command,
            "--destination",
            destination,
            code=3 if command[0] in ("verify", "cdc") else 0,
            DESTINATION__FILESYSTEM__BUCKET_URL=place,
        )
        assert sentence in outcome.out + outcome.error
        assert not list(shop.folder.iterdir()), command


def test_an_empty_database_is_no_failure(shop):
    checked = shop.run("check").out
    assert "warn tables: none found" in checked
    assert "no table was found" in shop.run("snapshot").error
    assert json.loads(shop.run("status", "--json").out)["tables"] == []


def test_what_is_passed_over_is_named(shop):
    shop.sql(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE _dlt_mine (id int PRIMARY KEY);"
        "CREATE TABLE secret (id int); CREATE VIEW v AS SELECT 1 AS x;"
        "CREATE MATERIALIZED VIEW m AS SELECT 1 AS x; CREATE TEMPORARY TABLE t (id int);"
        "CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;"
        "CREATE FOREIGN TABLE f (id int) SERVER far"
    )
    names = {"public._dlt_mine", "public.secret", "public.v", "public.m", "public.f"}
    environ = {"SOURCES__PG_REPLICATION__EXCLUDE": "secret"}
    for _ in ("before the snapshot", "after it"):
        checked = shop.run("check", **environ).out
        assert "warn public._dlt_mine: passed over" in checked
        assert all(name in checked for name in names)
        status = json.loads(shop.run("status", "--json", **environ).out)
        assert {one["table"] for one in status["passed_over"]} == names
        assert [t["table"] for t in status["tables"]] == ["public.a"]
        shown = shop.run("status", **environ).out
        assert all(f"passed over  {name}: " in shown for name in names)
        shop.run("snapshot", **environ)


def test_what_a_publication_leaves_out_is_named(shop):
    shop.sql("CREATE TABLE a (id int PRIMARY KEY, ssn text, v int)")
    if shop.sql("SELECT current_setting('server_version_num')::int >= 150000") == [(False,)]:
        pytest.skip("no row filters before PostgreSQL 15")
    shop.sql("CREATE PUBLICATION dlt_cdc_pub FOR TABLE a (id, v) WHERE (id > 5)")
    checked = shop.run("check").out
    assert "has a row filter, which applies to the snapshot too: WHERE (id > 5)" in checked
    assert "has a column list that leaves out: ssn" in checked


def test_tables_that_go_stale_are_warned_of(shop):
    shop.sql('CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE "my log" (line text)')
    shop.run("snapshot")
    shop.sql("INSERT INTO a VALUES (1); INSERT INTO \"my log\" VALUES ('new')")
    told = shop.run("cdc").error
    assert told.count("not streamed") == 1
    assert "public.my log has no primary key" in told
    assert 'run: ALTER TABLE "public"."my log" REPLICA IDENTITY FULL' in told
    assert "may not add it" not in told  # nobody has tried
    shop.sql('ALTER TABLE "my log" ADD at int')
    verified = " ".join(shop.run("verify", code=1).out.split())
    assert "not in the destination yet: at; run: pgbronze snapshot --tables" in verified
    # What the line says for until then, and for good.
    shop.run("snapshot", *shlex.split(told.partition("pgbronze snapshot ")[2].splitlines()[0]))
    assert shop.lake_sql('SELECT line FROM bronze."my log"') == [("new",)]
    shop.sql('ALTER TABLE "public"."my log" REPLICA IDENTITY FULL')
    assert "not streamed" not in shop.run("cdc").error


def test_names_that_the_encoding_of_the_output_lacks_are_escaped(shop):
    shop.sql('CREATE TABLE "äß€" (id int PRIMARY KEY)')
    for encoding, shown in (("latin-1", "äß\\u20ac"), ("ascii", "\\xe4\\xdf\\u20ac")):
        process = shop.spawn("plan", PYTHONIOENCODING=encoding)
        process.stdout.reconfigure(encoding=encoding)
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        assert f"public.{shown}" in out
    process = shop.spawn("plan", "--json", PYTHONIOENCODING="ascii")
    out, error = process.communicate(timeout=120)
    assert [table["table"] for table in json.loads(out)["tables"]] == ["public.äß€"], error
