"""`max_retained_wal`: what a transaction that stays open holds back, on a real server."""

from __future__ import annotations

import psycopg

BUDGET = {"SOURCES__PG_REPLICATION__MAX_RETAINED_WAL": "1MB"}


def test_an_open_transaction_uses_up_the_budget(shop):
    shop.sql("CREATE TABLE t (id int PRIMARY KEY, filling text)")
    shop.run("snapshot")
    with psycopg.connect(shop.dsn) as holder:
        holder.execute("INSERT INTO t VALUES (0, 'open')")
        shop.sql("INSERT INTO t SELECT g, repeat('x', 900) FROM generate_series(1, 2000) AS g")
        done = shop.run("cdc", code=3, **BUDGET)
        assert "WARNING replication slot" in done.error
        assert "max_retained_wal (1.0 MB)" in done.line
        assert "pg_stat_activity" in done.line
        assert shop.lake_sql("SELECT count(*) FROM bronze.t") == [(2000,)]
        assert "warning" in shop.run("status", **BUDGET).out
        (line,) = [
            line for line in shop.run("check", **BUDGET).out.splitlines() if "slot shop" in line
        ]
        assert line.startswith("warn ")
        assert "max_retained_wal" in line
        assert "warning" not in shop.run("status").out
    shop.run("cdc", **BUDGET)
    assert shop.lake_sql("SELECT count(*) FROM bronze.t") == [(2001,)]
