"""`_cdc_runs`, `_cdc_run_tables` and `runs`, read with DuckDB and compared with the work."""

from __future__ import annotations

import contextlib
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg

if TYPE_CHECKING:
    import pytest

    from tests.integration.cli.conftest import Shop

TABLES = """
CREATE TABLE orders (id int PRIMARY KEY, n int);
CREATE TABLE heap (n int);
ALTER TABLE heap REPLICA IDENTITY FULL;
CREATE TABLE empty (id int PRIMARY KEY);
INSERT INTO orders SELECT g, 0 FROM generate_series(1, 10) AS g;
INSERT INTO heap SELECT g FROM generate_series(1, 5) AS g;
"""


def read(shop: Shop, table: str) -> list[dict[str, Any]]:
    with duckdb.connect(str(shop.lake), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.sql(f"FROM bronze.{table} ORDER BY ALL").to_arrow_table()
    return sorted(found.to_pylist(), key=lambda row: (row.get("ended_at", 0), row["seq"]))


def runs(shop: Shop) -> list[dict[str, Any]]:
    return read(shop, "_cdc_runs")


def tables_of(shop: Shop, run: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    names = ("target", "inserts", "updates", "deletes", "truncates", "rows_read")
    return {
        row["table_name"]: tuple(row[name] for name in names)
        for row in read(shop, "_cdc_run_tables")
        if row["run_id"] == run["run_id"]
    }


def counts(run: dict[str, Any]) -> tuple[int, ...]:
    names = ("transactions", "inserts", "updates", "deletes", "truncates", "rows_read", "tables")
    return tuple(run[name] for name in names)


def test_the_life_of_a_pipeline(shop: Shop) -> None:
    shop.sql(TABLES)
    assert shop.run("runs").out.strip() == "no runs yet"
    assert not shop.lake.exists()
    shop.run("snapshot")
    (loaded,) = runs(shop)
    assert (loaded["command"], loaded["exit_code"], loaded["error"]) == ("snapshot", 0, None)
    assert counts(loaded) == (0, 0, 0, 0, 0, 15, 3)
    assert (loaded["from_lsn"], loaded["seq"], loaded["batches"]) == (None, 0, 0)
    assert loaded["source_lsn"] >= loaded["to_lsn"] > 0
    assert loaded["lag_bytes"] == loaded["source_lsn"] - loaded["to_lsn"]
    assert loaded["bytes_read"] > 0
    assert loaded["statements"] > 0
    assert loaded["peak_memory_bytes"] > 10_000_000
    assert loaded["started_at"] < loaded["ended_at"]
    assert tables_of(shop, loaded) == {
        "public.empty": ("empty", 0, 0, 0, 0, 0),
        "public.heap": ("heap", 0, 0, 0, 0, 5),
        "public.orders": ("orders", 0, 0, 0, 0, 10),
    }

    shop.sql("INSERT INTO orders SELECT g, 0 FROM generate_series(11, 13) AS g")
    shop.sql("UPDATE orders SET n = 1 WHERE id <= 4; UPDATE orders SET id = 99 WHERE id = 13")
    shop.sql("DELETE FROM orders WHERE id <= 2; DELETE FROM heap WHERE n = 1")
    shop.sql("TRUNCATE empty")
    shop.sql("BEGIN; INSERT INTO orders VALUES (1000, 1); ROLLBACK")
    shop.run("cdc")
    _, streamed = runs(shop)
    assert (streamed["command"], streamed["exit_code"]) == ("cdc", 0)
    assert counts(streamed) == (4, 3, 5, 3, 1, 0, 3)
    assert streamed["from_lsn"] == loaded["to_lsn"]
    assert streamed["from_lsn"] < streamed["to_lsn"] <= streamed["source_lsn"]
    assert streamed["batches"] == 1
    assert streamed["bytes_read"] > 0
    assert 0 <= streamed["lag_seconds"] < 30
    assert streamed["retained_wal_bytes"] >= 0
    assert tables_of(shop, streamed) == {
        "public.empty": ("empty", 0, 0, 0, 1, 0),
        "public.heap": ("heap", 0, 0, 1, 0, 0),
        "public.orders": ("orders", 3, 5, 2, 0, 0),
    }

    shop.run("cdc")
    idle = runs(shop)[-1]
    assert counts(idle) == (0, 0, 0, 0, 0, 0, 0)
    assert (idle["from_lsn"], idle["batches"]) == (streamed["to_lsn"], 0)
    assert tables_of(shop, idle) == {}

    shop.run("verify")
    compared = runs(shop)[-1]
    assert (compared["command"], compared["exit_code"], compared["error"]) == ("verify", 0, None)
    assert counts(compared) == (0, 0, 0, 0, 0, 15, 3)
    assert compared["from_lsn"] == compared["to_lsn"] == idle["to_lsn"]
    assert tables_of(shop, compared)["public.orders"] == ("orders", 0, 0, 0, 0, 11)

    listed = json.loads(shop.run("runs", "--json").out)
    assert [run["run_id"] for run in listed] == [run["run_id"] for run in runs(shop)][::-1]
    assert listed[0].keys() == runs(shop)[0].keys()
    assert len(json.loads(shop.run("runs", "--json", "--limit", "2").out)) == 2
    shown = shop.run("runs").out
    assert [shown.count(word) for word in ("snapshot", "cdc", "verify")] == [1, 2, 1]

    status = json.loads(shop.run("status", "--json").out)
    assert [line["target"] for line in status["tables"]] == ["empty", "heap", "orders"]
    assert "3 tables" in shop.run("check", code=None).out
    shop.run("cleanup", "--yes")
    assert shop.run("runs").out.strip() == "no runs yet"
    assert json.loads(shop.run("runs", "--json").out) == []


def test_queries_of_the_page_give_rows(shop: Shop) -> None:
    page = Path(__file__).parents[3] / "docs" / "how-to" / "monitor.md"
    failed, by_day = re.findall(r"```sql\n(.*?)```", page.read_text(), re.DOTALL)
    shop.sql(TABLES)
    shop.run("snapshot")
    shop.sql("INSERT INTO orders VALUES (11, 1), (12, 1); DELETE FROM heap WHERE n = 1")
    shop.run("cdc")
    shop.sql("DELETE FROM heap")
    shop.run("verify", code=1)
    ((_, command, code, error),) = shop.lake_sql(failed)
    assert (command, code, error) == ("verify", 1, "not equal to the source: public.heap")
    changes = {table: number for _, table, number in shop.lake_sql(by_day)}
    assert changes == {"public.empty": 0, "public.heap": 1, "public.orders": 2}


def test_a_service_reads_the_receipts_of_its_runs(shop: Shop) -> None:
    from cdc_core.runs.recorder import RunRecorder
    from entrypoints.container import Container
    from entrypoints.settings import load_settings

    shop.sql(TABLES)
    container = Container.from_settings(load_settings(environ=shop.environ))
    try:
        container.take_snapshot().run()
        container.stream_changes().run()
        container.runs.override(RunRecorder())
        container.stream_changes().run()
        with container.destination() as destination:
            found = [(r.command, r.exit_code, r.rows_read) for r in destination.receipts(10)]
    finally:
        container.shutdown_resources()
    assert found == [("cdc", 0, 0), ("snapshot", 0, 15)]


def test_repaired_rows_are_changes(shop: Shop) -> None:
    shop.sql(TABLES)
    shop.run("snapshot")
    with duckdb.connect(str(shop.lake)) as connection:
        connection.execute("DELETE FROM bronze.orders WHERE id = 1")
        connection.execute("UPDATE bronze.orders SET n = 7 WHERE id IN (2, 3)")
        connection.execute("INSERT INTO bronze.orders VALUES (77, 7, 0, NULL)")
    shop.run("verify", code=1)
    differs = runs(shop)[-1]
    assert (differs["exit_code"], differs["inserts"]) == (1, 0)
    assert differs["error"] == "not equal to the source: public.orders"
    shop.run("verify", "--repair")
    repaired = runs(shop)[-1]
    assert (repaired["exit_code"], repaired["error"]) == (0, None)
    assert counts(repaired) == (0, 1, 2, 1, 0, 15, 3)


def test_a_run_that_fails_leaves_its_line(shop: Shop) -> None:
    shop.sql(TABLES)
    outcome = shop.run("cdc", code=3)
    assert not shop.lake.exists()
    shop.run("snapshot")
    shop.sql(f"SELECT pg_drop_replication_slot('{shop.database}')")
    outcome = shop.run("cdc", code=3)
    failed = runs(shop)[-1]
    assert (failed["command"], failed["exit_code"], failed["seq"]) == ("cdc", 3, 0)
    assert outcome.line == f"pgbronze: {failed['error']}"
    assert failed["from_lsn"] == failed["to_lsn"] == runs(shop)[0]["to_lsn"]
    shown = shop.run("runs").out
    assert "exit 3" in shown
    assert failed["error"] in shown
    # It never reached the destination.
    shop.run("cdc", code=2, SOURCES__PG_REPLICATION__SLOT_NAME="not valid!")
    assert len(runs(shop)) == 2


def test_a_secret_in_an_error_is_redacted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from cdc_core.use_cases import stream_changes
    from cdc_core.values.errors import OperatorNeeded

    shop.sql(TABLES)
    shop.run("snapshot")

    secret = psycopg.conninfo.conninfo_to_dict(shop.dsn)["password"]

    def refuse(*_: object, **__: object) -> None:
        raise OperatorNeeded(f"the password {secret} is wrong")

    monkeypatch.setattr(stream_changes, "continuity_break", refuse)
    shop.run("cdc", code=3)
    failed = runs(shop)[-1]
    assert failed["exit_code"] == 3
    assert failed["error"].startswith("the password ")
    assert str(secret) not in failed["error"]


def test_a_run_that_follows_ends_with_a_row(shop: Shop) -> None:
    shop.sql(TABLES)
    shop.run("snapshot")
    process = shop.spawn("cdc", "--follow")
    try:
        shop.sql("INSERT INTO orders SELECT g, 0 FROM generate_series(11, 20) AS g")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(duckdb.IOException):
                if shop.lake_sql("SELECT count(*) FROM bronze.orders") == [(20,)]:
                    break
            time.sleep(0.2)
        shop.sql("DELETE FROM orders WHERE id > 18")
        time.sleep(2)
    finally:
        process.terminate()
        _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    (followed,) = [run for run in runs(shop) if run["command"] == "cdc"]
    assert (followed["exit_code"], followed["seq"]) == (0, 0)
    assert counts(followed) == (2, 10, 0, 2, 0, 0, 1)
    assert followed["batches"] >= 2
    assert followed["lag_bytes"] >= 0


def test_they_can_be_switched_off_and_never_fail_a_run(shop: Shop) -> None:
    shop.sql(TABLES)
    shop.run("snapshot", PIPELINE__RECEIPTS="false")
    assert shop.run("runs").out.strip() == "no runs yet"
    with duckdb.connect(str(shop.lake)) as connection:
        connection.execute("CREATE TABLE bronze._cdc_runs (something int NOT NULL)")
    outcome = shop.run("cdc")
    assert "receipt was not written" in outcome.error


def test_old_rows_are_deleted(shop: Shop) -> None:
    shop.sql(TABLES)
    shop.run("snapshot")
    with duckdb.connect(str(shop.lake)) as connection:
        for table in ("_cdc_runs", "_cdc_run_tables"):
            connection.execute(f"UPDATE bronze.{table} SET run_id = 'old'")
        connection.execute("UPDATE bronze._cdc_runs SET ended_at = ended_at - INTERVAL 8 DAY")
    shop.run("cdc", PIPELINE__RECEIPTS_KEEP_DAYS="9")
    assert len(runs(shop)) == 2
    shop.run("cdc", PIPELINE__RECEIPTS_KEEP_DAYS="7")
    assert "old" not in {run["run_id"] for run in runs(shop)}
    assert read(shop, "_cdc_run_tables") == []


def test_tables_of_the_source_with_these_names_get_other_names(shop: Shop) -> None:
    shop.sql('CREATE TABLE "_cdc_runs" (id int PRIMARY KEY); INSERT INTO "_cdc_runs" VALUES (1)')
    shop.run("snapshot")
    assert shop.lake_sql('SELECT id FROM bronze."_cdc_runs_2"') == [(1,)]
    shop.run("verify")
    assert [run["command"] for run in runs(shop)] == ["snapshot", "verify"]
